"""Saving checkpoints with Orbax while training continues, and restoring the latest valid one."""

import contextlib
import dataclasses
import math
import os
import re
import shutil
import types
from collections.abc import Generator, Sequence
from typing import Any, cast

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy

from vlp_jax.distributed.exchange import broadcast_from_primary, is_primary_process, several_hosts
from vlp_jax.distributed.processes import HostsConfig
from vlp_jax.errors import CheckpointError, HostError, StorageError, TrainingError, UserError
from vlp_jax.reporting import report, warn
from vlp_jax.storage.files import exists, move_folder, write_atomically
from vlp_jax.storage.orbax_buckets import prepare
from vlp_jax.storage.paths import is_bucket
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
from vlp_jax.training.checkpoints.read_errors import (
    DamagedCheckpoint,
    first_line,
    is_passing,
    root_of,
)
from vlp_jax.training.checkpoints.save_schedule import CheckpointConfig
from vlp_jax.training.state import TrainState, all_finite, leaf_fingerprints


@dataclasses.dataclass
class Best:
    """Orbax preservation policy that keeps the best checkpoints by the values in
    `checkpoints.ranked`.

    Checkpoints without a value are not kept by it.
    """

    config: CheckpointConfig
    checkpoints: "Checkpoints"

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """Whether each checkpoint is among the best, by its `step`.

        Of equal values the latest win, as in Orbax's own policy.
        """
        sign, values = -1 if self.config.best_mode == "min" else 1, self.checkpoints.ranked
        steps = [
            info.step for info in checkpoints if math.isfinite(values.get(info.step, math.nan))
        ]
        best = sorted(steps, key=lambda step: (sign * values[step], step))[
            max(0, len(steps) - (self.config.keep_best or 0)) :
        ]
        return [info.step in best for info in checkpoints]


