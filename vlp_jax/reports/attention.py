"""Where the pooled token of a Vision Transformer looks."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from vlp_jax.models.vision.vit_config import ViTConfig
from vlp_jax.reports.examined import Examined, spread
from vlp_jax.reports.section import Absent, picture, text


def attention_examples(examined: Examined, examples: int) -> str:
    """Images with the attention of the class token in the last layer, or of the pooling query, as
    the mean over heads.

    Args:
      examined: model and set.
      examples: number of images.
    Raises:
      Absent: the image tower is none with such a token.
    """
    config = examined.model.config.model.image
    if not isinstance(config, ViTConfig) or config.pooling not in ("cls", "map"):
        raise Absent(
            f"the image tower of {examined.run.name} pools by "
            f"{getattr(config, 'pooling', config.kind)!r}; attention is shown of a ViT with "
            "pooling='cls' or 'map'"
        )
    data = examined.data
    chosen = spread(range(len(data)), examples)
    pixels = [examined.pixels(number) for number in chosen]
    maps = attention_maps(examined, config, np.stack(pixels))
    parts = [
        '<div class="example">'
        + examined.picture(number)
        + picture(over(image, values), "attention")
        + f"<div>{text(words(examined, number))}</div></div>"
        for number, image, values in zip(chosen, pixels, maps, strict=True)
    ]
    where = "class token in the last layer" if config.pooling == "cls" else "pooling query"
    return f'<p class="soft">Attention of the {where}, mean over heads.</p>' + "".join(parts)


def words(examined: Examined, number: int) -> str:
    """The first caption of an image."""
    captions = examined.data.captions_of_image[number]
    return examined.data.captions[captions[0]] if captions else ""


def attention_maps(examined: Examined, config: ViTConfig, pixels: np.ndarray) -> np.ndarray:
    """Attention float64 [B, side, side] of the pooled token to the patches, with sum 1.

    Raises:
      Absent: the layers give no queries and keys one by one.
    """
    images = (pixels / 255 - np.array(examined.preprocessor.images.mean)) / np.array(
        examined.preprocessor.images.std
    )
    _, state = examined.model.module.apply(
        examined.variables,
        images.astype(np.float32),
        method="embed",
        capture_intermediates=lambda module, _: module.name in ("query", "key"),
        mutable=["intermediates"],
    )
    found = pooled_attention(state["intermediates"]["model"]["image"], config)
    if found is None:
        raise Absent(f"the layers of {examined.run.name} are scanned or fused")
    query, key = (np.asarray(part, np.float64) for part in found)
    # of the first query alone, float [B, heads, features]
    logits = np.einsum("bhk,bnhk->bhn", query[:, 0], key) / key.shape[-1] ** 0.5
    weights = np.asarray(jax.nn.softmax(logits, axis=-1), np.float64).mean(axis=1)
    patches = weights[:, -(config.side**2) :]
    patches = patches / patches.sum(axis=1, keepdims=True)
    return patches.reshape(-1, config.side, config.side)


def pooled_attention(tower: Mapping[str, Any], config: ViTConfig) -> tuple[Any, Any] | None:
    """Queries and keys [B, N, heads, features] of the attention that pools; None where they are
    not there."""
    if config.pooling == "map":
        layer: Any = tower.get("pooling_head", {})
    else:
        layer = tower.get("transformer", {}).get(f"layer_{config.size.depth - 1}", {})
    parts = layer.get("attention", {})
    if "query" not in parts or "key" not in parts:
        return None
    return parts["query"]["__call__"][0], parts["key"]["__call__"][0]


def over(image: np.ndarray, values: np.ndarray) -> np.ndarray:
    """A map [h, w] drawn over an image uint8 [H, W, 3]: what is looked at stays bright."""
    height, width = image.shape[:2]
    rows = np.arange(height) * values.shape[0] // height
    columns = np.arange(width) * values.shape[1] // width
    light = values[np.ix_(rows, columns)] / values.max()
    return np.clip(image * (0.2 + 0.8 * light[..., None]), 0, 255).astype(np.uint8)
