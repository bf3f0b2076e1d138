"""From a `Sample` to a tf.train.Example record, and the features.json with which TFDS reads it."""

import dataclasses
import io
import json
from collections.abc import Iterable, Sequence
from typing import Any

from vlp_jax.data.images.decoding import check_pixels, decode, named_errors, open_image
from vlp_jax.data.images.preprocessing import ImagesConfig
from vlp_jax.data.samples import CAPTION, NO_CAPTION, Reason, Sample, SampleError
from vlp_jax.data.sources.tf_example import encode_example

RESERVED = ("key", "image", "caption", "captions", "caption_fields", "image_file")
IMAGE_FORMATS = ("keep", "webp", "png")
_FEATURES = "tensorflow_datasets.core.features."


def encode_image(data: bytes, image_format: str, key: str) -> bytes:
    """The image in its stored form.

    For `keep` it is unchanged, and only its header is read; an image with a palette is stored as
    RGBA PNG, because TFDS would decode it to palette indices. Otherwise it is lossless RGBA,
    upright, with the same pixels wherever alpha > 0. WebP clears the colours where alpha is 0.

    Args:
      data: the encoded image.
      image_format: one of IMAGE_FORMATS.
      key: key of the sample in errors.

    Raises:
      SampleError: as `decode`.
    """
    with named_errors(key, data):
        if image_format == "keep":
            with open_image(data) as image:
                check_pixels(image.size, key, ImagesConfig.maximum_pixels)
                if image.mode not in ("P", "PA"):
                    return data
        rgba, encoded = decode(data, key, ImagesConfig.maximum_pixels).convert("RGBA"), io.BytesIO()
        if image_format == "webp":
            rgba.save(encoded, "WEBP", lossless=True, quality=100, method=6, exact=False)
        else:
            rgba.save(encoded, "PNG", optimize=True)
        return encoded.getvalue()


def metadata_of(sample: Sample) -> dict[str, Any]:
    """The metadata by stored name: fields called `key`, `captions`, ... become `source_key`,
    `source_captions`, ..."""
    return {
        f"source_{name}" if name in RESERVED else name: value
        for name, value in sample.metadata.items()
    }


def _kind(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, str):
        return "text"
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return "texts"
    if isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63:
        return "integer"
    return "number" if isinstance(value, float) else "json"


_KIND_OF_SEVERAL = {
    frozenset(kinds): kind
    for kind, *several in (
        ("text", ["text"], ["none"], ["text", "none"]),
        ("texts", ["texts"], ["texts", "none"]),
        ("integer", ["integer"]),
        ("number", ["number"], ["integer", "number"]),
    )
    for kinds in several
}


@dataclasses.dataclass(frozen=True)
class Schema:
    """The stored fields of a data set, the same in every record.

    Attributes:
      kinds: for each metadata field one of text, texts, integer, number (float32), or json (JSON
        stored in a text, for everything else and for fields that are sometimes missing).
      several: whether a list `captions` is stored in addition to `caption`.
      image_format: see `encode_image`.
      named: whether the fields that captions come from are stored as `caption_fields`.
      files: whether the names of images are stored as `image_file`, which identifies the samples of
        one image.
    """

    kinds: dict[str, str]
    several: bool
    image_format: str = "keep"
    named: bool = False
    files: bool = False

    def encode(self, sample: Sample) -> bytes:
        """The record of a sample.

        Raises:
          SampleError: for a sample without a caption, a damaged image, or a field whose type
            differs from its kind.
        """
        if not sample.captions:
            raise SampleError(Reason.MISSING_CAPTION, sample.key, NO_CAPTION)
        fields: dict[str, Sequence] = {
            "image": [encode_image(sample.image, self.image_format, sample.key)],
            "key": [sample.key],
            "caption": [sample.captions[0]],
        }
        if self.several:
            fields["captions"] = sample.captions
        if self.named:
            fields["caption_fields"] = sample.caption_fields
        if self.files:
            fields["image_file"] = [sample.image_file]
        metadata = metadata_of(sample)
        for name, kind in self.kinds.items():
            fields[name] = self._values(sample.key, name, kind, metadata.get(name))
        try:
            return encode_example(fields)
        except UnicodeEncodeError as error:
            raise SampleError(
                Reason.DAMAGED_TEXT, sample.key, f"a field holds half a character: {error.reason}"
            ) from error

    def _values(self, key: str, name: str, kind: str, value: Any) -> list:
        if kind == "json":
            return ["" if value is None else json.dumps(value, ensure_ascii=False)]
        found = _kind(value)
        if found == "none" and kind in ("text", "texts"):
            return [""] if kind == "text" else []
        if kind == "number" and found == "integer":
            return [float(value)]
        if found != kind:
            raise SampleError(
                Reason.WRONG_TYPE, key, f"its field {name!r} is {found}, elsewhere {kind}"
            )
        return value if kind == "texts" else [value]

    def features(self) -> dict:
        """The contents of features.json."""
        channels = "3" if self.image_format == "keep" else "-1"
        image = {"dtype": "uint8", "shape": {"dimensions": ["-1", "-1", channels]}}
        features = {"image": {"pythonClassName": _FEATURES + "image_feature.Image", "image": image}}
        texts = ["captions"] * self.several + ["caption_fields"] * self.named
        kinds = {"key": "text", "caption": "text"} | dict.fromkeys(texts, "texts") | self.kinds
        kinds |= {"image_file": "text"} if self.files else {}
        features |= {name: _feature(kind) for name, kind in kinds.items()}
        return {
            "pythonClassName": _FEATURES + "features_dict.FeaturesDict",
            "featuresDict": {"features": dict(sorted(features.items()))},
        }


def _feature(kind: str) -> dict:
    if kind in ("text", "json"):
        return {"pythonClassName": _FEATURES + "text_feature.Text", "text": {}}
    if kind == "texts":
        sequence = {"feature": _feature("text"), "length": "-1"}
        return {"pythonClassName": _FEATURES + "sequence_feature.Sequence", "sequence": sequence}
    dtype = {"integer": "int64", "number": "float32"}[kind]
    tensor = {"shape": {}, "dtype": dtype, "encoding": "none"}
    return {"pythonClassName": _FEATURES + "scalar.Scalar", "tensor": tensor}


def survey(samples: Iterable[Sample], complete: bool, image_format: str) -> Schema:
    """The schema for some samples.

    Args:
      samples: the samples.
      complete: whether these are all samples. Otherwise later ones may have several captions, from
        several fields.
      image_format: see `encode_image`.
    """
    seen: dict[str, set[str]] = {}
    count, present, several, named, files = 0, {}, not complete, not complete, False
    for sample in samples:
        count += 1
        several |= len(sample.captions) > 1
        named |= set(sample.caption_fields) != {CAPTION}
        files |= bool(sample.image_file)
        for name, value in metadata_of(sample).items():
            seen.setdefault(name, set()).add(_kind(value))
            present[name] = present.get(name, 0) + 1
    for name, times in present.items():
        if times < count:
            seen[name].add("none")
    kinds = {
        name: _KIND_OF_SEVERAL.get(frozenset(found), "json") for name, found in sorted(seen.items())
    }
    return Schema(kinds, several, image_format, named, files)
