"""A model in Python: embeddings, similarities, captions, answers and matching probabilities."""

import dataclasses
import functools
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from PIL import Image

from vlp_jax.data.preprocessor import Preprocessor
from vlp_jax.data.targets import Targets
from vlp_jax.errors import ConfigError
from vlp_jax.evaluators.predictor import Predictor
from vlp_jax.evaluators.supervised import SupervisedHead
from vlp_jax.evaluators.text_generator import TextGenerator, words
from vlp_jax.models.decoder.generation import BeamSearch
from vlp_jax.objectives.pretraining_module import PretrainingModule
from vlp_jax.sharding.layout import Layout
from vlp_jax.sharding.mesh import MeshConfig, build_mesh
from vlp_jax.sharding.rules import build_layout
from vlp_jax.training.evaluation import build_heads, build_predictor, build_text_generator

if TYPE_CHECKING:
    from vlp_jax.experiment import Experiment

ImageLike = Image.Image | np.ndarray | bytes | str | os.PathLike


@dataclasses.dataclass(frozen=True)
class Model:
    """A Linen module with the config and preprocessor that it was trained with, without parameters.

    Methods other than `embed` take images and texts as they are: Pillow images, arrays, encoded
    bytes or paths, and strings. They preprocess, work in batches of one shape, and are compiled at
    their first use.

    Attributes:
      module: a `PretrainingModule`, whose `model` is the `VisionLanguageModel`.
      config: the config of the run.
      preprocessor: its preprocessor.
      targets: the targets that it was trained to predict; None where there are none.
      layout: over which its variables are sharded; None: the first device.
    """

    module: PretrainingModule
    config: "Experiment"
    preprocessor: Preprocessor
    targets: Targets | None = dataclasses.field(default=None, compare=False)
    layout: Layout | None = dataclasses.field(default=None, compare=False)

    def embed(
        self,
        params: dict,
        image: jax.Array | np.ndarray | None = None,
        text: jax.Array | np.ndarray | None = None,
        text_mask: jax.Array | np.ndarray | None = None,
    ) -> tuple[jax.Array | None, jax.Array | None]:
        """Embeddings of one batch of images and texts, as unit vectors.

        Args:
          params: the variables as returned by `load`.
          image: float [B, H, W, 3], as from the preprocessor.
          text: int [B, L], as from the preprocessor.
          text_mask: bool [B, L]. Default: derived from the ids by the tokenizer's rule.
        Returns: (image_embeddings, text_embeddings), each float32 [B, E], None for what is not
          given.
        Raises:
          ValueError: images of another size.
        """
        if text is not None and text_mask is None:
            text_mask = self.preprocessor.tokenizer.mask_of(np.asarray(text))
        return _embed(self.module, params, image, text, text_mask)

    def embed_images(
        self, params: dict, images: Sequence[ImageLike], *, batch_size: int = 64
    ) -> np.ndarray:
        """Unit vectors float32 [N, E] of any number of images.

        Raises:
          DataError: an image cannot be read.
        """
        pixels = (self.preprocessor.pixels(image) for image in images)
        return self._predictor.images(params, pixels, min(batch_size, len(images)))

    def embed_texts(
        self, params: dict, texts: Sequence[str], *, batch_size: int = 256
    ) -> np.ndarray:
        """Unit vectors float32 [N, E] of any number of texts."""
        return self._predictor.texts(params, texts, min(batch_size, len(texts)))

    def similarity(
        self, params: dict, images: Sequence[ImageLike], texts: Sequence[str]
    ) -> np.ndarray:
        """Cosine similarities float32 [N, M] of N images and M texts."""
        return self.embed_images(params, images) @ self.embed_texts(params, texts).T

    def caption(
        self,
        params: dict,
        images: Sequence[ImageLike],
        *,
        num_beams: int = 1,
        length_penalty: float = 1.0,
        batch_size: int = 32,
    ) -> list[str]:
        """A generated caption of each image.

        Args:
          params: the variables as returned by `load`.
          images: N images.
          num_beams: number of beams; 1: greedy.
          length_penalty: as in transformers' `generate`.
          batch_size: images per batch.
        Raises:
          ConfigError: the model has no decoder that was trained to caption.
        """
        if not any(objective.kind == "captioning" for objective in self.config.objectives.values()):
            raise ConfigError("caption: the model has no objective of kind 'captioning'")
        search, found = BeamSearch(num_beams=num_beams, length_penalty=length_penalty), []
        for start in range(0, len(images), batch_size):
            rows = images[start : start + batch_size]
            pixels = [self.preprocessor.pixels(image) for image in rows]
            filled = pixels + [pixels[-1]] * (min(batch_size, len(images)) - len(pixels))
            found += self._text_generator.captions(params, filled, search)[: len(rows)]
        return found

    def match(
        self,
        params: dict,
        images: Sequence[ImageLike],
        texts: Sequence[str],
        *,
        batch_size: int = 32,
    ) -> np.ndarray:
        """The probability that text i describes image i, float32 [N], by the matching head.

        Raises:
          ConfigError: the model has no matching head.
          ValueError: there are not as many texts as images.
        """
        if not any("matching" in objective.tasks for objective in self.config.objectives.values()):
            raise ConfigError("match: the model has no objective of kind 'matching'")
        logits = self._pairs(self._predictor, params, images, texts, batch_size)
        return np.asarray(jax.nn.softmax(logits, axis=-1))[:, 1]

    def answer(
        self,
        params: dict,
        images: Sequence[ImageLike],
        questions: Sequence[str],
        *,
        num_beams: int = 1,
        length_penalty: float = 1.0,
        batch_size: int = 32,
    ) -> list[str]:
        """The answer to question i about image i: generated, or the most probable of the classes.

        Args:
          params: the variables as returned by `load`.
          images, questions: N each.
          num_beams, length_penalty: of generation, as in `caption`.
          batch_size: pairs per batch.
        Raises:
          ConfigError: the model has no objective that answers.
          ValueError: there are not as many questions as images.
        """
        heads = self._heads.values()
        writing = next((head for head in heads if head.writer is not None), None)
        if writing is not None and writing.writer is not None:
            search = BeamSearch(num_beams=num_beams, length_penalty=length_penalty)
            predictor = writing.writer(search)
            rows = self._pairs(predictor, params, images, questions, batch_size)
            tokenizer = self.preprocessor.tokenizer
            _, end, padding = tokenizer.special_ids
            return [words(tokenizer.backend.decode, row, {*end, padding}) for row in rows.tolist()]
        choosing = next((head for head in heads if "classification" in head.tasks), None)
        if choosing is None:
            raise ConfigError(
                "answer: the model has no objective of kind 'answering' or 'classification'"
            )
        scores = self._pairs(choosing.predictor, params, images, questions, batch_size)
        classes = choosing.targets.classes[choosing.target]
        return [str(classes[best]) for best in scores.argmax(axis=1)]

    def _pairs(
        self,
        predictor: Predictor,
        params: dict,
        images: Sequence[ImageLike],
        texts: Sequence[str],
        batch_size: int,
    ) -> np.ndarray:
        """`Predictor.pairs` of images and texts."""
        if len(images) != len(texts):
            raise ValueError(
                f"expected as many texts as images, got {len(texts)} and {len(images)}"
            )
        if self.preprocessor.boxes is not None or self.preprocessor.dependencies is not None:
            raise ConfigError(
                "the model reads boxes or parses of each sample; use vlp_jax.run_evaluation"
            )
        rows: list[Mapping[str, Any]] = [
            {"image": self.preprocessor.pixels(image), "text": text}
            for image, text in zip(images, texts, strict=True)
        ]
        return predictor.pairs(params, rows, min(batch_size, len(rows)))

    @functools.cached_property
    def _layout(self) -> Layout:
        """The layout of the variables."""
        if self.layout is not None:
            return self.layout
        mesh = MeshConfig(data=1)
        return build_layout(mesh, build_mesh(mesh, jax.local_devices()[:1]))

    @functools.cached_property
    def _predictor(self) -> Predictor:
        """The towers and the matching head, compiled at their first use."""
        return build_predictor(self.module, self.preprocessor, self._layout)

    @functools.cached_property
    def _text_generator(self) -> TextGenerator:
        """The decoder, compiled at its first use."""
        return build_text_generator(self.module, self._predictor, self._layout)

    @functools.cached_property
    def _heads(self) -> dict[str, SupervisedHead]:
        """The heads of supervised objectives, by name."""
        if self.targets is None:
            return {}
        return build_heads(self.module, self._predictor, self.targets, self._layout)


@functools.partial(jax.jit, static_argnums=0)
def _embed(module: PretrainingModule, variables: dict, image, text, mask):
    return module.apply(variables, image, text, mask, method="embed")
