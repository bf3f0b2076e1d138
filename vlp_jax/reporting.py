"""Messages of a run to its user, by the logger "vlp_jax" of the logging module.

They go to stdout, so that stderr has an error, if there is one, and remarks on data. `-q` leaves
warnings and results, `-v` adds details.
A program that uses the package sets the level of the logger, or adds handlers of its own:
`logging.getLogger("vlp_jax").setLevel("WARNING")`.

On a terminal a live line may stand below all messages; each message is printed above it.
"""

import logging
import multiprocessing
import sys

from vlp_jax.printing import printable, safe_print

LOGGER = logging.getLogger("vlp_jax")
CLEAR = "\r\x1b[2K"  # the start of the line, which is then emptied
_live: list[str] = []  # the live line, where one is shown


class ConsoleHandler(logging.Handler):
    """A handler that prints messages on stdout, and remarks on stderr.

    The streams are looked up at each message, since tests and notebooks replace them.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Prints one message, above the live line."""
        stream = sys.stderr if getattr(record, "on_stderr", False) else sys.stdout
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
    """One line about something that the user may want to change."""
    _logger().warning("warning: %s", text)


def remark(text: str) -> None:
    """One line on stderr, as it is; none in worker processes, which repeat what the main one
    says."""
    if multiprocessing.parent_process() is None:
        _logger().warning("%s", text, extra={"on_stderr": True})


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


def _logger() -> logging.Logger:
    """The logger; it prints unless a program has given it handlers."""
    if not LOGGER.handlers:
        LOGGER.addHandler(ConsoleHandler())
        LOGGER.propagate = False
    if LOGGER.level == logging.NOTSET:
        LOGGER.setLevel(logging.INFO)
    return LOGGER
