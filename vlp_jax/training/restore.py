"""The config and variables of a trained run, restored from one of its checkpoints."""

import os
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from vlp_jax.config import to_config
from vlp_jax.errors import CheckpointError
from vlp_jax.objectives.pretraining_module import PretrainingModule
from vlp_jax.reporting import remark
from vlp_jax.sharding.layout import Layout
from vlp_jax.sharding.mesh import replicated
from vlp_jax.storage.orbax_buckets import prepare
from vlp_jax.storage.paths import check_place
from vlp_jax.training.build import example_batch
from vlp_jax.training.checkpoints.format import (
    checkpoint_folder,
    finished_steps,
    lost_checkpoint,
    read_metadata,
    restore_arrays,
    restore_collections,
)
from vlp_jax.training.cost.memory import check_parameters_fit
from vlp_jax.training.state import abstract_collections, place_parameters, running_statistics

if TYPE_CHECKING:
    from vlp_jax.experiment import Experiment


def find_step(folder: str, step: int | None) -> int:
    """`step`, or the newest where it is None. A warning is given where a later checkpoint is gone.

    Raises:
      CheckpointError: there is no such checkpoint.
      ConfigError: the folder is the URL of something else than a bucket, or a package for it is
        not installed.
    """
    check_place("workdir", folder)
    checkpoints = checkpoint_folder(folder)
    prepare(checkpoints)
    steps = finished_steps(checkpoints)
    if not steps:
        raise CheckpointError(f"{folder}: holds no checkpoint (looked in {checkpoints})")
    if step is not None and step not in steps:
        raise CheckpointError(
            f"{folder}: has no checkpoint of step {step}; there are {', '.join(map(str, steps))}"
        )
    lost = lost_checkpoint(checkpoints, steps[-1]) if step is None else None
    if lost:
        remark(f"warning: {lost}")  # stdout may hold the results of an evaluation
    return steps[-1] if step is None else step


def restore_config(
    folder: str,
    step: int | None = None,
    together: bool = False,
    allowed: Collection[str] | None = (),
) -> "Experiment":
    """The config that a checkpoint was trained with.

    Args:
      folder: the workdir of the run.
      step: step of the checkpoint. Default: the newest.
      together: as in `read_metadata`.
      allowed: modules outside of this package that may be imported for classes that the config
        names; classes of modules that are imported already are always taken.
    Raises:
      CheckpointError: as `find_step`.
      ConfigError: the config names a class of another module.
    """
    checkpoints, step = checkpoint_folder(folder), find_step(folder, step)
    tree = read_metadata(checkpoints, step, together)["config"]
    return to_config(tree, place=os.path.join(checkpoints, str(step)), allowed=allowed)


def restore_variables(
    folder: str,
    step: int,
    ema: bool | None,
    module: PretrainingModule,
    config: "Experiment",
    layout: Layout | None,
) -> dict[str, Any]:
    """The variables of a checkpoint.

    Args: as in `vlp_jax.load`.
    Raises:
      CheckpointError: with a layout, on all processes if on one.
    """
    checkpoints = checkpoint_folder(folder)
    metadata = read_metadata(checkpoints, step, together=layout is not None)
    if ema and config.ema is None:
        raise CheckpointError(
            f"{folder}: keeps no EMA of its parameters (config key ema); load it with ema=False"
        )
    ema = config.ema is not None if ema is None else ema
    if layout is None:
        check_parameters_fit(metadata["parameters"], f"{checkpoints}/{step}")
    shardings = None if layout is None else place_parameters(module, example_batch(config), layout)
    variables = {
        "params": restore_arrays(checkpoints, step, "ema" if ema else "params", metadata, shardings)
    }
    like = abstract_collections(module, example_batch(config))
    items = {"collections": like} | ({"ema_statistics": running_statistics(like)} if ema else {})
    # the statistics of the EMA parameters replace those of the last update
    for name, shapes in items.items():
        if shapes:
            place = None if layout is None else replicated(layout.mesh)
            variables |= restore_collections(checkpoints, step, name, shapes, metadata, place)
    return variables
