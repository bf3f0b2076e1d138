"""Classes, class names and prompts of zero-shot classification."""

import collections
import dataclasses
import json
import os
import pathlib
import string
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vlp_jax.data.notifications import notice
from vlp_jax.data.samples import NamesClasses
from vlp_jax.data.sources.columns import pick
from vlp_jax.errors import ConfigError, DataError

if TYPE_CHECKING:
    from vlp_jax.evaluators.evaluation_set import EvaluationSet
    from vlp_jax.evaluators.zero_shot import ZeroShotTaskConfig

BARE = ("{}",)
# metadata fields that may hold the class where `class_field` is not set
CLASS_FIELDS = ("class", "label", "group", "cls")
PACKAGED = pathlib.Path(__file__).parents[1] / "data" / "imagenet"
TEMPLATES = {
    "imagenet": PACKAGED / "templates.txt",
    "imagenet_simple": PACKAGED / "templates_simple.txt",
}
CLASS_NAMES = {"imagenet": PACKAGED / "class_names.txt"}


@dataclasses.dataclass(frozen=True)
class Classes:
    """The classes of a zero-shot evaluation.

    Attributes:
      field: metadata field of the class.
      names: name of each class, all different.
      truth: int [N], index of each image's class.
      words: words for a class in prompts, where they differ from its name.
      templates: the prompts.
    """

    field: str
    names: list[str]
    truth: np.ndarray
    words: Mapping[str, Sequence[str]]
    templates: tuple[str, ...]


def zero_shot_classes(
    data: "EvaluationSet", task: "ZeroShotTaskConfig", where: str = ""
) -> Classes:
    """The classes of a set: all that `class_names` or the source names, else those that occur.

    Args:
      data: the set.
      task: the settings.
      where: prefix of the settings, for messages.
    Raises:
      DataError: an image has no class, a class has no name, or the classes are plain numbers, which
        no prompt can contain.
      ConfigError: as `templates_of` and `names_in`.
    """
    field = task.class_field or own_class_field(data.metadata[0])
    if field is None:
        raise DataError(
            f"{data.source.spec}: zero_shot looks for the class of an image in the "
            f"metadata fields {', '.join(CLASS_FIELDS)}; name another one by "
            f"{where}class_field (there are: "
            f"{', '.join(sorted(data.metadata[0])) or 'none'})"
        )
    names, truth = data.labels(field, f"{where}class_field")
    templates = prompts_of(data, task, where)
    listed = names_in(f"{where}class_names", task.class_names)
    if not isinstance(listed, Mapping):
        return all_listed(
            f"{data.source.spec}: {field}", Found(field, names, truth, templates), listed, where
        )
    return named_by_source(data, Found(field, names, truth, templates), listed)


@dataclasses.dataclass(frozen=True)
class Found:
    """The classes that occur in a metadata field. The attributes are those of `Classes`."""

    field: str
    names: list[str]
    truth: np.ndarray
    templates: tuple[str, ...]


def prompts_of(data: "EvaluationSet", task: "ZeroShotTaskConfig", where: str) -> tuple[str, ...]:
    """The prompts of the task, or those of the data where the task has only the bare name."""
    source = data.source
    if (
        not isinstance(source, NamesClasses)
        or not source.templates
        or tuple(task.templates) != BARE
    ):
        return templates_of(f"{where}templates", task.templates)
    templates = tuple(source.templates)
    if not data.prompts_reported:
        data.prompts_reported = True
        notice(
            f"data note: {source.spec}: zero-shot prompts are its own {len(templates)}, such as "
            f"{templates[0]!r}; set templates for others"
        )
    return templates


def named_by_source(
    data: "EvaluationSet", found: Found, given: Mapping[str, Sequence[str]]
) -> Classes:
    """The classes that occur, and all others that the source names.

    Args:
      data: the set.
      found: the classes that occur.
      given: words for some of the classes.
    Raises: as `zero_shot_classes`.
    """
    field, names, truth = found.field, found.names, found.truth
    place = f"{data.source.spec}: zero-shot classes in the metadata field {field!r} (class_field)"
    known = (
        list(data.source.class_names.get(field, ()))
        if isinstance(data.source, NamesClasses)
        else []
    )
    words: dict[str, Sequence[str]] = {}
    if known and all(isinstance(pick(metadata, field), int) for metadata in data.metadata):
        outside = [name for name in names if not 0 <= int(name) < len(known)]
        if outside:
            raise DataError(
                f"{place}: {outside[0]} is none of the {len(known)} classes that are named"
            )
        words = {str(number): (name,) for number, name in enumerate(known)}
        names, truth = list(words), np.array([int(names[label]) for label in truth])
    elif known:
        everything = list(dict.fromkeys([*known, *names]))
        names, truth = everything, np.array([everything.index(names[label]) for label in truth])
    asked = {name: given.get(name) or given.get(words.get(name, (name,))[0]) for name in names}
    words |= {name: tuple(group) for name, group in asked.items() if group}
    unnamed = [name for name in names if name not in words]
    if not known and unnamed and all(name.lstrip("-").isdecimal() for name in names):
        raise DataError(
            f"{place} are numbers, such as {unnamed[0]}, and nothing names them: give "
            "class_names, or, with tars, a classnames.txt that has a name a line"
        )
    return Classes(field, names, truth, words, found.templates)


def report_shared_names(data: "EvaluationSet", field: str, where: str) -> None:
    """Prints a line about classes that share a name, where images have class names instead of class
    numbers.

    Args:
      data: the set.
      field: metadata field of the class.
      where: prefix of the settings, for messages.
    """
    names = data.source.class_names.get(field, ()) if isinstance(data.source, NamesClasses) else ()
    shared = [shared for shared, count in collections.Counter(names).items() if count > 1]
    if (
        shared
        and not data.names_reported
        and not all(isinstance(metadata.get(field), int) for metadata in data.metadata)
    ):
        data.names_reported = True
        notice(
            f"data warning: {data.source.spec}: its {len(names)} classes have {len({*names})} "
            f"names: those called {shared[0]!r} count as one ({where}class_field)"
        )


