"""Curves over the steps of training."""

import math
from collections.abc import Sequence
from typing import Any

from vlp_jax.reports.records import RunRecord
from vlp_jax.reports.section import COLOURS, Absent, drawn, new_figure

COLUMNS = 3
PLAIN = {
    "train/loss": "loss",
    "train/learning_rate": "learning rate",
    "train/gradient_norm": "gradient norm",
}
SPEED = {"train/examples_per_second": "examples per second"}
SHARES = ("training", "start_up", "data_wait", "checkpoint_stall", "evaluation")


def training_curves(runs: Sequence[RunRecord]) -> str:
    """Loss, learning rate, gradient norm, the loss of each objective, and speed.

    Raises:
      Absent: no run has such rows.
    """
    losses = {
        key: key.removeprefix("train/").replace("/", " ")
        for run in runs
        for row in run.rows
        for key in row
        if key.startswith("train/") and key.endswith("loss") and key not in PLAIN
    }
    several = losses if len(losses) > 1 else {}
    return panels(runs, {**PLAIN, **several, **SPEED}, "curves of training")


def evaluation_curves(runs: Sequence[RunRecord]) -> str:
    """The metrics that were measured at several steps.

    Raises:
      Absent: there are none.
    """
    names = dict.fromkeys(name for run in runs for name in run.evaluated)
    repeated = {name: name for name in names if any(len(run.series(name)[0]) > 1 for run in runs)}
    changing = {
        name: name for name in repeated if any(len({*run.series(name)[1]}) > 1 for run in runs)
    }
    if not changing:
        raise Absent("each evaluator has run once; evaluators.NAME.every_steps repeats it")
    return panels(runs, changing, "metrics of evaluators over the steps")


def panels(runs: Sequence[RunRecord], names: dict[str, str], alternative: str) -> str:
    """A panel for each metric, with a curve for each run.

    Args:
      runs: the runs.
      names: {metric: title}.
      alternative: what the figure shows, in words.
    Raises:
      Absent: no run has any of the metrics.
    """
    there = {key: title for key, title in names.items() if any(run.series(key)[0] for run in runs)}
    if not there:
        raise Absent("no run has such rows in its metrics.jsonl")
    rows = math.ceil(len(there) / COLUMNS)
    columns = min(COLUMNS, len(there))
    figure = new_figure(3.3 * COLUMNS, 2.3 * rows + 0.3)
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis, (key, title) in zip(axes, there.items(), strict=False):
        draw_metric(axis, runs, key)
        axis.set_title(title, fontsize=9)
    for axis in axes[len(there) :]:
        axis.set_axis_off()
    if len(runs) > 1:
        handles = figure.axes[0].get_lines()[: len(runs)]
        figure.legend(handles, [run.name for run in runs], loc="outside lower center", fontsize=8)
    shown = ", ".join(there.values())
    return drawn(figure, f"{alternative}: {shown}")


def draw_metric(axis: Any, runs: Sequence[RunRecord], key: str) -> None:
    """Draws a metric of each run."""
    for place, run in enumerate(runs):
        steps, values = run.series(key)
        mark = "o" if len(steps) < 20 else None
        colour = COLOURS[place % len(COLOURS)]
        axis.plot(steps, values, color=colour, marker=mark, markersize=3, linewidth=1.4)
    axis.tick_params(labelsize=7)
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)


def goodput(runs: Sequence[RunRecord]) -> str:
    """How each run has spent its time.

    Raises:
      Absent: no run has measured it.
    """
    measured = [run for run in runs if run.last("goodput/training") is not None]
    if not measured:
        raise Absent("no run has measured its goodput")
    figure = new_figure(3.3 * COLUMNS, 0.9 + 0.4 * len(measured))
    axis, places = figure.subplots(), range(len(measured))
    left = [0.0] * len(measured)
    for colour, share in zip(COLOURS, SHARES, strict=False):
        values = [run.last(f"goodput/{share}") or 0.0 for run in measured]
        axis.barh(places, values, left=left, color=colour, label=share.replace("_", " "))
        left = [start + value for start, value in zip(left, values, strict=True)]
    axis.set_yticks(places, [run.name for run in measured], fontsize=8)
    axis.invert_yaxis()
    axis.set_xlim(0, 1)
    axis.tick_params(labelsize=8)
    figure.legend(loc="outside lower center", ncols=len(SHARES), fontsize=8)
    words = "; ".join(
        f"{run.name}: {100 * run.last('goodput/training'):.0f}% in training" for run in measured
    )
    return drawn(figure, f"shares of the time of each run: {words}")
