"""Shared parts of the entry points: flags, `--config.KEY=VALUE` overrides, errors as one line."""

import argparse
import contextlib
import logging
import os
import re
import select
import signal
import sys
import threading
from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING, NoReturn

from vlp_jax.config.registry import root_section
from vlp_jax.config.suggestions import flag_suggestion
from vlp_jax.errors import CheckpointError, ConfigError, user_error_of
from vlp_jax.interrupts import COMPILING_AHEAD, CTRL_C
from vlp_jax.printing import safe_print as print
from vlp_jax.reporting import set_verbosity

# modules that need JAX, which reads its environment variables when it is imported
if TYPE_CHECKING:
    from vlp_jax.distributed.processes import HostsConfig


class Flags(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one line and which accepts each flag only once.

    It has the flags -v and -q of all entry points, which choose what is reported.
    """

    def __init__(self, **options):
        super().__init__(
            allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **options
        )
        verbosity = self.add_mutually_exclusive_group()
        verbosity.add_argument("-v", "--verbose", action="store_true", help="report details, too")
        verbosity.add_argument(
            "-q", "--quiet", action="store_true", help="print warnings and results only"
        )

    def error(self, message: str) -> NoReturn:
        """Raises the ConfigError for a command line that cannot be parsed."""
        raise ConfigError(
            f"{message}; see python -m "
            f"vlp_jax.{os.path.basename(self.prog).removesuffix('.py')} --help"
        )

    def parse(self, arguments: Sequence[str], repeatable: Sequence[str] = ()) -> argparse.Namespace:
        """The parsed flags.

        Raises:
          ConfigError: a flag is unknown, has a bad value, or is given twice and not in
            `repeatable`.
        """
        check_given_once(arguments, repeatable)
        given = self.parse_args(arguments)
        set_verbosity(quiet=given.quiet, verbose=given.verbose)
        return given

    def parse_with_overrides(
        self, arguments: Sequence[str]
    ) -> tuple[argparse.Namespace, list[tuple[str, str]]]:
        """The parsed flags, and the (dotted key, text) pairs of `--config.KEY=VALUE` in order.

        Raises:
          ConfigError: as `parse`.
        """
        check_given_once(arguments)
        rest, overrides = split_overrides(arguments)
        given, unknown = self.parse_known_args(rest)
        if unknown:
            self.error(
                "unrecognized arguments: "
                f"{' '.join(flag + flag_suggestion(flag, root_section()) for flag in unknown)}"
            )
        set_verbosity(quiet=given.quiet, verbose=given.verbose)
        return given, overrides


def add_host_flags(flags: argparse.ArgumentParser) -> None:
    """Adds the flags that make an entry point one of several processes.

    They are not needed in Slurm, on TPUs and in a Kubernetes job.
    """
    flags.add_argument(
        "--coordinator", help="HOST:PORT of process 0, where several hosts train together"
    )
    flags.add_argument(
        "--num-processes",
        type=int,
        help="how many processes; 1: this one alone, whatever the cluster says",
    )
    flags.add_argument("--process-id", type=int, help="which of them this is, from 0")


def check_given_once(arguments: Sequence[str], repeatable: Sequence[str] = ()) -> None:
    """Checks that no flag is given twice, as by the shell's expansion of an unquoted brace pattern.

    Raises:
      ConfigError: a flag is given twice and is not in `repeatable`.
    """
    seen = set()
    for argument in arguments:
        name = argument.partition("=")[0]
        if not argument.startswith("--"):
            continue
        if name in seen and name not in repeatable:
            raise ConfigError(
                f"{name} is given twice; if its value has braces, quote it so that "
                "the shell does not expand it: "
                f"'{name}=webdataset:/data/{{000000..000331}}.tar'"
            )
        seen.add(name)


def split_overrides(arguments: Sequence[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """Separates `--config.KEY=VALUE` and `--config.KEY VALUE` from a command line.

    Returns: the other arguments, and (key, text) pairs.
    Raises:
      ConfigError: a value is missing.
    """
    rest, overrides, waiting = [], [], None
    for argument in arguments:
        if waiting is not None:
            overrides.append((waiting, argument))
            waiting = None
        elif argument.startswith("--config."):
            name, equals, value = argument.removeprefix("--config.").partition("=")
            if equals:
                overrides.append((name, value))
            else:
                waiting = name
        else:
            rest.append(argument)
    if waiting is not None:
        raise ConfigError(f"--config.{waiting}: a value is missing")
    return rest, overrides


def run_entry_point(door: Callable[[list[str]], int]) -> NoReturn:
    """Calls an entry point with the command line and exits with its status.

    An error that the user can fix becomes one line on stderr and its exit status.
    """
    try:
        status = door(sys.argv[1:])
    except Exception as raised:
        if isinstance(raised, BrokenPipeError) and output_is_closed():
            os._exit(128 + signal.SIGPIPE)  # as other commands in front of `| head`
        error = user_error_of(raised)
        if error is None:
            raise
        with contextlib.suppress(OSError):  # stdout may be redirected to a full disk
            sys.stdout.flush()
        print("\n".join(error.lines), file=sys.stderr, flush=True)
        status = error.status
        if isinstance(error, CheckpointError):
            leave_at_once(status)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr, flush=True)
        status = CTRL_C
    # An orderly end would wait for a compilation in another thread. In the process of someone else,
    # who called an entry point from Python, that is right.
    if door.__module__ == "__main__" and compiling_ahead():
        leave_at_once(status)
    sys.exit(status)


def compiling_ahead() -> bool:
    """Whether a thread still compiles the update."""
    return any(thread.name == COMPILING_AHEAD for thread in threading.enumerate())


def output_is_closed() -> bool:
    """Whether stdout is a pipe whose reader is gone."""
    state = select.poll()
    state.register(1, 0)
    return any(event & select.POLLERR for _, event in state.poll(0))


def leave_at_once(status: int) -> NoReturn:
    """Ends the process at once.

    In an orderly end each unfinished write of Orbax would report an error of its own.
    """
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)


def quiet_libraries() -> None:
    """Silences Orbax's long reports of saves.

    A failed save is reported once per array over three channels. The error that this package raises
    has all the information.
    """
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    report = sys.unraisablehook
    sys.unraisablehook = lambda raised: (
        None if str(raised.exc_value) == "Event loop is closed" else report(raised)
    )


def give_devices_threads() -> None:
    """Gives XLA enough threads for several devices on one CPU.

    To be called before the first device is used.

    The number of devices is `--xla_force_host_platform_device_count` in XLA_FLAGS. Each collective
    in which a device waits holds a thread of XLA's pool, a device may wait in several, and XLA
    creates only as many threads as devices: eight waited for a ninth without end. PJRT_NPROC, if
    given, stays unchanged.
    """
    counts = re.findall(
        r"--xla_force_host_platform_device_count=(\d+)", os.environ.get("XLA_FLAGS", "")
    )
    if counts and int(counts[-1]) > 1:
        os.environ.setdefault("PJRT_NPROC", str(8 * int(counts[-1]) + (os.cpu_count() or 1)))


def use_compilation_cache() -> None:
    """Keeps compiled programs between runs, in JAX_COMPILATION_CACHE_DIR or ~/.cache/vlp_jax.

    Small programs, too: a run has about a hundred of them. A folder that is already set in
    `jax.config` stays, and so does JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS.
    """
    # imported here, as entry points without JAX have worker processes that would import it too
    import jax

    if not (
        os.environ.get("JAX_COMPILATION_CACHE_DIR")
        or getattr(jax.config, "jax_compilation_cache_dir", None)
    ):
        cache_home = os.environ.get("XDG_CACHE_HOME") or os.path.join(
            os.path.expanduser("~"), ".cache"
        )
        jax.config.update("jax_compilation_cache_dir", os.path.join(cache_home, "vlp_jax"))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


@contextlib.contextmanager
def connected(
    hosts: "HostsConfig", given: argparse.Namespace | None = None, *, heeds_signals: bool = False
) -> Generator[None, None, None]:
    """A context in which all processes are connected, devices have their threads, and compiled
    programs are kept.

    Args:
      hosts: the hosts section of the config.
      given: the flags of `add_host_flags`. Default: none of them, so that the cluster is detected.
      heeds_signals: as in `joined`.
    Raises:
      ConfigError: as `find_launch`.
      HostError: as `joined`.
    """
    # imported here, as in `use_compilation_cache`
    from vlp_jax.distributed.cluster_detection import find_launch
    from vlp_jax.distributed.processes import joined

    give_devices_threads()
    flags = (
        (None, None, None)
        if given is None
        else (given.coordinator, given.num_processes, given.process_id)
    )
    with joined(find_launch(*flags, hosts.initialization_seconds), hosts, heeds_signals):
        use_compilation_cache()
        yield
