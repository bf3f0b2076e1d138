"""Check of tar members when they are read: the CRC-32 of the block before the data.

That block is the header of the member (or the end of the map of a sparse one), which holds its
name, size and time of change. It is read together with the data. If the tar has been overwritten,
no other sample is returned under the key of a former one.
"""

import array
import zlib
from collections.abc import Sequence

import numpy as np

from vlp_jax.data.samples import Reason, SampleError
from vlp_jax.data.sources.filesystem import ChangedFileError, Stamp, read_range
from vlp_jax.data.sources.tar_headers import BLOCK, TarMembers


class MemberChecks:
    """The checks of the members of a tar, taken while its headers are read."""

    def __init__(self):
        self.blocks, self.sums = array.array("Q"), array.array("I")

    def add(self, members: TarMembers, start: int) -> None:
        """Adds the check of the newest member.

        Args:
          members: the iterator over the members.
          start: first byte of the newest member's data.
        """
        # the data of a hard link, or data after the map of a sparse file
        if members.behind_header != start:
            members.file.seek(start - BLOCK)
        self.blocks.append(start // BLOCK)
        self.sums.append(
            zlib.crc32(
                members.header if members.behind_header == start else members.file.read(BLOCK)
            )
        )

    def of_members(self, members: np.ndarray) -> np.ndarray:
        """The checks of members.

        Args:
          members: [N, M, 2], the first number is the first block of the data + 1, or 0 for no
            member.

        Returns: [N, M], uint32; 0 where there is no member.
        """
        blocks, sums = np.frombuffer(self.blocks, np.uint64), np.frombuffer(self.sums, np.uint32)
        order = np.argsort(blocks, kind="stable")
        wanted = members[..., 0].astype(np.int64) - 1
        if not len(blocks):
            return np.zeros(wanted.shape, np.uint32)
        places = np.searchsorted(blocks[order], np.maximum(wanted, 0).astype(np.uint64)).clip(
            max=len(blocks) - 1
        )
        return np.where(wanted >= 0, sums[order][places], np.uint32(0)).astype(np.uint32)


def read_members(
    path: str, key: str, there: Sequence[tuple[int, int, int]], gap: int, stamp: Stamp | None
) -> dict[int, bytes]:
    """The data of members by their first byte, in one read where at most `gap` bytes are between
    them.

    Args:
      path: the tar.
      key: key of the sample in errors.
      there: (first byte, size, check) of each member.
      gap: bytes that may be read without being needed.
      stamp: stamp of the tar when it was indexed.

    Raises:
      SampleError: if the tar has changed since it was indexed.
    """
    first, last, together = there[0][0], 0, gap
    for start, size, _ in there:
        first, last, together = min(first, start), max(last, start + size), together + size + BLOCK
    first -= BLOCK
    at_once, found = last - first <= together, {}
    try:
        data = read_range(path, first, last - first, stamp) if at_once else b""
        for start, size, check in there:
            if not at_once:
                first, data = start - BLOCK, read_range(path, start - BLOCK, size + BLOCK, stamp)
            place = start - first
            if len(data) < place + size:
                raise SampleError(
                    Reason.DAMAGED_RECORD, key, f"{path} became shorter since it was indexed"
                )
            if zlib.crc32(data[place - BLOCK : place]) != check:
                raise SampleError(
                    Reason.DAMAGED_RECORD,
                    key,
                    f"{path} has another file in its place: it was changed since",
                )
            found[start] = data[place : place + size]
    except ChangedFileError as error:
        raise SampleError(Reason.DAMAGED_RECORD, key, error.args[0]) from error
    return found
