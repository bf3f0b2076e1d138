"""Heartbeats between processes, and the common exit when one of them fails or is lost.

Each process reports that it is alive, or why it exits, and exits when another one is gone.
"""

import contextlib
import json
import os
import sys
import threading
import time
from typing import Any, NoReturn

import jax

from vlp_jax.distributed.coordinator_proxy import CoordinatorProxy
from vlp_jax.distributed.exchange import service
from vlp_jax.errors import PASSING
from vlp_jax.printing import safe_print as print

FOLDER = "vlp_jax/watch"
# seconds, plus three beats, that an exiting process 0, which stores the messages, waits for the
# others to read
LINGER = 5.0


def interval_of(heartbeat_seconds: float) -> float:
    """The seconds between two heartbeats."""
    return min(max(heartbeat_seconds / 10, 0.2), 2.0)


def slowest_exit(heartbeat_seconds: float) -> float:
    """The seconds from the loss of a process to the end of the last other one, at most.

    Silence counts from zero where a look came late by half of `heartbeat_seconds`; the exit ends
    with its last resort.
    """
    return 1.5 * heartbeat_seconds + 3 * LINGER + 5 * interval_of(heartbeat_seconds)


def coordination_timeout(heartbeat_seconds: float) -> int:
    """The timeout of JAX's own heartbeats, in seconds, which abort a process with a stack trace.

    JAX sends a heartbeat every half of its timeout, so that it may notice a lost process after the
    other half; that is later than the exit that names the process.
    """
    return int(2 * slowest_exit(heartbeat_seconds)) + 30


_watches: list["Heartbeat"] = []  # the one of this process, while several processes form a run


def leave_together(said: str, status: int) -> NoReturn:
    """Ends this process at once, from any thread.

    With several processes, all exit with the same message and status.
    """
    for watch in _watches:
        watch.exit(said, status)
    with contextlib.suppress(OSError):
        print(said, file=sys.stderr, flush=True)
    os._exit(status)


class Heartbeat:
    """A thread that sends heartbeats and reads those of the other processes.

    It ends this process by itself, as the main thread may be waiting in a collective for a process
    that will never come.
    """

    def __init__(self, heartbeat_seconds: float, relay: CoordinatorProxy | None = None):
        """relay: the proxy to process 0, on all other processes; closed by this object."""
        self.patience, self.interval = heartbeat_seconds, interval_of(heartbeat_seconds)
        self.me, self.hosts = jax.process_index(), jax.process_count()
        # The last beat, and when it was received.
        self.heard: dict[int, tuple[Any, float]] = {
            host: (None, time.monotonic()) for host in range(self.hosts)
        }
        self.silent: list[int] = []  # processes that count as lost
        self.leaving = threading.Event()
        self.relay = relay
        self.threads = [
            threading.Thread(target=work, daemon=True, name="watch")
            for work in (self.beat, self.look_out)
        ]
        for thread in self.threads:
            thread.start()
        if relay is not None:
            relay.lost = self.first_is_gone
        _watches.append(self)

    def beat(self) -> None:
        """The thread that reports this process as alive and reads the reports of the others."""
        beat = 0
        while not self.leaving.wait(self.interval):
            beat += 1
            try:
                self.put("beat", beat)
                entries = self.entries()
            except jax.errors.JaxRuntimeError:
                return  # process 0 is gone; the proxy reports it
            for (kind, host), value in entries.items():
                if kind == "left":
                    self.follow(host, value)
                elif value != self.heard[host][0]:
                    self.heard[host] = (value, time.monotonic())

    def look_out(self) -> None:
        """The thread that looks for silent processes.

        `beat` may hang if process 0 has vanished from the network.
        """
        looked = time.monotonic()
        while not self.leaving.wait(self.interval):
            if time.monotonic() - looked > self.patience / 2:  # this process was suspended
                self.heard = {
                    host: (beat, time.monotonic()) for host, (beat, _) in self.heard.items()
                }
            looked = time.monotonic()
            self.look()

    def first_is_gone(self) -> None:
        """Exits because the connection to process 0 has ended without an orderly close."""
        # unless this process is about to exit with the message of process 0
        if not self.leaving.wait(2 * self.interval):
            self.exit(
                f"host error: no message from host 0 of {self.hosts} since its connection "
                "has closed: lost; start all hosts again to resume from the last "
                "checkpoint",
                PASSING,
                tell=False,
            )

    def look(self) -> None:
        """Exits if a process has been silent for too long."""
        self.silent = [
            host
            for host, (_, since) in self.heard.items()
            if host != self.me and time.monotonic() - since > self.patience
        ]
        if self.silent and not self.leaving.is_set():
            # without process 0 no heartbeat arrives
            names = "0" if 0 in self.silent else ", ".join(map(str, self.silent))
            self.exit(
                f"host error: no message from host {names} of {self.hosts} for "
                f"{self.patience:g} s (hosts.heartbeat_seconds): lost; start all hosts again "
                "to resume from the last checkpoint",
                PASSING,
            )

    def follow(self, host: int, told: dict) -> None:
        """Exits because another process has, unless this one is about to for its own reason."""
        if host != self.me and not self.leaving.wait(2 * self.interval):
            self.exit(
                f"host error: host {host} of {self.hosts} has left: {told['reason']}",
                told["status"],
            )

    def put(self, kind: str, value: object) -> None:
        """Stores a value of this process."""
        service().key_value_set(
            f"{FOLDER}/{kind}/{self.me}", json.dumps(value), allow_overwrite=True
        )

    def entries(self) -> dict[tuple[str, int], Any]:
        """{(kind, process): value} of all that processes have stored."""
        found = service().key_value_dir_get(f"{FOLDER}/")
        return {
            (key.split("/")[-2], int(key.split("/")[-1])): json.loads(text) for key, text in found
        }

    def exit(self, said: str, status: int, tell: bool = True) -> NoReturn:
        """Prints the reason, sends its last line to the others, and ends this process at once.

        `tell` is False where process 0, which forwards it, is gone.

        An orderly end would wait for processes that are gone.
        """
        self.leaving.set()
        # the terminal or pipe may be gone; the others must still get the message
        with contextlib.suppress(OSError):
            print(said, file=sys.stderr, flush=True)
            sys.stdout.flush()
        if not tell:
            self.end(status)
        # if the message cannot be sent either
        last_resort = threading.Timer(3 * LINGER + 3 * self.interval, os._exit, [status])
        last_resort.daemon = True
        last_resort.start()
        try:
            self.put("left", {"reason": said.splitlines()[-1], "status": status})
            deadline = time.monotonic() + LINGER + 3 * self.interval
            while self.me == 0 and time.monotonic() < deadline and not self.alone():
                time.sleep(self.interval / 2)
        except jax.errors.JaxRuntimeError:
            pass  # no other process is reachable
        self.end(status)

    def end(self, status: int) -> NoReturn:
        """Closes the proxy and ends this process."""
        if self.relay is not None:
            self.relay.close()
        os._exit(status)

    def alone(self) -> bool:
        """Whether all processes that are not lost have reported their exit."""
        return {host for kind, host in self.entries() if kind == "left"} | set(self.silent) == set(
            range(self.hosts)
        )

    def wait_for_news(self) -> None:
        """Gives the threads time to detect a lost process and to exit for it; returns if none is
        lost."""
        time.sleep(self.patience + 3 * self.interval)

    def stop(self) -> None:
        """Ends the threads and the proxy in order."""
        self.leaving.set()
        for thread in self.threads:
            thread.join()
        if self.relay is not None:
            self.relay.close()
        _watches.remove(self)
