"""Reads the pickles in PyTorch's .pth files without running anything.

A pickle is a program that may call any function. This module interprets it
with the few instructions that `torch.save` writes for a dictionary of tensors,
in the pickle protocols 2 to 5. It makes only dictionaries, lists, tuples,
numbers, text and `Tensor`s.
"""

import itertools
import math
import mmap
import pickletools
import sys
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from hatebm_jax.convert.network import Shape

# An instruction of one byte makes a dictionary of 64 bytes. The file of a
# thousand tensors has about 30,000 instructions.
_MAX_INSTRUCTIONS = 300_000


class Storage(NamedTuple):
  """Array of values that one or several tensors are views of.

  Attributes:
    key: Name of the storage in the file.
    dtype: Type of the values.
    size: Number of values.
  """

  key: str
  dtype: np.dtype
  size: int


class Tensor(NamedTuple):
  """Place of a tensor's values.

  Attributes:
    storage: Storage that holds the values.
    offset: Index of the first element in the storage.
    shape: Shape of the tensor.
    strides: Strides of the tensor in elements.
  """

  storage: Storage
  offset: int
  shape: Shape
  strides: Shape

  @property
  def dtype(self) -> np.dtype:
    """Type of the elements."""
    return self.storage.dtype


def interpret(pickle: bytes | mmap.mmap) -> tuple[Any, list[Storage]]:
  """Reads a pickle.

  Args:
    pickle: Pickle, or an open file, whose position is then after the pickle.

  Returns:
    The object that the pickle describes, and the storages that it names.

  Raises:
    ValueError: If the pickle is no dictionary of tensors as PyTorch saves it.
      Damaged pickles raise IndexError, KeyError, OverflowError and TypeError
      too.
  """
  stack, marks, memo, storages = [], [], {}, []
  instructions = pickletools.genops(pickle)
  for opcode, argument, _ in itertools.islice(instructions, _MAX_INSTRUCTIONS):
    name = opcode.name
    if name in _PUSH:
      stack.append(argument)
    elif name in _PUSH_NEW:
      stack.append(_PUSH_NEW[name]())
    elif name in _TAKE:
      _take(name, stack, marks)
    elif name == "GLOBAL":
      stack.append(_global(argument))
    elif name == "BINPERSID":
      storages.append(_storage(*stack.pop()))
      stack.append(storages[-1])
    elif name == "MARK":
      marks.append(len(stack))
    elif name in ("BINPUT", "LONG_BINPUT"):
      memo[argument] = stack[-1]
    elif name == "MEMOIZE":
      memo[len(memo)] = stack[-1]
    elif name in ("BINGET", "LONG_BINGET"):
      stack.append(memo[argument])
    elif name == "STOP":
      return stack.pop(), storages
    elif name not in ("PROTO", "FRAME"):
      raise ValueError(f"the instruction {name}, which is refused")
  raise ValueError("it has no end, or is longer than any of tensors")


def _take(name: str, stack: list, marks: list[int]) -> None:
  """Runs an instruction that takes values from the stack."""
  number, function = _TAKE[name]
  start = marks.pop() if number is None else len(stack) - number
  if start < (marks[-1] if marks else 0) or start > len(stack):
    raise ValueError(f"{name} finds too little on the stack")
  items = stack[start:]
  del stack[start:]
  function(stack, items)


def _global(name: Any) -> Any:
  """Returns what stands for a global, such as `torch FloatStorage`."""
  if name not in _GLOBALS:
    raise ValueError(f"it asks for {name[:80]!r}, which is refused")
  return _GLOBALS[name]


def _push_global(stack: list, items: list) -> None:
  if not all(isinstance(item, str) for item in items):
    raise ValueError("a global whose name is no text")
  stack.append(_global(" ".join(items)))


def _storage(kind, dtype, key, location, size, view=None) -> Storage:
  """Checks what a pickle says about a file of values."""
  del location  # It is the device that the tensor was on.
  if view is not None:
    raise ValueError("a storage that is a view of another one")
  if kind != "storage" or not isinstance(dtype, np.dtype):
    raise ValueError("a persistent object that is no storage of numbers")
  if not isinstance(key, str) or not _is_natural(size):
    raise ValueError("a storage without name or size")
  return Storage(key, dtype, size)


