"""COCO's objects (Lin et al. 2014) and panoptic segments (Kirillov et al. 2019).

    coco_instances:instances_val2017.json?root=val2017&captions=captions_val2017.json
    coco_panoptic:panoptic_val2017.json?root=val2017&masks=panoptic_val2017

A sample is an image. Its captions are those of the file that `captions` names; without it, the
names of its classes ("person, dog"). Metadata, a list with an entry for each object: `boxes`
([left, top, right, bottom] in pixels), `classes` (names), `area`, `iscrowd`, `segmentation`
(polygons or run lengths, as in COCO; `masks.mask_of` draws one), `annotation_ids`; and `image_id`,
`height`, `width`. Panoptic segments also have `isthing`, and their `segmentation` only with
`masks`, the folder of PNGs whose colours are the ids of segments, from which it is read on access.

Images without objects are left out, except where they have captions of a file.
"""

import io
from collections.abc import Iterable
from typing import Any

import numpy as np
from PIL import Image

from vlp_jax.data.layouts.captions import captions_by_image
from vlp_jax.data.layouts.documents import Entry, read_object
from vlp_jax.data.layouts.masks import run_lengths
from vlp_jax.data.layouts.records import (
    Notes,
    Options,
    RecordSource,
    Rows,
    file_beside,
    optional_file,
    single,
    split_layout,
)
from vlp_jax.data.layouts.refcoco import by_id, found
from vlp_jax.data.samples import Reason, SampleError
from vlp_jax.data.sources.columns import read_image
from vlp_jax.data.sources.filesystem import is_folder
from vlp_jax.errors import DataError

MASKS = "masks"
NO_OBJECT = "images without an object"


class CocoReader:
    """Reads the rows of both kinds.

    Args:
      path: the annotation file.
      captions: a file with captions, or None.
    """

    def __init__(self, path: str, captions: str | None):
        self.path, self.captions = path, captions

    def rows(self, notes: Notes, document: Entry, objects: dict[Any, list[dict]]) -> Rows:
        """The rows of all images.

        Args:
          notes: gets the class names, and the images without objects.
          document: the annotation file.
          objects: the fields of the objects of each image, by its id.
        """
        names = [category.text("name") for category in document.entries("categories")]
        notes.class_names = {"classes": names}
        texts = captions_by_image(read_object(self.captions, "captions")) if self.captions else {}
        for image in document.entries("images"):
            number, name = image.number_or_text("id"), image.text("file_name")
            held = objects.get(number, [])
            caption = texts.get(number) if self.captions else described(held)
            if not caption:
                notes.leave_out("images without a caption" if self.captions else NO_OBJECT)
                continue
            row = {"image": name, "caption": caption, **columns(held), "image_id": number}
            yield name, {**row, **image.some("height", "width")}


def described(objects: Iterable[dict[str, Any]]) -> str:
    """The names of the classes of some objects, each once."""
    return ", ".join(dict.fromkeys(thing["classes"] for thing in objects))


def columns(objects: list[dict[str, Any]]) -> dict[str, list]:
    """A list for each field of objects; no list of a field that an object lacks."""
    if not objects:
        return {"boxes": [], "classes": []}
    shared = [name for name in objects[0] if all(name in thing for thing in objects)]
    return {name: [thing[name] for thing in objects] for name in shared}


def open_coco_instances(rest: str) -> RecordSource:
    """The images of FILE?OPTIONS.

    Raises:
      DataError: for a wrong option, a missing file, or another format.
    """
    spec, path, options = split_layout(rest, "coco_instances", ("captions",))
    reader = CocoReader(path, optional_file(path, options, "captions", spec))

    def read(notes: Notes) -> Rows:
        document = read_object(path, "instances of COCO")
        categories, objects = by_id(document, "categories"), {}
        for annotation in document.entries("annotations"):
            category = found(categories, annotation, "category_id", path)
            thing = {
                "boxes": annotation.box("bbox"),
                "classes": category.text("name"),
                "annotation_ids": annotation.number_or_text("id"),
                **annotation.some("area", "iscrowd", "segmentation"),
            }
            objects.setdefault(annotation.number_or_text("image_id"), []).append(thing)
        yield from reader.rows(notes, document, objects)

    beside = [reader.captions] if reader.captions else []
    return RecordSource(path, beside, spec, options, read)


class PanopticSource(RecordSource):
    """Images whose segments are the colours of a PNG in another folder."""

    def __init__(self, folder: str | None, *args: Any):
        self.folder = folder
        super().__init__(*args)

    def described(self, key: str, row: dict[str, Any]) -> dict[str, Any]:
        """The row with the `segmentation` of its segments."""
        row, name = super().described(key, row), row.pop(MASKS)
        if self.folder is not None:
            ids = segment_ids(read_image(self.folder, name, key), key, name)
            row["segmentation"] = [run_lengths(ids == number) for number in row["annotation_ids"]]
        return row


def segment_ids(data: bytes, key: str, name: str) -> np.ndarray:
    """The id of the segment of each pixel, int64 [H, W]: red + 256 green + 256^2 blue.

    Raises:
      SampleError: if the image is damaged.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            colours = np.asarray(image.convert("RGB"), np.int64)
    except (OSError, ValueError, SyntaxError) as error:
        raise SampleError(Reason.DAMAGED_IMAGE, key, f"its masks {name!r}: {error}") from error
    return colours @ np.array([1, 256, 256**2])


def open_coco_panoptic(rest: str) -> RecordSource:
    """The images of FILE?OPTIONS.

    Raises:
      DataError: for a wrong option, a missing file or folder, or another format.
    """
    spec, path, options = split_layout(rest, "coco_panoptic", ("captions", MASKS))
    reader = CocoReader(path, optional_file(path, options, "captions", spec))
    folder = masks_folder(path, options, spec)

    def read(notes: Notes) -> Rows:
        document = read_object(path, "panoptic annotations of COCO")
        categories, objects, files = by_id(document, "categories"), {}, {}
        for annotation in document.entries("annotations"):
            number = annotation.number_or_text("image_id")
            files[number] = annotation.text("file_name")
            objects[number] = [
                segment_fields(segment, categories, path)
                for segment in annotation.entries("segments_info")
            ]
        for key, row in reader.rows(notes, document, objects):
            yield key, {**row, MASKS: files.get(row["image_id"])}

    beside = [reader.captions] if reader.captions else []
    return PanopticSource(folder, path, beside, spec, options, read)


def segment_fields(segment: Entry, categories: dict, path: str) -> dict[str, Any]:
    """The fields of a panoptic segment."""
    category = found(categories, segment, "category_id", path)
    return {
        "boxes": segment.box("bbox"),
        "classes": category.text("name"),
        "annotation_ids": segment.whole("id"),
        **segment.some("area", "iscrowd"),
        **category.some("isthing"),
    }


def masks_folder(path: str, options: Options, spec: str) -> str | None:
    """The folder that `masks` names; None where it is not given.

    Raises:
      DataError: if there is none.
    """
    name = single(options, MASKS, None, spec)
    folder = None if name is None else file_beside(path, name)
    if folder is not None and not is_folder(folder):
        raise DataError(f"{spec}: masks: {folder} is no folder")
    return folder
