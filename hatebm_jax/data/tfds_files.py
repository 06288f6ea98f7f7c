"""Checks the files of a prepared TensorFlow data set before they are used.

A prepared data set may come from a stranger. Its files name Python classes, and
tensorflow_datasets imports the modules of these classes. The checks here refuse
every class that is not one of tensorflow_datasets, and files that lie outside
the data set's folder.
"""

import json
import re
from typing import Any

from hatebm_jax.data.base import DataError

# These fields of features.json and dataset_info.json name a class to import.
_CLASS_FIELDS = ("type", "pythonClassName", "python_class_name")
_OWN_CLASS = re.compile(r"tensorflow_datasets(\.\w+)+")


def check_name(name: str) -> None:
  """Refuses a name with a namespace, such as `huggingface:NAME`.

  Args:
    name: Name of a data set as `tfds.builder` takes it.

  Raises:
    DataError: The name has a namespace.
  """
  if re.match(r"[\w-]+:[a-zA-Z]", name):
    raise DataError(
      f"config.data.source: tfds:{name} has a namespace, from which "
      "tensorflow_datasets would download and run code. Expected the name of a "
      "data set, such as tfds:cifar10 or tfds:cifar10:3.0.2."
    )


def check_options(name: str, options: dict[str, Any]) -> None:
  """Refuses what a name may say beyond a config and a version.

  Args:
    name: Name of a data set as `tfds.builder` takes it.
    options: Options that the name holds, as tensorflow_datasets parses them.

  Raises:
    DataError: There is another option. `NAME/data_dir=DIR`, for example, would
      lead to a folder that was not checked.
  """
  others = sorted(set(options) - {"config", "version"})
  if others:
    raise DataError(
      f"config.data.source: expected a name such as tfds:NAME or "
      f"tfds:NAME/CONFIG:VERSION, found tfds:{name} with the option "
      f"{others[0]!r}. Leave it out; --config.data.data_dir=DIR names the "
      "folder."
    )


def check_classes(folder: Any) -> None:
  """Checks which classes tensorflow_datasets would import for a data set.

  Args:
    folder: Folder of all versions of the data set, an `etils.epath.Path`.

  Raises:
    DataError: A file names a class of another package, or cannot be parsed.
  """
  # The files lie in VERSION or in CONFIG/VERSION.
  first = _folders(folder)
  second = [path for parent in first for path in _folders(parent)]
  for parent in (*first, *second):
    for name in ("features.json", "dataset_info.json"):
      path = parent / name
      if path.exists():
        _check_value(_json(path), path)
  metadata = folder / ".config" / "metadata.json"
  if metadata.exists():
    default = _json(metadata).get("default_config_name")
    # A path in place of a name would lead to a folder that was not checked.
    if default is not None and not re.fullmatch(r"\w[\w.+-]*", default):
      raise DataError(
        f"{metadata}: default_config_name is {default!r}, which is not the "
        "name of a config. Prepare the data set again."
      )


def _folders(folder: Any) -> list[Any]:
  """Returns the folders in a folder; none if it does not exist."""
  if not folder.is_dir():
    return []
  return [path for path in folder.iterdir() if path.is_dir()]


def _json(path: Any) -> Any:
  try:
    return json.loads(path.read_text())
  except (OSError, RecursionError, ValueError) as error:
    raise DataError(
      f"{path} is not valid JSON ({error}). Prepare the data set again."
    ) from error


def _check_value(value: Any, path: Any) -> None:
  """Checks the names of classes in JSON, and in JSON within its strings."""
  if isinstance(value, dict):
    for field, content in value.items():
      if field in _CLASS_FIELDS and isinstance(content, str):
        _check_class(content, path)
      _check_value(content, path)
  elif isinstance(value, list):
    for content in value:
      _check_value(content, path)
  elif isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
    try:
      inner = json.loads(value)
    except ValueError:
      return
    _check_value(inner, path)


def _check_class(class_name: str, path: Any) -> None:
  # A name without a dot names no module.
  if "." in class_name and not _OWN_CLASS.fullmatch(class_name):
    raise DataError(
      f"{path} asks for the class {class_name[:80]!r}. Expected classes of "
      "tensorflow_datasets only; nothing was imported. Prepare the data set "
      "again with features of tensorflow_datasets."
    )


def check_shards(name: str, builder: Any, split: str) -> None:
  """Checks that the files of a split exist and could hold its images.

  Args:
    name: Name of the data set, for messages.
    builder: Builder of the data set.
    split: Name of one of the builder's splits.

  Raises:
    DataError: A file is missing or lies outside the data set's folder, or the
      split claims a number of images that is not possible.
  """
  title = f"tfds:{name}, split {split}"
  info = builder.info.splits[split]
  try:
    files = info.filepaths
    num_bytes = sum(file.stat().length for file in files)
  except (OSError, ValueError) as error:
    raise DataError(
      f"{title}: a file is missing ({error}). Prepare the data set again."
    ) from error
  # Files elsewhere may belong to anybody, or lie on another machine.
  elsewhere = [file for file in files if file.parent != builder.data_path]
  if elsewhere:
    raise DataError(
      f"{title}: expected all files in {builder.data_path}, found "
      f"{elsewhere[0]}. Prepare the data set again."
    )
  if not 0 < info.num_examples <= num_bytes:
    raise DataError(
      f"{title}: expected from 1 to {num_bytes} images, because its files have "
      f"{num_bytes} bytes, found {info.num_examples} in dataset_info.json. "
      "Prepare the data set again."
    )
