"""Lines on stderr about data that can be used but deserve a warning."""

import contextlib
import threading
from collections.abc import Callable, Generator, Mapping

from vlp_jax.reporting import remark

LISTED = 6  # kinds that one line names
PATIENCE = 5.0  # seconds before the first line about a slow operation


def notice(text: str) -> None:
    """One warning in one line. Worker processes print nothing, so that the line appears once."""
    remark(" ".join(text.split()))


def listed(counts: Mapping[str, int]) -> str:
    """The first LISTED counts, each with what it counts."""
    more = f" and {len(counts) - LISTED} more kinds" if len(counts) > LISTED else ""
    return ", ".join(f"{count:,} {what}" for what, count in list(counts.items())[:LISTED]) + more


@contextlib.contextmanager
def message_while_waiting(
    text: Callable[[], str], patience: float | None = None
) -> Generator[None, None, None]:
    """Prints `text()` when the block takes long, then each time the waiting time has doubled.

    Args:
      text: builds the line at the time it is printed.
      patience: seconds before the first line; None for `PATIENCE`.
    """
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
