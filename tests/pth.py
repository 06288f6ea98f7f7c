"""Writes valid and invalid .pth files without PyTorch."""

import io
import pickle
import pickletools
import zipfile


def text(value):
  return b"X" + len(value).to_bytes(4, "little") + value.encode()


def number(value):
  return b"J" + value.to_bytes(4, "little", signed=True)


def numbers(values):
  return b"(" + b"".join(map(number, values)) + b"t"


def call(name, *arguments):
  """Returns the instructions of a pickle that call `module name`."""
  return (
    b"c"
    + name.replace(" ", "\n").encode()
    + (b"\n(" + b"".join(arguments) + b"tR")
  )


def tensor(size, offset, shape, strides, key="0", kind="FloatStorage"):
  """Returns the instructions that make a tensor from a storage.

  The storage has `size` numbers.
  """
  storage = b"(" + text("storage") + f"ctorch\n{kind}\n".encode()
  storage += text(key) + text("cpu") + number(size) + b"tQ"
  return call(
    "torch._utils _rebuild_tensor_v2",
    storage,
    number(offset),
    numbers(shape),
    numbers(strides),
    b"\x89",
    call("collections OrderedDict"),
  )


def parameter(tensor):
  """Returns the instructions that make an nn.Parameter of a tensor."""
  return call(
    "torch._utils _rebuild_parameter",
    tensor,
    b"\x88",
    call("collections OrderedDict"),
  )


def dictionary(**items):
  """Returns the instructions that make a dictionary of other objects."""
  pairs = b"".join(text(key) + value for key, value in items.items())
  return b"}(" + pairs + b"u"


def write(path, instructions, compression=zipfile.ZIP_STORED, **storages):
  """Writes a .pth with a pickle and the bytes of storages, by name."""
  with zipfile.ZipFile(path, "w", compression) as archive:
    archive.writestr("net/data.pkl", b"\x80\x02" + instructions + b".")
    for key, values in storages.items():
      archive.writestr(f"net/{key.replace('_', '/')}", values)
  return path


def write_old(path, instructions, *, machine=None, **storages):
  """Writes a .pth in the format before PyTorch 1.6.

  Storages are bytes of float32.
  """
  machine = machine or {"protocol_version": 1001, "little_endian": True}
  parts = [
    pickle.dumps(0x1950A86A20F9469CFC6C, 2),
    pickle.dumps(1001, 2),
    pickle.dumps(machine, 2),
    b"\x80\x02" + instructions + b".",
    pickle.dumps(list(storages), 2),
  ]
  for values in storages.values():
    parts += [(len(values) // 4).to_bytes(8, "little"), values]
  path.write_bytes(b"".join(parts))
  return path


def edit(path, target, change):
  """Writes a changed copy of a .pth.

  Args:
    path: Path of the .pth.
    target: Path of the copy.
    change: Function (name, content) -> new content of a file inside. None
      leaves the file out.
  """
  buffer = io.BytesIO()
  with zipfile.ZipFile(path) as old, zipfile.ZipFile(buffer, "w") as new:
    for name in old.namelist():
      content = change(name.partition("/")[2], old.read(name))
      if content is not None:
        new.writestr(name, content)
  target.write_bytes(buffer.getvalue())
  return target


def translate(pickled, protocol=2, change=lambda value: value):
  """Returns a pickle of protocol 2 in another protocol.

  Args:
    pickled: Pickle that was written in protocol 2.
    protocol: Protocol of the new pickle, 2 to 5.
    change: Function of each text; its result takes the place of the text.
  """
  framed = protocol > 3
  result = b""
  starts = [position for _, _, position in pickletools.genops(pickled)]
  ends = [*starts[1:], len(pickled)]
  opcodes = pickletools.genops(pickled)
  for (opcode, argument, start), end in zip(opcodes, ends, strict=True):
    if opcode.name == "PROTO":
      continue
    if opcode.name == "BINUNICODE":
      result += text(change(argument))
    elif opcode.name == "GLOBAL" and framed:
      result += b"".join(map(text, argument.split(" "))) + b"\x93"
    elif opcode.name in ("BINPUT", "LONG_BINPUT") and framed:
      result += b"\x94"
    else:
      result += pickled[start:end]
  head = b"\x80" + bytes([protocol])
  if framed:
    head += b"\x95" + len(result).to_bytes(8, "little")
  return head + result
