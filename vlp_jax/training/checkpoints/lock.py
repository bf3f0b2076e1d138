"""One run per workdir: by a lock that the kernel releases when its process ends for any reason, or
in a bucket by a lease."""

import contextlib
import fcntl
import os
import socket
from collections.abc import Generator

from vlp_jax.distributed.exchange import broadcast_from_primary
from vlp_jax.distributed.heartbeat import leave_together
from vlp_jax.errors import PASSING, ConfigError, WorkdirBusy
from vlp_jax.reporting import warn
from vlp_jax.storage.lease import acquire
from vlp_jax.storage.paths import absolute, is_bucket


@contextlib.contextmanager
def locked(workdir: str) -> Generator[None, None, None]:
    """A context in which the primary process holds the lock `DIR/lock`, so that no other run trains
    there.

    Creates the folder; in a bucket the lock is a lease (`storage.lease`). On a file system without
    locks a line is printed, and there is no protection.

    Raises:
      WorkdirBusy: another process holds the lock; raised on all processes, and the message names
        the holder.
      ConfigError: the folder cannot be written.
    """
    with contextlib.ExitStack() as held:
        broadcast_from_primary("--workdir", lambda: take(workdir, held))
        yield


def take(workdir: str, held: contextlib.ExitStack) -> None:
    """`locked` in one process: the lock is kept until `held` is closed."""
    if is_bucket(workdir):
        held.callback(acquire(absolute(workdir), leave).release)
        return
    path = os.path.join(workdir, "lock")
    try:
        os.makedirs(workdir, exist_ok=True)
        file = held.enter_context(open(path, "a+"))  # noqa: SIM115 - closed with `held`
    except OSError as error:
        raise ConfigError(f"--workdir: {workdir} cannot be written: {error.strerror}") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.seek(0)
        raise WorkdirBusy(
            f"--workdir: {workdir} is in use by "
            f"{file.read().strip() or 'another process'}, and two runs would delete "
            "each other's checkpoints: wait for its end, stop it, or use another "
            "workdir"
        ) from error
    except OSError as error:
        warn(
            f"{path}: this file system has no locks ({error.strerror}): take care that no other "
            "run trains there"
        )
        return
    try:
        file.truncate(0)
        file.write(f"process {os.getpid()} of {socket.gethostname()}\n")
        file.flush()
    except OSError as error:
        raise ConfigError(f"--workdir: {path} cannot be written: {error.strerror}") from error


def leave(message: str) -> None:
    """Ends all processes of this run, which must not write any more."""
    leave_together(f"workdir error: {message}", PASSING)
