"""ResNets against torchvision and open_clip (golden outputs), their published sizes, and their
place in the model."""

import pathlib
import re
import runpy

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vlp_jax.errors import ConfigError
from vlp_jax.models.config import ModelConfig
from vlp_jax.models.layers.transformer import Precision
from vlp_jax.models.text.transformer import TextTransformerConfig
from vlp_jax.models.vision.resnet import ClipResNet, ResNet, ResNetConfig
from vlp_jax.models.vision_language import VisionLanguageModel
from vlp_jax.sharding.layout import layout_in_use
from vlp_jax.sharding.mesh import MeshConfig, batch_sharding, build_mesh
from vlp_jax.sharding.rules import build_layout

GOLDEN = pathlib.Path(__file__).parents[2] / "golden"
TORCH = runpy.run_path(str(GOLDEN / "make_resnet.py"))
MODELS = {
    "basic": ResNet(ResNetConfig(depth=18, blocks=(2, 1, 1, 1))),
    "bottleneck": ResNet(ResNetConfig(blocks=(1, 2, 1, 1))),
    "clip": ClipResNet(
        ResNetConfig(
            clip=True, blocks=(2, 1, 1, 1), image_size=TORCH["SIZE"], **TORCH["CLIP_SHAPE"]
        )
    ),
}
# places of a picture of 64 x 64
SAMPLES = {"bn1": 32**2, "layer1.0.bn2": 16**2, "layer4.0.downsample.1": 2**2}
PARTS = {
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
    "kernel": "weight",
}
OURS = {
    "bn1": ("norm_stem", "norm_stem_0"),
    "layer1.0.bn2": ("stage_0_block_0", "norm_1"),
    "layer4.0.downsample.1": ("stage_3_block_0", "norm_shortcut"),
}


def torch_name(path):
    """The name that torchvision or open_clip gives one of our variables."""
    *parents, last = path.split("/")
    last = PARTS[last]
    if parents[0].startswith("stage"):
        stage, block = re.findall(r"\d+", parents[0])
        layer, _, number = parents[1].partition("_")
        short = "bn" if layer == "norm" else "conv"
        part = (
            f"downsample.{int(layer == 'norm')}"
            if number == "shortcut"
            else f"{short}{int(number) + 1}"
        )
        return f"layer{int(stage) + 1}.{block}.{part}.{last}"
    if parents[0] == "pooling_head":
        projections = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "out": "c_proj"}
        return f"attnpool.{projections[parents[1]]}.{last}"
    number = (re.findall(r"\d", parents[0]) or ["0"])[0]
    return f"{'bn' if parents[0].startswith('norm') else 'conv'}{int(number) + 1}.{last}"


def drawn(path, shape):
    """Our variable, as the golden script draws it in torch's layout."""
    drawn, place = TORCH["drawn"], path.partition("/")[2]
    if place == "pooling_head/position":
        return drawn("attnpool.positional_embedding", shape[1:])[None]
    name = torch_name(place)
    if len(shape) == 4:
        return drawn(name, (shape[3], shape[2], shape[0], shape[1])).transpose(2, 3, 1, 0)
    if place.startswith("pooling_head"):
        if place.endswith("bias"):
            return drawn(name, (int(np.prod(shape)),)).reshape(shape)
        flat = (
            (shape[0], shape[1] * shape[2])
            if "out" not in place
            else (shape[0] * shape[1], shape[2])
        )
        return drawn(name, flat[::-1]).T.reshape(shape)
    return drawn(name, shape)


def variables_of(model):
    shapes = nn.meta.unbox(
        jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 64, 64, 3))))
    )
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: jnp.asarray(
            drawn(jax.tree_util.keystr(path, simple=True, separator="/"), leaf.shape)
        ),
        shapes,
    )


def thinned(found):
    return TORCH["thinned"](np.asarray(found))


@pytest.mark.full
@pytest.mark.parametrize("kind", MODELS)
def test_outputs_and_running_statistics_are_those_of_torch(kind):
    golden, model, pictures = np.load(GOLDEN / "resnet.npz"), MODELS[kind], TORCH["pictures"]()
    variables = variables_of(model)
    found = jax.jit(lambda x: model.apply(variables, x).pooled)(pictures)
    np.testing.assert_allclose(thinned(found), golden[f"{kind}/eval"], rtol=1e-3, atol=1e-4)
    found, after = jax.jit(
        lambda x: model.apply(variables, x, train=True, mutable=["batch_stats"])
    )(pictures)
    np.testing.assert_allclose(thinned(found.pooled), golden[f"{kind}/train"], rtol=2e-3, atol=1e-3)
    for name, place in OURS.items():
        place = (place[kind == "clip"],) if name == "bn1" else place
        before, now = (
            {key: np.asarray(value) for key, value in _at(tree["batch_stats"], place).items()}
            for tree in (variables, after)
        )
        np.testing.assert_allclose(
            thinned(now["mean"]), golden[f"{kind}/{name}.running_mean"], rtol=1e-3, atol=1e-4
        )
        count = SAMPLES[name] * len(pictures)  # torch's running variance is the unbiased one
        unbiased = 0.9 * before["var"] + (now["var"] - 0.9 * before["var"]) * count / (count - 1)
        np.testing.assert_allclose(
            thinned(unbiased), golden[f"{kind}/{name}.running_var"], rtol=1e-3, atol=1e-4
        )


def _at(tree, place):
    for name in place:
        tree = tree[name]
    return tree


