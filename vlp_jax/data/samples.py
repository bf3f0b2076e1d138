"""What every source yields: a `Sample`, or a `SampleError` with the reason why there is none."""

import dataclasses
import enum
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from vlp_jax.errors import DataError
from vlp_jax.printing import printable

CAPTION = "caption"  # field of captions whose source names no field
NO_CAPTION = (
    "has a class and no caption; name the classes by a classnames.txt next to the tars, "
    "or take the class as it is: ?caption=cls"
)
_PYTHON_LIST = re.compile(r"""\[\s*(['"]).*['"],?\s*\]""", re.DOTALL)


class Reason(enum.StrEnum):
    """Why a sample cannot be used: the codes that the pipeline counts."""

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


# Which objectives an unpaired sample would suit: added to messages, because only pairs are read so
# far.
IMAGE_ALONE = (
    "an image without a caption suits only objectives that read no text, of kind "
    "'simclr', 'masked_autoencoder', 'masked_image', or 'classification' with "
    "features='image'; give it a caption, as images alone are not read yet"
)
TEXT_ALONE = (
    "a text without an image suits only objectives that read no image, of kind "
    "'masked_language' with with_image=False or 'captioning' with "
    "model.decoder.image='none'; give it an image, as texts alone are not read yet"
)
UNPAIRED = {Reason.MISSING_IMAGE: TEXT_ALONE, Reason.MISSING_CAPTION: IMAGE_ALONE}


def unpaired(reason: str, message: str) -> str:
    """Addition to a message about a sample without an image or without a caption; empty for other
    reasons.

    It is also empty where a named image file is missing.
    """
    return f"; {UNPAIRED[reason]}" if reason in UNPAIRED and " missing from " not in message else ""


class SampleError(DataError):
    """One sample is bad; the pipeline decides whether to fill its row with another sample or to
    stop.

    Attributes:
      reason: a `Reason`.
      key: the key of the sample.
      message: what is wrong.
    """

    def __init__(self, reason: Reason, key: str, message: str):
        super().__init__(reason, key, message)
        self.reason, self.key, self.message = reason, key, message

    def __str__(self) -> str:
        return printable(f"{self.kind}: {self.key}: {self.message} ({self.reason})")


