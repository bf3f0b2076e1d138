"""The shared transformer: precision, scan, rematerialisation, stochastic depth and the shapes its
options give it."""

import dataclasses
import functools
import typing

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from vlp_jax.models.config import ModelConfig
from vlp_jax.models.layers.attention_inputs import AttentionInputs
from vlp_jax.models.layers.pool_position import PoolPosition
from vlp_jax.models.layers.transformer import (
    AttentionPooling,
    LayerOptions,
    Precision,
    Transformer,
    TransformerLayer,
    drop_branch,
)
from vlp_jax.models.stack import StackConfig
from vlp_jax.models.text.transformer import TextTransformerConfig
from vlp_jax.models.vision.vit import ViTConfig
from vlp_jax.models.vision_language import VisionLanguageModel
from vlp_jax.sharding.layout import Layout, layout_in_use
from vlp_jax.sharding.mesh import MeshConfig, build_mesh
from vlp_jax.sharding.parameter_sharding import named_axes

OPTIONS = LayerOptions(width=16, heads=2, mlp_dim=24, depth=2)
KEY = jax.random.key(0)
X = jax.random.normal(jax.random.key(1), (4, 6, 16))
MASK = np.arange(6) < np.array([[6], [4], [1], [0]])


def parameters(module, *inputs):
    """Random values for every parameter, those that start at 0 or 1 included."""
    rng = np.random.default_rng(2)
    shapes = nn.meta.unbox(jax.eval_shape(module.init, KEY, *inputs))["params"]
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: jnp.asarray(
            (path[-1].key == "scale") + 0.3 * rng.normal(size=leaf.shape), leaf.dtype
        ),
        shapes,
    )


def stacked(params):
    return {
        "layers": jax.tree.map(
            lambda *leaves: jnp.stack(leaves), *(params[f"layer_{i}"] for i in range(len(params)))
        )
    }


def assert_close(a, b, bound=1e-5):
    """max|a-b| / max|b| of each leaf.

    What is small beside the other leaves may be zero but for rounding, as the gradient of a key's
    bias is.
    """
    largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(b))
    errors = jax.tree.map(
        lambda x, y: float(jnp.abs(x - y).max() / jnp.maximum(jnp.abs(y).max(), 1e-2 * largest)),
        a,
        b,
    )
    assert max(jax.tree.leaves(errors)) <= bound, errors


def value_and_gradients(module, params, **rngs):
    def loss(params):
        return (
            module.apply({"params": params}, X, AttentionInputs(mask=MASK), rngs=rngs)
            * jnp.cos(jnp.arange(16.0))
        ).sum()

    value, gradients = jax.jit(jax.value_and_grad(loss))(params)
    return {"value": value, "gradients": gradients}


@pytest.mark.variants
@pytest.mark.parametrize("cross", [False, True], ids=["self", "cross"])
def test_a_scanned_stack_computes_what_the_unrolled_one_does(cross):
    options = dataclasses.replace(OPTIONS, cross_attention=cross)
    inputs = (
        X,
        AttentionInputs(
            mask=MASK, **(dict(memory=X[:, ::2] + 1, memory_mask=MASK[:, ::2]) if cross else {})
        ),
    )
    params = parameters(Transformer(options), *inputs)
    unrolled = jax.jit(Transformer(options).apply)({"params": params}, *inputs)
    scanned = jax.jit(Transformer(options, scan=True).apply)({"params": stacked(params)}, *inputs)
    assert_close({"x": scanned}, {"x": unrolled})


@pytest.mark.full
@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, marks=pytest.mark.slow),
        {"causal": True, "qk_norm": True},
        pytest.param({"norm": "post", "layer_scale": 0.3}, marks=pytest.mark.slow),
        pytest.param({"cross_attention": True}, marks=pytest.mark.slow),
    ],
    ids=str,
)
@pytest.mark.parametrize("index", [(5, 2, 0, 3), None], ids=["anywhere", "first"])
def test_one_wanted_token_is_what_all_of_them_hold_there_with_the_same_gradients(changes, index):
    options = dataclasses.replace(OPTIONS, **changes)
    memory = dict(memory=X[:, ::2] + 1, memory_mask=MASK[:, ::2]) if options.cross_attention else {}
    bias = jax.random.normal(KEY, (options.heads, 6, 6)) if changes == {} else None
    inputs = AttentionInputs(
        mask=MASK, angles=jax.random.uniform(KEY, (1, 6, 4)), bias=bias, **memory
    )
    module, index = Transformer(options), None if index is None else jnp.asarray(index)
    params = parameters(module, X, inputs)

    def results(take):
        def loss(params, x):
            out = take(params, x)
            return (out * jnp.cos(jnp.arange(16.0))).sum(), out

        (_, out), gradients = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))(
            params, X
        )
        return {"out": out, "gradients": gradients}

    def all_then_one(params, x):
        everything = module.apply({"params": params}, x, inputs)
        return everything[jnp.arange(4), 0 if index is None else index]

    def one(params, x, module=module, params_of=lambda params: params):
        return module.apply(
            {"params": params_of(params)}, x, inputs.replace(pool_position=PoolPosition(index))
        )[:, 0]

    expected = results(all_then_one)
    for other in (
        one,
        functools.partial(one, module=Transformer(options, rematerialisation="full")),
        functools.partial(one, module=Transformer(options, scan=True), params_of=stacked),
    ):
        # gradients of several layers, which each machine rounds its own way
        assert_close(results(other), expected, bound=3e-5)


