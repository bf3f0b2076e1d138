"""docs/recipes.md is what its script writes, and each difference in it is in a docstring."""

import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
sys.path.append(str(ROOT / "docs"))

import make_recipes  # noqa: E402
import recipe_values  # noqa: E402


@pytest.fixture(scope="module")
def tables():
    return list(make_recipes.tables())


@pytest.mark.full
def test_the_document_is_what_the_script_writes(tables, monkeypatch):
    """To accept a change: python docs/make_recipes.py."""
    monkeypatch.setattr(make_recipes, "tables", lambda: tables)
    assert (ROOT / "docs/recipes.md").read_text() == make_recipes.text()


@pytest.mark.full
def test_each_difference_from_the_authors_code_is_in_the_recipe_s_docstring(tables):
    missing = [
        f"{name}: {row.name}: {row.ours!r}, there {row.code!r}: {row.key!r}"
        for facts, name, rows in tables
        for row in rows
        if row.differs and (not row.key or row.key not in make_recipes.docstrings(facts, name))
    ]
    assert not missing, "\n".join(missing)


@pytest.mark.full
def test_each_recipe_has_a_table_or_a_reason_for_none(tables):
    named = [name for _, name, _ in tables] + list(make_recipes.LEFT_OUT)
    assert sorted(named) == sorted(path.stem for path in (ROOT / "configs").glob("*.py"))


@pytest.mark.full
def test_facts_are_of_rows_that_there_are(tables):
    for facts, _, _ in tables:
        names = set(facts["rows"]) | {
            row for only in facts.get("only", {}).values() for row in only
        }
        assert names <= set(recipe_values.NAMES), names


def test_a_kind_that_decays_otherwise_differs_and_one_that_only_one_side_has_does_not():
    ours = "1e-4: kernels of text, words; 0: kernels of image, biases"
    assert not make_recipes.shares_differ(ours, "1e-4: kernels of text; 0: norms, biases")
    assert make_recipes.shares_differ(ours, "1e-4: kernels, words")
    assert make_recipes.shares_differ("none", "1e-4: kernels")
