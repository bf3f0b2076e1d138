"""Recurrent decoders against float64 NumPy, written from the equations, one text at a time; and
that a cache changes nothing."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from recurrent_oracle import STATES, STEPS, affine, sigmoid
from tiny_experiment import batch_of, experiment

from vlp_jax.errors import ConfigError
from vlp_jax.hardware.collective_counts import collective_counts
from vlp_jax.models.config import ModelConfig
from vlp_jax.models.decoder.generation import (
    BeamSearch,
    beam_search,
    decoder_step,
    greedy,
    take_rows,
)
from vlp_jax.models.decoder.recurrent import GruDecoderConfig, LstmDecoderConfig
from vlp_jax.models.layers.transformer import Encoding, Precision
from vlp_jax.models.text.transformer import TextTransformerConfig
from vlp_jax.models.vision_language import VisionLanguageModel
from vlp_jax.objectives.packing import check_packing
from vlp_jax.sharding.layout import layout_in_use
from vlp_jax.sharding.mesh import MeshConfig, batch_sharding, build_mesh, replicated
from vlp_jax.sharding.rules import build_layout
from vlp_jax.training.accumulation import prepare
from vlp_jax.training.build import build_module
from vlp_jax.training.state import initial_variables

RNG = np.random.default_rng(3)
LENGTHS = np.array([6, 4, 1])
TEXT = RNG.integers(0, 20, (3, 6)).astype(np.int32)
MASK = np.arange(6) < LENGTHS[:, None]
SEEN = np.arange(5) < [[5], [3], [2]]  # of the picture's tokens
PICTURE = Encoding(
    *(
        jnp.asarray(value, jnp.float32)
        for value in (RNG.normal(size=(3, 5, 12)), SEEN, RNG.normal(size=(3, 10)))
    )
)
PICTURE = PICTURE.replace(mask=jnp.asarray(SEEN))
KINDS = {"lstm": LstmDecoderConfig, "gru": GruDecoderConfig}
SIZE = dict(embedding_width=7, width=9, attention_width=8, depth=2)
WAYS = [(kind, image) for kind in KINDS for image in ("state", "attention")]
each_way = pytest.mark.parametrize(("kind", "image"), WAYS)


def model_of(kind, image, compute=jnp.float32, **changes):
    text = TextTransformerConfig(
        preset="Ti", width=8, depth=1, heads=2, mlp_dim=8, vocab_size=20, length=6
    )
    return VisionLanguageModel(
        ModelConfig(text=text, decoder=KINDS[kind](image=image, **SIZE | changes)),
        Precision(compute),
    )


@functools.cache
def parameters(model):
    """Random values for every parameter, those that start at 0 included."""
    rng = np.random.default_rng(2)
    shapes = nn.meta.unbox(
        jax.eval_shape(lambda: model.init(jax.random.key(0), TEXT, MASK, PICTURE, method="decode"))
    )["params"]
    return jax.tree.map(
        lambda leaf: np.asarray(0.5 * rng.normal(size=leaf.shape), np.float32), shapes
    )


@functools.partial(jax.jit, static_argnums=0)
def decode(model, text=TEXT, mask=MASK, memory=PICTURE):
    return model.apply({"params": parameters(model)}, text, mask, memory, method="decode")


def assert_close(a, b, tolerance=1e-5):
    a, b = np.asarray(a), np.asarray(b)
    assert np.abs(a - b).max() <= tolerance * np.abs(b).max(), np.abs(a - b).max()


def looked(params, cell, tokens, h):
    """Xu et al. 2015: the gated mean of tokens [N, D'] that a state asks for, and the weights."""
    hidden = np.tanh(affine(params["keys"], tokens) + affine(cell["asked"], h))
    scores = np.exp(hidden @ cell["score"][:, 0])
    weights = scores / scores.sum()
    return sigmoid(affine(cell["gate"], h)) * (weights @ tokens), weights


def expected(kind, image, params, words, tokens, pooled, depth):
    """Logits [L, V] of one text without padding beside one picture without hidden tokens, and
    attention's weights [L, N]."""
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)["decoder"]
    cells = [params[f"layer_{i}"] for i in range(depth)]
    carries = [[np.zeros(SIZE["width"])] * STATES[kind] for _ in cells]
    read = list(params["tokens"]["embedding"][words])
    logits, attention = [], []
    if image == "attention":
        carries[0] = np.split(
            np.tanh(affine(params["start"], tokens.mean(axis=0))), len(carries[0])
        )
    else:
        read = [affine(params["picture_in"], pooled), *read]
    for word in read:
        x = word
        for i, cell in enumerate(cells):
            if image == "attention" and i == 0:
                seen, weights = looked(params, cell, tokens, carries[0][-1])
                attention.append(weights)
                x, cell = np.concatenate([x, seen]), cell["cell"]
            carries[i] = STEPS[kind](cell, carries[i], x)
            x = carries[i][-1]
        if image == "attention":
            x = word + affine(params["state_out"], x) + affine(params["picture_out"], seen)
        logits.append(params["output"] @ x + params["output_bias"])
    return np.asarray(logits[image == "state" :]), np.asarray(attention)