@pytest.mark.full
def test_layers_of_a_scanned_stack_start_from_different_values():
    params = nn.meta.unbox(Transformer(OPTIONS, scan=True).init(KEY, X))["params"]["layers"]
    kernel = params["mlp"]["in"]["kernel"]
    assert kernel.shape == (2, 16, 24)
    assert not jnp.isclose(*kernel).any()


@pytest.mark.full
@pytest.mark.parametrize(
    "scan", [pytest.param(False, marks=pytest.mark.slow), True], ids=["unrolled", "scanned"]
)
def test_rematerialisation_changes_neither_values_nor_gradients(scan):
    build = functools.partial(Transformer, OPTIONS, stochastic_depth=0.5, scan=scan, train=True)
    params = parameters(build(train=False), X, AttentionInputs(mask=MASK))
    expected = value_and_gradients(build(), params, dropout=jax.random.key(5))
    for policy, saved in (("full", ()), ("save_matmuls", ()), ("save_names", ("query", "hidden"))):
        assert_close(
            value_and_gradients(
                build(rematerialisation=policy, saved=saved), params, dropout=jax.random.key(5)
            ),
            expected,
        )


@pytest.mark.parametrize("policy", ["none", "full", "save_matmuls"])
@pytest.mark.parametrize("scan", [False, True])
def test_scan_and_rematerialisation_are_independent_switches(scan, policy):
    module = Transformer(OPTIONS, scan=scan, rematerialisation=policy)
    shapes = jax.eval_shape(lambda: nn.meta.unbox(module.init(KEY, X)))
    program = jax.make_jaxpr(lambda params: module.apply(params, X))(shapes)
    primitives = {equation.primitive.name for equation in program.eqns}
    if scan:
        body = next(
            equation for equation in program.eqns if equation.primitive.name == "scan"
        ).params["jaxpr"]
        primitives |= {equation.primitive.name for equation in body.eqns}
    assert ("scan" in primitives) == scan
    assert any(name.startswith(("remat", "checkpoint")) for name in primitives) == (
        policy != "none"
    ), primitives


@pytest.mark.full
def test_kernels_cast_before_the_scan_have_the_same_gradients_and_halve_what_the_scan_stacks():
    precision = Precision(jnp.bfloat16)
    module = Transformer(dataclasses.replace(OPTIONS, precision=precision), scan=True)
    params = parameters(module, X)
    axes = named_axes(module.init(KEY, X)["params"])

    def working_copy(params):
        return precision.working_copy(params, axes)

    def gradient_of(prepare):
        return jax.grad(
            lambda params: module.apply({"params": prepare(params)}, X).astype(jnp.float32).sum()
        )

    def stacked_bytes(prepare):
        loop = [
            equation
            for equation in jax.make_jaxpr(gradient_of(prepare))(params).eqns
            if equation.primitive.name == "scan"
        ][-1]
        return sum(value.aval.size * value.aval.dtype.itemsize for value in loop.outvars)

    plain, copied = (
        jax.jit(gradient_of(prepare))(params) for prepare in (lambda params: params, working_copy)
    )
    jax.tree.map(np.testing.assert_array_equal, copied, plain)
    assert {leaf.dtype for leaf in jax.tree.leaves(copied)} == {jnp.dtype("float32")}
    assert stacked_bytes(working_copy) < 0.65 * stacked_bytes(lambda params: params)


