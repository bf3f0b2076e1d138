"""VGG and Inception-v3 against torchvision (golden outputs), their published sizes, and their place
in the model."""

import dataclasses
import pathlib
import runpy

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_experiment import experiment

from vlp_jax.config import base, to_config, to_tree, variant_of
from vlp_jax.errors import ConfigError
from vlp_jax.models.layers.transformer import Precision
from vlp_jax.models.vision.inception import InceptionConfig
from vlp_jax.models.vision.vgg import VggConfig
from vlp_jax.sharding.mesh import build_mesh
from vlp_jax.sharding.rules import build_layout
from vlp_jax.training.build import build_update

GOLDEN = pathlib.Path(__file__).parents[2] / "golden"
TORCH = runpy.run_path(str(GOLDEN / "make_convolutions.py"))
VGG = VggConfig(depth=11, width=TORCH["WIDTH"], hidden_dim=TORCH["HIDDEN"])
TOWERS = {
    "plain": dataclasses.replace(VGG, pooling="hidden", dropout=0.0),
    "batch": dataclasses.replace(VGG, norm="batch"),
    "inception": InceptionConfig(),
}
PARTS = {
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
    "kernel": "weight",
}
NARROW = ["branch1x1", "branch5x5_", "branch3x3dbl_", "branch_pool"]
FACTORISED = ["branch1x1", "branch7x7_", "branch7x7dbl_", "branch_pool"]
SPREAD = ["branch1x1", "branch3x3_", "branch3x3dbl_", "branch_pool"]
NAMES = [
    ("", []),
    ("5b", NARROW),
    ("5c", NARROW),
    ("5d", NARROW),
    ("6a", ["branch3x3", "branch3x3dbl_", None]),
    *((f"6{letter}", FACTORISED) for letter in "bcde"),
    ("7a", ["branch3x3_", "branch7x7x3_", None]),
    ("7b", SPREAD),
    ("7c", SPREAD),
]
STEM = {
    "0": "Conv2d_1a_3x3",
    "1": "Conv2d_2a_3x3",
    "2": "Conv2d_2b_3x3",
    "4": "Conv2d_3b_1x1",
    "5": "Conv2d_4a_3x3",
}


def name_in_inception(block, layer):
    """torchvision's name of a step: `block_8`, `convolution_2_1` ->
    `Mixed_6e.branch7x7dbl_2.conv`."""
    kind, branch, *step = layer.split("_")
    short = {"convolution": "conv", "norm": "bn"}[kind]
    number = int(block.removeprefix("block_"))
    if number == 0:
        return f"{STEM[step[0]]}.{short}"
    place, branches = NAMES[number]
    name = branches[int(branch)]
    if name.endswith("_"):
        name += str(int(step[0]) + 1) + ("ab"[int(step[1])] if len(step) > 1 else "")
    return f"Mixed_{place}.{name}.{short}"


def name_in_vgg(block, layer, batch_norm):
    """`stage_1`, `convolution_0` -> `0.3`: its place among all convolutions, norms, activations and
    poolings."""
    if block.startswith("hidden"):
        return "1.1" if block == "hidden_0" else "1.3"
    stage, (kind, number) = int(block.removeprefix("stage_")), layer.split("_")
    each = 2 + batch_norm
    before = sum(each * depth + 1 for depth in TORCH["DEPTHS"][:stage])
    return f"0.{before + each * int(number) + (kind == 'norm')}"


def drawn(kind, path, shape):
    """Our variable, as the golden script draws it in torch's layout."""
    _, block, *layer, last = path.split("/")
    layer = layer[0] if layer else ""
    name = (
        name_in_inception(block, layer)
        if kind == "inception"
        else name_in_vgg(block, layer, kind == "batch")
    )
    name = f"{name}.{PARTS[last]}"
    if len(shape) == 4:
        return TORCH["drawn"](name, (shape[3], shape[2], shape[0], shape[1])).transpose(2, 3, 1, 0)
    if len(shape) == 3:  # [places, channels, hidden], of a map that torch flattens channels first
        return (
            TORCH["drawn"](name, (shape[2], shape[1] * shape[0]))
            .reshape(shape[2], shape[1], shape[0])
            .transpose(2, 1, 0)
        )
    return TORCH["drawn"](name, shape[::-1]).T


