"""The rules that a pair of checkpoints needs, and what they leave over."""

import re
from collections.abc import Iterable, Mapping, Sequence

from vlp_jax.weights.rules import Rule, Rules, Shape


def expanded(rules: Rules, ours: Iterable[str]) -> Rules:
    """The rules with one for each layer in place of those that have `{}`.

    A number is that of a layer which one of our paths has.
    """
    found: list[Rule] = []
    paths = list(ours)
    for rule in rules:
        if "{}" not in rule.ours[0]:
            found.append(rule)
            continue
        pattern = re.compile(re.escape(rule.ours[0]).replace(r"\{\}", r"(\d+)"))
        numbers = {int(match[1]) for path in paths if (match := pattern.fullmatch(path))}
        found += [rule.numbered(number) for number in sorted(numbers)]
    return tuple(found)


def without_parts(rules: Sequence[Rule]) -> list[Rule]:
    """The rules without those that make only a part of what another one makes."""
    most: dict[str, int] = {}
    for rule in rules:
        for path in rule.ours:
            most[path] = max(most.get(path, 0), len(rule.ours))
    return [rule for rule in rules if all(most[path] == len(rule.ours) for path in rule.ours)]


def matching(
    rules: Rules, ours: Mapping[str, Shape], theirs: Mapping[str, Shape] | None = None
) -> tuple[Rules, list[str], list[str]]:
    """The rules that a pair of checkpoints needs.

    Args:
      rules: those of the family, with `{}` for layers.
      ours: shapes of our variables, with unrolled layers.
      theirs: shapes of their tensors. None: all that the rules name.
    Returns: the rules of which all of our paths exist; their tensors that no such rule takes; and
      our paths that no rule makes from tensors that exist.
    """
    used = [
        rule
        for rule in expanded(rules, ours)
        if all(path in ours for path in rule.ours)
        and (
            theirs is None
            or all(name in theirs for name in rule.theirs)
            and not any(name in theirs for name in rule.unless)
        )
    ]
    used = without_parts(used)
    made = {path for rule in used for path in rule.ours}
    taken = {name for rule in used for name in rule.theirs}
    left = [name for name in theirs or {} if name not in taken]
    return tuple(used), left, [path for path in ours if path not in made]
