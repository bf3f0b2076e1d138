"""`imagenet:DIR?split=val`: ImageNet's folders (Russakovsky et al. 2015).

DIR/SPLIT has a folder for each class, n01440764, or, for the validation images as published, the
images themselves; then their classes are in LOC_val_solution.csv (Kaggle), or in
ILSVRC2012_validation_ground_truth.txt and the meta.mat next to it (the development kit), which the
option `labels` names, or which lie in DIR, its `ILSVRC2012_devkit_t12/data`, or up to three folders
above. Classes are numbered in the order of all WordNet ids: those of LOC_synset_mapping.txt, found
likewise or named by `synsets`, those of DIR/train, or those of the split.

The name of a class is its line in DIR/classnames.txt; of all 1,000 classes, that of CLIP (Radford
et al. 2021), which zero-shot prompts need; else the first synonym of LOC_synset_mapping.txt; else
the id. Metadata: `class` (the name), `cls` (the number) and `wnid`. The caption is the name, in
every `prompt`.
"""

import csv
import io
import os
import pathlib
from collections.abc import Sequence

import numpy as np

from vlp_jax.data.layouts.records import Notes, Options, RecordSource, Rows, single, split_options
from vlp_jax.data.sources.class_files import CLASS_NAMES, lines_of
from vlp_jax.data.sources.columns import Columns
from vlp_jax.data.sources.filesystem import read_file, refuse_remote
from vlp_jax.data.sources.folder import FolderSource
from vlp_jax.errors import DataError

MAPPING, SOLUTION = "LOC_synset_mapping.txt", "LOC_val_solution.csv"
TRUTH, META = "ILSVRC2012_validation_ground_truth.txt", "meta.mat"
PLACES = (".", "ILSVRC2012_devkit_t12/data", "..", "../..", "../../..")
CLIP_NAMES = pathlib.Path(__file__).parents[1] / "imagenet/class_names.txt"
FIRST, LAST = "n01440764", "n15075141"  # of the 1,000 classes


class Classes:
    """The classes of a data set.

    Attributes:
      wnids: their WordNet ids, in order.
      names: their names.
    """

    def __init__(self, wnids: Sequence[str], names: Sequence[str]):
        self.wnids, self.names = list(wnids), list(names)
        self.numbers = {wnid: number for number, wnid in enumerate(wnids)}

    def fields(self, wnid: str) -> dict[str, str | int]:
        """The columns of an image of a class."""
        number = self.numbers[wnid]
        name = self.names[number]
        return {"caption": name, "class": name, "cls": number, "wnid": wnid}


class ImageNetFolders(FolderSource):
    """Images in a folder for each class."""

    def __init__(self, folder: str, spec: str, columns: Columns, classes: Classes):
        super().__init__(folder, spec, columns)
        self.known, self.templates = classes, ()
        self.class_names = {"class": classes.names, "cls": classes.names}
        for name in self.classes:
            if name not in classes.numbers:
                raise DataError(f"{spec}: {folder}/{name} is a folder of no class of {MAPPING}")

    def _row(self, index: int) -> tuple[str, str, dict]:
        path, key, fields = super()._row(index)
        return path, key, self.known.fields(fields["class"])


def text_lines(path: str) -> list[str]:
    """The lines of a text file."""
    return lines_of(read_file(path), path)


def find(folder: str, names: Sequence[str], options: Options, option: str, spec: str) -> str | None:
    """The file that an option names, or the first with one of these names; None if there is none.

    Raises:
      DataError: if the option names no file.
    """
    given = single(options, option, None, spec)
    if given is not None:
        path = os.path.join(folder, os.path.expanduser(given))
        if not os.path.isfile(path):
            raise DataError(f"{spec}: {option}: no such file: {path}")
        return path
    paths = [os.path.join(folder, place, name) for place in PLACES for name in names]
    return next(filter(os.path.isfile, paths), None)


def folders_in(folder: str) -> list[str]:
    """The names of the folders in a folder, sorted; none where there is no folder."""
    if not os.path.isdir(folder):
        return []
    with os.scandir(folder) as entries:
        return sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))


def classes_of(folder: str, split: str, options: Options, spec: str) -> Classes:
    """The classes of a data set; see the module.

    Raises:
      DataError: if there are none, or classnames.txt has another number of lines.
    """
    mapping = find(folder, [MAPPING], options, "synsets", spec)
    pairs = [line.strip().partition(" ") for line in text_lines(mapping)] if mapping else []
    synonyms = {wnid: words.partition(",")[0].strip() for wnid, _, words in pairs if wnid}
    wnids = sorted(synonyms) or folders_in(f"{folder}/train") or folders_in(f"{folder}/{split}")
    if not wnids:
        raise DataError(
            f"{spec}: no class is known; expected folders {folder}/{split}/n01440764, or "
            f"{MAPPING}, which the option synsets names"
        )
    return Classes(wnids, names_of(folder, wnids, synonyms, spec))


