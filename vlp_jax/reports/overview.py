"""Runs in a table: size, speed, cost and their last metrics."""

from collections.abc import Sequence

from vlp_jax.reports.records import RunRecord
from vlp_jax.reports.section import Absent, number, paragraph, table, text

SPEED = {
    "examples per second": "train/examples_per_second",
    "seconds per step": "train/step_seconds",
    "model FLOPs utilisation": "train/model_flops_utilisation",
    "fraction of time waiting for data": "train/data_wait_fraction",
}
COST = {
    "wall hours": ("wall_seconds", 3600),
    "CPU hours": ("cpu_seconds", 3600),
    "device hours": ("device_seconds", 3600),
}


def overview(runs: Sequence[RunRecord]) -> str:
    """The table of the runs."""
    rows = [
        ["last step", *(number(run.last("step")) for run in runs)],
        ["parameters", *(number(run.parameters) for run in runs)],
        ["examples seen", *(number(examples_seen(run)) for run in runs)],
        ["training loss", *(number(run.last("train/loss")) for run in runs)],
    ]
    rows += [[name, *(number(run.last(key)) for run in runs)] for name, key in SPEED.items()]
    rows += [
        [name, *(number(scaled(run.last(key), unit)) for run in runs)]
        for name, (key, unit) in COST.items()
    ]
    damage = "".join(
        paragraph(
            f"{run.name}: lines {', '.join(map(str, run.damaged))} of metrics.jsonl cannot be read "
            "and are left out."
        )
        for run in runs
        if run.damaged
    )
    return table(["", *(text(run.name) for run in runs)], given(rows)) + damage


def metrics(runs: Sequence[RunRecord]) -> str:
    """The last value of each evaluator's metrics.

    Raises:
      Absent: no run has been evaluated.
    """
    names = list(dict.fromkeys(name for run in runs for name in run.evaluated))
    rows = [
        [text(name), *(number(run.last(name)) for run in runs)]
        for name in names
        if any(isinstance(run.last(name), int | float) for run in runs)
    ]
    if not rows:
        raise Absent("no row of metrics.jsonl has metrics of an evaluator")
    return table(["", *(text(run.name) for run in runs)], rows)


def given(rows: Sequence[list[str]]) -> list[list[str]]:
    """The rows that have a value for some run."""
    return [row for row in rows if any(cell != number(None) for cell in row[1:])]


def scaled(value: float | None, unit: float) -> float | None:
    """A value in a larger unit."""
    return None if value is None else value / unit


def examples_seen(run: RunRecord) -> int | None:
    """The last step times the batch size; None where there is no row."""
    step, batch = run.last("step"), run.config.get("data.batch_size")
    return None if step is None or batch is None else step * batch


def config_differences(runs: Sequence[RunRecord]) -> str:
    """The keys of the configs that differ.

    Raises:
      Absent: there is one run, or nothing differs.
    """
    if len(runs) < 2:
        raise Absent("there is one run, whose config is in its config.json")
    keys = sorted({key for run in runs for key in run.config})
    rows = [
        [text(key), *(text(run.config.get(key, "–")) for run in runs)]
        for key in keys
        if len({repr(run.config.get(key)) for run in runs}) > 1
    ]
    if not rows:
        raise Absent("the configs are equal")
    return table(["", *(text(run.name) for run in runs)], rows)
