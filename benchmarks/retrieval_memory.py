"""Peak host memory and time of retrieval metrics over many synthetic embeddings.

python benchmarks/retrieval_memory.py [--images=50000] [--captions=5] [--dim=512]
  makes random unit vectors, with as many noisy captions of each image, computes the metrics of
  both directions, and compares the ranks of some queries with a sort of all similarities.
"""

import argparse
import resource
import time
import types

import numpy as np

from vlp_jax.evaluators.retrieval import retrieval
from vlp_jax.metrics.ranking import ranks

CHECKED = 200  # queries of each direction that are sorted, too


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--captions", type=int, default=5, help="of each image")
    parser.add_argument("--dim", type=int, default=512)
    given = parser.parse_args()
    images, texts = embeddings(given.images, given.captions, given.dim)
    own = np.arange(len(texts)).reshape(given.images, given.captions)
    of_text = np.arange(len(texts)) // given.captions
    print(f"{len(images)} images, {len(texts)} captions, {given.dim} dimensions")
    print(f"embeddings: {(images.nbytes + texts.nbytes) / 2**30:.2f} GiB")
    start = time.monotonic()
    data = types.SimpleNamespace(
        captions_of_image=own.tolist(), images_of_caption=of_text[:, None].tolist()
    )
    results = retrieval(images, texts, data, merge_equal_captions=False)
    for name, value in results.items():
        print(f"{name:28} {value:.6g}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(f"peak {peak / 2**30:.2f} GiB, {time.monotonic() - start:.0f} s")
    chosen = np.random.default_rng(1).choice(len(images), CHECKED, replace=False)
    ways = ((images, texts, own), (texts, images, of_text[:, None]))
    same = [agrees(queries[chosen], found, positives[chosen]) for queries, found, positives in ways]
    print(f"ranks of {CHECKED} queries equal those of a sort: {all(same)}")


def embeddings(images: int, captions: int, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors float32 of images and captions, made in parts."""
    rng = np.random.default_rng(0)
    found, texts = (np.empty((count, dim), np.float32) for count in (images, images * captions))
    for start in range(0, images, 1000):
        part = rng.normal(size=(min(1000, images - start), dim)).astype(np.float32)
        noisy = part[:, None] + 4 * rng.normal(size=(len(part), captions, dim)).astype(np.float32)
        found[start : start + len(part)] = unit(part)
        first = start * captions
        texts[first : first + len(part) * captions] = unit(noisy).reshape(-1, dim)
    return found, texts


def unit(vectors: np.ndarray) -> np.ndarray:
    """The vectors with length 1."""
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def agrees(queries: np.ndarray, candidates: np.ndarray, positives: np.ndarray) -> bool:
    """Whether ranks are those of a sort of all similarities, computed at once."""
    order = np.argsort(-(queries.astype(np.float64) @ candidates.T.astype(np.float64)), axis=1)
    sorted_ranks = [
        1 + int(np.flatnonzero(np.isin(row, own))[0])
        for row, own in zip(order, positives, strict=True)
    ]
    return sorted_ranks == ranks(queries, candidates, positives.tolist()).tolist()


if __name__ == "__main__":
    main()
