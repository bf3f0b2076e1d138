"""Sources by their spec: `open_source("webdataset:/data/{000000..000331}.tar")`.

A kind is a function `open(rest) -> Source` in `KINDS`. Its module is imported on first use. A
function of your own is named by its module: `open_source("my_package.my_module:open_mine:REST")`.
"""

import difflib
import importlib
import importlib.util
from collections.abc import Callable

from vlp_jax.data.samples import Sample, SampleError, Source
from vlp_jax.errors import DataError

__all__ = ["KINDS", "Sample", "SampleError", "Source", "open_source"]

LAYOUTS = {  # readers of public data sets
    "clip_benchmark": "vlp_jax.data.layouts.clip_benchmark:open_clip_benchmark",
    "coco_captions": "vlp_jax.data.layouts.captions:open_coco_captions",
    "coco_instances": "vlp_jax.data.layouts.coco:open_coco_instances",
    "coco_panoptic": "vlp_jax.data.layouts.coco:open_coco_panoptic",
    "flickr_token": "vlp_jax.data.layouts.captions:open_flickr_token",
    "imagenet": "vlp_jax.data.layouts.imagenet:open_imagenet",
    "karpathy": "vlp_jax.data.layouts.captions:open_karpathy",
    "nlvr2": "vlp_jax.data.layouts.nlvr2:open_nlvr2",
    "refcoco": "vlp_jax.data.layouts.refcoco:open_refcoco",
    "snli_ve": "vlp_jax.data.layouts.snli_ve:open_snli_ve",
    "vcr": "vlp_jax.data.layouts.vcr:open_vcr",
    "visdial": "vlp_jax.data.layouts.visdial:open_visdial",
    "visual_genome": "vlp_jax.data.layouts.visual_genome:open_visual_genome",
    "vqa": "vlp_jax.data.layouts.vqa:open_vqa",
}
KINDS = {
    "arrayrecord": "vlp_jax.data.sources.arrayrecord:open_arrayrecord",
    "csv": "vlp_jax.data.sources.csv:open_csv",
    "embedded": "vlp_jax.data.sources.embedded:open_embedded",
    "folder": "vlp_jax.data.sources.folder:open_folder",
    "jsonl": "vlp_jax.data.sources.jsonl:open_jsonl",
    "parquet": "vlp_jax.data.sources.parquet:open_parquet",
    "synthetic": "vlp_jax.data.sources.synthetic:open_synthetic",
    "tfds": "vlp_jax.data.sources.tfds:open_tfds",
    "webdataset": "vlp_jax.data.sources.webdataset:open_webdataset",
    **LAYOUTS,
}


def open_source(spec: str) -> Source:
    """The source that `spec` names. Its index is built or read now, its samples on access.

    webdataset:PATTERN?OPTIONS      tar files with images and captions, or classes; caption= names
    fields of the .json, txt, cls parquet:PATTERN?OPTIONS         Parquet files with the images, as
    Hugging Face `datasets` writes them, or with their paths jsonl:PATTERN?OPTIONS           JSON
    objects, one a line, that name image files csv:PATTERN?OPTIONS             tables with a header
    that name image files; options delimiter=;, quotes=none folder:DIR?prompt=..
    DIR/CLASS/IMAGE, the caption being the class arrayrecord:DIR/SPLIT           a folder written by
    `python -m vlp_jax.prepare` or by TFDS tfds:DIR/SPLIT?OPTIONS          a folder written by TFDS
    as ArrayRecord, read by TFDS; or NAME/SPLIT of a set it has built embedded:emoji/SPLIT
    the set inside this package: train, val_vendor, val_concept embedded:emoji_vqa/SPLIT
    questions about its images: train, val_vendor embedded:emoji_dialogues/SPLIT  dialogues made of
    these questions synthetic:N?height=..&width=..  generated samples for benchmarks; option
    caption_words=8

    Public data sets in the layouts in which they are published (docs/data.md): LAYOUTS.

    PATTERN: files, in the order of their names, with braces {000000..000331}, {a,b} and globs. A
    file that a brace names must exist. A pattern may be any URL that fsspec reads; of the kinds
    without a pattern only arrayrecord and tfds read remote folders, on gs://.

    OPTIONS (the notation is in `spec.py`): ?image=COLUMN (default image), &caption=COLUMN|COLUMN
    (default caption), where a dot reaches into a nested field; &prompt=a photo of a {}|a drawing of
    a {}, the prompts that captions are put in; a sample then has every caption in every prompt.
    Image paths in a file are relative to its folder and may not leave it.

    Raises:
      DataError: for an unknown kind, for files that are missing or damaged, and for a pattern that
        matches nothing.
    """
    opener, rest = opener_of(spec)
    return opener(rest)


def opener_of(spec: str) -> tuple[Callable[[str], Source], str]:
    """The function that opens a source, and the part of the spec that it takes.

    Raises:
      DataError: for an unknown kind.
    """
    kind, colon, rest = spec.partition(":")
    if not colon or not rest:
        raise DataError(
            f"{spec!r} is not a source; write KIND:PATTERN, with a kind of {', '.join(KINDS)}"
        )
    if kind in KINDS:
        module, function = KINDS[kind].split(":")
        return getattr(importlib.import_module(module), function), rest
    name, colon, inner = rest.partition(":")
    if colon and name.isidentifier() and is_module(kind):
        return outside_function(spec, kind, name), inner
    nearest = difflib.get_close_matches(kind, KINDS, n=1, cutoff=0.0)[0]
    raise DataError(
        f"{spec}: unknown kind {kind!r} (did you mean {nearest!r}?); kinds: "
        f"{', '.join(KINDS)}; a function of your own is "
        "my_package.my_module:open_mine:REST"
    )


def is_module(name: str) -> bool:
    """Whether a dotted name is a module that can be imported; packages around it are imported for
    that."""
    if not all(part.isidentifier() for part in name.split(".")):
        return False
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def outside_function(spec: str, module: str, name: str) -> Callable[[str], Source]:
    """A function of the user's own code.

    Raises:
      DataError: the module cannot be imported or has no such function.
    """
    try:
        function = getattr(importlib.import_module(module), name, None)
    except Exception as error:  # of the user's own code
        raise DataError(
            f"{spec}: importing {module} failed: {type(error).__name__}: {error}"
        ) from error
    if not callable(function):
        raise DataError(f"{spec}: {module} has no function {name!r}")
    return function
