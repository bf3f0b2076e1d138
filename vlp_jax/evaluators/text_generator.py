"""Evaluation of a model's decoder: its loss on true captions, and its generated captions."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import numpy as np

from vlp_jax.data.images.preprocessing import normalise
from vlp_jax.distributed.exchange import wait_on_cpu
from vlp_jax.evaluators.predictor import Predictor, batches
from vlp_jax.models.decoder.generation import BeamSearch
from vlp_jax.sharding.mesh import replicated


class TextGenerator:
    """The decoder of a model, run over any number of images and captions.

    Args:
      losses: `losses(variables, image, text, mask) -> (sums [B], counts [B])`, over the predicted
        tokens of each caption.
      write: `write(variables, image, start [B], search) -> int32 [B, length]`, tokens up to an end
        token.
      predictor: its preprocessor and mesh are used for batches.
    """

    def __init__(self, losses: Callable, write: Callable, predictor: Predictor):
        self.predictor, images = predictor, predictor.preprocessor.images

        def prepared(function, **options):
            def run(variables, pixels, *others):
                return function(variables, normalise(pixels, images.mean, images.std), *others)

            return jax.jit(run, out_shardings=replicated(predictor.mesh), **options)

        self.losses, self.write = prepared(losses), prepared(write, static_argnums=3)

    def caption_loss(
        self, variables: Any, pairs: Iterable[tuple[np.ndarray, str]], batch_size: int
    ) -> float:
        """Mean of -log p over all tokens of the captions of (pixels, caption) pairs,
        teacher-forced."""
        total, count = 0.0, 0
        for rows in batches(pairs, batch_size):
            ids, mask, _ = self.predictor.preprocessor.tokenizer([caption for _, caption in rows])
            arrays = self.predictor.place(
                [np.stack([pixels for pixels, _ in rows]), ids, mask], batch_size
            )
            sums, counts = (
                np.asarray(x)[: len(rows)] for x in wait_on_cpu(self.losses(variables, *arrays))
            )
            total, count = total + float(sums.sum(dtype=np.float64)), count + int(counts.sum())
        return total / max(count, 1)

    def captions(
        self, variables: Any, pixels: Sequence[np.ndarray], search: BeamSearch = BeamSearch()
    ) -> list[str]:
        """The caption generated for each image."""
        tokenizer = self.predictor.preprocessor.tokenizer
        start, end, padding = tokenizer.special_ids
        first = np.full(len(pixels), (start or [padding])[0], np.int32)
        written = wait_on_cpu(
            self.write(
                variables, *self.predictor.place([np.stack(pixels), first], len(pixels)), search
            )
        )
        return [
            words(tokenizer.backend.decode, row, {*end, padding})
            for row in np.asarray(written)[: len(pixels)].tolist()
        ]

    def batched_captions(
        self,
        variables: Any,
        pixels: Iterable[np.ndarray],
        batch_size: int,
        search: BeamSearch = BeamSearch(),
    ) -> list[str]:
        """`captions` of any number of images; the last batch is filled with its last image."""
        found: list[str] = []
        for rows in batches(pixels, batch_size):
            filled = [*rows, *[rows[-1]] * (batch_size - len(rows))]
            found += self.captions(variables, filled, search)[: len(rows)]
        return found


def words(decode: Callable[[Sequence[int]], str], row: Sequence[int], last: set[int]) -> str:
    """The text of the tokens before the first of `last`."""
    ends = [place for place, token in enumerate(row) if token in last]
    return " ".join(decode(row[: ends[0]] if ends else row).split())
