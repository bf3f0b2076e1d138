"""The image-text sets inside this package: `embedded:emoji/train`."""

import importlib.resources
import json
import lzma
import pathlib

from vlp_jax.data import arrayrecord
from vlp_jax.errors import DataError

SETS = ("emoji",)


def folder(name: str) -> pathlib.Path:
    """Where the embedded set `name` lies. Raises: DataError for a set that this package has not."""
    if name not in SETS:
        raise DataError(f"embedded:{name}: no such set; sets: {', '.join(SETS)}")
    return pathlib.Path(str(importlib.resources.files("vlp_jax").joinpath("data", name)))


def open_embedded(rest: str) -> arrayrecord.ArrayRecordSource:
    """The split `rest`, SET/SPLIT, of a set in this package. Raises: DataError for an unknown set or split."""
    name, _, split = rest.partition("/")
    if name not in SETS or not split:
        raise DataError(f"embedded:{rest}: no such set; write embedded:SET/SPLIT, sets: {', '.join(SETS)}")
    return arrayrecord.ArrayRecordSource(folder(name), split, spec=f"embedded:{rest}")


def captions_by_concept(name: str) -> dict[str, dict[str, str]]:
    """For every concept (the `hexcode` of a sample) its caption in languages other than English, by language code."""
    table = json.loads(lzma.decompress((folder(name) / "concepts.json.xz").read_bytes()))
    languages = table["captions"]
    return {
        concept: {language: captions[row] for language, captions in languages.items()}
        for row, concept in enumerate(table["hexcode"])
    }
