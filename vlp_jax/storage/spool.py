"""Files that grow during a run with a bucket workdir.

Nothing can be appended to an object, so that metrics.jsonl, TensorBoard's event files and other
writers' files are written in a temporary folder of this machine, and uploaded whole where they have
changed: at each save before the checkpoint, after each evaluation, and at the end. What a killed
run had not uploaded belongs to updates after its last checkpoint, which are run again.
"""

import contextlib
import os
import shutil
import tempfile

from vlp_jax.storage import bucket
from vlp_jax.storage.files import read_bytes


class Spool:
    """A local folder whose changed files are uploaded by `sync`.

    It begins with the files of the folder itself, of which a resumed run continues some.

    Args:
      url: the folder in the bucket.
    Attributes:
      folder: the local folder.
    Raises:
      UserError: the bucket does not answer, or refuses.
    """

    def __init__(self, url: str):
        self.url = url
        self.folder = tempfile.mkdtemp(prefix="vlp_jax_workdir_")
        self.uploaded: dict[str, tuple[int, int]] = {}
        for key in bucket.keys_below(url):
            if "/" not in key and key != "lock":
                self.fetch(key)

    def fetch(self, key: str) -> None:
        """Downloads a file, unless it has just been deleted."""
        path = os.path.join(self.folder, key)
        with contextlib.suppress(FileNotFoundError):
            content = bucket.read(f"{self.url}/{key}")
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as file:
                file.write(content)
            self.uploaded[key] = stamp_of(path)

    def sync(self) -> None:
        """Uploads the files that have changed.

        Raises:
          UserError: the bucket does not answer, or refuses.
        """
        for key in files_below(self.folder):
            path = os.path.join(self.folder, key)
            stamp = stamp_of(path)
            if self.uploaded.get(key) != stamp:
                bucket.write(f"{self.url}/{key}", read_bytes(path))
                self.uploaded[key] = stamp

    def close(self, upload: bool = True) -> None:
        """Uploads what has changed, unless `upload` is False, and deletes the local folder.

        Raises: as `sync`.
        """
        try:
            if upload:
                self.sync()
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)


def files_below(folder: str) -> list[str]:
    """The paths of all files below a folder, relative to it."""
    return sorted(
        os.path.relpath(os.path.join(place, name), folder)
        for place, _, names in os.walk(folder)
        for name in names
        if not name.endswith(".partial")
    )


def stamp_of(path: str) -> tuple[int, int]:
    """Size and time of a file's last change, which differ once it has changed."""
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns
