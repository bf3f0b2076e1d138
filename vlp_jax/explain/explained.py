"""Pairs of images and texts whose scores are explained, and what is computed of them."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from vlp_jax.explain.score import ScoreConfig
from vlp_jax.inference import ImageLike, Model
from vlp_jax.objectives.pretraining_module import PretrainingModule
from vlp_jax.training.build import build_module
from vlp_jax.weights.export import unrolled

if TYPE_CHECKING:
    from vlp_jax.experiment import Experiment

# {path of a MultiHeadAttention: for each of its calls [B, H, N, M]}
Attention = Mapping[str, tuple[np.ndarray, ...]]


@dataclasses.dataclass(frozen=True)
class Explained:
    """A batch of pairs.

    Attributes:
      module: the module, with unrolled layers.
      variables: its variables.
      config: its config.
      score: the score that is explained.
      batch: the arrays of the pairs; images are normalised, float32 [B, H, W, 3].
      special_ids: the ids of the start and the end token.
    """

    module: PretrainingModule
    variables: Mapping[str, Any]
    config: "Experiment"
    score: ScoreConfig
    batch: Mapping[str, Any]
    special_ids: tuple[int, ...] = ()

    @functools.cached_property
    def scores(self) -> np.ndarray:
        """The scores, float32 [B]."""
        return self.scores_of(self.batch)

    def scores_of(self, batch: Mapping[str, Any]) -> np.ndarray:
        """The scores float32 [B] of other arrays."""
        return np.asarray(scores_of(self.module, self.score, self.variables, dict(batch)))

    @functools.cached_property
    def image_attention(self) -> Attention:
        """The attention weights of the image tower alone, float64."""
        found = image_attention(self.module, self.variables, self.batch["image"])
        return by_module(found)

    @functools.cached_property
    def attention(self) -> Attention:
        """The attention weights of all layers, float64."""
        return self._recorded[0]

    @functools.cached_property
    def attention_gradients(self) -> Attention:
        """The gradients of the scores with respect to the attention weights, float64."""
        return self._recorded[1]

    @functools.cached_property
    def _recorded(self) -> tuple[Attention, Attention]:
        found = attention_and_gradients(self.module, self.score, self.variables, dict(self.batch))
        weights, gradients = (by_module(tree) for tree in found)
        return weights, gradients


def explained(
    model: Model,
    variables: Mapping[str, Any],
    images: Sequence[ImageLike],
    texts: Sequence[str],
    score: ScoreConfig,
    **arrays: np.ndarray,
) -> Explained:
    """The pairs of B images and B texts.

    Args:
      model, variables: as `vlp_jax.load` returns them.
      images, texts: the pairs.
      score: the score that is explained.
      **arrays: further arrays that the score reads.
    Raises:
      DataError: an image cannot be read.
    """
    config = without_rematerialisation(unrolled(model.config))
    module = build_module(config, jnp.dtype(model.module.precision.compute).name)
    batch = {**model.preprocessor(images=list(images), texts=list(texts)), **arrays}
    start, end, _ = model.preprocessor.tokenizer.special_ids
    return Explained(module, unrolled_variables(variables), config, score, batch, (*start, *end))


def without_rematerialisation(config: "Experiment") -> "Experiment":
    """The config with all activations kept, so that those inside of layers can be read."""
    parts: dict[str, Any] = {}
    for name in ("image", "text", "fusion", "decoder"):
        part: Any = getattr(config.model, name)
        if getattr(part, "rematerialisation", "none") != "none":
            saved = {"saved": ()} if hasattr(part, "saved") else {}
            parts[name] = dataclasses.replace(part, rematerialisation="none", **saved)
    return dataclasses.replace(config, model=dataclasses.replace(config.model, **parts))


def unrolled_variables(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Variables with the parameters of scanned layers, stacked in `layers`, as `layer_0` and so
    on."""
    found: dict[str, Any] = {}
    for name, part in tree.items():
        if name == "layers":
            depth = len(jax.tree.leaves(part)[0])
            for layer in range(depth):
                found[f"layer_{layer}"] = jax.tree.map(lambda leaf, at=layer: leaf[at], part)
        else:
            found[name] = unrolled_variables(part) if isinstance(part, Mapping) else part
    return found


@functools.partial(jax.jit, static_argnums=(0, 1))
def scores_of(
    module: PretrainingModule, score: ScoreConfig, variables: dict, batch: dict
) -> jax.Array:
    """The scores [B] of a batch."""
    return scored(module, score, variables, batch)


def scored(
    module: PretrainingModule, score: ScoreConfig, variables: dict, batch: dict, **options: Any
) -> Any:
    """`module.apply` of a score; `options` are those of `apply`."""
    return module.apply(
        variables, batch, method=lambda bound, arrays: score.values(bound, arrays), **options
    )


@functools.partial(jax.jit, static_argnums=0)
def image_attention(
    module: PretrainingModule, variables: Mapping[str, Any], image: jax.Array
) -> Any:
    """The attention weights of the image tower, with all tokens in each layer, as a tree."""

    def encoded(bound: PretrainingModule, image: jax.Array) -> Any:
        return bound.model.encode_image(image)

    _, state = module.apply(variables, image, method=encoded, mutable=["attention"])
    return state.get("attention", {})


@functools.partial(jax.jit, static_argnums=(0, 1))
def attention_and_gradients(
    module: PretrainingModule, score: ScoreConfig, variables: dict, batch: dict
) -> tuple[Any, Any]:
    """The attention weights of all modules, and the gradients of the scores of a batch with respect
    to them, as trees of equal structure."""

    def run(variables):
        values, state = scored(module, score, variables, batch, mutable=["attention"])
        return values.sum(), state.get("attention", {})

    shapes = jax.eval_shape(run, variables)[1]
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    gradients, weights = jax.grad(
        lambda offset: run({**variables, "attention_offset": offset}), has_aux=True
    )(zeros)
    return weights, gradients


def by_module(tree: Mapping[str, Any]) -> Attention:
    """The arrays of a collection "attention" by the path of their module, float64.

    The tuples of several calls become tuples of arrays.
    """
    found: dict[str, tuple[np.ndarray, ...]] = {}
    for name, part in tree.items():
        if name == "weights":
            found[""] = tuple(np.asarray(call, np.float64) for call in part)
        else:
            found |= {
                f"{name}/{rest}".rstrip("/"): calls for rest, calls in by_module(part).items()
            }
    return found
