"""Writes of an object of a bucket on a condition that the bucket checks.

The check and the write are one step, so that of two processes only one
succeeds.
"""

import json
import os
import urllib.parse

from hatebm_jax.run.bucket_server import explained, filesystem
from hatebm_jax.run.buckets import BucketPath

# What S3 says if an object has another version, is gone, or is being written.
_OTHER_VERSION = (
  "PreconditionFailed",
  "ConditionalRequestConflict",
  "NoSuchKey",
)


def create(path: BucketPath, content: bytes) -> None:
  """Writes an object if there is none of this name, in one request.

  Args:
    path: Path of the object.
    content: Content of the object.

  Raises:
    FileExistsError: If there is an object.
    OSError: If the server fails.
  """
  with explained(path):
    filesystem(path).pipe_file(os.fspath(path), content, mode="create")


def version(path: BucketPath) -> str:
  """Returns what changes with each write of an object.

  Args:
    path: Path of the object.

  Raises:
    FileNotFoundError: If there is none.
  """
  with explained(path):
    info = filesystem(path).info(os.fspath(path))
  return str(info.get("generation") or info.get("ETag"))


def replace(path: BucketPath, content: bytes, version: str) -> None:
  """Writes an object if it still has a version, in one request.

  Args:
    path: Path of the object.
    content: New content.
    version: What `version` returned.

  Raises:
    FileExistsError: If it has another version, or is gone.
    OSError: If the server fails.
  """
  scheme, _, name = os.fspath(path).partition("://")
  bucket, _, key = name.partition("/")
  write = _replace_s3 if scheme == "s3" else _replace_gs
  with explained(path):
    write(path, bucket, key, content, version)


def _replace_s3(path, bucket, key, content, version) -> None:
  try:
    filesystem(path).call_s3(
      "put_object", Bucket=bucket, Key=key, Body=content, IfMatch=version
    )
  except OSError as error:
    response = getattr(error.__cause__, "response", {})
    if response.get("Error", {}).get("Code") in _OTHER_VERSION:
      raise FileExistsError(key) from error
    raise


def _replace_gs(path, bucket, key, content, version) -> None:
  # gcsfs knows only the condition that there is no object. This is the request
  # of its uploads with another condition; it raises a FileExistsError itself.
  store, line = filesystem(path), "--part"
  head = (
    f"{line}\nContent-Type: application/json\n\n{json.dumps({'name': key})}\n"
    f"{line}\nContent-Type: application/octet-stream\n\n"
  )
  store.call(
    "POST",
    store.base.replace("/storage/v1/", "/upload/storage/v1/")
    + f"b/{urllib.parse.quote(bucket, safe='')}/o",
    uploadType="multipart",
    ifGenerationMatch=version,
    headers={"Content-Type": 'multipart/related; boundary="part"'},
    data=head.encode() + content + f"\n{line}--".encode(),
  )
