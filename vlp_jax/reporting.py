"""Messages of a run to its user, by the logger "vlp_jax" of the logging module.

Information goes to stdout, warnings to stderr. `-q` leaves warnings and results, `-v` adds details.
A program that uses the package sets the level of the logger, or adds handlers of its own:
`logging.getLogger("vlp_jax").setLevel("WARNING")`.

On a terminal a live line may stand below all messages; each message is printed above it.
"""

import contextlib
import logging
import multiprocessing
import sys
from collections.abc import Generator

from vlp_jax.printing import printable, safe_print

LOGGER = logging.getLogger("vlp_jax")
CLEAR = "\r\x1b[2K"  # the start of the line, which is then emptied
_primary = True  # whether this process speaks for all processes of a run
_live: list[str] = []  # the live line, where one is shown


class ConsoleHandler(logging.Handler):
    """A handler that prints information on stdout and warnings on stderr.

    The streams are looked up at each message, since tests and notebooks replace them.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Prints one message, above the live line."""
        stream = sys.stderr if record.levelno >= logging.WARNING else sys.stdout
        if _live:
            sys.stdout.write(CLEAR)
            sys.stdout.flush()
        safe_print(self.format(record), file=stream, flush=True)
        if _live:
            show(_live[0])


def report(text: str) -> None:
    """One line of information."""
    _logger().info("%s", text)


def warn(text: str) -> None:
    """One line about something that the user may want to change. It is what all processes of a run say, so that the first does."""
    if _primary:
        _logger().warning("warning: %s", text)


def remark(text: str) -> None:
    """One line on stderr, as it is; none in worker processes, which repeat what the main one says."""
    if multiprocessing.parent_process() is None:
        _logger().warning("%s", text)


def detail(text: str) -> None:
    """One line that is shown with `-v` only."""
    _logger().debug("%s", text)


def live_line(text: str) -> None:
    """Replaces the live line, on a terminal."""
    if sys.stdout.isatty() and _logger().isEnabledFor(logging.INFO):
        _live[:] = [text]
        show(text)


def finish_live_line() -> None:
    """Makes the live line an ordinary one."""
    if _live:
        _live.clear()
        sys.stdout.write("\n")
        sys.stdout.flush()


def show(text: str) -> None:
    """Draws the live line."""
    sys.stdout.write(CLEAR + printable(text))
    sys.stdout.flush()


def set_verbosity(*, quiet: bool = False, verbose: bool = False) -> None:
    """Chooses what is shown: with `quiet` warnings alone, with `verbose` details, too."""
    _logger().setLevel(logging.WARNING if quiet else logging.DEBUG if verbose else logging.INFO)


@contextlib.contextmanager
def as_secondary() -> Generator[None, None, None]:
    """A context for a process of several that is not the first: it gives no warnings that all of them would give."""
    global _primary
    _primary = False
    try:
        yield
    finally:
        _primary = True


def _logger() -> logging.Logger:
    """The logger; it prints unless a program has given it handlers."""
    if not LOGGER.handlers:
        LOGGER.addHandler(ConsoleHandler())
        LOGGER.propagate = False
    if LOGGER.level == logging.NOTSET:
        LOGGER.setLevel(logging.INFO)
    return LOGGER
