"""What the doors share: flags, `--config.section.key=value` overrides, and errors as one line."""

import argparse
import contextlib
import logging
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from vlp_jax.config import schema
from vlp_jax.config.suggestions import flag_suggestion
from vlp_jax.errors import CheckpointError, ConfigError, user_error_of
from vlp_jax.interrupts import CTRL_C
from vlp_jax.printing import safe_print as print


class Flags(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one line, and that takes each flag once."""

    def __init__(self, **options):
        super().__init__(allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **options)

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see python -m vlp_jax.{os.path.basename(self.prog).removesuffix('.py')} --help")

    def parse(self, arguments: Sequence[str], repeatable: Sequence[str] = ()) -> argparse.Namespace:
        """Raises: ConfigError for an unknown flag, a bad value, or a flag given twice that is not `repeatable`."""
        check_given_once(arguments, repeatable)
        return self.parse_args(arguments)

    def parse_with_overrides(self, arguments: Sequence[str]) -> tuple[argparse.Namespace, list[tuple[str, str]]]:
        """The flags, and the (dotted key, text) pairs of `--config.KEY=VALUE` in order."""
        check_given_once(arguments)
        rest, overrides = split_overrides(arguments)
        given, unknown = self.parse_known_args(rest)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(flag + flag_suggestion(flag, schema.Config) for flag in unknown)}")
        return given, overrides


def add_host_flags(flags: argparse.ArgumentParser) -> None:
    """The flags by which a door becomes one of several hosts; in Slurm, on TPUs and in a Kubernetes job none is needed."""
    flags.add_argument("--coordinator", help="HOST:PORT of process 0, where several hosts train together")
    flags.add_argument("--num-processes", type=int, help="how many processes; 1: this one alone, whatever the cluster says")
    flags.add_argument("--process-id", type=int, help="which of them this is, from 0")


def check_given_once(arguments: Sequence[str], repeatable: Sequence[str] = ()) -> None:
    """Raises: ConfigError for a flag that stands twice, as an unquoted brace pattern makes it."""
    seen = set()
    for argument in arguments:
        name = argument.partition("=")[0]
        if not argument.startswith("--"):
            continue
        if name in seen and name not in repeatable:
            raise ConfigError(f"{name} is given twice; if its value has braces, quote it so that the shell does not expand "
                              f"it: '{name}=webdataset:/data/{{000000..000331}}.tar'")
        seen.add(name)


def split_overrides(arguments: Sequence[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """Takes `--config.KEY=VALUE` and `--config.KEY VALUE` out of a command line."""
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
    """Calls a door with the command line and exits with its status; what a user can mend is one line and its status."""
    try:
        status = door(sys.argv[1:])
    except Exception as raised:
        error = user_error_of(raised)
        if error is None:
            raise
        with contextlib.suppress(OSError):  # a full disk under a redirected output
            sys.stdout.flush()
        print("\n".join(error.lines), file=sys.stderr, flush=True)
        status = error.status
        if isinstance(error, CheckpointError):
            leave_at_once(status)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr, flush=True)
        status = CTRL_C
    sys.exit(status)


def leave_at_once(status: int) -> NoReturn:
    """Ends the process as it is: in an orderly end each write that Orbax had begun would complain by itself."""
    os._exit(status)


def quiet_libraries() -> None:
    """Orbax reports each save at length, and a failed one once for every array, through three channels; what is to be known of
    it the error of this code says."""
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    report = sys.unraisablehook
    sys.unraisablehook = lambda raised: None if str(raised.exc_value) == "Event loop is closed" else report(raised)


def give_devices_threads() -> None:
    """Threads enough for several devices on one CPU (`--xla_force_host_platform_device_count` in XLA_FLAGS); to be called
    before the first is used. Each collective that a device waits in holds a thread of XLA's pool, a device may wait in several,
    and XLA makes no more threads than devices: eight waited for a ninth without end. PJRT_NPROC, if given, stays as it is.
    """
    counts = re.findall(r"--xla_force_host_platform_device_count=(\d+)", os.environ.get("XLA_FLAGS", ""))
    if counts and int(counts[-1]) > 1:
        os.environ.setdefault("PJRT_NPROC", str(8 * int(counts[-1]) + (os.cpu_count() or 1)))


def use_compilation_cache() -> None:
    """Compiled programs are kept between runs, in JAX_COMPILATION_CACHE_DIR or ~/.cache/vlp_jax."""
    import jax  # not by doors that need none: their worker processes would import it too

    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        cache_home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
        jax.config.update("jax_compilation_cache_dir", os.path.join(cache_home, "vlp_jax"))
