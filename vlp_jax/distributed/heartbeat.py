"""The watch between hosts: each says now and then that it is alive, or why it leaves, and leaves when another is gone."""

import contextlib
import json
import os
import sys
import threading
import time
from typing import NoReturn

import jax

from vlp_jax.distributed.coordinator_proxy import CoordinatorProxy
from vlp_jax.distributed.exchange import service
from vlp_jax.errors import PASSING
from vlp_jax.printing import safe_print as print

FOLDER = "vlp_jax/watch"
LINGER = 5.0  # seconds, and three beats, for which a leaving host 0, who keeps the words, lets the others read them


_watches: list["Heartbeat"] = []  # the one of this process, while several hosts are one run


def leave_together(said: str, status: int) -> NoReturn:
    """Ends this process at once, from any thread; of several hosts, the others leave with the same words and status."""
    for watch in _watches:
        watch.exit(said, status)
    with contextlib.suppress(OSError):
        print(said, file=sys.stderr, flush=True)
    os._exit(status)


class Heartbeat:
    """A thread that beats, and reads the others' beats. What it finds ends this process: the main thread may be waiting
    inside a collective operation for a host that will never come."""

    def __init__(self, heartbeat_seconds: float, relay: CoordinatorProxy | None = None):
        """relay: through which JAX hears host 0, on the others; the watch closes it."""
        self.patience, self.interval = heartbeat_seconds, min(max(heartbeat_seconds / 10, 0.2), 2.0)
        self.me, self.hosts = jax.process_index(), jax.process_count()
        self.heard = {host: (None, time.monotonic()) for host in range(self.hosts)}  # last beat, and when it was new
        self.leaving = threading.Event()
        self.relay = relay
        self.threads = [threading.Thread(target=work, daemon=True, name="watch") for work in (self.beat, self.look_out)]
        for thread in self.threads:
            thread.start()
        if relay is not None:
            relay.lost = self.first_is_gone
        _watches.append(self)

    def beat(self) -> None:
        """Says that this host is alive, and hears who else is."""
        beat = 0
        while not self.leaving.wait(self.interval):
            beat += 1
            try:
                self.put("beat", beat)
                entries = self.entries()
            except jax.errors.JaxRuntimeError:
                return  # host 0 is gone, which the relay tells
            for (kind, host), value in entries.items():
                if kind == "left":
                    self.follow(host, value)
                elif value != self.heard[host][0]:
                    self.heard[host] = (value, time.monotonic())

    def look_out(self) -> None:
        """In a thread of its own: words hang where host 0, through whom they go, has vanished from the network."""
        looked = time.monotonic()
        while not self.leaving.wait(self.interval):
            if time.monotonic() - looked > self.patience / 2:  # this process was suspended
                self.heard = {host: (beat, time.monotonic()) for host, (beat, _) in self.heard.items()}
            looked = time.monotonic()
            self.look()

    def first_is_gone(self) -> None:
        """Leaves because the connection to host 0 has ended, and not in order."""
        if not self.leaving.wait(2 * self.interval):  # unless this host is about to leave with host 0's own words
            self.exit(f"host error: nothing heard of host 0 of {self.hosts} since its connection has closed: lost; start all hosts "
                      "again to go on from the last checkpoint", PASSING, tell=False)

    def look(self) -> None:
        """Leaves if a host has been silent for too long."""
        silent = [host for host, (_, since) in self.heard.items() if host != self.me and time.monotonic() - since > self.patience]
        if silent and not self.leaving.is_set():
            names = "0" if 0 in silent else ", ".join(map(str, silent))  # without host 0 no word comes from anyone
            self.exit(f"host error: nothing heard of host {names} of {self.hosts} for {self.patience:g} s "
                      "(hosts.heartbeat_seconds): lost; start all hosts again to go on from the last checkpoint", PASSING)

    def follow(self, host: int, told: dict) -> None:
        """Leaves because another host has, unless this one is about to for reasons of its own."""
        if host != self.me and not self.leaving.wait(2 * self.interval):
            self.exit(f"host error: host {host} of {self.hosts} has left: {told['reason']}", told["status"])

    def put(self, kind: str, value: object) -> None:
        service().key_value_set(f"{FOLDER}/{kind}/{self.me}", json.dumps(value), allow_overwrite=True)

    def entries(self) -> dict[tuple[str, int], object]:
        """{(kind, host): value} of all that hosts have put."""
        found = service().key_value_dir_get(f"{FOLDER}/")
        return {(key.split("/")[-2], int(key.split("/")[-1])): json.loads(text) for key, text in found}

    def exit(self, said: str, status: int, tell: bool = True) -> NoReturn:
        """Says why, tells the others (its last line) where host 0 still hears it, and ends this process at once: an orderly end
        would wait for hosts that are gone."""
        self.leaving.set()
        with contextlib.suppress(OSError):  # a terminal or a pipe that is gone: then it hears nothing, and the others must hear it
            print(said, file=sys.stderr, flush=True)
            sys.stdout.flush()
        if not tell:
            self.end(status)
        last_resort = threading.Timer(3 * LINGER + 3 * self.interval, os._exit, [status])  # if the words cannot be sent either
        last_resort.daemon = True
        last_resort.start()
        try:
            self.put("left", {"reason": said.splitlines()[-1], "status": status})
            deadline = time.monotonic() + LINGER + 3 * self.interval
            while self.me == 0 and time.monotonic() < deadline and not self.alone():
                time.sleep(self.interval / 2)
        except jax.errors.JaxRuntimeError:
            pass  # nobody is left to tell
        self.end(status)

    def end(self, status: int) -> NoReturn:
        if self.relay is not None:
            self.relay.close()
        os._exit(status)

    def alone(self) -> bool:
        return sum(kind == "left" for kind, _ in self.entries()) == self.hosts

    def wait_for_news(self) -> None:
        """Gives the thread the time to find out who is gone, and to end this process with that; returns if nobody is."""
        time.sleep(self.patience + 3 * self.interval)

    def stop(self) -> None:
        self.leaving.set()
        for thread in self.threads:
            thread.join()
        if self.relay is not None:
            self.relay.close()
        _watches.remove(self)
