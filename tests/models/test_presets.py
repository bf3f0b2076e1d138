"""Sizes of towers: a changed width keeps its preset's proportions."""

import pathlib
import re

import pytest

from vlp_jax.config import load_config
from vlp_jax.errors import ConfigError
from vlp_jax.models.presets import SIZES, derived_sizes, size_of
from vlp_jax.models.text.transformer import TextTransformerConfig
from vlp_jax.training.build import build_module, example_batch
from vlp_jax.training.state import abstract_parameters

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("preset", "stated", "heads", "mlp_dim"),
    [
        ("clip-B", {}, 8, 2048),
        ("clip-B", dict(width=512), 8, 2048),
        ("clip-B", dict(width=128), 2, 512),
        ("clip-B", dict(width=96, heads=3), 3, 384),
        ("clip-B", dict(width=96, heads=3, mlp_dim=100), 3, 100),
        ("clip-B", dict(width=128, mlp_dim=256), 2, 256),
        ("B/16", dict(width=1024), 16, 4096),
        ("So400m/14", dict(width=576), 8, 2152),
        ("g", dict(width=704), 8, 3072),
        ("B", dict(mlp_dim=100), 12, 100),
        ("B", dict(heads=6), 6, 3072),
    ],
)
def test_a_changed_width_keeps_the_width_of_a_head_and_the_ratio_of_mlp_dim(
    preset, stated, heads, mlp_dim
):
    size = size_of(TextTransformerConfig(preset=preset, **stated), "model.text")
    assert (size.heads, size.mlp_dim) == (heads, mlp_dim)


@pytest.mark.parametrize(
    ("preset", "stated", "words", "others"),
    [
        (
            "clip-B",
            dict(width=96),
            "model.text.width: 96 does not go with heads of width 64, as the "
            "preset 'clip-B' has; nearest are "
            "64 and 128, or set model.text.heads and model.text.mlp_dim",
            (64, 128),
        ),
        (
            "So400m",
            dict(width=1000),
            "heads of width 72 and an mlp_dim of 4304/1152 times the width",
            (936, 1008),
        ),
        (
            "So400m",
            dict(width=100, heads=4),
            "nearest are 72 and 144, or set model.text.mlp_dim",
            (72, 144),
        ),
        ("clip-B", dict(width=30, mlp_dim=8), "nearest are 64, or set model.text.heads", (64,)),
        (
            "clip-B",
            dict(heads=5),
            "model.text: width 512 does not divide into 5 heads; nearest widths are 510 and 515",
            (),
        ),
    ],
)
def test_a_width_that_does_not_divide_is_refused_with_near_ones_that_do(
    preset, stated, words, others
):
    with pytest.raises(ConfigError, match=re.escape(words)):
        size_of(TextTransformerConfig(preset=preset, **stated), "model.text")
    for width in others:
        assert (
            size_of(
                TextTransformerConfig(preset=preset, **stated | dict(width=width)), "model.text"
            ).width
            == width
        )


def test_the_parameters_are_those_of_the_proportions_and_a_line_says_so():
    config = load_config(
        f"{ROOT}/configs/clip_b32.py",
        [("model.text.width", "128"), ("model.text.depth", "1"), ("model.image.depth", "1")],
    )
    shapes = abstract_parameters(build_module(config), example_batch(config))["model"]["text"]
    assert {128, 512} <= {size for leaf in leaves(shapes) for size in leaf.shape} and not any(
        2048 in leaf.shape for leaf in leaves(shapes)
    )
    (line,) = derived_sizes(config.model)
    assert line == (
        "model.text: width=128 has heads=2, mlp_dim=512, in proportion as the preset "
        "'clip-B'; set them for others"
    )
    assert derived_sizes(load_config(f"{ROOT}/configs/clip_b32.py").model) == []
    assert derived_sizes(load_config(f"{ROOT}/configs/blip.py:smoke").model) == []


def leaves(tree):
    return (
        [leaf for value in tree.values() for leaf in leaves(value)]
        if hasattr(tree, "values")
        else [tree]
    )


def test_every_preset_divides_into_its_heads():
    assert all(size.width % size.heads == 0 for size in SIZES.values())
