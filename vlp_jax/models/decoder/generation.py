"""Text generation from a next-token model: greedy, beam search, or sampling.

Each is one compiled program.

All functions take `step(state, tokens) -> (logits, state)`: tokens int32 [B], the newest of each
row; logits float32 [B, V] of the next token; state any tree, such as a cache of keys and values.
All return int32 [B, length] without the `start` token, with `padding` after the `end` token.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from einops import rearrange, repeat

Step = Callable[[Any, jax.Array], tuple[jax.Array, Any]]
NEVER = -1e30  # logit of an excluded token


def generate(
    step: Step, state: Any, start: jax.Array, length: int, end: int, padding: int, choose: Callable
) -> jax.Array:
    """Generates token after token, until all rows have ended or have `length` tokens.

    Args:
      step: as in the module's docstring.
      state: before the first token.
      start: int32 [B], the first input tokens.
      length: the largest number of tokens.
      end: id of the token that ends a text.
      padding: id of the token after it.
      choose: `choose(logits, number)`, from logits [B, V] and the number of tokens generated so far
        to the next token [B].
    Returns: int32 [B, length].
    """

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


def greedy(
    step: Step, state: Any, start: jax.Array, length: int, end: int, padding: int
) -> jax.Array:
    """Greedy decoding: the likeliest token at each step."""
    return generate(
        step, state, start, length, end, padding, lambda logits, number: logits.argmax(axis=-1)
    )


def sample(
    step: Step,
    state: Any,
    start: jax.Array,
    length: int,
    end: int,
    padding: int,
    key: jax.Array,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
) -> jax.Array:
    """Samples each token from the softmax of logits / temperature, restricted by `top_k` and then
    `top_p`."""

    def choose(logits, number):
        logits = logits / temperature
        logits = logits if top_k is None else keep_top_k(logits, top_k)
        logits = logits if top_p is None else keep_top_p(logits, top_p)
        return jax.random.categorical(jax.random.fold_in(key, number), logits)

    return generate(step, state, start, length, end, padding, choose)


def keep_top_k(logits: jax.Array, k: int) -> jax.Array:
    """Logits [B, V] with all but the k largest of a row excluded, ties with the k-th kept (Fan et
    al. 2018)."""
    last = jax.lax.top_k(logits, min(k, logits.shape[-1]))[0][:, -1:]
    return jnp.where(logits >= last, logits, NEVER)


def keep_top_p(logits: jax.Array, p: float) -> jax.Array:
    """Logits [B, V] restricted to the nucleus (Holtzman et al. 2020, section 3.1).

    The nucleus is the fewest likeliest tokens of a row with a total probability of at least p; the
    likeliest token is always kept.
    """
    probabilities = jax.nn.softmax(logits)
    order = jnp.argsort(-probabilities, axis=-1)
    ranked = jnp.take_along_axis(probabilities, order, axis=-1)
    before = jnp.cumsum(ranked, axis=-1) - ranked
    kept = (before < p).at[:, 0].set(True)
    kept = jnp.take_along_axis(kept, jnp.argsort(order, axis=-1), axis=-1)
    return jnp.where(kept, logits, NEVER)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BeamSearch:
    """Options of beam search, with the names and the stopping rule of transformers' `generate`.

    Attributes:
      num_beams: number of unfinished texts kept, and of finished ones kept in addition; 1 is
        greedy.
      length_penalty: the log-probability of a finished text is divided by its number of tokens to
        this power.
      early_stopping: True stops at the first `num_beams` finished texts. False stops when the
        likeliest unfinished text, scored with its present length, would not be among the finished
        ones. "never" stops when no continuation could be; with a positive length penalty, this is
        judged with the largest length.
    """

    num_beams: int = 1
    length_penalty: float = 1.0
    early_stopping: bool | Literal["never"] = False


class _Beams(NamedTuple):
    """State of beam search for B rows: K unfinished texts each, and the best K finished ones.

    `open`: bool [B], whether the finished texts may still improve.
    """

    number: jax.Array
    state: Any
    tokens: jax.Array
    newest: jax.Array
    totals: jax.Array
    finished: jax.Array
    scores: jax.Array
    open: jax.Array


def beam_search(
    step: Step,
    state: Any,
    start: jax.Array,
    length: int,
    end: int,
    padding: int,
    search: BeamSearch,
    take: Callable[[Any, jax.Array], Any],
) -> tuple[jax.Array, jax.Array]:
    """Beam search, with finished texts kept apart from unfinished ones.

    A score is the sum of log-probabilities, including the end token's, divided by (number of
    tokens)^length_penalty. A text that ends among the K likeliest continuations of a step is kept
    as a finished one, and the K likeliest unfinished ones continue; with `length` tokens, all are
    finished.

    Args:
      step: as in the module's docstring, for B K rows.
      state: for B rows.
      start: int32 [B], the first input tokens.
      length: the largest number of tokens.
      end: id of the token that ends a text.
      padding: id of the token after it.
      search: the options.
      take: `take(state, rows)` returns the state of `rows`, int32 [N] indices of its rows.
    Returns: the best finished texts, best first, int32 [B, K, length], and their scores, float32
      [B, K]. Where there are fewer than K texts (short lengths, or few tokens), the others have the
      score NEVER.
    """
    batch, num_beams = len(start), search.num_beams
    fresh = jnp.full((batch, num_beams, length), padding, jnp.int32)
    absent = jnp.full((batch, num_beams), NEVER)
    carry = _Beams(
        jnp.int32(0),
        take(state, repeat(jnp.arange(batch), "b -> (b k)", k=num_beams)),
        fresh,
        # all are equal at first
        repeat(start.astype(jnp.int32), "b -> b k", k=num_beams),
        absent.at[:, 0].set(0.0),
        fresh,
        absent,
        jnp.ones(batch, bool),
    )

    def unfinished(carry: _Beams) -> jax.Array:
        return (carry.number < length) & carry.open.any()

    def add(carry: _Beams) -> _Beams:
        logits, state = step(carry.state, carry.newest.reshape(-1))
        parent, token, totals = _continuations(logits, carry.totals, end)
        tokens = _of(carry.tokens, parent).at[:, :, carry.number].set(token)
        number = carry.number + 1
        ends = (token == end) | (number == length)
        alive = jnp.where(ends, NEVER, totals)
        kept = jax.lax.top_k(alive, num_beams)[1]
        finished, scores = _with_finished(
            carry, tokens, totals, ends & (jnp.arange(ends.shape[1]) < num_beams), search, number
        )
        totals = _of(alive, kept)
        rows = (jnp.arange(batch)[:, None] * num_beams + _of(parent, kept)).reshape(-1)
        return _Beams(
            number,
            take(state, rows),
            _of(tokens, kept),
            _of(token, kept),
            totals,
            finished,
            scores,
            carry.open & _may_improve(totals, scores, search, number, length),
        )

    carry = jax.lax.while_loop(unfinished, add, carry)
    return carry.finished, carry.scores


def _continuations(
    logits: jax.Array, totals: jax.Array, end: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The likeliest 2K one-token continuations of K texts, of which at least K do not end.

    Returns: their parents, tokens and log-probabilities, [B, 2K] each.
    """
    num_beams, vocabulary = totals.shape[1], logits.shape[-1]
    gains = rearrange(jax.nn.log_softmax(logits), "(b k) v -> b k v", k=num_beams)
    total, best = jax.lax.top_k(
        rearrange(totals[:, :, None] + gains, "b k v -> b (k v)"), min(2, vocabulary) * num_beams
    )
    return best // vocabulary, best % vocabulary, total


