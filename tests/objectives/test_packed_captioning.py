"""Captions packed into rows: the losses and gradients of the same captions in a row each."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from counted_flops import counted_flops
from tiny_experiment import TOWER, experiment, leaves

from vlp_jax.config import load_config
from vlp_jax.data.text.packing import pack
from vlp_jax.models.decoder.packed_rows import PackedRows
from vlp_jax.training.accumulation import prepare
from vlp_jax.training.build import build_module, build_run, example_batch
from vlp_jax.training.cost.flops import train_step_flops

WINDOW, ROWS, LENGTH, BATCH = 4, 2, 9, 8
DECODERS = {
    "words alone": dict(image="none"),
    "cross-attention": dict(image="cross_attention"),
    "queries": dict(image="cross_attention", image_queries=3),
    "scanned": dict(scan=True, depth=2, rematerialisation="full"),
}


def experiment_of(decoder, packed):
    text = dict(data__text__packing=WINDOW, data__text__packing_rows=ROWS) if packed else {}
    return experiment(
        objectives=dict(captioning=dict(kind="captioning", label_smoothing=0.1)),
        model__decoder=dict(TOWER, **decoder),
        model__text__length=LENGTH,
        **text,
    )


def batches():
    """The same captions in a row each, and packed; nothing is left out."""
    rng = np.random.default_rng(5)
    lengths = np.array([5, 4, 3, 5, 2, 9, 1, 6])
    mask = np.arange(LENGTH) < lengths[:, None]
    text = np.where(mask, rng.integers(0, 20, mask.shape), 0).astype(np.int32)
    ids = np.stack([np.arange(BATCH)] * 2, axis=1).astype(np.int32)
    plain = {
        "image": rng.integers(0, 256, (BATCH, 8, 8, 3)).astype(np.uint8),
        "text": text,
        "text_mask": mask,
        "caption_id": ids,
        "image_id": ids,
    }
    packed = pack(text, mask, WINDOW, ROWS, 7)
    assert not packed.pop("dropped").any()
    return plain, plain | packed


def gradients(decoder, batch, params):
    config = experiment_of(decoder, packed="segment" in batch)
    module, batch = build_module(config), prepare(batch, config.data.images)

    def loss(params):
        found = module.apply({"params": params}, batch, mutable="unigram")[0]
        return found.value, found.metrics

    return jax.jit(jax.value_and_grad(loss, has_aux=True))(params)


def parameters(decoder):
    """Random values for every parameter, those that start at 0 or 1 included."""
    config = experiment_of(decoder, packed=False)
    shapes = nn.meta.unbox(
        jax.eval_shape(lambda: build_module(config).init(jax.random.key(0), example_batch(config)))
    )["params"]
    rng = np.random.default_rng(2)
    return jax.tree.map(
        lambda leaf: jnp.asarray(0.5 * rng.normal(size=leaf.shape), jnp.float32), shapes
    )


@pytest.mark.full
@pytest.mark.parametrize(
    "way",
    [pytest.param(way, marks=pytest.mark.slow if way == "scanned" else ()) for way in DECODERS],
)
def test_loss_metrics_and_gradients_are_those_of_a_row_each(way):
    params, (plain, packed) = parameters(DECODERS[way]), batches()
    (value, metrics), expected = gradients(DECODERS[way], plain, params)
    (found_value, found_metrics), found = gradients(DECODERS[way], packed, params)
    np.testing.assert_allclose(found_value, value, rtol=1e-5)
    assert set(found_metrics) - set(metrics) == {"captioning/filled"}
    for name in metrics:
        np.testing.assert_allclose(found_metrics[name], metrics[name], rtol=1e-5, err_msg=name)
    np.testing.assert_allclose(
        found_metrics["captioning/filled"], packed["text_mask"].mean(), rtol=1e-6
    )
    for (name, one), other in zip(leaves(expected).items(), leaves(found).values(), strict=True):
        np.testing.assert_allclose(other, one, atol=1e-5 * np.abs(one).max() + 1e-8, err_msg=name)


def test_another_caption_s_words_and_picture_change_nothing_in_a_caption():
    decoder = DECODERS["cross-attention"]
    config, (_, packed) = experiment_of(decoder, packed=True), batches()
    module, params = build_module(config), parameters(decoder)

    @jax.jit
    def logits(batch):
        batch = prepare(batch, config.data.images)
        return module.apply({"params": params}, batch, {"decoding"}, False, method="encode")[
            "decoding"
        ].logits

    other = {**packed, "image": packed["image"].copy(), "text": packed["text"].copy()}
    changed = packed["segment"][0] == 1
    other["image"][0] = 255 - other["image"][0]
    other["text"][0][changed] = (other["text"][0][changed] + 1) % 20
    before, after = (
        np.asarray(logits(batch)).reshape(2, ROWS, LENGTH, -1) for batch in (packed, other)
    )
    same = (before == after).all(axis=-1)
    np.testing.assert_array_equal(
        same[packed["text_mask"]], np.stack([~changed, np.ones_like(changed)])[packed["text_mask"]]
    )


@pytest.mark.slow
def test_packed_captions_of_pictures_have_the_same_losses_on_one_device_and_on_a_mesh():
    packing = [
        ("data.text.packing", "4"),
        ("data.text.packing_rows", "2"),
        ("data.batch_size", "32"),
        ("evaluators", "{}"),
    ]
    found = []
    for sizes in ({"data": "1"}, {"data": "4", "fsdp": "2", "replicate_below": "256"}):
        mesh = [(f"mesh.{name}", size) for name, size in sizes.items()]
        run = build_run(
            load_config(
                "configs/vit_gpt2.py:smoke", packing + mesh + [("precision.compute", "float32")]
            )
        )
        state, batches, losses = run.initial_state(), run.batches(0), []
        for _ in range(3):
            state, metrics = run.train_step(state, run.to_device(next(batches)))
            losses.append(float(metrics["loss"]))
        batches.close()
        found.append(losses)
    np.testing.assert_allclose(found[1], found[0], rtol=1e-4)


def test_places_start_anew_in_each_text():
    segments = np.array([[[1, 1, 1, 3, 3, 0, 0], [2, 4, 4, 4, 4, 4, 4]]])
    packed = PackedRows.of(jnp.asarray(segments))
    assert packed.places().tolist() == [[0, 1, 2, 0, 1, 0, 1], [0, 0, 1, 2, 3, 4, 5]]
    assert packed.continued()[0].tolist() == [False, True, True, False, True, False, True]


@pytest.mark.variants
@pytest.mark.parametrize("way", ["words alone", "cross-attention", "queries"])
def test_flops_are_those_of_the_traced_program(way):
    config = experiment_of(DECODERS[way], packed=True)
    module, batch = build_module(config), example_batch(config, rows=BATCH)
    assert batch["text"].shape == (BATCH // WINDOW, ROWS, LENGTH)
    variables = jax.eval_shape(lambda: module.init(jax.random.key(0), batch))
    program = jax.make_jaxpr(functools.partial(module.apply, mutable=False))(variables, batch)
    assert 3 * counted_flops(program.jaxpr) == train_step_flops(config)
