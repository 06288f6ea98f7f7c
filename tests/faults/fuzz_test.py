"""Files that are damaged at random: read right, or an error of ours.

A valid file of each kind is changed; what comes out must be an error that says
what to do, or pass a check that does not know the reader. Nothing else is
raised, nothing hangs, and no reader claims memory that the file has not got.
The short runs repeat themselves; `-m slow` looks further, at random.
"""

import contextlib
import copy
import gc
import hashlib
import io
import json
import math
import pickle
import signal
import zipfile
from pathlib import Path

import hypothesis
import jax
import jax.numpy as jnp
import memory
import numpy as np
import pth
import pytest
import tf_table
import tiny
from hypothesis import strategies as st

from hatebm_jax import config as config_lib
from hatebm_jax import convert, data, errors, report
from hatebm_jax.convert import tf_file, torch_file, torch_pickle
from hatebm_jax.metrics import moments
from hatebm_jax.models.hat import Hat
from hatebm_jax.run import changes as changes_lib
from hatebm_jax.run import checkpoint, divergence, logs, npz, weights, workdir

FIXTURES = Path(__file__).parents[1] / "fixtures" / "parity"
MAX_MEMORY, MAX_SECONDS = 200e6, 30
NUM_SLOW = 2_000


def counts(short, slow=NUM_SLOW):
  return pytest.mark.parametrize(
    "count", [short, pytest.param(slow, marks=pytest.mark.slow)]
  )


class Hang(BaseException):
  """No Exception: no reader may catch it."""


@contextlib.contextmanager
def watched(bounded):
  """Bounds time, and memory by a context of `memory`."""

  def stop(*_):
    raise Hang

  old = signal.signal(signal.SIGALRM, stop)
  signal.alarm(MAX_SECONDS)
  try:
    with bounded(MAX_MEMORY):
      yield
  finally:
    signal.alarm(0)
    signal.signal(signal.SIGALRM, old)


def fuzz(count, strategy, read, check, bounded=memory.claims_less_than):
  """Draws examples; `check` is given what `read` makes of one without error."""
  outcomes = {"read": 0, "refused": 0}

  @hypothesis.settings(
    max_examples=count,
    derandomize=count < 500,
    database=None,
    deadline=None,
    suppress_health_check=list(hypothesis.HealthCheck),
  )
  @hypothesis.given(strategy)
  def run(drawn):
    with watched(bounded):
      try:
        result = read(drawn)
      except errors.UserError as error:
        assert str(error)
        outcomes["refused"] += 1
        return
    outcomes["read"] += 1
    check(drawn, result)

  run()
  print(outcomes)
  return outcomes


# Changes of bytes.

NASTY = [
  b"\xff",
  b"\0",
  b"\xff" * 4,
  b"\0" * 4,
  b"\xff" * 8,
  b"\0" * 8,
  b"\x7f" + b"\xff" * 7,
  b"\xff" * 7 + b"\x7f",
  (2**31).to_bytes(4, "little"),
  (2**40).to_bytes(8, "little"),
  b"PK\1\2",
  b"PK\3\4",
  b"PK\5\6",
  b"(" * 500,
  b"[" * 3000,
  b"9" * 5000,
]
CHANGE = st.tuples(
  st.sampled_from(
    ["flip", "flip", "flip", "write", "write", "insert", "cut", "end", "copy"]
  ),
  st.integers(0, 2**20),
  st.sampled_from(NASTY) | st.binary(min_size=1, max_size=12),
)
# One alone gets further than several.
CHANGES = CHANGE.map(lambda x: [x]) | st.lists(CHANGE, min_size=1, max_size=4)


def changed(content, changes):
  """Returns bytes after drawn changes."""
  content = bytearray(content)
  for kind, place, value in changes:
    # Half of them in the last 200 bytes, where directories and footers are.
    span = len(content) if place & 1 else min(len(content), 200)
    at = len(content) - span + (place >> 1) % (span + 1)
    if kind == "flip" and at < len(content):
      content[at] ^= 1 << value[0] % 8
    elif kind == "write":
      content[at : at + len(value)] = value
    elif kind == "insert":
      content[at:at] = value
    elif kind == "cut":
      del content[at : at + len(value)]
    elif kind == "end":
      del content[at:]
    elif kind == "copy":
      content[at:at] = content[: len(value)]
  return bytes(content)


