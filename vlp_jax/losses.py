"""The loss functions of all objectives, as plain functions of arrays.

Every function can be traced, differentiated and used outside of this package. Losses are float32
scalars, means over the batch, unless a function returns one per row. `chunked_*` and `ring_*` are
sharded over the devices of the layout in use; without one they run on one device.
"""

from vlp_jax.objectives.base import Loss
from vlp_jax.objectives.captioning import next_token_loss, token_losses
from vlp_jax.objectives.contrastive_blocks import (
    chunked_sigmoid_contrastive,
    chunked_softmax_contrastive,
    ring_sigmoid_contrastive,
    ring_softmax_contrastive,
)
from vlp_jax.objectives.contrastive_losses import sigmoid_contrastive, softmax_contrastive
from vlp_jax.objectives.masked_image import HiddenPatches, code_loss
from vlp_jax.objectives.masked_language import masked_loss
from vlp_jax.objectives.matching import matching_loss
from vlp_jax.objectives.momentum_contrastive import soft_contrastive
from vlp_jax.objectives.simclr import nt_xent
from vlp_jax.objectives.supervised_losses import binary_losses, hinge_losses, softmax_losses
from vlp_jax.objectives.tokens import kl_divergence
from vlp_jax.objectives.triplet import hinge_contrastive, triplet_contrastive

__all__ = [
    "HiddenPatches",
    "Loss",
    "binary_losses",
    "chunked_sigmoid_contrastive",
    "chunked_softmax_contrastive",
    "code_loss",
    "hinge_contrastive",
    "hinge_losses",
    "kl_divergence",
    "masked_loss",
    "matching_loss",
    "next_token_loss",
    "nt_xent",
    "ring_sigmoid_contrastive",
    "ring_softmax_contrastive",
    "sigmoid_contrastive",
    "soft_contrastive",
    "softmax_contrastive",
    "softmax_losses",
    "token_losses",
    "triplet_contrastive",
]
