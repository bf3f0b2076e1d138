"""The image of docs/explain.md: heat maps of "where is the cat" over composed scenes.

python docs/make_explain_images.py runs/clip_places
"""

import io
import pathlib
import sys

import numpy as np
from PIL import Image, ImageDraw

from vlp_jax.data.sources.registry import open_source
from vlp_jax.explain.chosen import chosen_methods, possible_methods
from vlp_jax.explain.drawing import sheet
from vlp_jax.explain.explained import explained
from vlp_jax.explain.panels import method_panels
from vlp_jax.explain.score import ScoreConfig
from vlp_jax.loading import load

FOLDER = pathlib.Path(__file__).parent
SOURCE = "embedded:emoji_places/val_vendor"
# the first scenes with such an emoji, in their order, whatever the maps look like
NAMES = ("cat", "black cat", "cat face", "dog")
METHODS = "attention,relevance,grad_cam,patch_similarity,occlusion"


def first_scene(source, name):
    """The first sample with an object of this name."""
    return next(
        sample for sample in map(source.__getitem__, range(len(source))) if name in sample.captions
    )


def with_box(sample, name):
    """The pixels of a scene with the box of an object drawn on it."""
    image = Image.open(io.BytesIO(sample.image))
    box = sample.metadata["boxes"][sample.metadata["objects"].index(name)]
    ImageDraw.Draw(image).rectangle(box, outline=(220, 0, 0), width=2)
    return np.asarray(image)


def main(run: str) -> None:
    """Writes explain.png: a row for each name, with the box and the map of each method."""
    model, variables, preprocessor = load(run)
    source, score, panels = open_source(SOURCE), ScoreConfig.of(), []
    methods, _ = possible_methods(chosen_methods(METHODS), model.config, score)
    for name in NAMES:
        sample = first_scene(source, name)
        pixels = preprocessor.pixels(sample.image)
        pair = explained(model, variables, [pixels], [name], score)
        panels.append((f"where is the {name}?", with_box(sample, name)))
        for method in methods:
            panels += method_panels(method, pair, [], pixels)
    page = sheet(panels, side=128, columns=len(methods) + 1)
    page.quantize(128).save(FOLDER / "explain.png", optimize=True)


if __name__ == "__main__":
    main(sys.argv[1])
