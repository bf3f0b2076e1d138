"""What every source yields: a `Sample`, or a `SampleError` that says why there is none."""

import dataclasses
import enum
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from vlp_jax.errors import DataError
from vlp_jax.printing import printable

CAPTION = "caption"  # the field of captions whose source names none
NO_CAPTION = ("has a class and no caption; name the classes by a classnames.txt next to the tars, or take the class as it is: "
              "?caption=cls")
_PYTHON_LIST = re.compile(r"""\[\s*(['"]).*['"],?\s*\]""", re.DOTALL)


class Reason(enum.StrEnum):
    """Why a sample cannot be used; the codes that the pipeline counts."""

    MISSING_IMAGE = "missing_image"
    MISSING_CAPTION = "missing_caption"
    EMPTY_CAPTION = "empty_caption"
    WRONG_TYPE = "wrong_type"
    DAMAGED_IMAGE = "damaged_image"
    DAMAGED_TEXT = "damaged_text"
    DAMAGED_RECORD = "damaged_record"
    TOO_LARGE = "too_large"
    FORBIDDEN_PATH = "forbidden_path"
    CUT_OFF = "cut_off"
    WRONG_BOXES = "wrong_boxes"
    WRONG_DEPENDENCIES = "wrong_dependencies"


# What an unpaired sample would be of use to: added to messages, since pairs are all that is read so far.
IMAGE_ALONE = ("an image without a caption suits only objectives that read no text, of kind 'simclr', 'masked_autoencoder', "
               "'masked_image', or 'classification' with features='image'; give it a caption, as images alone are not read yet")
TEXT_ALONE = ("a text without an image suits only objectives that read no image, of kind 'masked_language' with with_image=False "
              "or 'captioning' with model.decoder.image='none'; give it an image, as texts alone are not read yet")
UNPAIRED = {Reason.MISSING_IMAGE: TEXT_ALONE, Reason.MISSING_CAPTION: IMAGE_ALONE}


def unpaired(reason: str, message: str) -> str:
    """What a message about a sample adds where it lacks its image or caption; one whose image file is not there does not."""
    return f"; {UNPAIRED[reason]}" if reason in UNPAIRED and " missing from " not in message else ""


class SampleError(DataError):
    """One sample is bad. The pipeline decides whether to fill its row with another or to stop.

    Attributes: reason (a `Reason`), key (the sample's), message.
    """

    def __init__(self, reason: Reason, key: str, message: str):
        super().__init__(reason, key, message)
        self.reason, self.key, self.message = reason, key, message

    def __str__(self) -> str:
        return printable(f"{self.kind}: {self.key}: {self.message} ({self.reason})")


@dataclasses.dataclass(frozen=True)
class Sample:
    """One image with its captions.

    key: the sample's name, unique in its source. image: the encoded file. captions: one or more, none of them empty; none only
    where its class is all that is known. metadata: every other field the source has for it (keywords, vendor, group, ...).
    caption_fields: for every caption the column, JSON field or ending (`txt`) that it comes from; where a source names none, all
    are `caption`. image_file: the name of the image's file, the same in all samples of one image; empty where there is no name.
    Raises: ValueError if there are more captions or fewer than names of their fields.
    """

    key: str
    image: bytes
    captions: tuple[str, ...]
    metadata: dict[str, Any]
    caption_fields: tuple[str, ...] = ()
    image_file: str = dataclasses.field(default="", compare=False)

    def __post_init__(self):
        if not self.caption_fields:
            object.__setattr__(self, "caption_fields", (CAPTION,) * len(self.captions))
        if len(self.caption_fields) != len(self.captions):
            raise ValueError(f"{self.key}: {len(self.captions)} captions from {len(self.caption_fields)} fields")


@runtime_checkable
class Source(Protocol):
    """A random-access set of samples. It pickles, and may be read from several threads.

    `source[i]` raises `SampleError` for a bad sample and IndexError past the end. `fingerprint()` is a short stable
    hash of what the source holds (names, counts, sizes, not where it lies), kept to check a resumed run.
    """

    spec: str

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...

    def fingerprint(self) -> str: ...


