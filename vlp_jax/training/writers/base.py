"""The interface of metric writers: the entries of the section `writers`."""

import dataclasses
import os
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from vlp_jax.config.registry import Kinds
from vlp_jax.config.section import Component
from vlp_jax.errors import ConfigError
from vlp_jax.reporting import warn
from vlp_jax.training.hooks.metric_writers import write_atomically

Row = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class RunFacts:
    """What a writer knows of the run.

    Attributes:
      name: of its entry in the section `writers`.
      workdir: folder of the run.
      resumed_step: the step from which the run continues, 0 for a fresh one. Rows of later steps
        may have been written before.
      config: the whole config as nested dictionaries.
    """

    name: str
    workdir: str
    resumed_step: int
    config: dict[str, Any]


class MetricWriter:
    """An open writer. Only the primary process has one."""

    def write(self, row: Row) -> None:
        """Adds the metrics of a step.

        Args:
          row: `step`, an integer, and metrics by name: numbers, of which some may not be finite. An
            evaluation adds its metrics to the row of the same step later.
        """
        raise NotImplementedError

    def write_texts(self, step: int, texts: Mapping[str, str]) -> None:
        """Adds texts of an evaluation, such as generated captions, by name."""

    def close(self) -> None:
        """Finishes what is unwritten."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class WriterConfig(Component):
    """A writer of metrics in addition to metrics.jsonl, which is always written."""

    kinds: ClassVar[Kinds] = Kinds({
        "tensorboard": "vlp_jax.training.writers.tensorboard:TensorBoardConfig",
        "wandb": "vlp_jax.training.writers.weights_and_biases:WandbConfig",
        "mlflow": "vlp_jax.training.writers.mlflow_tracking:MlflowConfig",
    })

    def open(self, run: RunFacts) -> MetricWriter:
        """The writer of a run, on the primary process.

        Raises:
          ConfigError: a package that it needs is missing.
        """
        raise NotImplementedError


class Forgiving(MetricWriter):
    """A writer whose errors do not end the run: the first one is reported, and later rows are still tried.

    Args:
      writer: the writer, of a service that may be out of reach.
      name: its entry in the section `writers`.
    """

    def __init__(self, writer: MetricWriter, name: str):
        self.writer, self.name, self.failed = writer, name, False

    def write(self, row: Row) -> None:
        """`write` of the writer."""
        self.tried(lambda: self.writer.write(row))

    def write_texts(self, step: int, texts: Mapping[str, str]) -> None:
        """`write_texts` of the writer."""
        self.tried(lambda: self.writer.write_texts(step, texts))

    def close(self) -> None:
        """`close` of the writer."""
        self.tried(self.writer.close)

    def tried(self, action: Callable[[], None]) -> None:
        """Runs an action and reports the first error of all."""
        try:
            action()
        except Exception as error:  # of a service; the rows are in metrics.jsonl
            if not self.failed:
                warn(f"writers.{self.name}: {type(error).__name__}: {error}; metrics.jsonl has all rows")
            self.failed = True


def missing_package(name: str, package: str, extra: str) -> ConfigError:
    """The error of a writer whose package is not installed."""
    return ConfigError(f"writers.{name}: needs the package {package}: pip install 'vlp_jax[{extra}]', or leave the writer out "
                       f"(--config.writers.{name}=none)")


def kept_identifier(run: RunFacts, create: Callable[[], str]) -> str:
    """An identifier of the run at a service, kept in the workdir so that a resumed run continues it.

    Args:
      run: the run.
      create: makes a new one.
    """
    path = os.path.join(run.workdir, f"{run.name}_run.txt")
    if os.path.isfile(path):
        with open(path, encoding="utf-8") as file:
            return file.read().strip()
    identifier = create()
    write_atomically(path, identifier + "\n")
    return identifier


def numbers(row: Row) -> dict[str, float]:
    """The metrics of a row that are numbers, without its step."""
    return {key: value for key, value in row.items() if key != "step" and isinstance(value, int | float)}
