"""What every worker process does, whoever starts it, and what starting some takes."""

import contextlib
import functools
import multiprocessing
import os
import resource
import signal
import sys
import threading
from collections.abc import Iterator
from multiprocessing import resource_tracker
from multiprocessing.connection import wait

from vlp_jax.errors import ConfigError

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
FILES_OF_A_WORKER = 24  # pipes and semaphores of its queues, and what is open for a moment; measured with Grain 0.2.18: 8
FILES_OF_THIS_PROCESS = 256  # its own: shards, checkpoints, sockets of other hosts


@functools.cache
def leave_with_parent() -> None:
    """Ends this process when the one that started it ends: a parent that is killed cannot end its workers, and they would
    wait for it for ever. Does nothing in a process that no other Python process started."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_leave, args=(parent.sentinel,), daemon=True).start()


def _leave(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)


@contextlib.contextmanager
def workers_starting() -> Iterator[None]:
    """Worker processes that are started inside never get a signal to stop: Ctrl-C, a closed terminal and a scheduler's SIGTERM
    reach a whole process group, and are the main process's to answer, which ends its workers."""
    _start_resource_tracker()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)  # which processes and threads inherit
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_resource_tracker() -> None:
    """Starts the process that removes shared memory which is left behind. It does so without a warning, as where a run is killed
    that is its work, and is not to die with the terminal: SIGINT and SIGTERM it ignores by itself."""
    options, before = list(sys.warnoptions), signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGHUP,))
    sys.warnoptions.append("ignore:resource_tracker")
    try:
        resource_tracker.ensure_running()
    finally:
        sys.warnoptions[:] = options
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def allow_open_files(workers: int, batches: int, least: int, most: int) -> None:
    """Raises the soft limit of open files where `workers` may need it. batches: those that a worker may have ready; least, most:
    arrays of one of them that lie in shared memory, where each takes two files.

    Raises: ConfigError where the hard limit is below what they need at least.
    """
    needed, enough = (FILES_OF_THIS_PROCESS + workers * (FILES_OF_A_WORKER + 2 * arrays * batches) for arrays in (least, most))
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft, hard = (float("inf") if limit == resource.RLIM_INFINITY else limit for limit in limits)
    if hard < needed:
        raise ConfigError(f"data.workers: {workers} workers need up to {needed} open files, and this process may have {hard} "
                          "(ulimit -Hn); fewer data.workers, a smaller data.prefetch, or a higher limit")
    if soft < enough:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(enough, hard), limits[1]))
