"""Evaluation of generated answers: exact match and VQA accuracy, and examples to read."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from vlp_jax.data.text.canonicalize import canonicalize
from vlp_jax.data.text.tokenizer import Tokenizer
from vlp_jax.data.text.vqa_answers import vqa_score
from vlp_jax.evaluators.captioning import SHOWN, GenerationTaskConfig
from vlp_jax.evaluators.supervised import SupervisedHead, SupervisedTaskConfig, first_texts, require_targets
from vlp_jax.evaluators.text_generator import words

if TYPE_CHECKING:
    from vlp_jax.evaluators.context import TaskContext
    from vlp_jax.evaluators.evaluation_set import EvaluationSet
    from vlp_jax.experiment import Experiment

ANSWER_METRICS = ("answers_samples", "answers_exact_match", "answers_vqa_accuracy")
Write = Callable[[Sequence[tuple[int, str]]], np.ndarray]  # (index of a sample, its text) -> int [N, L], tokens up to an end token


@dataclasses.dataclass(frozen=True, kw_only=True)
class AnswersTaskConfig(SupervisedTaskConfig, GenerationTaskConfig):
    """How many generated answers are the true one, and some of them to read."""

    head = "answers"

    def metric_names(self, experiment: "Experiment") -> tuple[str, ...]:
        return ANSWER_METRICS

    def run(self, context: "TaskContext") -> dict[str, float | str]:
        head, data = self.head_of(context.heads), context.data.by_sample
        return answers(context.ask(head.writer(self.search), data), data, head)


def answers(write: Write, data: "EvaluationSet", head: SupervisedHead) -> dict[str, float | str]:
    """Metrics of the answers that a model generates for a set.

    The text of a sample with several texts is its first.

    Args:
      write: (index of a sample, its text) pairs -> int [N, L], tokens up to an end token.
      data: the set.
      head: the answering head, with its targets.
    Returns:
      answers_samples: number of samples.
      answers_exact_match: fraction of samples whose generated text is the true one (Rajpurkar et
        al. 2016, "SQuAD"), both as the tokenizer decodes them, after the target's `canonicalize`. A
        true answer that decodes to nothing (all of its words are unknown) counts as an error.
      answers_vqa_accuracy: mean score of the generated texts by the answers of all annotators of a
        sample, as in VQA's official evaluation (`vqa_score`). With one annotator it equals the
        exact match.
      answers: a text with the question, the generated and the true answer of the first samples.
    Raises:
      DataError: a sample lacks the target's field.
    """
    truth, asked = true_answers(data, head), first_texts(data)
    tokenizer, changes = head.predictor.preprocessor.tokenizer, head.targets.specs[head.target].canonicalize
    _, end, padding = tokenizer.special_ids
    found = [words(tokenizer.backend.decode, row, {*end, padding}) for row in write(asked).tolist()]
    right = [text != "" and canonicalize(said, changes) == canonicalize(text, changes)
             for said, text in zip(found, given_back(tokenizer, truth), strict=True)]
    scores = vqa_accuracies([canonicalize(said, changes) for said in found], data, head)
    shown = zip(asked[:SHOWN], found, truth, strict=False)
    lines = [f"{number + 1}. {' '.join(text.split())}\n   written: {said}\n   true: {true}" for (number, text), said, true in shown]
    return {"answers_samples": len(right), "answers_exact_match": float(np.mean(right)),
            "answers_vqa_accuracy": float(np.mean(scores)), "answers": "\n".join(lines) + "\n"}


def vqa_accuracies(written: Sequence[str], data: "EvaluationSet", head: SupervisedHead) -> list[float]:
    """`vqa_score` of the text generated for each sample, 0 for an empty text.

    The annotators' answers are compared as the tokenizer decodes them.
    """
    spec, tokenizer = head.targets.specs[head.target], head.predictor.preprocessor.tokenizer
    annotated = [spec.values(metadata) for metadata in data.metadata]
    distinct = list(dict.fromkeys(value for values in annotated for value in values))
    texts = dict(zip(distinct, (canonicalize(text, spec.canonicalize) for text in given_back(tokenizer, distinct)), strict=True))
    return [vqa_score(sum(texts[value] == said != "" for value in values), len(values))
            for said, values in zip(written, annotated, strict=True)]


def true_answers(data: "EvaluationSet", head: SupervisedHead) -> list[str]:
    """The true text of each sample.

    Raises:
      DataError: a sample lacks the target's field.
    """
    require_targets(data, head)
    return [head.targets.of(head.target, metadata) for metadata in data.metadata]


def given_back(tokenizer: Tokenizer, texts: Sequence[str]) -> list[str]:
    """Each text as decoded from all of its tokens, which may lose upper case or blanks."""
    return [words(tokenizer.backend.decode, row, set()) for row in tokenizer.encode(texts)]
