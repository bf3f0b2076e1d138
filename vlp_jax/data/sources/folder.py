"""`folder:DIR`: one folder for every class, with its images: DIR/CLASS/IMAGE.

The caption is the name of the class, with blanks for underscores, in every prompt of the option
`prompt`: `folder:/data/pets?prompt=a photo of a {}|a drawing of a {}`. Classes, and the images in
them, are in the order of their names. Images have the endings of `image_endings.py`. Other files
and hidden ones are left out, and a line reports them.

Metadata: `class`, the name of the folder.
"""

import array
import hashlib
import os
from collections import Counter
from collections.abc import Iterator

import numpy as np

from vlp_jax.data.notifications import listed, notice
from vlp_jax.data.samples import Sample, check_index, fingerprint_of
from vlp_jax.data.sources.columns import Columns, locate, read_image
from vlp_jax.data.sources.filesystem import refuse_remote
from vlp_jax.data.sources.image_endings import IMAGE_ENDINGS, ending_of
from vlp_jax.data.sources.spec import split_options
from vlp_jax.errors import DataError


class FolderSource:
    """The images of a folder of classes. The key of a sample is CLASS/IMAGE.

    Args:
      folder: DIR.
      spec: name of the source in messages.
      columns: its prompts.

    Raises:
      DataError: if the folder is missing or empty, has images outside of classes, or has folders
        inside of classes.
    """

    def __init__(self, folder: str, spec: str, columns: Columns):
        self.spec, self.folder, self.columns = spec, folder, columns
        self.classes, starts, names, ends, sizes = (
            [],
            [0],
            bytearray(),
            array.array("q"),
            array.array("q"),
        )
        left_out: Counter[str] = Counter()
        for entry in self._entries(folder):
            if not _is_folder(entry):
                if ending_of(entry.name) in IMAGE_ENDINGS and not entry.name.startswith("."):
                    raise DataError(
                        f"{spec}: {entry.name} lies in no class; expected "
                        f"{folder}/CLASS/{entry.name}"
                    )
                continue
            if entry.name.startswith("."):
                continue
            for image in self._entries(entry.path):
                if image.name.startswith("."):
                    left_out["hidden files"] += not _is_folder(image)
                elif _is_folder(image):
                    raise DataError(
                        f"{spec}: {entry.name}/{image.name} is a folder; a class "
                        "holds images only, no folders"
                    )
                elif ending_of(image.name) in IMAGE_ENDINGS:
                    names += os.fsencode(image.name)
                    ends.append(len(names))
                    sizes.append(_size(image))
                else:
                    ending = ending_of(image.name)
                    left_out[f".{ending}" if ending else "files without an ending"] += 1
            self.classes.append(entry.name)
            starts.append(len(ends))
        self.starts, self.names, self.ends = (
            np.array(starts),
            bytes(names),
            np.array(ends, np.int64),
        )
        digest = hashlib.sha256()
        for part in (self.names, ends, sizes):
            digest.update(part)
        self.digest = digest.hexdigest()
        if not ends:
            raise DataError(
                f"{spec}: no image; expected {folder}/CLASS/IMAGE, images ending in "
                ".jpg, .png, .webp, ..."
            )
        self.left_out = dict((+left_out).most_common())
        if self.left_out:
            notice(
                f"data note: {spec}: {sum(self.left_out.values()):,} files in classes are no "
                f"images: {listed(self.left_out)}"
            )

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: int) -> Sample:
        path, key, fields = self._row(index)
        return self.columns.sample(key, fields, read_image(self.folder, path, key))

    def without_image(self, index: int) -> Sample:
        """Implements `SparesImages`: no file is opened."""
        _, key, fields = self._row(index)
        return self.columns.described(key, fields)

    def fingerprint(self) -> str:
        """Hash of the names of the classes and images, the sizes of the images, and the prompts."""
        return fingerprint_of(
            "folder", self.classes, self.starts.tolist(), self.digest, repr(self.columns)
        )

    def _row(self, index: int) -> tuple[str, str, dict[str, str]]:
        """The path of the image of a row, its key and its columns."""
        index = check_index(index, len(self))
        place, _ = locate(self.starts, index)
        name = self.classes[place]
        path = f"{name}/{self._name(index)}"
        # a key is UTF-8, a file name need not be
        key = path.encode(errors="surrogateescape").decode(errors="backslashreplace")
        return path, key, {"caption": name.replace("_", " "), "class": name}

    def _name(self, index: int) -> str:
        return os.fsdecode(self.names[self.ends[index - 1] if index else 0 : self.ends[index]])

    def _entries(self, folder: str) -> Iterator[os.DirEntry]:
        try:
            with os.scandir(folder) as entries:
                found = list(entries)
        except OSError as error:
            raise DataError(f"{self.spec}: {folder} cannot be read: {error.strerror}") from error
        return iter(sorted(found, key=lambda entry: entry.name))


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # links in a circle: reading one reports a missing image
        return False


def _size(entry: os.DirEntry) -> int:
    try:
        return entry.stat().st_size
    except OSError:  # a dangling link: reading it reports a missing image
        return -1


def open_folder(rest: str) -> FolderSource:
    """The images of DIR?prompt=...

    Raises:
      DataError: for a remote folder or a wrong option; see `FolderSource`.
    """
    spec = f"folder:{rest}"
    folder, options = split_options(rest, "folder", ("prompt",))
    refuse_remote(folder, spec)
    return FolderSource(os.path.expanduser(folder), spec, Columns.of(options, spec))
