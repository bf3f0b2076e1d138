"""Write a page about runs that opens in any browser, without a network.

python -m vlp_jax.report RUN [RUN ...] --output=DIR
  writes DIR/index.html: curves of training and evaluation, speed and cost, metrics and configs side
  by side, and, of the newest checkpoint of the first run, images and captions that are found right
  and wrong, classes, written captions, attention, and heat maps. --source=KIND:PATTERN names the
  set of the examples; by default it is that of the config's first evaluator.
"""

import os
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

from vlp_jax.command_line import Flags, quiet_libraries, run_entry_point
from vlp_jax.errors import ConfigError
from vlp_jax.reporting import report

if TYPE_CHECKING:
    from vlp_jax.reports.records import RunRecord


def main(arguments: list[str]) -> int:
    """Writes the page.

    Raises:
      UserError: anything that the user can fix.
    """
    flags = Flags(prog="report", description=__doc__)
    flags.add_argument("runs", nargs="+", metavar="RUN", help="the folder of a run")
    flags.add_argument("--output", required=True, help="a folder; index.html in it is replaced")
    flags.add_argument("--source", help="KIND:PATTERN, the set of the examples")
    flags.add_argument("--samples", type=int, default=2000, help="most samples of the set")
    flags.add_argument(
        "--examples", type=int, default=4, help="of each kind; 0: no model is loaded"
    )
    flags.add_argument("--components", default="", help="as for python -m vlp_jax.inspect")
    given = flags.parse(arguments)
    for name, least in (("samples", 1), ("examples", 0)):
        if getattr(given, name) < least:
            raise ConfigError(f"--{name}: must be at least {least}, got {getattr(given, name)}")
    quiet_libraries()
    path = write_report(
        given.runs,
        given.output,
        source=given.source,
        samples=given.samples,
        examples=given.examples,
        components=tuple(name for name in given.components.split(",") if name),
    )
    report(f"wrote {path}")
    return 0


def write_report(
    runs: Sequence[str | os.PathLike],
    output: str | os.PathLike,
    *,
    source: str | None = None,
    samples: int = 2000,
    examples: int = 4,
    components: Collection[str] = (),
) -> str:
    """Writes a page about runs.

    Args:
      runs: their workdirs; examples are of the first one.
      output: a folder; index.html in it is replaced.
      source: the set of the examples. Default: that of the config's first evaluator.
      samples: most samples of the set, at even distances.
      examples: number of examples of each kind; 0: no model is loaded.
      components: as in `vlp_jax.load`.
    Returns: the path of the page.
    Raises:
      UserError: a run cannot be read, or the page cannot be written.
    """
    from vlp_jax.reports.page import page
    from vlp_jax.reports.records import open_runs
    from vlp_jax.reports.section import Absent, Section
    from vlp_jax.storage.files import make_folder, write_atomically
    from vlp_jax.storage.paths import check_place

    check_place("--output", output)
    records = open_runs([os.fspath(run) for run in runs], components)
    sections, absent = [], []
    for title, body in parts(records, source, samples, examples):
        try:
            sections.append(Section(title, body()))
        except Absent as reason:
            absent.append(f"{title}: {reason}")
    names = ", ".join(record.name for record in records)
    html = page(f"Report: {names}", subtitle(records), sections, absent)
    path = os.path.join(output, "index.html")
    try:
        make_folder(os.fspath(output))
        write_atomically(path, html)
    except OSError as error:
        raise ConfigError(f"--output: {path} cannot be written: {error.strerror}") from error
    return path


def parts(
    records: "Sequence[RunRecord]", source: str | None, samples: int, examples: int
) -> list[tuple[str, Callable[[], str]]]:
    """(title, function that returns the HTML) of all sections, in the order of the page.

    Args: as in `write_report`; `records` are the opened runs.
    """
    from vlp_jax.reports.curves import evaluation_curves, goodput, training_curves
    from vlp_jax.reports.overview import config_differences, metrics, overview

    found: list[tuple[str, Callable[[], str]]] = [
        ("Overview", lambda: overview(records)),
        ("Training", lambda: training_curves(records)),
        ("Evaluation over training", lambda: evaluation_curves(records)),
        ("Metrics", lambda: metrics(records)),
    ]
    if examples:
        found += example_parts(records[0], source, samples, examples)
    return found + [
        ("Time", lambda: goodput(records)),
        ("Config differences", lambda: config_differences(records)),
    ]


def example_parts(
    record: "RunRecord", source: str | None, samples: int, examples: int
) -> list[tuple[str, Callable[[], str]]]:
    """The sections that are made with the model of a run.

    Raises:
      UserError: the model cannot be loaded.
    """
    from vlp_jax.reports.attention import attention_examples, heat_map_examples
    from vlp_jax.reports.captions import caption_examples
    from vlp_jax.reports.classes import zero_shot_figures
    from vlp_jax.reports.examined import Examined
    from vlp_jax.reports.retrieval_examples import retrieval_examples
    from vlp_jax.reports.section import Absent

    try:
        examined = Examined(record, source, samples)
    except Absent as error:
        reason = str(error)

        def absent() -> str:
            raise Absent(reason)

        return [("Examples", absent)]
    return [
        ("Retrieval", lambda: retrieval_examples(examined, examples)),
        ("Zero-shot classes", lambda: zero_shot_figures(examined)),
        ("Captions", lambda: caption_examples(examined, examples)),
        ("Attention", lambda: attention_examples(examined, examples)),
        ("Heat maps", lambda: heat_map_examples(examined, examples)),
    ]


def subtitle(records: "Sequence[RunRecord]") -> str:
    """The folders of the runs and their last steps."""
    return "; ".join(f"{record.folder}, step {record.last('step') or 0}" for record in records)


if __name__ == "__main__":
    run_entry_point(main)
