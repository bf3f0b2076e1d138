"""What a config may say about the losses: the entries of the `objectives` section."""

import dataclasses
from typing import Literal

from vlp_jax.config.fields import between


@dataclasses.dataclass(frozen=True)
class ContrastiveObjective:
    """Fields that the two contrastive objectives share."""

    weight: float = between(1.0, 0.0)
    positives: tuple[Literal["caption", "image"], ...] = ("caption", "image")  # sharing which makes a pair positive
    implementation: Literal["dense", "chunked", "ring"] = "dense"  # how the pairs are met; the numbers are the same
    chunk_size: int = between(1024, 1)  # chunked and ring: texts that a device's images meet at once


@dataclasses.dataclass(frozen=True)
class SoftmaxContrastive(ContrastiveObjective):
    """InfoNCE both ways (Radford et al. 2021)."""

    kind: Literal["softmax"] = "softmax"
    initial_scale: float = between(1 / 0.07, 1e-6)  # multiplies cosine similarities; kept as its logarithm
    maximum_scale: float = between(100.0, 1e-6)
    label_smoothing: float = between(0.0, 0.0, 0.999)


@dataclasses.dataclass(frozen=True)
class SigmoidContrastive(ContrastiveObjective):
    """Pairwise sigmoid loss (Zhai et al. 2023)."""

    kind: Literal["sigmoid"] = "sigmoid"
    initial_scale: float = between(10.0, 1e-6)
    maximum_scale: float = between(1e6, 1e-6)
    initial_bias: float = -10.0


@dataclasses.dataclass(frozen=True)
class MaskedAutoencoder:
    """Regression of the pixels of masked patches from the visible ones (He et al. 2022)."""

    kind: Literal["masked_autoencoder"] = "masked_autoencoder"
    weight: float = between(1.0, 0.0)
    mask_ratio: float = between(0.75, 0.01, 0.99)
    decoder_width: int = between(512, 4)
    decoder_depth: int = between(8, 1)
    decoder_heads: int = between(16, 1)


Objective = SoftmaxContrastive | SigmoidContrastive | MaskedAutoencoder