def with_part(content, index, change):
  """Rewrites a zip with one part changed, its checksum right again."""
  buffer = io.BytesIO()
  with (
    zipfile.ZipFile(io.BytesIO(content)) as old,
    zipfile.ZipFile(buffer, "w") as new,
  ):
    for i, name in enumerate(old.namelist()):
      part = old.read(name)
      if i == index % len(old.namelist()):
        part = change(part)
      new.writestr(name, part)
  return buffer.getvalue()


# .npz.

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (5, 4, 4, 3), np.uint8)
HAT = Hat(widths=(2, 3), num_downs=1)
MOMENTS = moments.compute(RNG.normal(size=(9, 3)))


@pytest.fixture(scope="module", name="archives")
def npz_archives(tmp_path_factory):
  """Contents of valid files: stored, deflated, moments, weights."""
  path = tmp_path_factory.mktemp("archives") / "x.npz"
  contents = []
  for save in (np.savez, np.savez_compressed):
    save(path, images=IMAGES, label=np.array("text"))
    contents.append(path.read_bytes())
  moments.save(path, MOMENTS)
  contents.append(path.read_bytes())
  structs = jax.eval_shape(HAT.init, jax.random.key(0), IMAGES[:1] / 1.0)
  weights = jax.tree.map(lambda x: np.full(x.shape, 0.5, np.float32), structs)
  convert.save_npz(path, HAT, weights)
  return [*contents, path.read_bytes()]


def read_npz(path, kind):
  if kind < 2:
    return npz.arrays(path, ["images"], optional=["label"])
  if kind == 2:
    return moments.load(path, 3)._asdict()
  module, variables = convert.load_npz(path)
  assert isinstance(module, Hat)
  leaves = jax.tree.leaves(variables)
  return dict(enumerate(map(np.asarray, leaves)))


@counts(150)
def test_npz_bytes(archives, tmp_path, count):
  path = tmp_path / "x.npz"

  def read(drawn):
    kind, changes = drawn
    path.write_bytes(changed(archives[kind], changes))
    return read_npz(path, kind)

  def check(drawn, result):
    # Names and values have checksums: what is read is what was written.
    if drawn[0] < 2:
      np.testing.assert_array_equal(result["images"], IMAGES)
    elif drawn[0] == 2:
      np.testing.assert_array_equal(result["mean"], MOMENTS.mean)
      np.testing.assert_array_equal(result["covariance"], MOMENTS.covariance)
    else:
      assert all((x == 0.5).all() for x in result.values())

  found = fuzz(count, st.tuples(st.integers(0, 3), CHANGES), read, check)
  assert min(found.values())


@counts(150)
def test_npz_parts(archives, tmp_path, count):
  path = tmp_path / "x.npz"

  def read(drawn):
    kind, part, changes = drawn
    change = lambda content: changed(content, changes)
    path.write_bytes(with_part(archives[kind], part, change))
    return read_npz(path, kind)

  def check(drawn, result):
    del drawn
    size = path.stat().st_size
    assert sum(np.asarray(x).nbytes for x in result.values()) <= size
    with np.load(path) as found:
      for name in {"images", "label"} & result.keys():
        np.testing.assert_array_equal(result[name], found[name])

  drawn = st.tuples(st.integers(0, 3), st.integers(0, 20), CHANGES)
  assert min(fuzz(count, drawn, read, check).values())


def header(descr, order, shape):
  return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}"


ODD_TYPES = ["'|O'", "'<f99'", "'(9,)f4'", "[('a', '<f4')]", "'f4,f4'", "None"]
ODD_TYPES += ["'<M8[D]'", "'|V9999999'", "'<U536870911'", "'<U0'", "{}"]
ODD_SIZES = st.sampled_from([0, 1, 2, 6, -1, 2**31, 2**63, True])
LENGTHS = st.sampled_from([0, 1, 4, 24, 96])
# Headers and how many bytes follow: right, nearly right, and anything.
HEADERS = st.one_of(
  st.builds(
    lambda code, order, shape, more: (
      header(f"'{code}'", order, tuple(shape)),
      np.dtype(code).itemsize * math.prod(shape) + more,
    ),
    st.sampled_from(["<f4", ">f8", "|u1", "|b1", "<c8", "<U3", "|S2"]),
    st.booleans(),
    st.lists(st.integers(0, 3), max_size=4),
    st.sampled_from([0, 0, 0, 1]),
  ),
  st.tuples(
    st.builds(
      header,
      st.sampled_from([*ODD_TYPES, "'<f4'"]) | st.text(max_size=9).map(repr),
      st.sampled_from(["True", "False", "1"]),
      st.lists(ODD_SIZES, max_size=70).map(tuple),
    ),
    LENGTHS,
  ),
  st.tuples(
    st.text(st.sampled_from("({['\"-1+j,:\\ \n#Tx"), max_size=300), LENGTHS
  ),
)


