"""Masked language modelling: rates of masking, and the loss against float64 NumPy."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vlp_jax.config import base, to_config
from vlp_jax.data.preprocessor import Preprocessor
from vlp_jax.data.text.tokenizer import TextConfig, load_tokenizer
from vlp_jax.data.text.train_tokenizer import KINDS, train_tokenizer
from vlp_jax.errors import ConfigError
from vlp_jax.objectives.masked_language import MaskedText, mask_tokens, masked_loss
from vlp_jax.objectives.tokens import entropy_of
from vlp_jax.training.build import build_module, example_batch
from vlp_jax.training.state import initial_variables

VOCABULARY, MASK = 50, 49
KEY = jax.random.key(3)


def texts(rows=4000, length=12):
    rng = np.random.default_rng(0)
    mask = np.arange(length) < rng.integers(3, length + 1, (rows, 1))
    return jnp.asarray(rng.integers(0, MASK, (rows, length)), jnp.int32), jnp.asarray(mask)


def within(count, total, rate):
    """Whether a count of `total` draws is within 5 standard deviations of its rate."""
    return abs(count - total * rate) < 5 * np.sqrt(total * rate * (1 - rate))


@pytest.mark.parametrize("rate", [0.15, 0.4])
def test_tokens_are_chosen_at_the_rate_and_become_mask_random_or_stay_in_80_10_10(rate):
    text, mask = texts()
    masked = jax.tree.map(
        np.asarray, mask_tokens(KEY, text, mask, rate, VOCABULARY, MASK, True, True)
    )
    chosen, count = masked.chosen, masked.chosen.sum()
    assert within(count, masked.open.sum(), rate)
    old, new = np.asarray(text)[chosen], masked.text[chosen]
    assert within((new == MASK).sum(), count, 0.8)
    assert within(((new != MASK) & (new != old)).sum(), count, 0.1 * (1 - 1 / MASK))
    assert within((new == old).sum(), count, 0.1 + 0.1 / MASK)
    assert (masked.text[~chosen] == np.asarray(text)[~chosen]).all()
    random = new[(new != MASK) & (new != old)]
    assert random.min() == 0 and random.max() == VOCABULARY - 2  # any id but the mask's


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("last", [True, False])
def test_padding_and_spared_ends_are_never_chosen_and_all_else_is(first, last):
    text, mask = texts(rows=50)
    masked = mask_tokens(KEY, text, mask, 1.0, VOCABULARY, MASK, first, last)
    expected, lengths = np.array(mask), np.asarray(mask).sum(1)
    expected[:, 0] &= not first
    expected[np.arange(50), lengths - 1] &= not last
    np.testing.assert_array_equal(masked.chosen, expected)


@pytest.mark.parametrize("kind", ["bpe", "wordpiece"])
def test_whole_words_are_chosen_together_at_the_rate_of_words_each_as_often_as_any_other(
    kind, tmp_path
):
    captions = [
        "redhead astronaut beside an unbelievably long caterpillar",
        "a face with smiling eyes",
        "moon",
    ]
    path = tmp_path / "tokenizer.json"
    path.write_bytes(train_tokenizer(captions * 3, 80 if kind == "wordpiece" else 300, kind))
    special = KINDS[kind]
    spec = TextConfig(
        tokenizer=str(path),
        start_token=special.start,
        end_token=special.end,
        padding_token=special.padding,
    )
    tokenizer = load_tokenizer(spec, 48, 400)
    ids, mask, _ = tokenizer(captions)
    starts, repeats, rate = tokenizer.word_start(ids), 4000, 0.15
    text, real, start = (jnp.asarray(np.tile(x, (repeats, 1))) for x in (ids, mask, starts))
    masked = mask_tokens(KEY, text, real, rate, 400, 399, True, True, start)
    chosen = np.asarray(masked.chosen).reshape(repeats, len(captions), -1)
    counts = []
    for row, caption in enumerate(captions):
        word = np.cumsum(starts[row]) - 1  # 0 is the start token
        of_words = [
            chosen[:, row, (word == number) & mask[row]]
            for number in range(1, len(caption.split()) + 1)
        ]
        assert (
            all((tokens == tokens[:, :1]).all() for tokens in of_words)
            and max(tokens.shape[1] for tokens in of_words) > 1
        )
        counts += [tokens[:, 0].sum() for tokens in of_words]
        assert chosen[:, row].sum() == sum(tokens.sum() for tokens in of_words)  # nothing else is
    assert all(within(count, repeats, rate) for count in counts)
    pairs = np.corrcoef(
        np.stack([chosen[:, 0, place] for place in np.flatnonzero(starts[0] & mask[0])[1:-1]])
    )
    # words know nothing of each other
    assert np.abs(pairs - np.eye(len(pairs))).max() < 5 / np.sqrt(repeats)
    fates = np.asarray(masked.text)[np.asarray(masked.chosen)]
    assert within((fates == 399).sum(), len(fates), 0.8)  # of each token by itself


def test_the_loss_is_the_mean_over_chosen_tokens_in_float64_numpy():
    rng = np.random.default_rng(0)
    logits, text, chosen = (
        rng.normal(size=(3, 5, 7)),
        rng.integers(0, 7, (3, 5)),
        rng.random((3, 5)) < 0.5,
    )
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    expected = -np.log(np.take_along_axis(p, text[..., None], -1)[..., 0])[chosen].mean()
    loss = masked_loss(jnp.asarray(logits, jnp.float32), jnp.asarray(text), jnp.asarray(chosen))
    np.testing.assert_allclose(loss.value, expected, rtol=1e-5)
    np.testing.assert_allclose(
        loss.metrics["accuracy"], (logits.argmax(-1) == text)[chosen].mean(), rtol=1e-6
    )
    assert masked_loss(jnp.asarray(logits), jnp.asarray(text), jnp.zeros((3, 5), bool)).value == 0.0


def test_the_entropy_of_counts_is_that_of_their_frequencies():
    np.testing.assert_allclose(
        entropy_of(jnp.array([1.0, 1.0, 2.0, 0.0])), 1.5 * np.log(2), rtol=1e-6
    )
    assert entropy_of(jnp.zeros(3)) == 0.0


def config_of(vocab_size=4096, start_token="<start>", **objective):
    config = base()
    config.update(
        steps=1, objectives=dict(words=dict(kind="masked_language", with_image=False, **objective))
    )
    config.data.text.start_token = start_token
    config.model.text.vocab_size = vocab_size
    return to_config(config.to_dict())


def test_a_mask_token_that_the_tokenizer_knows_as_a_word_is_a_config_error():
    with pytest.raises(
        ConfigError,
        match="vocab_size: 4096 leaves no id .* objectives.words; set it to 4097 or more",
    ):
        Preprocessor.from_config(config_of())
    Preprocessor.from_config(config_of(vocab_size=4097))
    Preprocessor.from_config(config_of(mask_id=7))


def test_sparing_a_start_token_that_there_is_none_of_is_a_config_error():
    with pytest.raises(
        ConfigError,
        match="objectives.words.keep_first: has no effect without data.text.start_token",
    ):
        config_of(start_token=None)
    config_of(start_token=None, keep_first=False)


def with_fusion(head_layers="fusion", tied=False, **fusion):
    config = base()
    words = dict(kind="masked_language", head_layers=head_layers, tied=tied)
    config.update(steps=1, objectives=dict(words=words))
    narrow = dict(preset="Ti", depth=1, heads=2, mlp_dim=16)
    config.model.image.update(narrow, width=8, patch_size=4, image_size=8)
    config.model.text.update(
        narrow, width=8, vocab_size=20, length=5, causal=False, pooling="first", activation="relu"
    )
    norm = dict(norm_epsilon=0.3, activation="quick_gelu")
    config.model.fusion = fusion or dict(narrow, kind="co_attention", width=12, **norm)
    return to_config(config.to_dict())


@pytest.mark.full
def test_a_head_of_fusion_layers_has_their_width_activation_and_norm_in_float64_numpy():
    module, batch = build_module(with_fusion(), "float32"), example_batch(with_fusion(), rows=3)
    rng, shapes = (
        np.random.default_rng(0),
        nn.meta.unbox(jax.eval_shape(lambda: initial_variables(module, batch, 0)))["params"],
    )
    params = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype), shapes)
    text = jnp.asarray(rng.integers(0, 20, (3, 5)), jnp.int32)
    mask = jnp.ones((3, 5), bool)

    def both(module, image):
        encodings = {"image": module.model.encode_image(image)}
        fused = module.model.fuse(encodings["image"], module.model.encode_text(text, mask), False)
        words = MaskedText(text, mask, mask)
        rest = {"text_mask": mask}
        return fused.tokens, module.objectives["words"].logits(encodings, words, rest, module.model)

    image = jnp.asarray(rng.normal(size=(3, 8, 8, 3)), jnp.float32)
    tokens, logits = module.apply({"params": params}, image, method=both)
    head = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params["objectives_words"])
    head = head["head"]
    x = np.asarray(tokens, np.float64) @ head["dense"]["kernel"] + head["dense"]["bias"]
    x = x / (1.0 + np.exp(-1.702 * x))
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 0.3)
    x = x * head["norm"]["scale"] + head["norm"]["bias"]
    assert head["table"].shape == (20, 12)
    np.testing.assert_allclose(logits, x @ head["table"].T + head["bias"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(tied=True), "words.tied: the word embeddings have width 8, and a head of .* 12"),
        (dict(kind="in_text_tower"), "words.head_layers: 'fusion' needs with_image=True and a"),
    ],
)
def test_a_head_of_fusion_layers_that_are_not_there_is_a_config_error(changes, message):
    with pytest.raises(ConfigError, match=message):
        with_fusion(**changes)
