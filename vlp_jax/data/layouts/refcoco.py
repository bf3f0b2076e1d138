"""`refcoco:REFS.json?split=val&root=train2014`: expressions for objects of COCO images.

RefCOCO and RefCOCO+ (Yu et al. 2016), RefCOCOg (Mao et al. 2016). REFS is a list of {"ref_id",
"ann_id", "image_id", "category_id", "split", "sentences": [{"sent"}]}. It is published as a pickle,
`refs(unc).p`, which is refused, as reading one can run any code; the message has the command that
writes it as JSON. Boxes and names of images are those of COCO's `instances.json` next to it, or of
the file that the option `instances` names.

A sample is an object with all its expressions. Metadata: `boxes` (one, [left, top, right, bottom]
in pixels), `category`, `segmentation` as in COCO, `ref_id`, `ann_id`, `image_id`, `split`.
"""

from typing import Any

from vlp_jax.data.layouts.documents import Entry, read_list, read_object
from vlp_jax.data.layouts.records import (
    Notes,
    RecordSource,
    Rows,
    file_beside,
    optional_file,
    split_layout,
)
from vlp_jax.data.sources.filesystem import size_or_none
from vlp_jax.errors import DataError


def by_id(document: Entry, name: str) -> dict[int | str, Entry]:
    """The objects of a list by their ids."""
    return {entry.number_or_text("id"): entry for entry in document.entries(name)}


def found(entries: dict[int | str, Entry], place: Entry, field: str, path: str) -> Entry:
    """The entry that a field names.

    Raises:
      DataError: if there is none.
    """
    number = place.number_or_text(field)
    if number not in entries:
        raise DataError(f"{place}: its {field} {number} is not in {path}")
    return entries[number]


def object_fields(annotation: Entry, categories: dict[int | str, Entry], path: str) -> dict:
    """The box, category and mask of an annotation of COCO."""
    category = found(categories, annotation, "category_id", path).text("name")
    fields = {"boxes": [annotation.box("bbox")], "category": category}
    return {**fields, **annotation.some("segmentation")}


def open_refcoco(rest: str) -> RecordSource:
    """The objects of REFS?OPTIONS; without `split`, those of all splits.

    Raises:
      DataError: for a wrong option or split, a missing file, a pickle, or another format.
    """
    spec, path, options = split_layout(rest, "refcoco", ("instances", "split"))
    given = optional_file(path, options, "instances", spec)
    instances = given or file_beside(path, "instances.json")
    if size_or_none(instances) is None:
        raise DataError(f"{spec}: {instances} is missing; name COCO's file: ?instances=FILE")
    splits = options.get("split", ())

    def read(notes: Notes) -> Rows:
        refs = list(read_list(path, "a list of objects with expressions"))
        there = {ref.text("split") for ref in refs}
        for split in splits:
            if split not in there:
                raise DataError(
                    f"{spec}: no split {split!r}; splits: {', '.join(sorted(there)) or 'none'}"
                )
        document = read_object(instances, "instances of COCO")
        images, annotations = by_id(document, "images"), by_id(document, "annotations")
        categories = by_id(document, "categories")
        for ref in refs:
            if splits and ref.text("split") not in splits:
                continue
            row: dict[str, Any] = {
                "image": found(images, ref, "image_id", instances).text("file_name"),
                "caption": [sentence.text("sent") for sentence in ref.entries("sentences")],
            }
            annotation = found(annotations, ref, "ann_id", instances)
            row |= object_fields(annotation, categories, instances)
            row |= ref.some("ref_id", "ann_id", "image_id", "split")
            yield str(ref.number_or_text("ref_id")), row

    return RecordSource(path, [instances], spec, options, read)
