"""The same training on every mesh: five updates of a tiny model against those on one device, and
where its arrays lie."""

import dataclasses
import functools
import re

import jax
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec

from vlp_jax.config import base, to_config
from vlp_jax.experiment import Experiment
from vlp_jax.sharding.mesh import batch_sharding, build_mesh
from vlp_jax.sharding.parameter_sharding import path_of
from vlp_jax.sharding.rules import build_layout
from vlp_jax.training.accumulation import prepare
from vlp_jax.training.build import build_module
from vlp_jax.training.evaluation import with_layout
from vlp_jax.training.optimizer import build_optimizer
from vlp_jax.training.state import abstract_state, boxed_parameters, create_state
from vlp_jax.training.step import build_train_step

TOWER = dict(preset="Ti", width=16, depth=2, heads=4, mlp_dim=32, scan=True, activation="relu")
BATCH, STEPS = 16, 5
SMALL = 64  # elements, below which this test's parameters lie whole


def experiment(kind="adamw", **mesh):
    config = base()
    config.update(steps=10, ema=0.9, objectives=dict(contrastive=dict(kind="clip")))
    config.data.batch_size = BATCH
    config.model.image.update(TOWER, patch_size=4, image_size=8)
    config.model.text.update(TOWER, vocab_size=24, length=5)
    config.optimizer.update(kind=kind, learning_rate=0.01, weight_decay=0.1)
    config.mesh.update(mesh, replicate_below=SMALL)
    return to_config(config.to_dict())


def batch_of(seed):
    rng = np.random.default_rng(seed)
    ids = np.stack([np.arange(BATCH), np.arange(BATCH)], axis=1).astype(np.int32)
    return {
        "image": rng.integers(0, 256, (BATCH, 8, 8, 3)).astype(np.uint8),
        "caption_id": ids,
        "image_id": ids + 100,
        "text": rng.integers(0, 24, (BATCH, 5)).astype(np.int32),
        "text_mask": np.arange(5) < rng.integers(1, 6, (BATCH, 1)),
    }


@dataclasses.dataclass
class Trained:
    """What five updates left behind: their losses, the state, the compiled update's text."""

    losses: list
    state: object
    program: str


@functools.cache
def initial_parameters():
    """The same for every optimizer and mesh."""
    config = experiment()
    example = prepare(batch_of(0), config.data.images)
    return jax.jit(
        lambda: create_state(build_module(config), example, optax.identity(), config.seed, True)
    )()


def train(config: Experiment, devices: int) -> Trained:
    mesh = build_mesh(config.mesh, jax.devices()[:devices])
    layout, module = build_layout(config.mesh, mesh), build_module(config)
    rate, example = (
        optax.constant_schedule(config.optimizer.learning_rate),
        prepare(batch_of(0), config.data.images),
    )
    optimizer = build_optimizer(config.optimizer, rate, boxed_parameters(module, example))
    shapes, shardings = abstract_state(module, example, optimizer, config.seed, True, layout)
    step = jax.jit(
        with_layout(build_train_step(config, module, optimizer, rate), layout),
        out_shardings=(shardings, None),
        in_shardings=(shardings, batch_sharding(mesh)),
    )
    state = initial_parameters()
    # as each of them starts
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes.optimizer)
    state = jax.device_put(state.replace(optimizer=zeros), shardings)
    compiled = step.lower(shapes, batch_of(0)).compile()
    losses = []
    for seed in range(STEPS):
        state, metrics = compiled(state, jax.device_put(batch_of(seed), batch_sharding(mesh)))
        losses.append(float(metrics["loss"]))
    return Trained(losses, state, compiled.as_text())


@pytest.fixture(scope="module")
def one_device():
    return train(experiment(), 1)


MESHES = {
    "data": dict(strategy="data"),
    "fsdp": dict(strategy="fsdp", data=2, fsdp=4),
    "tensor": dict(strategy="tensor", tensor=4),
    "fsdp+tensor": dict(strategy="fsdp+tensor", data=2, fsdp=2, tensor=2),
}


@pytest.fixture(scope="module")
def trained():
    """`trained("fsdp")`: five updates on eight devices by a strategy, computed once for the
    module."""
    done = {}

    def by(strategy):
        if strategy not in done:
            done[strategy] = train(experiment(**MESHES[strategy]), 8)
        return done[strategy]

    return by


