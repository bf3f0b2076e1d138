"""Checks that a config's evaluators can read what it names, and that they measure its best metric."""

import difflib
from typing import TYPE_CHECKING

from vlp_jax.config.problems import Problems
from vlp_jax.errors import ConfigError
from vlp_jax.evaluators.suite import metric_names

if TYPE_CHECKING:
    from vlp_jax.experiment import Experiment


def check_evaluators(config: "Experiment") -> None:
    """Checks the evaluators of a config that is valid by itself: their files, and what the best checkpoints are kept by.

    It is called before a run and not for each config, since a checkpoint may be loaded where the
    files are absent.

    Raises:
      ConfigError: an evaluator cannot read something; ConfigErrors for several such errors.
    """
    problems = Problems()
    for name, spec in config.evaluators.items():
        for entry, task in spec.tasks.items():
            with problems.noted():
                task.check_files(lambda key, place=f"evaluators.{name}.tasks.{entry}": f"{place}.{key}")
    with problems.noted():
        check_best_metric(config)
    problems.report()


def check_best_metric(config: "Experiment") -> None:
    """Checks that an evaluator measures the metric by which the best checkpoints are kept.

    Raises:
      ConfigError: none does.
    """
    metric, names = config.checkpoint.best_metric, metric_names(config)
    if metric in names or (metric is None and not config.checkpoint.keep_best):
        return
    closest = difflib.get_close_matches(metric or "", names, n=1, cutoff=0.0)
    known = ", ".join(names) or "nothing, there is no evaluator"
    advice = f"did you mean {closest[0]!r}?" if closest and metric else f"they measure {known}"
    raise ConfigError(f"checkpoint.best_metric: {metric!r} is not measured by the config's evaluators ({advice})")
