"""Several processes as one run: they connect, print as one, and exit together."""

import contextlib
import dataclasses
import io
import os
import re
import sys
import time
import traceback
from collections.abc import Generator
from typing import TextIO

import jax

from vlp_jax.config.fields import between
from vlp_jax.config.section import Section
from vlp_jax.distributed.cluster_detection import Launch
from vlp_jax.distributed.coordinator_proxy import CoordinatorProxy
from vlp_jax.distributed.exchange import exchange, set_patience
from vlp_jax.distributed.heartbeat import Heartbeat, coordination_timeout, leave_together
from vlp_jax.distributed.rendezvous import await_processes
from vlp_jax.errors import PASSING, UserError, user_error_of
from vlp_jax.interrupts import CTRL_C, leaving_with

REGISTRATION = 60  # seconds for JAX to connect processes that have all come to the rendezvous


@dataclasses.dataclass(frozen=True, kw_only=True)
class HostsConfig(Section):
    """Timeouts between several hosts, in seconds."""

    initialization_seconds: float = between(300.0, 1.0)  # until all have connected, at the start
    # without a heartbeat, after which a host counts as lost and the others exit
    heartbeat_seconds: float = between(60.0, 2.0)
    barrier_seconds: float = between(1800.0, 1.0)  # of barriers: checks, logged steps, checkpoints


@contextlib.contextmanager
def joined(
    launch: Launch | None, config: HostsConfig, heeds_signals: bool = False
) -> Generator[None, None, None]:
    """A context in which `jax.devices()` are those of all processes.

    On processes other than the first, stdout is silent and each line of stderr begins with the
    process index. If a process exits with an error, or is silent for `heartbeat_seconds`, all
    others exit with a message and a nonzero status.

    Args:
      launch: how to connect. None is a single process, for which nothing happens.
      config: the hosts section of the config.
      heeds_signals: whether the block enters a StopSignal, for which JAX's preemption service takes
        over SIGTERM. Otherwise SIGTERM ends this process as usual.
    Raises:
      HostError: a process does not come within `initialization_seconds`.
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
        exchange("the end", None)  # a process that waits here still sends heartbeats
        watch.stop()
        jax.distributed.shutdown()


def connect(launch: Launch, config: HostsConfig, heeds_signals: bool) -> CoordinatorProxy | None:
    """Connects all processes to JAX; all but process 0 through a proxy.

    CPU devices use gloo, which JAX chooses by itself.

    Ends this process where one is lost before all are connected.

    Returns: the proxy; None on process 0.
    Raises:
      HostError: a process is missing.
    """
    # On CPUs two concurrent programs that start in different order would wait for each other's
    # collectives for ever.
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    jax.config.update("jax_enable_preemption_service", heeds_signals)
    start = time.monotonic()
    await_processes(launch, config.initialization_seconds)
    left = config.initialization_seconds - (time.monotonic() - start)
    relay = CoordinatorProxy(launch.coordinator) if launch.process else None
    try:
        jax.distributed.initialize(
            relay.address if relay else launch.coordinator,
            launch.processes,
            launch.process,
            launch.local_devices,
            cluster_detection_method="deactivate",
            initialization_timeout=int(max(left, REGISTRATION)),
            heartbeat_timeout_seconds=coordination_timeout(config.heartbeat_seconds),
            shutdown_timeout_seconds=int(config.barrier_seconds),
        )
    except jax.errors.JaxRuntimeError as error:
        leave_together(
            f"host error: host {launch.process} of {launch.processes}: all came to "
            f"{launch.coordinator}, and JAX could "
            # at once, as JAX's own shutdown would fail too
            f"not connect them: {str(error).splitlines()[0]}",
            PASSING,
        )
    set_patience(config.barrier_seconds)
    return relay


def leave(watch: Heartbeat, error: BaseException) -> None:
    """Ends this process for an error, and sends the reason to the others."""
    error = user_error_of(error) or error
    if isinstance(error, UserError):
        watch.exit(str(error).replace("\n", " "), error.status)
    if isinstance(error, jax.errors.JaxRuntimeError):
        watch.wait_for_news()  # a collective fails first when a process is lost
        if re.search("DEADLINE_EXCEEDED|UNAVAILABLE|Gloo", str(error)):
            watch.exit(
                f"host error: all {watch.hosts} hosts answer, and one that waited for "
                f"another gave up: {str(error).splitlines()[0]}; start all hosts again to "
                "resume from the last checkpoint",
                PASSING,
            )
    if isinstance(error, KeyboardInterrupt):
        watch.exit("interrupted", CTRL_C)
    watch.exit("".join(traceback.format_exception(error)).rstrip(), 1)


@contextlib.contextmanager
def one_voice(process: int) -> Generator[None, None, None]:
    """Silences stdout and prefixes the lines of stderr, on every process but the first."""
    if process == 0:
        yield
        return
    with (
        open(os.devnull, "w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(Marked(sys.stderr, f"host {process}: ")),
    ):
        yield


class Marked(io.TextIOBase):
    """A stream whose lines begin with a mark."""

    def __init__(self, stream: TextIO, mark: str):
        self.stream, self.mark, self.at_start = stream, mark, True

    def write(self, text: str) -> int:
        """Writes text with the mark at the start of each line."""
        for line in text.splitlines(keepends=True):
            self.stream.write(f"{self.mark if self.at_start else ''}{line}")
            self.at_start = line.endswith("\n")
        return len(text)

    def flush(self) -> None:
        """Flushes the stream."""
        self.stream.flush()
