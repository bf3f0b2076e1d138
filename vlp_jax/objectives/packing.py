"""Checks of the settings that packed texts are compatible with."""

from typing import TYPE_CHECKING

from jax.sharding import Mesh

from vlp_jax.errors import ConfigError
from vlp_jax.objectives.base import NO_ROW_EACH
from vlp_jax.sharding.mesh import check_batch

if TYPE_CHECKING:
    from vlp_jax.experiment import Experiment


def check_packing(config: "Experiment", mesh: Mesh) -> None:
    """Checks a config with packed texts; one without passes.

    Raises: ConfigError where something needs a row for each text, MeshError where windows do not
      divide over the mesh.
    """
    window = config.data.text.packing
    if window is None:
        return
    decoder = config.model.decoder
    if decoder is not None and decoder.needs_row_each:
        key = decoder.needs_row_each[0]
        raise ConfigError(
            f"data.text.packing: {decoder.section}.{key}={getattr(decoder, key)!r} {NO_ROW_EACH}"
        )
    if config.accumulation.microbatches > 1:
        raise ConfigError(
            "data.text.packing: microbatches would divide its windows; set "
            "accumulation.microbatches=1"
        )
    if config.data.batch_size % window:
        raise ConfigError(
            f"data.text.packing: windows of {window} do not divide data.batch_size "
            f"{config.data.batch_size}"
        )
    check_batch(
        config.data.batch_size // window,
        mesh,
        f"data.text.packing: data.batch_size / {window}, the number of windows,",
    )
