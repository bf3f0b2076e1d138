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
class CaptioningObjective:
    """Each token of the text from those before it, by `model.decoder`."""

    kind: Literal["captioning"] = "captioning"
    weight: float = between(1.0, 0.0)
    label_smoothing: float = between(0.0, 0.0, 0.999)
    unigram: Literal["running", "batch"] = "running"  # of which tokens the reference `unigram_entropy` is; batch with microbatches


Objective = SoftmaxContrastive | SigmoidContrastive | CaptioningObjective
