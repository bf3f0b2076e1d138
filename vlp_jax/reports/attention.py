"""Where the pooled token of a Vision Transformer looks, and which parts of images count for their
captions."""

from collections.abc import Sequence

import numpy as np

from vlp_jax.errors import ConfigError
from vlp_jax.explain.asked import asked, chosen_score
from vlp_jax.explain.attention_map import AttentionMapConfig
from vlp_jax.explain.chosen import possible_methods
from vlp_jax.explain.drawing import over
from vlp_jax.explain.explained import explained
from vlp_jax.explain.image_tower import vit_of
from vlp_jax.explain.method import MethodConfig
from vlp_jax.explain.panels import method_panels
from vlp_jax.explain.score import ScoreConfig
from vlp_jax.reports.examined import Examined, spread
from vlp_jax.reports.section import Absent, picture, text

POOLED = {
    "cls": "class token in the last layer",
    "map": "pooling query",
    "queries": "first pooling query",
    "mean": "patches in the last layer, their mean",
}
METHODS = ("relevance", "grad_cam", "patch_similarity", "word_attention")


def attention_examples(examined: Examined, examples: int) -> str:
    """Images with the attention of the pooled token, as the mean over heads.

    Args:
      examined: model and set.
      examples: number of images.
    Raises:
      Absent: the image tower has no attention.
    """
    lacking = AttentionMapConfig().lacks(examined.model.config, ScoreConfig.of())
    if lacking is not None:
        raise Absent(f"attention is shown of {lacking}, and {examined.run.name} has another")
    chosen = spread(range(len(examined.data)), examples)
    pixels = [examined.pixels(number) for number in chosen]
    maps = attention_maps(examined, pixels)
    parts = [
        example(examined, number, [("attention", over(image, values))])
        for number, image, values in zip(chosen, pixels, maps, strict=True)
    ]
    where = POOLED[vit_of(examined.model.config).pooling]
    return f'<p class="soft">Attention of the {where}, mean over heads.</p>' + "".join(parts)


def heat_map_examples(examined: Examined, examples: int) -> str:
    """Images with the maps of all methods for their first captions.

    Args:
      examined: model and set.
      examples: number of images.
    Raises:
      Absent: the model has no score of an image and a text, or no method for it.
    """
    config = examined.model.config
    try:
        score = chosen_score(config, None)
    except ConfigError as error:
        raise Absent(f"{examined.run.name} has no score of an image and a text") from error
    kinds = [MethodConfig.of(kind) for kind in METHODS]
    methods, messages = possible_methods(kinds, config, score)
    if not methods or score.kind == "answer":
        raise Absent(f"no heat maps of {score.kind}: {'; '.join(messages) or 'no caption'}")
    captioned = [number for number in range(len(examined.data)) if words(examined, number)]
    parts = []
    for number in spread(captioned, examples):
        image = examined.pixels(number)
        pair, own = asked(examined.model, examined.variables, image, words(examined, number), score)
        panels = [panel for method in methods for panel in method_panels(method, pair, own, image)]
        parts.append(example(examined, number, panels))
    shown = ", ".join(method.kind for method in methods)
    return f'<p class="soft">For the score "{score.kind}": {shown}.</p>' + "".join(parts)


def example(examined: Examined, number: int, panels: Sequence[tuple[str, np.ndarray]]) -> str:
    """An image, maps over it with their titles, and its first caption, as HTML."""
    maps = "".join(picture(pixels, title) for title, pixels in panels)
    return (
        f'<div class="example">{examined.picture(number)}{maps}'
        f"<div>{text(words(examined, number))}</div></div>"
    )


def words(examined: Examined, number: int) -> str:
    """The first caption of an image."""
    captions = examined.data.captions_of_image[number]
    return examined.data.captions[captions[0]] if captions else ""


def attention_maps(examined: Examined, pixels: Sequence[np.ndarray]) -> np.ndarray:
    """Attention float64 [B, side, side] of the pooled token to the patches, with sum 1."""
    pairs = explained(
        examined.model, examined.variables, pixels, [""] * len(pixels), ScoreConfig.of()
    )
    return AttentionMapConfig().maps(pairs)
