"""Analytic flops against the products of the unrolled, traced program, and against published
figures."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest
from counted_flops import counted_flops

from vlp_jax.config import base, clip, to_config
from vlp_jax.models.fusion.pooled import ConcatenationConfig
from vlp_jax.models.layers.transformer import Encoding, Precision
from vlp_jax.models.vision.efficientnet import EfficientNetConfig
from vlp_jax.models.vision.inception import InceptionConfig
from vlp_jax.models.vision.vgg import VggConfig
from vlp_jax.objectives.matching import MatchingConfig
from vlp_jax.training.build import build_module, example_batch
from vlp_jax.training.cost.flops import train_step_flops
from vlp_jax.training.state import initial_variables

STEM = dict(stem="convolution", stem_channels=(8, 16, 32), stem_strides=(2, 2, 2))


RESNETS = {
    "basic": dict(depth=18, stem_size=3, stem_stride=1, max_pool=False),
    "bottleneck": dict(blocks=(2, 1, 1), image_size=40),
    "clip resnet": dict(clip=True, heads=2, output_dim=24),
}


CONVOLUTIONS = {
    "vgg": dict(kind="vgg", depth=13, width=8, image_size=40),
    "vgg with layers": dict(
        kind="vgg", depth=11, width=8, image_size=70, pooling="hidden", hidden_dim=20
    ),
    "inception": dict(kind="inception_v3", width=2, image_size=107),
    "efficientnet": dict(kind="efficientnet", width_coefficient=0.25, image_size=45),
    "efficientnet without a head": dict(
        kind="efficientnet", width_coefficient=0.25, image_size=45, padding="floor", head_width=None
    ),
}
WORDS = {
    "lstm": dict(kind="lstm", depth=2, pooling="attention"),
    "bidirectional lstm": dict(kind="bidirectional_lstm", depth=2),
    "gru": dict(kind="gru", pooling="mean"),
    "bag": dict(kind="bag"),
}


def config_of(image=(), text=(), batch_size=4, resnet=None, words=None, convolutions=None):
    config = base()
    config.update(steps=1, objectives=dict(contrastive=dict(kind="clip")))
    config.data.batch_size = batch_size
    narrow = dict(preset="Ti", width=128, depth=2, heads=2, mlp_dim=320)
    config.model.image.update(narrow, patch_size=8, image_size=32, **dict(image))
    if resnet is not None:
        config.model.image = (
            dict(kind="resnet", width=8) | dict(blocks=(1, 2), image_size=32) | resnet
        )
    if convolutions is not None:
        config.model.image = convolutions
    config.model.text.update(narrow, vocab_size=50, length=24, **dict(text))
    if words is not None:
        config.model.text = dict(words, vocab_size=50, length=24, width=72) | (
            {} if words["kind"] == "bag" else dict(embedding_width=40)
        )
    config.model.embedding_dim = 64
    return to_config(config.to_dict())


@pytest.mark.variants
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {
            "image": {"pooling": "map", "projection": "linear"},
            "text": {"pooling": "map", "causal": False},
        },
        {
            "image": {"pooling": "mean", "registers": 3, **STEM},
            "text": {"pooling": "cls", "causal": False},
        },
        {
            "image": {"pooler": True, "activation": "geglu_tanh", "bias": False},
            "text": {"pooler": True, "pooler_activation": "none", "pooler_width": 48},
        },
        *({"resnet": resnet} for resnet in RESNETS.values()),
        *({"words": words} for words in WORDS.values()),
        *({"convolutions": convolutions} for convolutions in CONVOLUTIONS.values()),
    ],
    ids=["clip", "map", "stem", "poolers", *RESNETS, *WORDS, *CONVOLUTIONS],
)
def test_the_forward_pass_has_the_products_that_its_traced_program_has(changes):
    config = config_of(**changes)
    module, batch = build_module(config), example_batch(config, rows=4)
    variables = jax.eval_shape(lambda: initial_variables(module, batch, 0))
    program = jax.make_jaxpr(
        lambda variables: module.apply(
            variables, batch["image"], batch["text"], batch["text_mask"], method="embed"
        )
    )(variables)
    expected = config.model.image.flops(64, tokens=False) + config.model.text.flops(
        64, tokens=False
    )
    assert counted_flops(program.jaxpr) == 4 * expected


GRAPH = dict(heads=2, mlp_dim=320)
STACKS = ("cross_attention", "merged", "co_attention")


@pytest.mark.variants
@pytest.mark.parametrize("width", [128, 64], ids=["as wide as the towers", "narrower"])
@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("cross_attention", {}),
        ("merged", {}),
        ("merged", dict(class_token=True, projected=True)),
        ("co_attention", {}),
        ("co_attention", dict(projected=True)),
        ("concatenation", dict(mlp_dim=320)),
        ("gated", {}),
        ("bilinear", dict(rank=80)),
        ("visual_attention", dict(hops=3)),
        *(("graph", dict(GRAPH, layer=layer)) for layer in ("convolution", "attention")),
        ("graph", dict(GRAPH, regions="boxes", words="dependencies")),
    ],
)
def test_a_fusion_has_the_products_that_its_traced_program_has(kind, changes, width):
    model = config_of(text={"causal": False, "pooling": "first"}).model
    layers = dict(preset="Ti", depth=2, heads=2, mlp_dim=320, pooler=True) if kind in STACKS else {}
    config = base()
    config.update(steps=1, objectives=dict(matching=dict(kind="matching", negatives="uniform")))
    config.model.fusion = dict(kind=kind, width=width, **layers, **changes)
    if "regions" in changes:
        config.data.update(boxes=dict(field="b", count=7), dependencies=dict(field="d"))
    model = dataclasses.replace(model, fusion=to_config(config.to_dict()).model.fusion)
    image, text = (
        Encoding(jnp.zeros((4, count, 128)), None, jnp.zeros((4, 128))) for count in (17, 24)
    )
    image, text = (
        image.replace(boxes=jnp.zeros((4, 7, 4))),
        text.replace(edges=jnp.ones((4, 24, 24), bool)),
    )
    module = model.fusion.build(model.shapes(), Precision())
    variables = jax.eval_shape(lambda: module.init(jax.random.key(0), image, text))
    program = jax.make_jaxpr(lambda variables: module.apply(variables, image, text))(variables)
    # of the regions that are there; so little that it is left out
    mean = 4 * 2 * 7 * width if "regions" in changes else 0
    assert counted_flops(program.jaxpr) - mean == 4 * model.fusion.flops(model.shapes())


def test_an_update_is_three_forward_passes_and_the_pairs():
    one, two = train_step_flops(config_of(batch_size=8)), train_step_flops(config_of(batch_size=16))
    assert two - 2 * one == 3 * 2 * 64 * (16**2 - 2 * 8**2)


@pytest.mark.variants
@pytest.mark.parametrize(("negatives_from", "pairs"), [("both", 3), ("text", 2), ("image", 2)])
def test_matching_fuses_each_pair_that_it_asks_about(negatives_from, pairs):
    config = config_of(text={"causal": False, "pooling": "first"})
    fusion = ConcatenationConfig(width=96, mlp_dim=320)
    config = dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, fusion=fusion),
        objectives={"matching": MatchingConfig(negatives="uniform", negatives_from=negatives_from)},
    )
    module, batch = build_module(config), example_batch(config, rows=4)
    variables = jax.eval_shape(lambda: initial_variables(module, batch, 0))
    program = jax.make_jaxpr(
        lambda variables: module.apply(variables, batch, True, rngs={"dropout": jax.random.key(0)})
    )(variables)
    head = 4 * pairs * 2 * 96 * 2  # so little that it is left out
    assert 3 * (counted_flops(program.jaxpr) - head) == train_step_flops(config)


def test_a_masked_autoencoder_has_the_products_that_its_traced_program_has():
    config = base()
    config.update(
        steps=1,
        objectives=dict(
            mae=dict(kind="masked_autoencoder", decoder_width=48, decoder_depth=2, decoder_heads=2)
        ),
    )
    config.model.image.update(
        preset="Ti",
        width=128,
        depth=2,
        heads=2,
        mlp_dim=320,
        patch_size=8,
        image_size=32,
        position="sincos2d",
    )
    config = to_config(config.to_dict())
    module, batch = build_module(config), example_batch(config, rows=4)
    variables = jax.eval_shape(lambda: initial_variables(module, batch, 0))
    program = jax.make_jaxpr(
        lambda variables: module.apply(variables, batch, True, rngs={"dropout": jax.random.key(0)})
    )(variables)
    assert counted_flops(program.jaxpr) * 3 * config.data.batch_size == train_step_flops(config) * 4


@pytest.mark.variants
@pytest.mark.parametrize(
    "objective",
    [dict(kind="masked_image"), dict(kind="masked_joint", keep_last=False, keep_first=False)],
)
def test_masked_patches_have_the_products_that_their_traced_program_has(objective):
    config = base()
    config.update(
        steps=1, objectives=dict(masked=dict(objective, codes=40, code_width=6, smallest_block=2))
    )
    narrow = dict(preset="Ti", width=128, depth=2, heads=2, mlp_dim=320)
    config.model.image.update(narrow, patch_size=8, image_size=32)
    config.model.text.update(narrow, vocab_size=50, length=24, causal=False, pooling="first")
    if objective["kind"] == "masked_joint":
        config.model.fusion = dict(narrow, kind="merged", width=64, class_token=True)
    config = to_config(config.to_dict())
    module, batch = build_module(config), example_batch(config, rows=4)
    variables = jax.eval_shape(lambda: initial_variables(module, batch, 0))
    program = jax.make_jaxpr(
        lambda variables: module.apply(variables, batch, True, rngs={"dropout": jax.random.key(0)})
    )(variables)
    without_backward = 2 * 16 * 6 * (3 * 64 + 40)  # the quantizer, of one picture
    counted = counted_flops(program.jaxpr) * 3 // 4 - 2 * without_backward
    assert counted * config.data.batch_size == pytest.approx(train_step_flops(config), rel=1e-6)


@pytest.mark.variants
@pytest.mark.parametrize("head_layers", ["text", "fusion"])
def test_masked_words_have_the_products_that_their_traced_program_has(head_layers):
    config, narrow = base(), dict(preset="Ti", width=128, depth=2, heads=2, mlp_dim=320)
    words = dict(kind="masked_language", head_layers=head_layers)
    config.update(steps=1, objectives=dict(words=words))
    config.model.image.update(narrow, patch_size=8, image_size=32)
    config.model.text.update(narrow, vocab_size=50, length=24, causal=False, pooling="first")
    config.model.fusion = dict(narrow, kind="co_attention", width=64)
    config = to_config(config.to_dict())
    module, batch = build_module(config), example_batch(config, rows=4)
    variables = jax.eval_shape(lambda: initial_variables(module, batch, 0))
    program = jax.make_jaxpr(
        lambda variables: module.apply(variables, batch, True, rngs={"dropout": jax.random.key(0)})
    )(variables)
    assert counted_flops(program.jaxpr) * 3 * config.data.batch_size == train_step_flops(config) * 4


@pytest.mark.variants
@pytest.mark.parametrize("hidden_dim", [None, 40])
@pytest.mark.parametrize(
    ("of", "kind"),
    [
        ("image", None),
        ("text", None),
        ("fused", "concatenation"),
        ("fused", "graph"),
        ("fused", "co_attention"),
        ("fused", "cross_attention"),
    ],
)
def test_a_supervised_objective_has_the_products_that_its_traced_program_has(of, kind, hidden_dim):
    config, narrow = base(), dict(preset="Ti", width=128, depth=2, heads=2, mlp_dim=320)
    config.update(
        steps=1,
        objectives=dict(
            tell=dict(kind="classification", target="x", features=of, hidden_dim=hidden_dim)
        ),
    )
    config.data.targets = dict(x=dict(kind="class", field="x", classes=30))
    config.model.image.update(narrow, patch_size=8, image_size=32)
    config.model.text.update(narrow, vocab_size=50, length=24, causal=False, pooling="first")
    sizes = dict(width=64) if kind == "concatenation" else dict(width=64, heads=2, mlp_dim=320)
    config.model.fusion = (
        None
        if kind is None
        else dict(kind=kind, **sizes, **(dict(depth=2) if kind in STACKS else {}))
    )
    config = to_config(config.to_dict())
    module, batch = build_module(config), example_batch(config, rows=4)
    variables = jax.eval_shape(lambda: initial_variables(module, batch, 0))
    program = jax.make_jaxpr(
        lambda variables: module.apply(variables, batch, True, rngs={"dropout": jax.random.key(0)})
    )(variables)
    # by a product where a text has a mask, which is not counted
    mean_of_words = 2 * 4 * 24 * 64 if kind == "graph" else 0
    assert (
        counted_flops(program.jaxpr) - mean_of_words
    ) * 3 * config.data.batch_size == train_step_flops(config) * 4


@pytest.mark.parametrize(
    "decoder",
    [
        dict(kind="transformer", preset="Ti", width=96, depth=2, heads=2, mlp_dim=200),
        dict(preset="Ti", width=96, depth=2, heads=2, mlp_dim=200, norm="post", word_head=True),
        dict(kind="gru", image="attention", width=40, embedding_width=24, attention_width=16),
    ],
    ids=["transformer", "words", "gru"],
)
def test_an_answer_has_the_products_that_its_traced_program_has(decoder):
    config, narrow = base(), dict(preset="Ti", width=128, depth=2, heads=2, mlp_dim=320)
    config.update(
        steps=1, objectives=dict(answer=dict(kind="answering", target="x", unigram="batch"))
    )
    config.data.targets = dict(x=dict(kind="text", field="x", classes=30, length=7))
    config.model.image.update(narrow, patch_size=8, image_size=32)
    config.model.text.update(narrow, vocab_size=50, length=24, causal=False, pooling="first")
    config.model.fusion = dict(narrow, kind="cross_attention", width=64)
    config.model.decoder = decoder
    config = to_config(config.to_dict())
    module, batch = build_module(config), example_batch(config, rows=4)
    variables = jax.eval_shape(lambda: initial_variables(module, batch, 0))
    program = jax.make_jaxpr(
        lambda variables: module.apply(variables, batch, True, rngs={"dropout": jax.random.key(0)})
    )(variables)
    # begins the state; see above
    mean_of_words = 2 * 4 * 24 * 64 if decoder.get("kind") == "gru" else 0
    assert (
        counted_flops(program.jaxpr) - mean_of_words
    ) * 3 * config.data.batch_size == train_step_flops(config) * 4


@pytest.mark.parametrize(
    ("tower", "published"),
    [
        (VggConfig(depth=11, pooling="hidden"), 7.609e9),
        (VggConfig(depth=13, pooling="hidden"), 11.308e9),
        (VggConfig(depth=16, pooling="hidden"), 15.470e9),
        (VggConfig(depth=19, pooling="hidden"), 19.632e9),
        (InceptionConfig(), 5.713e9),
        (EfficientNetConfig(preset="B7", image_size=600), 37.75e9),
    ],
)
def test_convolutional_networks_have_the_multiplications_that_torchvision_publishes(
    tower, published
):
    assert tower.flops(1000) / 2 == pytest.approx(published, rel=3e-4)


def test_clip_b16_is_what_is_published():
    """OpenCLIP's profile of ViT-B-16 gives 41.09 GFLOPs for both towers, counting a multiplication
    and addition as two."""
    config = clip()
    config.model.image.preset = "B/16"
    model = to_config(config.to_dict()).model
    total = model.image.flops(512) + model.text.flops(512)
    assert total == pytest.approx(41.09e9, rel=0.03)
