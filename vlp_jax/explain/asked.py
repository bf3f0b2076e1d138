"""An image and a text, and what their score needs: an answer, or the tokens to be predicted."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from vlp_jax.data.target_kinds import rows_of_texts
from vlp_jax.errors import ConfigError
from vlp_jax.explain.explained import Explained, explained
from vlp_jax.explain.score import ScoreConfig, answering
from vlp_jax.explain.words import Word, words_of
from vlp_jax.inference import ImageLike, Model

if TYPE_CHECKING:
    from vlp_jax.experiment import Experiment


def chosen_score(experiment: "Experiment", kind: str | None, where: str = "score") -> ScoreConfig:
    """The score of this kind; None: the first that the experiment trains.

    Args:
      experiment: the config of the model.
      kind: of the score.
      where: name of the setting in messages.
    Raises:
      ConfigError: there is no such kind, or the experiment trains none of it.
    """
    lacking = {name: ScoreConfig.of(name).lacks(experiment) for name in ScoreConfig.kinds}
    possible = [name for name, need in lacking.items() if need is None]
    if kind is not None and kind not in lacking:
        raise ConfigError(f"{where}: must be {ScoreConfig.kinds.choices}, got {kind!r}")
    if kind is None and not possible:
        raise ConfigError(f"{where}: the model has no score of an image and a text to explain")
    kind = possible[0] if kind is None else kind
    if lacking[kind] is not None:
        raise ConfigError(
            f"{where}: {kind!r} needs {lacking[kind]}; possible: {', '.join(possible) or 'none'}"
        )
    return ScoreConfig.of(kind)


def asked(
    model: Model,
    variables: Mapping[str, Any],
    image: ImageLike,
    text: str,
    score: ScoreConfig,
    *,
    answer: str | None = None,
    word: str | None = None,
) -> tuple[Explained, list[Word]]:
    """A batch of one pair, and the words of its text.

    Args:
      model, variables: as `vlp_jax.load` returns them.
      image, text: the pair; the text is the question of the score "answer".
      score: the score that is explained.
      answer: of the score "answer". Default: that of the model.
      word: of the score "caption", the word whose log p is explained. Default: all words.
    Raises:
      ConfigError: the answer is none of the classes, or the text has no such word.
      DataError: the image cannot be read.
    """
    ids, mask = (model.preprocessor(texts=[text])[name] for name in ("text", "text_mask"))
    words = words_of(model.preprocessor.tokenizer, ids[0], mask[0])
    arrays: dict[str, np.ndarray] = {}
    if score.kind == "caption":
        arrays["predicted"] = predicted_tokens(words, word, mask)
    if score.kind == "answer":
        found = answer or model.answer(dict(variables), [image], [text])[0]
        arrays |= answer_array(model, found)
    return explained(model, variables, [image], [text], score, **arrays), words


def predicted_tokens(words: list[Word], word: str | None, mask: np.ndarray) -> np.ndarray:
    """The tokens whose log p is explained, bool [1, L].

    Raises:
      ConfigError: no word of the text is this one.
    """
    chosen = [own for own in words if word is None or own.text.casefold() == word.casefold()]
    if not chosen:
        there = ", ".join(own.text for own in words)
        raise ConfigError(f"word: {word!r} is not in the text; its words: {there}")
    predicted = np.zeros_like(mask)
    for own in chosen:
        predicted[0, list(own.tokens)] = True
    predicted[:, 0] = False  # nothing predicts the first token
    return predicted


def answer_array(model: Model, answer: str) -> dict[str, np.ndarray]:
    """The array of an answer, as the score "answer" reads it.

    Raises:
      ConfigError: it is none of the classes of the head.
    """
    name = answering(model.config)
    assert name is not None
    objective: Any = model.config.objectives[name]
    if objective.generates:
        tokenizer = model.preprocessor.tokenizer
        return {"answer": rows_of_texts([answer], tokenizer, objective.length)}
    assert model.targets is not None
    classes = [str(label) for label in model.targets.classes[objective.target]]
    if answer not in classes:
        shown = ", ".join(classes[:8])
        raise ConfigError(f"answer: {answer!r} is no class of the head (such as {shown})")
    return {"label": np.array([classes.index(answer)], np.int32)}
