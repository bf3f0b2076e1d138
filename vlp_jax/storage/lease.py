"""One run per bucket workdir: a lease that its holder renews and that others may take once it is
left.

The object `DIR/lock` names the holder. It is created only where there is none, and replaced only
where it still has the generation that was read, so that of two runs one gets it. The holder
replaces it every `HEARTBEAT` seconds. Another run that finds it watches it on its own clock: where
it changes, the workdir is in use; where it does not change for `EXPIRY` seconds, its holder was
killed or is cut off, and the lease is taken over. A holder whose process is known to be dead, as it
ran on this machine, is not waited for.
"""

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

from vlp_jax.errors import UserError, WorkdirBusy
from vlp_jax.reporting import report
from vlp_jax.storage import bucket

# Seconds: between two renewals, and without one until another run may take over. A request may be
# repeated for a minute, so that a short outage costs no lease.
HEARTBEAT, EXPIRY = 15.0, 120.0
FREE = b"free\n"  # what the end of a run leaves in the lock
WATCH = 1.0  # seconds between two looks at another's lease
RELEASE = 10.0  # seconds that the end of a run waits for storage that does not answer


class Lease:
    """A held lease.

    Args:
      workdir: the folder.
      generation: that of its lock.
      holder: what the lock says.
      lost: called with a message, in a thread of its own, when another run has taken over.
    """

    def __init__(
        self, workdir: str, generation: bytes, holder: dict[str, Any], lost: Callable[[str], None]
    ):
        self.workdir, self.generation, self.holder, self.lost = workdir, generation, holder, lost
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.renew, name="lease", daemon=True)
        self.thread.start()

    def renew(self) -> None:
        """The thread: renews until the end or until another run has the lease."""
        while not self.over.wait(HEARTBEAT):
            self.holder["renewals"] += 1
            try:
                renewed = bucket.write_if(
                    lock_of(self.workdir), contents(self.holder), self.generation
                )
                if renewed is None:  # a request whose answer was lost may have succeeded
                    renewed = self.own_generation()
            except (UserError, OSError):
                continue  # cut off: the next save says so, unless the storage answers before
            if renewed is None:
                if not self.over.is_set():
                    self.lost(
                        f"--workdir: {self.workdir} was taken over by another run, as this one did "
                        f"not reach it for {EXPIRY:g} s"
                    )
                return
            self.generation = renewed

    def own_generation(self) -> bytes | None:
        """The generation of the lock if this lease wrote it; None otherwise."""
        try:
            found, generation = bucket.read_with_generation(lock_of(self.workdir))
        except FileNotFoundError:
            return None
        return generation if described(found).get("token") == self.holder["token"] else None

    def release(self) -> None:
        """Ends the renewals, and empties the lock if it is still this one's."""
        self.over.set()
        self.thread.join(timeout=RELEASE)
        # it expires by itself
        with contextlib.suppress(UserError):
            bucket.write_if(lock_of(self.workdir), FREE, self.generation, seconds=RELEASE)


def acquire(workdir: str, lost: Callable[[str], None]) -> Lease:
    """The lease of a workdir; a left one is taken over, which may take `EXPIRY` seconds.

    Args:
      workdir: the folder in a bucket.
      lost: as in `Lease`.
    Raises:
      WorkdirBusy: another run holds it.
      UserError: the bucket does not answer, or refuses.
    """
    holder = this_process()
    found = None
    while True:
        generation = bucket.write_if(lock_of(workdir), contents(holder), found)
        if generation is not None:
            return Lease(workdir, generation, holder, lost)
        found = left_generation(workdir, holder)


def left_generation(workdir: str, here: dict[str, Any]) -> bytes | None:
    """The generation of a lock that its holder has left; None where there is no lock any more.

    It may also be this process's own, `here`: a request that is repeated after a lost answer finds
    the lock of its first attempt.

    Raises:
      WorkdirBusy: its holder is alive.
    """
    first, deadline = None, time.monotonic() + EXPIRY
    while True:
        try:
            text, generation = bucket.read_with_generation(lock_of(workdir))
        except FileNotFoundError:
            return None
        other = described(text)
        if first is None:
            first = generation
            if not other or is_dead(other) or other.get("token") == here["token"]:
                return generation
            report(
                f"{workdir} is held by {shown(other)}: waiting until it renews its lease, or at "
                f"most {EXPIRY:g} s"
            )
        elif generation != first:
            raise WorkdirBusy(
                f"--workdir: {workdir} is in use by {shown(other)}, and two runs would delete "
                "each other's checkpoints: wait for its end, stop it, or use another workdir"
            )
        if time.monotonic() > deadline:
            report(
                f"{workdir}: {shown(other)} has not renewed its lease for {EXPIRY:g} s: taken over"
            )
            return generation
        time.sleep(WATCH)


def lock_of(workdir: str) -> str:
    """The object that names the holder."""
    return f"{workdir}/lock"


def this_process() -> dict[str, Any]:
    """What identifies a run of this process among all others, also of other machines and
    containers."""
    return {
        "process": os.getpid(),
        "host": socket.gethostname(),
        "machine": machine(),
        "started": started(os.getpid()),
        "token": uuid.uuid4().hex,
        "renewals": 0,
    }


def machine() -> str:
    """The boot of this machine and the space of its process numbers; empty where unknown."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="utf-8") as file:
            return f"{file.read().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def started(process: int) -> str:
    """The start of a process in clock ticks since boot; empty where there is none."""
    try:
        with open(f"/proc/{process}/stat", encoding="utf-8", errors="replace") as file:
            state, *numbers = file.read().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if state in "ZX" else numbers[18]


def is_dead(holder: dict[str, Any]) -> bool:
    """Whether a holder ran on this machine and its process has ended."""
    return (
        bool(holder.get("machine"))
        and holder["machine"] == machine()
        and isinstance(holder.get("process"), int)
        and started(holder["process"]) != holder.get("started")
    )


def contents(holder: dict[str, Any]) -> bytes:
    """A lock as JSON."""
    return json.dumps(holder).encode()


def described(text: bytes) -> dict[str, Any]:
    """The holder that a lock names; {} for a free one, and for that of a folder that was copied to
    the bucket."""
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def shown(holder: dict[str, Any]) -> str:
    """A holder in words."""
    if "process" not in holder:
        return "another process"
    return f"process {holder['process']} of {holder.get('host')}"
