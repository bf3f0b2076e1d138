"""Common parts of the tabular kinds: the columns that make a sample, and the image files that rows
name."""

import dataclasses
import os
import posixpath
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vlp_jax.data.samples import (
    IMAGE_ALONE,
    TEXT_ALONE,
    Reason,
    Sample,
    SampleError,
    check_captions,
)
from vlp_jax.data.sources.file_patterns import WEB, short_names, without_query
from vlp_jax.data.sources.filesystem import MissingFileError, folder_of, join, read_file, scheme_of
from vlp_jax.data.sources.local_files import NotRegularError, local_path
from vlp_jax.data.sources.spec import Options, single
from vlp_jax.errors import DataError

OPTIONS = ("image", "caption", "prompt")
ELSEWHERE = "; where images lie in another folder, name it: ?root=FOLDER"
FILE_OPTIONS = (*OPTIONS, "root")  # of kinds whose rows name image files


@dataclasses.dataclass(frozen=True)
class Columns:
    """Which columns of a row are its image and its captions, and which prompts the captions are put
    in.

    A dot reaches into a nested field: `captions.text` of `{"captions": {"text": [...]}}` or of
    `{"captions": [{"text": ...}, ...]}`. Several caption columns, lists in them, and several
    prompts all give one sample several captions.
    """

    image: str = "image"
    captions: tuple[str, ...] = ("caption",)
    prompts: tuple[str, ...] = ("{}",)

    @classmethod
    def of(
        cls,
        options: Options,
        spec: str,
        captions: tuple[str, ...] = ("caption",),
        image: str = "image",
    ) -> "Columns":
        """The columns that `?image=..&caption=..&prompt=..` names.

        Args:
          options: the options of the source.
          spec: name of the source in messages.
          captions: default caption columns.
          image: default image column.

        Raises:
          DataError: if a prompt has no {}.
        """
        prompts = options.get("prompt", ("{}",))
        for prompt in prompts:
            if "{}" not in prompt:
                raise DataError(f"{spec}: prompt {prompt!r} has no {{}} for the caption")
        return cls(single(options, "image", image, spec), options.get("caption", captions), prompts)

    def check(self, present: list[str], place: str) -> None:
        """Checks that the columns exist.

        Args:
          present: the columns of the file.
          place: name of the file in messages.

        Raises:
          DataError: if a column is missing.
        """
        for option, names in (("image", [self.image]), ("caption", self.captions)):
            for name in names:
                if name not in present and name.split(".")[0] not in present:
                    listed = ", ".join(present)
                    alone = TEXT_ALONE if option == "image" else IMAGE_ALONE
                    # the default column: the data may have none of its kind
                    more = f"; {alone}" if name == option else ""
                    raise DataError(
                        f"{place}: no column {name!r} (columns: {listed}); name the "
                        f"right one: ?{option}=COLUMN{more}"
                    )

    def used(self) -> set[str]:
        """Image and caption columns, and the columns that they are nested in."""
        names = {self.image, *self.captions}
        return names | {name.split(".")[0] for name in names}

    def of_image_alone(self, column: str) -> bool:
        """Whether this column contains the image and no caption."""
        return column in (self.image, self.image.split(".")[0]) and not any(
            column in (name, name.split(".")[0]) for name in self.captions
        )

    def sample(
        self, key: str, row: Mapping[str, Any], image: bytes | None, image_file: str = ""
    ) -> Sample:
        """The sample of a row. The columns that are neither image nor caption are its metadata.

        Args:
          key: key of the sample.
          row: values by column.
          image: the encoded image.
          image_file: name of the image's file, if it has one.

        Raises:
          SampleError: if the image is missing or empty, or the captions cannot be used.
        """
        if not image:
            raise SampleError(
                Reason.MISSING_IMAGE, key, "has no image" if image is None else "its image is empty"
            )
        return self.described(key, row, image, image_file)

    def described(
        self, key: str, row: Mapping[str, Any], image: bytes = b"", image_file: str = ""
    ) -> Sample:
        """The same as `sample`, but the image may be left out."""
        used = self.used()
        captions = self.captions_of(key, row)
        metadata = {name: row[name] for name in row if name not in used}
        return Sample(key, image, tuple(captions), metadata, tuple(captions.values()), image_file)

    def captions_of(self, key: str, row: Mapping[str, Any]) -> dict[str, str]:
        """All captions of a row in all prompts, each with its column.

        Raises:
          SampleError: as `check_captions`.
        """
        return self.prompted(
            check_captions([(name, pick(row, name)) for name in self.captions], key)
        )

    def prompted(self, captions: dict[str, str]) -> dict[str, str]:
        """The captions with their columns, put in every prompt."""
        prompted = {}
        for caption, name in captions.items():
            for prompt in self.prompts:
                prompted.setdefault(prompt.replace("{}", caption), name)
        return prompted


def pick(row: Any, name: str) -> Any:
    """The column `name` of a row, or the field that its dots lead to; None if there is none."""
    if isinstance(row, list):
        return [pick(item, name) for item in row]
    if not isinstance(row, Mapping):
        return None
    first, dot, rest = name.partition(".")
    return row.get(name) if name in row or not dot else pick(row.get(first), rest)


