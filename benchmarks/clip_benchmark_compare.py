"""Zero-shot, retrieval and linear-probe figures, compared with CLIP_benchmark's and scikit-learn's
on one set of random features.

pip install -e '.[reference]'
python benchmarks/clip_benchmark_compare.py

CLIP_benchmark's own `evaluate` functions run on a model that looks the features up. Its linear
probe trains with AdamW on a GPU; the probe's figures are compared with those of scikit-learn's
logistic regression at the same L2 penalty.
"""

import types

import numpy as np
import torch
from clip_benchmark.metrics import (
    image_caption_selection,
    zeroshot_classification,
    zeroshot_retrieval,
)
from sklearn.linear_model import LogisticRegression

from vlp_jax.evaluators.clip_benchmark import NAMES
from vlp_jax.evaluators.composition import winoground
from vlp_jax.evaluators.logistic_regression import fit
from vlp_jax.evaluators.multi_label import multi_label
from vlp_jax.evaluators.prompts import Classes
from vlp_jax.evaluators.retrieval import retrieval
from vlp_jax.evaluators.zero_shot import zero_shot

IMAGES, CLASSES, WIDTH, CAPTIONS = 600, 12, 32, 5
# CLIP_benchmark 1.6.2 converts arrays with one element by float(), which NumPy 2.4 refuses
zeroshot_classification.float = lambda value: float(np.squeeze(value))  # pyrefly: ignore
TEMPLATES = ("a photo of a {}", "a drawing of a {}")


def unit(rows):
    """Rows scaled to length 1, float32."""
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


class LookedUp(torch.nn.Module):
    """A model for CLIP_benchmark whose inputs are numbers of features."""

    def __init__(self, images, texts):
        super().__init__()
        self.images, self.texts = torch.from_numpy(images), torch.from_numpy(texts)

    def encode_image(self, numbers):
        """The image features of numbers [B], or [B, 1, 1, 1] as an image would be shaped."""
        return self.images[numbers.long().reshape(len(numbers), -1)[:, 0]]

    def encode_text(self, numbers):
        """The text features of numbers [B]."""
        return self.texts[numbers]


def tokenizer_of(known):
    """A function that numbers texts, as a tokenizer would."""
    place = {text: number for number, text in enumerate(known)}
    return lambda texts: torch.tensor([place[text] for text in texts])


def compared_zero_shot(rng):
    """(ours, CLIP_benchmark's) of zero-shot classification with two prompts a class."""
    names = [f"class {c}" for c in range(CLASSES)]
    prompts = [template.format(name) for name in names for template in TEMPLATES]
    texts = unit(rng.standard_normal((len(prompts), WIDTH)))
    labels = rng.integers(0, CLASSES, IMAGES)
    images = unit(texts[labels * len(TEMPLATES)] + 0.25 * rng.standard_normal((IMAGES, WIDTH)))
    place = {prompt: number for number, prompt in enumerate(prompts)}
    ours = zero_shot(
        images, labels, names, lambda t: texts[[place[x] for x in t]], TEMPLATES, {}, {}
    )
    batches = Batches(np.arange(IMAGES), labels, names)
    theirs = zeroshot_classification.evaluate(
        LookedUp(images, texts),
        batches,
        tokenizer_of(prompts),
        names,
        [template.replace("{}", "{c}") for template in TEMPLATES],
        "cpu",
        amp=False,
    )
    return ours, theirs, NAMES["zero_shot"][1]


def compared_multi_label(rng):
    """(ours, CLIP_benchmark's) mean average precision; the last class has no image."""
    scores = rng.standard_normal((IMAGES, CLASSES)).astype(np.float32)
    truth = (scores + 2 * rng.standard_normal(scores.shape)) > 1.0
    truth[:, -1] = False
    names = [str(c) for c in range(CLASSES)]
    classes = Classes("classes", names, np.arange(0), {}, ("{}",))
    ours = multi_label(scores, truth, classes, lambda prompts: np.eye(CLASSES))
    each = zeroshot_classification.average_precision_per_class(
        torch.from_numpy(scores), torch.from_numpy(truth)
    )
    name = "zero_shot_mean_average_precision"
    theirs = {"mean_average_precision": each.mean().item()}
    return ours, theirs, {name: NAMES["zero_shot"][1][name]}


