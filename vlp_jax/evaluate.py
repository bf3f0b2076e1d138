"""Evaluate a checkpoint: `python -m vlp_jax.evaluate --workdir=DIR
'--source=webdataset:/path/{000000..000003}.tar'`.

Zero-shot as CLIP on ImageNet: --evaluators=zero_shot --templates=imagenet --class-names=imagenet.
Or with your own prompts: --templates='a photo of a {}.' --templates='a drawing of a {}.', or files
with one prompt per line.
"""

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from vlp_jax.command_line import Flags, add_host_flags, connected, quiet_libraries, run_entry_point
from vlp_jax.data.sources.registry import open_source
from vlp_jax.distributed.exchange import broadcast_from_primary, check_all_agree, is_primary_process
from vlp_jax.distributed.processes import HostsConfig
from vlp_jax.errors import ConfigError, MeshError
from vlp_jax.evaluator_flags import (
    FLAGS,
    KEYWORDS,
    REPEATABLE,
    add_evaluator_flags,
    build_evaluator,
    checked_settings,
    given_settings,
)
from vlp_jax.evaluators.clip_benchmark import check_known, clip_benchmark_results
from vlp_jax.evaluators.context import TaskContext
from vlp_jax.evaluators.readable import readable_set
from vlp_jax.evaluators.suite import evaluate_readable
from vlp_jax.evaluators.task import TaskConfig
from vlp_jax.loading import class_descriptions, load, restore_targets
from vlp_jax.printing import safe_print as print
from vlp_jax.sharding.layout import Layout
from vlp_jax.sharding.mesh import MeshConfig, build_mesh, shown
from vlp_jax.sharding.rules import build_layout
from vlp_jax.storage.files import write_atomically
from vlp_jax.storage.paths import check_place, is_url, name_of
from vlp_jax.training.evaluation import build_heads, build_predictor, build_text_generator
from vlp_jax.training.restore import find_step, restore_config

TASKS = tuple(TaskConfig.kinds)


def main(arguments: list[str]) -> int:
    """Prints the metrics as JSON and writes them to --output, and next to it files of a task, such
    as OUTPUT.captions.json.

    Raises:
      UserError: anything that the user can fix.
    """
    flags = Flags(prog="evaluate", description=__doc__)
    flags.add_argument("--workdir", required=True, help="a run's folder")
    flags.add_argument("--step", type=int, help="which checkpoint; the newest by default")
    flags.add_argument(
        "--ema",
        choices=("auto", "yes", "no"),
        default="auto",
        help="averaged parameters; auto: if there are any",
    )
    flags.add_argument("--source", required=True, help="KIND:PATTERN, quoted where it has braces")
    flags.add_argument(
        "--evaluators", default="retrieval", help=f"comma-separated: {', '.join(TASKS)}"
    )
    add_evaluator_flags(flags)
    flags.add_argument(
        "--components",
        default="",
        help="comma-separated modules of your own that "
        "may be imported, where the "
        "checkpoint's config names classes of them",
    )
    flags.add_argument("--output", help="a JSON file to write")
    flags.add_argument(
        "--format",
        choices=("vlp_jax", "clip_benchmark"),
        default="vlp_jax",
        help="names of the metrics; clip_benchmark: as CLIP_benchmark writes them, a list with one "
        "object for each task",
    )
    add_host_flags(flags)
    given = flags.parse(arguments, REPEATABLE)
    quiet_libraries()
    with connected(HostsConfig(), given):
        evaluate(given)
    return 0


def evaluate(given: argparse.Namespace) -> None:
    """`main`, in the connected processes."""
    tasks = check_tasks(given.evaluators.split(","), FLAGS["tasks"])
    check_output(given.output)
    if given.format == "clip_benchmark":
        check_known(tasks, "--format")
    ema = {"auto": None, "yes": True, "no": False}[given.ema]
    components = tuple(name for name in given.components.split(",") if name)
    results = evaluate_checkpoint(
        given.workdir,
        given.source,
        tasks,
        given_settings(given),
        step=given.step,
        ema=ema,
        names=FLAGS,
        components=components,
    )
    files = {name: results.pop(name) for name in [*results] if name.endswith(".json")}
    shown_results: Any = results
    if given.format == "clip_benchmark":
        shown_results = clip_benchmark_results(
            results,
            tasks,
            dataset=given.source,
            model=name_of(given.workdir),
            pretrained=given.workdir if given.step is None else f"{given.workdir}@{given.step}",
        )
    text = json.dumps(shown_results, indent=2)
    print(text)
    if given.output and is_primary_process():
        write_atomically(given.output, text + "\n")
        for name, content in files.items():
            write_atomically(f"{os.path.splitext(given.output)[0]}.{name}", str(content))


