"""The training loop in one process, from its start to its end.

`step` is the number of completed updates; row s of metrics.jsonl holds update s.
"""

import contextlib
import dataclasses
import math
import os
import time
from types import TracebackType
from typing import Any

import jax
import numpy as np

from vlp_jax.config import to_tree
from vlp_jax.data.notifications import message_while_waiting
from vlp_jax.distributed.exchange import broadcast_from_primary, is_primary_process, several_hosts
from vlp_jax.errors import CheckpointError, TrainingError
from vlp_jax.evaluators.suite import EvaluationInterrupted
from vlp_jax.reporting import detail, report
from vlp_jax.training.build import Run
from vlp_jax.training.checkpoints.format import finished_steps
from vlp_jax.training.checkpoints.manager import Checkpoints
from vlp_jax.training.checkpoints.save_schedule import SaveSchedule
from vlp_jax.training.guard import check_skips, skips_updates
from vlp_jax.training.hooks.clock import Clock, LastUpdate
from vlp_jax.training.hooks.compilations import WatchedStep
from vlp_jax.training.hooks.data_wait import DataWait
from vlp_jax.training.hooks.goodput import Goodput
from vlp_jax.training.hooks.hook import Hook, Update
from vlp_jax.training.hooks.input_counts import InputCounts
from vlp_jax.training.hooks.metric_writers import read_rows
from vlp_jax.training.hooks.profiler import ProfilerWindow
from vlp_jax.training.hooks.run_cost import RunCost
from vlp_jax.training.hooks.throughput import Throughput
from vlp_jax.training.hooks.watchdog import Watchdog
from vlp_jax.training.initialize_from import find_origins, initialize_state
from vlp_jax.training.recorder import Recorder
from vlp_jax.training.signals import StopSignal
from vlp_jax.training.state import fingerprint

