"""Errors that a user can mend: every door prints one as a single line and exits with the error's status.

Exit statuses of all doors, which the launchers read:
  0    finished.
  2    a mistake that starting again would not mend: a config, data, a damaged checkpoint, hosts that are of another mind.
  75   a passing failure (sysexits' EX_TEMPFAIL): a host is missing or lost, a wait between hosts was over, the storage did not
       answer, another run holds the workdir, a hang with `watchdog.exit`. The same command again goes on from the last checkpoint.
  130  Ctrl-C, with a checkpoint or, before the first update or pressed twice, without. 128 + N after signal N with a checkpoint:
       143 for SIGTERM, 129 for SIGHUP.
  1    a bug, with a traceback. Several hosts all leave with the status of the one that failed first.
"""

import errno

from vlp_jax.printing import printable

FOR_GOOD, PASSING = 2, 75

# What a system refuses, and what would help. Any other OSError may be a bug, and keeps its traceback.
REFUSALS = {errno.EACCES: "give this user the permission", errno.EPERM: "give this user the permission",
            errno.EROFS: "choose another place", errno.ENOTDIR: "choose another place", errno.EISDIR: "choose another place",
            errno.ENAMETOOLONG: "choose a shorter name", errno.ELOOP: "correct the links",
            errno.ENOSPC: "free some space", errno.EDQUOT: "free some space, or ask for more", errno.EFBIG: "a higher ulimit -f",
            errno.EMFILE: "fewer data.workers, or a higher ulimit -n", errno.ENFILE: "close other programs",
            errno.ENOMEM: "free some memory", errno.EIO: "the device fails: see the system's log"}


class UserError(Exception):
    """Something outside the program is wrong; the message names the thing, the place and the way out."""

    kind = "error"
    status = FOR_GOOD

    def __str__(self) -> str:
        return printable(f"{self.kind}: {super().__str__()}")

    @property
    def lines(self) -> list[str]:
        """What is printed of it, a line each."""
        return [str(self).replace("\n", " ")]


class ConfigError(UserError):
    """A flag, a config key or its value is wrong."""

    kind = "config error"


class ConfigErrors(ConfigError):
    """Several of them, found at once.

    messages: of each, without the kind of error in front.
    """

    def __init__(self, messages: list[str]):
        super().__init__("; ".join(messages))
        self.messages = messages

    @property
    def lines(self) -> list[str]:
        return [line for message in self.messages for line in ConfigError(message).lines]


class DataError(UserError):
    """A data source is missing, damaged, or not what its spec says."""

    kind = "data error"


class CheckpointError(UserError):
    """A checkpoint is missing, damaged, or of another model."""

    kind = "checkpoint error"


class StorageError(CheckpointError):
    """A checkpoint may be whole, but the storage does not answer."""

    kind = "storage error"
    status = PASSING


class MeshError(UserError):
    """Devices, mesh axes and batch do not fit together."""

    kind = "mesh error"


class EvaluationError(UserError):
    """A model's output cannot be scored."""

    kind = "evaluation error"


class TrainingError(UserError):
    """Training cannot go on."""

    kind = "training error"


class WorkdirBusy(UserError):
    """Another run is training in the workdir."""

    kind = "workdir error"
    status = PASSING


class HostError(UserError):
    """One of several hosts is missing or lost."""

    kind = "host error"
    status = PASSING


class HostsDiffer(HostError):
    """One of several hosts is of another mind than the others."""

    status = FOR_GOOD


class SystemRefusal(UserError):
    """The operating system refuses a file, space or memory."""

    kind = "system error"


def user_error_of(error: BaseException) -> UserError | None:
    """What an error means that is no bug but a refusal of the system; None for any other."""
    if isinstance(error, UserError):
        return error
    if isinstance(error, OSError) and error.errno in REFUSALS:
        place = f"{error.filename}: " if error.filename else ""
        return SystemRefusal(f"{place}{error.strerror}; {REFUSALS[error.errno]}")
    if is_out_of_memory(error):
        return SystemRefusal(f"out of memory: {(str(error).strip().splitlines() or [type(error).__name__])[0][:200]}")
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error is Python's, NumPy's or XLA's for want of memory."""
    return isinstance(error, MemoryError) or (type(error).__name__ in ("JaxRuntimeError", "XlaRuntimeError")
                                              and ("RESOURCE_EXHAUSTED" in str(error) or "bad_alloc" in str(error)))