@runtime_checkable
class SparesImages(Protocol):
    """A source that can give a sample without reading its picture: `source[i]`, but `image` is empty, and what is wrong with the
    picture alone goes unnoticed."""

    def without_image(self, index: int) -> Sample: ...


@runtime_checkable
class NamesClasses(Protocol):
    """A source that names all classes of some metadata fields: their names, in order. A field holds a class by its name or its
    number. templates: prompts that lie with it, with {} for a class."""

    class_names: Mapping[str, Sequence[str]]
    templates: Sequence[str]


@runtime_checkable
class LeavesOut(Protocol):
    """A source that counts what lies in its files and belongs to no sample, by what it is."""

    left_out: Mapping[str, int]


def check_index(index: int, length: int) -> int:
    """`index` as a place in [0, length), negative ones counted from the end; IndexError outside."""
    if not -length <= index < length:
        raise IndexError(f"sample {index} of a source with {length}")
    return int(index) % length


def fingerprint_of(*parts: Any) -> str:
    """16 hexadecimal digits that stand for `parts` (anything JSON can hold)."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def check_unicode(text: str, key: str, what: str) -> None:
    """Raises: SampleError with DAMAGED_TEXT for halves of surrogate pairs, as text cut inside an emoji has them: no file and
    no tokenizer takes them."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise SampleError(Reason.DAMAGED_TEXT, key, f"{what} holds half a character at place {error.start}") from error


def check_captions(values: Sequence[tuple[str, Any]], key: str) -> dict[str, str]:
    """The captions in `values`, pairs of a field and what it holds: a string, a list of them, or None.

    A string that is a JSON list of strings, as tables hold several captions in one field, is that list.
    Returns: the captions that are not empty, stripped, each once and with the first field that has it.
    Raises: SampleError with MISSING_CAPTION, EMPTY_CAPTION or WRONG_TYPE, also for a list of another kind, or a JSON object, in a
      string.
    """
    captions, empty = {}, False
    for field, value in values:
        for caption in _texts_in(value, key, field):
            if caption is None:
                continue
            if not isinstance(caption, str):
                raise SampleError(Reason.WRONG_TYPE, key, f"its {field} is or holds {type(caption).__name__}, not text")
            check_unicode(caption, key, f"its {field}")
            stripped = caption.strip()
            empty |= not stripped
            captions.setdefault(stripped, field)
    captions.pop("", None)
    if not captions:
        reason = Reason.EMPTY_CAPTION if empty else Reason.MISSING_CAPTION
        raise SampleError(reason, key, "its caption is empty" if empty else f"has no {' or '.join(field for field, _ in values)}")
    return captions


def _texts_in(value: Any, key: str, field: str) -> Sequence[Any]:
    """What a caption field holds, as a list."""
    if isinstance(value, list | tuple):
        return [text for item in value for text in (_texts_of(item, key, field) if isinstance(item, str) else [item])]
    return [] if value is None else _texts_of(value, key, field)


def _texts_of(value: Any, key: str, field: str) -> Sequence[Any]:
    """The texts of a JSON list; any other value as it is."""
    if not isinstance(value, str) or (value.lstrip()[:1], value.rstrip()[-1:]) not in (("[", "]"), ("{", "}")):
        return [value]
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        found = None
    if isinstance(found, dict):
        raise SampleError(Reason.WRONG_TYPE, key, f"its {field} is a JSON object, not a text: {value[:60]}")
    if isinstance(found, list):
        if all(text is None or isinstance(text, str) for text in found):
            return found
        raise SampleError(Reason.WRONG_TYPE, key, f"its {field} is a JSON list, but not of texts: {value[:60]}")
    if _PYTHON_LIST.fullmatch(value.strip()):
        raise SampleError(Reason.WRONG_TYPE, key, f"its {field} is a list as Python prints it, not as JSON: {value[:60]}")
    return [value]
