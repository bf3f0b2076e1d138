"""From the fields of ArrayRecord records to samples, by the features.json and manifest.json of the
folder."""

import json
from collections.abc import Callable
from typing import Any

from vlp_jax.data.samples import (
    CAPTION,
    IMAGE_ALONE,
    TEXT_ALONE,
    Reason,
    Sample,
    SampleError,
    check_captions,
)
from vlp_jax.data.sources.class_files import lines_of
from vlp_jax.data.sources.filesystem import MissingFileError, join, read_file, size_or_none
from vlp_jax.errors import DataError

CAPTION_FIELDS = ("captions", "caption", "text")
NAMES = "caption_fields"  # where `prepare` stores the field that every caption came from
FILE = "image_file"  # where it stores the name of the image's file


def read_json(path: str, spec: str) -> dict:
    """The object in a JSON file of such a folder.

    Raises:
      DataError: if the file is missing or damaged.
    """
    try:
        return json.loads(read_file(path))
    except MissingFileError:
        raise DataError(
            f"{spec}: {path} is missing; expected a folder written by vlp_jax.prepare or by TFDS"
        ) from None
    except ValueError as error:
        raise DataError(f"{spec}: {path} cannot be read: {error}") from error


def read_manifest(directory: str, spec: str) -> dict:
    """The manifest.json that `prepare` writes; empty for a folder written by TFDS, which has none.

    Raises:
      DataError: if it is damaged.
    """
    path = join(directory, "manifest.json")
    return {} if size_or_none(path) is None else read_json(path, spec)


class Fields:
    """How the fields of a record become a sample.

    Args:
      image: the image field.
      caption: the caption field.
      readers: readers of the other fields, by name.
      caption_field: field given as the origin of captions in records that do not name it.
      named: whether records name the field that every caption came from.
      prepared: whether `prepare` wrote the records.
    """

    def __init__(
        self,
        image: str,
        caption: str,
        readers: dict[str, Callable[[list], Any]],
        caption_field: str,
        named: bool,
        prepared: bool,
    ):
        self.image, self.caption, self.readers, self.caption_field, self.named = (
            image,
            caption,
            readers,
            caption_field,
            named,
        )
        self.prepared = prepared
        self.no_metadata = (
            {"key", "caption", "captions", caption}
            | ({NAMES} if named else set())
            | ({FILE} if prepared else set())
        )

    def sample(self, name: str, values: dict[str, list]) -> Sample:
        """The sample in a record.

        Args:
          name: key of the sample if the record has none.
          values: the record, lists of values by field.

        Raises:
          SampleError: if the image or caption is missing, empty or damaged.
        """
        try:
            key = values["key"][0].decode() if values.get("key") and "key" in self.readers else name
            metadata = {
                field: read(values[field])
                for field, read in self.readers.items()
                if field not in self.no_metadata and field in values
            }
            captions = [text.decode() for text in values.get(self.caption, ())]
            given = values.get(NAMES) if self.named else None
            file = values[FILE][0].decode() if self.prepared and values.get(FILE) else ""
            names = (
                [name.decode() for name in given] if given else [self.caption_field] * len(captions)
            )
            named = list(zip(names, captions, strict=True)) or [(self.caption_field, None)]
        except (ValueError, AttributeError, IndexError) as error:
            raise SampleError(
                Reason.DAMAGED_TEXT, name, f"a field cannot be read: {error}"
            ) from error
        image = values.get(self.image) or [b""]
        if not image[0]:
            raise SampleError(Reason.MISSING_IMAGE, key, "has no image")
        found = check_captions(named, key)
        return Sample(key, image[0], tuple(found), metadata, tuple(found.values()), file)


def read_fields(directory: str, manifest: dict, spec: str) -> Fields:
    """The fields of a folder, from its features.json and, where `prepare` wrote it, its manifest.

    Raises:
      DataError: if no field is an image or none a caption.
    """
    features = (
        read_json(join(directory, "features.json"), spec)
        .get("featuresDict", {})
        .get("features", {})
    )
    kinds = manifest.get("fields", {})
    images = [
        name for name, feature in features.items() if feature["pythonClassName"].endswith(".Image")
    ]
    captions = [name for name in CAPTION_FIELDS if name in features]
    for what, found, alone in (("image", images, TEXT_ALONE), ("caption", captions, IMAGE_ALONE)):
        if not found:
            raise DataError(
                f"{spec}: no {what} field in features.json (fields: "
                f"{', '.join(features) or 'none'}); {alone}"
            )
    readers = {
        name: _field_reader(directory, name, feature, kinds.get(name))
        for name, feature in features.items()
    }
    image = "image" if "image" in images else images[0]
    readers = {name: read for name, read in readers.items() if read and name not in images}
    caption_field = CAPTION if manifest else captions[0]
    return Fields(
        image,
        captions[0],
        readers,
        caption_field,
        bool(manifest) and NAMES in features,
        bool(manifest),
    )


class _Scalar:
    """Reads one text or number; with `names`, a class label as its name; with `as_json`, JSON
    stored in a text."""

    def __init__(self, names: list[str] | None = None, as_json: bool = False):
        self.names, self.as_json = names, as_json

    def __call__(self, values: list) -> Any:
        value: Any = values[0].decode() if isinstance(values[0], bytes) else values[0]
        if self.as_json:
            return json.loads(value) if value else None
        return self.names[value] if self.names and 0 <= value < len(self.names) else value


def _read_list(values: list) -> list:
    return [value.decode() if isinstance(value, bytes) else value for value in values]


def _field_reader(directory: str, name: str, feature: dict, kind: str | None) -> Callable | None:
    """A reader of a flat field; None for nested features and tensors, which are not part of a
    sample."""
    python_class = feature["pythonClassName"].rsplit(".", 1)[-1]
    if python_class == "ClassLabel":
        labels = join(directory, f"{name}.labels.txt")
        return _Scalar(
            names=None if size_or_none(labels) is None else lines_of(read_file(labels), labels)
        )
    if python_class in ("Text", "Scalar") or (
        python_class == "Tensor" and not feature["tensor"].get("shape")
    ):
        return _Scalar(as_json=kind == "json")
    inner = (
        feature.get("sequence", {}).get("feature", {}).get("pythonClassName", "").rsplit(".", 1)[-1]
    )
    return _read_list if inner in ("Text", "Scalar", "ClassLabel", "Tensor") else None