def _tensor(storage, offset, shape, strides, *_) -> Tensor:
  """Checks that a tensor lies within its storage."""
  if not isinstance(storage, Storage):
    raise ValueError("a tensor without storage")
  if not isinstance(shape, tuple) or not isinstance(strides, tuple):
    raise ValueError("a tensor without shape or strides")
  if not all(map(_is_natural, (offset, *shape, *strides))):
    raise ValueError("a tensor whose shape, strides or offset are no numbers")
  last = offset + sum(
    (size - 1) * stride for size, stride in zip(shape, strides, strict=True)
  )
  # Strides of zero make a large tensor of few values. The first bound is for
  # them.
  if math.prod(shape) > storage.size or last >= storage.size:
    raise ValueError(f"a tensor {shape} beyond its {storage.size} values")
  return Tensor(storage, offset, shape, strides)


def _parameter(tensor, *_) -> Tensor:
  """Returns the tensor of an `nn.Parameter`."""
  if not isinstance(tensor, Tensor):
    raise ValueError("a parameter without tensor")
  return tensor


def _is_natural(x: Any) -> bool:
  return type(x) is int and 0 <= x <= sys.maxsize


def _call(stack: list, items: list) -> None:
  """Makes one of the calls that `torch.save` writes."""
  function, arguments = items
  if function is dict and arguments == ():
    stack.append({})
  elif function in (_tensor, _parameter) and isinstance(arguments, tuple):
    stack.append(function(*arguments))
  else:
    raise ValueError("a call that is not of a tensor")


def _extend(stack: list, items: list) -> None:
  if not isinstance(stack[-1], list):
    raise ValueError("elements for what is no list")
  stack[-1].extend(items)


def _set_items(stack: list, items: list) -> None:
  keys, values = items[::2], items[1::2]
  if not isinstance(stack[-1], dict):
    raise ValueError("items for what is no dictionary")
  # Hashing a tuple of tuples may take for ever.
  if not all(isinstance(key, str | int) for key in keys):
    raise ValueError("a key that is neither text nor a number")
  stack[-1].update(zip(keys, values, strict=True))


def _push_tuple(stack: list, items: list) -> None:
  stack.append(tuple(items))


# A pickle may name only these. Anything else ends the reading.
_GLOBALS = {
  "collections OrderedDict": dict,
  "torch._utils _rebuild_parameter": _parameter,
  "torch._utils _rebuild_tensor_v2": _tensor,
} | {
  f"torch {name}Storage": np.dtype(kind)
  for name, kind in {
    "Bool": "?",
    "Byte": "u1",
    "Char": "i1",
    "Short": "i2",
    "Int": "i4",
    "Long": "i8",
    "Half": "f2",
    "BFloat16": jnp.bfloat16,
    "Float": "f4",
    "Double": "f8",
  }.items()
}

# Instructions have their names in `pickletools`. These push their argument.
_PUSH = (
  "BINUNICODE",
  "SHORT_BINUNICODE",
  "BININT",
  "BININT1",
  "BININT2",
  "LONG1",
  "BINFLOAT",
)
# These push a new value.
_PUSH_NEW = {
  "NONE": lambda: None,
  "NEWTRUE": lambda: True,
  "NEWFALSE": lambda: False,
  "EMPTY_TUPLE": tuple,
  "EMPTY_LIST": list,
  "EMPTY_DICT": dict,
}
# These take values from the stack: how many (None: all after the last mark),
# and what is done with them.
_TAKE = {
  "STACK_GLOBAL": (2, _push_global),
  "TUPLE": (None, _push_tuple),
  "TUPLE1": (1, _push_tuple),
  "TUPLE2": (2, _push_tuple),
  "TUPLE3": (3, _push_tuple),
  "APPEND": (1, _extend),
  "APPENDS": (None, _extend),
  "SETITEM": (2, _set_items),
  "SETITEMS": (None, _set_items),
  "REDUCE": (2, _call),
  # The attributes of a state_dict, versions of its modules, are dropped.
  "BUILD": (1, lambda stack, items: None),
}