@counts(150)
def test_npz_headers(tmp_path, count):
  path = tmp_path / "x.npz"

  def read(drawn):
    (text, length), version = drawn
    text = text.encode(errors="surrogatepass")
    size = len(text).to_bytes(2 if version == 1 else 4, "little")
    content = b"\x93NUMPY" + bytes([version, 0]) + size + text + bytes(length)
    with zipfile.ZipFile(path, "w") as archive:
      archive.writestr("x.npy", content)
    return npz.arrays(path, ["x"])["x"]

  def check(drawn, result):
    assert result.nbytes == drawn[0][1]
    with np.load(path) as found:
      np.testing.assert_array_equal(found["x"], result)

  drawn = st.tuples(HEADERS, st.integers(1, 3))
  assert min(fuzz(count, drawn, read, check).values())


# .pth.

VALUES = np.arange(6, dtype="<f4")
STATE = pth.dictionary(
  a=pth.tensor(6, 1, (2,), (1,), key="0"),
  b=pth.tensor(6, 0, (2, 3), (1, 2), key="0"),
)
EXPECTED = {"a": VALUES[1:3], "b": VALUES.reshape(3, 2).T}


def read_pth(path):
  """Reads all tensors, after a converter has looked at the file."""
  with contextlib.suppress(convert.ConvertError):
    convert.from_mimicry(path)
  found = torch_file.load(path)
  found = found if isinstance(found, dict) else {}
  tensors = {
    k: v for k, v in found.items() if isinstance(v, torch_pickle.Tensor)
  }
  return torch_file.read(path, tensors)


def check_size(path, result):
  assert sum(x.nbytes for x in result.values()) <= path.stat().st_size


@counts(150)
@pytest.mark.parametrize("is_old", [False, True])
def test_pth_bytes(tmp_path, count, is_old):
  path = tmp_path / "x.pth"
  if is_old:
    pth.write_old(path, STATE, **{"0": VALUES.tobytes()})
  else:
    pth.write(path, STATE, data_0=VALUES.tobytes())
  content = path.read_bytes()

  def read(changes):
    path.write_bytes(changed(content, changes))
    return read_pth(path)

  def check(changes, result):
    check_size(path, result)
    if not is_old:  # It has checksums.
      assert result.keys() == EXPECTED.keys()
      for name, value in EXPECTED.items():
        np.testing.assert_array_equal(result[name], value)

  assert min(fuzz(count, CHANGES, read, check).values())


@counts(20, 800)
@pytest.mark.parametrize("name", ["netG", "netD"])
def test_mimicry(tmp_path, count, name):
  path = tmp_path / "x.pth"
  source = FIXTURES / "mimicry32" / f"{name}.pth"
  content = source.read_bytes()
  expected = convert.from_mimicry(source)

  def read(changes):
    path.write_bytes(changed(content, changes))
    return convert.from_mimicry(path)

  def check(changes, result):
    assert result[0] == expected[0]
    jax.tree.map(np.testing.assert_array_equal, result[1], expected[1])

  fuzz(count, CHANGES, read, check)


@counts(150)
def test_pth_parts(tmp_path, count):
  path = pth.write(tmp_path / "x.pth", STATE, data_0=VALUES.tobytes())
  content = path.read_bytes()

  def read(drawn):
    part, changes = drawn
    change = lambda content: changed(content, changes)
    path.write_bytes(with_part(content, part, change))
    return read_pth(path)

  check = lambda _, result: check_size(path, result)
  drawn = st.tuples(st.integers(0, 1), CHANGES)
  assert min(fuzz(count, drawn, read, check).values())


