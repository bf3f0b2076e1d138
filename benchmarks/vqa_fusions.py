"""Accuracy on questions about the embedded images for four fusions with the same budget.

The accuracy is printed overall and by type of question.

python benchmarks/vqa_fusions.py DIR [--fusions=cross_attention,concatenation,gated,graph] \
    [--config.KEY=VALUE ...]

Trains configs/vqa_fusion.py:small once with each fusion, in DIR/FUSION (a finished run is only
read). Prints a table that also has the accuracy of always giving the best answer, overall and for
each type, and as the last line JSON.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[1]
FUSIONS = {
    "cross_attention": {},
    "concatenation": dict(kind="concatenation", width=128, mlp_dim=256),
    "gated": dict(kind="gated", width=128),
    "graph": dict(kind="graph", width=128, heads=4, mlp_dim=256),
}
PREFIX = "val_vendor/classification_"


def train(fusion: str, folder: pathlib.Path, overrides: list[str]) -> dict[str, float]:
    """The last row of the metrics of a run, which is started or resumed."""
    command = [
        sys.executable,
        "-m",
        "vlp_jax.main",
        f"--config={ROOT}/configs/vqa_fusion.py:small",
        f"--workdir={folder}",
    ]
    # empty: the recipe's own fusion
    chosen = [f"--config.model.fusion={FUSIONS[fusion]}"] if FUSIONS[fusion] else []
    subprocess.run(
        command + chosen + overrides,
        check=True,
        stdout=sys.stderr,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"},
    )
    return json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])


def table(rows: dict[str, dict[str, float]]) -> str:
    """A Markdown table: a row per fusion with the accuracy overall and for each type.

    The most frequent type is the first.
    """
    first = next(iter(rows.values()))
    types = {
        key.removeprefix(f"{PREFIX}samples/"): value
        for key, value in first.items()
        if key.startswith(f"{PREFIX}samples/")
    }
    types = sorted(types, key=types.get, reverse=True)
    lines = [["fusion", "CPU minutes", "overall", *types], ["---"] * (3 + len(types))]
    for name, row in rows.items():
        by_type = [f"{row[f'{PREFIX}accuracy/{kind}']:.3f}" for kind in types]
        lines.append(
            [
                f"`{name}`",
                f"{row['cpu_seconds'] / 60:.1f}",
                f"{row[f'{PREFIX}accuracy']:.3f}",
                *by_type,
            ]
        )
    lines.append(
        ["always the best answer", "-", f"{first[f'{PREFIX}majority']:.3f}", *[""] * len(types)]
    )
    lines.append(
        [
            "the best of each type",
            "-",
            f"{first[f'{PREFIX}majority_by_type']:.3f}",
            *(f"{first[f'{PREFIX}majority/{kind}']:.3f}" for kind in types),
        ]
    )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--fusions", default=",".join(FUSIONS))
    given, overrides = parser.parse_known_args()
    rows = {name: train(name, given.folder / name, overrides) for name in given.fusions.split(",")}
    print(table(rows))
    print(
        json.dumps(
            {
                name: {
                    key: value
                    for key, value in row.items()
                    if key.startswith(PREFIX) or key == "cpu_seconds"
                }
                for name, row in rows.items()
            }
        )
    )


if __name__ == "__main__":
    main()
