"""Saving while training goes on, by Orbax, and finding the newest checkpoint that is whole."""

import contextlib
import dataclasses
import math
import os
import re
import shutil
import types
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy

from vlp_jax.config import schema
from vlp_jax.distributed.exchange import broadcast_from_primary, is_primary_process, several_hosts
from vlp_jax.errors import CheckpointError, HostError, StorageError, TrainingError, UserError
from vlp_jax.printing import safe_print as print
from vlp_jax.training.checkpoints.checksums import with_checksum
from vlp_jax.training.checkpoints.format import (
    Restored,
    checkpoint_folder,
    describe,
    finished_steps,
    lost_checkpoint,
    newest_record,
    restore_state,
    split,
    stray_names,
)
from vlp_jax.training.checkpoints.read_errors import DamagedCheckpoint, first_line, root_of
from vlp_jax.training.hooks.metric_writers import write_atomically
from vlp_jax.training.state import TrainState, all_finite, leaf_fingerprints


@dataclasses.dataclass
class Best:
    """Orbax's rule to keep the best checkpoints by the values in `checkpoints.ranked`; those without one are not kept for it."""

    config: schema.Checkpoint
    checkpoints: "Checkpoints"

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """Of checkpoints that have a `step` each. Of equal values the latest are the best, as in Orbax's own rule."""
        sign, values = -1 if self.config.best_mode == "min" else 1, self.checkpoints.ranked
        steps = [info.step for info in checkpoints if math.isfinite(values.get(info.step, math.nan))]
        best = sorted(steps, key=lambda step: (sign * values[step], step))[max(0, len(steps) - (self.config.keep_best or 0)):]
        return [info.step in best for info in checkpoints]


