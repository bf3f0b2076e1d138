"""Gradient accumulation: microbatches that give the gradients of the batch, and what cannot be
split."""

import dataclasses

import flax.core
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_experiment import BATCH, batch_of, experiment, leaves

from vlp_jax.errors import ConfigError
from vlp_jax.models.layers.transformer import Encoding, Precision
from vlp_jax.objectives.base import Loss, Objective, ObjectiveConfig
from vlp_jax.objectives.captioning import CaptioningConfig
from vlp_jax.objectives.contrastive import SigmoidContrastiveConfig, SoftmaxContrastiveConfig
from vlp_jax.objectives.masked_language import MaskedLanguageConfig
from vlp_jax.objectives.pretraining_module import PretrainingModule
from vlp_jax.sharding.layout import Layout, layout_in_use
from vlp_jax.sharding.mesh import MeshConfig, batch_sharding, build_mesh
from vlp_jax.sharding.rules import PRESETS
from vlp_jax.training.accumulation import (
    AccumulationConfig,
    at_once,
    check_accumulation,
    check_collections,
    loss_gradients,
    prepare,
    split,
)
from vlp_jax.training.build import build_module, example_batch
from vlp_jax.training.state import TrainState

KEY = jax.random.key(3)
DROPS = dict(
    model__image__stochastic_depth=0.4,
    model__image__depth=2,
    model__image__scan=True,
    model__image__token_drop=0.5,
    model__image__dropout=0.3,
)


def with_microbatches(config, count, negatives="batch"):
    return dataclasses.replace(
        config, accumulation=AccumulationConfig(microbatches=count, negatives=negatives)
    )


def repeated_captions(rows=BATCH):
    """A batch in which examples of different microbatches are each other's positives."""
    batch = batch_of(rows)
    batch["caption_id"][3] = batch["caption_id"][0]
    batch["image_id"][rows - 1] = batch["image_id"][4]
    return batch


def initial_state(config, module, dtype=np.float32):
    """Drawn with NumPy, since to compile the initial values takes longer than the rest."""
    shapes = nn.meta.unbox(
        jax.eval_shape(lambda: module.init(jax.random.key(1), example_batch(config)))
    )["params"]
    rng = np.random.default_rng(1)

    def draw(path, leaf):
        name = path[-1].key
        return jnp.asarray(
            rng.normal({"scale": 1.0, "log_scale": 2.0}.get(name, 0.0), 0.3, leaf.shape), dtype
        )

    params = jax.tree_util.tree_map_with_path(draw, flax.core.unfreeze(shapes))
    return TrainState(jnp.int32(0), params, None, None, {}, jax.random.key_data(KEY))


def gradients_of(config, module, state, batch):
    return compiled(config, module)(state, batch, KEY)


def compiled(config, module):
    return jax.jit(lambda state, batch, key: loss_gradients(config, module, state, batch, key)[:2])


def check_equal(found, expected, bound=1e-5):
    """Every parameter's gradient, and every metric."""
    (found, metrics), (expected, expected_metrics) = found, expected
    assert (
        leaves(found).keys() == leaves(expected).keys()
        and metrics.keys() == expected_metrics.keys()
    )
    largest = max(np.abs(value).max() for value in leaves(expected).values())
    for path, value in leaves(expected).items():
        # A softmax does not see what is added to all its logits: a key's bias has no gradient but
        # rounding.
        size = 0.1 * largest if path.endswith("key/bias") else np.abs(value).max()
        assert np.abs(leaves(found)[path] - value).max() <= bound * size, path
    for name, value in expected_metrics.items():
        np.testing.assert_allclose(metrics[name], value, rtol=bound, err_msg=name)


@pytest.fixture(scope="module")
def whole():
    """A ring loss, and the gradients of its batch of 16 at once on one device."""
    objective = dict(kind="clip", label_smoothing=0.1, implementation="ring")
    config = experiment(data__batch_size=16, objectives=dict(contrastive=objective))
    module, batch = build_module(config), repeated_captions(16)
    state = initial_state(config, module)
    return config, module, state, batch, gradients_of(config, module, state, batch)


@pytest.mark.full
def test_microbatches_give_the_gradient_of_the_batch_for_every_parameter(whole):
    config, module, state, batch, expected = whole
    assert np.abs(expected[0]["objectives_contrastive"]["log_scale"]) > 1e-3
    check_equal(gradients_of(with_microbatches(config, 4), module, state, batch), expected)