def locate(starts: np.ndarray, index: int) -> tuple[int, int]:
    """The part (shard, row group) that contains `index`, and the index within that part.

    Args:
      starts: first index of each part.
      index: index over all parts.
    """
    part = int(np.searchsorted(starts, index, side="right")) - 1
    return part, index - int(starts[part])


def read_image(folder: str, name: Any, key: str) -> bytes:
    """The bytes of an image file, whose name is relative to `folder` and must not leave it.

    Symbolic links are followed.

    Raises:
      SampleError: with MISSING_IMAGE, WRONG_TYPE, FORBIDDEN_PATH or DAMAGED_TEXT.
      DataError: if the file cannot be read.
    """
    return _read(folder, image_name(folder, name, key), key)


def _read(folder: str, name: str, key: str, hint: str = "") -> bytes:
    path = join(folder, name)
    try:
        return read_file(path)
    except NotRegularError as error:
        reason = Reason.MISSING_IMAGE if os.path.isdir(path) else Reason.FORBIDDEN_PATH
        raise SampleError(reason, key, f"its image {name!r} is {error.what}, not a file") from error
    except MissingFileError as error:
        raise SampleError(
            Reason.MISSING_IMAGE, key, f"its image {name!r} is missing from {folder}{hint}"
        ) from error


def image_name(folder: str, name: Any, key: str) -> str:
    """The name of an image file relative to `folder`, always the same for the same file.

    Raises:
      SampleError: as `read_image`.
    """
    if name is None or name == "":
        raise SampleError(Reason.MISSING_IMAGE, key, "names no image")
    if not isinstance(name, str):
        raise SampleError(Reason.WRONG_TYPE, key, f"its image is {type(name).__name__}, not a path")
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        raise SampleError(
            Reason.DAMAGED_TEXT, key, f"its image path {name!r} holds half a character"
        ) from None
    if "\0" in name:
        raise SampleError(Reason.FORBIDDEN_PATH, key, f"{name!r} is no path")
    name = local_path(name) or name
    inside = name_inside(folder, name)
    if inside is None and scheme_of(name) in WEB and not scheme_of(folder):
        raise SampleError(
            Reason.FORBIDDEN_PATH,
            key,
            f"its image is the URL {name!r}, and images "
            "are read from files: download "
            "them into a folder that ?root=FOLDER names",
        )
    if inside is None:
        raise SampleError(
            Reason.FORBIDDEN_PATH,
            key,
            f"its image {name!r} lies outside of "
            f"{folder}; the option ?root=FOLDER names "
            "the folder that images may lie in, and that relative paths begin at",
        )
    return inside


def name_inside(folder: str, name: str) -> str | None:
    """`name`, relative to `folder` or absolute, as a path relative to `folder`; None if it is
    outside."""
    if scheme_of(name) and name.startswith(folder.rstrip("/") + "/"):
        name = name[len(folder.rstrip("/")) + 1 :]
    if scheme_of(name):
        return None
    if not scheme_of(folder):
        folder = os.path.abspath(folder)
        name = os.path.relpath(os.path.join(folder, name), folder) if os.path.isabs(name) else name
    name = posixpath.normpath(name)
    return None if name.startswith("/") or name == "." or name.split("/")[0] == ".." else name


class ImageFolders:
    """The folders of the image files that rows name: the folder of each table, or the option
    `root`.

    Args:
      paths: the tables.
      options: the options of the source. `root` is absolute or relative to the folder of each
        table.
      spec: name of the source in messages.

    Raises:
      DataError: if the root is no folder.
    """

    def __init__(self, paths: Sequence[str], options: Options, spec: str):
        root = single(options, "root", None, spec)
        folders = [folder_of(without_query(path)) for path in paths]
        self.folders = folders if root is None else [_root(folder, root) for folder in folders]
        for folder in dict.fromkeys(self.folders) if root is not None else ():
            if not scheme_of(folder) and not os.path.isdir(folder):
                raise DataError(
                    f"{spec}: root: {folder} is no folder; a relative one begins at "
                    "the folder of its file"
                )
        self.prefixes = [
            name.rpartition("/")[0]
            for name in short_names([f"{folder.rstrip('/')}/x" for folder in self.folders])
        ]

    def read(self, shard: int, name: Any, key: str) -> tuple[bytes, str]:
        """The bytes of an image that a row names, and its name among the images of all tables.

        Args:
          shard: number of the table.
          name: the image in the row.
          key: key of the sample.

        Raises:
          SampleError, DataError: as `read_image`.
        """
        folder = self.folders[shard]
        inside = image_name(folder, name, key)
        return _read(folder, inside, key, ELSEWHERE), posixpath.join(self.prefixes[shard], inside)

    def name(self, shard: int, name: Any) -> str:
        """The name that `read` returns, without reading the image; empty where there is no such
        name."""
        try:
            return posixpath.join(self.prefixes[shard], image_name(self.folders[shard], name, ""))
        except SampleError:
            return ""


def _root(folder: str, root: str) -> str:
    """The root for a table in `folder`.

    An absolute path without a scheme is on this machine, wherever the table is.
    """
    if scheme_of(root):
        return root
    if not scheme_of(folder) or root.startswith(("/", "~")):
        return os.path.normpath(os.path.join(folder, os.path.expanduser(root)))
    scheme, _, rest = folder.partition("://")
    return f"{scheme}://{posixpath.normpath(posixpath.join(rest, root))}"
