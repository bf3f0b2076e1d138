"""Zero-shot classification (Radford et al. 2021, section 3.1).

The class of an image is the one whose texts are nearest.
"""

import string
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from vlp_jax.errors import ConfigError
from vlp_jax.metrics.classification import accuracy, majority
from vlp_jax.metrics.ranking import similarities

ZERO_SHOT_METRICS = ("classes", "majority", "zero_shot_accuracy", "zero_shot_accuracy_descriptions")


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
            fields = [tuple(field) for _, *field in string.Formatter().parse(template) if field[0] is not None]
        except ValueError:  # a single brace
            fields = []
        if fields != [("", "", None)]:
            raise ConfigError(f"{where}: {template!r} must have exactly one {{}}, where the class goes (write {{{{ and }}}} for "
                              f"braces that belong to the text){more}")


def zero_shot(images: np.ndarray, labels: np.ndarray, names: Sequence[str], embed_texts: Callable[[list[str]], np.ndarray],
              templates: Sequence[str], class_names: Mapping[str, Sequence[str]],
              descriptions: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """Zero-shot accuracy.

    A class is represented by the mean of its texts' embeddings, scaled to length 1.

    Args:
      images: [N, E] embeddings.
      labels: int [N], indices into `names`.
      names: class names.
      embed_texts: captions -> [M, E] unit vectors.
      templates: prompts with `{}` for the class.
      class_names: words to use in prompts instead of the class name, one after another.
      descriptions: training captions by class; their accuracy is left out unless every class has
        some.
    Returns:
      classes: number of classes.
      majority: accuracy of the most frequent class.
      zero_shot_accuracy: accuracy by prompts.
      zero_shot_accuracy_descriptions: accuracy by training captions.
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
    """{class: texts} -> unit vectors float64 [C, E], in the order of the mapping."""
    embedded = embed_texts([text for group in texts.values() for text in group])
    ends = np.cumsum([len(group) for group in texts.values()])
    means = np.stack([part.mean(axis=0, dtype=np.float64) for part in np.split(embedded, ends[:-1])])
    return means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
