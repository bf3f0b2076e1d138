"""MLflow tracking: a run on a tracking server or in a local folder."""

import dataclasses
import math
import os
import time
from collections.abc import Mapping
from typing import Any

from vlp_jax.config.tree import flatten
from vlp_jax.errors import ConfigError
from vlp_jax.training.writers.base import (
    MetricWriter,
    Row,
    RunFacts,
    WriterConfig,
    kept_identifier,
    need_package,
    numbers,
)

MOST = 100  # parameters of one call
LONGEST = 500  # characters of a parameter's value


@dataclasses.dataclass(frozen=True, kw_only=True)
class MlflowConfig(WriterConfig):
    """A run of MLflow, with the config as parameters and all metrics; a resumed run continues
    it."""

    tracking_uri: str | None = None  # of the server; None: a database file in DIR/mlflow
    experiment: str = "vlp_jax"
    title: str | None = None  # shown name of the run

    def check(self, where: str) -> None:
        """Checks that the package mlflow is installed."""
        need_package(where, "mlflow", "mlflow")

    def open(self, run: RunFacts) -> MetricWriter:
        """The writer, with a database in the workdir where no tracking server is set.

        Raises: ConfigError where MLflow is not installed, or the database would be in a bucket.
        """
        if run.uploaded and self.tracking_uri is None:
            raise ConfigError(
                f"writers.{run.name}.tracking_uri: a database cannot be in a bucket; name a server"
            )
        from mlflow import MlflowClient

        # a server that is out of reach must not hold up a run
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
        folder = os.path.abspath(os.path.join(run.workdir, "mlflow"))
        if self.tracking_uri is None:
            os.makedirs(folder, exist_ok=True)
        client = MlflowClient(self.tracking_uri or f"sqlite:///{folder}/mlflow.db")
        return Mlflow(client, kept_identifier(run, "mlflow", lambda: self.created(client, run)))

    def created(self, client: Any, run: RunFacts) -> str:
        """The identifier of a new run, whose parameters are the config's keys."""
        experiment = client.get_experiment_by_name(self.experiment)
        folder = (
            None
            if self.tracking_uri
            else os.path.abspath(os.path.join(run.workdir, "mlflow/artifacts"))
        )
        number = (
            client.create_experiment(self.experiment, folder)
            if experiment is None
            else experiment.experiment_id
        )
        identifier = client.create_run(number, run_name=self.title).info.run_id
        from mlflow.entities import Param

        params = [Param(key, str(value)[:LONGEST]) for key, value in flatten(run.config).items()]
        for first in range(0, len(params), MOST):
            client.log_batch(identifier, params=params[first : first + MOST])
        return identifier


class Mlflow(MetricWriter):
    """An open run of MLflow; a step that a resumed run repeats has a value of each."""

    def __init__(self, client: Any, identifier: str):
        self.client, self.identifier = client, identifier

    def write(self, row: Row) -> None:
        """Adds the finite metrics of a step.

        `@` is no character of MLflow's names: `recall@1` is written `recall-1`.
        """
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        metrics = [
            Metric(key.replace("@", "-"), float(value), now, row["step"])
            for key, value in numbers(row).items()
            if math.isfinite(value)
        ]
        self.client.log_batch(self.identifier, metrics=metrics)

    def write_texts(self, step: int, texts: Mapping[str, str]) -> None:
        """Adds each text as an artifact."""
        for name, text in texts.items():
            self.client.log_text(self.identifier, text, f"{name}-{step:06d}.txt")

    def close(self) -> None:
        """Marks the run as finished."""
        self.client.set_terminated(self.identifier)
