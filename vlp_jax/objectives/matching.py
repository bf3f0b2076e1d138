"""Image-text matching: binary classification of fused pairs (Li et al. 2021, "ALBEF", section 3.2,
equation 3)."""

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from vlp_jax.config.fields import between
from vlp_jax.errors import ConfigError
from vlp_jax.models.config import ModelConfig, embedding_dim
from vlp_jax.models.layers.transformer import Encoding
from vlp_jax.models.options import present, with_logical_axes
from vlp_jax.models.vision_language import VisionLanguageModel
from vlp_jax.objectives.base import Loss, Objective, ObjectiveConfig, encodings_trained
from vlp_jax.objectives.contrastive import EMBEDDINGS, shared_positives
from vlp_jax.objectives.contrastive_losses import cosines
from vlp_jax.sharding.layout import constrain

if TYPE_CHECKING:
    from vlp_jax.experiment import Experiment

NO_SCALE = (
    "a matching objective with negative_scale=None draws by the scale that a contrastive "
    "objective has learned, and there is none; set a number"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MatchingConfig(ObjectiveConfig):
    """Image-text matching, a binary classification of pairs (Li et al. 2021)."""

    negatives: Literal["similar", "uniform"] = "similar"  # uniform needs no embeddings
    # Multiplies the cosines in the softmax that draws similar negatives; None: the scale learned by
    # a contrastive objective so far
    negative_scale: float | None = between(1 / 0.07, 0.0)
    negative_floor: float = between(0.0, 0.0, 1.0)  # added to each probability of that softmax
    # The replaced part of a negative pair; both: each image with a negative text, and each text
    # with a negative image
    negatives_from: Literal["both", "text", "image"] = "both"
    # Probability that a pair is replaced by a negative one; None: each is classified as it is, and
    # with each negative part
    negative_rate: float | None = between(None, 0.0, 1.0)
    # cross_entropy: of a head with two outputs. binary_cross_entropy and hinge: of a head with one,
    # the log-odds, or a score with zero loss beyond a margin of 1.
    loss: Literal["cross_entropy", "binary_cross_entropy", "hinge"] = "cross_entropy"

    couples_batch = True
    uses_fusion = True
    tasks = ("matching",)

    @property
    def needs(self) -> tuple[str, ...]:
        """Both encodings, and the embeddings where similar pairs are drawn as negatives."""
        return ("image", "text") + (EMBEDDINGS if self.negatives == "similar" else ())

    @property
    def trains(self) -> tuple[str, ...]:
        """Both encodings, without the embeddings."""
        return ("image", "text")  # the embeddings only select negatives

    def ignored(self, experiment: "Experiment") -> Mapping[str, str]:
        """The settings of similar negatives, where they are drawn uniformly."""
        unused = dict.fromkeys(("negative_scale", "negative_floor"), "with negatives='uniform'")
        return {**super().ignored(experiment), **(unused if self.negatives == "uniform" else {})}

    def validate(self, where: str, experiment: "Experiment") -> Iterator[str]:
        """Also messages about similar negatives whose embeddings or scale no objective trains."""
        yield from super().validate(where, experiment)
        if self.negatives == "similar" and not encodings_trained(experiment.objectives) >= {
            *EMBEDDINGS
        }:
            yield (
                f"{where}.negatives: 'similar' draws by the embeddings of images and captions, "
                "which no objective trains; add one, such as kind='clip', or set "
                "negatives='uniform'"
            )
        elif (
            self.negatives == "similar"
            and self.negative_scale is None
            and not any(objective.learns_scale for objective in experiment.objectives.values())
        ):
            yield f"{where}.negative_scale: {NO_SCALE}"

    def build(self) -> "Matching":
        """The matching head of these settings."""
        return Matching(self)

    def flops(self, model: ModelConfig, batch: int) -> int:
        """The fusion on all pairs to be classified, and the similarities by which negatives are
        drawn."""
        # without a backward pass
        similarity = 2 * batch**2 * embedding_dim(model) // 3 if self.negatives == "similar" else 0
        questions = (
            1 if self.negative_rate is not None else 3 if self.negatives_from == "both" else 2
        )
        return questions * batch * present(model.fusion).flops(model.shapes()) + similarity


class Matching(Objective):
    """A binary classification of fused pairs: matched ones, and ones with a negative text or image.

    Metrics: `accuracy` and `positive_rate` of the classified pairs, and `reference`, the least loss
    of a constant prediction: the entropy of that rate, or with `hinge` twice the rate of the rarer
    class.

    Options (`MatchingConfig`):
      negatives: `similar` draws the negative in proportion to the softmax of `negative_scale` times
        the cosines of the embeddings, plus `negative_floor`; `uniform` draws any. Examples that
        share an image or a caption with the row are never drawn; a row that shares one with the
        whole batch has no negative pair.
      negative_rate: each pair is classified once, as a negative with this probability (of `both`
        kinds equally often), as in ViLT and FLAVA. None: each pair is classified as it is and with
        each kind of negative, as in ALBEF.
    """

    config: MatchingConfig = MatchingConfig()

    def __call__(
        self, encodings: dict, batch: dict[str, jax.Array], model: VisionLanguageModel
    ) -> Loss:
        """The loss and metrics of the true pairs and of negatives drawn for them."""
        image, text, allowed = (
            encodings["image"],
            encodings["text"],
            ~shared_positives(batch, ("caption", "image")),
        )
        similarity = self.similarity(encodings, allowed.shape)
        config = self.config
        if config.negative_rate is not None:
            return self.asked_once(image, text, similarity, allowed, model)
        pairs, asked = [(image, text)], [jnp.ones(len(allowed), bool)]
        if config.negatives_from != "image":
            texts, has_text = draw_negatives(
                self.make_rng("dropout"), similarity, allowed, config.negative_floor
            )
            pairs, asked = [*pairs, (image, rows_of(text, texts))], [*asked, has_text]
        if config.negatives_from != "text":
            images, has_image = draw_negatives(
                self.make_rng("dropout"), similarity.T, allowed.T, config.negative_floor
            )
            pairs, asked = [*pairs, (rows_of(image, images), text)], [*asked, has_image]
        of_image, of_text = (interleave(*parts) for parts in zip(*pairs, strict=True))
        logits = self.logits(model, of_image, of_text, self.training)
        labels = jnp.tile(jnp.array([1] + [0] * (len(pairs) - 1)), len(allowed))
        return matching_loss(logits, labels, jnp.stack(asked, axis=1).reshape(-1), config.loss)

    def similarity(self, encodings: dict, shape: tuple[int, ...]) -> jax.Array:
        """Similarity [B, B], whose softmax draws negatives: over a row a text, over a column an
        image."""
        if self.config.negatives != "similar":
            return jnp.zeros(shape, jnp.float32)
        scale = (
            encodings["scale"] if self.config.negative_scale is None else self.config.negative_scale
        )
        if scale is None:
            raise ConfigError(f"objectives: {NO_SCALE}")
        return scale * cosines(encodings["image_embedding"], encodings["text_embedding"])

    def asked_once(
        self,
        image: Encoding,
        text: Encoding,
        similarity: jax.Array,
        allowed: jax.Array,
        model: VisionLanguageModel,
    ) -> Loss:
        """The loss with one classification per pair, which is a negative with the probability
        `negative_rate`."""
        floor = self.config.negative_floor
        key, of_text, of_image = (
            self.make_rng("dropout"),
            self.make_rng("dropout"),
            self.make_rng("dropout"),
        )
        is_wrong, by_text = jax.random.bernoulli(
            key, jnp.array([[self.config.negative_rate], [0.5]]), (2, len(allowed))
        )
        by_text = {
            "both": by_text,
            "text": jnp.ones_like(by_text),
            "image": jnp.zeros_like(by_text),
        }[self.config.negatives_from]
        texts, has_text = draw_negatives(of_text, similarity, allowed, floor)
        images, has_image = draw_negatives(of_image, similarity.T, allowed.T, floor)
        is_wrong &= jnp.where(by_text, has_text, has_image)
        own = jnp.arange(len(allowed))
        logits = self.logits(
            model,
            rows_of(image, jnp.where(is_wrong & ~by_text, images, own)),
            rows_of(text, jnp.where(is_wrong & by_text, texts, own)),
            self.training,
        )
        return matching_loss(
            logits, (~is_wrong).astype(jnp.int32), jnp.ones(len(allowed), bool), self.config.loss
        )

    @nn.compact
    def logits(
        self, model: VisionLanguageModel, image: Encoding, text: Encoding, train: bool = False
    ) -> jax.Array:
        """Logits float32 [B, 2] of pairs: (no match, match); with a head of one output, the first
        is 0."""
        init = with_logical_axes(nn.initializers.normal(0.02), ("embed", "scores"))
        two = self.config.loss == "cross_entropy"
        product = functools.partial(jax.lax.dot_general, preferred_element_type=jnp.float32)
        head = nn.Dense(
            2 if two else 1,
            dtype=model.precision.compute,
            dot_general=product,
            kernel_init=init,
            name="head",
        )
        logits = head(model.fuse(image, text, train).pooled)
        return logits if two else jnp.pad(logits, ((0, 0), (1, 0)))


def matching_loss(
    logits: jax.Array, labels: jax.Array, asked: jax.Array, loss: str = "cross_entropy"
) -> Loss:
    """The mean loss of classified pairs, and its metrics.

    With the margin m of the correct class's logit over the other's, `cross_entropy` and
    `binary_cross_entropy`, which are equal on two logits, are -log sigmoid(m), and `hinge` (Cortes
    & Vapnik 1995) is max(0, 1 - m).

    Args:
      logits: [N, 2].
      labels: int [N], 1 for a match.
      asked: bool [N], the pairs that count.
      loss: `cross_entropy`, `binary_cross_entropy` or `hinge`.
    Returns: a `Loss`: its `value`, float32 [], and metrics.
    """
    weights = asked / asked.sum(dtype=jnp.float32)
    rate = (weights * labels).sum()
    margin = (2 * labels - 1) * (logits[:, 1] - logits[:, 0]).astype(jnp.float32)
    if loss == "hinge":
        lost, reference = jax.nn.relu(1.0 - margin), 2.0 * jnp.minimum(rate, 1.0 - rate)
    else:
        lost, reference = (
            -jax.nn.log_sigmoid(margin),
            jax.scipy.special.entr(rate) + jax.scipy.special.entr(1.0 - rate),
        )
    return Loss(
        (weights * lost).sum(),
        {"accuracy": (weights * (margin > 0)).sum(), "positive_rate": rate, "reference": reference},
    )


def draw_negatives(
    key: jax.Array, similarity: jax.Array, allowed: jax.Array, floor: float = 0.0
) -> tuple[jax.Array, jax.Array]:
    """Draws one allowed column for each row, in proportion to softmax(similarity) + floor.

    Args:
      key: random key.
      similarity: [B, C]; the softmax is over the whole row.
      allowed: [B, C] bool.
      floor: added to each probability.
    Returns: int32 [B], and bool [B], False for rows without an allowed column.
    """
    similarity = jax.lax.stop_gradient(similarity)
    logits = jnp.where(
        allowed, jnp.log(jax.nn.softmax(similarity) + floor) if floor else similarity, -jnp.inf
    )
    has_any = allowed.any(axis=1)
    drawn = jax.random.categorical(key, jnp.where(has_any[:, None], logits, 0.0), axis=1)
    return drawn, has_any


def rows_of(encoding: Encoding, index: jax.Array) -> Encoding:
    """The examples at `index` [B] of the whole batch."""

    def take(x):
        return constrain(jnp.take(x, index, axis=0), ("batch", *[None] * (x.ndim - 1)))

    return jax.tree.map(take, encoding)


def interleave(*encodings: Encoding) -> Encoding:
    """[B, ...] K times -> [K B, ...]; the K of an example are consecutive, and so stay on its
    device."""

    def join(*parts):
        return constrain(
            jnp.stack(parts, axis=1).reshape(-1, *parts[0].shape[1:]),
            ("batch", *[None] * (parts[0].ndim - 1)),
        )

    return jax.tree.map(join, *encodings)
