"""What every worker process does, whoever starts it."""

import functools
import multiprocessing
import os
import threading
from multiprocessing.connection import wait


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