@pytest.mark.full
def test_rematerialisation_keeps_less_for_the_backward_pass():
    def kept(policy, *saved):
        module = Transformer(OPTIONS, rematerialisation=policy, saved=saved)
        backward = jax.eval_shape(
            lambda params: jax.vjp(lambda params: module.apply({"params": params}, X), params)[1],
            parameters(module, X),
        )
        return sum(leaf.size for leaf in jax.tree.leaves(backward))

    assert kept("full") < kept("save_matmuls") < kept("none")
    assert kept("full") == kept("save_names")
    offered = typing.get_args(typing.get_args(typing.get_type_hints(StackConfig)["saved"])[0])
    for name in offered:
        more, size = (
            kept("save_names", name) - kept("full"),
            X.size * (1.5 if name == "hidden" else 1) * OPTIONS.depth,
        )
        # that one is the next layer's input
        assert more == 0 if name == "mlp_residual" else 0.9 * size <= more <= size, name


@pytest.mark.variants
@pytest.mark.parametrize(
    "changes",
    [{}, {"qk_norm": True}, {"layer_scale": 0.1}, {"norm": "post"}, {"dropout": 0.2}],
    ids=str,
)
def test_save_matmuls_computes_no_product_with_parameters_twice(changes):
    def products(policy):
        module = Transformer(dataclasses.replace(OPTIONS, **changes), rematerialisation=policy)
        program = str(
            jax.make_jaxpr(jax.grad(lambda params: module.apply({"params": params}, X).sum()))(
                parameters(module, X)
            )
        )
        return program.count("dot_general")

    dense, attention = 6 * OPTIONS.depth, 2 * OPTIONS.depth
    # the input itself needs no gradient
    assert products("none") == 3 * (dense + attention) - 3 * (changes == {"norm": "post"})
    assert products("save_matmuls") - products("none") <= attention
    assert products("full") - products("none") >= dense


def test_stochastic_depth_drops_whole_examples_at_its_rate_and_keeps_the_mean():
    dropped = np.asarray(drop_branch(KEY, jnp.ones((4000, 3, 2)), rate=jnp.float32(0.3)))
    np.testing.assert_array_equal(dropped, np.broadcast_to(dropped[:, :1, :1], dropped.shape))
    assert set(np.unique(dropped)) == {np.float32(0), np.float32(1 / 0.7)}
    assert abs((dropped == 0).mean() - 0.3) < 0.03  # four standard deviations
    assert abs(dropped.mean() - 1.0) < 0.05


@pytest.mark.full
@pytest.mark.parametrize("scan", [False, True], ids=["unrolled", "scanned"])
def test_stochastic_depth_grows_linearly_from_the_first_layer_and_is_off_in_evaluation(scan):
    params = parameters(Transformer(OPTIONS), X)
    params = stacked(params) if scan else params
    same = jnp.broadcast_to(X[:1], (256, 6, 16))
    outputs = Transformer(OPTIONS, 0.5, scan, train=True).apply(
        {"params": params}, same, rngs={"dropout": KEY}
    )
    kinds, counts = np.unique(np.asarray(outputs)[:, 0, :4].round(4), axis=0, return_counts=True)
    assert len(kinds) == 4  # attention and MLP of the second layer alone, each with or without
    assert counts.min() > 256 * 0.15
    evaluated = Transformer(OPTIONS, 0.5, scan).apply({"params": params}, X)
    np.testing.assert_array_equal(
        evaluated, Transformer(OPTIONS, 0.0, scan).apply({"params": params}, X)
    )


def test_cross_attention_reads_only_the_visible_memory():
    layer = TransformerLayer(dataclasses.replace(OPTIONS, cross_attention=True))
    memory = jax.random.normal(jax.random.key(7), (4, 5, 16))
    visible = np.arange(5) < np.array([[5], [3], [1], [0]])
    inputs = AttentionInputs(mask=MASK, memory=memory, memory_mask=visible)
    params = parameters(layer, X, None, inputs)

    def run(memory):
        return np.asarray(layer.apply({"params": params}, X, None, inputs.replace(memory=memory)))

    np.testing.assert_array_equal(run(memory), run(jnp.where(visible[..., None], memory, 7.0)))
    assert (
        np.abs(run(memory) - run(memory.at[:, 0].add(1.0))).max(axis=(1, 2)) > 1e-3
    ).tolist() == [True, True, True, False]


def test_post_norm_normalises_the_output_and_pre_norm_does_not():
    for norm, expected in (("post", True), ("pre", False)):
        module = Transformer(dataclasses.replace(OPTIONS, norm=norm))
        y = np.asarray(module.apply(module.init(KEY, X), X))
        assert np.allclose(y.mean(axis=-1), 0, atol=1e-5) == expected
        assert np.allclose(y.std(axis=-1), 1, atol=1e-3) == expected