@pytest.mark.variants
@each_way
@pytest.mark.parametrize("depth", [1, 2])
def test_logits_are_those_of_the_equations(kind, image, depth):
    model = model_of(kind, image, depth=depth)
    params = parameters(model)
    found, extra = model.apply(
        {"params": params}, TEXT, MASK, PICTURE, method="decode", mutable="attention"
    )
    assert found.shape == (3, 6, 20) and found.dtype == jnp.float32
    for row, length in enumerate(LENGTHS):
        tokens = np.asarray(PICTURE.tokens, np.float64)[row, SEEN[row]]
        logits, weights = expected(
            kind, image, params, TEXT[row, :length], tokens, np.asarray(PICTURE.pooled[row]), depth
        )
        np.testing.assert_allclose(found[row, :length], logits, atol=5e-6)
        if image == "attention":
            kept = extra["attention"]["decoder"]["weights"][0][row, :length]
            np.testing.assert_allclose(kept[:, SEEN[row]], weights, atol=2e-6)
            np.testing.assert_array_equal(kept[:, ~SEEN[row]], 0.0)


@pytest.mark.variants
@each_way
@pytest.mark.parametrize("pieces", [[0, 1, 1, 1, 1, 1, 1], [3, 0, 3]])
def test_cached_decoding_gives_the_logits_of_the_whole_text(kind, image, pieces):
    model = model_of(kind, image)
    run = functools.partial(
        jax.jit(model.apply, static_argnames=("method", "mutable")),
        method="decode_next",
        mutable="cache",
    )
    position, found, cache = 0, [], {}
    for piece in pieces:
        logits, cache = run(
            {"params": parameters(model), **cache},
            TEXT[:, position : position + piece],
            jnp.int32(position),
            None if cache else PICTURE,
        )
        found.append(logits)
        position += piece
    assert_close(jnp.concatenate(found, axis=1), decode(model), 1e-6)


@pytest.mark.variants
@each_way
def test_generation_with_a_cache_continues_as_without_one(kind, image):
    model, start, end, padding = model_of(kind, image), 2, 1, 0
    params = parameters(model)

    def next_logits(cache, tokens, position, memory):
        logits, variables = model.apply(
            {"params": params, "cache": cache},
            tokens,
            position,
            memory,
            method="decode_next",
            mutable="cache",
        )
        return logits, variables["cache"]

    def both():
        step, state = decoder_step(next_logits, PICTURE, 3)
        starts = jnp.full(3, start)
        search = BeamSearch(num_beams=3, length_penalty=0.0, early_stopping="never")
        return greedy(step, state, starts, 5, end, padding), beam_search(
            step, state, starts, 5, end, padding, search, take_rows
        )

    found, (texts, scores) = jax.jit(both)()
    text = np.full((3, 6), padding, np.int32)
    text[:, 0] = start
    for place in range(5):
        ended = (text[:, 1:] == end).any(axis=1)
        text[:, place + 1] = np.where(ended, padding, decode(model, text)[:, place].argmax(axis=-1))
    np.testing.assert_array_equal(found, text[:, 1:])
    for beam in range(3):
        best = np.concatenate([np.full((3, 1), start), texts[:, beam]], axis=1).astype(np.int32)
        gains = jax.nn.log_softmax(decode(model, best))
        for row in range(3):
            length = list(best[row, 1:]).index(end) + 1 if end in best[row, 1:] else 5
            total = sum(float(gains[row, i, best[row, i + 1]]) for i in range(length))
            np.testing.assert_allclose(scores[row, beam], total, rtol=1e-4)