SIZES = st.sampled_from([0, 1, 2, 3, 6, 2**31 - 1, -1])
TENSORS = st.builds(
  lambda size, offset, shape, kind: pth.tensor(
    size, offset, [x for x, _ in shape], [x for _, x in shape], kind=kind
  ),
  SIZES,
  SIZES,
  st.lists(st.tuples(SIZES, SIZES), max_size=4),
  st.sampled_from(["FloatStorage", "LongStorage", "BoolStorage", "x"]),
)
# Pieces that a description has, and pieces that it never has.
PIECES = st.one_of(
  TENSORS,
  st.sampled_from([bytes([x]) for x in b"()]}0123NtsuaebQR\x85\x86\x87\x88"]),
  st.sampled_from(
    [b"q\0", b"h\0", b"r\0\0\0\0", b"j\0\0\0\0", b"\x94", b"\x93"]
  ),
  st.sampled_from(
    ["model_state_dict", "l1.weight", "block1.c1.weight_orig"]
  ).map(pth.text),
  st.sampled_from(
    [
      "collections OrderedDict",
      "torch FloatStorage",
      "torch._utils _rebuild_parameter",
      "os system",
    ]
  ).map(lambda x: b"c" + x.replace(" ", "\n").encode() + b"\n"),
  st.integers(-(2**31), 2**31 - 1).map(pth.number),
  st.binary(max_size=255).map(lambda x: b"\x8a" + bytes([len(x)]) + x),
  st.sampled_from([b"\x8b", b"X", b"B", b"T", b"\x8d", b"\x8e", b"\x96"]).map(
    lambda x: x + b"\xff\xff\xff\x7f"
  ),
  st.binary(max_size=4),
)


@counts(150)
def test_pth_programs(tmp_path, count):
  path = tmp_path / "x.pth"

  def read(drawn):
    pieces, is_old = drawn
    program = b"}(" + b"".join(pieces)
    if is_old:
      pth.write_old(path, program, **{"0": VALUES.tobytes()})
    else:
      pth.write(path, program, data_0=VALUES.tobytes())
    return read_pth(path)

  check = lambda _, result: check_size(path, result)
  fuzz(
    count, st.tuples(st.lists(PIECES, max_size=30), st.booleans()), read, check
  )


OBJECTS = st.recursive(
  st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
  lambda x: (
    st.lists(x) | st.dictionaries(st.text() | st.integers(), x) | st.tuples(x)
  ),
  max_leaves=20,
)


@counts(150)
def test_pth_of_plain_python(tmp_path, count):
  # Protocol 2 is what `torch.save` writes.
  path = tmp_path / "x.pth"

  def read(drawn):
    value, protocol = drawn
    with zipfile.ZipFile(path, "w") as archive:
      archive.writestr("x/data.pkl", pickle.dumps(value, protocol))
    return torch_file.load(path)

  # A NaN does not equal itself, so texts are compared.
  check = lambda drawn, result: repr(result) == repr(drawn[0]) or pytest.fail()
  found = fuzz(count, st.tuples(OBJECTS, st.integers(0, 5)), read, check)
  assert min(found.values())


# TensorFlow's checkpoints.

CHECKPOINT = FIXTURES / "sngan32" / "ebm.ckpt"
SHARD = ".data-00000-of-00001"


def read_tf(prefix):
  return {
    name: tf_file.read(name, variable)
    for name, variable in tf_file.table(prefix).items()
    if variable.dtype == "float32"
  }


@counts(40, 1_200)
@pytest.mark.parametrize("suffix", [".index", SHARD])
def test_tf_bytes(tmp_path, count, suffix):
  prefix = str(tmp_path / "ebm.ckpt")
  contents = {
    x: Path(f"{CHECKPOINT}{x}").read_bytes() for x in (".index", SHARD)
  }
  for name, content in contents.items():
    Path(prefix + name).write_bytes(content)
  expected = read_tf(prefix)

  def read(changes):
    Path(prefix + suffix).write_bytes(changed(contents[suffix], changes))
    return read_tf(prefix)

  def check(changes, result):
    assert result.keys() == expected.keys()
    for name, value in expected.items():
      np.testing.assert_array_equal(result[name], value)

  assert fuzz(count, CHANGES, read, check)["refused"]


