"""Image-text matching: does this text belong to this image? (Li et al. 2021, "ALBEF", section 3.2, equation 3)"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from vlp_jax.config import schema
from vlp_jax.models.fusion_flops import fusion_flops
from vlp_jax.models.layers import Encoding
from vlp_jax.models.vision_language import VisionLanguageModel, embedding_dim
from vlp_jax.objectives.contrastive import shared_positives
from vlp_jax.objectives.contrastive_losses import cosines
from vlp_jax.objectives.objective import Loss, Objective
from vlp_jax.sharding.layout import constrain


class Matching(Objective):
    """A yes-or-no head on the fused pair, asked about each pair of the batch, each image with a wrong text, and each text with a
    wrong image.

    negatives: `similar` draws the wrong partner in proportion to the softmax of `negative_scale` times the cosines of the
      embeddings, `uniform` any. Never one whose example shares an image or a caption with the row; a row whose whole batch does
      asks about no wrong pair.
    wrong: `both` of these wrong pairs, or those with a wrong `text`, or with a wrong `image`, alone.
    loss: of `matching_loss`; the head gives two numbers for `cross_entropy`, one for the others.
    Metrics: `accuracy` and `positive_rate` of the questions, and `reference`, the least loss of one answer to all of them: the
      entropy of that rate, or with `hinge` twice the rarer answer's.
    """

    negatives: str = "similar"
    negative_scale: float = 1 / 0.07
    wrong: str = "both"
    loss: str = "cross_entropy"

    couples_batch = True

    @property
    def needs(self) -> tuple[str, ...]:
        return ("image", "text") + (("image_embedding", "text_embedding") if self.negatives == "similar" else ())

    @property
    def trains(self) -> tuple[str, ...]:
        return ("image", "text")  # the embeddings only choose

    def flops(self, model: schema.Model, batch: int) -> int:
        similarity = 2 * batch**2 * embedding_dim(model) // 3 if self.negatives == "similar" else 0  # has no backward pass
        return (3 if self.wrong == "both" else 2) * batch * fusion_flops(model) + similarity

    def __call__(self, encodings: dict, batch: dict[str, jax.Array], model: VisionLanguageModel) -> Loss:
        image, text, allowed = encodings["image"], encodings["text"], ~shared_positives(batch, ("caption", "image"))
        if self.negatives == "similar":
            similarity = self.negative_scale * cosines(encodings["image_embedding"], encodings["text_embedding"])
        else:
            similarity = jnp.zeros(allowed.shape, jnp.float32)
        pairs, asked = [(image, text)], [jnp.ones(len(allowed), bool)]
        if self.wrong != "image":
            texts, has_text = draw_negatives(self.make_rng("dropout"), similarity, allowed)
            pairs, asked = [*pairs, (image, rows_of(text, texts))], [*asked, has_text]
        if self.wrong != "text":
            images, has_image = draw_negatives(self.make_rng("dropout"), similarity.T, allowed.T)
            pairs, asked = [*pairs, (rows_of(image, images), text)], [*asked, has_image]
        of_image, of_text = (beside_each_other(*parts) for parts in zip(*pairs, strict=True))
        logits = self.logits(model, of_image, of_text, self.training)
        labels = jnp.tile(jnp.array([1] + [0] * (len(pairs) - 1)), len(allowed))
        return matching_loss(logits, labels, jnp.stack(asked, axis=1).reshape(-1), self.loss)

    @nn.compact
    def logits(self, model: VisionLanguageModel, image: Encoding, text: Encoding, train: bool = False) -> jax.Array:
        """float32 [B, 2] of pairs: (do not belong together, do); of a head of one number, the first is 0."""
        init = nn.with_logical_partitioning(nn.initializers.normal(0.02), ("embed", None))
        product = functools.partial(jax.lax.dot_general, preferred_element_type=jnp.float32)
        head = nn.Dense(2 if self.loss == "cross_entropy" else 1, dtype=model.precision.compute, dot_general=product,
                        kernel_init=init, name="head")
        told = head(model.fuse(image, text, train).pooled)
        return told if self.loss == "cross_entropy" else jnp.pad(told, ((0, 0), (1, 0)))


def matching_loss(logits: jax.Array, labels: jax.Array, asked: jax.Array, loss: str = "cross_entropy") -> Loss:
    """The mean loss of logits [N, 2] with labels [N] (1: belongs together) over those `asked` [N], and its metrics.

    With the margin m of the right answer's logit over the other's, `cross_entropy` and `binary_cross_entropy`, which are the same
    on two logits, are -log sigmoid(m), and `hinge` (Cortes & Vapnik 1995) is max(0, 1 - m).
    """
    weights = asked / asked.sum(dtype=jnp.float32)
    rate = (weights * labels).sum()
    margin = (2 * labels - 1) * (logits[:, 1] - logits[:, 0]).astype(jnp.float32)
    if loss == "hinge":
        lost, reference = jax.nn.relu(1.0 - margin), 2.0 * jnp.minimum(rate, 1.0 - rate)
    else:
        lost, reference = -jax.nn.log_sigmoid(margin), jax.scipy.special.entr(rate) + jax.scipy.special.entr(1.0 - rate)
    return Loss((weights * lost).sum(), {"accuracy": (weights * (margin > 0)).sum(), "positive_rate": rate, "reference": reference})


def draw_negatives(key: jax.Array, similarity: jax.Array, allowed: jax.Array) -> tuple[jax.Array, jax.Array]:
    """One column for each row, in proportion to softmax(similarity) over those that are allowed.

    similarity: [B, C]; allowed: [B, C] bool. Returns: int32 [B], and bool [B], False for rows with nothing allowed.
    """
    logits = jnp.where(allowed, jax.lax.stop_gradient(similarity), -jnp.inf)
    has_any = allowed.any(axis=1)
    drawn = jax.random.categorical(key, jnp.where(has_any[:, None], logits, 0.0), axis=1)
    return drawn, has_any


def rows_of(encoding: Encoding, index: jax.Array) -> Encoding:
    """The examples at `index` [B] of the whole batch."""
    def take(x):
        return constrain(jnp.take(x, index, axis=0), ("batch", *[None] * (x.ndim - 1)))

    return jax.tree.map(take, encoding)


def beside_each_other(*encodings: Encoding) -> Encoding:
    """[B, ...] K times -> [K B, ...], the K of an example in a row, so that they stay on its device."""
    def join(*parts):
        return constrain(jnp.stack(parts, axis=1).reshape(-1, *parts[0].shape[1:]), ("batch", *[None] * (parts[0].ndim - 1)))

    return jax.tree.map(join, *encodings)
