"""Checkpoints: everything needed to go on bit for bit, and to evaluate elsewhere. Written by Orbax, atomically.

A folder `DIR/checkpoints/STEP` holds `params`, `average` (where the config keeps one) and `rest` (the remaining state)
as Orbax PyTrees, and `metadata` as JSON: input position, clock, config, preprocessor with its tokenizer, shapes of the
parameters, and fingerprints that tell a damaged checkpoint from a whole one.
"""

import contextlib
import dataclasses
import logging
import os
import shutil
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy

from vlp_jax.config import schema
from vlp_jax.errors import CheckpointError
from vlp_jax.training.optimizer import path_of
from vlp_jax.training.state import TrainState, fingerprint

ITEMS = ("params", "average", "rest")


@dataclasses.dataclass(frozen=True)
class Restored:
    """A state read back, and the metadata stored beside it."""

    step: int
    state: TrainState
    metadata: dict[str, Any]


class Checkpoints:
    """The checkpoints of one run. Saving returns at once; the next save, or `finish`, waits for it."""

    def __init__(self, workdir: str, config: schema.Checkpoint):
        self.folder = checkpoint_folder(workdir)
        policies = [preservation_policy.LatestN(config.keep)]
        if config.keep_best:
            policies.append(preservation_policy.BestN(
                get_metric_fn=lambda metrics: metrics["value"], reverse=config.best_mode == "min", n=config.keep_best,
                keep_checkpoints_without_metrics=False))
        self.manager = ocp.CheckpointManager(self.folder, options=ocp.CheckpointManagerOptions(
            preservation_policy=preservation_policy.AnyPreservationPolicy(policies), cleanup_tmp_directories=True,
            enable_async_checkpointing=True))

    def save(self, step: int, state: TrainState, metadata: dict[str, Any], best: float | None = None) -> None:
        """Starts writing `state` as checkpoint `step`; a step that is there already is left alone.

        metadata: JSON. best: the value of `best_metric`, where it was just measured.
        Raises: CheckpointError naming the last good checkpoint when the disk is full or cannot be written.
        """
        with self.errors_named():
            self.manager.wait_until_finished()
            if step in self.manager.all_steps():
                return
            items = split(state)
            self.check_space(items)
            metadata = metadata | {"parameters": describe(state.params),
                                   "fingerprints": {name: int(fingerprint(item)) for name, item in items.items()}}
            trees = {name: ocp.args.StandardSave(item) for name, item in items.items()}
            self.manager.save(step, args=ocp.args.Composite(metadata=ocp.args.JsonSave(metadata), **trees),
                              metrics=None if best is None else {"value": float(best)})

    def restore_newest(self, shapes: TrainState, shardings: TrainState) -> Restored | None:
        """The newest checkpoint that is whole, or None where there is none at all. Damaged ones are reported, and moved
        to `DIR/damaged_checkpoints` so that their step can be saved again.

        Raises: CheckpointError if the checkpoint is of another model, or every one is damaged.
        """
        steps = sorted(self.manager.all_steps(), reverse=True)
        for step in steps:
            try:
                restored = restore_state(self.folder, step, shapes, shardings)
            except DamagedCheckpoint as error:
                self.set_aside(step, error)
                continue
            return restored
        if steps:
            raise CheckpointError(f"{self.folder}: all {len(steps)} checkpoints are damaged; they lie in "
                                  f"{self.damaged_folder}; start anew in another workdir")
        return None

    def set_aside(self, step: int, error: Exception) -> None:
        """Moves a damaged checkpoint away, in one rename."""
        os.makedirs(self.damaged_folder, exist_ok=True)
        target = os.path.join(self.damaged_folder, str(step))
        while os.path.exists(target):
            target += "_"
        os.rename(os.path.join(self.folder, str(step)), target)
        self.manager.reload()
        print(f"checkpoint {step} is damaged ({error}); moved to {target}, falling back to the one before", flush=True)

    @property
    def damaged_folder(self) -> str:
        return os.path.join(os.path.dirname(self.folder), "damaged_checkpoints")

    def last_good(self) -> str:
        """The newest finished checkpoint, in words for a message; one still being written is waited for."""
        with contextlib.suppress(Exception):  # a message about one failure should not end in another
            self.manager.wait_until_finished()
        steps = finished_steps(self.folder)
        return f"the last good checkpoint is {os.path.join(self.folder, str(steps[-1]))}" if steps else "no checkpoint was written"

    def check_space(self, items: dict[str, Any]) -> None:
        """Raises: CheckpointError if the disk has no room for one more checkpoint."""
        needed = sum(leaf.nbytes for leaf in jax.tree.leaves(items)) + 2**20
        free = shutil.disk_usage(self.folder).free
        if needed > free:
            raise CheckpointError(f"{self.folder}: not enough disk: a checkpoint takes up to {needed / 1e6:.1f} MB, "
                                  f"{free / 1e6:.1f} MB are free; {self.last_good()}")

    def finish(self) -> None:
        """Waits for the save under way. Raises: CheckpointError, as `save`."""
        with self.errors_named():
            self.manager.wait_until_finished()

    @contextlib.contextmanager
    def errors_named(self) -> Iterator[None]:
        try:
            yield
        except CheckpointError:
            raise
        except Exception as error:  # Orbax raises what its storage layer raised: OSError, ValueError, ...
            raise CheckpointError(f"{self.folder}: saving failed: {first_line(error)}; {self.last_good()}") from error


class DamagedCheckpoint(Exception):
    """A checkpoint that cannot be read back as it was written."""