class Checkpoints:
    """The checkpoints of one run.

    Saving returns at once; the next save, or `finish`, waits for it.
    """

    def __init__(self, workdir: str, config: CheckpointConfig, hosts: HostsConfig):
        self.folder = checkpoint_folder(workdir)
        self.recorded: int | None = None  # the newest step in `record`
        self.under_way, self.patience = 0, hosts.barrier_seconds
        # {step: value}, known only once the saved checkpoint is evaluated
        self.ranked: dict[int, float] = {}
        self.policy = preservation_policy.AnyPreservationPolicy(
            [preservation_policy.LatestN(config.keep), Best(config, self)]
        )
        prepare(self.folder)
        self.manager = ocp.CheckpointManager(
            self.folder,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=self.policy,
                cleanup_tmp_directories=True,
                enable_async_checkpointing=True,
                async_options=ocp.options.AsyncOptions(timeout_secs=int(hosts.barrier_seconds)),
            ),
        )

    def save(self, step: int, state: TrainState, metadata: dict[str, Any]) -> None:
        """Starts writing `state` as checkpoint `step`; does nothing if that step is saved already.

        Args:
          step: completed updates.
          state: the state after them.
          metadata: JSON.
        Raises:
          CheckpointError: the disk is full or cannot be written; the message names the last good
            checkpoint.
          TrainingError: the state is not finite; such a state is never saved.
        """
        with self.errors_named():
            self.manager.wait_until_finished()
            self.record_newest()
            if step in self.manager.all_steps():
                return
            items = split(state)
            if not all_finite(items):
                raise TrainingError(
                    f"after step {step} the parameters or moments are not finite; "
                    f"{self.last_good()}; a lower optimizer.learning_rate, a "
                    "longer warm-up or optimizer.clip_norm may help"
                )
            broadcast_from_primary("checkpoints", lambda: self.check_space(items))
            metadata = with_checksum(
                metadata
                | {
                    "step": step,
                    "parameters": describe(items["params"]),
                    "rest": describe(items["rest"]),
                    "collections": describe(items.get("collections", {})),
                    "fingerprints": {name: leaf_fingerprints(item) for name, item in items.items()},
                }
            )
            trees = {name: ocp.args.StandardSave(item) for name, item in items.items()}
            self.under_way = step
            self.manager.save(
                step, args=ocp.args.Composite(metadata=ocp.args.JsonSave(metadata), **trees)
            )

    def restore_newest(self, shapes: TrainState, shardings: TrainState) -> Restored | None:
        """The latest valid checkpoint, or None where no save was ever finished.

        Damaged checkpoints are reported. Once an older one is restored, they are moved to
        `DIR/damaged_checkpoints` so that their steps can be saved again.

        Args:
          shapes, shardings: those of the state.
        Raises:
          CheckpointError: the checkpoint is of another model, all are damaged, or the saved ones
            are gone. Nothing is moved.
          StorageError: the storage does not answer. Nothing is moved.
        """
        steps = broadcast_from_primary("checkpoints", lambda: finished_steps(self.folder))[::-1]
        self.mention_oddities(steps)
        damaged = []
        for step in steps:
            try:
                restored = restore_state(self.folder, step, shapes, shardings)
            except DamagedCheckpoint as error:
                warn(f"checkpoint {step} is damaged ({error})")
                damaged.append(step)
                continue
            self.set_aside(damaged)
            with self.errors_named():
                self.record_newest()
            return restored
        if damaged:
            raise CheckpointError(
                f"{self.folder}: all {len(damaged)} checkpoints are damaged, and "
                "were left where they are; restore them from a copy, or start "
                "again in another workdir"
            )
        broadcast_from_primary("checkpoints", self.check_fresh)
        return None

    def mention_oddities(self, steps: list[int]) -> None:
        """Prints other files among the checkpoints, and whether a later checkpoint is gone.

        steps: those of the checkpoints, descending.
        """
        strays = stray_names(self.folder) if is_primary_process() else []
        if strays:
            warn(
                f"{self.folder}: ignored what is no checkpoint: {', '.join(map(repr, strays[:5]))}"
                f"{f' and {len(strays) - 5} more' if len(strays) > 5 else ''}"
            )
        lost = (
            lost_checkpoint(self.folder, steps[0] if steps else None)
            if is_primary_process()
            else None
        )
        if lost:
            warn(
                f"{lost}: was it deleted, or is its storage not mounted? The run continues from "
                "there"
            )

    def check_fresh(self) -> None:
        """Checks that no earlier run in this workdir had a checkpoint.

        A fresh start would overwrite the files of that run.

        Raises:
          CheckpointError: an earlier run had a checkpoint.
        """
        left = next((path for path in (self.record, self.damaged_folder) if exists(path)), None)
        if left:
            raise CheckpointError(
                f"{self.folder}: holds no checkpoint, but {left} records one: "
                "was it moved, or is its storage not mounted? To start from "
                "scratch use another workdir, or delete "
                f"{os.path.dirname(self.folder)}"
            )

    def set_aside(self, steps: list[int]) -> None:
        """Moves damaged checkpoints away on the primary process, each in one rename.

        The other processes list the folder only after all moves: a checkpoint that disappears while
        they list it would raise a file-system error there.
        """
        if not steps:
            return
        targets = broadcast_from_primary(
            "damaged checkpoints", lambda: [self.moved(step) for step in steps]
        )
        self.manager.reload()
        for step, target in zip(steps, targets, strict=True):
            report(f"checkpoint {step} was moved to {target}")

    def moved(self, step: int) -> str:
        """Moves a damaged checkpoint and returns its new path.

        Raises:
          StorageError: it cannot be moved.
        """
        target = os.path.join(self.damaged_folder, str(step))
        while exists(target):
            target += "_"
        try:
            move_folder(os.path.join(self.folder, str(step)), target)
        except OSError as error:
            raise StorageError(
                f"{self.folder}/{step}: is damaged and cannot be moved to "
                f"{target}: {error.strerror}"
            ) from error
        return target

    @property
    def record(self) -> str:
        """The file with the step of the newest finished checkpoint."""
        return newest_record(self.folder)

    @property
    def damaged_folder(self) -> str:
        """The folder to which damaged checkpoints are moved."""
        return os.path.join(os.path.dirname(self.folder), "damaged_checkpoints")

    def last_good(self) -> str:
        """The newest finished checkpoint, in words for a message; waits for a save in progress."""
        # composing an error message must not raise another error
        with contextlib.suppress(Exception):
            self.manager.wait_until_finished()
        steps = finished_steps(self.folder)
        return (
            f"the last good checkpoint is {os.path.join(self.folder, str(steps[-1]))}"
            if steps
            else "no checkpoint was written"
        )

    def check_space(self, items: dict[str, Any]) -> None:
        """Checks that the disk has room for one more checkpoint; a bucket has.

        Raises:
          CheckpointError: there is too little space.
        """
        if is_bucket(self.folder):
            return
        needed = sum(leaf.nbytes for leaf in jax.tree.leaves(items)) + 2**20
        free = shutil.disk_usage(self.folder).free
        if needed > free:
            raise CheckpointError(
                f"{self.folder}: not enough disk: a checkpoint takes up to "
                f"{needed / 1e6:.1f} MB, {free / 1e6:.1f} MB are free; "
                f"{self.last_good()}"
            )

    def check(self) -> None:
        """Checks whether the save in progress has failed.

        Raises:
          CheckpointError: as `save`.
        """
        with self.errors_named():
            self.manager.check_for_errors()

    def finish(self) -> None:
        """Waits for the save in progress.

        Raises:
          CheckpointError: as `save`.
        """
        with self.errors_named():
            self.manager.wait_until_finished()
            self.record_newest()

    def prune(self) -> None:
        """Deletes finished checkpoints that were evaluated after the newest save and need not be
        kept.

        Raises:
          CheckpointError: as `save`.
        """
        with self.errors_named():
            infos = [types.SimpleNamespace(step=step) for step in sorted(self.manager.all_steps())]
            unused = cast(preservation_policy.PreservationContext, None)
            for info, kept in zip(
                infos, self.policy.should_preserve(infos, context=unused), strict=True
            ):
                if not kept:
                    self.manager.delete(info.step)

    def close(self) -> None:
        """Waits for the save in progress and ends the threads.

        Raises:
          CheckpointError: as `save`.
        """
        with self.errors_named():
            self.manager.close()
            self.record_newest()

    def record_newest(self) -> None:
        """Writes the step of the newest finished checkpoint to `DIR/newest_checkpoint`.

        A later loss of the checkpoint is detected by this file.
        """
        steps = finished_steps(self.folder) if is_primary_process() else []
        if steps and steps[-1] != self.recorded:
            write_atomically(self.record, f"{steps[-1]}\n")
            self.recorded = steps[-1]

    def check_barrier(self, error: Exception) -> None:
        """Checks whether an error is a timeout of the barrier at which all processes wait for a
        save.

        Raises:
          HostError: it is; the message names the missing processes where they are known.
        """
        if "DEADLINE_EXCEEDED" not in str(error):
            return
        missing = sorted(
            set(
                map(int, re.findall(r"task:(\d+)", str(error).partition("timed out task names")[2]))
            )
        )
        who = f"missing: {', '.join(map(str, missing))}; " if missing else ""
        steps = finished_steps(self.folder)
        last = (
            f"the last good checkpoint is {self.folder}/{steps[-1]}"
            if steps
            else "there is no other checkpoint"
        )
        raise HostError(
            f"{self.folder}/{self.under_way}: not all hosts had finished the save "
            f"after step {self.under_way} within {self.patience:g} s "
            f"(hosts.barrier_seconds); {who}{last}; start all hosts again to go on"
        )

    @contextlib.contextmanager
    def errors_named(self) -> Generator[None, None, None]:
        """A context that turns errors of Orbax into CheckpointErrors with the last good
        checkpoint."""
        try:
            yield
        except UserError:
            raise
        except Exception as error:
            root = root_of(error)
            # not an error of the disk
            if several_hosts() and isinstance(root, jax.errors.JaxRuntimeError):
                self.check_barrier(root)
                raise root from None  # a process is lost; the heartbeat names it
            # Orbax raises what its storage layer raised: OSError, ValueError, ...
            if is_bucket(self.folder) and is_passing(root):
                raise StorageError(
                    f"{self.folder}: saving failed, as its storage does not answer: "
                    f"{first_line(root)}; start again when it does"
                ) from error
            raise CheckpointError(
                f"{self.folder}: saving failed: {first_line(error)}; {self.last_good()}"
            ) from error