def names_of(folder: str, wnids: list[str], synonyms: dict[str, str], spec: str) -> list[str]:
    """The names of classes; errors as of `classes_of`."""
    path = os.path.join(folder, CLASS_NAMES)
    if os.path.isfile(path):
        names = [line.strip() for line in text_lines(path)]
        if len(names) != len(wnids):
            raise DataError(
                f"{spec}: {path} names {len(names)} classes, and there are {len(wnids)}"
            )
        return names
    if len(wnids) == 1000 and (wnids[0], wnids[-1]) == (FIRST, LAST):
        return text_lines(str(CLIP_NAMES))
    return [synonyms.get(wnid) or wnid for wnid in wnids]


def labels_of(path: str, images: list[str]) -> dict[str, str]:
    """The WordNet id of each validation image by the name of its file, without the ending.

    Args:
      path: LOC_val_solution.csv or ILSVRC2012_validation_ground_truth.txt.
      images: the names of all images, sorted.

    Raises:
      DataError: if the file has another form, or not as many lines as there are images.
    """
    if path.endswith(".csv"):
        rows = csv.DictReader(io.StringIO("\n".join(text_lines(path))))
        try:
            return {row["ImageId"]: row["PredictionString"].split()[0] for row in rows}
        except (KeyError, AttributeError, IndexError) as error:
            raise DataError(f"{path}: has no columns ImageId, PredictionString: {error}") from error
    numbers, wnids = text_lines(path), devkit_ids(os.path.join(os.path.dirname(path), META))
    if len(numbers) != len(images):
        raise DataError(f"{path}: has {len(numbers)} lines, and there are {len(images)} images")
    try:
        return {image: wnids[int(n)] for image, n in zip(images, numbers, strict=True)}
    except (KeyError, ValueError) as error:
        raise DataError(f"{path}: has a line that is no class of {META}: {error}") from error


def devkit_ids(path: str) -> dict[int, str]:
    """The WordNet ids by their ILSVRC2012_ID, which has an order of its own.

    Raises:
      DataError: if the file is missing or has another form.
    """
    from scipy.io import loadmat

    try:
        synsets = np.ravel(loadmat(io.BytesIO(read_file(path)), squeeze_me=True)["synsets"])
        return {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in synsets}
    except (KeyError, ValueError, TypeError, NotImplementedError) as error:
        raise DataError(f"{path}: is no meta.mat of the development kit: {error}") from error


def open_flat(
    folder: str, split: str, spec: str, options: Options, classes: Classes
) -> RecordSource:
    """The images of a split without folders of classes.

    Raises:
      DataError: if their labels are missing or wrong.
    """
    labels = find(folder, [SOLUTION, TRUTH], options, "labels", spec)
    if labels is None:
        raise DataError(
            f"{spec}: {folder}/{split} has no folders of classes, and their labels are missing: "
            f"{SOLUTION}, or {TRUTH} next to {META}; ?labels=FILE names it"
        )
    with os.scandir(f"{folder}/{split}") as entries:
        images = sorted(entry.name for entry in entries if entry.name.endswith(".JPEG"))

    def read(notes: Notes) -> Rows:
        notes.class_names = {"class": classes.names, "cls": classes.names}
        wnids = labels_of(labels, [os.path.splitext(image)[0] for image in images])
        for image in images:
            wnid = wnids.get(os.path.splitext(image)[0])
            if wnid not in classes.numbers:
                raise DataError(f"{spec}: {labels} gives {image} the class {wnid}, which is none")
            yield image, {"image": image, **classes.fields(wnid)}

    kept = {name: options[name] for name in options if name == "prompt"}
    kept["root"] = (os.path.abspath(f"{folder}/{split}"),)
    also = [images, classes.wnids, classes.names]
    beside = [] if labels.endswith(".csv") else [os.path.join(os.path.dirname(labels), META)]
    return RecordSource(labels, beside, spec, kept, read, also=also)


def open_imagenet(rest: str) -> FolderSource | RecordSource:
    """The images of a split (default: train) of DIR.

    Raises:
      DataError: for a remote folder, a wrong option, a missing split, or missing labels.
    """
    spec, names = f"imagenet:{rest}", ("split", "prompt", "labels", "synsets")
    folder, options = split_options(rest, "imagenet", names)
    refuse_remote(folder, spec)
    folder, split = os.path.expanduser(folder), single(options, "split", "train", spec)
    if not os.path.isdir(f"{folder}/{split}"):
        there = ", ".join(folders_in(folder)[:6]) or "none"
        raise DataError(f"{spec}: {folder}/{split} is no folder (folders: {there}); ?split=NAME")
    classes = classes_of(folder, split, options, spec)
    if not folders_in(f"{folder}/{split}"):
        return open_flat(folder, split, spec, options, classes)
    prompts = {name: options[name] for name in options if name == "prompt"}
    return ImageNetFolders(f"{folder}/{split}", spec, Columns.of(prompts, spec), classes)
