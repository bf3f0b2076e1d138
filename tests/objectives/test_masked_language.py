"""Masked language modelling: rates of masking, and the loss against float64 NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vlp_jax.config import base, to_config
from vlp_jax.data.preprocessor import Preprocessor
from vlp_jax.errors import ConfigError
from vlp_jax.objectives.masked_language import mask_tokens, masked_loss
from vlp_jax.objectives.tokens import entropy_of

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
    masked = jax.tree.map(np.asarray, mask_tokens(KEY, text, mask, rate, VOCABULARY, MASK, True, True))
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


def test_the_loss_is_the_mean_over_chosen_tokens_in_float64_numpy():
    rng = np.random.default_rng(0)
    logits, text, chosen = rng.normal(size=(3, 5, 7)), rng.integers(0, 7, (3, 5)), rng.random((3, 5)) < 0.5
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    expected = -np.log(np.take_along_axis(p, text[..., None], -1)[..., 0])[chosen].mean()
    loss = masked_loss(jnp.asarray(logits, jnp.float32), jnp.asarray(text), jnp.asarray(chosen))
    np.testing.assert_allclose(loss.value, expected, rtol=1e-5)
    np.testing.assert_allclose(loss.metrics["accuracy"], (logits.argmax(-1) == text)[chosen].mean(), rtol=1e-6)
    assert masked_loss(jnp.asarray(logits), jnp.asarray(text), jnp.zeros((3, 5), bool)).value == 0.0


def test_the_entropy_of_counts_is_that_of_their_frequencies():
    np.testing.assert_allclose(entropy_of(jnp.array([1.0, 1.0, 2.0, 0.0])), 1.5 * np.log(2), rtol=1e-6)
    assert entropy_of(jnp.zeros(3)) == 0.0


def config_of(vocab_size=4096, start_token="<start>", **objective):
    config = base()
    config.update(steps=1, objectives=dict(words=dict(kind="masked_language", **objective)))
    config.data.text.start_token = start_token
    config.model.text.vocab_size = vocab_size
    return to_config(config.to_dict())


def test_a_mask_token_that_the_tokenizer_knows_as_a_word_is_a_config_error():
    with pytest.raises(ConfigError, match="vocab_size: 4096 leaves no id .* objectives.words; set it to 4097 or more"):
        Preprocessor.from_config(config_of())
    Preprocessor.from_config(config_of(vocab_size=4097))
    Preprocessor.from_config(config_of(mask_id=7))


def test_sparing_a_start_token_that_there_is_none_of_is_a_config_error():
    with pytest.raises(ConfigError, match="objectives.words.spare_first: has no effect without data.text.start_token"):
        config_of(start_token=None)
    config_of(start_token=None, spare_first=False)