class Checkpoints:
    """The checkpoints of one run. Saving returns at once; the next save, or `finish`, waits for it."""

    def __init__(self, workdir: str, config: schema.Checkpoint, hosts: schema.Hosts):
        self.folder, self.recorded = checkpoint_folder(workdir), None
        self.under_way, self.patience = 0, hosts.barrier_seconds
        self.ranked: dict[int, float] = {}  # by step; a checkpoint is evaluated after it is saved
        self.policy = preservation_policy.AnyPreservationPolicy([preservation_policy.LatestN(config.keep), Best(config, self)])
        self.manager = ocp.CheckpointManager(self.folder, options=ocp.CheckpointManagerOptions(
            preservation_policy=self.policy, cleanup_tmp_directories=True,
            enable_async_checkpointing=True,
            async_options=ocp.options.AsyncOptions(timeout_secs=int(hosts.barrier_seconds))))

    def save(self, step: int, state: TrainState, metadata: dict[str, Any]) -> None:
        """Starts writing `state` as checkpoint `step`; a step that is there already is left alone.

        metadata: JSON.
        Raises: CheckpointError naming the last good checkpoint when the disk is full or cannot be written; TrainingError if
        the state is not finite, as a checkpoint never is.
        """
        with self.errors_named():
            self.manager.wait_until_finished()
            self.record_newest()
            if step in self.manager.all_steps():
                return
            items = split(state)
            if not all_finite(items):
                raise TrainingError(f"after step {step} the parameters or moments are not finite; {self.last_good()}; a lower "
                                    "optimizer.learning_rate, a longer warm-up or optimizer.clip_norm may help")
            broadcast_from_primary("checkpoints", lambda: self.check_space(items))
            metadata = with_checksum(metadata | {
                "step": step, "parameters": describe(items["params"]), "rest": describe(items["rest"]),
                "collections": describe(items.get("collections", {})),
                "fingerprints": {name: leaf_fingerprints(item) for name, item in items.items()}})
            trees = {name: ocp.args.StandardSave(item) for name, item in items.items()}
            self.under_way = step
            self.manager.save(step, args=ocp.args.Composite(metadata=ocp.args.JsonSave(metadata), **trees))

    def restore_newest(self, shapes: TrainState, shardings: TrainState) -> Restored | None:
        """The newest checkpoint that is whole, or None where none was ever finished. Damaged ones are reported; once an older
        one is restored, they are moved to `DIR/damaged_checkpoints` so that their step can be saved again.

        Raises: CheckpointError if the checkpoint is of another model, every one is damaged, or those that were saved are
        gone; StorageError where the storage does not answer. Nothing has been moved then.
        """
        steps = broadcast_from_primary("checkpoints", lambda: finished_steps(self.folder))[::-1]
        self.mention_oddities(steps)
        damaged = []
        for step in steps:
            try:
                restored = restore_state(self.folder, step, shapes, shardings)
            except DamagedCheckpoint as error:
                print(f"checkpoint {step} is damaged ({error})", flush=True)
                damaged.append(step)
                continue
            self.set_aside(damaged)
            with self.errors_named():
                self.record_newest()
            return restored
        if damaged:
            raise CheckpointError(f"{self.folder}: all {len(damaged)} checkpoints are damaged, and were left where they are; "
                                  "restore them from a copy, or start anew in another workdir")
        broadcast_from_primary("checkpoints", self.check_fresh)
        return None

    def mention_oddities(self, steps: list[int]) -> None:
        """Prints what else lies among the checkpoints, and that a later one than those of `steps` (descending) is gone."""
        strays = stray_names(self.folder) if is_primary_process() else []
        if strays:
            print(f"{self.folder}: ignored what is no checkpoint: {', '.join(map(repr, strays[:5]))}"
                  f"{f' and {len(strays) - 5} more' if len(strays) > 5 else ''}", flush=True)
        lost = lost_checkpoint(self.folder, steps[0] if steps else None) if is_primary_process() else None
        if lost:
            print(f"warning: {lost}: was it deleted, or is its storage not mounted? The run continues from there", flush=True)

    def check_fresh(self) -> None:
        """Raises: CheckpointError if a run in this workdir had a checkpoint: a fresh start would write over what it has left."""
        left = next((path for path in (self.record, self.damaged_folder) if os.path.exists(path)), None)
        if left:
            raise CheckpointError(f"{self.folder}: holds no checkpoint, but {left} tells of one: was it moved, or is its storage "
                                  f"not mounted? To start anew use another workdir, or delete {os.path.dirname(self.folder)}")

    def set_aside(self, steps: list[int]) -> None:
        """Moves damaged checkpoints away, each in one rename, on host 0. The others look at the folder when all are gone: one that
        went while they looked would end them with an error of the file system."""
        if not steps:
            return
        targets = broadcast_from_primary("damaged checkpoints", lambda: [self.moved(step) for step in steps])
        self.manager.reload()
        for step, target in zip(steps, targets, strict=True):
            print(f"checkpoint {step} was moved to {target}", flush=True)

    def moved(self, step: int) -> str:
        """Moves a damaged checkpoint, and says where to. Raises: StorageError."""
        target = os.path.join(self.damaged_folder, str(step))
        while os.path.exists(target):
            target += "_"
        try:
            os.makedirs(self.damaged_folder, exist_ok=True)
            os.rename(os.path.join(self.folder, str(step)), target)
        except OSError as error:
            raise StorageError(f"{self.folder}/{step}: is damaged and cannot be moved to {target}: {error.strerror}") from error
        return target

    @property
    def record(self) -> str:
        return newest_record(self.folder)

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

    def check(self) -> None:
        """Raises: CheckpointError, as `save`, if the save under way has failed by now."""
        with self.errors_named():
            self.manager.check_for_errors()

    def finish(self) -> None:
        """Waits for the save under way. Raises: CheckpointError, as `save`."""
        with self.errors_named():
            self.manager.wait_until_finished()
            self.record_newest()

    def prune(self) -> None:
        """Deletes finished checkpoints that have been evaluated since the newest was saved, and are not to be kept. Raises:
        CheckpointError, as `save`."""
        with self.errors_named():
            infos = [types.SimpleNamespace(step=step) for step in sorted(self.manager.all_steps())]
            for info, kept in zip(infos, self.policy.should_preserve(infos, context=None), strict=True):
                if not kept:
                    self.manager.delete(info.step)

    def close(self) -> None:
        """Waits for the save under way, and ends the threads. Raises: CheckpointError, as `save`."""
        with self.errors_named():
            self.manager.close()
            self.record_newest()

    def record_newest(self) -> None:
        """Writes the step of the newest finished checkpoint to `DIR/newest_checkpoint`, by which its loss would be noticed."""
        steps = finished_steps(self.folder) if is_primary_process() else []
        if steps and steps[-1] != self.recorded:
            write_atomically(self.record, f"{steps[-1]}\n")
            self.recorded = steps[-1]

    def check_barrier(self, error: Exception) -> None:
        """Raises: HostError where the hosts have waited for one another in vain."""
        if "DEADLINE_EXCEEDED" not in str(error):
            return
        missing = sorted(set(map(int, re.findall(r"task:(\d+)", str(error).partition("timed out task names")[2]))))
        who = f"missing: {', '.join(map(str, missing))}; " if missing else ""
        steps = finished_steps(self.folder)
        raise HostError(f"{self.folder}/{self.under_way}: not all hosts had finished the save after step {self.under_way} within "
                        f"{self.patience:g} s (hosts.barrier_seconds); {who}"
                        f"{f'the last good checkpoint is {self.folder}/{steps[-1]}' if steps else 'there is no other checkpoint'}; "
                        "start all hosts again to go on")

    @contextlib.contextmanager
    def errors_named(self) -> Iterator[None]:
        try:
            yield
        except UserError:
            raise
        except Exception as error:
            root = root_of(error)
            if several_hosts() and isinstance(root, jax.errors.JaxRuntimeError):  # no fault of the disk
                self.check_barrier(root)
                raise root from None  # a host is lost: the watch will say which
            # Orbax raises what its storage layer raised: OSError, ValueError, ...
            raise CheckpointError(f"{self.folder}: saving failed: {first_line(error)}; {self.last_good()}") from error
