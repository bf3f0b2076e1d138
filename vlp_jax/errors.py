"""Errors that a user can fix.

Every entry point prints one line for them and exits with their status.

Exit statuses of all entry points, which the launchers read:
  0    finished.
  2    an error that a restart would not fix: a config, data, a damaged checkpoint, processes that
       differ.
  75   a transient failure (sysexits' EX_TEMPFAIL): a process is missing or lost, a wait between
       processes timed out, the storage did not answer, another run holds the workdir, a hang with
       `watchdog.exit`. The same command resumes from the last checkpoint.
  130  Ctrl-C, with a checkpoint or, before the first update or pressed twice, without. 128 + N
       after signal N with a checkpoint: 143 for SIGTERM, 129 for SIGHUP.
  1    a bug, with a traceback. All processes of a run exit with the status of the one that failed
       first.
"""

import errno

from vlp_jax.printing import printable

FOR_GOOD, PASSING = 2, 75

# {error of the operating system: remedy}. Any other OSError may be a bug, and keeps its traceback.
REFUSALS = {
    errno.EACCES: "give this user the permission",
    errno.EPERM: "give this user the permission",
    errno.EROFS: "choose another place",
    errno.ENOTDIR: "choose another place",
    errno.EISDIR: "choose another place",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ELOOP: "correct the links",
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space, or ask for more",
    errno.EFBIG: "a higher ulimit -f",
    errno.EMFILE: "fewer data.workers, or a higher ulimit -n",
    errno.ENFILE: "close other programs",
    errno.ENOMEM: "free some memory",
    errno.EIO: "the device fails: see the system's log",
}


class UserError(Exception):
    """An error outside the program. The message names the thing, the place and the remedy."""

    kind = "error"
    status = FOR_GOOD

    def __str__(self) -> str:
        return printable(f"{self.kind}: {super().__str__()}")

    @property
    def lines(self) -> list[str]:
        """The printed lines of the error."""
        return [str(self).replace("\n", " ")]


class ConfigError(UserError):
    """A flag, a config key or its value is wrong."""

    kind = "config error"


class ConfigErrors(ConfigError):
    """Several config errors found at once.

    Args:
      messages: their messages, without the kind of error as a prefix.
    """

    def __init__(self, messages: list[str]):
        super().__init__("; ".join(messages))
        self.messages = messages

    @property
    def lines(self) -> list[str]:
        """A line for each of the errors."""
        return [line for message in self.messages for line in ConfigError(message).lines]


class DataError(UserError):
    """A data source is missing, damaged, or not as its spec describes."""

    kind = "data error"


class CheckpointError(UserError):
    """A checkpoint is missing, damaged, or of another model."""

    kind = "checkpoint error"


class StorageError(CheckpointError):
    """A checkpoint may be valid, but the storage does not answer."""

    kind = "storage error"
    status = PASSING


class MeshError(UserError):
    """Devices, mesh axes and batch do not fit together."""

    kind = "mesh error"


class EvaluationError(UserError):
    """The output of a model cannot be scored."""

    kind = "evaluation error"


class TrainingError(UserError):
    """Training cannot continue."""

    kind = "training error"


class WorkdirBusy(UserError):
    """Another run is training in the workdir."""

    kind = "workdir error"
    status = PASSING


class HostError(UserError):
    """One of several processes is missing or lost."""

    kind = "host error"
    status = PASSING


class HostsDiffer(HostError):
    """One of several processes differs from the others in config, code or data."""

    status = FOR_GOOD


class SystemRefusal(UserError):
    """The operating system refuses a file, space or memory."""

    kind = "system error"


def user_error_of(error: BaseException) -> UserError | None:
    """The UserError for an error that the system causes and that is no bug; None for any other."""
    if isinstance(error, UserError):
        return error
    if isinstance(error, OSError) and error.errno in REFUSALS:
        place = f"{error.filename}: " if error.filename else ""
        return SystemRefusal(f"{place}{error.strerror}; {REFUSALS[error.errno]}")
    if is_out_of_memory(error):
        return SystemRefusal(
            f"out of memory: {(str(error).strip().splitlines() or [type(error).__name__])[0][:200]}"
        )
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error is an out-of-memory error of Python, NumPy or XLA."""
    return isinstance(error, MemoryError) or (
        type(error).__name__ in ("JaxRuntimeError", "XlaRuntimeError")
        and ("RESOURCE_EXHAUSTED" in str(error) or "bad_alloc" in str(error))
    )