def count_of(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


@pytest.mark.variants
@pytest.mark.parametrize(
    ("depth", "published"),
    [(18, 11_689_512), (34, 21_797_672), (50, 25_557_032), (101, 44_549_160), (152, 60_192_808)],
)
def test_parameters_are_as_many_as_published_without_the_classifier(depth, published):
    tower = ResNetConfig(depth=depth)
    module = tower.build(Precision())
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), jnp.zeros((1, 224, 224, 3))))
    assert count_of(shapes["params"]) == published - 1000 * (tower.pooled_width + 1)
    out = jax.eval_shape(lambda v: module.apply(v, jnp.zeros((2, 224, 224, 3))), shapes)
    assert out.tokens.shape == (2, 49, tower.token_width) and out.pooled.shape == (
        2,
        tower.pooled_width,
    )


def test_clip_rn50_has_the_parameters_of_the_published_model():
    """102,007,137 in OpenAI's RN50.pt, of which one is the scale of the contrastive loss;
    38,316,896 of its image encoder."""
    image = ResNetConfig(clip=True, projection="none")
    config = ModelConfig(
        image=image, text=TextTransformerConfig(preset="clip-B"), embedding_dim=1024
    )
    model = VisionLanguageModel(config, Precision())
    shapes = jax.eval_shape(
        lambda: model.init(jax.random.key(0), jnp.zeros((1, 224, 224, 3)), jnp.zeros((1, 77), int))
    )
    assert count_of(shapes["params"]["image"]) == 38_316_896
    assert count_of(shapes["params"]) + 1 == 102_007_137


SMALL = dict(width=4, blocks=(1, 1), image_size=16, heads=2, output_dim=6)


def small(**changes):
    return ResNetConfig(**SMALL | changes).build(Precision())


@pytest.mark.full
@pytest.mark.parametrize(
    "changes",
    [{}, {"clip": True}, {"depth": 18, "stem_size": 3, "stem_stride": 1, "max_pool": False}],
    ids=["bottleneck", "clip", "small stem"],
)
def test_batch_statistics_and_outputs_do_not_depend_on_how_many_devices_share_the_batch(changes):
    module, x = (
        small(**changes),
        np.random.default_rng(0).normal(size=(16, 16, 16, 3)).astype(np.float32),
    )
    variables = nn.meta.unbox(module.init(jax.random.key(0), x))
    variables["params"] = jax.tree.map(lambda leaf: leaf + 0.1, variables["params"])
    found = {}
    for devices in (1, 8):
        mesh = build_mesh(MeshConfig(data=devices), jax.devices()[:devices])
        with layout_in_use(build_layout(MeshConfig(data=devices), mesh)):
            step = jax.jit(
                lambda x: module.apply(variables, x, train=True, mutable=["batch_stats"])
            )
            found[devices] = step(jax.device_put(x, batch_sharding(mesh)))
    before = jax.tree.leaves(variables["batch_stats"])
    for one, eight in zip(*(jax.tree.leaves(tree) for tree in found.values()), strict=True):
        np.testing.assert_allclose(eight, one, rtol=1e-4, atol=1e-5)
    assert any(
        np.abs(a - b).max() > 1e-3
        for a, b in zip(jax.tree.leaves(found[1][1]), before, strict=True)
    )


@pytest.mark.full
def test_group_norm_keeps_no_statistics_and_no_example_knows_of_another():
    module, x = (
        small(norm="group"),
        np.random.default_rng(0).normal(size=(4, 16, 16, 3)).astype(np.float32),
    )
    variables = module.init(jax.random.key(0), x)
    assert set(variables) == {"params"}
    together, alone = (
        np.asarray(module.apply(variables, rows, True).pooled) for rows in (x, x[:1])
    )
    np.testing.assert_allclose(together[:1], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.full
@pytest.mark.parametrize("clip", [False, True])
def test_rematerialisation_changes_no_number(clip):
    x = np.random.default_rng(0).normal(size=(4, 16, 16, 3)).astype(np.float32)
    variables = nn.meta.unbox(small(clip=clip).init(jax.random.key(0), x))

    def gradients(policy):
        def loss(params):
            out, after = small(clip=clip, rematerialisation=policy).apply(
                {**variables, "params": params}, x, True, mutable=["batch_stats"]
            )
            return jnp.square(out.pooled).sum(), after

        return jax.jit(jax.grad(loss, has_aux=True))(variables["params"])

    for full, none in zip(
        *(jax.tree.leaves(gradients(policy)) for policy in ("full", "none")), strict=True
    ):
        np.testing.assert_allclose(full, none, rtol=1e-4, atol=1e-5)


@pytest.mark.full
def test_tokens_are_left_out_where_only_what_is_pooled_is_wanted():
    for clip in (False, True):
        module, x = small(clip=clip), jnp.ones((2, 16, 16, 3))
        variables = module.init(jax.random.key(0), x)
        with_tokens, without = (
            module.apply(variables, x, tokens=wanted) for wanted in (True, False)
        )
        assert without.tokens is None and with_tokens.tokens.shape[0] == 2
        np.testing.assert_array_equal(with_tokens.pooled, without.pooled)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(depth=20), "must be one of 18, 34, 50, 101, 152"),
        (dict(stem_size=4), "must be odd"),
        (dict(clip=True, depth=18), "made of bottlenecks"),
        (dict(clip=True, image_size=20), "does not divide by 8"),
        (dict(clip=True, heads=5), "does not divide into 5 heads"),
    ],
)
def test_sizes_that_do_not_fit_together_are_refused_by_name(changes, message):
    with pytest.raises(ConfigError, match=f"model.image.*{message}"):
        small(**changes)
