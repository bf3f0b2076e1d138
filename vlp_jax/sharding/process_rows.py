"""Global arrays built from the rows that each process holds."""

import jax
import numpy as np
from jax.sharding import NamedSharding

from vlp_jax.errors import MeshError


class HostRows:
    """The rows that the devices of this process hold.

    Processes that share rows (along a `tensor` axis) each read them.

    Attributes:
      rows: int [n], ascending. Where processes follow each other along the batch axes, process p of
        P has the rows p*B/P ... (p+1)*B/P - 1; the topology of an accelerator may assign them
        otherwise.
    """

    def __init__(self, sharding: NamedSharding, batch_size: int):
        """sharding: of arrays whose first axis is the batch.

        Raises:
          MeshError: the mesh has no device of this process.
        """
        self.sharding, self.batch_size = sharding, batch_size
        held = {
            self.span(index)
            for index in sharding.addressable_devices_indices_map((batch_size,)).values()
        }
        if not held:
            sizes = " x ".join(f"{axis}={size}" for axis, size in sharding.mesh.shape.items())
            raise MeshError(
                f"mesh {sizes}: leaves out all devices of host {jax.process_index()}; "
                "with several hosts set one size to -1, which takes all "
                f"{jax.device_count()}"
            )
        self.rows = np.concatenate([np.arange(*span) for span in sorted(held)])

    def span(self, index: tuple[slice, ...] | None) -> tuple[int, int]:
        """The first row, and the one after the last."""
        first, end, _ = rows_of(index).indices(self.batch_size)
        return first, end

    def place(self, values: np.ndarray) -> jax.Array:
        """This process's rows [n, ...] as its part of a global array [B, ...].

        Starts the transfer and returns without waiting.

        Values with one entry for every w rows, [n / w, ...], become [B / w, ...].
        """
        each = len(self.rows) // len(values)

        def part(index: tuple[slice, ...] | None) -> np.ndarray:
            first, end, _ = rows_of(index).indices(self.batch_size // each)
            start = int(np.searchsorted(self.rows, first * each)) // each
            return values[start : start + end - first]

        return jax.make_array_from_callback(
            (self.batch_size // each, *values.shape[1:]), self.sharding, part
        )


def rows_of(index: tuple[slice, ...] | None) -> slice:
    """The slice of the first axis, of an index that `jax` gives for a device; all of it for
    None."""
    return index[0] if index else slice(None)