@dataclasses.dataclass(frozen=True)
class Sample:
    """One image with its captions.

    Attributes:
      key: name of the sample, unique in its source.
      image: the encoded image file.
      captions: one or more non-empty captions; none only where a class is all that is known of the
        sample.
      metadata: every other field of the sample in its source (keywords, vendor, group, ...).
      caption_fields: for every caption the column, JSON field or file ending (`txt`) that it comes
        from; `caption` for all of them where a source names none.
      image_file: name of the image's file, the same in all samples of one image; empty where there
        is no name.

    Raises:
      ValueError: if captions and caption fields differ in number.
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
            raise ValueError(
                f"{self.key}: {len(self.captions)} captions from {len(self.caption_fields)} fields"
            )


@runtime_checkable
class Source(Protocol):
    """A random-access set of samples. It can be pickled and read from several threads.

    `source[i]` raises `SampleError` for a bad sample and IndexError past the end. `fingerprint()`
    is a short stable hash of the source's content (names, counts, sizes, but not its location),
    kept to check a resumed run.
    """

    spec: str

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...

    def fingerprint(self) -> str:
        """A short hash of the content, the same wherever the source lies."""


@runtime_checkable
class SparesImages(Protocol):
    """A source that can return a sample without reading its image.

    The sample is that of `source[i]`, but `image` is empty, and errors of the image alone are not
    detected.
    """

    def without_image(self, index: int) -> Sample:
        """The sample `index` with an empty image."""


@runtime_checkable
class NamesClasses(Protocol):
    """A source that names all classes of some metadata fields.

    Attributes:
      class_names: the class names of each field, in order. A field holds a class by its name or its
        number.
      templates: prompts stored next to the data, with {} for a class.
    """

    class_names: Mapping[str, Sequence[str]]
    templates: Sequence[str]


@runtime_checkable
class LeavesOut(Protocol):
    """A source that counts, by kind, the contents of its files that belong to no sample."""

    left_out: Mapping[str, int]


def check_index(index: int, length: int) -> int:
    """`index` as a number in [0, length); negative ones count from the end.

    Raises:
      IndexError: if it is out of range.
    """
    if not -length <= index < length:
        raise IndexError(f"sample {index} of a source with {length}")
    return int(index) % length


def fingerprint_of(*parts: Any) -> str:
    """16 hexadecimal digits, a hash of `parts` (anything that JSON can hold)."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def check_unicode(text: str, key: str, what: str) -> None:
    """Checks that a text can be encoded as UTF-8.

    Text cut inside an emoji has half of a surrogate pair, which no file and no tokenizer accepts.

    Args:
      text: the text.
      key: key of the sample.
      what: name of the text in the message.

    Raises:
      SampleError: with DAMAGED_TEXT.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise SampleError(
            Reason.DAMAGED_TEXT, key, f"{what} holds half a character at place {error.start}"
        ) from error


def check_captions(values: Sequence[tuple[str, Any]], key: str) -> dict[str, str]:
    """The captions in some fields of a sample.

    Args:
      values: pairs of a field and its value: a string, a list of strings, or None. A string that is
        a JSON list of strings counts as that list, because tables hold several captions in one
        field that way.
      key: key of the sample.

    Returns: the non-empty captions, stripped, each once, with the first field that has it.

    Raises:
      SampleError: with MISSING_CAPTION, EMPTY_CAPTION or WRONG_TYPE; the last also for a string
        that is a list of another kind or a JSON object.
    """
    captions, empty = {}, False
    for field, value in values:
        for caption in _texts_in(value, key, field):
            if caption is None:
                continue
            if not isinstance(caption, str):
                raise SampleError(
                    Reason.WRONG_TYPE,
                    key,
                    f"its {field} is or holds {type(caption).__name__}, not text",
                )
            check_unicode(caption, key, f"its {field}")
            stripped = caption.strip()
            empty |= not stripped
            captions.setdefault(stripped, field)
    captions.pop("", None)
    if not captions:
        reason = Reason.EMPTY_CAPTION if empty else Reason.MISSING_CAPTION
        raise SampleError(
            reason,
            key,
            "its caption is empty"
            if empty
            else f"has no {' or '.join(field for field, _ in values)}",
        )
    return captions


def _texts_in(value: Any, key: str, field: str) -> Sequence[Any]:
    """The content of a caption field as a list."""
    if isinstance(value, list | tuple):
        return [
            text
            for item in value
            for text in (_texts_of(item, key, field) if isinstance(item, str) else [item])
        ]
    return [] if value is None else _texts_of(value, key, field)


def _texts_of(value: Any, key: str, field: str) -> Sequence[Any]:
    """The texts of a JSON list; any other value as a list of one."""
    if not isinstance(value, str) or (value.lstrip()[:1], value.rstrip()[-1:]) not in (
        ("[", "]"),
        ("{", "}"),
    ):
        return [value]
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        found = None
    if isinstance(found, dict):
        raise SampleError(
            Reason.WRONG_TYPE, key, f"its {field} is a JSON object, not a text: {value[:60]}"
        )
    if isinstance(found, list):
        if all(text is None or isinstance(text, str) for text in found):
            return found
        raise SampleError(
            Reason.WRONG_TYPE, key, f"its {field} is a JSON list, but not of texts: {value[:60]}"
        )
    if _PYTHON_LIST.fullmatch(value.strip()):
        raise SampleError(
            Reason.WRONG_TYPE,
            key,
            f"its {field} is a list as Python prints it, not as JSON: {value[:60]}",
        )
    return [value]
