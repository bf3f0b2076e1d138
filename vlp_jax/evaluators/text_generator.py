"""Evaluation of a model's decoder: its loss on true captions, and its generated captions."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import numpy as np

from vlp_jax.data.images.preprocessing import normalise
from vlp_jax.distributed.exchange import wait_on_cpu
from vlp_jax.evaluators.predictor import Predictor
from vlp_jax.evaluators.shares import Share
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

    def token_losses(
        self, variables: Any, batches: Iterable[tuple[Share, list[tuple[np.ndarray, str]]]]
    ) -> tuple[np.ndarray, np.ndarray]:
        """The sum of -log p over the tokens of each caption, and their number, teacher-forced.

        Args:
          variables: the model's variables.
          batches: (pixels, caption) pairs, of which each host passes its share.
        Returns: float64 [N] and int [N].
        """
        found = []
        for share, rows in batches:
            ids, mask, _ = self.predictor.preprocessor.tokenizer([caption for _, caption in rows])
            arrays = [np.stack([pixels for pixels, _ in rows]), ids, mask]
            parts = wait_on_cpu(self.losses(variables, *map(share.place, arrays)))
            found.append([np.asarray(part)[: share.count] for part in parts])
        sums, counts = (np.concatenate(parts) for parts in zip(*found, strict=True))
        return sums.astype(np.float64), counts

    def captions(
        self, variables: Any, pixels: Sequence[np.ndarray], search: BeamSearch = BeamSearch()
    ) -> list[str]:
        """The caption generated for each image."""
        arrays = [np.stack(pixels), self.starts(len(pixels))]
        written = self.write(variables, *self.predictor.place(arrays, len(pixels)), search)
        return self.read(np.asarray(wait_on_cpu(written))[: len(pixels)])

    def batched_captions(
        self,
        variables: Any,
        batches: Iterable[tuple[Share, list[np.ndarray]]],
        search: BeamSearch = BeamSearch(),
    ) -> list[str]:
        """The caption generated for each image of some batches, of which each host passes its
        share."""
        found: list[str] = []
        for share, rows in batches:
            arrays = [np.stack(rows), self.starts(len(rows))]
            written = self.write(variables, *map(share.place, arrays), search)
            found += self.read(np.asarray(wait_on_cpu(written))[: share.count])
        return found

    def starts(self, count: int) -> np.ndarray:
        """The first token of each text, int32 [count]."""
        start, _, padding = self.predictor.preprocessor.tokenizer.special_ids
        return np.full(count, (start or [padding])[0], np.int32)

    def read(self, written: np.ndarray) -> list[str]:
        """The texts of generated tokens, int [N, length]."""
        tokenizer = self.predictor.preprocessor.tokenizer
        _, end, padding = tokenizer.special_ids
        last = {*end, padding}
        return [words(tokenizer.backend.decode, row, last) for row in written.tolist()]


def words(decode: Callable[[Sequence[int]], str], row: Sequence[int], last: set[int]) -> str:
    """The text of the tokens before the first of `last`."""
    ends = [place for place, token in enumerate(row) if token in last]
    return " ".join(decode(row[: ends[0]] if ends else row).split())
