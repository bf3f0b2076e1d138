"""Rules: presets, overrides, fallbacks, and what belongs to a parameter, without a device."""

import jax
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec

from vlp_jax.config import base, to_config
from vlp_jax.errors import ConfigError, MeshError
from vlp_jax.sharding.layout import constrain, layout_in_use
from vlp_jax.sharding.mesh import MeshConfig, abstract_mesh, build_mesh
from vlp_jax.sharding.parameter_sharding import (
    is_boxed,
    logical_axes,
    parameter_spec,
    path_of,
    spec_like,
)
from vlp_jax.sharding.rules import LOGICAL_AXES, PRESETS, build_layout
from vlp_jax.training.build import build_module, example_batch
from vlp_jax.training.optimizer import build_optimizer
from vlp_jax.training.state import abstract_state, boxed_parameters, initial_variables

KERNEL = ("embed", "heads", "head_dim")


def layout_of(**mesh):
    config = MeshConfig(**{"replicate_below": 0} | mesh)
    return build_layout(config, abstract_mesh(config))


def place(shape, axes, **mesh):
    return tuple(parameter_spec("a/kernel", shape, axes, layout_of(**mesh)))


def test_without_a_strategy_the_sizes_decide():
    for strategy, sizes in (
        ("fsdp", dict(fsdp=4)),
        ("tensor", dict(tensor=4)),
        ("fsdp+tensor", dict(fsdp=2, tensor=4)),
    ):
        for shape, axes in (
            ((8, 4, 16), KERNEL),
            ((32, 8), ("mlp", "embed")),
            ((12, 8), ("vocab", "embed")),
        ):
            chosen, derived = (
                place(shape, axes, strategy=strategy, **sizes),
                place(shape, axes, **sizes),
            )
            assert chosen == derived and any(chosen)


def test_overrides_stand_in_front_of_the_preset():
    assert place((16, 8), ("vocab", "embed"), fsdp=2, tensor=2) == ("tensor", "fsdp")
    assert place((16, 8), ("vocab", "embed"), fsdp=2, tensor=2, rules=(("vocab",),)) == (
        None,
        "fsdp",
    )
    assert place(
        (16, 8), ("vocab", "embed"), data=2, fsdp=2, rules=(("embed", "data", "fsdp"),)
    ) == (None, ("data", "fsdp"))
    assert place((16, 8), ("vocab", "embed"), fsdp=2, tensor=2, rules=(("embed", "tensor"),)) == (
        None,
        "tensor",
    )


def test_overrides_are_read_from_a_config():
    config = base()
    config.update(steps=1, objectives=dict(contrastive=dict(kind="clip")))
    config.mesh.rules = (("vocab",), ("embed", "data", "fsdp"))
    assert to_config(config.to_dict()).mesh.rules == (("vocab",), ("embed", "data", "fsdp"))


@pytest.mark.parametrize(
    ("mesh", "kind", "words"),
    [
        (
            dict(rules=(("embd", "fsdp"),)),
            ConfigError,
            "no logical axis 'embd' .did you mean 'embed'",
        ),
        (dict(rules=(("embed", "fsd"),)), ConfigError, "no mesh axis 'fsd' .did you mean 'fsdp'"),
        (dict(rules=(("embed", "fsdp", "fsdp"),)), ConfigError, "names an axis twice"),
        (dict(rules=((),)), ConfigError, "got an empty one"),
        (
            dict(strategy="fsdp"),
            ConfigError,
            "mesh.strategy: 'fsdp' divides over fsdp, and mesh.fsdp is 1",
        ),
        (dict(strategy="fsdp+tensor", fsdp=2), ConfigError, "mesh.tensor is 1; set it"),
        (
            dict(strategy="data", tensor=2),
            MeshError,
            "mesh tensor=2: no rule of strategy 'data' divides over tensor",
        ),
    ],
)
def test_rules_that_cannot_work_are_refused(mesh, kind, words):
    with pytest.raises(kind, match=words):
        layout_of(**mesh)


# Fallbacks


def test_a_dimension_that_does_not_divide_leaves_its_axis_to_the_largest_other_one():
    assert place((12, 6, 32), KERNEL, fsdp=8) == (None, None, "fsdp")
    assert place((50_257, 512), ("vocab", "embed"), tensor=2) == (None, "tensor")
    # both on what is left
    assert place((50_257, 512), ("vocab", "embed"), fsdp=4, tensor=2) == (None, ("fsdp", "tensor"))
    assert place((2, 512, 12), ("layers", "mlp", "embed"), fsdp=64, strategy="fsdp") == (
        None,
        "fsdp",
        None,
    )


def test_layers_are_never_divided():
    with pytest.raises(
        MeshError,
        match=r"a/kernel \(8, 3, 3\): no dimension divides over fsdp=2: "
        r"nearest sizes of fsdp are 1 "
        "and 3; or leave it whole with mesh.replicate_below=10",
    ):
        place((8, 3, 3), ("layers", "mlp", "embed"), fsdp=2, strategy="fsdp")
    assert (
        place((8, 3, 3), ("layers", "mlp", "embed"), fsdp=2, strategy="fsdp", replicate_below=10)
        == (None,) * 3
    )


