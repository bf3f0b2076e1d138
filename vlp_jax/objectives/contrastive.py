"""Contrastive losses as plain functions, and as objectives with a learned scale (and bias)."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from vlp_jax.objectives.objective import Loss, Objective


def softmax_contrastive(image: jax.Array, text: jax.Array, scale: jax.Array, positives: jax.Array | None = None,
                        label_smoothing: float = 0.0) -> jax.Array:
    """InfoNCE both ways (Radford et al. 2021, figure 3): which text belongs to an image, and which image to a text.

    image, text: [B, E] unit vectors. scale: scalar that multiplies their cosines (an inverse temperature).
    positives: [B, B] bool, True where image i and text j belong together, at least one in every row and column;
      a row's target is uniform over its positives (Khosla et al. 2020 with the sum outside the logarithm). The identity
      if None.
    label_smoothing: mixes the targets with the uniform distribution.
    Returns: the mean over examples and directions, float32.
    """
    logits = scale * cosines(image, text)
    positives = jnp.eye(len(image), dtype=bool) if positives is None else positives
    return 0.5 * (cross_entropy(logits, positives, label_smoothing) + cross_entropy(logits.T, positives.T, label_smoothing))


def cross_entropy(logits: jax.Array, positives: jax.Array, label_smoothing: float) -> jax.Array:
    """The mean over rows of -sum_j t_j log softmax(logits)_j, where t mixes the positives' mean with the row's.

    logits: [B, C]; positives: [B, C] bool. With p and n the log-sum-exp of the positive and of the other logits this is
    log(1 + exp(n - p)) + (p - mean of the positives) + label_smoothing (mean of the positives - mean of all). Unlike
    log_softmax it stays exact, gradients included, where a row's one positive is all but certain and the loss is tiny.
    """
    own, others = (jax.nn.logsumexp(jnp.where(kept, logits, -1e30), axis=-1) for kept in (positives, ~positives))
    count = positives.sum(axis=-1)
    mean = jnp.where(positives, logits, 0.0).sum(axis=-1) / count
    spread = jnp.where(count > 1, own - mean, 0.0)  # 0 for one positive; the rounding of its gradient would drown the rest
    return (jax.nn.softplus(others - own) + spread + label_smoothing * (mean - logits.mean(axis=-1))).mean()


def sigmoid_contrastive(image: jax.Array, text: jax.Array, scale: jax.Array, bias: jax.Array,
                        positives: jax.Array | None = None) -> jax.Array:
    """Pairwise sigmoid loss (Zhai et al. 2023, eq. 1): every pair is its own yes/no question.

    image, text: [B, E] unit vectors; scale, bias: scalars; positives: [B, B] bool, the identity if None.
    Returns: the sum over pairs divided by B, float32.
    """
    logits = scale * cosines(image, text) + bias
    signs = jnp.where(jnp.eye(len(image), dtype=bool) if positives is None else positives, 1.0, -1.0)
    return -jax.nn.log_sigmoid(signs * logits).sum() / len(image)


def cosines(image: jax.Array, text: jax.Array) -> jax.Array:
    """Inner products [B, B] of unit vectors, in float32 at least, whatever the inputs' dtype."""
    dtype = jnp.promote_types(jnp.result_type(image, text), jnp.float32)
    return jnp.einsum("id,jd->ij", image, text, preferred_element_type=dtype, precision=jax.lax.Precision.HIGHEST)


def shared_positives(batch: dict[str, jax.Array], kinds: tuple[str, ...]) -> jax.Array:
    """[B, B] bool: the pairs (image i, text j) that belong together: the diagonal, and pairs whose examples share a
    caption or an image, as `kinds` says. `caption_id` and `image_id` are int32 [B, 2] fingerprints."""
    positives = jnp.eye(len(batch["text"]), dtype=bool)
    for kind in kinds:
        identity = batch[f"{kind}_id"]
        positives |= (identity[:, None] == identity[None, :]).all(axis=-1)
    return positives


def top1_accuracy(image: jax.Array, text: jax.Array, positives: jax.Array) -> jax.Array:
    """How often an image's nearest text in the batch is one of its own; a scalar in [0, 1]."""
    nearest = jnp.argmax(image @ text.T, axis=1)
    return jnp.take_along_axis(positives, nearest[:, None], axis=1).mean()


class ContrastiveObjective(Objective):
    """Pulls the embeddings of an image and its text together and pushes those of others apart.

    The scale is kept as its logarithm and clamped after each update.
    """

    initial_scale: float = 1 / 0.07
    maximum_scale: float = 100.0
    positives: tuple[str, ...] = ("caption", "image")

    needs = ("image_embedding", "text_embedding")
    couples_batch = True

    def log_scale(self) -> jax.Array:
        return self.param("log_scale", nn.initializers.constant(jnp.log(self.initial_scale)), (), jnp.float32)

    def constrain(self, params: dict) -> dict:
        return {**params, "log_scale": jnp.clip(params["log_scale"], 0.0, jnp.log(self.maximum_scale))}


class SoftmaxContrastive(ContrastiveObjective):
    """`softmax_contrastive` on a batch."""

    label_smoothing: float = 0.0

    @nn.compact
    def __call__(self, encodings: dict, batch: dict[str, jax.Array]) -> Loss:
        image, text = encodings["image_embedding"], encodings["text_embedding"]
        positives = shared_positives(batch, self.positives)
        scale = jnp.exp(self.log_scale())
        loss = softmax_contrastive(image, text, scale, positives, self.label_smoothing)
        return Loss(loss, {"scale": scale, "batch_accuracy": top1_accuracy(image, text, positives)})


class SigmoidContrastive(ContrastiveObjective):
    """`sigmoid_contrastive` on a batch."""

    initial_bias: float = -10.0

    @nn.compact
    def __call__(self, encodings: dict, batch: dict[str, jax.Array]) -> Loss:
        image, text = encodings["image_embedding"], encodings["text_embedding"]
        positives = shared_positives(batch, self.positives)
        scale = jnp.exp(self.log_scale())
        bias = self.param("bias", nn.initializers.constant(self.initial_bias), (), jnp.float32)
        loss = sigmoid_contrastive(image, text, scale, bias, positives)
        accuracy = top1_accuracy(image, text, positives)
        return Loss(loss, {"scale": scale, "bias": bias, "batch_accuracy": accuracy})