def run_evaluation(
    workdir: str | os.PathLike,
    *,
    source: str,
    tasks: str | Sequence[str] = ("retrieval",),
    step: int | None = None,
    ema: bool | None = None,
    components: Sequence[str] = (),
    **settings: Any,
) -> dict[str, float | str]:
    """The metrics of a checkpoint on an evaluation set, as the entry point `vlp_jax.evaluate`
    prints them.

    Args:
      workdir: the workdir of the run.
      source: the evaluation set, as for `vlp_jax.data.open_source`.
      tasks: kinds of tasks, such as "retrieval" or ("zero_shot", "knn"); docs/evaluation.md lists
        them.
      step: step of the checkpoint. Default: the newest.
      ema: True for the EMA parameters, False for those of the last update. Default: the EMA
        parameters where the config keeps them.
      components: as in `vlp_jax.load`.
      **settings: `batch_size` of `evaluators.NAME` of a config, or those of its tasks, such as
        templates=("a photo of a {}.",). Default: those of the first task of the same kind in the
        run's config.
    Returns: metrics by name; texts to read, such as generated captions, are among them.
    Raises:
      UserError: anything that the user can fix.
    """
    chosen = check_tasks([tasks] if isinstance(tasks, str) else tasks, KEYWORDS["tasks"])
    checked = checked_settings(settings)
    with connected(HostsConfig()):
        return evaluate_checkpoint(
            os.fspath(workdir),
            source,
            chosen,
            checked,
            step=step,
            ema=ema,
            names=KEYWORDS,
            components=components,
        )


def evaluate_checkpoint(
    workdir: str,
    source: str,
    tasks: tuple[str, ...],
    settings: Mapping[str, Any],
    *,
    step: int | None,
    ema: bool | None,
    names: Mapping[str, str],
    components: Sequence[str],
) -> dict[str, float | str]:
    """`run_evaluation`, in the connected processes; `names` as in `build_evaluator`."""
    # a run in progress may save more
    step = broadcast_from_primary("--workdir", lambda: find_step(workdir, step))
    config = restore_config(workdir, step, allowed=components)
    spec = build_evaluator(source, tasks, settings, config, names)
    layout = evaluation_layout(config.mesh)
    model, variables, preprocessor = load(workdir, step, ema, layout=layout, components=components)
    data = readable_set(open_source(source), model.config.data.threads)
    check_all_agree("evaluation set", len(data))
    predictor = build_predictor(model.module, preprocessor, layout)
    heads = build_heads(model.module, predictor, restore_targets(workdir, step), layout)
    context = TaskContext(
        data,
        predictor,
        variables,
        spec.batch_size,
        model.config.data.threads,
        build_text_generator(model.module, predictor, layout),
        heads,
        class_descriptions(workdir, step),
    )
    return evaluate_readable(spec, context)[1]


def evaluation_layout(config: MeshConfig) -> Layout:
    """Parameters sharded as in training, over all devices: `data` takes what fsdp and tensor leave.

    Where these do not fit, the parameters are replicated.
    """
    if -1 not in (config.fsdp, config.tensor):
        config = dataclasses.replace(config, data=-1)
    try:
        mesh = build_mesh(config)
        if mesh.size == jax.device_count():
            return build_layout(config, mesh)
        reason = f"mesh {shown(mesh.shape.values())} leaves out devices"
    except (ConfigError, MeshError) as error:
        reason = error.args[0]
    mesh = build_mesh(MeshConfig())
    print(
        f"evaluated with all parameters on each device, {shown(mesh.shape.values())}, not as "
        f"trained: {reason}",
        file=sys.stderr,
    )
    return build_layout(MeshConfig(), mesh)


def check_tasks(given: Sequence[str], where: str) -> tuple[str, ...]:
    """The tasks without empty names; `where` names them in messages.

    Raises:
      ConfigError: a task does not exist, or there is none.
    """
    tasks = tuple(task for task in given if task)
    for task in tasks:
        if task not in TASKS:
            raise ConfigError(f"{where}: unknown evaluator {task!r}; there are {', '.join(TASKS)}")
    if not tasks:
        raise ConfigError(f"{where}: name at least one of {', '.join(TASKS)}")
    return tasks


def check_output(path: str | None) -> None:
    """Checks, before minutes of work, that the output file can be written.

    Raises:
      ConfigError: it cannot.
    """
    if path and is_url(path):
        return check_place("--output", path)
    folder = os.path.dirname(os.path.abspath(path or "."))
    if path and (not os.path.isdir(folder) or os.path.isdir(path)):
        raise ConfigError(
            f"--output: {path} cannot be written: "
            f"{folder if not os.path.isdir(folder) else path} is "
            f"{'no folder' if not os.path.isdir(folder) else 'a folder'}"
        )


if __name__ == "__main__":
    run_entry_point(main)
