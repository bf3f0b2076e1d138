"""Set-up of worker processes: signals, exit with the parent, and the limit of open files."""

import contextlib
import functools
import multiprocessing
import os
import resource
import signal
import sys
import threading
from collections.abc import Generator
from multiprocessing import resource_tracker
from multiprocessing.connection import wait

from vlp_jax.errors import ConfigError

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# pipes and semaphores of its queues, and files open for a moment; 8 measured with Grain 0.2.18
FILES_OF_A_WORKER = 24
FILES_OF_THIS_PROCESS = 256  # shards, checkpoints, sockets to other hosts


@functools.cache
def leave_with_parent() -> None:
    """Ends this process when its parent process ends.

    A killed parent cannot end its workers, which would wait for it for ever. Does nothing in a
    process that no other Python process started.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_leave, args=(parent.sentinel,), daemon=True).start()


def _leave(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)


@contextlib.contextmanager
def workers_starting() -> Generator[None, None, None]:
    """Context in which started worker processes block the signals to stop.

    Ctrl-C, a closed terminal and a scheduler's SIGTERM reach the whole process group. Only the main
    process handles them, and ends its workers.
    """
    _start_resource_tracker()
    # processes and threads inherit the mask
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def script_not_repeated() -> Generator[None, None, None]:
    """Context in which started worker processes do not run the script of this process.

    Python's `spawn` imports the script in each of them, and one that trains without `if __name__ ==
    "__main__"` would train there. Workers need nothing that a script defines.
    """
    script = vars(sys.modules["__main__"])
    path = script.pop("__file__", None) if script.get("__spec__") is None else None
    try:
        yield
    finally:
        if path is not None:
            script["__file__"] = path


def _start_resource_tracker() -> None:
    """Starts the process that removes leftover shared memory, without its warning and with SIGHUP
    blocked.

    Cleaning up after a killed run is its purpose, so its warning is noise. It must survive the
    terminal; it ignores SIGINT and SIGTERM by itself.
    """
    options, before = (
        list(sys.warnoptions),
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGHUP,)),
    )
    sys.warnoptions.append("ignore:resource_tracker")
    try:
        resource_tracker.ensure_running()
    finally:
        sys.warnoptions[:] = options
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def allow_open_files(workers: int, batches: int, least: int, most: int) -> None:
    """Raises the soft limit of open files where `workers` may need it.

    Args:
      workers: number of worker processes.
      batches: number of batches that a worker may have ready.
      least, most: number of arrays of one batch that are in shared memory, at least and at most.
        Each takes two files.

    Raises:
      ConfigError: if the hard limit is below what the workers need at least.
    """
    needed, enough = (
        FILES_OF_THIS_PROCESS + workers * (FILES_OF_A_WORKER + 2 * arrays * batches)
        for arrays in (least, most)
    )
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft, hard = (float("inf") if limit == resource.RLIM_INFINITY else limit for limit in limits)
    if hard < needed:
        raise ConfigError(
            f"data.workers: {workers} workers need up to {needed} open files, and "
            f"this process may have {hard} (ulimit -Hn); fewer data.workers, a "
            "smaller data.prefetch, or a higher limit"
        )
    if soft < enough:
        resource.setrlimit(resource.RLIMIT_NOFILE, (int(min(enough, hard)), limits[1]))
