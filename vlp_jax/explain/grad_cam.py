"""Grad-CAM on the features of any image tower (Selvaraju et al. 2017, "Grad-CAM", equations 1 and
2)."""

import dataclasses
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vlp_jax.config.fields import between
from vlp_jax.explain.explained import scored
from vlp_jax.explain.image_tower import patches_of
from vlp_jax.explain.method import MethodConfig, on_grid
from vlp_jax.explain.score import ScoreConfig
from vlp_jax.models.vision.vit_config import ViTConfig
from vlp_jax.objectives.pretraining_module import PretrainingModule

if TYPE_CHECKING:
    from vlp_jax.experiment import Experiment
    from vlp_jax.explain.explained import Explained


@dataclasses.dataclass(frozen=True, kw_only=True)
class GradCamConfig(MethodConfig):
    """Features weighted by the mean of their gradients, without negative values.

    The features are the last feature map of a convolutional tower, as its last module with one
    returns it, or the input of a layer of a Vision Transformer.
    """

    # Vision Transformer: the layer whose input is taken, counted from 0; the number of layers is
    # the output of the last. None: the last layer's input
    layer: int | None = between(None, 0)

    def lacks(self, experiment: "Experiment", score: ScoreConfig) -> str | None:
        """A Vision Transformer with this layer, or a convolutional tower."""
        image = experiment.model.image
        if isinstance(image, ViTConfig):
            if not image.size.depth:
                return "an image tower with layers"
            if (self.layer or 0) > image.size.depth:
                return f"a layer {self.layer} of model.image, or as many"
        return None

    def maps(self, pairs: "Explained") -> np.ndarray:
        """The weighted features [B, side, side]."""
        image = pairs.config.model.image
        found = features_and_gradients(
            pairs.module, pairs.score, self.place(pairs), dict(pairs.variables), dict(pairs.batch)
        )
        features, gradients = (np.asarray(part, np.float64) for part in found)
        if features.ndim == 4:  # [B, h, w, C]
            shape = features.shape
            flat = [part.reshape(shape[0], -1, shape[3]) for part in (features, gradients)]
            return grad_cam(*flat).reshape(shape[:3])
        of_patches = [
            patches_of(image, part.swapaxes(1, 2)).swapaxes(1, 2) for part in (features, gradients)
        ]
        return on_grid(grad_cam(*of_patches), image.side)

    def place(self, pairs: "Explained") -> tuple[str, bool]:
        """The path of a module, and whether its input is taken in place of its output."""
        image = pairs.config.model.image
        if not isinstance(image, ViTConfig):
            return last_feature_map(pairs), False
        depth = image.size.depth
        layer = depth - 1 if self.layer is None else self.layer
        last = min(layer, depth - 1)
        return f"model/image/transformer/layer_{last}", layer < depth


def grad_cam(features: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    """relu(sum_k alpha_k A_k), alpha_k being the mean of the gradient over positions.

    Args:
      features, gradients: [B, N, C].
    Returns: [B, N].
    """
    weights = gradients.mean(axis=1, keepdims=True)
    return np.maximum((weights * features).sum(axis=-1), 0.0)


def last_feature_map(pairs: "Explained") -> str:
    """The path of the module of a convolutional tower that is the last to return a feature map [B,
    h, w, C]."""
    paths: list[str] = []

    def watch(call: Callable, args: tuple, kwargs: dict, context: Any) -> Any:
        made = call(*args, **kwargs)
        path = "/".join(context.module.path)
        if path.startswith("model/image/") and getattr(made, "ndim", 0) == 4:
            paths.append(path)
        return made

    with nn.intercept_methods(watch):
        jax.eval_shape(
            lambda variables, batch: scored(pairs.module, pairs.score, variables, batch),
            dict(pairs.variables),
            dict(pairs.batch),
        )
    return paths[-1]


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def features_and_gradients(
    module: PretrainingModule,
    score: ScoreConfig,
    place: tuple[str, bool],
    variables: dict,
    batch: dict,
) -> tuple[jax.Array, jax.Array]:
    """The input or output of a module, and the gradients of the scores with respect to it."""
    path, of_input = place

    def run(offset: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        found: list[jax.Array] = []

        def shifted(x: jax.Array) -> jax.Array:
            found.append(x)
            return x if offset is None else x + offset

        def watch(call: Callable, args: tuple, kwargs: dict, context: Any) -> Any:
            here = "/".join(context.module.path) == path and context.method_name == "__call__"
            if not here:
                return call(*args, **kwargs)
            if of_input:
                return call(shifted(args[0]), *args[1:], **kwargs)
            return shifted(call(*args, **kwargs))

        with nn.intercept_methods(watch):
            values = scored(module, score, variables, batch)
        return values.sum(), found[0]

    shape = jax.eval_shape(run, None)[1]
    gradients, features = jax.grad(run, has_aux=True)(jnp.zeros(shape.shape, shape.dtype))
    return features, gradients