@pytest.mark.full
@pytest.mark.parametrize("strategy", MESHES)
def test_every_strategy_on_eight_devices_trains_as_one_device_does(one_device, trained, strategy):
    assert one_device.losses[-1] != one_device.losses[0]
    np.testing.assert_allclose(trained(strategy).losses, one_device.losses, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("devices", [2, 4])
def test_the_losses_do_not_depend_on_the_number_of_devices(one_device, devices):
    np.testing.assert_allclose(train(experiment(), devices).losses, one_device.losses, rtol=1e-5)


def leaves(tree):
    return {path_of(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


# (strategy, a parameter, the axes it lies on, the shape of one device's part)
PLACES = [
    (
        "fsdp",
        "model/image/transformer/layers/attention/query/kernel",
        (None, "fsdp", None, None),
        (2, 4, 4, 4),
    ),
    (
        "fsdp+tensor",
        "model/image/transformer/layers/attention/out/kernel",
        (None, "tensor", None, "fsdp"),
        (2, 2, 4, 8),
    ),
    ("data", "model/image/transformer/layers/attention/query/kernel", (), (2, 16, 4, 4)),
    ("fsdp", "model/image/transformer/layers/mlp/out/kernel", (None, None, "fsdp"), (2, 32, 4)),
    ("fsdp", "model/text/tokens/embedding", (None, "fsdp"), (24, 4)),
    (
        "tensor",
        "model/image/transformer/layers/attention/query/kernel",
        (None, None, "tensor", None),
        (2, 16, 1, 4),
    ),
    ("tensor", "model/text/transformer/layers/mlp/in/kernel", (None, None, "tensor"), (2, 16, 8)),
    ("tensor", "model/text/tokens/embedding", ("tensor", None), (6, 16)),
    ("fsdp+tensor", "model/text/tokens/embedding", ("tensor", "fsdp"), (12, 8)),
]


@pytest.mark.variants
@pytest.mark.parametrize(("strategy", "path", "axes", "part"), PLACES)
def test_parameters_their_moments_and_their_average_lie_by_the_strategy(
    trained, strategy, path, axes, part
):
    """Read off the arrays that the update returned: each of the eight devices holds a part of these
    bytes, no more."""
    state = trained(strategy).state
    copies = [
        leaves(state.params)[path],
        leaves(state.ema)[path],
        *(leaf for name, leaf in leaves(state.optimizer).items() if name.endswith(path)),
    ]
    assert len(copies) == 4  # parameter, average, first and second moment
    for array in copies:
        padded = (*array.sharding.spec, *(None,) * (array.ndim - len(array.sharding.spec)))
        assert padded == (*axes, *(None,) * (array.ndim - len(axes)))
        assert [shard.data.nbytes for shard in array.addressable_shards] == [
            4 * int(np.prod(part))
        ] * 8


@pytest.mark.parametrize("strategy", ["fsdp", pytest.param("fsdp+tensor", marks=pytest.mark.full)])
def test_small_parameters_lie_whole_on_every_device(trained, strategy):
    """Below 64 elements a layer: biases, norms, tokens, the scale; nothing that is larger does.

    `tensor` still divides what is used apart: the biases of heads and hidden units.
    """
    for path, array in leaves(trained(strategy).state.params).items():
        elements = array.size // (2 if "/layers/" in path else 1)
        apart = strategy == "fsdp+tensor" and re.search(r"(query|key|value|mlp/in)/bias", path)
        assert array.sharding.is_fully_replicated == (elements < SMALL and not apart), path
        assert not apart or array.sharding.spec[:2] == (None, "tensor")


def test_the_state_of_a_device_shrinks_with_the_devices_that_share_it(trained):
    """Bytes of the large arrays: a quarter by fsdp=4, exactly."""
    state = trained("fsdp").state
    large = [
        leaf
        for leaf in jax.tree.leaves((state.params, state.optimizer, state.ema))
        if not leaf.sharding.is_fully_replicated
    ]
    assert len(large) > 40
    for device in jax.devices():
        held = sum(
            shard.data.nbytes
            for leaf in large
            for shard in leaf.addressable_shards
            if shard.device == device
        )
        assert 4 * held == sum(leaf.nbytes for leaf in large)


@pytest.mark.full
def test_activations_lie_along_the_batch(trained):
    """On eight devices by `data` the compiled update sees two of the sixteen rows, and never all of
    a layer's tokens."""
    program = trained("data").program
    assert "f32[2,5,16]" in program and "f32[16,5,16]" not in program
    assert "f32[2,5,32]" in program and "f32[16,5,32]" not in program


@pytest.mark.full
def test_activations_lie_along_heads_and_hidden_units(trained):
    """By `fsdp+tensor` four devices divide the rows, and two what is computed apart: no device sees
    all 32 hidden units."""
    program = trained("fsdp+tensor").program
    assert "f32[4,5,16]" in program and "5,32]" not in program


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["adafactor", "muon"])
def test_other_optimizers_train_on_a_mesh_as_on_one_device(kind):
    """Muon's Newton-Schulz iteration and Adafactor's factored moments work on divided matrices."""
    expected, there = (
        train(experiment(kind), 1),
        train(experiment(kind, **MESHES["fsdp+tensor"]), 8),
    )
    np.testing.assert_allclose(there.losses, expected.losses, rtol=1e-5)
    path = "model/text/transformer/layers/mlp/in/kernel"
    moments = [
        leaf
        for name, leaf in leaves(there.state.optimizer).items()
        if name.endswith(path) and leaf.ndim == 3
    ]
    assert moments and all(
        leaf.sharding.spec == PartitionSpec(None, "fsdp", "tensor") for leaf in moments
    )
