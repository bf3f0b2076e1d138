"""Evaluate a checkpoint: `python -m vlp_jax.evaluate --workdir=DIR '--source=webdataset:/path/{000000..000003}.tar'`."""

import argparse
import dataclasses
import json
import os
import sys

import jax

from vlp_jax.command_line import Flags, add_host_flags, give_devices_threads, quiet_libraries, run_door, use_compilation_cache
from vlp_jax.config import schema
from vlp_jax.data.sources import open_source
from vlp_jax.errors import ConfigError, MeshError
from vlp_jax.evaluators.readable import readable_set
from vlp_jax.evaluators.suite import TASK_METRICS, evaluate_readable
from vlp_jax.evaluators.tasks import HEADS, check_heads, check_trained
from vlp_jax.evaluators.zero_shot import check_templates
from vlp_jax.loading import class_descriptions, load, trained_targets
from vlp_jax.printing import safe_print as print
from vlp_jax.sharding.exchange import check_all_agree, decided_by_first, is_first
from vlp_jax.sharding.hosts import joined
from vlp_jax.sharding.launch import find_launch
from vlp_jax.sharding.layout import Layout
from vlp_jax.sharding.mesh import make_mesh, shown
from vlp_jax.sharding.rules import make_layout
from vlp_jax.training.assembly import make_captioner, make_embedder, make_tellers
from vlp_jax.training.trained import find_step, trained_config
from vlp_jax.training.writers import write_atomically

TASKS, WRITTEN = tuple(TASK_METRICS), ("captions", "answers")


def main(arguments: list[str]) -> int:
    """Prints the metrics as JSON and writes them to --output. Raises: UserError."""
    flags = Flags(prog="evaluate", description=__doc__)
    flags.add_argument("--workdir", required=True, help="a run's folder")
    flags.add_argument("--step", type=int, help="which checkpoint; the newest by default")
    flags.add_argument("--ema", choices=("auto", "yes", "no"), default="auto", help="averaged parameters; auto: if there are any")
    flags.add_argument("--source", required=True, help="KIND:PATTERN, quoted where it has braces")
    flags.add_argument("--evaluators", default="retrieval", help=f"comma-separated: {', '.join(TASKS)}")
    flags.add_argument("--class-field", help="metadata field that names the class for zero_shot")
    flags.add_argument("--objective", help="whose head classification, regression or answers ask; by default the config's choice")
    flags.add_argument("--by", help="metadata field by whose values classification also counts, or none; by default the config's "
                       "choice")
    flags.add_argument("--beams", type=int, help="of beam search, for captions and answers; 1: the likeliest word each time; by "
                       "default the config's choice")
    flags.add_argument("--batch-size", type=int, default=256)
    flags.add_argument("--output", help="a JSON file to write")
    add_host_flags(flags)
    given = flags.parse(arguments)
    quiet_libraries()
    give_devices_threads()
    patience = schema.Hosts()
    launch = find_launch(given.coordinator, given.num_processes, given.process_id, patience.initialization_seconds)
    with joined(launch, patience):
        evaluate(given)
    return 0


def evaluate(given: argparse.Namespace) -> None:
    """`main`, on the hosts that have come together."""
    use_compilation_cache()
    tasks = check_tasks(given.evaluators)
    check_output(given.output)
    step = decided_by_first("--workdir", lambda: find_step(given.workdir, given.step))  # a run that goes on may save another
    config = trained_config(given.workdir, step)
    check_trained("--evaluators", tasks, config)
    spec = spec_of(given, tasks, config)
    layout = evaluation_layout(config.mesh)
    ema = {"auto": None, "yes": True, "no": False}[given.ema]
    model, variables, preprocessor = load(given.workdir, step, ema, layout=layout)
    data = readable_set(open_source(given.source), model.config.data.threads)
    check_all_agree("evaluation set", len(data))
    embedder = make_embedder(model.module, preprocessor, layout)
    tellers = make_tellers(model.module, embedder, trained_targets(given.workdir, step), layout)
    _, results = evaluate_readable(data, spec, embedder, variables, class_descriptions(given.workdir, step),
                                   model.config.data.threads, captioner=make_captioner(model.module, embedder, layout),
                                   tellers=tellers)
    text = json.dumps(results, indent=2)
    print(text)
    if given.output and is_first():
        write_atomically(given.output, text + "\n")


def evaluation_layout(config: schema.Mesh) -> Layout:
    """Parameters divided as in training, over all devices that are here: `data` takes what fsdp and tensor leave. Where these do
    not fit, every device holds all parameters."""
    if -1 not in (config.fsdp, config.tensor):
        config = dataclasses.replace(config, data=-1)
    try:
        mesh = make_mesh(config)
        if mesh.size == jax.device_count():
            return make_layout(config, mesh)
        reason = f"mesh {shown(mesh.shape.values())} leaves out devices"
    except (ConfigError, MeshError) as error:
        reason = error.args[0]
    mesh = make_mesh(schema.Mesh())
    print(f"evaluated with all parameters on each device, {shown(mesh.shape.values())}, not as trained: {reason}", file=sys.stderr)
    return make_layout(schema.Mesh(), mesh)


def check_tasks(text: str) -> tuple[str, ...]:
    """Raises: ConfigError for a task that does not exist."""
    tasks = tuple(task for task in text.split(",") if task)
    for task in tasks:
        if task not in TASKS:
            raise ConfigError(f"--evaluators: unknown evaluator {task!r}; there are {', '.join(TASKS)}")
    if not tasks:
        raise ConfigError(f"--evaluators: name at least one of {', '.join(TASKS)}")
    return tasks


def check_output(path: str | None) -> None:
    """Raises: ConfigError, before minutes of work, for a place that cannot be written."""
    folder = os.path.dirname(os.path.abspath(path or "."))
    if path and (not os.path.isdir(folder) or os.path.isdir(path)):
        raise ConfigError(f"--output: {path} cannot be written: {folder if not os.path.isdir(folder) else path} is "
                          f"{'no folder' if not os.path.isdir(folder) else 'a folder'}")


def spec_of(given: argparse.Namespace, tasks: tuple[str, ...], config: schema.Config) -> schema.Evaluator:
    """What is to be measured: as the command line says, else as the config's first evaluator with such a task, else by default.
    Raises: ConfigError for an objective that has no head for the tasks, and for what no task reads."""
    def first_with(*these: str) -> schema.Evaluator:
        return next((spec for spec in config.evaluators.values() if {*these} & {*spec.tasks}), schema.Evaluator())

    zero_shot, heads, writing = first_with("zero_shot"), first_with(*{*HEADS} & {*tasks}), {*WRITTEN} & {*tasks}
    if given.by and "classification" not in tasks:
        raise ConfigError(f"--by: is for the evaluator classification, and --evaluators are {', '.join(tasks)}")
    if given.beams is not None and (not writing or given.beams < 1):
        raise ConfigError(f"--beams: {given.beams} must be at least 1" if writing else
                          f"--beams: is for the evaluators {' and '.join(WRITTEN)}, and --evaluators are {', '.join(tasks)}")
    by = None if given.by == "none" else given.by or heads.by
    spec = dataclasses.replace(zero_shot, source=given.source, tasks=tasks, batch_size=given.batch_size,
                               class_field=given.class_field or zero_shot.class_field,
                               objective=given.objective or heads.objective, by=by, beams=given.beams or first_with(*writing).beams)
    check_heads("--objective", spec, config)
    check_templates("evaluators.templates of the checkpoint's config", spec.templates)
    return spec


if __name__ == "__main__":
    run_door(main)
