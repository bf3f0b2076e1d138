"""An evaluation of 41 small images, of which one is damaged, on one host or on several."""

import io

import jax.numpy as jnp
import numpy as np
from PIL import Image

from vlp_jax.data.images.preprocessing import ImagesConfig
from vlp_jax.data.preprocessor import Preprocessor
from vlp_jax.data.samples import Sample
from vlp_jax.data.text.tokenizer import TextConfig, load_tokenizer
from vlp_jax.evaluators.config import EvaluatorConfig
from vlp_jax.evaluators.context import TaskContext
from vlp_jax.evaluators.evaluation_set import EvaluationSet
from vlp_jax.evaluators.pair_encoder import PairEncoder, PairScores
from vlp_jax.evaluators.predictor import Predictor
from vlp_jax.evaluators.suite import evaluate_readable
from vlp_jax.models.layers.transformer import Encoding

IMAGES, DAMAGED, BATCH_SIZE = 41, 33, 8


class Drawings:
    """Images of one colour each."""

    spec = "memory:drawings"

    def __len__(self):
        return IMAGES

    def __getitem__(self, index):
        colour = np.random.default_rng(index).integers(0, 256, 3)
        file = io.BytesIO()
        Image.fromarray(np.full((8, 8, 3), colour, np.uint8)).save(file, "png")
        image = b"damaged" if index == DAMAGED else file.getvalue()
        return Sample(f"drawing {index}", image, (f"{index} hearts",), {})


class Counting(Preprocessor):
    """A preprocessor that counts the images that it decodes."""

    decoded = 0

    def pixels(self, picture, key=None):
        found = super().pixels(picture, key)
        Counting.decoded += 1
        return found


def measured(mesh):
    """The metrics of retrieval, the number of images decoded by this process for the last
    evaluation, and matching scores of pairs whose encodings are computed once."""
    spec = ImagesConfig(mean=(0.0,) * 3, std=(1.0,) * 3)
    preprocessor = Counting(8, spec, load_tokenizer(TextConfig(), 8, 4096))

    def embed(variables, image, text, mask):
        pooled = None if image is None else image.mean(axis=(1, 2))
        return pooled, None if text is None else jnp.cos(text[:, 1:4].astype(float))

    predictor = Predictor(embed, preprocessor, mesh)
    context = TaskContext(EvaluationSet(Drawings()), predictor, {}, BATCH_SIZE, threads=2)
    data, found = evaluate_readable(EvaluatorConfig(), context)
    Counting.decoded = 0
    again = TaskContext(data, predictor, {}, BATCH_SIZE, threads=2)
    again.images  # noqa: B018
    decoded = Counting.decoded
    encoder = PairEncoder(encode, match, preprocessor, mesh)
    pairs = [(i, data.captions[(7 * i + j) % len(data)]) for j in (0, 5) for i in range(len(data))]
    scores = PairScores(again, data, encoder)(pairs)[:, 1]
    return {**found, "decoded": decoded, "scores": np.round(scores, 4).tolist()}


def encode(variables, batch):
    """The mean colour of images, or the first token ids of texts."""
    if "image" in batch:
        return Encoding(batch["image"].mean(axis=(1, 2)), None, None)
    return Encoding(batch["text"][:, 1:4] / 1000.0, None, None)


def match(variables, image, text):
    """A score of a colour and ids, twice."""
    score = jnp.sin(image.tokens * text.tokens).sum(axis=1)
    return jnp.stack([score, score], axis=1)
