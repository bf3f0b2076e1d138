"""The format of checkpoints: everything needed to resume bit-identically and to evaluate elsewhere.

Orbax writes them atomically (`manager.py`): on a file system by renaming their folder at the end,
in a bucket by writing the object `commit_success.txt` last. A folder `DIR/checkpoints/STEP` holds
these Orbax PyTrees:
  params: the parameters.
  ema: the EMA parameters, where the config keeps them.
  ema_statistics: the EMA of BatchNorm's statistics, where there are any.
  collections: the other mutable variables, where there are any.
  guard: the GuardState, where updates may be skipped.
  rest: the remaining state.
`metadata` is JSON: input position, clock, config, preprocessor with its tokenizer, shapes of the
parameters and of the rest, a fingerprint of every array, and a checksum of the metadata themselves
(`checksums.py`).
"""

import dataclasses
import math
import os
import re
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from vlp_jax.distributed.exchange import several_hosts
from vlp_jax.errors import CheckpointError
from vlp_jax.sharding.parameter_sharding import path_of
from vlp_jax.storage.files import committed_steps, read_text
from vlp_jax.storage.files import names_in as names_there
from vlp_jax.storage.orbax_buckets import prepare
from vlp_jax.storage.paths import absolute, is_bucket
from vlp_jax.training.checkpoints.checksums import check_arrays, check_metadata
from vlp_jax.training.checkpoints.read_errors import (
    DamagedCheckpoint,
    quiet_reads,
    read_patiently,
    read_together,
)
from vlp_jax.training.guard import GuardState, fresh_guard
from vlp_jax.training.state import TrainState

# Gigabytes of arrays that are read at a time: Orbax's own limit, and, of a model that one process
# loads, on top of the largest array.
CONCURRENT_GB, FEW_GB = 96.0, 0.1


@dataclasses.dataclass(frozen=True)
class Restored:
    """A restored state and the metadata stored with it."""

    step: int
    state: TrainState
    metadata: dict[str, Any]


def checkpoint_folder(workdir: str) -> str:
    """The folder of a run's checkpoints, as the absolute path or URL that Orbax requires."""
    return os.path.join(absolute(workdir), "checkpoints")


def finished_steps(folder: str) -> list[int]:
    """Steps of the finished checkpoints in a folder, ascending.

    A save in progress has another kind of name.

    Raises:
      CheckpointError: the folder cannot be listed; a StorageError where its bucket does not answer.
    """
    if is_bucket(folder):
        return committed_steps(folder)
    return sorted(int(name) for name in names_in(folder) if is_checkpoint(folder, name))


def stray_names(folder: str) -> list[str]:
    """Names in a folder of checkpoints that are neither checkpoints nor Orbax's unfinished
    saves."""
    if is_bucket(folder):  # where unfinished saves are named by their step too
        return sorted(name for name in names_in(folder) if not name.isdecimal())
    return sorted(
        name
        for name in names_in(folder)
        if not is_checkpoint(folder, name) and ".orbax-checkpoint-tmp" not in name
    )


