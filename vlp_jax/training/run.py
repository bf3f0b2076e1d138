"""A run from its config to its outcome: checks before the first update, and guards around
training."""

from typing import TYPE_CHECKING

import jax

from vlp_jax.config import to_tree
from vlp_jax.data.cores import available_cores
from vlp_jax.distributed.exchange import broadcast_from_primary, check_all_agree
from vlp_jax.models.presets import derived_sizes
from vlp_jax.reporting import report, warn
from vlp_jax.training.build import Run, build_run
from vlp_jax.training.checkpoints.format import checkpoint_folder, finished_steps
from vlp_jax.training.checkpoints.lock import locked
from vlp_jax.training.checkpoints.workdir import check_workdir, claim_workdir
from vlp_jax.training.cost.auto_rematerialisation import resolve
from vlp_jax.training.cost.memory import out_of_memory
from vlp_jax.training.hooks.watchdog import Watchdog
from vlp_jax.training.initialize_from import find_origins
from vlp_jax.training.signals import StopSignal
from vlp_jax.training.trainer import Outcome, Trainer

if TYPE_CHECKING:
    from vlp_jax.experiment import Experiment


def train(config: "Experiment", workdir: str, accept_changes: bool = False) -> Outcome:
    """Trains to the end or until a signal to stop; resumes from the latest valid checkpoint in
    `workdir`.

    Writes config.json, metrics.jsonl, tensorboard/ and checkpoints/ there.

    Args:
      config: the config of the run.
      workdir: its folder.
      accept_changes: whether to continue a run whose config has changed.
    Raises:
      UserError: anything that cannot work, before any file is written where it can be found by
        then.
    """
    changes = check_workdir(workdir, config, accept_changes)
    run = build_run(resolve(config))
    check_all_agree("config or data set", [to_tree(config), run.input_fingerprint()])
    if not broadcast_from_primary("--workdir", lambda: finished_steps(checkpoint_folder(workdir))):
        find_origins(run, workdir)  # errors are raised before any file is written
        run.targets()
    with locked(workdir):
        return train_alone(run, workdir, changes)


def train_alone(run: Run, workdir: str, changes: list[str]) -> Outcome:
    """`train`, where no other run trains in the workdir.

    changes: lines about the changes of the config since the workdir was claimed.
    """
    config = run.config
    if not changes:
        claim_workdir(workdir, config)
    for change in changes:
        report(f"config changed: {change}")
    if len(run.mixture) < config.data.batch_size:
        warn(
            f"{run.mixture.describe()}: {len(run.mixture)} examples an epoch are less than one "
            f"batch of {config.data.batch_size}; every batch continues into the next epoch"
        )
    if (cores := available_cores()) < run.workers:
        warn(
            f"data.workers={run.workers} processes decode on {cores} core{'s' * (cores > 1)} and "
            "take turns; fewer are faster, or none to let this machine choose (data.workers=none)"
        )
    for line in derived_sizes(config.model):
        report(line)
    with StopSignal() as stop, Watchdog(config.watchdog, workdir, jax.process_index()) as watchdog:
        try:
            trainer = Trainer(run, workdir, stop, watchdog)
            if changes:
                # only now, once the checkpoint is known to fit the changed config
                claim_workdir(workdir, config)
            with trainer:
                return trainer.train()
        except Exception as error:
            shortage = out_of_memory(error, run.shapes, run.shardings)
            if shortage is None:
                raise
            raise shortage from error
