"""Sizes of files and functions, docstrings and annotations, read off the source."""

import ast
import pathlib
import statistics

import pytest

ROOT = pathlib.Path(__file__).parents[1]
FILES = sorted((ROOT / "vlp_jax").rglob("*.py"))
TREES = {path: ast.parse(path.read_text()) for path in FILES}
MOST_LINES, MANY_LINES = 450, 350  # of a file
# more than MANY_LINES; no other file may have as many
LONG = {
    "config/suggestions.py",
    "models/decoder/transformer.py",
    "models/layers/attention.py",
    "models/text/transformer.py",
    "models/vision/resnet.py",
    "objectives/masked_language.py",
    "objectives/supervised.py",
    "training/build.py",
    "training/checkpoints/format.py",
    "training/checkpoints/manager.py",
    "training/trainer.py",
    "weights/rules.py",
}
FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef


def public(body, prefix=""):
    """(name, node) of the classes, functions and methods of a body whose names, and those around
    them, have no underscore."""
    for node in body:
        # described where it is implemented
        overload = "overload" in map(ast.unparse, getattr(node, "decorator_list", ()))
        if (
            isinstance(node, FUNCTIONS | ast.ClassDef)
            and not node.name.startswith("_")
            and not overload
        ):
            yield prefix + node.name, node
            if isinstance(node, ast.ClassDef):
                yield from public(node.body, f"{prefix}{node.name}.")


def lines_of_functions():
    return {
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}": node.end_lineno - node.lineno + 1
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, FUNCTIONS)
    }


def unannotated(function):
    """The arguments of a function, except self and cls, and its result, as far as they have no
    annotation."""
    given = function.args
    arguments = [
        *given.posonlyargs,
        *given.args,
        *given.kwonlyargs,
        *filter(None, (given.vararg, given.kwarg)),
    ]
    missing = [
        argument.arg
        for argument in arguments
        if argument.annotation is None and argument.arg not in ("self", "cls")
    ]
    return missing + (["the result"] if function.returns is None else [])


def test_half_of_the_functions_have_at_most_eight_lines():
    assert statistics.median(lines_of_functions().values()) <= 8


def test_no_function_has_more_than_eighty_lines():
    long = {name: lines for name, lines in lines_of_functions().items() if lines > 80}
    assert not long


def test_no_file_is_long_and_few_are_nearly_so():
    lines = {
        path.relative_to(ROOT / "vlp_jax").as_posix(): path.read_text().count("\n")
        for path in FILES
    }
    assert not {name: count for name, count in lines.items() if count > MOST_LINES}
    assert {name for name, count in lines.items() if count > MANY_LINES} <= LONG


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_and_everything_public_in_it_has_a_docstring(path):
    bare = [
        name
        for name, node in [("the module", TREES[path]), *public(TREES[path].body)]
        if not ast.get_docstring(node)
    ]
    assert not bare, f"{path} has no docstring of {bare}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_everything_public_in_a_module_has_annotations(path):
    found = {
        name: missing
        for name, node in public(TREES[path].body)
        if isinstance(node, FUNCTIONS)
        if (missing := unannotated(node))
    }
    assert not found, f"{path} has no annotations of {found}"