# seconds, after which a message names the source, and again each time the wait has doubled
SLOW_FIRST_BATCH = 20.0


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The result of a training process.

    Attributes:
      step, steps: completed steps, and the length of the run.
      wall_seconds, cpu_seconds: time used by the run so far, over all its sessions.
      metrics: the newest value of each metric.
      parameters: number of parameters.
      parameter_fingerprint: `fingerprint` of the parameters, in hexadecimal.
      exit_status: exit status of the process (0 only for a finished run).
    """

    step: int
    steps: int
    wall_seconds: float
    cpu_seconds: float
    metrics: dict[str, float]
    parameters: int
    parameter_fingerprint: str
    exit_status: int


class Trainer:
    """One process's part of a run: the state, the open files and the training loop."""

    def __init__(self, run: Run, workdir: str, stop: StopSignal, watchdog: Watchdog):
        self.run, self.config, self.workdir, self.stop, self.watchdog = (
            run,
            run.config,
            workdir,
            stop,
            watchdog,
        )
        self.checkpoints = Checkpoints(workdir, self.config.checkpoint, self.config.hosts)
        self.train_step = WatchedStep(run.train_step)
        if max(finished_steps(self.checkpoints.folder), default=0) < run.steps:
            self.train_step.compile_ahead(run.state_shapes, run.batch_shapes)
        stored = self.restore_or_start()
        self.targets = run.targets(stored.get("targets"))  # old checkpoints have no targets
        self.evaluation = run.evaluation(stored["class_descriptions"], self.targets)
        self.recorder = Recorder(run, workdir, self.step)
        self.checkpoints.ranked = self.recorder.values_by_step(self.best_metric)
        self.first_position = stored["position"]
        self.batches = run.batches(self.first_position, self.targets)
        # evaluators that were due after the newest update and did not run because of a stop
        self.owed: list[str] = []
        self.saves = SaveSchedule(self.config.checkpoint, run.steps)
        self.goodput = Goodput()
        self.clock = Clock(stored["clock"]["wall_seconds"], stored["clock"]["cpu_seconds"])
        self.last_update, self.data_wait = LastUpdate(), DataWait(self.config.data, run.workers)
        names = [part.name for part in run.mixture.parts]
        self.counts = InputCounts(self.config.data.max_bad_fraction, names, stored["input_counts"])
        self.hooks: list[Hook] = [
            ProfilerWindow(self.config.profile, workdir),
            self.last_update,
            self.clock,
            self.goodput,
            self.counts,
            self.train_step,
            RunCost(self.config, run.mesh, run.steps, self.train_step),
            Throughput(self.config, run.mesh),
            self.data_wait,
            watchdog,
        ]

    def restore_or_start(self) -> dict[str, Any]:
        """Sets `state` and `step`; returns the metadata of the checkpoint, or those of a fresh
        start."""
        restored = self.checkpoints.restore_newest(self.run.shapes, self.run.shardings)
        if restored is None:
            origins = find_origins(self.run, self.workdir)
            self.step, self.state = (
                0,
                initialize_state(self.run.initial_state(), origins, self.run.layout),
            )
            if is_primary_process() and read_rows(os.path.join(self.workdir, "metrics.jsonl")):
                report("the run before had not finished a checkpoint: starting again from step 0")
            return {
                "clock": {"wall_seconds": 0.0, "cpu_seconds": 0.0},
                "input_counts": None,
                "position": 0,
                "class_descriptions": None,
            }
        check_same_input(
            restored.metadata["input_fingerprint"],
            self.run.input_fingerprint(),
            f"{self.checkpoints.folder}/{restored.step}",
        )
        self.step, self.state = restored.step, restored.state
        report(f"resumed from step {self.step}")
        return restored.metadata

    def train(self) -> Outcome:
        """The training loop.

        The row of an update is written one step later, so that the host never waits for the device.
        """
        unwritten = None
        self.make_up_for_evaluation()
        self.watchdog.step = self.step
        self.watchdog.expect(f"step {self.step + 1}, its compilation included,")
        self.clock.begin_lap()
        stopping = False
        while self.step < self.run.steps and not stopping:
            metrics = self.update()
            if unwritten is not None:
                self.write(*unwritten)
            unwritten, stopping = (self.step, metrics), self.stop.asks()
            evaluators = self.evaluation.due(self.step, self.run.steps)
            if stopping or evaluators or self.saves.due(self.step):
                self.write_row(self.step, self.checked(self.step, metrics))
                self.save(finish=bool(evaluators) and not stopping)
                stopping, unwritten = self.evaluate_saved(evaluators, stopping), None
                self.clock.begin_lap()
            self.checkpoints.check()
            for hook in self.hooks:
                hook.done(self.step)
        self.finish_saves()
        return self.outcome()

    def update(self) -> dict[str, jax.Array]:
        """Starts the next update; returns its metrics, which the devices may still compute."""
        start, compiling = time.monotonic(), self.train_step.waited_seconds
        batch = self.next_batch()
        waited = self.last_update.idle(start, time.monotonic())
        for hook in self.hooks:
            hook.before(self.step + 1)
        with jax.profiler.StepTraceAnnotation("train", step_num=self.step + 1):
            self.state, metrics = self.train_step(self.state, self.run.to_device(batch))
        self.step += 1
        self.stop.updated = True
        update = Update(
            self.step, batch, metrics, waited, self.train_step.waited_seconds - compiling
        )
        for hook in self.hooks:
            hook.after(update)
        return metrics

    def finish_saves(self) -> None:
        """Waits for the last checkpoint, and checks the whole input where the run has ended."""
        self.watchdog.expect(f"the end of the save after step {self.step}")
        with self.goodput.spent_on("checkpoint_stall"):
            self.checkpoints.finish()
            self.checkpoints.prune()
        if self.step >= self.run.steps:
            self.counts.check()  # without the grace period, which may cover all of a short run

    def next_batch(self) -> dict[str, np.ndarray]:
        """The next batch.

        A message names the source while the first batch of a session is awaited.
        """
        if self.batches.position > self.first_position:
            return next(self.batches)
        self.data_wait.restart()
        with message_while_waiting(
            lambda: (
                "still waiting for the first batch of "
                f"{self.run.mixture.describe()}: "
                f"{self.data_wait.cause()}"
            ),
            SLOW_FIRST_BATCH,
        ):
            return next(self.batches)

    def evaluate(self, evaluators: list[str]) -> dict[str, float]:
        """The metrics of the named evaluators; only of those that finished, where a stop signal
        arrives.

        Texts go to files.
        """
        start = time.monotonic()
        with self.goodput.spent_on("evaluation"):
            results = self.evaluation.run(
                evaluators, self.run.evaluated_variables(self.state), self.between_batches
            )
        detail(
            f"evaluated {', '.join(evaluators)} after step {self.step} in "
            f"{time.monotonic() - start:.1f} s"
        )
        texts = {name: value for name, value in results.items() if isinstance(value, str)}
        self.recorder.write_texts(self.step, texts)
        return {name: value for name, value in results.items() if not isinstance(value, str)}

    def between_batches(self) -> None:
        """Called between two batches of an evaluation.

        Raises:
          EvaluationInterrupted: the run is to stop.
        """
        self.watchdog.expect(f"a batch of the evaluation after step {self.step}")
        if self.stop.asks():
            raise EvaluationInterrupted

    def evaluate_saved(self, evaluators: list[str], stopping: bool) -> bool:
        """Adds the metrics of the named evaluators to the newest row.

        Nothing is evaluated where the run is to stop; the next session does it then. The checkpoint
        of this update is already saved, so that a failing evaluation costs no training.

        Returns: whether the run is to stop.
        """
        measured = {} if stopping or not evaluators else self.evaluate(evaluators)
        self.owed = self.evaluation.missing(evaluators, measured)
        self.amend_row(measured)
        return stopping or self.stop.number is not None

    def amend_row(self, measured: dict[str, float]) -> None:
        """Adds metrics measured after the newest update to its row, and ranks its checkpoint."""
        if not measured:
            return
        self.recorder.amend(self.step, measured)
        value = measured.get(self.best_metric) if self.best_metric else None
        if value is not None:
            self.checkpoints.ranked[self.step] = value

    def make_up_for_evaluation(self) -> None:
        """Runs the evaluators that were due at the restored step and did not run.

        Their metrics are added to the newest row.

        A stop signal or the end of the process may have prevented them.
        """
        row, due = (
            self.recorder.newest_row(self.step),
            self.evaluation.due(self.step, self.run.steps),
        )
        names = broadcast_from_primary(
            "evaluators", lambda: self.evaluation.missing(due, row) if row else []
        )
        measured = self.evaluate(names) if names else {}
        self.owed = self.evaluation.missing(names, measured)
        self.amend_row(measured)

    def write(self, step: int, metrics: dict[str, jax.Array]) -> None:
        """Writes the row of an earlier update where one is due. Otherwise waits for that update.

        The host is therefore never more than one update ahead of the device.
        """
        if step == 1 or step % self.config.log_every == 0:
            self.write_row(step, self.checked(step, metrics))
            self.clock.begin_lap(self.step - step)
        elif skips_updates(self.config.guard):
            self.checked(step, metrics)
        else:
            jax.block_until_ready(metrics)

    def checked(self, step: int, metrics: dict[str, jax.Array]) -> dict[str, float]:
        """The metrics of an update, on the host.

        Raises:
          TrainingError: the loss or the gradient is not finite, or too many updates in a row were
            skipped.
        """
        values = {f"train/{key}": float(value) for key, value in jax.device_get(metrics).items()}
        if skips_updates(self.config.guard):
            check_skips(
                self.config.guard,
                values["train/consecutive_skips"],
                step,
                self.checkpoints.last_good,
            )
        for key in ("train/loss", "train/gradient_norm"):
            if self.config.guard.non_finite == "stop" and not math.isfinite(values[key]):
                raise TrainingError(
                    f"{key} is {values[key]} at step {step}; "
                    f"{self.checkpoints.last_good()}; a lower "
                    "optimizer.learning_rate, a longer warm-up or "
                    "optimizer.clip_norm may help"
                )
        return values

    def write_row(self, step: int, measured: dict[str, float]) -> None:
        """Writes the row of an update, with what the hooks measured."""
        self.counts.gather()
        self.saves.agree()
        batch_size = self.config.data.batch_size
        lap = self.clock.lap(batch_size, self.step - step)
        row = {"step": step, **measured, "train/epoch": step * batch_size / len(self.run.mixture)}
        for hook in self.hooks:
            row |= hook.row(lap)
        self.recorder.write(row, self.clock.seconds_left(lap, self.run.steps - step, batch_size))

    @property
    def best_metric(self) -> str | None:
        """The metric that ranks checkpoints; None where no checkpoint is kept by it."""
        return self.config.checkpoint.best_metric if self.config.checkpoint.keep_best else None

    def save(self, finish: bool) -> None:
        """Starts a save; with `finish`, waits until it is finished."""
        self.watchdog.expect(f"saving after step {self.step}")
        with self.goodput.spent_on("checkpoint_stall"):
            self.begin_save()
            if finish:
                self.checkpoints.finish()
        detail(
            f"saved the checkpoint of step {self.step}"
            if finish
            else f"saving the checkpoint of step {self.step}"
        )
        for message in self.counts.news():
            report(message)

    def begin_save(self) -> None:
        """Starts a save of this step with the metadata of the run.

        The rows of its updates are on disk before.
        """
        self.recorder.sync()  # the rows of its updates are on disk before a checkpoint is
        metadata = {
            "position": self.batches.position,
            "input_fingerprint": self.run.input_fingerprint(),
            "clock": self.clock.to_json(),
            "input_counts": self.counts.to_json(),
            "config": to_tree(self.config),
            "preprocessor": self.run.preprocessor.to_json(),
            "class_descriptions": dict(self.evaluation.descriptions),
            "targets": self.targets.to_json(),
        }
        self.checkpoints.save(self.step, self.state, metadata)
        self.saves.saved()

    def outcome(self) -> Outcome:
        """Closes the input and returns the outcome."""
        finished = self.step >= self.run.steps and not self.owed
        self.batches.close()
        leaves = jax.tree.leaves(self.state.params)
        return Outcome(
            self.step,
            self.run.steps,
            self.clock.wall_seconds(),
            self.clock.cpu_seconds(),
            self.recorder.metrics | self.goodput.fractions(),
            sum(leaf.size for leaf in leaves),
            f"{fingerprint(self.state.params):08x}",
            0 if finished else self.stop.exit_status,
        )

    def __enter__(self) -> "Trainer":
        return self

    def __exit__(
        self, kind: type | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.ExitStack() as stack:
            stack.callback(self.close_input_and_checkpoints, error)
            stack.callback(self.recorder.close, error)
            for hook in self.hooks:
                stack.callback(hook.close)

    def close_input_and_checkpoints(self, error: BaseException | None) -> None:
        """Ends the input and, unless an error has ended other processes, waits for the last
        save."""
        if error is not None and several_hosts():
            return  # other processes may be gone, so wait for nothing
        self.batches.close()
        # one error is enough
        with contextlib.suppress(*[] if error is None else [CheckpointError]):
            self.checkpoints.close()


def check_same_input(stored: Any, here: dict[str, Any], where: str) -> None:
    """Checks that the input of a checkpoint is the same here.

    Its position in the input would mean nothing otherwise.

    Raises:
      CheckpointError: the message names what has changed.
    """
    stored = stored if isinstance(stored, dict) else {}
    changed = [
        key for key in sorted(stored.keys() | here.keys()) if stored.get(key) != here.get(key)
    ]
    if not changed:
        return
    said = [
        f"{key} was {stored.get(key, 'absent')}, is {here.get(key, 'absent')}"
        if key in ("seed", "data.batch_size")
        else f"the samples of {key} or their number in an epoch are others"
        for key in changed
    ]
    raise CheckpointError(
        f"{where}: was trained on other input, so its position in it means "
        f"nothing now: {'; '.join(said)}; go back to what it was, or start again "
        "in another workdir"
    )
