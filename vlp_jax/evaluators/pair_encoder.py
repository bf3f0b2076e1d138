"""Matching scores of many pairs of a set, for which each tower runs once an image and a caption."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AbstractMesh, Mesh

from vlp_jax.data.images.preprocessing import normalise
from vlp_jax.data.preprocessor import Preprocessor
from vlp_jax.distributed.exchange import wait_on_cpu
from vlp_jax.evaluators.predictor import batches
from vlp_jax.evaluators.shares import Share, shares_of
from vlp_jax.sharding.mesh import replicated

if TYPE_CHECKING:
    from vlp_jax.evaluators.context import TaskContext
    from vlp_jax.evaluators.evaluation_set import EvaluationSet

HELD = 1 << 30  # bytes of the encodings of captions that are held at a time


class PairEncoder:
    """Runs the towers of a model, and its fusion and matching head on pairs of their encodings.

    Args:
      encode: `encode(variables, batch) -> Encoding`, of the images of a batch with `image`, else of
        its texts.
      match: `match(variables, image, text) -> [B, 2]`, scores of pairs of Encodings.
      preprocessor: the model's preprocessor.
      mesh: the devices.
    """

    def __init__(
        self,
        encode: Callable,
        match: Callable,
        preprocessor: Preprocessor,
        mesh: Mesh | AbstractMesh,
    ):
        images = preprocessor.images

        def image_batch(variables, batch):
            pixels = normalise(batch["image"], images.mean, images.std)
            return encode(variables, {**batch, "image": pixels})

        def pair_batch(variables, image, places, text):
            chosen = jax.tree.map(lambda x: jnp.take(x, places, axis=0), image)
            return match(variables, chosen, text)

        everywhere = replicated(mesh)
        self.image_batch = jax.jit(image_batch, out_shardings=everywhere)
        self.text_batch = jax.jit(encode, out_shardings=everywhere)
        self.pair_batch = jax.jit(pair_batch, out_shardings=everywhere)

    def images(self, variables: Any, rows: Sequence[Mapping[str, Any]], share: Share) -> Any:
        """The Encodings of a batch of images, of which each host passes the rows of its share (see
        `Preprocessor.picture_of`), on all devices."""
        arrays = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
        batch = {name: share.place(values) for name, values in arrays.items()}
        return wait_on_cpu(self.image_batch(variables, batch))

    def pairs(
        self, variables: Any, images: Any, places: np.ndarray, texts: Any, share: Share
    ) -> np.ndarray:
        """Scores float32 [N, 2] of a batch of pairs, of which each host passes its share.

        Args:
          variables: the model's.
          images: the result of `images`.
          places: int [n], the index of each pair's image in it.
          texts: Encodings [n, ...] of each pair's text, as NumPy arrays.
          share: the share.
        """
        placed = jax.tree.map(share.place, texts)
        scores = self.pair_batch(variables, images, share.place(places), placed)
        return np.asarray(wait_on_cpu(scores))[: share.count]


@dataclasses.dataclass(frozen=True)
class PairScores:
    """The matching logits of pairs of a set.

    The encodings of captions are held on the host, `held` bytes of them at a time, and those of a
    batch of images on the devices. The image tower runs once an image, or more often where not all
    captions are held together.

    Attributes:
      context: the model, and the batch size.
      data: the set.
      encoder: the model's parts.
      held: bytes.
    """

    context: "TaskContext"
    data: "EvaluationSet"
    encoder: PairEncoder
    held: int = HELD

    def __call__(self, pairs: Sequence[tuple[int, str]]) -> np.ndarray:
        """The logits of (index of an image, caption) pairs, float32 [N, 2]."""
        texts = {text: number for number, text in enumerate(dict.fromkeys(t for _, t in pairs))}
        images = np.array([image for image, _ in pairs])
        columns = np.array([texts[text] for _, text in pairs])
        scores = np.zeros((len(pairs), 2), np.float32)
        start = 0
        for encoded in self.text_blocks(list(texts)):
            stop = start + len(jax.tree.leaves(encoded)[0])
            mine = np.flatnonzero((columns >= start) & (columns < stop))
            mine = mine[np.argsort(images[mine], kind="stable")]
            scores[mine] = self.of_block(images[mine], columns[mine] - start, encoded)
            start = stop
        return scores

    def text_blocks(self, texts: Sequence[str]) -> Iterator[Any]:
        """The Encodings of texts, in blocks of about `held` bytes, as NumPy arrays."""
        preprocessor, predictor = self.context.predictor.preprocessor, self.context.predictor
        parses = self.data.parses(preprocessor.dependencies)
        size, block = self.context.batch_size, []
        rows = (
            {"text": text, **({"parse": parses[text]} if parses else {})}
            for text in self.context.paced(texts)
        )
        for part in batches(rows, size):
            words = preprocessor.words_of(part)
            placed = predictor.place([*words.values()], size)
            batch = dict(zip(words, placed, strict=True))
            encoded = wait_on_cpu(self.encoder.text_batch(self.context.variables, batch))
            block.append(first_rows(encoded, len(part)))
            if sum(leaf.nbytes for leaf in jax.tree.leaves(block)) >= self.held:
                yield joined(block)
                block = []
        if block:
            yield joined(block)

    def of_block(self, images: np.ndarray, texts: np.ndarray, encoded: Any) -> np.ndarray:
        """The logits of pairs.

        Args:
          images: int [N], ascending, indices of images.
          texts: int [N], indices into `encoded`.
          encoded: Encodings of texts.
        """
        context, data = self.context, self.data
        wanted = np.unique(images)
        preprocessor = context.predictor.preprocessor

        def pictures(numbers: np.ndarray) -> Iterator[Mapping[str, Any]]:
            return data.pictures(preprocessor, context.threads, wanted[numbers].tolist())

        found, done = [], 0
        for share, rows in context.batches(len(wanted), pictures):
            held = self.encoder.images(context.variables, rows, share)
            of_batch = wanted[done : done + share.count]
            first, last = np.searchsorted(images, [of_batch[0], of_batch[-1] + 1])
            places = np.searchsorted(of_batch, images[first:last])
            found.append(self.of_images(held, places, texts[first:last], encoded))
            done += share.count
        return np.concatenate(found)

    def of_images(
        self, images: Any, places: np.ndarray, texts: np.ndarray, encoded: Any
    ) -> np.ndarray:
        """The logits of pairs of a batch of images, int [N] `places` in it, with the `texts`."""
        context, found = self.context, []
        mesh = context.predictor.mesh
        assert isinstance(mesh, Mesh)
        for share in shares_of(mesh, len(places), context.batch_size):
            context.between()
            of_share = jax.tree.map(lambda x, rows=texts[share.numbers]: x[rows], encoded)
            own = places[share.numbers].astype(np.int32)
            found.append(self.encoder.pairs(context.variables, images, own, of_share, share))
        return np.concatenate(found)


def first_rows(tree: Any, count: int) -> Any:
    """The first rows of arrays, as NumPy arrays."""
    return jax.tree.map(lambda x: np.asarray(x)[:count], tree)


def joined(trees: Sequence[Any]) -> Any:
    """The rows of all trees, one after another."""
    return jax.tree.map(lambda *parts: np.concatenate(parts), *trees)
