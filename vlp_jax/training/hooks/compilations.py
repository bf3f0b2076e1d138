"""Counts the compilations of the update, and names the shape that caused another one."""

import contextlib
import contextvars
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator
from typing import Any

import jax

from vlp_jax.interrupts import COMPILING_AHEAD
from vlp_jax.reporting import detail, warn
from vlp_jax.sharding.parameter_sharding import path_of
from vlp_jax.training.cost.memory import program_bytes
from vlp_jax.training.hooks.hook import Hook

# JAX's event of a compilation, also of one read from the cache
COMPILED = "/jax/core/compile/backend_compile_duration"
# JAX's event of a program read from the cache
READ_FROM_CACHE = "/jax/compilation_cache/cache_hits"


class WatchedStep(Hook):
    """A jitted `step(state, batch)` with counts of its compilations.

    Attributes:
      compilations: number of programs made for it.
      from_cache: how many of them were read from the cache.
      compile_seconds: time of the compilations, tracing included.
      waited_seconds: time for which calls waited for compilations.
      program_bytes: memory of a device that the program compiled ahead needs; None where none was.
    """

    def __init__(self, step: Callable):
        self.step = step
        self.compilations, self.from_cache = 0, 0
        self.compile_seconds, self.waited_seconds = 0.0, 0.0
        self.shapes: dict[str, str] = {}
        self.ahead: Ahead | None = None
        self.program_bytes: int | None = None

    def compile_ahead(self, state: Any, batch: Any) -> None:
        """Starts to compile the step in a thread; the first call waits for its end.

        Args:
          state, batch: shapes of the arguments, those of the state with their shardings.
        """
        self.ahead = Ahead(self.step, state, batch)

    def await_ahead(self) -> None:
        """Waits until a compilation that was started ahead has ended, and counts it.

        Raises: what the compilation raised.
        """
        if self.ahead is None:
            return
        ahead, self.ahead, start = self.ahead, None, time.monotonic()
        ahead.join()
        self.waited_seconds += time.monotonic() - start
        if ahead.error is not None:
            raise ahead.error
        self.program_bytes = ahead.program_bytes
        if ahead.events[COMPILED]:
            self.count(ahead.events, ahead.seconds, ahead.shapes)

    def __call__(self, state: Any, batch: Any) -> Any:
        """Calls the step; reports a line if it was compiled before and is compiled again now."""
        self.await_ahead()
        start = time.monotonic()
        with compile_events() as events:
            result = self.step(state, batch)
        if events[COMPILED]:
            seconds = time.monotonic() - start
            self.waited_seconds += seconds
            self.count(events, seconds, shapes_of({"state": state, "batch": batch}))
        return result

    def row(self, lap: dict[str, float]) -> dict[str, float]:
        """The counts so far."""
        return {
            "train/compilations": self.compilations,
            "train/compilations_from_cache": self.from_cache,
            "train/compile_seconds": self.compile_seconds,
        }

    def count(self, events: Counter, seconds: float, shapes: dict[str, str]) -> None:
        """Counts the compilations of one call, with the shapes of its arguments."""
        if self.compilations:
            warn(
                f"the update was compiled again, which took {seconds:.1f} s: "
                f"{difference(self.shapes, shapes)}"
            )
        else:
            detail(
                f"the update was compiled in {seconds:.1f} "
                f"s{', from the cache' if events[READ_FROM_CACHE] else ''}"
            )
        self.compilations += events[COMPILED]
        self.from_cache += events[READ_FROM_CACHE]
        self.compile_seconds += seconds
        self.shapes = shapes


class Ahead(threading.Thread):
    """The compilation of a jitted step in a thread of its own, started at once.

    JAX keeps the program, so that the first call with these shapes neither traces nor compiles. The
    end of the process waits for it: XLA aborts where its memory goes away.

    Attributes:
      events, seconds: as counted in the thread.
      program_bytes: memory of a device that the program needs, or None.
      error: what the compilation raised, or None.
    """

    def __init__(self, step: Any, state: Any, batch: Any):
        super().__init__(name=COMPILING_AHEAD)
        self.step, self.arguments = step, (state, batch)
        self.shapes = shapes_of({"state": state, "batch": batch})
        self.events: Counter = Counter()
        self.seconds = 0.0
        self.program_bytes: int | None = None
        self.error: Exception | None = None
        self.context = contextvars.copy_context()
        self.start()

    def run(self) -> None:
        """Traces and compiles."""
        start = time.monotonic()
        with compile_events() as self.events:
            try:
                compiled = self.context.run(lambda: self.step.lower(*self.arguments).compile())
                self.program_bytes = program_bytes(compiled.memory_analysis())
            except Exception as error:
                self.error = error
        self.seconds = time.monotonic() - start


@contextlib.contextmanager
def compile_events() -> Generator[Counter, None, None]:
    """A context that counts the events COMPILED and READ_FROM_CACHE of this thread."""
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
    """{"batch/image": "uint8[8, 32, 32, 3]"} of all leaves; donated arrays still have their
    shapes."""
    return {
        path_of(path): f"{leaf.dtype}{list(leaf.shape)}"
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def difference(before: dict[str, str], after: dict[str, str], most: int = 3) -> str:
    """The first few arrays whose shapes differ, in words."""
    changed = [
        f"{name} was {before.get(name, 'absent')}, is {after.get(name, 'absent')}"
        for name in sorted(before | after)
        if before.get(name) != after.get(name)
    ]
    more = f"; and {len(changed) - most} more" if len(changed) > most else ""
    return "; ".join(changed[:most]) + more if changed else "no shape has changed"