@pytest.mark.variants
@each_way
def test_neither_padding_nor_a_later_word_nor_a_hidden_token_changes_a_logit(kind, image):
    model = model_of(kind, image)
    whole = np.asarray(decode(model))
    np.testing.assert_array_equal(
        np.asarray(decode(model, np.where(MASK, TEXT, 9)))[MASK], whole[MASK]
    )
    shorter = decode(model, TEXT[1:2, :4], MASK[1:2, :4], jax.tree.map(lambda x: x[1:2], PICTURE))
    assert_close(shorter, whole[1:2, :4])
    for place in (1, 3, 5):
        other = TEXT.copy()
        other[:, place] = (other[:, place] + 7) % 20
        changed = np.asarray(decode(model, other))
        np.testing.assert_array_equal(changed[:, :place], whole[:, :place])
        assert (np.abs(changed - whole)[:, place:].max(axis=-1) > 1e-4).all()
    hidden = PICTURE.replace(tokens=jnp.where(SEEN[:, :, None], PICTURE.tokens, 3.0))
    np.testing.assert_array_equal(
        *(decode(model, TEXT, MASK, memory) for memory in (hidden, PICTURE))
    )


@pytest.mark.variants
@each_way
def test_in_bfloat16_logits_are_those_of_float32_but_for_rounding_and_parameters_stay_float32(
    kind, image
):
    model = model_of(kind, image, jnp.bfloat16)
    shapes = jax.eval_shape(
        lambda: model.init(jax.random.key(0), TEXT, MASK, PICTURE, method="decode")
    )
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}
    rounded = decode(model, TEXT, MASK, PICTURE.replace(tokens=PICTURE.tokens.astype(jnp.bfloat16)))
    assert rounded.dtype == jnp.float32
    assert_close(rounded, decode(model_of(kind, image)), 0.05)


@pytest.mark.variants
@each_way
def test_dropout_acts_in_training_alone(kind, image):
    model = model_of(kind, image, dropout=0.5)
    dropped = [
        model.apply(
            {"params": parameters(model)},
            TEXT,
            MASK,
            PICTURE,
            True,
            method="decode",
            rngs={"dropout": jax.random.key(seed)},
        )
        for seed in (0, 1)
    ]
    assert np.abs(dropped[0] - dropped[1]).max() > 1e-3
    np.testing.assert_array_equal(decode(model), decode(model_of(kind, image)))


WRITES = dict(captioning=dict(kind="captioning", unigram="batch"))


def trained(kind, image, **changes):
    size = {
        key: value
        for key, value in SIZE.items()
        if image == "attention" or key != "attention_width"
    }
    return experiment(
        objectives=WRITES,
        model__decoder=dict(size, kind=kind, image=image),
        model__image__pooling="mean",
        **changes,
    )


@each_way
@pytest.mark.slow
def test_gradients_reach_the_image_tower_and_every_parameter_and_are_the_same_on_a_mesh(
    kind, image
):
    config = trained(kind, image, mesh__replicate_below=0)
    module, batch = build_module(config), prepare(batch_of(), config.data.images)
    variables = nn.meta.unbox(initial_variables(module, batch, 0))

    def loss(params, batch):
        return module.apply(
            {"params": params}, batch, True, rngs={"dropout": jax.random.key(0)}
        ).value

    found = {}
    for sizes in ((1, 1, 1), (2, 2, 2)):
        mesh_config = MeshConfig(
            **dict(zip(("data", "fsdp", "tensor"), sizes, strict=True)), replicate_below=0
        )
        mesh = build_mesh(mesh_config, jax.devices()[: np.prod(sizes)])
        with layout_in_use(build_layout(mesh_config, mesh)):
            found[sizes] = jax.jit(jax.grad(loss))(
                variables["params"], jax.device_put(batch, batch_sharding(mesh))
            )
    for (path, one), many in zip(
        jax.tree_util.tree_leaves_with_path(found[1, 1, 1]),
        jax.tree.leaves(found[2, 2, 2]),
        strict=True,
    ):
        assert np.isfinite(one).all() and np.abs(one).max() > 0, path
        np.testing.assert_allclose(many, one, rtol=1e-3, atol=2e-6, err_msg=str(path))
    assert {"image", "decoder"} == found[1, 1, 1]["model"].keys()