@pytest.mark.full
def test_over_a_mesh_the_gradients_are_those_of_one_device(whole):
    """Two rows of a microbatch on each of four devices, twice."""
    config, module, state, batch, expected = whole
    mesh = build_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    with layout_in_use(Layout(mesh, PRESETS["fsdp+tensor"])):
        found = gradients_of(
            with_microbatches(config, 2), module, state, jax.device_put(batch, batch_sharding(mesh))
        )
    check_equal(found, expected)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reconstruction(ObjectiveConfig):
    weight: float = 0.5

    needs = ("image",)

    def build(self):
        return ReconstructionObjective(self)


class ReconstructionObjective(Objective):
    """A mean over examples, with a head of its own, that looks at the encoding of the image and at
    the pixels."""

    @nn.compact
    def __call__(self, encodings, batch, model):
        mean = nn.Dense(3, param_dtype=jnp.float32, name="head")(encodings["image"].pooled)
        value = jnp.square(mean - batch["image"].mean(axis=(1, 2))).mean()
        return Loss(value, {"error": value**0.5})


class Wide(PretrainingModule):
    """Towers of one matrix each and dropout between, float64 wherever their parameters are."""

    drop: float = 0.0

    def setup(self):
        self.objectives, self.model = (
            {name: config.build() for name, config in self.objectives_config.items()},
            None,
        )
        self.dropout = nn.Dropout(self.drop)
        self.pixels = self.param("pixels", nn.initializers.normal(0.1), (192, 6), jnp.float32)
        self.words = self.param("words", nn.initializers.normal(1.0), (20, 6), jnp.float32)

    def encode(self, batch, needs, train):
        pixels = self.dropout(batch["image"].reshape(-1, 192), deterministic=not train)
        image = jnp.tanh(pixels @ self.pixels)
        text = jnp.tanh(self.words[batch["text"]].sum(axis=1))
        image_embedding, text_embedding = (
            x / jnp.linalg.norm(x, axis=1, keepdims=True) for x in (image, text)
        )
        return {
            "image": Encoding(image, None, image),
            "image_embedding": image_embedding,
            "text_embedding": text_embedding,
        }


def wide(config, drop=0.0, dtype=jnp.float32):
    return Wide(config.model, flax.core.freeze(config.objectives), Precision(dtype), drop)


@pytest.mark.full
@pytest.mark.parametrize(("dtype", "bound"), [(jnp.float32, 1e-5), (jnp.float64, 1e-12)])
def test_losses_that_couple_the_batch_and_means_over_examples_go_together_scales_and_bias_included(
    dtype, bound
):
    objectives = {
        "a": SigmoidContrastiveConfig(weight=0.7, implementation="chunked"),
        "b": Reconstruction(),
        "c": SoftmaxContrastiveConfig(label_smoothing=0.1),
    }
    with jax.enable_x64(dtype == jnp.float64):
        config = dataclasses.replace(experiment(), objectives=objectives)
        module, batch = wide(config, dtype=dtype), repeated_captions()
        state = initial_state(config, module, dtype)
        expected = gradients_of(config, module, state, batch)
        found = gradients_of(with_microbatches(config, 4), module, state, batch)
        assert expected[0]["pixels"].dtype == dtype
        assert expected[1].keys() >= {"a/loss", "b/loss", "b/error", "c/loss"}
        # a root: its mean over microbatches is another number
        expected[1].pop("b/error"), found[1].pop("b/error")
        check_equal(found, expected, bound)


TOWERS = {
    "matrices": lambda config: wide(config, drop=0.5),  # real towers compile for long
    "transformers": build_module,
}


