"""Weights & Biases: a run of the service, or with mode="offline" a folder that `wandb sync`
uploads."""

import dataclasses
import math
import uuid
from collections.abc import Mapping
from typing import Any, Literal

from vlp_jax.training.writers.base import (
    MetricWriter,
    Row,
    RunFacts,
    WriterConfig,
    kept_identifier,
    need_package,
    numbers,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class WandbConfig(WriterConfig):
    """A run of Weights & Biases, with the config and all metrics; a resumed run continues it."""

    project: str = "vlp_jax"
    entity: str | None = None  # user or team; None: the account's default
    title: str | None = None  # shown name of the run; None: chosen by the service
    group: str | None = None  # of runs that are shown together
    tags: tuple[str, ...] = ()
    mode: Literal["online", "offline"] = "online"  # offline: only into DIR/wandb, for `wandb sync`

    def check(self, where: str) -> None:
        """Checks that the package wandb is installed."""
        need_package(where, "wandb", "wandb")

    def open(self, run: RunFacts) -> MetricWriter:
        """The writer; a resumed run continues the run of its workdir.

        Raises: ConfigError where wandb is not installed.
        """
        import wandb

        opened = wandb.init(
            project=self.project,
            entity=self.entity,
            name=self.title,
            group=self.group,
            tags=self.tags,
            mode=self.mode,
            dir=run.workdir,
            config=run.config,
            resume="allow",
            id=kept_identifier(run, "wandb", lambda: uuid.uuid4().hex),
            settings=wandb.Settings(silent=True),
        )
        return Wandb(opened)


class Wandb(MetricWriter):
    """An open run of Weights & Biases.

    The service drops rows of steps that are before its newest one, as those that a resumed run
    repeats.
    """

    def __init__(self, run: Any):
        self.run = run

    def write(self, row: Row) -> None:
        """Adds the finite metrics of a step."""
        self.run.log(
            {key: value for key, value in numbers(row).items() if math.isfinite(value)},
            step=row["step"],
        )

    def write_texts(self, step: int, texts: Mapping[str, str]) -> None:
        """Adds texts as preformatted HTML."""
        import html

        import wandb

        self.run.log(
            {name: wandb.Html(f"<pre>{html.escape(text)}</pre>") for name, text in texts.items()},
            step=step,
        )

    def close(self) -> None:
        """Waits until all metrics are written."""
        self.run.finish()
