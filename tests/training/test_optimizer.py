"""The Optax chain: each kind, and the rules that say which parameters decay, move slower, or do not
move at all."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vlp_jax.errors import ConfigError
from vlp_jax.training.freeze import zero_frozen
from vlp_jax.training.optimizer import build_optimizer, only_where_trained
from vlp_jax.training.optimizers.base import OptimizerConfig
from vlp_jax.training.optimizers.muon import MuonConfig

RNG = np.random.default_rng(0)
PARAMS = {
    "model": {
        "image": {"kernel": jnp.asarray(RNG.normal(size=(4, 3)), jnp.float32), "bias": jnp.ones(3)},
        "text": {"kernel": jnp.asarray(RNG.normal(size=(3, 2)), jnp.float32)},
    },
    "objectives_contrastive": {"log_scale": jnp.float32(2.0)},
}
ZEROS = jax.tree.map(jnp.zeros_like, PARAMS)
INPUT, TARGET = (
    jnp.asarray(RNG.normal(size=(16, 4)), jnp.float32),
    jnp.asarray(RNG.normal(size=(16, 2)), jnp.float32),
)


def loss(params):
    image, text = params["model"]["image"], params["model"]["text"]
    output = (
        (INPUT @ image["kernel"] + image["bias"])
        @ text["kernel"]
        * params["objectives_contrastive"]["log_scale"]
    )
    return jnp.square(output - TARGET).mean()


def run(optimizer, steps, params=PARAMS):
    @jax.jit
    def step(params, state):
        updates, state = optimizer.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    state = optimizer.init(params)
    for _ in range(steps):
        params, state = step(params, state)
    return params, state


def with_axes(path, leaf):
    return nn.LogicallyPartitioned(leaf, ("embed", "mlp")) if path[-1].key == "kernel" else leaf


BOXED = jax.tree_util.tree_map_with_path(with_axes, PARAMS)


def built(kind="adamw", learning_rate=0.01, **fields):
    return build_optimizer(
        OptimizerConfig.of(kind, **fields), optax.constant_schedule(learning_rate), BOXED
    )


def assert_equal_trees(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.variants
@pytest.mark.parametrize(
    "fields",
    [
        dict(kind="adamw", weight_decay=0.01),
        dict(kind="adam"),
        dict(kind="sgd"),
        dict(kind="sgd", momentum=0.0),
        dict(kind="lion", weight_decay=0.01),
        dict(kind="muon", weight_decay=0.01),
        dict(kind="adafactor"),
        dict(kind="adafactor", b1=0.0),
    ],
    ids=str,
)
def test_every_kind_brings_a_loss_down(fields):
    params, _ = run(built(**fields), 60)
    assert float(loss(params)) < 0.7 * float(loss(PARAMS))


MASK = {
    "model": {"image": {"kernel": True, "bias": False}, "text": {"kernel": True}},
    "objectives_contrastive": {"log_scale": False},
}


@pytest.mark.variants
@pytest.mark.parametrize(
    ("fields", "theirs"),
    [
        (
            dict(kind="adamw", b1=0.8, b2=0.95, epsilon=1e-4, weight_decay=0.3),
            lambda rate: optax.adamw(rate, 0.8, 0.95, 1e-4, weight_decay=0.3, mask=MASK),
        ),
        (
            dict(kind="adam", b1=0.8, b2=0.95, epsilon=1e-4),
            lambda rate: optax.adam(rate, 0.8, 0.95, 1e-4),
        ),
        (dict(kind="sgd", momentum=0.7), lambda rate: optax.sgd(rate, 0.7)),
        (
            dict(kind="sgd", momentum=0.0, clip_norm=0.1),
            lambda rate: optax.chain(optax.clip_by_global_norm(0.1), optax.sgd(rate)),
        ),
        (
            dict(kind="lion", b1=0.8, b2=0.95, weight_decay=0.3),
            lambda rate: optax.lion(rate, 0.8, 0.95, weight_decay=0.3, mask=MASK),
        ),
    ],
    ids=lambda value: value["kind"] if isinstance(value, dict) else "",
)
def test_the_chain_is_that_of_optax(fields, theirs):
    rate = optax.linear_schedule(0.05, 0.01, 6)
    ours = build_optimizer(OptimizerConfig.of(**fields), rate, PARAMS)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6),
        run(ours, 6)[0],
        run(theirs(rate), 6)[0],
    )


@pytest.mark.parametrize("b2", [0.3, 0.999])
def test_second_moments_of_adafactor_decay_by_1_minus_a_power_of_the_step_up_to_b2(b2):
    optimizer, moment = built(learning_rate=1.0, kind="adafactor", b1=0.0, b2=b2), 0.0
    state = optimizer.init(PARAMS)
    for step in range(1, 8):
        slope = 1.0 / step
        updates, state = optimizer.update(
            jax.tree.map(lambda leaf, slope=slope: jnp.full_like(leaf, slope), PARAMS),
            state,
            PARAMS,
        )
        decay = min(1.0 - step**-0.8, b2)
        moment = decay * moment + (1.0 - decay) * slope**2
        np.testing.assert_allclose(
            updates["model"]["image"]["bias"], -min(1.0, slope / np.sqrt(moment)), rtol=1e-5
        )


@pytest.mark.variants
@pytest.mark.parametrize("kind", OptimizerConfig.kinds)
def test_every_setting_of_the_moments_of_a_kind_changes_what_it_does(kind):
    def last_update(**fields):
        """After gradients that point now here, now there."""
        optimizer, rng = built(kind=kind, **fields), np.random.default_rng(0)
        state, update = optimizer.init(PARAMS), jax.jit(optimizer.update)
        for _ in range(6):
            gradients = jax.tree.map(
                lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), jnp.float32), PARAMS
            )
            updates, state = update(gradients, state, PARAMS)
        return jax.tree.leaves(updates)

    usual = last_update()
    changed = dict(b1=0.1, b2=0.3, epsilon=0.1, momentum=0.1, newton_schulz_steps=1)
    own = [field.name for field in dataclasses.fields(OptimizerConfig.kinds[kind])]
    for name in own[len(dataclasses.fields(OptimizerConfig)) :]:
        assert not all(
            np.array_equal(a, b)
            for a, b in zip(usual, last_update(**{name: changed[name]}), strict=True)
        ), name


@pytest.mark.full
@pytest.mark.parametrize("kind", ["muon", "adamw", "lion", "sgd"])
def test_parameters_without_any_gradient_stay_and_the_others_move_as_ever(kind):
    plain = built(kind=kind, weight_decay=0.1)
    optimizer, gradients = only_where_trained(plain, PARAMS), jax.tree.map(jnp.ones_like, PARAMS)
    _, state = optimizer.update(gradients, optimizer.init(PARAMS), PARAMS)
    some = {
        **gradients,
        "model": {
            **gradients["model"],
            "text": jax.tree.map(jnp.zeros_like, PARAMS["model"]["text"]),
        },
    }
    moved, ordinary = (which.update(some, state, PARAMS)[0] for which in (optimizer, plain))
    assert_equal_trees(
        moved["model"]["text"], jax.tree.map(jnp.zeros_like, PARAMS["model"]["text"])
    )
    assert jnp.abs(ordinary["model"]["text"]["kernel"]).max() > 0
    assert_equal_trees(moved["model"]["image"], ordinary["model"]["image"])


def test_decay_rules_are_multiples_and_the_first_match_decides():
    rules = ((r"bias$", 0.0), (r"image/", 0.5), (r"kernel$", 1.0), (r"log_scale", 2.0))
    optimizer = built(learning_rate=0.1, kind="sgd", weight_decay=0.4, decay_multipliers=rules)
    updates, _ = optimizer.update(ZEROS, optimizer.init(PARAMS), PARAMS)
    factors = {
        "model": {"image": {"kernel": 0.5, "bias": 0.0}, "text": {"kernel": 1.0}},
        "objectives_contrastive": {"log_scale": 2.0},
    }
    jax.tree.map(
        lambda update, param, factor: np.testing.assert_allclose(
            update, -0.1 * 0.4 * factor * param, rtol=1e-6
        ),
        updates,
        PARAMS,
        factors,
    )


def test_weight_decay_coupled_to_the_schedule_is_that_of_big_vision():
    """big_vision/optax.py: moments, scale(rate), rate multipliers, then wd * parameter, all times
    the schedule from 0 to 1."""
    relative = optax.linear_schedule(0.2, 1.0, 5)
    rules = dict(
        decay_multipliers=((r"kernel$", 1.0), (r".*", 0.0)), lr_multipliers=((r"model/text/", 0.1),)
    )
    ours = build_optimizer(
        OptimizerConfig.of(
            "adamw",
            learning_rate=1e-3,
            weight_decay=1e-2,
            decay_coupling="schedule",
            b2=0.95,
            **rules,
        ),
        lambda step: 1e-3 * relative(step),
        PARAMS,
    )
    slower = {
        "model": {"image": {"kernel": 1.0, "bias": 1.0}, "text": {"kernel": 0.1}},
        "objectives_contrastive": {"log_scale": 1.0},
    }
    theirs = optax.chain(
        optax.scale_by_adam(0.9, 0.95, 1e-6),
        optax.scale(1e-3),
        optax.stateless(lambda updates, _: jax.tree.map(jnp.multiply, updates, slower)),
        optax.add_decayed_weights(1e-2, MASK),
        optax.scale_by_schedule(relative),
        optax.scale(-1.0),
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), run(ours, 6)[0], run(theirs, 6)[0]
    )
    with pytest.raises(
        ConfigError, match="optimizer.decay_coupling: 'schedule' divides by optimizer.learning_rate"
    ):
        build_optimizer(
            OptimizerConfig.of(learning_rate=0.0, weight_decay=1e-2, decay_coupling="schedule"),
            optax.constant_schedule(0.0),
            PARAMS,
        )


def test_by_default_neither_biases_nor_scales_decay():
    optimizer = built(learning_rate=0.1, weight_decay=0.4)
    updates, _ = optimizer.update(ZEROS, optimizer.init(PARAMS), PARAMS)
    moved = jax.tree.map(lambda update: bool(jnp.abs(update).max() > 0), updates)
    assert moved == MASK


def test_rate_rules_multiply_the_whole_update():
    gradients = jax.tree.map(jnp.ones_like, PARAMS)
    fields = dict(kind="adamw", weight_decay=0.2)
    plain, slower = (
        optimizer.update(gradients, optimizer.init(PARAMS), PARAMS)[0]
        for optimizer in (
            built(**fields),
            built(**fields, lr_multipliers=((r"model/image/", 0.25), (r"log_scale", 3.0))),
        )
    )
    factors = {
        "model": {"image": {"kernel": 0.25, "bias": 0.25}, "text": {"kernel": 1.0}},
        "objectives_contrastive": {"log_scale": 3.0},
    }
    jax.tree.map(
        lambda a, b, factor: np.testing.assert_allclose(a, factor * b, rtol=1e-6),
        slower,
        plain,
        factors,
    )


@pytest.mark.parametrize("kind", ["adamw", "sgd", "lion", "adafactor"])
def test_frozen_parameters_keep_every_bit_and_have_no_moments(kind):
    fields = dict(kind=kind, weight_decay=0.3, clip_norm=1.0, lr_multipliers=((r"text/", 0.5),))
    params, state = run(built(**fields, frozen=(r"model/image/",)), 5)
    assert_equal_trees(params["model"]["image"], PARAMS["model"]["image"])
    assert not np.allclose(params["model"]["text"]["kernel"], PARAMS["model"]["text"]["kernel"])
    assert float(params["objectives_contrastive"]["log_scale"]) != 2.0
    kept = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(state)]
    assert any("text" in path for path in kept) and not any("image" in path for path in kept)


def test_frozen_parameters_do_not_count_in_the_clipped_norm():
    gradients = {
        **jax.tree.map(lambda leaf: 1e6 * jnp.ones_like(leaf), PARAMS),
        "objectives_contrastive": {"log_scale": jnp.float32(0.5)},
    }
    optimizer = built(
        learning_rate=1.0, kind="sgd", momentum=0.0, clip_norm=1.0, frozen=(r"^model/",)
    )
    updates, _ = optimizer.update(gradients, optimizer.init(PARAMS), PARAMS)
    assert updates["objectives_contrastive"]["log_scale"] == -0.5
    zeroed = zero_frozen(gradients, (r"^model/",))
    assert_equal_trees(zeroed["model"], jax.tree.map(jnp.zeros_like, PARAMS["model"]))
    assert zeroed["objectives_contrastive"]["log_scale"] == 0.5
    assert zero_frozen(gradients, ()) is gradients


@pytest.mark.parametrize("rules", ["frozen", "decay_multipliers", "lr_multipliers"])
@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("modle/", "matches no parameter; paths look like model/image/bias"),
        ("(", "is not a regular expression"),
    ],
)
def test_a_rule_that_can_match_nothing_is_a_config_error_that_names_it(rules, pattern, message):
    value = (pattern,) if rules == "frozen" else ((r"kernel", 1.0), (pattern, 0.5))
    with pytest.raises(ConfigError, match=f"optimizer.{rules}: .*{message}"):
        built(**{rules: value})


def test_a_run_that_trains_nothing_is_a_config_error():
    with pytest.raises(
        ConfigError,
        match="optimizer.frozen: '' finds every parameter, and leaves none to be trained",
    ):
        built(frozen=("",))


def test_adam_with_weight_decay_is_a_config_error():
    with pytest.raises(ConfigError, match="kind='adamw'"):
        built(kind="adam", weight_decay=0.1)


MATRICES = {
    "embed heads head_dim": ((4, 2, 3), (4, 6)),
    "heads head_dim embed": ((2, 3, 4), (6, 4)),
    "mlp embed": ((6, 4), (6, 4)),
    "kernel_height kernel_width channels embed": ((3, 3, 2, 4), (18, 4)),
    "layers embed mlp": ((5, 4, 6), None),
    "layers heads head_dim embed": ((5, 2, 3, 4), (5, 6, 4)),
    "patch embed mlp": ((2, 3, 4), (6, 4)),
    "embed state": ((4, 6), (4, 6)),
}


@pytest.mark.variants
@pytest.mark.parametrize("axes", MATRICES)
def test_muon_moves_a_kernel_by_an_almost_orthogonal_matrix(axes):
    """Singular values after five Newton-Schulz steps lie about 1 (Jordan 2024), times 0.2 sqrt of
    the longer side."""
    shape, matrix = MATRICES[axes]
    params = {"any": {"name": jnp.zeros(shape)}}
    boxed = {"any": {"name": nn.LogicallyPartitioned(jnp.zeros(shape), tuple(axes.split()))}}
    optimizer = build_optimizer(
        MuonConfig(decay_multipliers=()), optax.constant_schedule(1.0), boxed
    )
    gradients = {"any": {"name": jnp.asarray(RNG.normal(size=shape) * 1e-3, jnp.float32)}}
    update = np.asarray(
        optimizer.update(gradients, optimizer.init(params), params)[0]["any"]["name"]
    )
    for layer in update.reshape(-1, *(matrix or shape)[-2:]):
        values = np.linalg.svd(layer / (0.2 * max(layer.shape) ** 0.5), compute_uv=False)
        assert values.min() > 0.5
        assert values.max() < 1.3


@pytest.mark.parametrize("steps", [1, 3, 5])
def test_muon_takes_as_many_steps_of_newton_and_schulz_as_it_is_told(steps):
    """Jordan 2024: X <- a X + (b A + c A A) X with A = X X^T, from the gradient over its Frobenius
    norm."""
    gradient = RNG.normal(size=(4, 6))
    config = MuonConfig(newton_schulz_steps=steps, decay_multipliers=())
    params = {"mlp": {"in": {"kernel": jnp.zeros((4, 6))}}}
    boxed = {
        "mlp": {"in": {"kernel": nn.LogicallyPartitioned(jnp.zeros((4, 6)), ("embed", "mlp"))}}
    }
    optimizer = build_optimizer(config, optax.constant_schedule(1.0), boxed)
    gradients = {"mlp": {"in": {"kernel": jnp.asarray(gradient, jnp.float32)}}}
    update = optimizer.update(gradients, optimizer.init(params), params)[0]["mlp"]["in"]["kernel"]
    x = gradient / np.linalg.norm(gradient)
    for _ in range(steps):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    np.testing.assert_allclose(update, -0.2 * 6**0.5 * x, rtol=2e-4, atol=1e-5)


def test_muon_leaves_embeddings_biases_and_what_tells_classes_to_adam_with_nesterov_momentum():
    shapes = {
        "vocab embed": (7, 4),
        "embed": (4,),
        "embed targets": (4, 7),
        "heads head_dim": (2, 3),
    }
    params = {
        f"{axes}/kernel": jnp.zeros(shape) for axes, shape in {**shapes, "": (1, 5, 4)}.items()
    }
    boxed = {
        **params,
        **{
            f"{axes}/kernel": nn.LogicallyPartitioned(jnp.zeros(shape), tuple(axes.split()))
            for axes, shape in shapes.items()
        },
    }
    gradients = jax.tree.map(
        lambda leaf: jnp.asarray(RNG.normal(size=leaf.shape), jnp.float32), params
    )
    ours = build_optimizer(
        MuonConfig(b1=0.9, b2=0.99, epsilon=1e-8, decay_multipliers=()),
        optax.constant_schedule(0.1),
        boxed,
    )
    theirs = optax.nadam(0.1, 0.9, 0.99, 1e-8)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6),
        ours.update(gradients, ours.init(params), params)[0],
        theirs.update(gradients, theirs.init(params), params)[0],
    )
