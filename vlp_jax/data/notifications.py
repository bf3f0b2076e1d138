"""Lines for the person at the terminal about data that can be used, but not without a word."""

import contextlib
import multiprocessing
import sys
import threading
from collections.abc import Callable, Iterator, Mapping

from vlp_jax.printing import safe_print as print

LISTED = 6  # kinds that a line names
PATIENCE = 5.0  # seconds before the first line of something that takes long


def notice(text: str) -> None:
    """Prints a line on stderr; in worker processes nothing, so that it is said once."""
    if multiprocessing.parent_process() is None:
        print(" ".join(text.split()), file=sys.stderr, flush=True)


def listed(counts: Mapping[str, int]) -> str:
    """The first counts, each with what it counts."""
    more = f" and {len(counts) - LISTED} more kinds" if len(counts) > LISTED else ""
    return ", ".join(f"{count:,} {what}" for what, count in list(counts.items())[:LISTED]) + more


@contextlib.contextmanager
def message_while_waiting(text: Callable[[], str], patience: float | None = None) -> Iterator[None]:
    """Says `text()` when the block takes longer than `patience` seconds (`PATIENCE` if None), and again each time it has
    taken twice as long."""
    done = threading.Event()

    def speak():
        wait = PATIENCE if patience is None else patience
        while not done.wait(wait):
            notice(text())
            wait *= 2

    speaker = threading.Thread(target=speak, daemon=True)
    speaker.start()
    try:
        yield
    finally:
        done.set()
        speaker.join()