def all_listed(place: str, found: Found, listed: Sequence[str], where: str) -> Classes:
    """The classes that `class_names` lists: by number, by name, or in the order of the sorted
    classes."""
    field, names, truth, templates = found.field, found.names, found.truth, found.templates
    if all(name.isdecimal() for name in names):
        outside = [name for name in names if int(name) >= len(listed)]
        if outside:
            raise DataError(
                f"{place} has a class {outside[0]}, and {where}class_names has "
                f"{len(listed)} names, from class 0 on"
            )
        return Classes(
            field,
            [str(number) for number in range(len(listed))],
            np.array([int(names[label]) for label in truth]),
            {str(number): (name,) for number, name in enumerate(listed)},
            templates,
        )
    if {*names} <= {*listed}:
        return Classes(
            field,
            list(listed),
            np.array([listed.index(names[label]) for label in truth]),
            {},
            templates,
        )
    if len(names) != len(listed):
        raise DataError(
            f"{place} has {len(names)} classes, such as {names[0]!r}, and "
            f"{where}class_names has {len(listed)} names: give as many, in the order "
            "of the sorted classes, or a dictionary of the words for each class"
        )
    return Classes(
        field,
        names,
        truth,
        {name: (word,) for name, word in zip(names, listed, strict=True)},
        templates,
    )


def own_class_field(metadata: Mapping[str, Any]) -> str | None:
    """The metadata field with the class of a sample, by its usual names; None where there is
    none."""
    return next((field for field in CLASS_FIELDS if pick(metadata, field) is not None), None)


def templates_of(where: str, templates: Sequence[str]) -> tuple[str, ...]:
    """The prompts.

    Each is given as itself, as the name of a set in this package, or as a file with one prompt per
    line.

    Args:
      where: the setting, for messages.
      templates: the prompts as given.
    Raises:
      ConfigError: a prompt does not have exactly one {}, or a file cannot be read.
    """
    found: list[str] = []
    for template in templates:
        path = TEMPLATES.get(template) or (template if os.path.isfile(template) else None)
        lines = (
            [line.replace("{c}", "{}") for line in lines_in(where, path) if line]
            if path
            else [template]
        )
        if path and not lines:
            raise ConfigError(f"{where}: {path} has no prompts")
        sets = (
            ""
            if path or "{" in template
            else f"; it is no file, and no set of this package ({', '.join(TEMPLATES)})"
        )
        check_templates(where, lines, sets)
        found += lines
    if not found:
        raise ConfigError(f"{where}: at least one is needed, such as 'a photo of a {{}}.'")
    return tuple(found)


def names_in(
    where: str, names: Mapping[str, Sequence[str]] | Sequence[str]
) -> Mapping[str, Sequence[str]] | tuple[str, ...]:
    """The names of classes: a dictionary by class, or a list of all names in the order of the class
    numbers.

    Instead of names there may be the name of a list in this package, or a file with one name per
    line or with JSON.

    Args:
      where: the setting, for messages.
      names: the names as given.
    Raises:
      ConfigError: a file cannot be read.
    """
    if isinstance(names, Mapping) or len(names) != 1:
        return names if isinstance(names, Mapping) else tuple(names)
    path = CLASS_NAMES.get(names[0]) or (names[0] if os.path.isfile(names[0]) else None)
    if path is None:
        raise ConfigError(
            f"{where}: {names[0]!r} is one name alone, no file, and no list of this "
            f"package ({', '.join(CLASS_NAMES)})"
        )
    lines = lines_in(where, path)
    if not str(path).endswith(".json"):
        if not lines or "" in lines:
            raise ConfigError(
                f"{where}: {path} has no name in line {lines.index('') + 1 if lines else 1}"
            )
        return tuple(lines)
    try:
        read = json.loads("\n".join(lines))
    except ValueError as error:
        raise ConfigError(f"{where}: {path} is no JSON: {error}") from error
    entries = read.values() if isinstance(read, dict) else [read]
    groups = [entry if isinstance(entry, list) else [entry] for entry in entries]
    if (
        not isinstance(read, dict | list)
        or not all(isinstance(word, str) for group in groups for word in group)
        or not all(groups)
    ):
        raise ConfigError(
            f"{where}: {path} must hold a list of names, or an object of a name or "
            "a list of words for each class"
        )
    return (
        dict(zip(read, map(tuple, groups), strict=True)) if isinstance(read, dict) else tuple(read)
    )


def check_templates(where: str, templates: Sequence[str], more: str = "") -> None:
    """Checks that every template has exactly one {} for the class; {{ and }} are literal braces.

    Args:
      where: the key that messages name.
      templates: the templates.
      more: the end of the message.
    Raises:
      ConfigError: a template has no {}, several, or other fields.
    """
    for template in templates:
        try:
            fields = [
                tuple(field)
                for _, *field in string.Formatter().parse(template)
                if field[0] is not None
            ]
        except ValueError:  # a single brace
            fields = []
        if fields != [("", "", None)]:
            raise ConfigError(
                f"{where}: {template!r} must have exactly one {{}}, where the class "
                "goes (write {{ and }} for braces that belong to the "
                f"text){more}"
            )


def lines_in(where: str, path: str | os.PathLike) -> list[str]:
    """The stripped lines of a text file, without blank lines at its start and end."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            return [line.strip() for line in file.read().strip().splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is no text in UTF-8"
        raise ConfigError(f"{where}: {path}: {reason}") from error
