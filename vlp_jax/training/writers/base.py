"""The interface of metric writers: the entries of the section `writers`."""

import dataclasses
import importlib.util
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from vlp_jax.config.registry import Kinds
from vlp_jax.config.section import Component
from vlp_jax.errors import REFUSALS, CheckpointError, ConfigError
from vlp_jax.reporting import warn
from vlp_jax.storage.files import write_atomically

Row = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class RunFacts:
    """What a writer knows of the run.

    Attributes:
      name: of its entry in the section `writers`.
      workdir: folder of the run; of one in a bucket, the local folder of files that are uploaded.
      resumed_step: the step from which the run continues, 0 for a fresh one. Rows of later steps
        may have been written before.
      config: the whole config as nested dictionaries.
      uploaded: whether the workdir is in a bucket, to which the files of the local folder are
        uploaded.
    """

    name: str
    workdir: str
    resumed_step: int
    config: dict[str, Any]
    uploaded: bool = False


class MetricWriter:
    """An open writer. Only the primary process has one."""

    def write(self, row: Row) -> None:
        """Adds the metrics of a step.

        Args:
          row: `step`, an integer, and metrics by name: numbers, of which some may not be finite. An
            evaluation adds its metrics to the row of the same step later.
        """

    def write_texts(self, step: int, texts: Mapping[str, str]) -> None:
        """Adds texts of an evaluation, such as generated captions, by name."""

    def flush(self) -> None:
        """Writes to files what is buffered; called before they are uploaded to a bucket."""

    def close(self) -> None:
        """Finishes what is unwritten."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class WriterConfig(Component):
    """A writer of metrics in addition to metrics.jsonl, which is always written."""

    kinds: ClassVar[Kinds] = Kinds(
        {
            "tensorboard": "vlp_jax.training.writers.tensorboard:TensorBoardConfig",
            "wandb": "vlp_jax.training.writers.weights_and_biases:WandbConfig",
            "mlflow": "vlp_jax.training.writers.mlflow_tracking:MlflowConfig",
        }
    )

    def open(self, run: RunFacts) -> MetricWriter:
        """The writer of a run, on the primary process."""
        raise NotImplementedError

    def check(self, where: str) -> None:
        """Checks that the packages that it needs are installed, before a run starts.

        Args:
          where: the writer's key, for messages.
        Raises:
          ConfigError: one is missing.
        """


class Forgiving(MetricWriter):
    """A writer whose errors do not end the run: the first one is reported, and later rows are still
    tried.

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

    def flush(self) -> None:
        """`flush` of the writer."""
        self.tried(self.writer.flush)

    def close(self) -> None:
        """`close` of the writer."""
        self.tried(self.writer.close)

    def tried(self, action: Callable[[], None]) -> None:
        """Runs an action and reports the first error of all."""
        try:
            action()
        except CheckpointError:  # the workdir itself cannot be written
            raise
        except Exception as error:  # of a service; the rows are in metrics.jsonl
            if not self.failed:
                warn(
                    f"writers.{self.name}: {type(error).__name__}: {error}; metrics.jsonl has "
                    "all rows"
                )
            self.failed = True


def open_writer(spec: WriterConfig, run: RunFacts) -> MetricWriter:
    """The writer of a run, whose later errors do not end the run.

    Where a resumed run cannot open it, a warning is given, and nothing is written.

    Raises:
      ConfigError: a fresh run cannot open it.
      OSError: the workdir cannot be written.
    """
    try:
        return Forgiving(spec.open(run), run.name)
    except Exception as error:  # of a service or of the user's own code
        # of the workdir, with a message of its own
        if isinstance(error, OSError) and error.errno in REFUSALS:
            raise
        problem = f"writers.{run.name}: cannot be opened: {type(error).__name__}: {error}"
        if not run.resumed_step:
            raise ConfigError(
                f"{problem}; leave it out with --config.writers.{run.name}=none"
            ) from error
        warn(f"{problem}; metrics.jsonl has all rows")
        return MetricWriter()


def need_package(where: str, package: str, extra: str) -> None:
    """Checks that a writer's package is installed.

    Raises:
      ConfigError: it is not.
    """
    if (
        package in sys.modules
        and sys.modules[package] is None
        or importlib.util.find_spec(package) is None
    ):
        raise ConfigError(
            f"{where}: needs the package {package}: pip install 'vlp_jax[{extra}]', "
            f"or leave the writer out (--config.{where}=none)"
        )


def kept_identifier(run: RunFacts, service: str, create: Callable[[], str]) -> str:
    """An identifier of the run at a service, kept in the workdir so that a resumed run continues
    it.

    Args:
      run: the run.
      service: its name.
      create: makes a new one.
    """
    path = os.path.join(run.workdir, f"{run.name}_{service}.txt")
    if os.path.isfile(path):
        with open(path, encoding="utf-8") as file:
            return file.read().strip()
    identifier = create()
    write_atomically(path, identifier + "\n")
    return identifier


def numbers(row: Row) -> dict[str, float]:
    """The metrics of a row that are numbers, without its step."""
    return {
        key: value for key, value in row.items() if key != "step" and isinstance(value, int | float)
    }