@pytest.mark.variants
@pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, marks=[pytest.mark.slow] * (kind == "inception")) for kind in TOWERS],
)
def test_outputs_are_those_of_torchvision(kind):
    golden, pictures = np.load(GOLDEN / "convolutions.npz"), TORCH["pictures"](kind)
    module = dataclasses.replace(TOWERS[kind], image_size=TORCH["SIDES"][kind]).build(Precision())
    shapes = nn.meta.unbox(jax.eval_shape(lambda: module.init(jax.random.key(0), pictures)))
    variables = jax.tree_util.tree_map_with_path(
        lambda path, leaf: jnp.asarray(
            drawn(kind, jax.tree_util.keystr(path, simple=True, separator="/"), leaf.shape)
        ),
        shapes,
    )
    for way in ("eval", "train"):
        out, _ = jax.jit(
            lambda x, train=way == "train": module.apply(
                variables, x, train, mutable=["batch_stats"]
            )
        )(pictures)
        np.testing.assert_allclose(
            TORCH["thinned"](np.asarray(out.pooled)), golden[f"{kind}/{way}"], rtol=2e-3, atol=1e-3
        )


def count_of(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


CLASSES = 1000
# of Inception-v3's second classifier: 768 * 128 + 2 * 128 + 128 * 768 * 25 + 2 * 768 + 769 * 1000
AUXILIARY = 3_326_696
PUBLISHED = [
    *(
        (VggConfig(depth=depth, norm=norm, pooling="hidden"), count)
        for depth, norm, count in (
            (11, "none", 132_863_336),
            (13, "none", 133_047_848),
            (16, "none", 138_357_544),
            (19, "none", 143_667_240),
            (11, "batch", 132_868_840),
            (13, "batch", 133_053_736),
            (16, "batch", 138_365_992),
            (19, "batch", 143_678_248),
        )
    ),
    (InceptionConfig(), 27_161_264 - AUXILIARY),
]


@pytest.mark.variants
@pytest.mark.parametrize(
    ("tower", "published"), PUBLISHED, ids=lambda value: getattr(value, "kind", None)
)
def test_parameters_are_as_many_as_torchvision_publishes_without_the_classifier_of_1000(
    tower, published
):
    module, side = tower.build(Precision()), tower.image_size
    pictures = jax.ShapeDtypeStruct((2, side, side, 3), np.float32)
    shapes = jax.eval_shape(module.init, jax.random.key(0), pictures)
    assert count_of(shapes["params"]) == published - CLASSES * (tower.pooled_width + 1)
    out = jax.eval_shape(module.apply, shapes, pictures)
    assert out.tokens.shape == (2, tower.tokens, tower.token_width) and out.pooled.shape == (
        2,
        tower.pooled_width,
    )
    assert tower.tokens == (49 if tower.kind == "vgg" else 64)
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}


SMALL = {
    "vgg": VggConfig(depth=11, width=4, image_size=40, norm="batch"),
    "vgg with layers": VggConfig(depth=11, width=4, image_size=40, pooling="hidden", hidden_dim=6),
    "inception": InceptionConfig(width=2, image_size=75),
}


