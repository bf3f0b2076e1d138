"""What a run does with the files of its folder, on this machine or in a bucket.

Every function takes a local path or the URL of a bucket. Errors of a bucket are UserErrors with
their URL, of which a StorageError is passing; those of a local file are OSErrors.
"""

import contextlib
import os
import re
import shutil

from vlp_jax.storage import bucket
from vlp_jax.storage.paths import absolute, is_bucket

# The last object of a checkpoint that Orbax writes; without it a folder in a bucket is none.
COMMITTED = "commit_success.txt"


def read_text(path: str) -> str:
    """The text of a file in UTF-8.

    Raises:
      OSError: there is no such file (FileNotFoundError, also in a bucket), or it cannot be read.
      UnicodeError: it is not UTF-8.
      UserError: the bucket does not answer, or refuses.
    """
    if is_bucket(path):
        return bucket.read(path).decode()
    with open(path, encoding="utf-8") as file:
        return file.read()


def read_bytes(path: str) -> bytes:
    """The contents of a file; raises as `read_text`."""
    if is_bucket(path):
        return bucket.read(path)
    with open(path, "rb") as file:
        return file.read()


def write_atomically(path: str, text: str) -> None:
    """Replaces a file in one step, a rename or one upload: readers see the old text or the new one,
    never a part.

    Raises:
      OSError: with the name of the file.
      UserError: the bucket does not answer, or refuses.
    """
    if is_bucket(path):
        return bucket.write(path, text.encode())
    temporary = f"{path}.partial"
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.remove(temporary)
        error.filename = path
        raise


def make_folder(path: str) -> None:
    """Creates a folder and its parents; in a bucket folders are only parts of names.

    Raises: OSError.
    """
    if not is_bucket(path):
        os.makedirs(path, exist_ok=True)


def is_file(path: str) -> bool:
    """Whether there is such a file.

    Raises:
      UserError: the bucket does not answer, or refuses.
    """
    return bucket.is_object(path) if is_bucket(path) else os.path.isfile(path)


def is_folder(path: str) -> bool:
    """Whether there is such a folder; in a bucket: an object below it. Raises as `is_file`."""
    return bool(bucket.keys_below(path)) if is_bucket(path) else os.path.isdir(path)


def exists(path: str) -> bool:
    """Whether there is such a file or folder; raises as `is_file`."""
    return is_file(path) or is_folder(path) if is_bucket(path) else os.path.exists(path)


def names_in(folder: str) -> list[str]:
    """The names in a folder; of a bucket none where there are no objects below it.

    Raises:
      OSError: a local folder does not exist or cannot be listed.
      UserError: as `is_file`.
    """
    if is_bucket(folder):
        return list(dict.fromkeys(key.partition("/")[0] for key in bucket.keys_below(folder)))
    return os.listdir(folder)


def committed_steps(folder: str) -> list[int]:
    """The steps of the finished checkpoints in a folder of a bucket, ascending; raises as
    `is_file`."""
    finished = re.compile(f"(0|[1-9][0-9]*)/{re.escape(COMMITTED)}", re.ASCII)
    return sorted(
        int(found[1]) for found in map(finished.fullmatch, bucket.keys_below(folder)) if found
    )


def move_folder(source: str, target: str) -> None:
    """Moves a folder: in one rename, or in a bucket object by object, of which `COMMITTED` is
    written last and deleted first.

    Raises:
      OSError: a local folder cannot be moved.
      UserError: as `is_file`.
    """
    if not is_bucket(source):
        make_folder(os.path.dirname(target))
        os.rename(source, target)
        return
    keys = sorted(bucket.keys_below(source), key=lambda key: (key == COMMITTED, key))
    for key in keys:
        bucket.copy(f"{source}/{key}", f"{target}/{key}")
    for key in reversed(keys):
        bucket.delete(f"{source}/{key}")


def delete_folder(path: str) -> None:
    """Deletes a folder with all that is in it, where there is one.

    Raises: as `move_folder`.
    """
    if is_bucket(path):
        bucket.delete_below(path)
    else:
        shutil.rmtree(path, ignore_errors=True)


def upload_folder(folder: str, url: str) -> None:
    """Uploads the files of a local folder; a checkpoint counts once its `COMMITTED` is there, which
    is uploaded last.

    Raises: as `move_folder`.
    """
    keys = [
        os.path.relpath(os.path.join(place, name), folder)
        for place, _, names in os.walk(folder)
        for name in names
    ]
    for key in sorted(keys, key=lambda key: (key.endswith(COMMITTED), -key.count("/"), key)):
        bucket.write(f"{absolute(url)}/{key}", read_bytes(os.path.join(folder, key)))
