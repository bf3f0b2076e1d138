"""What the tabular kinds share: which columns make a sample, and the image files that rows name."""

import dataclasses
import os
import posixpath
from collections.abc import Mapping
from typing import Any

import numpy as np

from vlp_jax.data.local_files import NotRegularError
from vlp_jax.data.options import Options, single
from vlp_jax.data.samples import IMAGE_ALONE, TEXT_ALONE, Reason, Sample, SampleError, check_captions
from vlp_jax.data.storage import MissingFileError, join, read_file, scheme_of
from vlp_jax.errors import DataError

OPTIONS = ("image", "caption", "prompt")


@dataclasses.dataclass(frozen=True)
class Columns:
    """Which columns of a row are its image and its captions, and in which prompts a caption is put.

    A dot reaches into a nested field: `captions.text` of `{"captions": {"text": [...]}}` or of `{"captions": [{"text":
    ...}, ...]}`. Several caption columns, lists in them and several prompts all give one sample several captions.
    """

    image: str = "image"
    captions: tuple[str, ...] = ("caption",)
    prompts: tuple[str, ...] = ("{}",)

    @classmethod
    def of(cls, options: Options, spec: str, captions: tuple[str, ...] = ("caption",), image: str = "image") -> "Columns":
        """The columns that `?image=..&caption=..&prompt=..` names. Raises: DataError for a prompt without {}."""
        prompts = options.get("prompt", ("{}",))
        for prompt in prompts:
            if "{}" not in prompt:
                raise DataError(f"{spec}: prompt {prompt!r} has no {{}} for the caption to stand in")
        return cls(single(options, "image", image, spec), options.get("caption", captions), prompts)

    def check(self, present: list[str], place: str) -> None:
        """Raises: DataError if there are no such columns among those `present` at `place`."""
        for option, names in (("image", [self.image]), ("caption", self.captions)):
            for name in names:
                if name not in present and name.split(".")[0] not in present:
                    listed = ", ".join(present)
                    alone = TEXT_ALONE if option == "image" else IMAGE_ALONE
                    more = f"; {alone}" if name == option else ""  # the usual column: perhaps there is none of its kind
                    raise DataError(f"{place}: no column {name!r} (columns: {listed}); name the right one: ?{option}=COLUMN{more}")

    def used(self) -> set[str]:
        """Image and caption columns, with those that they are nested in."""
        names = {self.image, *self.captions}
        return names | {name.split(".")[0] for name in names}

    def of_image_alone(self, column: str) -> bool:
        """Whether the image is, or lies in, this column, and no caption does."""
        return column in (self.image, self.image.split(".")[0]) and not any(
            column in (name, name.split(".")[0]) for name in self.captions)

    def sample(self, key: str, row: Mapping[str, Any], image: bytes | None) -> Sample:
        """The sample of a row; the columns that are neither image nor caption are its metadata. Raises: SampleError."""
        if not image:
            raise SampleError(Reason.MISSING_IMAGE, key, "has no image" if image is None else "its image is empty")
        return self.described(key, row, image)

    def described(self, key: str, row: Mapping[str, Any], image: bytes = b"") -> Sample:
        """`sample`, where its image may be left out."""
        used = self.used()
        captions = self.captions_of(key, row)
        metadata = {name: row[name] for name in row if name not in used}
        return Sample(key, image, tuple(captions), metadata, tuple(captions.values()))

    def captions_of(self, key: str, row: Mapping[str, Any]) -> dict[str, str]:
        """All captions of a row in all prompts, each with its column. Raises: SampleError, as `check_captions` does."""
        return self.prompted(check_captions([(name, pick(row, name)) for name in self.captions], key))

    def prompted(self, captions: dict[str, str]) -> dict[str, str]:
        """Captions with their columns, put in every prompt."""
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
    """The part (shard, row group) that `index` lies in, by the index each part starts with, and its place there."""
    part = int(np.searchsorted(starts, index, side="right")) - 1
    return part, index - int(starts[part])


def read_image(folder: str, name: Any, key: str) -> bytes:
    """The bytes of an image file named relative to `folder`, which it may not leave. Symbolic links are followed.

    Raises: SampleError with MISSING_IMAGE, WRONG_TYPE or FORBIDDEN_PATH; DataError if the file cannot be read.
    """
    if name is None or name == "":
        raise SampleError(Reason.MISSING_IMAGE, key, "names no image")
    if not isinstance(name, str):
        raise SampleError(Reason.WRONG_TYPE, key, f"its image is {type(name).__name__}, not a path")
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        raise SampleError(Reason.DAMAGED_TEXT, key, f"its image path {name!r} holds half a character") from None
    if "\0" in name:
        raise SampleError(Reason.FORBIDDEN_PATH, key, f"{name!r} is no path")
    path = inside(folder, name)
    if path is None:
        raise SampleError(Reason.FORBIDDEN_PATH, key, f"its image {name!r} lies outside of {folder}, the folder of its file")
    try:
        return read_file(path)
    except NotRegularError as error:
        reason = Reason.MISSING_IMAGE if os.path.isdir(path) else Reason.FORBIDDEN_PATH
        raise SampleError(reason, key, f"its image {name!r} is {error.kind}, not a file") from error
    except MissingFileError as error:
        raise SampleError(Reason.MISSING_IMAGE, key, f"its image {name!r} is missing from {folder}") from error


def inside(folder: str, name: str) -> str | None:
    """The path of `name`, relative to `folder` or absolute; None if it is not in that folder."""
    if scheme_of(name) and name.startswith(folder + "/"):
        name = name[len(folder) + 1 :]
    if scheme_of(name):
        return None
    if not scheme_of(folder):
        folder = os.path.abspath(folder)
        name = os.path.relpath(os.path.join(folder, name), folder) if os.path.isabs(name) else name
    name = posixpath.normpath(name)
    if name.startswith("/") or name == "." or name.split("/")[0] == "..":
        return None
    return join(folder, name)
