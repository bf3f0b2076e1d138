"""The schedule of checkpoints."""

import dataclasses
import difflib
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Literal

from vlp_jax.config.fields import between
from vlp_jax.config.section import Section
from vlp_jax.distributed.exchange import broadcast_from_primary, several_hosts
from vlp_jax.evaluators.config import metric_names

if TYPE_CHECKING:
    from vlp_jax.experiment import Experiment


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointConfig(Section):
    """When checkpoints are saved and which are kept. The last step is always saved."""

    every_steps: int | None = between(1000, 1)
    every_minutes: float | None = between(None, 0.0)
    keep: int = between(2, 1)  # number of latest checkpoints kept
    keep_best: int = between(0, 0)  # number of best ones kept in addition, by `best_metric`
    # a key of metrics.jsonl, such as val_vendor/text_to_image_recall@1
    best_metric: str | None = None
    best_mode: Literal["max", "min"] = "max"

    def validate(self, where: str, experiment: "Experiment") -> Iterator[str]:
        """Also a message about a `best_metric` that no evaluator measures."""
        yield from super().validate(where, experiment)
        metric, names = self.best_metric, metric_names(experiment.evaluators, experiment)
        if metric in names or not self.keep_best:
            return
        closest = difflib.get_close_matches(metric or "", names, n=1, cutoff=0.0)
        known = ", ".join(names) or "nothing, there is no evaluator"
        advice = f"did you mean {closest[0]!r}?" if closest and metric else f"they measure {known}"
        yield (
            f"{where}.best_metric: {metric!r} is not measured by the config's evaluators ({advice})"
        )

    def ignored(self, experiment: "Experiment") -> Mapping[str, str]:
        """`best_metric`, where no best checkpoints are kept."""
        return (
            {}
            if self.keep_best
            else {"best_metric": "with checkpoint.keep_best=0; set how many of the best to keep"}
        )


class SaveSchedule:
    """Saves every so many steps, every so many minutes, and after the last step.

    With several processes the clock of the primary process decides. It is read only when a row is
    written, where the processes synchronise anyway.
    """

    def __init__(self, config: CheckpointConfig, last_step: int):
        self.config, self.last_step = config, last_step
        self.last_save, self.agreed = time.monotonic(), False

    def due(self, step: int) -> bool:
        """Whether a checkpoint is due after `step`."""
        every = self.config.every_steps
        by_minutes = self.agreed if several_hosts() else self.minutes_have_passed()
        return step == self.last_step or (every is not None and step % every == 0) or by_minutes

    def minutes_have_passed(self) -> bool:
        """Whether `every_minutes` have passed since the last save."""
        every = self.config.every_minutes
        return every is not None and (time.monotonic() - self.last_save) / 60 >= every

    def agree(self) -> None:
        """Reads the clock of the primary process; called by all processes at the same step."""
        if several_hosts() and self.config.every_minutes is not None:
            self.agreed = broadcast_from_primary(
                "checkpoint.every_minutes", self.minutes_have_passed
            )

    def saved(self) -> None:
        """Restarts the clock after a save."""
        self.last_save, self.agreed = time.monotonic(), False
