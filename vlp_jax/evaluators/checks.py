"""Checks that a config's evaluators can measure what it names, before anything is read."""

import difflib
from typing import TYPE_CHECKING

from vlp_jax.config.problems import Problems
from vlp_jax.errors import ConfigError
from vlp_jax.evaluators.prompts import names_in, templates_of
from vlp_jax.evaluators.requirements import check_heads, check_trained
from vlp_jax.evaluators.suite import metric_names

if TYPE_CHECKING:
    from vlp_jax.experiment import Experiment


def check_evaluators(config: "Experiment") -> None:
    """Checks the evaluators of a config.

    Raises:
      ConfigError: an evaluator cannot measure or read something; ConfigErrors for several such
        errors.
    """
    problems = Problems()
    for name, spec in config.evaluators.items():
        for check in (lambda place, spec: check_trained(f"{place}.tasks", spec.tasks, config),
                      lambda place, spec: check_heads(f"{place}.objective", spec, config),
                      lambda place, spec: templates_of(f"{place}.templates", spec.templates),
                      lambda place, spec: names_in(f"{place}.class_names", spec.class_names)):
            with problems.noted():
                check(f"evaluators.{name}", spec)
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
