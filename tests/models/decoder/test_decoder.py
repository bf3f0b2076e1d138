"""The text decoder: what each word may see, and that a cache changes nothing."""

import functools
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vlp_jax.errors import ConfigError
from vlp_jax.models.config import ModelConfig
from vlp_jax.models.decoder.base import DecoderConfig
from vlp_jax.models.decoder.generation import (
    BeamSearch,
    beam_search,
    decoder_step,
    greedy,
    take_rows,
)
from vlp_jax.models.layers.transformer import Encoding, Precision
from vlp_jax.models.text.transformer import TextTransformerConfig
from vlp_jax.models.vision_language import VisionLanguageModel

RNG = np.random.default_rng(3)
LENGTHS = np.array([6, 4, 1])
TEXT = RNG.integers(0, 20, (3, 6)).astype(np.int32)
MASK = np.arange(6) < LENGTHS[:, None]
MEMORY = Encoding(jnp.asarray(RNG.normal(size=(3, 5, 12)), jnp.float32), None, None)
MASKED = MEMORY.replace(mask=jnp.asarray(np.arange(5) < [[5], [3], [2]]))
NARROW = dict(preset="Ti", width=16, depth=1, heads=2, mlp_dim=24)
WAYS = {
    "cross-attention": dict(image="cross_attention"),
    "prefix": dict(image="prefix"),
    "words alone": dict(image="none"),
    "queries, untied": dict(image="cross_attention", image_queries=3, tied=False),
    "layers of BERT": dict(norm="post", embedding_norm=True, final_norm=False, word_head=True),
    "prefix with a norm": dict(
        image="prefix", image_norm_epsilon=1e-3, output_bias=True, bias=False
    ),
    "on a text tower": dict(kind="on_text_tower", tied=False, width=20),
    "scanned": dict(image="cross_attention", scan=True, depth=2),
    "norms and MLPs of open_clip's CoCa": dict(
        kind="on_text_tower", tied=False, memory_norm=True, inner_mlp=True
    ),
    "in the text tower": dict(kind="in_text_tower"),
    "in the text tower, scanned": dict(
        kind="in_text_tower", own=("attention", "cross", "mlp"), start_token=False, scan=True
    ),
}


def model_of(compute=jnp.float32, pooling="cls_end", **changes):
    inside, scan = changes.get("kind") == "in_text_tower", changes.get("scan", False)
    text = TextTransformerConfig(
        **NARROW,
        vocab_size=20,
        length=6,
        scan=scan,
        **dict(causal=False, pooling="first") if inside else dict(pooling=pooling),
    )
    decoder = (
        {key: value for key, value in changes.items() if key != "scan"}
        if inside
        else NARROW | changes
    )
    return VisionLanguageModel(
        ModelConfig(text=text, decoder=DecoderConfig.of(**decoder)), Precision(compute)
    )


@functools.cache
def parameters(model):
    """Random values for every parameter, those that start at 0 or 1 included."""
    rng = np.random.default_rng(2)
    shapes = nn.meta.unbox(
        jax.eval_shape(
            lambda: model.init(jax.random.key(0), TEXT, MASK, memory_of(model), method="decode")
        )
    )
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: np.asarray(
            (path[-1].key == "scale") + 0.4 * rng.normal(size=leaf.shape), np.float32
        ),
        shapes["params"],
    )


def memory_of(model, memory=MEMORY):
    return None if model.config.decoder.image == "none" else memory


@functools.partial(jax.jit, static_argnums=0)
def decode(model, text=TEXT, mask=None, memory=None, prefix=None):
    return model.apply(
        {"params": parameters(model)}, text, mask, memory, prefix=prefix, method="decode"
    )


def assert_close(a, b, tolerance=1e-5):
    a, b = np.asarray(a), np.asarray(b)
    assert np.abs(a - b).max() <= tolerance * np.abs(b).max(), np.abs(a - b).max()


