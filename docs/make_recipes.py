"""Writes docs/recipes.md, each recipe compared with its authors' code and their paper: `python
docs/make_recipes.py`

The column "ours" is computed from the config. The others are facts of docs/recipe_facts/*.toml, in
the notation of the first, so that a difference is found by comparing; what is in [brackets] is a
remark, and what begins with a parenthesis is no value: then the paper's is compared, if that is
one. A row that differs has a `key`, words of the docstring that mentions it.
"""

import ast
import dataclasses
import pathlib
import re
import sys
import tomllib
from collections.abc import Iterator
from typing import Any

ROOT = pathlib.Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests/helpers"), str(ROOT / "docs")]

from recipe_values import NONE, PARTS, values  # noqa: E402

from vlp_jax.config import load_config  # noqa: E402

DIFFERS = "≠"
TITLES = {"decay": "weight decay of an update at the peak"}
LEFT_OUT = {
    "clip_emoji": "ours",
    "clip_emoji_resnet": "ours",
    "clip_places": "ours",
    "siglip_emoji": "ours",
    "staged": "ours, of four objectives of others",
    "vit_gpt2": (
        "put together here; transformers' VisionEncoderDecoderModel has no training code of authors"
    ),
    "inception_gru_caption": (
        "put together here after a tutorial; its docstring says what is not as there"
    ),
}
HEAD = f"""# Recipes compared with their authors' code

Written by `python docs/make_recipes.py`; do not edit. The column "ours" is computed from each
config, the others are typed in, in docs/recipe_facts, with the repository and the file where they
were read. {DIFFERS} marks what differs from the released code, or from the paper where no code was
released or it leaves the value to an argument; each is in the recipe's docstring, or in that of
`clip` or `siglip` in vlp_jax/config/recipes.py. "Not confirmed" was not seen by us, in code or
paper.

The weight decay is the fraction of a parameter that one update without a gradient removes, where
the learning rate is highest. Kernels are all weights that are multiplied with, words their
embeddings, positions those of words and patches, learned tokens such as the class token, types the
embeddings of segments and modalities, the scale the learned scale or temperature of cosines; heads
are the objectives' own parameters. Where a kind decays differently in parts of the model, the parts
are named.

No table:
{chr(10).join(f"- {name}: {why}" for name, why in LEFT_OUT.items())}
"""


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of a recipe's table. key: words of the docstring that mentions a difference."""

    name: str
    ours: str
    code: str
    file: str
    paper: str
    key: str

    @property
    def differs(self) -> bool:
        reference = next(
            (bare(text) for text in (self.code, self.paper) if text and not text.startswith("(")),
            None,
        )
        if reference is None:
            return False
        return (
            shares_differ(self.ours, reference) if self.name == "decay" else self.ours != reference
        )

    @property
    def line(self) -> str:
        code = f"{self.code} ({self.file})" if self.file else self.code
        cells = (
            TITLES.get(self.name, self.name),
            self.ours + f" {DIFFERS}" * self.differs,
            code,
            self.paper or "(not confirmed)",
        )
        return f"| {' | '.join(cells)} |"


def bare(text: str) -> str:
    """A fact without the remark in brackets at its end."""
    return re.sub(r"\s*\[.*\]$", "", text)


def shares_differ(ours: str, reference: str) -> bool:
    """Whether a kind of parameter that both have decays differently."""
    mine, theirs = by_kind(ours), by_kind(reference)
    return (ours == NONE) != (reference == NONE) or any(
        mine[kind] != theirs[kind] for kind in mine.keys() & theirs.keys()
    )


def by_kind(text: str) -> dict[tuple[str, str], str]:
    """{(kind, part): share} of "1e-4: kernels of text, words; 0: biases"; a kind without parts is
    of all."""
    found = {}
    for group in text.split("; ") if text != NONE else ():
        share, _, kinds = group.partition(": ")
        for kind, _, parts in (each.partition(" of ") for each in kinds.split(", ")):
            found |= {(kind, part): share for part in (parts.split(" and ") if parts else PARTS)}
    return found


def families() -> list[dict[str, Any]]:
    """The facts, a file for each released code."""
    return [
        tomllib.loads(path.read_text())
        for path in sorted((ROOT / "docs/recipe_facts").glob("*.toml"))
    ]


def tables() -> Iterator[tuple[dict[str, Any], str, list[Row]]]:
    """(the facts, a recipe's name, its rows), in the order of the file names."""
    for facts in families():
        for name in facts["recipes"]:
            yield facts, name, rows_of(facts, name)


def rows_of(facts: dict[str, Any], name: str) -> list[Row]:
    """The rows of one recipe; those that neither has are left out."""
    found = []
    for row, ours in values(load_config(str(ROOT / "configs" / f"{name}.py"))).items():
        known = facts["rows"].get(row, {}) | facts.get("only", {}).get(name, {}).get(row, {})
        if known or ours != NONE:
            empty = dict(code="(not confirmed)", file="", paper="", key="")
            found.append(Row(row, ours, **empty | known))
    return found


def text() -> str:
    """docs/recipes.md."""
    parts = [HEAD]
    for facts, name, rows in tables():
        head = (
            f"## {name}\n\n{facts['title']}.\n\n| | ours | {facts['code']} | {facts['paper']} "
            "|\n|---|---|---|---|"
        )
        parts.append("\n".join([head, *(row.line for row in rows)]) + "\n")
    return "\n".join(parts)


def docstrings(facts: dict[str, Any], name: str) -> str:
    """What a recipe says of itself, and those that it refers to, on one line."""
    module = ast.parse((ROOT / "vlp_jax/config/recipes.py").read_text())
    shared = {
        node.name: ast.get_docstring(node)
        for node in module.body
        if isinstance(node, ast.FunctionDef)
    }
    found = [own := docstring(name)]
    for other in facts.get("refers_to", []):
        if f"`{other}`" not in own and f"{other}.py" not in own:
            raise ValueError(f"configs/{name}.py: its docstring does not refer to {other}")
        found.append(shared.get(other) or docstring(other))
    return " ".join(" ".join(found).split())


def docstring(name: str) -> str:
    """Of configs/NAME.py."""
    return ast.get_docstring(ast.parse((ROOT / "configs" / f"{name}.py").read_text())) or ""


if __name__ == "__main__":
    (ROOT / "docs/recipes.md").write_text(text())