@pytest.mark.full
@pytest.mark.parametrize(
    "name", ["vgg", "vgg with layers", pytest.param("inception", marks=pytest.mark.slow)]
)
def test_rematerialisation_changes_no_number_and_gradients_are_finite_and_tokens_may_be_left_out(
    name,
):
    tower = SMALL[name]
    x = (
        np.random.default_rng(0)
        .normal(size=(4, tower.image_size, tower.image_size, 3))
        .astype(np.float32)
    )
    module = tower.build(Precision())
    variables = nn.meta.unbox(jax.jit(module.init)(jax.random.key(0), x))

    def gradients(policy):
        module = dataclasses.replace(tower, rematerialisation=policy).build(Precision())

        def loss(params):
            out, after = module.apply(
                {**variables, "params": params},
                x,
                True,
                mutable=["batch_stats"],
                rngs={"dropout": jax.random.key(1)},
            )
            return jnp.square(out.pooled).sum(), after

        return jax.jit(jax.grad(loss, has_aux=True))(variables["params"])

    for full, none in zip(
        *(jax.tree.leaves(gradients(policy)) for policy in ("full", "none")), strict=True
    ):
        assert np.isfinite(none).all()
        np.testing.assert_allclose(full, none, rtol=1e-3, atol=1e-4 * max(1.0, np.abs(none).max()))
    with_tokens, without = (module.apply(variables, x, tokens=wanted) for wanted in (True, False))
    assert without.tokens is None and with_tokens.tokens.shape == (
        4,
        tower.tokens,
        tower.token_width,
    )
    np.testing.assert_array_equal(with_tokens.pooled, without.pooled)
    if name != "vgg with layers":
        np.testing.assert_allclose(
            with_tokens.pooled, with_tokens.tokens.mean(axis=1), rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("name", ["vgg", pytest.param("inception", marks=pytest.mark.slow)])
def test_group_norm_keeps_no_statistics_and_no_example_knows_of_another(name):
    tower = dataclasses.replace(SMALL[name], norm="group", groups=2)
    module, side = tower.build(Precision()), tower.image_size
    x = np.random.default_rng(0).normal(size=(3, side, side, 3)).astype(np.float32)
    variables = jax.jit(module.init)(jax.random.key(0), x)
    assert set(variables) == {"params"}
    apply = jax.jit(lambda x: module.apply(variables, x, True).pooled)
    together, alone = (np.asarray(apply(rows)) for rows in (x, x[:1]))
    np.testing.assert_allclose(together[:1], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.full
def test_dropout_of_the_fully_connected_layers_acts_in_training_alone():
    module, x = SMALL["vgg with layers"].build(Precision()), jnp.ones((2, 40, 40, 3))
    variables = module.init(jax.random.key(0), x)
    one, two = (
        module.apply(variables, x, True, rngs={"dropout": jax.random.key(seed)}).pooled
        for seed in (1, 2)
    )
    assert not np.array_equal(one, two)
    np.testing.assert_array_equal(
        module.apply(variables, x).pooled, module.apply(variables, x).pooled
    )


@pytest.mark.variants
@pytest.mark.parametrize(
    "tower",
    [
        dict(kind="vgg", depth=11, width=4, image_size=32, norm="batch"),
        dict(kind="inception_v3", width=2, image_size=75),
    ],
    ids=lambda tower: tower["kind"],
)
def test_statistics_of_the_batch_refuse_microbatches(tower):
    config = experiment(model__image=tower, accumulation__microbatches=2)
    with pytest.raises(
        ConfigError,
        match="accumulation.microbatches: batch_stats/.* is computed from the whole batch",
    ):
        build_update(
            config, build_layout(config.mesh, build_mesh(config.mesh, jax.devices()[:1])), steps=1
        )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(kind="vgg", depth=12), "depth: must be one of 11, 13, 16, 19 for a VGG, got 12"),
        (
            dict(kind="vgg", image_size=31),
            "image_size: 31 leaves nothing behind a VGG's 5 halvings; use 32 or more",
        ),
        (dict(kind="inception_v3", width=5), "width: 5 is odd"),
        (
            dict(kind="inception_v3", image_size=74),
            "image_size: 74 leaves nothing .* use 75 or more",
        ),
        (dict(kind="vgg", hidden_dim=8), "hidden_dim: has no effect with pooling='mean'"),
        (dict(kind="vgg", dropout=0.1), "dropout: has no effect with pooling='mean'"),
        (dict(kind="vgg", groups=8), "groups: has no effect with norm='none'"),
        (dict(kind="inception_v3", groups=8), "groups: has no effect with norm='batch'"),
    ],
)
def test_what_cannot_be_is_refused_by_name(changes, message):
    with pytest.raises(ConfigError, match=f"model.image.{message}"):
        experiment(model__image=changes).model.image.build(Precision())


@pytest.mark.parametrize(
    "tower", [VggConfig(norm="batch"), VggConfig(pooling="hidden"), InceptionConfig()]
)
def test_a_smoke_variant_is_narrow_and_still_fits(tower):
    config = base()
    config.update(steps=1, objectives=dict(contrastive=dict(kind="clip")))
    config.model.image = to_tree(tower)
    small = to_config(variant_of(config, "smoke").to_dict()).model.image
    module, pictures = (
        small.build(Precision()),
        jnp.zeros((1, small.image_size, small.image_size, 3)),
    )
    assert count_of(jax.eval_shape(module.init, jax.random.key(0), pictures)["params"]) < 400_000
    assert (
        dataclasses.replace(
            small,
            width=tower.width,
            image_size=tower.image_size,
            **{
                name: getattr(tower, name)
                for name in ("depth", "hidden_dim")
                if tower.kind == "vgg"
            },
        )
        == tower
    )
