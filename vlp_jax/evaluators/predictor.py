"""Embedding of complete sets, every item exactly once, for any batch size and any devices."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from einops import repeat
from jax.sharding import AbstractMesh, Mesh

from vlp_jax.data.images.preprocessing import normalise
from vlp_jax.data.preprocessor import Preprocessor
from vlp_jax.distributed.exchange import wait_on_cpu
from vlp_jax.evaluators.shares import Share, padded_size
from vlp_jax.sharding.mesh import batch_sharding, replicated

if TYPE_CHECKING:
    from vlp_jax.evaluators.pair_encoder import PairEncoder


class Predictor:
    """Runs the two towers of a model over any number of images or captions, or over pairs of both.

    Args:
      embed: `embed(variables, image, text, mask) -> (image_embeddings, text_embeddings)`, None for
        what is not given.
      preprocessor: the model's preprocessor.
      mesh: the devices.
      match: `match(variables, batch) -> [B, 2]`, scores of pairs; None where no evaluator needs
        them.
      outputs: further outputs of the image tower by name, `output(variables, image) -> [B, ...]`.
      pair_encoder: the towers and the matching head apart; None: `match` runs them together.
    """

    def __init__(
        self,
        embed: Callable,
        preprocessor: Preprocessor,
        mesh: Mesh | AbstractMesh,
        match: Callable | None = None,
        outputs: Mapping[str, Callable] | None = None,
        pair_encoder: "PairEncoder | None" = None,
    ):
        self.pair_encoder = pair_encoder
        self.embed, self.preprocessor, self.mesh = embed, preprocessor, mesh
        images = preprocessor.images

        def of_image(output: Callable) -> Callable:
            def image_batch(variables, pixels):
                return output(variables, normalise(pixels, images.mean, images.std))

            return jax.jit(image_batch, out_shardings=replicated(mesh))

        def embedding(variables, image):
            return embed(variables, image, None, None)[0]

        def text_batch(variables, text, mask):
            return embed(variables, None, text, mask)[1]

        def pair_batch(variables, batch):
            assert match is not None
            return match(
                variables, {**batch, "image": normalise(batch["image"], images.mean, images.std)}
            )

        self.pair_batch = jax.jit(pair_batch, out_shardings=replicated(mesh))
        self.image_batch = {
            name: of_image(output)
            for name, output in {"embedding": embedding, **(outputs or {})}.items()
        }
        self.text_batch = jax.jit(text_batch, out_shardings=replicated(mesh))

    def images(
        self,
        variables: Any,
        pixels: Iterable[np.ndarray],
        batch_size: int,
        output: str = "embedding",
    ) -> np.ndarray:
        """Embeddings float32 [N, E] of images, uint8 [H, W, 3], or another output of the tower."""
        run = self.image_batch[output]
        return self.batched(
            lambda rows: run(variables, *self.place([np.stack(rows)], batch_size)),
            pixels,
            batch_size,
        )

    def texts(self, variables: Any, captions: Iterable[str], batch_size: int) -> np.ndarray:
        """Embeddings float32 [N, E] of captions."""

        def embed(rows):
            ids, mask, _ = self.preprocessor.tokenizer(rows)
            return self.text_batch(variables, *self.place([ids, mask], batch_size))

        return self.batched(embed, captions, batch_size)

    def pairs(
        self, variables: Any, pairs: Iterable[Mapping[str, Any]], batch_size: int
    ) -> np.ndarray:
        """Scores float32 [N, 2] of pairs, given as rows of `EvaluationSet.pairs`."""

        def match(rows):
            batch = self.pair_arrays(rows)
            return self.pair_batch(
                variables, dict(zip(batch, self.place([*batch.values()], batch_size), strict=True))
            )

        return self.batched(match, pairs, batch_size)

    def pair_arrays(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
        """The arrays of rows of `EvaluationSet.pairs`."""
        batch = {
            name: np.stack([row[name] for row in rows])
            for name in ("image", "boxes")
            if name in rows[0]
        }
        return batch | self.preprocessor.words_of(rows)

    def shared_images(
        self, variables: Any, rows: Sequence[np.ndarray], share: Share, output: str = "embedding"
    ) -> np.ndarray:
        """`images` of one batch, of which each host passes the pixels of its share."""
        found = self.image_batch[output](variables, share.place(np.stack(rows)))
        return np.asarray(wait_on_cpu(found))[: share.count]

    def shared_pairs(
        self, variables: Any, rows: Sequence[Mapping[str, Any]], share: Share
    ) -> np.ndarray:
        """`pairs` of one batch, of which each host passes the rows of its share."""
        batch = {name: share.place(values) for name, values in self.pair_arrays(rows).items()}
        return np.asarray(wait_on_cpu(self.pair_batch(variables, batch)))[: share.count]

    def batched(self, embed: Callable, items: Iterable, batch_size: int) -> np.ndarray:
        """Embeds `items` in batches, without the rows that `place` adds as padding."""
        embedded = [wait_on_cpu(embed(rows))[: len(rows)] for rows in batches(items, batch_size)]
        return np.concatenate([np.asarray(batch) for batch in embedded])

    def place(self, arrays: list[np.ndarray], batch_size: int) -> list[jax.Array]:
        """Host arrays on the mesh, padded to one shape with copies of their last row.

        Every process passes all rows.
        """
        size = padded_size(self.mesh, batch_size)
        placed: list[jax.Array] = []
        for array in arrays:
            filler = repeat(array[-1:], "1 ... -> n ...", n=size - len(array))
            whole = np.concatenate([array, filler])
            placed.append(
                jax.make_array_from_callback(
                    whole.shape, batch_sharding(self.mesh), whole.__getitem__
                )
            )
        return placed


def batches(items: Iterable, size: int) -> Iterator[list]:
    """Lists of `size` items in order; the last one may be shorter."""
    rows = []
    for item in items:
        rows.append(item)
        if len(rows) == size:
            yield rows
            rows = []
    if rows:
        yield rows
