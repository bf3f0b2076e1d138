"""Checkpoints of one tower: what is read in place of the other, and what an export refuses."""

import dataclasses

import numpy as np
import pytest
from weight_reference import GOLDEN

from vlp_jax.errors import ConfigError
from vlp_jax.models.layers.positions import sincos2d
from vlp_jax.training.build import build_module, example_batch
from vlp_jax.training.checkpoints.format import nest
from vlp_jax.weights.export import as_exported
from vlp_jax.weights.formats.format import format_named
from vlp_jax.weights.public import all_variables, read_public

HUGGINGFACE = format_named("huggingface:x")


def fresh(config):
    """Variables of a config, freshly initialised."""
    module = build_module(config, "float32")
    found = all_variables(module, example_batch(config), 0)
    return {"params": nest(found)}


@pytest.mark.full
def test_fixed_positions_of_a_masked_autoencoder_are_written_as_tensors():
    config = read_public(f"huggingface:{GOLDEN / 'vit_mae_0'}").config
    image = dataclasses.replace(config.model.image, position="sincos2d")
    objective = dataclasses.replace(config.objectives["mae"], decoder_position="sincos2d")
    config = dataclasses.replace(
        config, model=dataclasses.replace(config.model, image=image), objectives={"mae": objective}
    )
    exported = as_exported(HUGGINGFACE, "again", config, None, fresh(config), "")
    assert exported.family.title == "ViTMAEForPreTraining" and not exported.left
    tensors = dict(exported.tensors())
    for name, width in (
        ("vit.embeddings.position_embeddings", image.token_width),
        ("decoder.decoder_pos_embed", objective.decoder_width),
    ):
        np.testing.assert_array_equal(tensors[name][0, 1:], sincos2d(image.side, width))
    np.testing.assert_array_equal(tensors["decoder.decoder_pos_embed"][0, 0], 0)


def test_a_model_with_both_towers_is_not_written_as_one_of_them():
    config = read_public(f"huggingface:{GOLDEN / 'clip_0'}").config
    text = dataclasses.replace(config.model.text, qk_norm=True)
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, text=text))
    with pytest.raises(ConfigError, match="the nearest is CLIPModel: model.text.qk_norm"):
        as_exported(HUGGINGFACE, "again", config, None, {"params": {}}, "")
