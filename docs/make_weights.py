"""The table of public weights in docs/weights_compared.md, from the errors that the tests write.

export WEIGHT_ERRORS=/tmp/errors.jsonl OPEN_CLIP_PYTHON=/tmp/open_clip/bin/python
python -m pytest -m parity
python docs/make_weights.py /tmp/errors.jsonl
"""

import json
import pathlib
import sys

FOLDER = pathlib.Path(__file__).parent
sys.path[:0] = [
    str(FOLDER.parent / "tests" / "helpers"),
    str(FOLDER.parent / "tests" / "weights" / "families"),
]

from weight_reference import family  # noqa: E402

HEAD = """# Public weights compared

Written by `python docs/make_weights.py` from the errors of `python -m pytest -m parity`; do not
edit.

Random models of each library, in several seeds and sizes, are read here. The error is max|a - b| /
max|b| of all outputs, in float32: embeddings, tokens, logits and the losses that the class has. A
family that is written, too, gives tensors that are bit-equal to those read, and its library loads
them with none missing or left over.

| format | architecture | models | forward | loss | read | written |
|---|---|---|---|---|---|---|
"""


def main(path: str) -> None:
    rows: dict[str, list[dict]] = {}
    for line in pathlib.Path(path).read_text().splitlines():
        row = json.loads(line)
        rows.setdefault(row["family"], []).append(row)
    table = [row_of(name, found) for name, found in rows.items()]
    (FOLDER / "weights_compared.md").write_text(HEAD + "\n".join(sorted(table)) + "\n")


def row_of(name: str, found: list[dict]) -> str:
    """A row of the table: the largest errors of a family over its variants."""
    forward = [e for row in found for key, e in row["errors"].items() if "loss" not in key]
    losses = [e for row in found for key, e in row["errors"].items() if "loss" in key]
    reference = family(name)
    title = (reference.__doc__ or name).replace("\n", " ").split(". ")[0].split("; ")[0]
    title = title.rstrip(".").replace("|", "\\|")
    written = "yes" if found[0]["exports"] else ""
    cells = [
        f"`{reference.FORMAT}:`",
        title,
        str(len({row["variant"] for row in found})),
        f"{max(forward):.1e}" if forward else "",
        f"{max(losses):.1e}" if losses else "",
        "yes",
        written,
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main(sys.argv[1])
