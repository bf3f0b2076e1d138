"""Checks that a config's evaluators can read the files that it names."""

from typing import TYPE_CHECKING

from vlp_jax.config.problems import Problems

if TYPE_CHECKING:
    from vlp_jax.experiment import Experiment


def check_evaluators(config: "Experiment") -> None:
    """Checks the evaluators of a config that is valid by itself.

    It is called before a run and not for each config, since a checkpoint may be loaded where the
    files are absent.

    Raises:
      ConfigError: an evaluator cannot read something; ConfigErrors for several such errors.
    """
    problems = Problems()
    for name, spec in config.evaluators.items():
        for entry, task in spec.tasks.items():
            with problems.noted():
                task.check_files(
                    lambda key, place=f"evaluators.{name}.tasks.{entry}": f"{place}.{key}"
                )
    problems.report()
