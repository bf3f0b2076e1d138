"""Zero-shot classification of a set: confusion matrix, recall of each class, precision-recall."""

import numpy as np

from vlp_jax.errors import ConfigError, DataError
from vlp_jax.evaluators.prompts import Classes, zero_shot_classes
from vlp_jax.evaluators.task import TaskConfig
from vlp_jax.evaluators.zero_shot import ZeroShotTaskConfig, class_means
from vlp_jax.metrics.classification import average_precision
from vlp_jax.metrics.curves import precision_recall_curve
from vlp_jax.metrics.per_class import ClassScores, class_scores, confusion_matrix, predicted_classes
from vlp_jax.metrics.ranking import similarities
from vlp_jax.reports.examined import Examined
from vlp_jax.reports.section import COLOURS, Absent, drawn, new_figure, paragraph

MOST = 40  # classes of a confusion matrix
CURVES = 6  # most frequent classes whose curves are drawn


def zero_shot_figures(examined: Examined) -> str:
    """Confusion matrix, recall of the classes and precision-recall curves.

    Raises:
      Absent: the samples of the set have no classes, or there are no embeddings.
    """
    task = zero_shot_task(examined)
    try:
        classes = zero_shot_classes(examined.data, task)
    except (DataError, ConfigError) as error:
        raise Absent(f"{examined.source} has no classes: {error.args[0]}") from error
    scores = class_similarities(examined, classes)
    predicted = predicted_classes(scores, classes.truth)
    confusion = confusion_matrix(predicted, classes.truth, len(classes.names))
    each = class_scores(confusion)
    words = (
        f"{examined.run.name} on {examined.source}, by prompts for the {len(classes.names)} "
        f"classes of {classes.field!r}: accuracy {100 * each.right.sum() / each.support.sum():.1f}"
        f"%, mean per-class recall {100 * each.mean_per_class_recall:.1f}%, macro F1 "
        f"{each.f1_macro:.3f}."
    )
    return (
        paragraph(words)
        + confusion_figure(confusion, classes.names)
        + bars(each, classes.names)
        + curves(scores, classes)
    )


def zero_shot_task(examined: Examined) -> ZeroShotTaskConfig:
    """The config's zero-shot task of this set, else of any, else one with the defaults."""
    evaluators = examined.model.config.evaluators.values()
    own = sorted(evaluators, key=lambda spec: spec.source != examined.source)
    tasks = [task for spec in own for task in spec.tasks.values()]
    found = next((task for task in tasks if isinstance(task, ZeroShotTaskConfig)), None)
    made = found or TaskConfig.of("zero_shot")
    assert isinstance(made, ZeroShotTaskConfig)
    return made


def class_similarities(examined: Examined, classes: Classes) -> np.ndarray:
    """Similarities float32 [N, C] of images and the means of each class's prompts."""
    prompts = {
        name: [
            template.format(word)
            for word in classes.words.get(name, (name,))
            for template in classes.templates
        ]
        for name in classes.names
    }
    return similarities(examined.images, class_means(prompts, examined.context.embed_texts))


def confusion_figure(confusion: np.ndarray, names: list[str]) -> str:
    """The matrix as shares of each true class; of many classes, the most frequent."""
    kept = np.sort(np.argsort(-confusion.sum(axis=1), kind="stable")[:MOST])
    shares = confusion[np.ix_(kept, kept)] / np.maximum(confusion[kept].sum(axis=1), 1)[:, None]
    side = 2.5 + 0.28 * len(kept)
    figure = new_figure(min(side + 1.5, 10), min(side, 9))
    axis = figure.subplots()
    drawing = axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    labels = [names[place] for place in kept]
    axis.set_xticks(range(len(kept)), labels, rotation=90, fontsize=7)
    axis.set_yticks(range(len(kept)), labels, fontsize=7)
    axis.set_xlabel("predicted", fontsize=8)
    axis.set_ylabel("true", fontsize=8)
    if len(kept) <= 12:
        for (row, column), share in np.ndenumerate(shares):
            shade = "white" if share > 0.5 else "black"
            axis.text(
                column, row, f"{100 * share:.0f}", ha="center", va="center", fontsize=7, color=shade
            )
    figure.colorbar(drawing, ax=axis, shrink=0.7, label="share of the true class")
    more = "" if len(kept) == len(names) else f"; the {MOST} most frequent of {len(names)} classes"
    return drawn(figure, f"confusion matrix, rows are true classes{more}")


def bars(each: ClassScores, names: list[str]) -> str:
    """Recall and precision of the classes that have most samples."""
    kept = [
        place for place in np.argsort(-each.support, kind="stable")[:MOST] if each.support[place]
    ]
    figure = new_figure(9.9, 3)
    axis, places = figure.subplots(), np.arange(len(kept))
    axis.bar(places - 0.2, each.recall[kept], 0.4, label="recall", color=COLOURS[0])
    axis.bar(places + 0.2, each.precision[kept], 0.4, label="precision", color=COLOURS[1])
    labels = [f"{names[place]} ({each.support[place]})" for place in kept]
    axis.set_xticks(places, labels, rotation=60, ha="right", fontsize=7)
    axis.set_ylim(0, 1)
    axis.legend(fontsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    return drawn(figure, "recall and precision of each class, with its number of images")


def curves(scores: np.ndarray, classes: Classes) -> str:
    """Precision-recall curves of the most frequent classes, each against all others."""
    counts = np.bincount(classes.truth, minlength=len(classes.names))
    figure = new_figure(7.5, 3.4)
    axis = figure.subplots()
    for place, colour in zip(np.argsort(-counts, kind="stable")[:CURVES], COLOURS, strict=False):
        if not 0 < counts[place] < len(classes.truth):
            continue
        truth = classes.truth == place
        precision, recall, _ = precision_recall_curve(scores[:, place], truth)
        area = average_precision(scores[:, place], truth)
        axis.plot(recall, precision, color=colour, label=f"{classes.names[place]}: {area:.2f}")
    axis.set_xlabel("recall", fontsize=8)
    axis.set_ylabel("precision", fontsize=8)
    axis.set_ylim(0, 1.02)
    title = "class: average precision"
    figure.legend(fontsize=7, title=title, title_fontsize=7, loc="outside right upper")
    axis.spines[["top", "right"]].set_visible(False)
    return drawn(figure, "precision-recall curves of the most frequent classes")
