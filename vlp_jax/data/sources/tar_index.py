"""Index of the samples of a tar file, built from its headers."""

import dataclasses
import functools
import json
from typing import Any

import numpy as np

from vlp_jax.data.sources.filesystem import COMPRESSED, open_file
from vlp_jax.data.sources.index import Arrays, Index
from vlp_jax.data.sources.local_files import Stamp
from vlp_jax.data.sources.member_checks import MemberChecks
from vlp_jax.data.sources.tar_headers import BLOCK, CutOffError, TarError, TarMembers, find_targets
from vlp_jax.data.sources.tar_samples import CLASS, CLASS_ENDING, TarSamples
from vlp_jax.data.sources.tar_sparse import SparseMap, from_array, to_array
from vlp_jax.errors import DataError


@dataclasses.dataclass
class TarIndex:
    """Where the samples of a tar are: 52 bytes a sample in addition to its key.

    Entries of `arrays`, for N samples:
      members: [N, 4, 2], uint32, for the image, JSON, text and class of a sample: first block + 1
        (0 if there is none), size in bytes.
      keys: uint8, all keys in UTF-8, concatenated.
      ends: [N], uint32, where each key ends.
      digest: [32], uint8, hash of the keys and the sizes.
      cut: int64, [1] for a truncated tar: its number of valid bytes; parts of its last sample may
        be missing. Empty for a complete tar.
      sparse: int64, the maps of sparse files, see `to_array`.
      notes: uint8, JSON with `left_out`, the members that are part of no sample and their counts;
        `apart`, the number of samples whose members are not next to each other; and `classes`,
        whether any sample has a class.
      checks: [N, 4], uint32, see `MemberChecks`.
    """

    arrays: Arrays

    @property
    def members(self) -> np.ndarray:
        """First block + 1 and size of each sample's image, JSON, text and class: uint32 [N, 4,
        2]."""
        return self.arrays["members"]

    @property
    def checks(self) -> np.ndarray:
        """Checks of the same members, uint32 [N, 4]."""
        return self.arrays["checks"]

    @property
    def file(self) -> Stamp | None:
        """The stamp of the tar when it was indexed, where it is known."""
        return getattr(self.arrays, "file", None)

    @property
    def digest(self) -> str:
        """The hash of the keys and the sizes, in hexadecimal."""
        return self.arrays["digest"].tobytes().hex()

    @property
    def cut(self) -> int | None:
        """The number of valid bytes of a truncated tar; None for a complete one."""
        return int(self.arrays["cut"][0]) if len(self.arrays["cut"]) else None

    @functools.cached_property
    def sparse(self) -> dict[int, SparseMap]:
        """The maps of the sparse files, as in `to_array`, decoded once."""
        return from_array(self.arrays["sparse"])

    @functools.cached_property
    def notes(self) -> dict[str, Any]:
        """The entries `left_out`, `apart` and `classes` of the JSON, parsed once."""
        return json.loads(self.arrays["notes"].tobytes())

    def __len__(self) -> int:
        return (
            self.arrays.count("ends")
            if isinstance(self.arrays, Index)
            else len(self.arrays["ends"])
        )

    def key(self, row: int) -> str:
        """The key of the sample `row`."""
        ends = self.arrays["ends"]
        return self.arrays["keys"][ends[row - 1] if row else 0 : ends[row]].tobytes().decode()


def index_tar(path: str, images: tuple[str, ...] = (), label: str = CLASS_ENDING) -> Arrays:
    """The arrays of a `TarIndex`, from the headers of one tar, as far as it can be read.

    Args:
      path: the tar.
      images: the file endings of images, in place of the default ones.
      label: the file ending of classes.

    Raises:
      DataError: if it is not a tar, has a damaged header, or has a member whose path leaves its
        folder.
    """
    with open_file(path) as file:
        compressed = file.read(6).startswith(COMPRESSED)
        try:
            samples, members, checks, cut = _samples(path, TarMembers(file), images, label)
            if members.links:
                samples, members, checks, cut = _samples(
                    path, TarMembers(file, find_targets(file, members.links)), images, label
                )
        except TarError as error:
            unpack = "is compressed; samples are read at random, so unpack it to a plain tar first"
            raise DataError(f"{path}: {unpack if compressed else error}") from error
    arrays = samples.arrays()
    notes = {
        "left_out": dict((samples.left_out + members.left_out).most_common()),
        "apart": samples.apart,
        "classes": bool(arrays["members"][:, CLASS].any()),
    }
    return {
        **arrays,
        "cut": np.array(cut, np.int64),
        "sparse": to_array(members.sparse),
        "checks": checks.of_members(arrays["members"]),
        "notes": np.frombuffer(json.dumps(notes).encode(), np.uint8),
    }


def _samples(
    path: str, members: TarMembers, images: tuple[str, ...], label: str
) -> tuple[TarSamples, TarMembers, MemberChecks, list[int]]:
    """The samples that some members make, their checks, and the number of valid bytes if the tar is
    truncated."""
    samples, checks, cut = TarSamples(path, images, label), MemberChecks(), []
    try:
        for name, start, size in members:
            samples.add(name, start // BLOCK, size, members.part)
            checks.add(members, start)
    except CutOffError as error:
        cut = [error.place]
    samples.finish()
    return samples, members, checks, cut
