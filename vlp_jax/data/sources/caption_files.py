"""Conversion of COCO annotations and Karpathy splits to the JSON lines of `jsonl:`.

Captioning data come in these two JSON formats. COCO (Chen et al. 2015): {"images": [{"id",
"file_name"}], "annotations": [{"image_id", "caption"}]}. Karpathy (Karpathy and Fei-Fei 2015):
{"images": [{"filename", "filepath", "split", "sentences": [{"raw"}]}]}, for COCO, Flickr8k and
Flickr30k.
"""

import json
import os
import posixpath
import shlex
from collections.abc import Iterator
from typing import Any

from vlp_jax.data.sources.filesystem import read_file
from vlp_jax.errors import ConfigError, DataError

COCO, KARPATHY = "COCO captions", "a Karpathy split"
READERS = {COCO: "coco_captions", KARPATHY: "karpathy"}  # kinds of sources
HEAD = 1 << 20  # bytes at the beginning that are searched for keys


def name_format(data: Any) -> str | None:
    """Which of the two formats a JSON value has; None for any other."""
    images = data.get("images") if isinstance(data, dict) else None
    first = images[0] if isinstance(images, list) and images else None
    if not isinstance(first, dict):
        return None
    if "sentences" in first and "filename" in first:
        return KARPATHY
    return COCO if "file_name" in first and isinstance(data.get("annotations"), list) else None


def guess_format(head: bytes) -> str | None:
    """Which of the two formats a file of several lines has, judged by its first bytes; None for any
    other."""
    if b'"images"' not in head:
        return None
    if b'"sentences"' in head and b'"filename"' in head:
        return KARPATHY
    return COCO if b'"file_name"' in head else None


def how_to_convert(path: str, name: str) -> str:
    """Message that names the format of a file, its reader, and the command that converts it to
    lines."""
    split = " --split=test" if name == KARPATHY else ""
    output = shlex.quote(f"{os.path.splitext(os.path.basename(path))[0]}.jsonl")
    return (
        f"{path}: is {name}, one JSON object for all images; read it as "
        f"{shlex.quote(READERS[name] + ':' + path)}?root=FOLDER, where the images lie, or make a "
        "line of each image: python "
        f"-m vlp_jax.prepare --convert={shlex.quote(path)} --output={output}{split}, then read "
        f"jsonl:{output}?root=FOLDER"
    )


def convert(path: str, split: str | None = None) -> Iterator[dict[str, Any]]:
    """One row for each image that has captions, in order: `image`, `caption` (a list) and other
    fields of the image.

    Args:
      path: the JSON file.
      split: a split of a Karpathy file, such as `test`; None for all. Each row has its `split`.

    Raises:
      ConfigError: if a split is given for COCO annotations, which have none.
      DataError: if the file has another format, lacks a field, or does not have the split.
    """
    try:
        data = json.loads(read_file(path))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: is not JSON: {error}") from error
    name = name_format(data)
    if name is None:
        raise DataError(
            f"{path}: is neither {COCO} (images and annotations) nor {KARPATHY} "
            "(images with sentences)"
        )
    if name == COCO and split is not None:
        raise ConfigError(f"--split={split}: {path} is {COCO}, which has no splits")
    try:
        yield from (
            _coco(data["images"], data["annotations"])
            if name == COCO
            else _karpathy(path, data["images"], split)
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: an image or a caption lacks a field: {error}") from error


def _coco(images: list[dict], annotations: list[dict]) -> Iterator[dict[str, Any]]:
    captions: dict[Any, list[str]] = {}
    for annotation in annotations:
        captions.setdefault(annotation["image_id"], []).append(annotation["caption"])
    for image in images:
        if image["id"] in captions:
            yield {"image": image["file_name"], "caption": captions[image["id"]], "id": image["id"]}


def _karpathy(path: str, images: list[dict], split: str | None) -> Iterator[dict[str, Any]]:
    splits = sorted({found for image in images if (found := image.get("split")) is not None})
    if split is not None and split not in splits:
        raise DataError(f"{path}: no split {split!r}; splits: {', '.join(splits)}")
    for image in images:
        if split in (None, image.get("split")):
            name = posixpath.join(image.get("filepath") or "", image["filename"])
            yield {
                "image": name,
                "caption": [sentence["raw"] for sentence in image["sentences"]],
                "split": image.get("split"),
            }
