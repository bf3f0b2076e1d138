"""Measure how well heat maps point at what a text names, on scenes with known boxes.

python -m vlp_jax.explain.pointing --workdir=RUN --source=embedded:emoji_places/val_vendor
  prints the pointing accuracy of each method next to that of a random point and of the centre, the
  areas under the curves of deletion and insertion next to those of a random order, and the rank
  correlation with the map of randomised parameters. --methods, --score and --set are those of
  python -m vlp_jax.explain.
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vlp_jax.command_line import Flags, quiet_libraries, run_entry_point
from vlp_jax.errors import ConfigError
from vlp_jax.printing import safe_print as print
from vlp_jax.reporting import remark

if TYPE_CHECKING:
    from vlp_jax.explain.explained import Explained
    from vlp_jax.explain.method import MethodConfig
    from vlp_jax.explain.pointing_game import Target
    from vlp_jax.explain.score import ScoreConfig
    from vlp_jax.inference import Model

BATCH = 64


def main(arguments: list[str]) -> int:
    """Prints the figures as JSON.

    Raises:
      UserError: anything that the user can fix.
    """
    flags = Flags(prog="explain.pointing", description=__doc__)
    flags.add_argument("--workdir", required=True, help="a run's folder")
    flags.add_argument("--step", type=int, help="which checkpoint; the newest by default")
    flags.add_argument("--source", default="embedded:emoji_places/val_vendor")
    flags.add_argument("--samples", type=int, default=512, help="most named objects")
    flags.add_argument("--curves", type=int, default=64, help="objects for the other measures")
    flags.add_argument("--methods", help="comma-separated; by default all that the model has")
    flags.add_argument("--score", help="retrieval or matching; by default the first that there is")
    flags.add_argument(
        "--set", action="append", metavar="METHOD.KEY=VALUE", help="a setting of a method"
    )
    given = flags.parse(arguments, ("--set",))
    for name in ("samples", "curves"):
        if getattr(given, name) < 1:
            raise ConfigError(f"--{name}: must be at least 1, got {getattr(given, name)}")
    quiet_libraries()

    from vlp_jax.data.sources.registry import open_source
    from vlp_jax.explain.asked import chosen_score
    from vlp_jax.explain.chosen import chosen_methods, possible_methods
    from vlp_jax.explain.pointing_game import targets_of
    from vlp_jax.loading import load

    methods = chosen_methods(given.methods, given.set or [])
    source = open_source(given.source)
    model, variables, preprocessor = load(given.workdir, given.step)
    score = chosen_score(model.config, given.score, "--score")
    if score.kind not in ("retrieval", "matching"):
        raise ConfigError(f"--score: must be retrieval or matching, got {score.kind!r}")
    possible, messages = possible_methods(methods, model.config, score)
    if messages and (given.methods is not None or not possible):
        raise ConfigError(f"--methods: {'; '.join(messages)}")
    for message in messages:
        remark(f"left out: {message}")
    targets = targets_of(source, preprocessor, given.samples)
    print(json.dumps(figures(model, variables, targets, score, possible, given.curves), indent=2))
    return 0


def figures(
    model: "Model",
    variables: Mapping[str, Any],
    targets: "Sequence[Target]",
    score: "ScoreConfig",
    methods: "Sequence[MethodConfig]",
    curves: int,
) -> dict[str, Any]:
    """The figures of each method, and of its alternatives.

    Args:
      model, variables: as `vlp_jax.load` returns them.
      targets: what is pointed at.
      score: the score that is explained.
      methods: the methods.
      curves: number of targets for deletion, insertion and randomised parameters.
    """
    from vlp_jax.explain.faithfulness import deletion_and_insertion
    from vlp_jax.explain.pointing_game import centre_accuracy, hits, random_accuracy

    batches = list(pair_batches(model, variables, targets, score))
    some = list(pair_batches(model, variables, targets[:curves], score))
    rng = np.random.default_rng(0)
    drawn = [rng.random((len(rows), *rows[0].image.shape[:2])) for rows, _ in some]
    areas = [
        deletion_and_insertion(pairs, maps) for (_, pairs), maps in zip(some, drawn, strict=True)
    ]
    found: dict[str, Any] = {
        "objects": len(targets),
        "random": {"accuracy": random_accuracy(targets), **mean_areas(areas)},
        "centre": {"accuracy": centre_accuracy(targets)},
    }
    for method in methods:
        correct = [hits(method.maps(pairs), rows) for rows, pairs in batches]
        found[method.kind] = {
            "accuracy": float(np.concatenate(correct).mean()),
            **faithfulness(method, [pairs for _, pairs in some]),
        }
    return found


def faithfulness(method: "MethodConfig", batches: "Sequence[Explained]") -> dict[str, float]:
    """Deletion, insertion and the rank correlation with randomised parameters of a method."""
    from vlp_jax.explain.faithfulness import deletion_and_insertion, rank_correlation, shuffled

    areas, correlations, counts = [], [], []
    for pairs in batches:
        maps = method.maps(pairs)
        areas.append(deletion_and_insertion(pairs, maps))
        random = dataclasses.replace(pairs, variables=shuffled(pairs.variables))
        correlations.append(rank_correlation(maps, method.maps(random)))
        counts.append(len(maps))
    return {
        **mean_areas(areas),
        "randomised_rank_correlation": float(np.average(correlations, weights=counts)),
    }


def mean_areas(areas: Sequence[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    """The means of areas of deletion and insertion."""
    return {
        name: float(np.concatenate([pair[place] for pair in areas]).mean())
        for place, name in enumerate(("deletion", "insertion"))
    }


def pair_batches(
    model: "Model", variables: Mapping[str, Any], targets: "Sequence[Target]", score: "ScoreConfig"
) -> "Iterator[tuple[Sequence[Target], Explained]]":
    """Batches of targets with their pairs."""
    from vlp_jax.explain.explained import explained

    for start in range(0, len(targets), BATCH):
        rows = targets[start : start + BATCH]
        images, texts = [row.image for row in rows], [row.text for row in rows]
        yield rows, explained(model, variables, images, texts, score)


if __name__ == "__main__":
    run_entry_point(main)