@pytest.mark.full
@each_way
def test_a_module_writes_and_scores_captions_alike_on_a_mesh_and_as_without_a_cache(kind, image):
    config = trained(kind, image, mesh__replicate_below=0)
    module, batch, start, end, padding = (
        build_module(config),
        prepare(batch_of(), config.data.images),
        2,
        1,
        0,
    )
    rng, shapes = (
        np.random.default_rng(5),
        nn.meta.unbox(jax.eval_shape(lambda: initial_variables(module, batch, 0))),
    )
    variables = jax.tree.map(
        lambda leaf: jnp.asarray(0.5 * rng.normal(size=leaf.shape), leaf.dtype), shapes
    )

    def results(variables, image, text, mask):
        written = module.apply(
            variables, image, jnp.full(len(image), start), end, padding, method="write_captions"
        )
        return written, *module.apply(variables, image, text, mask, method="caption_losses")

    found, arrays = [], (batch["image"], batch["text"], batch["text_mask"])
    for sizes in ((1, 1, 1), (2, 2, 2)):
        mesh_config = MeshConfig(
            **dict(zip(("data", "fsdp", "tensor"), sizes, strict=True)), replicate_below=0
        )
        mesh = build_mesh(mesh_config, jax.devices()[: np.prod(sizes)])
        with layout_in_use(build_layout(mesh_config, mesh)):
            placed = (
                jax.device_put(variables, replicated(mesh)),
                *jax.device_put(arrays, batch_sharding(mesh)),
            )
            found.append(jax.jit(results, out_shardings=replicated(mesh))(*placed))
    (written, losses, counts), (on_mesh, losses_on_mesh, _) = jax.tree.map(np.asarray, found)
    np.testing.assert_array_equal(on_mesh, written)
    np.testing.assert_allclose(losses_on_mesh, losses, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(counts, np.asarray(batch["text_mask"])[:, 1:].sum(axis=1))
    text = np.full((len(written), 5), padding, np.int32)
    text[:, 0] = start
    encode = jax.jit(
        lambda text: module.apply(
            variables, batch | {"text": text}, {"decoding"}, False, method="encode"
        )
    )
    for place in range(4):
        ended, logits = (
            (text[:, 1:] == end).any(axis=1),
            np.asarray(encode(text)["decoding"].logits),
        )
        text[:, place + 1] = np.where(ended, padding, logits[:, place].argmax(axis=-1))
    np.testing.assert_array_equal(written, text[:, 1:])


@pytest.mark.full
@each_way
def test_devices_meet_no_more_often_for_longer_texts(kind, image):
    mesh, model = build_mesh(MeshConfig(data=8), jax.devices()), model_of(kind, image)
    picture = jax.device_put(
        jax.tree.map(lambda x: jnp.tile(x[:1], (8,) + (1,) * (x.ndim - 1)), PICTURE),
        batch_sharding(mesh),
    )

    def collectives(length):
        text = jax.device_put(np.zeros((8, length), np.int32), batch_sharding(mesh))
        loss = jax.grad(
            lambda params, text: model.apply(
                {"params": params}, text, None, picture, method="decode"
            ).sum()
        )
        with layout_in_use(build_layout(MeshConfig(data=8), mesh)):
            program = (
                jax.jit(loss)
                .lower(jax.device_put(parameters(model), replicated(mesh)), text)
                .compile()
                .as_text()
            )
        return {kind: counts["count"] for kind, counts in collective_counts(program).items()}

    assert collectives(3) == collectives(6) != {}


@pytest.mark.parametrize(
    ("decoder", "message"),
    [
        (
            dict(kind="lstm", image="cross_attention"),
            "model.decoder.image: must be one of 'state', 'attention'",
        ),
        (
            dict(kind="gru", text_prefix=0.5),
            "model.decoder.text_prefix: is for kind='transformer' or "
            "'on_text_tower', "
            "not for 'gru'",
        ),
        (dict(kind="lstm", heads=2), "model.decoder.heads: is for kind='transformer'"),
        (
            dict(attention_width=8),
            "model.decoder.attention_width: is for kind='lstm' or 'gru', not for 'transformer'",
        ),
        (dict(kind="rnn"), "model.decoder.kind: must be one of 'transformer'"),
        (
            dict(kind="gru", attention_width=8),
            "model.decoder.attention_width: has no effect with image='state'",
        ),
    ],
)
def test_what_does_not_apply_to_a_decoder_of_its_kind_is_refused_by_name(decoder, message):
    with pytest.raises(ConfigError) as error:
        experiment(objectives=WRITES, model__decoder=decoder)
    assert message in str(error.value)


def test_packed_texts_are_refused_by_name():
    config = trained("lstm", "attention", data__text__packing=4)
    with pytest.raises(
        ConfigError, match="data.text.packing: model.decoder.kind='lstm' needs a row for each text"
    ):
        check_packing(config, build_mesh(MeshConfig(), jax.devices()[:1]))