@pytest.mark.full
@pytest.mark.parametrize(
    "towers", ["matrices", pytest.param("transformers", marks=pytest.mark.slow)]
)
def test_with_dropout_the_gradient_is_that_of_the_batch_whose_parts_drop_what_the_microbatches_drop(
    towers,
):
    config, count, names = experiment(**DROPS), 2, ("image_embedding", "text_embedding")
    module, batch = TOWERS[towers](config), repeated_captions()
    state = initial_state(config, module)

    def reference(params):
        parts = []
        for i, key in enumerate(jax.random.split(KEY, count)):
            part = prepare(
                {name: value[i::count] for name, value in batch.items()}, config.data.images
            )
            parts.append(
                module.apply(
                    {"params": params}, part, {*names}, True, rngs={"dropout": key}, method="encode"
                )
            )
        encodings = {
            name: jnp.stack([part[name] for part in parts], axis=1).reshape(BATCH, -1)
            for name in names
        }
        loss = module.apply({"params": params}, encodings, batch, ("contrastive",), method="losses")
        return loss.value, {"loss": loss.value, **loss.metrics}

    expected = jax.jit(jax.grad(reference, has_aux=True))(state.params)
    function = compiled(with_microbatches(config, count), module)
    check_equal(function(state, batch, KEY), expected)
    assert (
        abs(
            float(function(state, batch, jax.random.key(4))[1]["loss"]) - float(expected[1]["loss"])
        )
        > 1e-3
    )


@pytest.mark.slow
def test_dropout_is_the_same_in_both_passes_where_another_objective_needs_more_of_a_tower():
    """Fused encodings need all tokens, and with these a last layer drops other numbers than one
    that only the first comes from."""
    label = dict(kind="classification", target="label", features="fused", prior="batch", weight=0.0)
    both = dict(contrastive=dict(kind="clip"), label=label)
    targets = dict(label=dict(kind="class", field="group", names=("a", "b")))
    config = experiment(
        objectives=both,
        data__targets=targets,
        model__fusion=dict(kind="concatenation", width=8, mlp_dim=8),
        model__text__dropout=0.5,
        model__text__pooling="first",
        model__text__depth=2,
        model__text__causal=False,
    )
    count, names = 2, ("image_embedding", "text_embedding")
    module, batch = (
        build_module(config),
        repeated_captions() | {"target_label": np.zeros(BATCH, np.int32)},
    )
    state = initial_state(config, module)

    def reference(params):
        parts = []
        for i, key in enumerate(jax.random.split(KEY, count)):
            part = prepare(
                {name: value[i::count] for name, value in batch.items()}, config.data.images
            )
            parts.append(
                module.apply(
                    {"params": params},
                    part,
                    {*names, "fused"},
                    True,
                    rngs={"dropout": key},
                    method="encode",
                )
            )
        encodings = {
            name: jnp.stack([part[name] for part in parts], axis=1).reshape(BATCH, -1)
            for name in names
        }
        return module.apply(
            {"params": params}, encodings, batch, ("contrastive",), method="losses"
        ).value

    expected = leaves(jax.jit(jax.grad(reference))(state.params))
    found = leaves(gradients_of(with_microbatches(config, count), module, state, batch)[0])
    largest = max(np.abs(value).max() for value in expected.values())
    for path, value in expected.items():
        assert np.abs(found[path] - value).max() <= 1e-5 * largest, path


@pytest.mark.full
def test_memory_is_that_of_one_microbatch_and_the_embeddings():
    """Compiled temporaries, of 64 examples with towers wide enough that their activations are what
    counts."""
    tower = dict(width=32, mlp_dim=128)
    config = experiment(
        data__batch_size=64,
        **{
            f"model__{name}__{key}": value
            for name in ("image", "text")
            for key, value in tower.items()
        },
    )
    module = build_module(config)
    state = jax.eval_shape(lambda: initial_state(config, module))

    def temporaries(rows, count):
        chosen, batch = with_microbatches(config, count), batch_of(rows)
        return (
            compiled(chosen, module)
            .lower(state, batch, KEY)
            .compile()
            .memory_analysis()
            .temp_size_in_bytes
        )

    whole, part, accumulated = temporaries(64, 1), temporaries(8, 1), temporaries(64, 8)
    parameters = sum(4 * leaf.size for leaf in jax.tree.leaves(state.params))
    embeddings = 4 * 64 * 32 * 4  # of images and texts, and their gradients
    assert part + parameters + embeddings < whole / 2  # else there is nothing to see
    assert accumulated < part + parameters + 2 * embeddings, (
        whole,
        part,
        accumulated,
        parameters,
        embeddings,
    )


@pytest.mark.full
def test_with_the_microbatchs_negatives_it_is_the_mean_over_microbatches():
    config, count = experiment(), 2
    module, batch = wide(config), batch_of()
    state = initial_state(config, module)
    one = jax.jit(lambda state, batch: at_once(config, module, state, batch, KEY)[:2])
    parts = [
        one(state, {name: value[i::count] for name, value in batch.items()}) for i in range(count)
    ]
    expected = jax.tree.map(lambda *values: sum(values) / count, *parts)
    found = gradients_of(with_microbatches(config, count, "microbatch"), module, state, batch)
    check_equal(found, expected)
    # fewer negatives: another loss
    assert abs(float(one(state, batch)[1]["loss"]) - float(found[1]["loss"])) > 1e-4


