"""Counts how often the update is compiled, and names the shape that made it compile again."""

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import jax

from vlp_jax.sharding.parameter_sharding import path_of

COMPILED = "/jax/core/compile/backend_compile_duration"  # what JAX calls a compilation, one read from the cache included,
READ_FROM_CACHE = "/jax/compilation_cache/cache_hits"  # and one that was


class WatchedStep:
    """A jitted `step(state, batch)`, called through to.

    compilations, from_cache: how many programs were made for it, and how many of them were read from the cache.
    compile_seconds: time of the calls that compiled, tracing included.
    """

    def __init__(self, step: Callable, say: Callable[[str], None]):
        self.step, self.say = step, say
        self.compilations, self.from_cache, self.compile_seconds = 0, 0, 0.0
        self.shapes: dict[str, str] = {}

    def __call__(self, state: Any, batch: Any) -> Any:
        """Says so if the step was compiled before, and now again."""
        start = time.monotonic()
        with compile_events() as events:
            result = self.step(state, batch)
        if events[COMPILED]:
            self.count(events, time.monotonic() - start, shapes_of({"state": state, "batch": batch}))
        return result

    def count(self, events: Counter, seconds: float, shapes: dict[str, str]) -> None:
        if self.compilations:
            self.say(f"warning: the update was compiled again, which took {seconds:.1f} s: {difference(self.shapes, shapes)}")
        self.compilations += events[COMPILED]
        self.from_cache += events[READ_FROM_CACHE]
        self.compile_seconds += seconds
        self.shapes = shapes


@contextlib.contextmanager
def compile_events() -> Iterator[Counter]:
    """How often JAX reports COMPILED and READ_FROM_CACHE from this thread meanwhile."""
    seen: Counter = Counter()
    thread = threading.get_ident()

    def observe(event: str, *_, **__) -> None:
        if threading.get_ident() == thread:
            seen[event] += 1

    jax.monitoring.register_event_duration_secs_listener(observe)
    jax.monitoring.register_event_listener(observe)
    try:
        yield seen
    finally:
        jax.monitoring.unregister_event_duration_listener(observe)
        jax.monitoring.unregister_event_listener(observe)


def shapes_of(tree: Any) -> dict[str, str]:
    """{"batch/image": "uint8[8, 32, 32, 3]"}; donated arrays still tell theirs."""
    return {path_of(path): f"{leaf.dtype}{list(leaf.shape)}" for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def difference(before: dict[str, str], after: dict[str, str], most: int = 3) -> str:
    """The arrays whose shapes differ, in words, the first few of them."""
    changed = [f"{name} was {before.get(name, 'absent')}, is {after.get(name, 'absent')}" for name in sorted(before | after)
               if before.get(name) != after.get(name)]
    more = f"; and {len(changed) - most} more" if len(changed) > most else ""
    return "; ".join(changed[:most]) + more if changed else "no shape has changed"
