"""Saving while training goes on, by Orbax, and finding the newest checkpoint that is whole."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy

from vlp_jax.config import schema
from vlp_jax.errors import CheckpointError, TrainingError, UserError
from vlp_jax.sharding.exchange import decided_by_first, several_hosts
from vlp_jax.training.checkpoint import (
    DamagedCheckpoint,
    Restored,
    checkpoint_folder,
    describe,
    finished_steps,
    first_line,
    restore_state,
    split,
)
from vlp_jax.training.state import TrainState, all_finite, fingerprint


class Checkpoints:
    """The checkpoints of one run. Saving returns at once; the next save, or `finish`, waits for it."""

    def __init__(self, workdir: str, config: schema.Checkpoint, hosts: schema.Hosts):
        self.folder = checkpoint_folder(workdir)
        policies = [preservation_policy.LatestN(config.keep)]
        if config.keep_best:
            policies.append(preservation_policy.BestN(
                get_metric_fn=lambda metrics: metrics["value"], reverse=config.best_mode == "min", n=config.keep_best,
                keep_checkpoints_without_metrics=False))
        self.manager = ocp.CheckpointManager(self.folder, options=ocp.CheckpointManagerOptions(
            preservation_policy=preservation_policy.AnyPreservationPolicy(policies), cleanup_tmp_directories=True,
            enable_async_checkpointing=True,
            async_options=ocp.options.AsyncOptions(timeout_secs=int(hosts.barrier_seconds))))

    def save(self, step: int, state: TrainState, metadata: dict[str, Any], best: float | None = None) -> None:
        """Starts writing `state` as checkpoint `step`; a step that is there already is left alone.

        metadata: JSON. best: the value of `best_metric`, where it was just measured.
        Raises: CheckpointError naming the last good checkpoint when the disk is full or cannot be written; TrainingError if
        the state is not finite, as a checkpoint never is.
        """
        with self.errors_named():
            self.manager.wait_until_finished()
            if step in self.manager.all_steps():
                return
            items = split(state)
            if not all_finite(items):
                raise TrainingError(f"after step {step} the parameters or moments are not finite; {self.last_good()}; a lower "
                                    "optimizer.rate, a longer warm-up or optimizer.clip_norm may help")
            decided_by_first("checkpoints", lambda: self.check_space(items))
            metadata = metadata | {"parameters": describe(items["params"]), "rest": describe(items["rest"]),
                                   "fingerprints": {name: fingerprint(item) for name, item in items.items()}}
            trees = {name: ocp.args.StandardSave(item) for name, item in items.items()}
            self.manager.save(step, args=ocp.args.Composite(metadata=ocp.args.JsonSave(metadata), **trees),
                              metrics=None if best is None else {"value": float(best)})

    def restore_newest(self, shapes: TrainState, shardings: TrainState) -> Restored | None:
        """The newest checkpoint that is whole, or None where there is none at all. Damaged ones are reported, and moved
        to `DIR/damaged_checkpoints` so that their step can be saved again.

        Raises: CheckpointError if the checkpoint is of another model, or every one is damaged.
        """
        steps = decided_by_first("checkpoints", lambda: finished_steps(self.folder))[::-1]
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
        """Moves a damaged checkpoint away, in one rename, on host 0."""
        def move() -> str:
            os.makedirs(self.damaged_folder, exist_ok=True)
            target = os.path.join(self.damaged_folder, str(step))
            while os.path.exists(target):
                target += "_"
            os.rename(os.path.join(self.folder, str(step)), target)
            return target

        target = decided_by_first(f"checkpoint {step}", move)
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

    def check(self) -> None:
        """Raises: CheckpointError, as `save`, if the save under way has failed by now."""
        with self.errors_named():
            self.manager.check_for_errors()

    def finish(self) -> None:
        """Waits for the save under way. Raises: CheckpointError, as `save`."""
        with self.errors_named():
            self.manager.wait_until_finished()

    def close(self) -> None:
        """Waits for the save under way, and ends the threads. Raises: CheckpointError, as `save`."""
        with self.errors_named():
            self.manager.close()

    @contextlib.contextmanager
    def errors_named(self) -> Iterator[None]:
        try:
            yield
        except UserError:
            raise
        except Exception as error:
            if several_hosts() and isinstance(error, jax.errors.JaxRuntimeError):
                raise  # a host is lost, which is no fault of the disk
            # Orbax raises what its storage layer raised: OSError, ValueError, ...
            raise CheckpointError(f"{self.folder}: saving failed: {first_line(error)}; {self.last_good()}") from error