class Batches:
    """A data loader of numbers and labels in batches of 50."""

    def __init__(self, numbers, labels, names):
        self.numbers, self.labels = torch.from_numpy(numbers), torch.from_numpy(labels)
        self.dataset = types.SimpleNamespace(classes=names)

    def __iter__(self):
        yield from zip(self.numbers.split(50), self.labels.split(50), strict=True)

    def __len__(self):
        return -(-len(self.numbers) // 50)


def compared_retrieval(rng):
    """(ours, CLIP_benchmark's) of retrieval with five captions an image."""
    texts = unit(rng.standard_normal((IMAGES * CAPTIONS, WIDTH)))
    owned = np.arange(IMAGES * CAPTIONS).reshape(IMAGES, CAPTIONS)
    images = unit(texts[owned].mean(axis=1) + 0.08 * rng.standard_normal((IMAGES, WIDTH)))
    data = types.SimpleNamespace(
        captions_of_image=owned.tolist(),
        images_of_caption=[[image] for image in range(IMAGES) for _ in range(CAPTIONS)],
    )
    words = [str(number) for number in range(len(texts))]
    batches = [
        (torch.arange(start, start + 50), [[words[t] for t in own] for own in owned[start:][:50]])
        for start in range(0, IMAGES, 50)
    ]
    theirs = zeroshot_retrieval.evaluate(
        LookedUp(images, texts), batches, tokenizer_of(words), "cpu", False, [1, 5, 10]
    )
    ours = retrieval(images, texts, data, merge_equal_captions=False)
    return ours, theirs, NAMES["retrieval"][1]


def compared_pairs(rng):
    """(ours, CLIP_benchmark's) of Winoground's protocol."""
    texts = unit(rng.standard_normal((IMAGES, WIDTH)))
    images = unit(texts + 0.3 * rng.standard_normal((IMAGES, WIDTH)))
    words = [str(number) for number in range(IMAGES)]
    pairs = np.arange(IMAGES).reshape(-1, 2)
    data = types.SimpleNamespace(captions=words, captions_of_image=[[i] for i in range(IMAGES)])

    def score(asked):
        return np.array([images[i] @ texts[int(text)] for i, text in asked])

    text, image, group = winoground(data, pairs, score)
    ours = {
        "composition_text_score": text.mean(),
        "composition_image_score": image.mean(),
        "composition_group_score": group.mean(),
    }
    batches = [
        (torch.from_numpy(pair).reshape(1, 2, 1, 1, 1), [[words[i] for i in pair]])
        for pair in pairs
    ]
    theirs = image_caption_selection.evaluate(
        LookedUp(images, texts), batches, tokenizer_of(words), "cpu", amp=False
    )
    return ours, theirs, {k: v for k, v in NAMES["composition"][1].items() if k in ours}


def compared_probe(rng):
    """(ours, scikit-learn's) accuracies of logistic regression, and the largest difference of a
    probability."""
    labels = np.resize(np.arange(CLASSES), IMAGES)
    features = rng.standard_normal((IMAGES, WIDTH)) + 1.5 * np.eye(WIDTH)[labels]
    train, test = slice(0, 400), slice(400, None)
    ours, theirs = {}, {}
    for penalty in (0.01, 1.0, 100.0):
        found = fit(features[train], labels[train], CLASSES, penalty, tolerance=1e-9)
        reference = LogisticRegression(C=1 / penalty, tol=1e-10, max_iter=20_000)
        reference.fit(features[train], labels[train])
        expected = reference.predict_proba(features[test])
        probabilities = np.exp(found.scores(features[test]))
        name = f"accuracy, L2 {penalty:g}"
        ours[name] = (probabilities.argmax(axis=1) == labels[test]).mean()
        theirs[name] = (expected.argmax(axis=1) == labels[test]).mean()
        name = f"largest probability error, L2 {penalty:g}"
        ours[name], theirs[name] = np.abs(probabilities - expected).max(), 0.0
    return ours, theirs, {name: name for name in ours}


def main():
    """Prints the table, and fails where a figure differs by more than 1e-6, of probes 1e-4."""
    rng, worst = np.random.default_rng(0), 0.0
    print(f"{'metric':40} {'ours':>12} {'reference':>12} {'difference':>12}")
    for compare, limit in (
        (compared_zero_shot, 1e-6),
        (compared_retrieval, 1e-6),
        (compared_multi_label, 1e-6),
        (compared_pairs, 1e-6),
        (compared_probe, 1e-4),
    ):
        ours, theirs, names = compare(rng)
        for here, there in names.items():
            if here in ours and there in theirs:
                difference = abs(ours[here] - theirs[there])
                worst = max(worst, difference / limit)
                print(f"{there:40} {ours[here]:12.6f} {theirs[there]:12.6f} {difference:12.1e}")
    print(f"largest difference: {worst:.2g} of what is allowed")
    return worst > 1.0


if __name__ == "__main__":
    raise SystemExit(main())