@pytest.mark.variants
@pytest.mark.parametrize("way", WAYS)
def test_cached_decoding_gives_the_logits_of_the_whole_text(way):
    model = model_of(**WAYS[way])
    for memory in (MEMORY,) if way not in ("prefix", "cross-attention") else (MASKED,):
        whole = decode(model, TEXT, None, memory_of(model, memory))
        run = functools.partial(
            jax.jit(model.apply, static_argnames=("method", "mutable")),
            method="decode_next",
            mutable="cache",
        )
        variables = {"params": parameters(model)}
        for pieces in ([0, 1, 1, 1, 1, 1, 1], [3, 3])[: 2 if way == "prefix" else 1]:
            position, found, cache = 0, [], {}
            for piece in pieces:
                logits, cache = run(
                    {**variables, **cache},
                    TEXT[:, position : position + piece],
                    jnp.int32(position),
                    memory_of(model, memory) if not cache else None,
                )
                found.append(logits)
                position += piece
            assert_close(jnp.concatenate(found, axis=1), whole)


@pytest.mark.full
@pytest.mark.parametrize("way", ["prefix", "scanned", "in the text tower"])
def test_generation_with_a_cache_continues_as_without_one(way):
    model, start, end, padding = model_of(**WAYS[way]), 2, 1, 0
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
        step, state = decoder_step(next_logits, MEMORY, 3)
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
        logits = decode(model, text, None, MEMORY)[:, place]
        text[:, place + 1] = np.where(ended, padding, logits.argmax(axis=-1))
    np.testing.assert_array_equal(found, text[:, 1:])
    best = np.concatenate([np.full((3, 1), start), texts[:, 0]], axis=1).astype(np.int32)
    gains = jax.nn.log_softmax(decode(model, best, None, MEMORY))
    for row in range(3):
        length = list(best[row, 1:]).index(end) + 1 if end in best[row, 1:] else 5
        expected = sum(float(gains[row, i, best[row, i + 1]]) for i in range(length))
        np.testing.assert_allclose(scores[row, 0], expected, rtol=1e-4)


@pytest.mark.variants
@pytest.mark.parametrize("way", WAYS)
def test_no_word_sees_a_later_one(way):
    model = model_of(**WAYS[way])
    whole = decode(model, TEXT, MASK, memory_of(model))
    for place in (1, 3, 5):
        other = TEXT.copy()
        other[:, place] = (other[:, place] + 7) % 20
        changed = decode(model, other, MASK, memory_of(model))
        np.testing.assert_array_equal(changed[:, :place], whole[:, :place])
        assert (np.abs(changed - whole)[:1, place:].max(axis=-1) > 1e-4).all()


@pytest.mark.variants
@pytest.mark.parametrize("way", WAYS)
def test_padding_never_changes_a_logit(way):
    model = model_of(**WAYS[way])
    whole = decode(model, TEXT, MASK, memory_of(model))
    np.testing.assert_array_equal(
        np.asarray(decode(model, np.where(MASK, TEXT, 9), MASK, memory_of(model)))[MASK],
        np.asarray(whole)[MASK],
    )
    shorter = decode(
        model, TEXT[1:2, :4], MASK[1:2, :4], jax.tree.map(lambda x: x[1:2], memory_of(model))
    )
    assert_close(shorter, whole[1:2, :4])


@pytest.mark.parametrize("way", ["cross-attention", "prefix"])
def test_hidden_tokens_of_the_picture_change_no_logit(way):
    model = model_of(**WAYS[way])
    hidden = MASKED.replace(tokens=jnp.where(MASKED.mask[:, :, None], MASKED.tokens, 3.0))
    assert_close(decode(model, TEXT, MASK, hidden), decode(model, TEXT, MASK, MASKED), 1e-6)
    assert (
        np.abs(decode(model, TEXT, MASK, MEMORY) - decode(model, TEXT, MASK, MASKED))[1].max()
        > 1e-3
    )


@pytest.mark.variants
@pytest.mark.parametrize("way", ["words alone", "prefix", "cross-attention"])
def test_a_prefix_is_seen_both_ways_and_the_rest_is_causal(way):
    model, prefix = model_of(**WAYS[way]), np.array([3, 2, 0])
    whole = decode(model, TEXT, None, memory_of(model), prefix)
    for place, row in itertools.product(range(6), range(3)):
        other = TEXT.copy()
        other[row, place] = (other[row, place] + 7) % 20
        moved = (
            np.abs(decode(model, other, None, memory_of(model), prefix) - whole)[row].max(axis=-1)
            > 1e-5
        )
        seen_by = [place <= query or place < prefix[row] for query in range(6)]
        np.testing.assert_array_equal(moved, seen_by)