@counts(30, 600)
@pytest.mark.parametrize("is_block_of_blocks", [False, True])
def test_tf_blocks(tmp_path, count, is_block_of_blocks):
  # The checksum is made right again, so that the damage reaches the reader.
  prefix = str(tmp_path / "ebm.ckpt")
  Path(prefix + SHARD).write_bytes(Path(f"{CHECKPOINT}{SHARD}").read_bytes())
  content = Path(f"{CHECKPOINT}.index").read_bytes()
  numbers, at = [], len(content) - 48
  for _ in range(4):
    number, at = tf_file._varint(content, at)
    numbers.append(number)
  start, size = numbers[2:]
  # The file has a block of entries, a block of statistics, the block of blocks.
  entries, statistics = content[: numbers[0]], content[numbers[0] : start]
  blocks = content[start : start + size + 5]

  def read(changes):
    if is_block_of_blocks:
      block = tf_table.checksummed(changed(blocks[:-4], changes))
      end = tf_table.footer(start, max(len(block) - 5, 0))
      table = entries + statistics + block + end
    else:
      block = tf_table.checksummed(changed(entries[:-4], changes))
      table = block.ljust(len(entries), b"\0")[: len(entries)]
      table += content[len(entries) :]
    Path(prefix + ".index").write_bytes(table)
    with contextlib.suppress(convert.ConvertError):
      convert.from_tf2(prefix)
    return read_tf(prefix)

  def check(changes, result):
    del changes
    size = Path(prefix + SHARD).stat().st_size
    assert all(x.nbytes <= size for x in result.values())

  fuzz(count, CHANGES, read, check)


# The weights of a release.

WEIGHTS = {
  "hat/params/kernel": RNG.normal(size=(3, 4)),
  "hat/params/bias": np.float32([1, 2]),
}


def read_release(folder):
  release = weights.opened(folder)
  step = release.newest_whole()
  abstract = {
    name: jax.ShapeDtypeStruct(np.shape(x), x.dtype)
    for name, x in WEIGHTS.items()
  }
  return release.restore(step, abstract)


def check_release(_, result):
  for name, expected in WEIGHTS.items():
    np.testing.assert_array_equal(result[name], expected)


@counts(60, 1_200)
def test_release_bytes(tmp_path, count):
  weights.save(tmp_path, 3, WEIGHTS)
  content = (tmp_path / weights.FILE).read_bytes()

  def read(changes):
    (tmp_path / weights.FILE).write_bytes(changed(content, changes))
    return read_release(tmp_path)

  assert fuzz(count, CHANGES, read, check_release)["refused"]


# JSON of workdirs.

JSON = st.recursive(
  st.none()
  | st.booleans()
  | st.integers()
  | st.sampled_from([2**70, -1, 10**4000, 1e308, "sets", "step"])
  | st.floats()
  | st.text(max_size=5),
  lambda x: (
    st.lists(x, max_size=4)
    | st.dictionaries(st.text(max_size=5), x, max_size=4)
  ),
  max_leaves=8,
)
EDITS = st.lists(
  st.tuples(
    st.sampled_from(["replace", "delete", "rename", "add"]),
    st.integers(0, 2**16),
    JSON,
    st.sampled_from(["step", "__class__", "a.b", "keys", "mean", "", "\ud800"]),
  ),
  min_size=1,
  max_size=3,
)


def edited(tree, edits):
  """Returns JSON after drawn changes of its values and names."""
  tree = [copy.deepcopy(tree)]
  for kind, place, value, name in edits:
    places, pending = [], [tree]
    while pending:
      node = pending.pop()
      keys = node.keys() if isinstance(node, dict) else range(len(node))
      places += [(node, key) for key in keys]
      pending += [
        node[key] for key in keys if isinstance(node[key], dict | list)
      ]
    node, key = places[place % len(places)]
    if kind == "replace" or node is tree:
      node[key] = value
    elif kind == "add" and isinstance(node, dict):
      node[name] = value
    elif kind == "rename" and isinstance(node, dict):
      node[name] = node.pop(key)
    else:
      del node[key]
  return tree[0]


