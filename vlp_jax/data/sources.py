"""Sources by their spec: `open_source("webdataset:/data/{000000..000331}.tar")`.

A kind is a function `open(rest) -> Source` in `KINDS`; modules are imported when their kind is asked for.
"""

import difflib
import importlib

from vlp_jax.data.samples import Sample, SampleError, Source
from vlp_jax.errors import DataError

__all__ = ["KINDS", "Sample", "SampleError", "Source", "open_source"]

KINDS = {
    "arrayrecord": "vlp_jax.data.arrayrecord:open_arrayrecord",
    "embedded": "vlp_jax.data.embedded:open_embedded",
    "webdataset": "vlp_jax.data.webdataset:open_webdataset",
}


def open_source(spec: str) -> Source:
    """The source that `spec`, KIND:PATTERN, names; its index is built or read now, its samples when asked for.

    webdataset:PATTERN       tar files; PATTERN may hold braces {000000..000331}, {a,b} and globs
    arrayrecord:DIR/SPLIT    a folder written by `python -m vlp_jax.prepare` or by TFDS
    embedded:emoji/SPLIT     the set inside this package: train, val_vendor, val_concept
    Raises: DataError for an unknown kind, files that are missing or damaged, and a pattern that matches nothing.
    """
    kind, colon, rest = spec.partition(":")
    if not colon or not rest:
        raise DataError(f"{spec!r} is not a source; write KIND:PATTERN, with a kind of {', '.join(KINDS)}")
    if kind not in KINDS:
        nearest = difflib.get_close_matches(kind, KINDS, n=1, cutoff=0.0)[0]
        raise DataError(f"{spec}: unknown kind {kind!r} (did you mean {nearest!r}?); kinds: {', '.join(KINDS)}")
    module, function = KINDS[kind].split(":")
    return getattr(importlib.import_module(module), function)(rest)
