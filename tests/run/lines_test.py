"""Files that grow by lines, in buckets on real servers on this machine."""

import threading

import pytest

from hatebm_jax.run import files, lines


def write_parts(file):
  """Writes the lines 0 and 1 into a part, and 2 into the next one."""
  first = lines.Lines(file)
  first.append("0")
  first.append("1")
  lines.Lines(file).append("2")
  return [b"0", b"1", b"2"]


def test_lines_of_parts_are_read_and_joined(bucket_url):
  file = files.as_path(bucket_url) / "x"
  assert lines.read(file) == [] and not lines.exists(file)
  expected = write_parts(file)
  assert not file.exists() and lines.exists(file)
  assert lines.read(file) == expected
  lines.replace(file, "0\n1\n2\n")
  assert lines.read(file) == expected and lines.exists(file)
  assert [path.name for path in files.entries(file.parent)] == ["x"]


@pytest.mark.parametrize("moment", ["before", "after"])
def test_parts_that_are_joined_when_they_are_listed(
  bucket_url, monkeypatch, moment
):
  file = files.as_path(bucket_url) / "x"
  list_parts = lines._parts

  def join_and_list(file):
    monkeypatch.setattr(lines, "_parts", list_parts)
    found = list(list_parts(file))
    lines.replace(file, "0\n1\n2\n")
    return found if moment == "after" else list_parts(file)

  for function in (lines.read, lines.exists):
    file.unlink(missing_ok=True)
    expected = write_parts(file)
    monkeypatch.setattr(lines, "_parts", join_and_list)
    assert function(file) in (True, expected)
    assert file.exists() and not list(list_parts(file))


def test_no_line_is_missing_while_parts_are_joined(bucket_url):
  for i in range(5):
    file = files.as_path(bucket_url) / str(i)
    expected = write_parts(file)
    join = threading.Thread(target=lines.replace, args=(file, "0\n1\n2\n"))
    join.start()
    while join.is_alive():
      # Until the parts are removed, their lines stand twice.
      assert lines.read(file) in (expected, 2 * expected, [*expected, b"2"])
    join.join()
    assert lines.read(file) == expected