EVALUATION = {
  "protocol": {
    "network": "FD-digits",
    "num_reference": 1437,
    "data": "digits",
    "split": "train",
    "statistics": None,
    "langevin": {"num_steps": 120},
  },
  "sets": {
    "hat": {
      "num_images": 100,
      "frechet_distance": {"mean": 19.2, "std": 0.15, "values": [1.0]},
      "recognised": {"mean": 0.6, "std": None},
    }
  },
  "ood": {
    "in_distribution": "digits",
    "sets": {
      "folder:x": {
        "num_in": 3,
        "num_out": 4,
        "resized_to": 16,
        "scores": {
          "energy": {
            "higher_is_out": True,
            **{
              rate: {"value": 0.5, "low": 0.4, "high": 0.6}
              for rate in ("auroc", "aupr", "fpr95")
            },
          }
        },
      }
    },
  },
  "chains": {"num_chains": 3, "curve": [{"step": 0, "energy": 0.5}]},
  "seconds": 1.5,
}
LINES = [{"step": step, "energy_gap": 0.1 * step} for step in (1, 2)]
RECORDS = [{"step": 7, "to": 4, "rule": "max_saturation", "value": 0.5}]
CHANGED = [
  {"step": 2, "field": "hat.max_grad_norm", "from": None, "to": 50.0},
  {"step": 4, "field": "langevin.num_steps", "from": 3, "to": 5},
]


@counts(60, 1_200)
def test_release_headers(tmp_path, count):
  weights.save(tmp_path, 3, WEIGHTS)
  content = (tmp_path / weights.FILE).read_bytes()
  end = 8 + int.from_bytes(content[:8], "little")
  header = json.loads(content[8:end])

  def read(edits):
    text = json.dumps(edited(header, edits)).encode()
    start = len(text).to_bytes(8, "little")
    (tmp_path / weights.FILE).write_bytes(start + text + content[end:])
    return read_release(tmp_path)

  assert fuzz(count, EDITS, read, check_release)["refused"]


def write_run(path, drawn, files):
  """Writes a run's files, one of them after drawn changes."""
  which, edits, changes = drawn
  for name, content in files.items():
    is_chosen = name == list(files)[which % len(files)]
    if is_chosen:
      content = edited(content, edits)
    if name == workdir.METRICS and isinstance(content, list):
      text = "".join(json.dumps(line) + "\n" for line in content)
    else:
      text = json.dumps(content)
    text = text.encode()
    (path / name).write_bytes(
      changed(text, changes) if is_chosen and changes else text
    )


def run_files():
  return {
    "config.json": json.loads(tiny.config().to_json()),
    workdir.METRICS: LINES,
    divergence.FILE: RECORDS,
    changes_lib.FILE: CHANGED,
    workdir.EVALUATION: EVALUATION,
  }


RUNS = st.tuples(st.integers(0, 4), EDITS, st.just([]) | CHANGES)


@counts(150)
def test_json(tmp_path, count):
  files, config = run_files(), tiny.config()

  def read(drawn):
    write_run(tmp_path, drawn, files)
    lines = workdir.read_metrics(tmp_path)
    return (
      workdir.run_config(tmp_path, config, step=2),
      workdir.read_evaluation(tmp_path),
      divergence.rollbacks(tmp_path),
      lines,
    )

  def check(drawn, result):
    del drawn
    merged, evaluation, rollbacks, lines = result
    json.dumps([merged.to_dict(), evaluation, rollbacks, lines])
    assert merged.sample == config.sample
    steps = [line["step"] for line in lines]
    assert all(type(x) is int and x >= 0 for x in steps)
    assert np.isfinite([float(x["step"]) for x in lines + rollbacks]).all()
    np.array([list(line.values()) for line in lines[:1]], np.float64)

  assert min(fuzz(count, RUNS, read, check).values())


@counts(40, 800)
def test_report(tmp_path, count):
  files = run_files()

  def read(drawn):
    write_run(tmp_path, drawn, files)
    return report.make(tmp_path)

  def check(drawn, result):
    del drawn
    assert result.isascii() and "<script" not in result

  assert min(fuzz(count, RUNS, read, check).values())


# Checkpoints.

ARRAYS = {
  "hat": {"kernel": np.arange(600, dtype=np.float32).reshape(20, 30)},
  "step": np.full((3,), 7, np.int32),
}
NOTE = {"lines": [{"step": 1, "gap": 0.5}], "noted": {"test_loss": 2.5}}


@pytest.fixture(scope="module", name="saved_run")
def run_with_a_checkpoint(tmp_path_factory):
  path = tmp_path_factory.mktemp("saved")
  with checkpoint.Checkpoints(path) as saved:
    saved.save(1, jax.tree.map(jnp.asarray, ARRAYS), NOTE)
  folder = path / "checkpoints" / "1" / "default"
  files = sorted(x for x in folder.rglob("*") if x.is_file())
  return path, folder, {file: file.read_bytes() for file in files}


