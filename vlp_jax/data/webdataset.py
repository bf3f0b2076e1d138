"""WebDataset: tar files in which neighbouring members that share a name up to its first dot are one sample."""

import json
import os

import numpy as np

from vlp_jax.data.index import load_indexes
from vlp_jax.data.patterns import find_files
from vlp_jax.data.rows import locate
from vlp_jax.data.samples import Reason, Sample, SampleError, check_captions, check_index, fingerprint_of
from vlp_jax.data.storage import read_range
from vlp_jax.data.tar_index import BLOCK, TarIndex, index_tar
from vlp_jax.errors import DataError


class WebDatasetSource:
    """The samples of some tar files, in the order of `paths`.

    A sample has an image (.png .jpg .jpeg .webp) and a caption: `caption` or `captions` in its .json, or its .txt.
    Args: paths: tar files. spec: the name this source goes by in messages.
    Raises: DataError for a tar that is damaged, and for tars without a single sample.
    """

    def __init__(self, paths: list[str], spec: str):
        self.spec = spec
        self.paths = list(paths)
        self.indexes = [TarIndex(arrays) for arrays in load_indexes(self.paths, "webdataset", index_tar)]
        self.starts = np.cumsum([0, *map(len, self.indexes)])
        if len(self) == 0:
            raise DataError(f"{spec}: no sample in {len(self.paths)} tar file(s); members must be named KEY.jpg, KEY.txt")

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __getitem__(self, index: int) -> Sample:
        shard, row = locate(self.starts, check_index(index, len(self)))
        tar = self.indexes[shard]
        key = tar.key(row)
        image, fields, text = (self._read(shard, key, *map(int, member)) for member in tar.members[row])
        if image is None:
            raise SampleError(Reason.MISSING_IMAGE, key, "has no image")
        captions, metadata = parse_fields(key, fields, text)
        return Sample(key, image, captions, metadata)

    def fingerprint(self) -> str:
        """Stands for the names, sizes and number of samples of the tars and the keys in them."""
        shards = []
        for path, tar in zip(self.paths, self.indexes, strict=True):
            size = int(tar.members[..., 1].sum(dtype=np.int64))
            keys = fingerprint_of(tar.arrays["keys"].tobytes().hex())
            shards.append([os.path.basename(path), len(tar), size, keys])
        return fingerprint_of("webdataset", shards)

    def _read(self, shard: int, key: str, block: int, size: int) -> bytes | None:
        if block == 0:
            return None
        data = read_range(self.paths[shard], (block - 1) * BLOCK, size)
        if len(data) != size:
            raise SampleError(Reason.DAMAGED_RECORD, key, f"{self.paths[shard]} became shorter since it was indexed")
        return data


def parse_fields(key: str, fields: bytes | None, text: bytes | None) -> tuple[tuple[str, ...], dict]:
    """The captions and the metadata of a sample from its .json and .txt members.

    `caption` comes before a list `captions`, both before the .txt; a `captions` that maps languages is metadata.
    Raises: SampleError.
    """
    try:
        metadata = json.loads(fields) if fields is not None else {}
        text = text.decode() if text is not None else None
    except ValueError as error:
        raise SampleError(Reason.DAMAGED_TEXT, key, f"its text cannot be read: {error}") from error
    if not isinstance(metadata, dict):
        raise SampleError(Reason.WRONG_TYPE, key, f"its .json is {type(metadata).__name__}, not an object")
    first = metadata.pop("caption", None)
    several = None if isinstance(metadata.get("captions"), dict) else metadata.pop("captions", None)
    if first is None and several is None:
        return check_captions(text, key), metadata
    if isinstance(first, str) and isinstance(several, list):
        several = [first, *several]
    elif several is None or first is not None:
        several = first
    return check_captions(several, key), metadata


def open_webdataset(pattern: str) -> WebDatasetSource:
    """The tar files of a pattern. Raises: DataError; see `find_files` and `WebDatasetSource`."""
    return WebDatasetSource(find_files(pattern, "webdataset", remote=True), f"webdataset:{pattern}")
