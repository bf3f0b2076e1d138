"""Metrics of n-grams of captions: BLEU (Papineni et al. 2002), ROUGE-L (Lin 2004) and CIDEr
(Vedantam et al. 2015), as pycocoevalcap computes them."""

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

Tokens = Sequence[str]
Counts = Mapping[tuple[str, ...], int]
LONGEST = 4  # words of the longest n-grams


def ngrams(tokens: Tokens, longest: int = LONGEST) -> Counter[tuple[str, ...]]:
    """How often each sequence of 1 to `longest` tokens occurs."""
    return Counter(
        tuple(tokens[place : place + length])
        for length in range(1, longest + 1)
        for place in range(len(tokens) - length + 1)
    )


def bleu(candidates: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> np.ndarray:
    """BLEU-1 to BLEU-4 of a corpus.

    The length of reference is the one closest to the candidate's, the shorter of two; with a single
    image it is the mean, as in pycocoevalcap. Counts get pycocoevalcap's 1e-15 and 1e-9.

    Args:
      candidates: the tokens of the caption of each image.
      references: the tokens of the true captions of each image.

    Returns: [4], float64, in [0, 1].
    """
    right, made, length, true_length = np.zeros(LONGEST), np.zeros(LONGEST), 0, 0.0
    for candidate, captions in zip(candidates, references, strict=True):
        highest: Counter[tuple[str, ...]] = Counter()
        for caption in captions:
            highest |= ngrams(caption)
        for ngram, count in ngrams(candidate).items():
            right[len(ngram) - 1] += min(count, highest[ngram])
        made += np.maximum(len(candidate) - np.arange(LONGEST), 0)
        length += len(candidate)
        lengths = [len(caption) for caption in captions]
        true_length += (
            float(np.mean(lengths))
            if len(candidates) == 1
            else min(lengths, key=lambda other: (abs(other - len(candidate)), other))
        )
    precision = np.cumprod((right + 1e-15) / (made + 1e-9)) ** (1 / np.arange(1, LONGEST + 1))
    ratio = (length + 1e-15) / (true_length + 1e-9)
    return precision * (np.exp(1 - 1 / ratio) if ratio < 1 else 1.0)


def common_subsequence(first: Tokens, second: Tokens) -> int:
    """Length of the longest common subsequence of two texts."""
    row = [0] * (len(second) + 1)
    for word in first:
        previous = 0
        for place, other in enumerate(second, 1):
            previous, row[place] = (
                row[place],
                previous + 1 if word == other else max(row[place], row[place - 1]),
            )
    return row[-1]


def rouge_l(candidate: Tokens, references: Sequence[Tokens], beta: float = 1.2) -> float:
    """ROUGE-L of a caption: F of the highest precision and the highest recall over the references.

    Args:
      candidate: the tokens of the caption.
      references: the tokens of the true captions.
      beta: weight of recall.
    """
    pairs = []
    for reference in references:
        common = common_subsequence(reference, candidate)
        pairs.append((common / max(len(candidate), 1), common / max(len(reference), 1)))
    precision, recall = (max(values) for values in zip(*pairs, strict=True))
    if precision == 0 or recall == 0:
        return 0.0
    return (1 + beta**2) * precision * recall / (recall + beta**2 * precision)


def cider(
    candidates: Sequence[Tokens],
    references: Sequence[Sequence[Tokens]],
    clipped: bool = True,
    sigma: float = 6.0,
) -> np.ndarray:
    """CIDEr of each caption, with the document frequencies of the references.

    Args:
      candidates: the tokens of the caption of each image.
      references: the tokens of the true captions of each image.
      clipped: CIDEr-D, which pycocoevalcap's `Cider` and papers call CIDEr: weights of the
        candidate are clipped to the reference's, and a Gaussian of the difference of the lengths
        is a factor. Without it, equations 1 to 3 of the paper.
      sigma: standard deviation of the Gaussian.

    Returns: [N], float64, in [0, 10].
    """
    true = [[ngrams(caption) for caption in captions] for captions in references]
    found = Counter(itertools.chain.from_iterable(set().union(*counts) for counts in true))
    images = np.log(float(len(true)))
    idf = {ngram: images - np.log(count) for ngram, count in found.items()}
    vectors = [[Vector(counts, idf, images) for counts in captions] for captions in true]
    scores = []
    for tokens, others in zip(candidates, vectors, strict=True):
        said = Vector(ngrams(tokens), idf, images)
        similarity = [said.similarity(other, clipped, sigma) for other in others]
        scores.append(10 * float(np.mean(similarity)))
    return np.array(scores)


class Vector:
    """The tf-idf weights of a text's n-grams.

    Args:
      counts: how often each n-gram occurs in the text.
      idf: the inverse document frequency of n-grams of references.
      unseen: that of others.

    Attributes:
      weights: {n-gram: weight} for each length.
      norms: [4], the Euclidean norms of the weights of each length.
      length: number of pairs of adjacent words, pycocoevalcap's measure of length.
    """

    def __init__(self, counts: Counts, idf: Mapping[tuple[str, ...], float], unseen: float):
        self.weights: list[dict[tuple[str, ...], float]] = [{} for _ in range(LONGEST)]
        for ngram, count in counts.items():
            self.weights[len(ngram) - 1][ngram] = count * idf.get(ngram, unseen)
        self.norms = np.array(
            [np.sqrt(sum(value**2 for value in each.values())) for each in self.weights]
        )
        self.length = sum(count for ngram, count in counts.items() if len(ngram) == 2)

    def similarity(self, other: "Vector", clipped: bool, sigma: float) -> float:
        """Mean over the lengths of n-grams of the cosine similarity to a reference."""
        products = np.zeros(LONGEST)
        for place, (said, true) in enumerate(zip(self.weights, other.weights, strict=True)):
            for ngram, weight in said.items():
                if ngram in true:
                    least = min(weight, true[ngram]) if clipped else weight
                    products[place] += least * true[ngram]
        norms = self.norms * other.norms
        cosines = products / np.where(norms > 0, norms, 1.0)
        penalty = np.exp(-((self.length - other.length) ** 2) / (2 * sigma**2)) if clipped else 1.0
        return float((cosines * penalty).mean())