def test_a_microbatch_takes_every_kth_row():
    np.testing.assert_array_equal(split({"x": np.arange(6)}, 3)["x"], [[0, 3], [1, 4], [2, 5]])


class Matching(ObjectiveConfig):
    """Compares the examples of a batch by all of their tokens."""

    needs = ("image", "text_embedding")
    couples_batch = True
    couples_through = ("text_embedding",)


class StudentConfig(ObjectiveConfig):
    """Learns from the averaged parameters what a text's embedding is."""

    teacher_needs = ("text_embedding",)
    needs = ("text_embedding",)

    def build(self):
        return Student(self)


class Student(Objective):
    @nn.compact
    def __call__(self, encodings, batch, model):
        return Loss(
            jnp.square(encodings["text_embedding"] - batch["teacher"]["text_embedding"])
            .sum(axis=1)
            .mean(),
            {},
        )


@pytest.mark.full
@pytest.mark.parametrize("count", [1, 2])
def test_a_teacher_is_the_averaged_parameters_without_dropout(count):
    config = dataclasses.replace(experiment(), objectives={"student": StudentConfig()}, ema=0.9)
    module, batch = wide(config, drop=0.5), batch_of()
    state = initial_state(config, module)
    state = state.replace(ema=jax.tree.map(lambda x: 0.8 * x + 0.01, state.params))

    def loss(params):
        texts = [jnp.tanh(tree["words"][batch["text"]].sum(axis=1)) for tree in (params, state.ema)]
        student, teacher = (x / jnp.linalg.norm(x, axis=1, keepdims=True) for x in texts)
        return jnp.square(student - teacher).sum(axis=1).mean()

    found, metrics = gradients_of(with_microbatches(config, count), module, state, batch)
    value, expected = jax.value_and_grad(loss)(state.params)
    np.testing.assert_allclose(metrics["loss"], value, rtol=1e-5)
    np.testing.assert_allclose(found["words"], expected["words"], atol=1e-6)


def test_a_pupil_without_an_average_is_a_config_error():
    with pytest.raises(ConfigError, match=r"objectives\.student: learns from the EMA .* set ema"):
        check_accumulation(
            dataclasses.replace(experiment(), objectives={"student": StudentConfig()})
        )


def test_an_objective_that_cannot_be_split_is_named():
    config = dataclasses.replace(experiment(), objectives={"my_loss": Matching()})
    check_accumulation(config)
    with pytest.raises(
        ConfigError,
        match=r"objectives\.my_loss compares .* by their image, "
        r".*negatives='microbatch'",
    ):
        check_accumulation(with_microbatches(config, 2))
    check_accumulation(with_microbatches(config, 2, "microbatch"))


@pytest.mark.parametrize(
    "objective", [CaptioningConfig(unigram="batch"), MaskedLanguageConfig()], ids=["next", "masked"]
)
def test_a_mean_over_the_words_of_a_batch_is_not_the_mean_of_its_parts_means(objective):
    config = dataclasses.replace(experiment(), objectives={"words": objective})
    check_accumulation(config)
    with pytest.raises(ConfigError, match=r"objectives\.words compares .*negatives='microbatch'"):
        check_accumulation(with_microbatches(config, 2))


def test_statistics_of_the_batch_cannot_be_split_and_are_named():
    collections = {
        "batch_stats": {
            "model": {"image": {"norm": {"mean": jax.ShapeDtypeStruct((8,), jnp.float32)}}}
        }
    }
    check_collections(experiment(), collections)
    check_collections(with_microbatches(experiment(), 2), {})
    with pytest.raises(
        ConfigError, match="batch_stats/model/image/norm/mean is computed from the whole batch"
    ):
        check_collections(with_microbatches(experiment(), 2), collections)


@pytest.mark.parametrize("negatives", ["batch", "microbatch"])
def test_microbatches_must_divide_the_batch(negatives):
    with pytest.raises(ConfigError, match="3 does not divide data.batch_size 8"):
        check_accumulation(with_microbatches(experiment(), 3, negatives))
