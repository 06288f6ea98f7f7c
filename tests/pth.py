"""Writes valid and invalid .pth files without PyTorch."""

import io
import pickle
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
