"""Zero-shot classification: a picture's class is the one whose texts are nearest (Radford et al. 2021, section 3.1)."""

import dataclasses
import string
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from vlp_jax.config import schema
from vlp_jax.data.notices import notice
from vlp_jax.data.rows import pick
from vlp_jax.data.samples import NamesClasses
from vlp_jax.errors import ConfigError, DataError
from vlp_jax.evaluators.evaluation_set import EvaluationSet
from vlp_jax.metrics.classification import accuracy, majority
from vlp_jax.metrics.ranking import similarities

ZERO_SHOT_METRICS = ("classes", "majority", "zero_shot_accuracy", "zero_shot_accuracy_descriptions")

BARE = ("{}",)


@dataclasses.dataclass(frozen=True)
class Classes:
    """The classes that images are sorted into.

    names: of each, all different. truth: int [N], each image's class among them. words: what prompts call a class, where that is
    not its name. templates: the prompts.
    """

    names: list[str]
    truth: np.ndarray
    words: dict[str, tuple[str, ...]]
    templates: tuple[str, ...]


def classes_of(data: EvaluationSet, spec: schema.Evaluator) -> Classes:
    """The classes of a set: all that its source names, else those that occur, by the words of the evaluator, else of the source.

    Raises: DataError for an image without a class, for classes that are bare numbers, which no prompt can ask for, and for a
      number without a name.
    """
    field = spec.class_field
    place = f"{data.source.spec}: zero-shot classes in the metadata field {field!r} (class_field)"
    source = data.source if isinstance(data.source, NamesClasses) else None
    known = list(source.class_names.get(field, ())) if source else []
    names, truth = data.labels(field, "class_field")
    words: dict[str, tuple[str, ...]] = {}
    if known and all(isinstance(pick(metadata, field), int) for metadata in data.metadata):
        outside = [name for name in names if not 0 <= int(name) < len(known)]
        if outside:
            raise DataError(f"{place}: {outside[0]} is none of the {len(known)} classes that are named")
        words = {str(number): (name,) for number, name in enumerate(known)}
        names, truth = list(words), np.array([int(names[label]) for label in truth])
    elif known:
        everything = list(dict.fromkeys([*known, *names]))
        names, truth = everything, np.array([everything.index(names[label]) for label in truth])
    given = {name: spec.class_names.get(name) or spec.class_names.get(words.get(name, (name,))[0]) for name in names}
    words |= {name: tuple(asked) for name, asked in given.items() if asked}
    unnamed = [name for name in names if name not in words]
    if not known and unnamed and all(name.lstrip("-").isdecimal() for name in names):
        raise DataError(f"{place} are numbers, such as {unnamed[0]}, and nothing names them: give class_names, or, with tars, a "
                        "classnames.txt that has a name a line")
    templates = tuple(source.templates) if source and source.templates and tuple(spec.templates) == BARE else tuple(spec.templates)
    if templates != tuple(spec.templates) and not data.prompts_reported:
        data.prompts_reported = True
        notice(f"data note: {data.source.spec}: zero-shot prompts are its own {len(templates)}, such as {templates[0]!r}; set "
               "templates for others")
    return Classes(names, truth, words, templates)


def check_templates(where: str, templates: Sequence[str]) -> None:
    """Raises: ConfigError for a template that has not exactly one {} for the class; {{ and }} are braces of the text itself.
    where: the key that messages name."""
    for template in templates:
        try:
            fields = [tuple(field) for _, *field in string.Formatter().parse(template) if field[0] is not None]
        except ValueError:  # a single brace
            fields = []
        if fields != [("", "", None)]:
            raise ConfigError(f"{where}: {template!r} must have exactly one {{}}, where the class goes (write {{{{ and }}}} for "
                              "braces that belong to the text)")


def zero_shot(images: np.ndarray, labels: np.ndarray, names: Sequence[str], embed_texts: Callable[[list[str]], np.ndarray],
              templates: Sequence[str], class_names: Mapping[str, Sequence[str]],
              descriptions: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """`zero_shot_accuracy` by prompts, `zero_shot_accuracy_descriptions` by training captions, `classes`, `majority`.

    images: [N, E]; labels: int [N], indices into `names`; embed_texts: captions -> [M, E] unit vectors.
    templates: prompts with `{}` for the class; class_names: words to put there instead of the bare name, one after another.
    descriptions: training captions by class; their accuracy is left out unless every class has some.
    A class is represented by the mean of its texts' embeddings, scaled to length 1.
    """
    prompts = {name: [template.format(word) for word in class_names.get(name, (name,)) for template in templates]
               for name in names}
    results: dict[str, float] = {"classes": len(names), "majority": majority(labels),
                                 "zero_shot_accuracy": accuracy(similarities(images, class_means(prompts, embed_texts)), labels)}
    if all(descriptions.get(name) for name in names):
        means = class_means({name: descriptions[name] for name in names}, embed_texts)
        results["zero_shot_accuracy_descriptions"] = accuracy(similarities(images, means), labels)
    return results


def class_means(texts: Mapping[str, Sequence[str]], embed_texts: Callable[[list[str]], np.ndarray]) -> np.ndarray:
    """{class: texts} -> unit vectors [C, E], float64, in the mapping's order."""
    embedded = embed_texts([text for group in texts.values() for text in group])
    ends = np.cumsum([len(group) for group in texts.values()])
    means = np.stack([part.mean(axis=0, dtype=np.float64) for part in np.split(embedded, ends[:-1])])
    return means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
