"""Finds settings that have no effect because of another setting."""

from typing import TYPE_CHECKING

from vlp_jax.config.problems import Problems

if TYPE_CHECKING:
    from vlp_jax.experiment import Experiment


def check_unused(config: "Experiment", place: str) -> None:
    """Checks for settings without an effect.

    Raises: ConfigError naming each, and what it needs.
    """
    at = f" [{place}]" if place else ""
    Problems(f"{path}: has no effect {needed}{at}" for path, unused, needed in unused_settings(config) if unused).report()


def unused_settings(config: "Experiment") -> list[tuple[str, bool, str]]:
    """All checks, as tuples of the setting, whether it has no effect, and the reason."""
    text = config.data.text
    settings = [(f"regularizers.{name}", not (spec.l1 or spec.l2), "with l1=0 and l2=0")
                for name, spec in config.regularizers.items()]
    accumulation, checkpoint = config.accumulation, config.checkpoint
    return settings + [
        ("data.text.packing_rows", text.packing is None and text.packing_rows != 1, "without data.text.packing"),
        ("accumulation.negatives", accumulation.negatives != "batch" and accumulation.microbatches == 1, "with microbatches=1"),
        ("checkpoint.best_metric", checkpoint.best_metric is not None and not checkpoint.keep_best,
         "with checkpoint.keep_best=0; set how many of the best to keep"),
        ("watchdog.exit", config.watchdog.exit and config.watchdog.seconds is None, "without watchdog.seconds"),
        ("mesh.rules", any(rule[:1] == ("batch",) for rule in config.mesh.rules),
         "for 'batch': examples are always divided over data x fsdp; set mesh.data and mesh.fsdp")]