def names_in(folder: str) -> list[str]:
    """The names in a folder; none if it does not exist.

    Raises:
      CheckpointError: the folder cannot be listed.
    """
    try:
        return names_there(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise CheckpointError(f"{folder}: cannot be listed: {error.strerror}") from error


def is_checkpoint(folder: str, name: str) -> bool:
    """Whether a name is a folder named by a step as this code writes it.

    `latest`, `7.bak`, `-3`, `007` and files are not.
    """
    return re.fullmatch("0|[1-9][0-9]*", name, re.ASCII) is not None and os.path.isdir(
        os.path.join(folder, name)
    )


def lost_checkpoint(folder: str, newest: int | None) -> str | None:
    """A line about a lost checkpoint.

    It is one later than `newest` that the file `newest_checkpoint` next to the folder names.

    Returns: None where no checkpoint is lost.
    """
    record = newest_record(folder)
    try:
        step = int(read_text(record))
    except (OSError, ValueError):  # absent in old runs, or damaged itself
        return None
    if newest is None or step <= newest:
        return None
    return (
        f"checkpoint {step} was saved ({record}) and is gone from {folder}; the newest there "
        f"is {newest}"
    )


def newest_record(folder: str) -> str:
    """The file next to a folder of checkpoints that holds the step of the newest finished one."""
    return os.path.join(os.path.dirname(folder), "newest_checkpoint")


def split(state: TrainState) -> dict[str, Any]:
    """The state as the items of a checkpoint.

    Trees of Optax's own types become {path: leaf}, which stays readable when Optax changes these
    types.
    """
    rest = {"step": state.step, "rng": state.rng, "optimizer": state.optimizer}
    items = {
        "params": state.params,
        "ema": state.ema,
        "rest": flat(rest),
        "collections": flat(state.collections) or None,
        "ema_statistics": flat(state.ema_statistics) or None,
        "guard": None if state.guard is None else flat(state.guard),
    }
    return {name: item for name, item in items.items() if item is not None}


def join(items: dict[str, Any], like: TrainState) -> TrainState:
    """The inverse of `split`, for a state of the same structure as `like`."""
    rest = unflat(items["rest"], {"step": like.step, "rng": like.rng, "optimizer": like.optimizer})
    return TrainState(
        params=items["params"],
        ema=items.get("ema"),
        collections=unflat(items.get("collections", {}), like.collections),
        ema_statistics=unflat(items.get("ema_statistics", {}), like.ema_statistics),
        guard=GuardState(**items["guard"]) if "guard" in items else None,
        **rest,
    )


def flat(tree: Any) -> dict[str, Any]:
    """{path: leaf} of a tree."""
    return {path_of(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def unflat(leaves: dict[str, Any], like: Any) -> Any:
    """The inverse of `flat`, for a tree of the same structure as `like`."""
    found = [leaves[path_of(path)] for path, _ in jax.tree_util.tree_leaves_with_path(like)]
    return jax.tree.unflatten(jax.tree.structure(like), found)


def describe(params: Any) -> dict[str, list[int]]:
    """{path: shape} of every parameter."""
    return {path: list(leaf.shape) for path, leaf in flat(params).items()}


def check_same_state(metadata: dict[str, Any], items: dict[str, Any], where: str) -> None:
    """Checks that a checkpoint has the arrays wanted of it.

    Args:
      metadata: those of the checkpoint.
      items: the wanted items; shapes are enough.
      where: the checkpoint's path, for messages.
    Raises:
      CheckpointError: the message names the first array that differs.
    """
    if "converted" in metadata:
        raise CheckpointError(
            f"{where}: holds converted weights without an optimizer, from which no run resumes; "
            "use another --workdir, and give this one as --config.pretrained.NAME.workdir"
        )
    if any(
        item in items and item not in metadata["fingerprints"] for item in ("ema", "ema_statistics")
    ):
        raise CheckpointError(
            f"{where}: keeps no EMA of its parameters, which this config asks "
            "for (ema); leave ema out, or start again in another workdir"
        )
    for name, what in (("params", "model"), ("collections", "model"), ("rest", "optimizer")):
        here = describe(items.get(name, {}))
        stored = {
            "params": metadata["parameters"],
            "collections": metadata["collections"],
            "rest": metadata["rest"],
        }[name]
        for path in sorted(stored.keys() | here.keys()):
            if stored.get(path) != here.get(path):
                raise CheckpointError(
                    f"{where}: is of another {what}: {path} is {stored.get(path, 'absent')} there "
                    f"and {here.get(path, 'absent')} in this config; use the config it was trained "
                    "with, or another workdir"
                )


def restore_state(folder: str, step: int, shapes: TrainState, shardings: TrainState) -> Restored:
    """Checkpoint `step` with the given shardings, whatever devices it was written from.

    Raises:
      DamagedCheckpoint, StorageError: on all processes if on one.
      CheckpointError: the checkpoint is of another model.
    """
    what = f"checkpoint {step}"
    metadata = read_together(what, lambda: restore_metadata(folder, step))
    wanted = split(
        jax.tree.map(
            lambda shape, sharding: jax.ShapeDtypeStruct(
                shape.shape, shape.dtype, sharding=sharding
            ),
            shapes,
            shardings,
        )
    )
    check_same_state(metadata, wanted, os.path.join(folder, str(step)))
    fresh = {}
    # the config had no guard when it was written
    if "guard" in wanted and "guard" not in metadata["fingerprints"]:
        fresh["guard"] = flat(jax.jit(fresh_guard, out_shardings=shardings.guard)())
        del wanted["guard"]
    items = read_together(
        what, lambda: {name: read_item(folder, step, name, tree) for name, tree in wanted.items()}
    )
    for name, item in items.items():
        check_arrays(item, name, metadata)
    return Restored(step, join(items | fresh, shapes), metadata)


def this_host_alone() -> ocp.options.MultiprocessingOptions:
    """Orbax options with which each process reads on its own.

    By default Orbax's readers wait for all processes, for ever if one of them finds its part
    damaged.
    """
    if not several_hosts():
        return ocp.options.MultiprocessingOptions()
    me = jax.process_index()
    return ocp.options.MultiprocessingOptions(
        primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"host_{me}"
    )


def restore_metadata(folder: str, step: int) -> dict[str, Any]:
    """The JSON stored with a checkpoint.

    Raises: as `read_patiently`.
    """
    place, alone = os.path.join(folder, str(step)), this_host_alone()
    prepare(folder)

    def read() -> dict[str, Any]:
        handler = ocp.JsonCheckpointHandler(multiprocessing_options=alone)
        with ocp.Checkpointer(handler, multiprocessing_options=alone) as reader:
            metadata = reader.restore(os.path.join(place, "metadata"))
        check_metadata(metadata, step, place)
        return metadata

    return read_patiently("metadata", place, read)


def read_item(
    folder: str, step: int, name: str, wanted: Any, concurrent_gb: float = CONCURRENT_GB
) -> Any:
    """One item of a checkpoint, of which at most `concurrent_gb` gigabytes are read at a time.

    Raises: as `read_patiently`.
    """
    place, alone = os.path.join(folder, str(step)), this_host_alone()
    at_once: Any = concurrent_gb
    prepare(folder)
    quiet_reads()

    def read() -> Any:
        handler = ocp.StandardCheckpointHandler(
            restore_concurrent_gb=at_once, multiprocessing_options=alone
        )
        with ocp.Checkpointer(handler, multiprocessing_options=alone) as reader:
            return reader.restore(os.path.join(place, name), args=ocp.args.StandardRestore(wanted))

    return read_patiently(name, place, read)


def restore_arrays(
    folder: str, step: int, name: str, metadata: dict[str, Any], shardings: Any = None
) -> dict:
    """One item of a checkpoint that has the shapes of the parameters.

    Args:
      folder: the folder of checkpoints.
      step: step of the checkpoint.
      name: name of the item.
      metadata: those of the checkpoint.
      shardings: tree of shardings. Default: the first device.
    Raises:
      CheckpointError: with shardings, on all processes if on one.
    """
    if name not in metadata["fingerprints"]:
        raise CheckpointError(
            f"{folder}/{step}: holds no {name!r}, only {', '.join(metadata['fingerprints'])}"
        )
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    places = dict.fromkeys(metadata["parameters"], device) if shardings is None else flat(shardings)
    wanted = nest(
        {
            path: jax.ShapeDtypeStruct(tuple(shape), np.float32, sharding=places[path])
            for path, shape in metadata["parameters"].items()
        }
    )
    together = shardings is not None
    largest = 4e-9 * max(map(math.prod, metadata["parameters"].values()), default=0)
    # A model that one process loads is read with few copies.
    at_once = CONCURRENT_GB if together else largest + FEW_GB
    return restore_item(folder, step, name, wanted, metadata, together, at_once)


def restore_collections(
    folder: str,
    step: int,
    name: str,
    like: Any,
    metadata: dict[str, Any],
    sharding: jax.sharding.Sharding | None = None,
) -> dict:
    """The mutable variables of a checkpoint, such as BatchNorm's running statistics.

    Args:
      folder: the folder of checkpoints.
      step: step of the checkpoint.
      name: the item, `collections` or `ema_statistics`.
      like: a tree of the wanted structure; shapes are enough.
      metadata: those of the checkpoint.
      sharding: sharding of every array. Default: the first device.
    Raises: as `restore_arrays`.
    """
    place = sharding or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    wanted = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), flat(like)
    )
    return unflat(
        restore_item(folder, step, name, wanted, metadata, together=sharding is not None), like
    )


def restore_item(
    folder: str,
    step: int,
    name: str,
    wanted: Any,
    metadata: dict[str, Any],
    together: bool,
    concurrent_gb: float = CONCURRENT_GB,
) -> Any:
    """`read_item` with a check of the fingerprints.

    together: whether all processes read their parts of it.

    Raises:
      CheckpointError: the item cannot be read, or is not what was written.
    """

    def read() -> Any:
        return read_item(folder, step, name, wanted, concurrent_gb)

    try:
        item = read_together(f"{name} of {folder}/{step}", read) if together else read()
        check_arrays(item, name, metadata)
        return item
    except DamagedCheckpoint as error:
        raise damaged(folder, step, error) from error


def read_metadata(folder: str, step: int, together: bool = False) -> dict[str, Any]:
    """`restore_metadata`, with damage as a CheckpointError.

    together: whether all processes read now and share errors.
    """

    def read() -> dict[str, Any]:
        return restore_metadata(folder, step)

    try:
        return read_together(f"metadata of {folder}/{step}", read) if together else read()
    except DamagedCheckpoint as error:
        raise damaged(folder, step, error) from error


def damaged(folder: str, step: int, error: DamagedCheckpoint) -> CheckpointError:
    """The error for a requested checkpoint that is damaged; it names the newest of the others."""
    others = [other for other in finished_steps(folder) if other != step]
    advice = f"the newest of the others is of step {others[-1]}" if others else "there is no other"
    return CheckpointError(f"{folder}/{step}: is damaged: {error}; {advice}")


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
