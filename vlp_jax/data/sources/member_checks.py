"""By what a member of a tar is recognised as it is read: the CRC-32 of the block before its data.

That block is the header of the member (or, of a sparse one, the end of its map), which holds its name, size and time of change. It
is read with the data, so that a tar which was written over gives no other sample under the key of one that was there.
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
        """Takes that of the member whose data begin at byte `start`, the newest of `members`."""
        if members.behind_header != start:  # of a hard link, or behind the map of a sparse file
            members.file.seek(start - BLOCK)
        self.blocks.append(start // BLOCK)
        self.sums.append(zlib.crc32(members.header if members.behind_header == start else members.file.read(BLOCK)))

    def of_members(self, members: np.ndarray) -> np.ndarray:
        """uint32 [N, M] of members [N, M, 2], whose first number is the block of the data + 1; 0 where there is none."""
        blocks, sums = np.frombuffer(self.blocks, np.uint64), np.frombuffer(self.sums, np.uint32)
        order = np.argsort(blocks, kind="stable")
        wanted = members[..., 0].astype(np.int64) - 1
        if not len(blocks):
            return np.zeros(wanted.shape, np.uint32)
        places = np.searchsorted(blocks[order], np.maximum(wanted, 0).astype(np.uint64)).clip(max=len(blocks) - 1)
        return np.where(wanted >= 0, sums[order][places], np.uint32(0)).astype(np.uint32)


def read_members(path: str, key: str, there: Sequence[tuple[int, int, int]], gap: int, stamp: Stamp | None) -> dict[int, bytes]:
    """The data of members by their first byte, by one read where no more than `gap` bytes lie between them.

    Args: there: (first byte, size, check) of each. stamp: of the tar as it was indexed.
    Raises: SampleError naming `key` where the tar has changed since.
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
                raise SampleError(Reason.DAMAGED_RECORD, key, f"{path} became shorter since it was indexed")
            if zlib.crc32(data[place - BLOCK : place]) != check:
                raise SampleError(Reason.DAMAGED_RECORD, key, f"{path} has another file in its place: it was changed since")
            found[start] = data[place : place + size]
    except ChangedFileError as error:
        raise SampleError(Reason.DAMAGED_RECORD, key, error.args[0]) from error
    return found
