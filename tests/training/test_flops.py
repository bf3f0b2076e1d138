"""Analytic flops against the products of the unrolled, traced program, and against published figures."""

import math

import jax
import pytest

from vlp_jax.config import base, clip, to_config
from vlp_jax.models.flops import image_flops, objective_flops, text_flops
from vlp_jax.training.assembly import example_batch, make_module
from vlp_jax.training.flops import train_step_flops
from vlp_jax.training.state import initial_variables

STEM = dict(stem="convolution", stem_channels=(8, 16, 32), stem_strides=(2, 2, 2))


RESNETS = {"basic": dict(depth=18, stem_size=3, stem_stride=1, max_pool=False), "bottleneck": dict(blocks=(2, 1, 1), image_size=40),
           "clip resnet": dict(clip=True, heads=2, output_dim=24)}


def config_of(image=(), text=(), batch_size=4, resnet=None):
    config = base()
    config.update(steps=1, objectives=dict(contrastive=dict(kind="softmax")))
    config.data.batch_size = batch_size
    narrow = dict(preset="Ti", width=128, depth=2, heads=2, mlp_dim=320)
    config.model.image.update(narrow, patch_size=8, image_size=32, **dict(image))
    if resnet is not None:
        config.model.image = dict(kind="resnet", width=8) | dict(blocks=(1, 2), image_size=32) | resnet
    config.model.text.update(narrow, vocab_size=50, length=24, **dict(text))
    config.model.embedding_dim = 64
    return to_config(config.to_dict())


def counted_flops(program):
    """Two operations for every multiplication of the products and convolutions in a traced program."""
    total = 0
    for equation in program.eqns:
        inner = [value for value in equation.params.values() if hasattr(value, "eqns") or hasattr(value, "jaxpr")]
        total += sum(counted_flops(getattr(value, "jaxpr", value)) for value in inner)
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            total += 2 * equation.outvars[0].aval.size * math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
        elif equation.primitive.name == "conv_general_dilated":
            total += 2 * equation.outvars[0].aval.size * math.prod(equation.invars[1].aval.shape[:3])
    return total


@pytest.mark.parametrize("changes", [
    {}, {"image": {"pooling": "map", "projection": "linear"}, "text": {"pooling": "map", "causal": False}},
    {"image": {"pooling": "mean", "registers": 3, **STEM}, "text": {"pooling": "cls", "causal": False}},
    *({"resnet": resnet} for resnet in RESNETS.values())],
    ids=["clip", "map", "stem", *RESNETS])
def test_the_forward_pass_has_the_products_that_its_traced_program_has(changes):
    config = config_of(**changes)
    module, batch = make_module(config), example_batch(config, rows=4)
    variables = jax.eval_shape(lambda: initial_variables(module, batch, 0))
    program = jax.make_jaxpr(lambda variables: module.apply(variables, batch["image"], batch["text"], batch["text_mask"],
                                                            method="embed"))(variables)
    expected = image_flops(config.model.image, 64, tokens=False) + text_flops(config.model.text, 64, tokens=False)
    assert counted_flops(program.jaxpr) == 4 * expected


def test_an_update_is_three_forward_passes_and_the_pairs():
    one, two = train_step_flops(config_of(batch_size=8)), train_step_flops(config_of(batch_size=16))
    assert two - 2 * one == 3 * 2 * 64 * (16**2 - 2 * 8**2)


def test_a_masked_autoencoder_has_the_products_that_its_traced_program_has():
    config = base()
    config.update(steps=1, objectives=dict(mae=dict(kind="masked_autoencoder", decoder_width=48, decoder_depth=2, decoder_heads=2)))
    config.model.image.update(preset="Ti", width=128, depth=2, heads=2, mlp_dim=320, patch_size=8, image_size=32,
                              position="sincos2d")
    config = to_config(config.to_dict())
    module, batch = make_module(config), example_batch(config, rows=4)
    variables = jax.eval_shape(lambda: initial_variables(module, batch, 0))
    program = jax.make_jaxpr(lambda variables: module.apply(variables, batch, True, rngs={"dropout": jax.random.key(0)}))(variables)
    assert counted_flops(program.jaxpr) == 4 * objective_flops(config.model.image, config.objectives["mae"])
    assert train_step_flops(config) == 3 * config.data.batch_size * objective_flops(config.model.image, config.objectives["mae"])


def test_clip_b16_is_what_is_published():
    """OpenCLIP's profile of ViT-B-16 gives 41.09 GFLOPs for both towers, counting a multiplication and addition as two."""
    config = clip()
    config.model.image.preset = "B/16"
    model = to_config(config.to_dict()).model
    total = image_flops(model.image, 512) + text_flops(model.text, 512)
    assert total == pytest.approx(41.09e9, rel=0.03)
