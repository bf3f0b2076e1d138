"""Train: `python -m vlp_jax.main --config=configs/clip_emoji.py --workdir=DIR
[--config.section.key=value ...]`."""

import argparse
import math
import os
from typing import TYPE_CHECKING

from vlp_jax.command_line import Flags, add_host_flags, connected, quiet_libraries, run_entry_point
from vlp_jax.config import AnyConfig, load_stages, read_config
from vlp_jax.printing import safe_print as print
from vlp_jax.reporting import report

if TYPE_CHECKING:  # modules that need JAX are imported once the flags are read
    from vlp_jax.experiment import Experiment
    from vlp_jax.training.trainer import Outcome


def main(arguments: list[str]) -> int:
    """Trains, or resumes a run that was stopped.

    Returns: the exit status: 0 for a finished run, 143 after SIGTERM.
    Raises:
      UserError: anything that the user can fix.
    """
    flags = Flags(prog="main", description=__doc__)
    flags.add_argument(
        "--config",
        required=True,
        help="a config of this project by its name, as "
        "clip_b16 or clip_b16:VARIANT, or "
        "a file with get_config(), as MINE.py:VARIANT; NAME:VARIANT:STAGE is one "
        "stage of several",
    )
    flags.add_argument(
        "--workdir", required=True, help="folder of the run; given again, the run resumes"
    )
    flags.add_argument(
        "--accept-changes", action="store_true", help="go on in a workdir whose config differs"
    )
    add_host_flags(flags)
    given, overrides = flags.parse_with_overrides(arguments)
    quiet_libraries()
    stages = load_stages(given.config, overrides)
    from vlp_jax.training.build import build_run

    config = next(iter(stages.values()))
    with connected(config.hosts, given, heeds_signals=True):
        for config in [*stages.values()][1:]:
            build_run(config)  # errors in a later stage are raised before the first one trains
        for name, config in stages.items():
            status = train_stage(name, config, given)
            if status:
                return status
    return 0


def train(
    config: AnyConfig, workdir: str | os.PathLike, *, accept_changes: bool = False
) -> "Outcome":
    """Trains a config from Python, as the entry point does from the command line.

    A run that was stopped is resumed from its latest valid checkpoint. Progress is printed. To be
    called in the main thread, which gets the signals to stop (Ctrl-C among them): they end the run
    after the current update with a checkpoint; Ctrl-C before the first update, or pressed twice,
    ends the process. With several processes, each calls this function, and an error on one ends all
    of them.

    Args:
      config: an ml_collections.ConfigDict, a nested dict or an `Experiment`; or a name or file as
        for `--config`. A config with stages is trained one stage at a time: `train(stage,
        f"{workdir}/{name}")` for each of `vlp_jax.config.load_stages(...)`.
      workdir: folder of the run.
      accept_changes: whether to continue a run whose config has changed.
    Returns: the outcome: `step`, `steps`, `metrics` (the newest value of each, by the names in
      metrics.jsonl), cost, number and fingerprint of the parameters, and `exit_status`, 0 for a
      finished run.
    Raises:
      UserError: anything that the user can fix, before any file is written where it can be found by
        then.
    """
    checked = read_config(config)
    from vlp_jax.data.worker_processes import script_not_repeated
    from vlp_jax.training import run

    with script_not_repeated(), connected(checked.hosts, heeds_signals=True):
        return run.train(checked, os.fspath(workdir), accept_changes)


def train_stage(name: str | None, config: "Experiment", given: argparse.Namespace) -> int:
    """Trains one stage in a folder of its own name inside the workdir, or a run without stages.

    Returns: the exit status.
    """
    from vlp_jax.training import run

    workdir = given.workdir if name is None else os.path.join(given.workdir, name)
    if name is not None:
        report(f"stage {name}, in {workdir}")
    outcome = run.train(config, workdir, given.accept_changes)
    print(final_table(outcome, workdir), flush=True)
    if outcome.exit_status:
        report(
            f"stopped after step {outcome.step} of {outcome.steps}, saved; run the same "
            "command again to resume"
        )
    return outcome.exit_status


def final_table(outcome: "Outcome", workdir: str) -> str:
    """The run in numbers.

    These are its cost (child processes included), its throughput, how its time was spent, and the
    newest value of each evaluation metric.
    """
    from vlp_jax.training.hooks.metric_writers import format_seconds, percent
    from vlp_jax.training.hooks.throughput import UTILISATION

    rows = {
        "workdir": workdir,
        "steps": f"{outcome.step} of {outcome.steps}",
        "parameters": f"{outcome.parameters:,}",
        "parameter fingerprint": outcome.parameter_fingerprint,
        "wall seconds": f"{outcome.wall_seconds:.1f} ({format_seconds(outcome.wall_seconds)})",
        "CPU seconds": f"{outcome.cpu_seconds:.1f} ({format_seconds(outcome.cpu_seconds)})",
    }
    newest = outcome.metrics
    rows |= {
        "seconds a step": f"{newest.get('train/step_seconds', math.nan):.3g}",
        "model flops utilisation": percent(newest.get(UTILISATION)),
        "compilations": f"{newest.get('train/compilations', 0)}, of which "
        f"{newest.get('train/compilations_from_cache', 0)} "
        f"read from the cache; {newest.get('train/compile_seconds', 0.0):.1f} s",
    }
    shown = {
        key: value
        for key, value in outcome.metrics.items()
        if key == "train/loss" or ("/" in key and not key.startswith("train/"))
    }
    rows |= {
        key: f"{value:.4f}" if isinstance(value, float) else str(value)
        for key, value in shown.items()
    }
    width = max(len(key) for key in rows)
    return "\n".join(["", *(f"{key:<{width}}  {value}" for key, value in rows.items())])


if __name__ == "__main__":
    run_entry_point(main)
