"""Hinge losses on triplets: values and gradients from the equations in float64, accumulation,
meshes, and how they train."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from contrastive_oracle import pairs, relative_error, unit
from counted_flops import counted_flops
from tiny_experiment import batch_of, experiment, leaves

from vlp_jax.objectives.triplet import TripletConfig, hinge_contrastive, triplet_contrastive
from vlp_jax.sharding.layout import Layout, layout_in_use
from vlp_jax.sharding.mesh import MeshConfig, batch_sharding, build_mesh
from vlp_jax.sharding.rules import PRESETS
from vlp_jax.training.accumulation import check_accumulation, loss_gradients
from vlp_jax.training.build import build_module, example_batch
from vlp_jax.training.cost.flops import train_step_flops
from vlp_jax.training.state import TrainState

LOSSES = {"hardest": triplet_contrastive, "all": hinge_contrastive}


def oracle(negatives, image, text, margin, positives):
    """Faghri et al. 2018, equation 6 (hardest), or the sum in the maximum's place (all): value, and
    gradients by image and text."""
    count, value, of_image, of_text = len(image), 0.0, np.zeros_like(image), np.zeros_like(text)
    for k in range(count):
        too_near = []  # (by how much, image, text) of every negative; of image k, then of text k
        for direction in ([(k, j) for j in range(count)], [(i, k) for i in range(count)]):
            terms = [
                (margin + image[i] @ text[j] - image[k] @ text[k], i, j)
                for i, j in direction
                if not positives[i, j]
            ]
            terms = [term for term in terms if term[0] > 0]
            too_near += [max(terms)] if terms and negatives == "hardest" else terms
        for excess, i, j in too_near:
            value += excess / count
            of_image[i] += text[j] / count
            of_text[j] += image[i] / count
            of_image[k] -= text[k] / count
            of_text[k] -= image[k] / count
    return value, (of_image, of_text)


@pytest.mark.variants
@pytest.mark.parametrize("negatives", LOSSES)
@pytest.mark.parametrize("margin", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("noise", [None, 0.5], ids=["unrelated", "aligned"])
@pytest.mark.parametrize(("dtype", "bound"), [("float32", 1e-5), ("float64", 1e-10)])
def test_value_and_gradients_equal_float64_numpy(negatives, margin, noise, dtype, bound):
    image, text, positives = pairs(noise)
    with jax.enable_x64(dtype == "float64"):
        arrays = [jnp.asarray(x, dtype) for x in (image, text)]
        expected = oracle(
            negatives, *(np.asarray(x, np.float64) for x in arrays), margin, positives
        )
        value, gradients = jax.value_and_grad(LOSSES[negatives], argnums=(0, 1))(
            *arrays, margin, jnp.asarray(positives)
        )
        value, gradients = np.asarray(value), [np.asarray(gradient) for gradient in gradients]
    assert value.dtype == dtype
    if expected[0] == 0:
        assert value == 0 and all((gradient == 0).all() for gradient in gradients)
        return
    errors = [
        relative_error(a, b)
        for a, b in zip((value, *gradients), (expected[0], *expected[1]), strict=True)
    ]
    assert max(errors) <= bound, errors


@pytest.mark.parametrize("loss", LOSSES.values())
def test_a_batch_without_negatives_gives_no_loss_and_no_gradient(loss):
    image, text, _ = (jnp.asarray(x, jnp.float32) for x in pairs())
    for rows, positives in ((1, None), (12, jnp.ones((12, 12), bool))):
        value, gradients = jax.value_and_grad(loss, argnums=(0, 1))(
            image[:rows], text[:rows], 0.2, positives
        )
        assert value == 0 and all((gradient == 0).all() for gradient in gradients)


def test_without_positives_the_diagonal_is_meant_and_bfloat16_is_compared_in_float32():
    image, text, _ = (jnp.asarray(x, jnp.bfloat16) for x in pairs())
    for loss in LOSSES.values():
        value = loss(image, text)
        assert value.dtype == jnp.float32 and value == loss(
            image, text, 0.2, jnp.eye(12, dtype=bool)
        )
        np.testing.assert_allclose(
            value, loss(image.astype(jnp.float32), text.astype(jnp.float32)), rtol=1e-6
        )


@pytest.mark.parametrize("negatives", LOSSES)
def test_the_objective_counts_what_is_violated_and_shared_captions_are_no_negatives(negatives):
    image = np.eye(4, dtype=np.float32)
    text = unit(image[[0, 1, 2, 2]] + 0.3 * image)  # the last text lies beside the third image
    encodings = {"image_embedding": jnp.asarray(image), "text_embedding": jnp.asarray(text)}
    ids = np.arange(8, dtype=np.int32).reshape(4, 2)
    batch = {
        "text": jnp.zeros((4, 3)),
        "caption_id": jnp.asarray(ids),
        "image_id": jnp.asarray(ids),
    }
    objective = TripletConfig(negatives=negatives).build()
    loss = objective.apply({}, encodings, batch, None)
    expected = oracle(
        negatives, image.astype(np.float64), text.astype(np.float64), 0.2, np.eye(4, dtype=bool)
    )[0]
    np.testing.assert_allclose(loss.value, expected, rtol=1e-5)
    assert loss.metrics["violated"] == 2 / 8  # the third image and the last text
    assert loss.metrics["batch_accuracy"] == 1.0
    same = {name: jnp.ones((4, 1)) for name in encodings}
    np.testing.assert_allclose(
        loss.metrics["uniform"], objective.apply({}, same, batch, None).value, rtol=1e-6
    )
    shared = batch | {"caption_id": jnp.asarray(ids[[0, 1, 2, 2]])}
    assert objective.apply({}, encodings, shared, None).value == 0
    np.testing.assert_allclose(
        objective.apply({}, encodings, shared, None).metrics["uniform"],
        # of fewer negatives too
        objective.apply({}, same, shared, None).value,
        rtol=1e-6,
    )


def test_a_config_makes_it_and_it_declares_what_it_couples_through():
    objective = TripletConfig(margin=0.3, negatives="all", positives=("image",))
    assert (objective.margin, objective.negatives, objective.positives) == (0.3, "all", ("image",))
    assert objective.couples_batch and set(objective.couples_through) == set(objective.needs)


def state_of(config, module):
    shapes = nn.meta.unbox(
        jax.eval_shape(lambda: module.init(jax.random.key(1), example_batch(config)))
    )["params"]
    rng = np.random.default_rng(1)
    params = jax.tree_util.tree_map_with_path(
        lambda path, leaf: jnp.asarray(
            rng.normal(path[-1].key == "scale", 0.3, leaf.shape), jnp.float32
        ),
        shapes,
    )
    return TrainState(jnp.int32(0), params, None, None, {}, jax.random.key_data(jax.random.key(3)))


@pytest.mark.full
@pytest.mark.parametrize("negatives", LOSSES)
def test_microbatches_and_meshes_give_the_gradients_of_the_batch_on_one_device(negatives):
    objectives = dict(pair=dict(kind="triplet", negatives=negatives))
    one, parts = (
        experiment(objectives=objectives),
        experiment(objectives=objectives, accumulation=dict(microbatches=2)),
    )
    check_accumulation(parts)
    module, batch, key = build_module(one), batch_of(), jax.random.key(4)
    batch["caption_id"][5] = batch["caption_id"][2]
    state = state_of(one, module)
    expected = jax.jit(functools.partial(loss_gradients, one, module))(state, batch, key)
    assert expected[1]["pair/loss"] > 0.1
    found = [jax.jit(functools.partial(loss_gradients, parts, module))(state, batch, key)]
    mesh = build_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    with layout_in_use(Layout(mesh, PRESETS["fsdp+tensor"])):
        spread = jax.device_put(batch, batch_sharding(mesh))
        found.append(jax.jit(functools.partial(loss_gradients, one, module))(state, spread, key))
    largest = max(np.abs(leaf).max() for leaf in leaves(expected[0]).values())
    for gradients, metrics, _ in found:
        for name, value in leaves(expected[0]).items():
            # a softmax does not see a key's bias
            size = largest if name.endswith("key/bias") else np.abs(value).max()
            assert np.abs(leaves(gradients)[name] - value).max() <= 1e-5 * size + 1e-8, name
        for name, value in expected[1].items():
            np.testing.assert_allclose(metrics[name], value, rtol=1e-5, err_msg=name)


def test_flops_are_those_of_the_traced_program():
    config = experiment(objectives=dict(pair=dict(kind="triplet")))
    module, batch = build_module(config), example_batch(config, rows=8)
    variables = jax.eval_shape(lambda: module.init(jax.random.key(0), batch))
    program = jax.make_jaxpr(functools.partial(module.apply, mutable=False))(variables, batch)
    # the cosines for the metrics, which the compiler does not compute twice, and the accuracy
    again = 2 * 2 * 8**2 * 8
    assert 3 * (counted_flops(program.jaxpr) - again) == train_step_flops(config)


@pytest.mark.parametrize("negatives", LOSSES)
def test_it_brings_pairs_together(negatives):
    rng, objective = np.random.default_rng(0), TripletConfig(negatives=negatives).build()
    ids = jnp.asarray(np.arange(16).reshape(8, 2), jnp.int32)
    batch = {"text": jnp.zeros((8, 3)), "caption_id": ids, "image_id": ids}
    vectors = {
        name: jnp.asarray(rng.normal(size=(8, 6)), jnp.float32)
        for name in ("image_embedding", "text_embedding")
    }
    optimizer = optax.adam(0.05)

    def loss(vectors):
        units = {name: x / jnp.linalg.norm(x, axis=1, keepdims=True) for name, x in vectors.items()}
        found = objective.apply({}, units, batch, None)
        return found.value, found.metrics

    @jax.jit
    def update(vectors, state):
        (_, metrics), gradients = jax.value_and_grad(loss, has_aux=True)(vectors)
        updates, state = optimizer.update(gradients, state)
        return optax.apply_updates(vectors, updates), state, metrics

    state = optimizer.init(vectors)
    for _ in range(150):
        vectors, state, metrics = update(vectors, state)
    assert metrics["batch_accuracy"] == 1.0 and metrics["violated"] <= 0.1
