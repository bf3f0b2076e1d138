"""The vocabulary of docstrings, comments and documentation: one term for each thing, the one that
the field uses."""

import ast
import io
import pathlib
import re
import tokenize

import pytest

ROOT = pathlib.Path(__file__).parents[1]
FILES = sorted(
    [
        *(
            path
            for folder in ("vlp_jax", "benchmarks", "configs")
            for path in (ROOT / folder).rglob("*.py")
        ),
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/*.md"),
        ROOT / "launch/README.md",
    ]
)
TERMS = {  # what is not written: what is
    r"pictures?": "image",
    r"tells?|told|tellers?": "predict, score",
    r"pupils?": "student",
    r"sittings?": "session, process",
    r"anew": "again, from scratch",
    r"unbroken": "uninterrupted",
    r"mend(s|ed|ing)?": "fix",
    r"beside": "next to, compared with",
    r"doors?": "entry point, command",
    r"fell out|passed over": "failed, skipped, replaced",
    r"stands (for|in|beside|behind)": "is, has",
    r"goes on": "continues, resumes",
}
# A name of the code, a title or an example in quotes, code blocks, and the name of an argument
# before its meaning.
NO_PROSE = re.compile(
    r"""```.*?```|`[^`\n]*`|"[^"]{0,100}"|'[^'\n]*'|^ *\w+:(?= )""", flags=re.S | re.M
)


def prose_of(path):
    """(line, text) of each docstring and comment of a Python file, or of the whole page."""
    text = path.read_text()
    if path.suffix != ".py":
        return [(1, text)]
    documented = [
        node
        for node in ast.walk(ast.parse(text))
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
    ]
    docstrings = [
        (node.body[0].lineno, found)
        for node in documented
        if (found := ast.get_docstring(node, clean=False))
    ]
    comments = [
        (token.start[0], token.string)
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type == tokenize.COMMENT
    ]
    return docstrings + comments


def other_terms(text):
    return [
        f"{found[0]!r}: write {term}"
        for word, term in TERMS.items()
        for found in re.finditer(
            rf"\b({word})\b", NO_PROSE.sub(lambda left: " " * len(left[0]), text), flags=re.I
        )
    ]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_terms_are_those_of_the_field(path):
    assert [
        f"line {line}: {found}" for line, text in prose_of(path) for found in other_terms(text)
    ] == []


def test_other_terms_are_found_and_names_are_not_words():
    assert other_terms("The picture beside it\nis told anew.") == [
        "'picture': write image",
        "'told': write predict, score",
        "'anew': write again, from scratch",
        "'beside': write next to, compared with",
    ]
    assert not other_terms('`picture` ("Show and tell")\n      pictures: [N, H, W, 3] images.')