def _with_finished(
    carry: _Beams,
    tokens: jax.Array,
    totals: jax.Array,
    ended: jax.Array,
    search: BeamSearch,
    number: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """The best K finished texts, including those that just ended: tokens [B, K, length] and scores
    [B, K]."""
    allowed = ended & carry.open[:, None] & (totals > NEVER / 2)
    scores = jnp.where(allowed, totals / number.astype(jnp.float32) ** search.length_penalty, NEVER)
    scores, best = jax.lax.top_k(jnp.concatenate([carry.scores, scores], axis=1), search.num_beams)
    return _of(jnp.concatenate([carry.finished, tokens], axis=1), best), scores


def _may_improve(
    totals: jax.Array, scores: jax.Array, search: BeamSearch, number: jax.Array, length: int
) -> jax.Array:
    """Whether a continuation could be among the best K, by the rule of `early_stopping`: bool
    [B]."""
    full = (scores > NEVER / 2).all(axis=1)
    if search.early_stopping is True:
        return ~full
    longest = search.early_stopping == "never" and search.length_penalty > 0
    lengths = jnp.float32(length) if longest else number.astype(jnp.float32)
    return ~full | (totals[:, 0] / lengths**search.length_penalty > scores.min(axis=1))


def _of(rows: jax.Array, index: jax.Array) -> jax.Array:
    """The entries `index`, int [B, N], of each row of [B, M, ...]."""
    return jnp.take_along_axis(rows, index.reshape(index.shape + (1,) * (rows.ndim - 2)), axis=1)


def written(
    apply: Callable,
    memory: Any,
    start: jax.Array,
    length: int,
    end: int,
    padding: int,
    search: BeamSearch = BeamSearch(),
) -> jax.Array:
    """A decoder's text for each row of `memory`: greedy, or with several beams the best text of
    beam search.

    Args:
      apply: as in `decoder_step`.
      memory: as in `decoder_step`.
      start: int32 [B], the first input tokens.
      length: the largest number of tokens.
      end: id of the token that ends a text.
      padding: id of the token after it.
      search: options of beam search.
    Returns: int32 [B, length].
    """
    step, state = decoder_step(apply, memory, len(start))
    if search.num_beams == 1:
        return greedy(step, state, start, length, end, padding)
    return beam_search(step, state, start, length, end, padding, search, take_rows)[0][:, 0]


def decoder_step(apply: Callable, memory: Any, rows: int) -> tuple[Step, Any]:
    """The step function of a decoder, and the state before the first token.

    Args:
      apply: `apply(cache, tokens [B, n], position, memory) -> (logits [B, n, V], cache)`, such as
        of `VisionLanguageModel.decode_next`.
      memory: the image encoder's output for each row, or None.
      rows: B.
    Returns: the step function, and its state.
    """
    _, cache = apply({}, jnp.zeros((rows, 0), jnp.int32), jnp.int32(0), memory)

    def step(state, tokens):
        cache, position = state
        logits, cache = apply(cache, tokens[:, None], position, None)
        return logits[:, 0], (cache, position + 1)

    return step, (cache, jnp.int32(0))


def take_rows(state: tuple[Any, jax.Array], rows: jax.Array) -> tuple[Any, jax.Array]:
    """`decoder_step`'s state of the given rows.

    They are the third axis from last of cached arrays, which have an axis of layers or not.
    """
    cache, position = state
    return jax.tree.map(lambda x: jnp.take(x, rows, axis=-3), cache), position