def test_every_word_sees_the_whole_picture_in_front():
    model = model_of(**WAYS["prefix"])
    whole = decode(model, TEXT, None, MEMORY)
    for place in range(5):
        other = MEMORY.replace(tokens=MEMORY.tokens.at[:, place].add(1.0))
        assert (np.abs(decode(model, TEXT, None, other) - whole).max(axis=-1) > 1e-5).all()


@pytest.mark.variants
@pytest.mark.parametrize("way", ["prefix", "on a text tower"])
def test_logits_are_float32_and_tied_embeddings_one_parameter(way):
    changes = WAYS[way]
    logits = decode(
        model_of(compute=jnp.bfloat16, **changes), TEXT, MASK, memory_of(model_of(**changes))
    )
    assert logits.shape == (3, 6, 20) and logits.dtype == jnp.float32
    assert_close(
        logits, decode(model_of(**changes), TEXT, MASK, memory_of(model_of(**changes))), 0.1
    )
    tables = [
        name for name in parameters(model_of(**changes))["decoder"] if name in ("tokens", "output")
    ]
    assert tables == [
        name
        for name, there in (
            ("output", not changes.get("tied", True)),
            ("tokens", "kind" not in changes),
        )
        if there
    ]


def test_the_class_token_behind_the_text_sees_it_all_and_no_word_sees_it():
    """CoCa's unimodal tower: as if the token stood at the end of a row without padding; the words'
    tokens do not know of it."""
    model = model_of(**WAYS["on a text tower"])
    encode = jax.jit(functools.partial(model.apply, method="encode_text"))
    params = dict(parameters(model))
    text = params["text"] = {**params["text"], "class_token": np.ones((1, 1, 16), np.float32)}
    encoding = encode({"params": params}, TEXT, MASK)
    assert encoding.tokens.shape == (3, 6, 16) and encoding.mask.shape == (3, 6)
    alone = encode({"params": params}, TEXT[1:2, :4])
    assert_close(alone.pooled, encoding.pooled[1:2])
    text["class_token"] = text["class_token"] * np.arange(16, dtype=np.float32)
    other = encode({"params": params}, TEXT, MASK)
    np.testing.assert_array_equal(np.asarray(other.tokens)[MASK], np.asarray(encoding.tokens)[MASK])
    assert np.abs(other.pooled - encoding.pooled).min(axis=1).max() > 1e-4


@pytest.mark.parametrize(
    ("changes", "text", "message"),
    [
        (dict(kind="on_text_tower"), {}, "model.decoder.tied"),
        (dict(kind="on_text_tower", tied=False, image="prefix"), {}, "model.decoder.image"),
        (dict(kind="on_text_tower", tied=False), dict(causal=False), "model.decoder.kind"),
        (dict(image="none", image_queries=2), {}, "model.decoder.image_queries"),
    ],
)
def test_parts_that_do_not_fit_together_are_a_config_error(changes, text, message):
    model = VisionLanguageModel(
        ModelConfig(
            text=TextTransformerConfig(**NARROW, vocab_size=20, length=6, **text),
            decoder=DecoderConfig.of(**NARROW | changes),
        ),
        Precision(),
    )
    with pytest.raises(ConfigError, match=message):
        model.init(jax.random.key(0), TEXT, MASK, MEMORY, method="decode")


@pytest.mark.full
def test_gpt_2_s_residual_branches_start_smaller_the_more_of_them_there_are():
    """Radford et al. 2019, section 2.3: a standard deviation of 0.02, over the root of the 2 depth
    branches for what they write."""
    model = model_of(width=64, mlp_dim=256, depth=3, initialization="gpt2")
    shown = memory_of(model)
    params = nn.meta.unbox(model.init(jax.random.key(0), TEXT, MASK, shown, method="decode"))[
        "params"
    ]["decoder"]["transformer"]
    kernels = {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.std(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
        if path[-1].key == "kernel"
    }
    assert len(kernels) == 3 * 10
    for name, found in kernels.items():
        np.testing.assert_allclose(
            found, 0.02 / 6**0.5 if name.endswith("out/kernel") else 0.02, rtol=0.1, err_msg=name
        )