def write_checkpoint(folder, files):
  """Writes a checkpoint's files, and their checksums."""
  for file, content in files.items():
    file.write_bytes(content)
  sums = {
    str(file.relative_to(folder)): hashlib.sha256(content).hexdigest()
    for file, content in files.items()
    if file.name != "checksums.json"
  }
  (folder / "checksums.json").write_text(json.dumps(sums))


def read_checkpoint(path):
  """Reads a checkpoint as a run, and as the source of a part."""
  device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  abstract = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), ARRAYS
  )
  with checkpoint.Checkpoints(path, read_only=True) as saved:
    step = saved.newest_whole()
    state = saved.restore(step, abstract)
    unwritten = saved.note(step)
  logs.RunLog(path, 1, active=False, unwritten=unwritten)
  part = weights.restore_part(path, {"hat": abstract["hat"]})
  return state, part


# Orbax leaves coroutines behind where a read fails.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@counts(60, 1_200)
def test_checkpoints(saved_run, count):
  # The checksums are right again: what they protect is damaged too.
  path, folder, files = saved_run

  def read(drawn):
    which, edits, changes = drawn
    file = list(files)[which % len(files)]
    content = files[file]
    if (edits and file.suffix == ".json") or file.name == "_METADATA":
      content = json.dumps(edited(json.loads(content), edits)).encode()
    write_checkpoint(folder, {**files, file: changed(content, changes)})
    return read_checkpoint(path)

  def check(drawn, result):
    del drawn
    state, part = result
    assert jax.tree.map(np.shape, state) == jax.tree.map(np.shape, ARRAYS)
    np.testing.assert_array_equal(part["hat"]["kernel"], state["hat"]["kernel"])

  edits = st.lists(EDITS, max_size=1).map(lambda x: x[0] if x else [])
  changes = st.lists(CHANGES, max_size=1).map(lambda x: x[0] if x else [])
  drawn = st.tuples(st.integers(0, 30), edits, changes)
  found = fuzz(count, drawn, read, check, memory.fills_less_than)
  gc.collect()  # While their complaints are ignored.
  assert min(found.values())


# TensorFlow data sets.

COUNT = 6
CLASSES = st.sampled_from(
  [
    "os.path",
    "builtins.exec",
    "Image",
    "tensorflow_datasets.core.features.text_feature.Text",
    "tensorflow_datasets.core.features.image_feature.Image",
    "tensorflow_datasets.core.features.sequence_feature.Sequence",
    "tensorflow_datasets.core.features.no_such.Thing",
  ]
)


@pytest.fixture(
  scope="module", name="prepared", params=["tfrecord", "array_record"]
)
def prepared_data(request, tmp_path_factory):
  directory = tmp_path_factory.mktemp("fuzzed")
  images = RNG.integers(0, 256, (COUNT, 4, 4, 3), np.uint8)
  tiny.prepare_tfds(directory, images, request.param)
  folder = directory / "tiny" / "1.0.0"
  files = {file: file.read_bytes() for file in sorted(folder.iterdir())}
  return str(directory), files, {image.tobytes() for image in images}


@counts(40, 800)
def test_tfds(prepared, count):
  directory, files, images = prepared
  config = config_lib.default().data
  config.source, config.image_size = "tfds:tiny", 4
  config.data_dir = directory

  def read(drawn):
    which, edits, changes, class_name = drawn
    for i, (file, content) in enumerate(files.items()):
      if i == which % len(files):
        if file.suffix == ".json":
          tree = edited(json.loads(content), edits)
          content = json.dumps(tree).encode()
          if class_name:
            old = b"tensorflow_datasets.core.features.image_feature.Image"
            content = content.replace(old, class_name.encode())
        content = changed(content, changes)
      file.write_bytes(content)
    return data.load_all(data.open_source(config))

  def check(drawn, result):
    del drawn
    assert {image.tobytes() for image in result} <= images

  names = st.none() | CLASSES
  edits = st.lists(EDITS, max_size=1).map(lambda x: x[0] if x else [])
  changes = st.lists(CHANGES, max_size=1).map(lambda x: x[0] if x else [])
  drawn = st.tuples(st.integers(0, 8), edits, changes, names)
  found = fuzz(count, drawn, read, check, memory.fills_less_than)
  assert min(found.values())
