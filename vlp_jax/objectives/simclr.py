"""Contrastive learning between two views of an image (Chen et al. 2020, "SimCLR")."""

import dataclasses
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from vlp_jax.config.fields import between
from vlp_jax.models.config import ModelConfig
from vlp_jax.models.options import Precision, with_logical_axes
from vlp_jax.models.vision_language import VisionLanguageModel, unit
from vlp_jax.objectives.base import Loss, Objective, ObjectiveConfig
from vlp_jax.objectives.contrastive_losses import cosines, cross_entropy


@dataclasses.dataclass(frozen=True, kw_only=True)
class SimclrConfig(ObjectiveConfig):
    """Contrastive loss between two views of each image (Chen et al. 2020), as in SLIP (Mu et al.
    2022)."""

    temperature: float = between(0.1, 1e-6)
    hidden_dim: int = between(4096, 1)  # of the projection head
    output_dim: int = between(256, 1)
    # first_view: two views next to the image, both by `data.view_augmentation`
    first: Literal["image", "first_view"] = "image"

    takes_packed = True  # no text is used
    couples_batch = True

    @property
    def needs(self) -> tuple[str, ...]:
        """The pooled vectors of the first and the second view."""
        return f"{self.first}_pooled", "second_view_pooled"

    @property
    def couples_through(self) -> tuple[str, ...]:
        """Both pooled vectors."""
        return self.needs

    def build(self) -> "Simclr":
        """The projection head and loss of these settings."""
        return Simclr(self)

    def flops(self, model: ModelConfig, batch: int) -> int:
        """The projection head on both views, and the similarities of all views."""
        head = (
            model.image.pooled_width * self.hidden_dim
            + self.hidden_dim**2
            + self.hidden_dim * self.output_dim
        )
        return 2 * 2 * batch * head + 3 * 2 * batch**2 * self.output_dim


class Simclr(Objective):
    """`nt_xent` of the image tower's pooled vectors of two views, after a projection head of its
    own.

    SLIP combines it with CLIP in this form (Mu et al. 2022, section 3.2 and figure 1).

    Metrics: `accuracy`, the fraction of first views whose nearest other view is of the same image,
      and
    the reference `uniform`, the loss of a uniform guess: ln(2 B - 1).
    """

    config: SimclrConfig = SimclrConfig()

    @nn.compact
    def __call__(
        self, encodings: dict, batch: dict[str, jax.Array], model: VisionLanguageModel
    ) -> Loss:
        head = ProjectionHead(
            self.config.hidden_dim, self.config.output_dim, model.precision, name="head"
        )
        first, second = (unit(head(encodings[name])) for name in self.config.needs)
        loss, accuracy = nt_xent(first, second, self.config.temperature)
        return Loss(loss, {"accuracy": accuracy, "uniform": jnp.log(2.0 * len(first) - 1.0)})


class ProjectionHead(nn.Module):
    """Three linear layers, with batch normalisation and ReLU in between: [B, D] -> [B,
    output_dim]."""

    hidden_dim: int
    output_dim: int
    precision: Precision

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        # PyTorch's default, which the authors use
        init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
        axes = (("embed", "mlp"), ("mlp", "embed"), ("embed", "embedding"))
        for i, along in enumerate(axes[:2]):
            x = self.precision.dense(self.hidden_dim, along, kernel_init=init, name=f"linear_{i}")(
                x
            )
            x = jax.nn.relu(BatchNormalisation(along[1], name=f"norm_{i}")(x))
        return self.precision.dense(self.output_dim, axes[2], kernel_init=init, name="linear_2")(x)


class BatchNormalisation(nn.Module):
    """Batch normalisation (Ioffe and Szegedy 2015) by the statistics of the global batch: [B, D] ->
    [B, D].

    No running statistics are kept, since evaluation does not use the projection head.
    """

    axis: str
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        scale, bias = (
            self.param(name, with_logical_axes(init, (self.axis,)), x.shape[-1:], jnp.float32)
            for name, init in (("scale", nn.initializers.ones), ("bias", nn.initializers.zeros))
        )
        wide = x.astype(jnp.float32)
        normal = (wide - wide.mean(axis=0)) * jax.lax.rsqrt(wide.var(axis=0) + self.epsilon)
        return (normal * scale + bias).astype(x.dtype)


def nt_xent(first: jax.Array, second: jax.Array, temperature: float) -> tuple[jax.Array, jax.Array]:
    """NT-Xent loss (Chen et al. 2020, equation 1).

    It is the mean over all 2 B views of -log softmax of cosines / temperature at the other view of
    the same image, among the 2 B - 1 other views.

    Args:
      first, second: unit vectors [B, E], two views of each image.
      temperature: divides cosines.
    Returns: the loss, float32, and the fraction of first views for which the other view of the
      image is the likeliest.
    """
    size, itself = len(first), jnp.eye(len(first), dtype=bool)
    between = cosines(first, second) / temperature
    losses, accuracies = [], []
    for views, others in ((first, between), (second, between.T)):
        among = jnp.where(itself, -1e30, cosines(views, views) / temperature)
        logits = jnp.concatenate([others, among], axis=1)
        positives = jnp.concatenate([itself, jnp.zeros_like(itself)], axis=1)
        losses.append(cross_entropy(logits, positives, label_smoothing=0.0))
        accuracies.append((logits.argmax(axis=1) == jnp.arange(size)).mean(dtype=jnp.float32))
    return 0.5 * (losses[0] + losses[1]), accuracies[0]
