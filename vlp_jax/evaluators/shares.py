"""The part of an evaluation set that each host reads: the rows of its own devices."""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, Mesh

from vlp_jax.data.samples import Reason, SampleError
from vlp_jax.distributed.exchange import exchange
from vlp_jax.sharding.mesh import BATCH_AXES, batch_sharding
from vlp_jax.sharding.process_rows import HostRows


def nothing() -> None:
    """The default callback between two batches."""


@dataclasses.dataclass(frozen=True)
class Share:
    """What this host reads for one batch, which all hosts compute together.

    Attributes:
      numbers: int [n], ascending, indices of the items that it reads.
      places: int [rows of this host], for each row the index in `numbers` of its item. The rows
        behind the last item repeat it.
      count: number of items in the batch, over all hosts.
      rows: the rows of this host.
    """

    numbers: np.ndarray
    places: np.ndarray
    count: int
    rows: HostRows

    def place(self, values: np.ndarray) -> jax.Array:
        """The values of the items in `numbers`, [n, ...], as part of a global batch [B, ...]."""
        return self.rows.place(values[self.places])


def padded_size(mesh: Mesh | AbstractMesh, batch_size: int) -> int:
    """The batch size, increased to a multiple of the parts into which the mesh divides a batch."""
    parts = int(np.prod([mesh.shape[axis] for axis in BATCH_AXES]))
    return -(-batch_size // parts) * parts


def shares_of(mesh: Mesh, count: int, batch_size: int) -> Iterator[Share]:
    """The shares of this host of the batches of a set.

    Args:
      mesh: the devices.
      count: number of items.
      batch_size: items per batch, over all hosts.
    """
    rows = HostRows(batch_sharding(mesh), padded_size(mesh, batch_size))
    for start in range(0, count, batch_size):
        end = min(start + batch_size, count)
        numbers, places = np.unique(np.minimum(start + rows.rows, end - 1), return_inverse=True)
        yield Share(numbers, places, end - start, rows)


def shared_batches(
    mesh: Mesh | AbstractMesh,
    count: int,
    batch_size: int,
    load: Callable[[np.ndarray], Iterable[Any]],
    between: Callable[[], None] = nothing,
) -> Iterator[tuple[Share, list[Any]]]:
    """The batches of a set with the items that this host reads.

    Args:
      mesh: the devices.
      count: number of items.
      batch_size: items per batch, over all hosts.
      load: indices of items -> the items, in this order; called once for all batches.
      between: called before each batch.
    Raises:
      SampleError: on all hosts, where one of them cannot read an item.
    """
    assert isinstance(mesh, Mesh)
    shares = [*shares_of(mesh, count, batch_size)]
    items = iter(load(np.concatenate([share.numbers for share in shares])))
    for share in shares:
        between()
        yield share, together(itertools.islice(items, len(share.numbers)))


def together(items: Iterable[Any]) -> list[Any]:
    """The items as a list.

    Raises:
      SampleError: on all hosts, that of the first host that has one.
    """
    found, error = [], None
    try:
        found = [*items]
    except SampleError as raised:
        error = raised
    told = None if error is None else [error.reason, error.key, error.message]
    for other in exchange("samples of an evaluation", told):
        if other is not None:
            raise SampleError(Reason(other[0]), *other[1:]) from error
    return found