@pytest.mark.parametrize(
    ("shape", "axes", "tensor", "words"),
    [
        (
            (192, 3, 64),
            KERNEL,
            2,
            "3 heads do not divide over tensor=2: nearest are 2 and 4 heads, or sizes 1 and 3",
        ),
        (
            (192, 12, 64),
            KERNEL,
            8,
            "12 heads do not divide over tensor=8: nearest are 8 and 16 heads, or sizes 6 and 12",
        ),
        (
            (1152, 4304),
            ("embed", "mlp"),
            32,
            "4304 hidden units do not divide over tensor=32: nearest "
            "are 4288 and 4320 hidden units",
        ),
    ],
)
def test_heads_and_hidden_units_have_no_other_place(shape, axes, tensor, words):
    for replicate_below in (0, 10**9):  # small ones too: their activations are divided
        with pytest.raises(MeshError, match=words):
            place(shape, axes, tensor=tensor, replicate_below=replicate_below)


def test_the_threshold_counts_one_layer():
    for elements, expected in ((512, (None, "fsdp", None)), (513, (None, None, None))):
        assert (
            place(
                (99, 16, 32),
                ("layers", "embed", "mlp"),
                fsdp=4,
                strategy="fsdp",
                replicate_below=elements,
            )
            == expected
        )


# A whole model


def experiment(kind="adamw", **mesh):
    config = base()
    config.update(steps=10, ema=0.9, objectives=dict(contrastive=dict(kind="clip")))
    config.model.image.update(
        preset="S/16",
        depth=2,
        stem="convolution",
        stem_channels=(64, 128),
        stem_strides=(4, 4),
        pooling="map",
        scan=True,
    )
    config.model.text.update(preset="S", depth=2, vocab_size=49408, length=77)
    config.optimizer.kind = kind
    config.mesh.update(mesh)
    return to_config(config.to_dict())


def state_of(config):
    """Shapes and shardings of the state, with nothing computed."""
    module, batch = build_module(config), example_batch(config)
    optimizer = build_optimizer(
        config.optimizer, optax.constant_schedule(1.0), boxed_parameters(module, batch)
    )
    return abstract_state(
        module, batch, optimizer, 0, True, build_layout(config.mesh, abstract_mesh(config.mesh))
    )


def leaves(tree):
    return {path_of(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


@pytest.mark.full
def test_every_large_parameter_of_a_model_is_divided_by_fsdp_and_every_one_by_a_known_axis():
    config = experiment(fsdp=8)
    shapes, shardings = state_of(config)
    for (path, shape), sharding in zip(
        leaves(shapes.params).items(), jax.tree.leaves(shardings.params), strict=True
    ):
        elements = shape.size // (2 if "/layers/" in path else 1)
        part = int(np.prod(sharding.shard_shape(shape.shape)))
        assert shape.size == part * (8 if elements >= 65_536 else 1), path
    boxed = jax.eval_shape(
        lambda batch: initial_variables(build_module(config), batch, 0), example_batch(config)
    )
    named = {
        axis for leaf in jax.tree.leaves(boxed, is_leaf=is_boxed) for axis in logical_axes(leaf)
    }
    assert (
        named - {None} <= set(LOGICAL_AXES)
        and {"embed", "mlp", "heads", "vocab", "layers", "patch"} <= named
    )


@pytest.mark.variants
@pytest.mark.parametrize("kind", ["adamw", "lion", "sgd", "muon", "adafactor"])
def test_what_an_optimizer_keeps_of_a_parameter_lies_as_the_parameter(kind):
    shapes, shardings = state_of(experiment(kind, fsdp=4, tensor=2))
    placed = leaves(shardings.optimizer)
    path = "model/text/transformer/layer_0/mlp/in/kernel"
    moments = {
        name: leaf
        for name, leaf in leaves(shapes.optimizer).items()
        if name.endswith(path) and leaf.size > 1
    }
    assert moments
    for name, leaf in moments.items():
        assert leaf.shape in ((384, 1536), (384,), (1536,))
        whole = leaf.shape != (384, 1536)  # factored moments are small
        assert placed[name].spec == (
            PartitionSpec() if whole else PartitionSpec("fsdp", "tensor")
        ), name
    large = [name for name, leaf in leaves(shapes.optimizer).items() if leaf.size >= 65_536]
    assert all(not placed[name].is_fully_replicated for name in large) and (
        large or kind == "adafactor"
    )


def test_factored_moments_lie_along_the_dimensions_they_keep():
    spec = PartitionSpec("tensor", None, "fsdp")
    assert spec_like((8, 16), (8, 4, 16), spec, 0) == PartitionSpec("tensor", "fsdp")
    assert spec_like((4, 16), (8, 4, 16), spec, 0) == PartitionSpec(None, "fsdp")
    assert spec_like((4, 16), (8, 4, 16), spec, 65) == PartitionSpec()
    assert spec_like((1,), (8, 4, 16), spec, 0) == PartitionSpec()


# Activations


def test_activations_are_constrained_where_a_layout_is_in_use():
    config = MeshConfig(data=2, fsdp=2, tensor=2)
    layout, x = build_layout(config, build_mesh(config)), np.zeros((8, 4, 6, 2), np.float32)

    def placed(x):
        with layout_in_use(layout):
            return constrain(x, ("batch", "tokens", "activation_heads", None))

    assert {shard.data.shape for shard in jax.jit(placed)(x).addressable_shards} == {(2, 4, 3, 2)}
    assert constrain(x, ("batch", None, None, None)) is x


def test_every_preset_places_every_axis():
    for name, rules in PRESETS.items():
        assert {axis for axis, _ in rules} == set(LOGICAL_AXES), name