def checkpoint_folder(workdir: str) -> str:
    """Where a run keeps its checkpoints, as an absolute path (Orbax wants one)."""
    return os.path.join(os.path.abspath(workdir), "checkpoints")


def finished_steps(folder: str) -> list[int]:
    """Steps of the finished checkpoints in a folder, ascending; saves under way carry another name."""
    names = os.listdir(folder) if os.path.isdir(folder) else []
    return sorted(int(name) for name in names if name.isdigit())


def split(state: TrainState) -> dict[str, Any]:
    """The state as the items of a checkpoint; trees of Optax's own types become {path: leaf}, which stays readable when
    Optax changes them."""
    rest = {"step": state.step, "rng": state.rng, "collections": state.collections, "optimizer": state.optimizer}
    items = {"params": state.params, "rest": flat(rest)}
    return items | ({} if state.average is None else {"average": state.average})


def join(items: dict[str, Any], like: TrainState) -> TrainState:
    """The inverse of `split`, for a state of the same structure as `like`."""
    template = {"step": like.step, "rng": like.rng, "collections": like.collections, "optimizer": like.optimizer}
    leaves = [items["rest"][path_of(path)] for path, _ in jax.tree_util.tree_leaves_with_path(template)]
    rest = jax.tree.unflatten(jax.tree.structure(template), leaves)
    return TrainState(params=items["params"], average=items.get("average"), **rest)


def flat(tree: Any) -> dict[str, Any]:
    return {path_of(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def describe(params: Any) -> dict[str, list[int]]:
    """{path: shape} of every parameter."""
    return {path: list(leaf.shape) for path, leaf in flat(params).items()}


def check_same_model(stored: dict[str, list[int]], params: Any, where: str) -> None:
    """Raises: CheckpointError naming the first parameter that differs."""
    here = describe(params)
    for path in sorted(stored.keys() | here.keys()):
        if stored.get(path) != here.get(path):
            raise CheckpointError(
                f"{where}: is of another model: {path} is {stored.get(path, 'absent')} there and {here.get(path, 'absent')} "
                "in this config; use the config it was trained with, or another workdir")


def restore_state(folder: str, step: int, shapes: TrainState, shardings: TrainState) -> Restored:
    """Checkpoint `step`, placed as `shardings` says. Raises: DamagedCheckpoint; CheckpointError for another model."""
    metadata = restore_metadata(folder, step)
    check_same_model(metadata["parameters"], shapes.params, os.path.join(folder, str(step)))
    wanted = jax.tree.map(lambda shape, sharding: jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding),
                          shapes, shardings)
    items = {name: restore_item(folder, step, name, tree, metadata) for name, tree in split(wanted).items()}
    return Restored(step, join(items, shapes), metadata)


def restore_metadata(folder: str, step: int) -> dict[str, Any]:
    """The JSON stored with a checkpoint. Raises: DamagedCheckpoint."""
    with damage_named("metadata"), ocp.Checkpointer(ocp.JsonCheckpointHandler()) as reader:
        metadata = reader.restore(os.path.join(folder, str(step), "metadata"))
        metadata["parameters"], metadata["fingerprints"]  # noqa: B018 - both must be there
        return metadata


def restore_item(folder: str, step: int, name: str, wanted: Any, metadata: dict[str, Any]) -> Any:
    """One item of a checkpoint, checked against its stored fingerprint. Raises: DamagedCheckpoint."""
    with damage_named(name), ocp.StandardCheckpointer() as reader:
        tree = reader.restore(os.path.join(folder, str(step), name), wanted)
        if int(fingerprint(tree)) != metadata["fingerprints"][name]:
            raise DamagedCheckpoint(f"{name}: its contents changed after it was written")
        return tree


def restore_arrays(folder: str, step: int, name: str) -> dict:
    """One item of a checkpoint as NumPy arrays, on no particular device. Raises: CheckpointError."""
    metadata = read_metadata(folder, step)
    if name not in metadata["fingerprints"]:
        raise CheckpointError(f"{folder}/{step}: holds no {name!r}, only {', '.join(metadata['fingerprints'])}")
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    wanted = nest({path: jax.ShapeDtypeStruct(tuple(shape), np.float32, sharding=device)
                   for path, shape in metadata["parameters"].items()})
    try:
        return restore_item(folder, step, name, wanted, metadata)
    except DamagedCheckpoint as error:
        raise CheckpointError(f"{folder}/{step}: is damaged: {error}") from error


def read_metadata(folder: str, step: int) -> dict[str, Any]:
    """`restore_metadata`, with damage as a CheckpointError."""
    try:
        return restore_metadata(folder, step)
    except DamagedCheckpoint as error:
        raise CheckpointError(f"{folder}/{step}: is damaged: {error}") from error


def nest(flat_tree: dict[str, Any]) -> dict:
    """{"a/b": 1} -> {"a": {"b": 1}}."""
    tree: dict = {}
    for path, leaf in flat_tree.items():
        *parents, last = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = leaf
    return tree


@contextlib.contextmanager
def damage_named(what: str) -> Iterator[None]:
    """Whatever Orbax and its storage raise on reading means that `what` cannot be read back."""
    try:
        yield
    except DamagedCheckpoint:
        raise
    except Exception as error:
        logging.debug("reading %s failed", what, exc_info=True)
        raise DamagedCheckpoint(f"{what}: {first_line(error)}") from error


def first_line(error: Exception) -> str:
    """The start of an error's message, or its type where it has none."""
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