def test_qk_norm_makes_attention_blind_to_the_size_of_queries_and_keys():
    for qk_norm in (True, False):
        layer = TransformerLayer(dataclasses.replace(OPTIONS, qk_norm=qk_norm))
        params = parameters(layer, X, None)
        larger = {
            **params["attention"],
            "query": jax.tree.map(lambda leaf: 50 * leaf, params["attention"]["query"]),
        }
        a, b = (
            layer.apply({"params": {**params, "attention": attention}}, X, None)
            for attention in (params["attention"], larger)
        )
        assert (jnp.abs(a - b).max() < 1e-3) == qk_norm


def test_layer_scale_starts_at_its_value_and_at_zero_leaves_the_input_alone():
    module = Transformer(dataclasses.replace(OPTIONS, layer_scale=0.0))
    np.testing.assert_array_equal(module.apply(module.init(KEY, X), X), X)
    params = nn.meta.unbox(
        Transformer(dataclasses.replace(OPTIONS, layer_scale=1e-2)).init(KEY, X)
    )["params"]["layer_0"]
    np.testing.assert_array_equal(params["attention_layer_scale"], np.full(16, 1e-2, np.float32))
    np.testing.assert_array_equal(params["mlp_layer_scale"], np.full(16, 1e-2, np.float32))


def test_attention_pooling_ignores_masked_tokens():
    module = AttentionPooling(OPTIONS)
    params = parameters(module, X, MASK)
    hidden = jnp.where(MASK[..., None], X, 100.0)
    np.testing.assert_array_equal(
        *(module.apply({"params": params}, tokens, MASK) for tokens in (X, hidden))
    )
    assert (
        jnp.abs(
            module.apply({"params": params}, X + 1, MASK)
            - module.apply({"params": params}, X, MASK)
        ).max()
        > 1e-3
    )


@pytest.mark.variants
@pytest.mark.parametrize(
    ("pooling", "stem"), [("cls", "patch"), ("mean", "convolution"), ("map", "patch")]
)
@pytest.mark.parametrize("scan", [False, True], ids=["unrolled", "scanned"])
@pytest.mark.parametrize("compute", ["float32", "bfloat16"])
def test_parameters_are_float32_and_every_activation_is_of_the_compute_dtype(
    compute, scan, pooling, stem
):
    tower = dict(
        preset="Ti",
        width=16,
        depth=2,
        heads=2,
        mlp_dim=24,
        qk_norm=True,
        layer_scale=0.1,
        scan=scan,
    )
    image = ViTConfig(
        **tower,
        image_size=16,
        patch_size=4,
        pooling=pooling,
        registers=2,
        embedding_norm=True,
        stem=stem,
        stem_channels=(8, 16),
        stem_strides=(2, 2),
    )
    text = TextTransformerConfig(**tower, vocab_size=20, length=6, causal=False, pooling=pooling)
    module = VisionLanguageModel(
        ModelConfig(image=image, text=text, embedding_dim=12), Precision(jnp.dtype(compute))
    )
    inputs = jnp.ones((2, 16, 16, 3)), jnp.ones((2, 6), jnp.int32)
    variables = jax.eval_shape(lambda: nn.meta.unbox(module.init(KEY, *inputs)))
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}

    def run(variables):
        return module.apply(
            variables, *inputs, capture_intermediates=True, mutable=["intermediates"]
        )

    embeddings, captured = jax.eval_shape(run, variables)
    assert {embedding.dtype for embedding in embeddings} == {jnp.dtype(jnp.float32)}
    activations = [
        (jax.tree_util.keystr(path), leaf.dtype)
        for path, leaf in jax.tree_util.tree_leaves_with_path(captured["intermediates"])
        if jnp.issubdtype(leaf.dtype, jnp.floating) and path[0].key != "__call__"
    ]
    assert len(activations) > 10
    assert [path for path, dtype in activations if dtype != jnp.dtype(compute)] == []


def test_activations_of_a_layer_lie_as_their_axes_are_ruled():
    """Along heads and hidden units inside, along the width between, and the batch everywhere."""
    rules = (
        ("batch", ("data", "fsdp")),
        ("tokens", None),
        ("activation_embed", None),
        ("activation_heads", "tensor"),
        ("activation_mlp", "tensor"),
    )
    layout = Layout(build_mesh(MeshConfig(data=2, fsdp=2, tensor=2)), rules)
    params = parameters(TransformerLayer(OPTIONS), X, None)
    with layout_in_use(layout):
        program = jax.make_jaxpr(TransformerLayer(OPTIONS).apply)({"params": params}, X, None)
    specs = [
        equation.params["sharding"].spec
        for equation in program.eqns
        if equation.primitive.name == "sharding_constraint"
    ]
    inside, between = (
        PartitionSpec(("data", "fsdp"), None, "tensor"),
        PartitionSpec(("data", "fsdp"), None, None),
    )
    assert specs == [inside] * 3 + [between, inside, between]
