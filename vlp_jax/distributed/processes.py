"""Several hosts as one run: they come together, speak with one voice, and leave together, whatever happens to one."""

import contextlib
import io
import os
import re
import sys
import time
import traceback
from collections.abc import Iterator
from typing import TextIO

import jax

from vlp_jax.config import schema
from vlp_jax.distributed.cluster_detection import Launch
from vlp_jax.distributed.coordinator_proxy import CoordinatorProxy
from vlp_jax.distributed.exchange import exchange, set_patience
from vlp_jax.distributed.heartbeat import Heartbeat, leave_together
from vlp_jax.distributed.rendezvous import await_processes
from vlp_jax.errors import PASSING, UserError, user_error_of
from vlp_jax.interrupts import CTRL_C, leaving_with

REGISTRATION = 60  # seconds for JAX to connect hosts that have all answered the roll call


@contextlib.contextmanager
def joined(launch: Launch | None, config: schema.Hosts, heeds_signals: bool = False) -> Iterator[None]:
    """Inside, `jax.devices()` are those of all hosts. None stands for a single process, for which nothing happens.

    On hosts other than the first, stdout is silent and each line of stderr begins with the host's number. If one host
    leaves with an error, or is not heard of for `heartbeat_seconds`, all others exit non-zero, saying so.
    heeds_signals: what runs inside enters a StopSignal, for which JAX's preemption service takes over SIGTERM; otherwise a
    SIGTERM ends this process, as ever.
    Raises: HostError for a host that does not come within `initialization_seconds`.
    """
    if launch is None:
        yield
        return
    with one_voice(launch.process):
        relay = connect(launch, config, heeds_signals)
        watch = Heartbeat(config.heartbeat_seconds, relay)
        try:
            with leaving_with(lambda: leave_together("interrupted", CTRL_C)):
                yield
        except BaseException as error:
            leave(watch, error)
        exchange("the end", None)  # a host that rests here still beats for the others
        watch.stop()
        jax.distributed.shutdown()


def connect(launch: Launch, config: schema.Hosts, heeds_signals: bool) -> CoordinatorProxy | None:
    """All hosts into one JAX, of which all but host 0 hear through a relay. CPU devices talk through gloo, which JAX takes by
    itself.

    Raises: HostError for a host that is missing. Ends this process where one is lost before all are connected.
    """
    # On CPUs two programs under way at once would, in another order on each host, wait for each other's collectives for ever.
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    jax.config.update("jax_enable_preemption_service", heeds_signals)
    start = time.monotonic()
    await_processes(launch, config.initialization_seconds)
    left = config.initialization_seconds - (time.monotonic() - start)
    # JAX's own heartbeat ends a process with a stack trace; ours comes first, and says which host.
    relay = CoordinatorProxy(launch.coordinator) if launch.process else None
    try:
        jax.distributed.initialize(relay.address if relay else launch.coordinator, launch.processes, launch.process,
                                   launch.local_devices, cluster_detection_method="deactivate",
                                   initialization_timeout=int(max(left, REGISTRATION)),
                                   heartbeat_timeout_seconds=int(2 * config.heartbeat_seconds + 10),
                                   shutdown_timeout_seconds=int(config.barrier_seconds))
    except jax.errors.JaxRuntimeError as error:
        leave_together(f"host error: host {launch.process} of {launch.processes}: all came to {launch.coordinator}, and JAX could "
                       f"not connect them: {str(error).splitlines()[0]}", PASSING)  # at once: JAX's own end would fail, too
    set_patience(config.barrier_seconds)
    return relay


def leave(watch: Heartbeat, error: BaseException) -> None:
    """Ends this process, and tells the others why."""
    error = user_error_of(error) or error
    if isinstance(error, UserError):
        watch.exit(str(error).replace("\n", " "), error.status)
    if isinstance(error, jax.errors.JaxRuntimeError):
        watch.wait_for_news()  # a collective operation fails first when a host is lost
        if re.search("DEADLINE_EXCEEDED|UNAVAILABLE|Gloo", str(error)):
            watch.exit(f"host error: all {watch.hosts} hosts answer, and one that waited for another gave up: "
                       f"{str(error).splitlines()[0]}; start all hosts again to go on from the last checkpoint", PASSING)
    if isinstance(error, KeyboardInterrupt):
        watch.exit("interrupted", CTRL_C)
    watch.exit("".join(traceback.format_exception(error)).rstrip(), 1)


@contextlib.contextmanager
def one_voice(process: int) -> Iterator[None]:
    """Silences stdout and marks stderr, on every host but the first."""
    if process == 0:
        yield
        return
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), \
            contextlib.redirect_stderr(Marked(sys.stderr, f"host {process}: ")):
        yield


class Marked(io.TextIOBase):
    """A stream whose lines begin with a mark."""

    def __init__(self, stream: TextIO, mark: str):
        self.stream, self.mark, self.at_start = stream, mark, True

    def write(self, text: str) -> int:
        for line in text.splitlines(keepends=True):
            self.stream.write(f"{self.mark if self.at_start else ''}{line}")
            self.at_start = line.endswith("\n")
        return len(text)

    def flush(self) -> None:
        self.stream.flush()
