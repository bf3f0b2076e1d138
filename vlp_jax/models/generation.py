"""Texts from a model that predicts the next token: greedily, by beam search, or drawn. Each is one compiled program.

All take a `step(state, tokens) -> (logits, state)`: tokens int32 [B], the newest of each row; logits float32 [B, V] of the next;
state any tree, such as a cache of keys and values. All give int32 [B, length] without `start`, `padding` behind the `end` token.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from einops import rearrange, repeat

Step = Callable[[Any, jax.Array], tuple[jax.Array, Any]]
NEVER = -1e30  # a logit of what may not be


def generate(step: Step, state: Any, start: jax.Array, length: int, end: int, padding: int, choose: Callable) -> jax.Array:
    """One token after another by `choose(logits, number)`, until all rows have ended or have `length` tokens. start: int32 [B]."""
    def unfinished(carry):
        number, _, _, _, ended = carry
        return (number < length) & ~ended.all()

    def add(carry):
        number, state, tokens, newest, ended = carry
        logits, state = step(state, newest)
        newest = jnp.where(ended, padding, choose(logits, number)).astype(jnp.int32)
        return number + 1, state, tokens.at[:, number].set(newest), newest, ended | (newest == end)

    tokens = jnp.full((len(start), length), padding, jnp.int32)
    carry = jnp.int32(0), state, tokens, start.astype(jnp.int32), jnp.zeros(len(start), bool)
    return jax.lax.while_loop(unfinished, add, carry)[2]


def greedy(step: Step, state: Any, start: jax.Array, length: int, end: int, padding: int) -> jax.Array:
    """The likeliest token each time."""
    return generate(step, state, start, length, end, padding, lambda logits, number: logits.argmax(axis=-1))


def sample(step: Step, state: Any, start: jax.Array, length: int, end: int, padding: int, key: jax.Array,
           temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None) -> jax.Array:
    """Draws each token from the softmax of logits / temperature, among those that `top_k` and then `top_p` leave."""
    def choose(logits, number):
        logits = logits / temperature
        logits = logits if top_k is None else keep_top_k(logits, top_k)
        logits = logits if top_p is None else keep_top_p(logits, top_p)
        return jax.random.categorical(jax.random.fold_in(key, number), logits)

    return generate(step, state, start, length, end, padding, choose)


def keep_top_k(logits: jax.Array, k: int) -> jax.Array:
    """[B, V] with all but the k largest of a row (and what equals the last of these) ruled out (Fan et al. 2018)."""
    last = jax.lax.top_k(logits, min(k, logits.shape[-1]))[0][:, -1:]
    return jnp.where(logits >= last, logits, NEVER)


def keep_top_p(logits: jax.Array, p: float) -> jax.Array:
    """[B, V] with all ruled out but the fewest likeliest tokens of a row that have a probability of p together (nucleus sampling,
    Holtzman et al. 2020, section 3.1); the likeliest one stays."""
    probabilities = jax.nn.softmax(logits)
    order = jnp.argsort(-probabilities, axis=-1)
    ranked = jnp.take_along_axis(probabilities, order, axis=-1)
    before = jnp.cumsum(ranked, axis=-1) - ranked
    kept = (before < p).at[:, 0].set(True)
    kept = jnp.take_along_axis(kept, jnp.argsort(order, axis=-1), axis=-1)
    return jnp.where(kept, logits, NEVER)


def beam_search(step: Step, state: Any, start: jax.Array, length: int, end: int, padding: int, beams: int,
                take: Callable[[Any, jax.Array], Any], length_penalty: float = 0.0) -> tuple[jax.Array, jax.Array]:
    """The `beams` best texts that beam search finds, best first: int32 [B, K, length] and their scores, float32 [B, K].

    A score is the sum of log-probabilities, its end token's among them, divided by (number of tokens)^length_penalty. A text that
    has ended keeps its place among the beams while no unfinished one is better.
    state: for B rows. take: `take(state, rows)` gives the state of `rows`, int32 [N] of its own.
    """
    batch = len(start)
    state = take(state, repeat(jnp.arange(batch), "b -> (b k)", k=beams))
    total = jnp.tile(jnp.where(jnp.arange(beams) == 0, 0.0, NEVER), (batch, 1))  # all beams are the same at first
    tokens = jnp.full((batch, beams, length), padding, jnp.int32)
    newest = repeat(start.astype(jnp.int32), "b -> b k", k=beams)
    nobody, counts = jnp.zeros((batch, beams), bool), jnp.zeros((batch, beams), jnp.int32)

    def unfinished(carry):
        number, *_, ended = carry
        return (number < length) & ~ended.all()

    def add(carry):
        number, state, tokens, newest, total, counts, ended = carry
        logits, state = step(state, newest.reshape(-1))
        gains = rearrange(jax.nn.log_softmax(logits), "(b k) v -> b k v", k=beams)
        vocabulary = jnp.arange(gains.shape[-1])
        gains = jnp.where(ended[:, :, None], jnp.where(vocabulary == padding, 0.0, NEVER), gains)
        totals = total[:, :, None] + gains
        lengths = jnp.maximum(counts + ~ended, 1)[:, :, None].astype(jnp.float32)
        scores = rearrange(totals / lengths**length_penalty, "b k v -> b (k v)")
        best = jax.lax.top_k(scores, beams)[1]
        parent, newest = best // len(vocabulary), best % len(vocabulary)
        total = jnp.take_along_axis(rearrange(totals, "b k v -> b (k v)"), best, axis=1)
        tokens = jnp.take_along_axis(tokens, parent[:, :, None], axis=1).at[:, :, number].set(newest)
        ended = jnp.take_along_axis(ended, parent, axis=1)
        counts = jnp.take_along_axis(counts, parent, axis=1) + ~ended
        rows = (jnp.arange(batch)[:, None] * beams + parent).reshape(-1)
        return number + 1, take(state, rows), tokens, newest, total, counts, ended | (newest == end)

    carry = jnp.int32(0), state, tokens, newest, total, counts, nobody
    _, _, tokens, _, total, counts, _ = jax.lax.while_loop(unfinished, add, carry)
    scores = total / jnp.maximum(counts, 1).astype(jnp.float32)**length_penalty
    order = jnp.argsort(-scores, axis=1)
    return jnp.take_along_axis(tokens, order[:, :, None], axis=1), jnp.take_along_axis(scores, order, axis=1)


def written(apply: Callable, memory: Any, start: jax.Array, length: int, end: int, padding: int, beams: int = 1) -> jax.Array:
    """int32 [B, length]: a decoder's text for each row of `memory`, the likeliest token each time, or with several beams the
    likeliest text that these find. apply, memory: as of `decoder_step`."""
    step, state = decoder_step(apply, memory, len(start))
    if beams == 1:
        return greedy(step, state, start, length, end, padding)
    return beam_search(step, state, start, length, end, padding, beams, take_rows)[0][:, 0]


def decoder_step(apply: Callable, memory: Any, rows: int) -> tuple[Step, Any]:
    """The step function of a decoder, and the state before the first token.

    apply: `apply(cache, tokens [B, n], position, memory) -> (logits [B, n, V], cache)`, such as of
      `VisionLanguageModel.decode_next`. memory: what the picture's encoder gave for each row, or None. rows: B.
    """
    _, cache = apply({}, jnp.zeros((rows, 0), jnp.int32), jnp.int32(0), memory)

    def step(state, tokens):
        cache, position = state
        logits, cache = apply(cache, tokens[:, None], position, None)
        return logits[:, 0], (cache, position + 1)

    return step, (cache, jnp.int32(0))


def take_rows(state: tuple[Any, jax.Array], rows: jax.Array) -> tuple[Any, jax.Array]:
    """`decoder_step`'s state of the given rows: the third axis from behind of what is cached, with an axis of layers or without."""
    cache, position = state
    return jax.tree.map(lambda x: jnp.take(x, rows, axis=-3), cache), position
