"""The rendezvous before JAX starts: process 0 collects the others, and all learn which are missing.

When a process does not come, JAX ends with a stack trace that does not name it. Process 0 therefore
first listens on the coordinator's port itself, until all others have sent their index, and then
leaves the port to JAX.
"""

import contextlib
import socket
import time

from vlp_jax.distributed.cluster_detection import Launch
from vlp_jax.errors import HostError, HostsDiffer

PAUSE = 0.2  # seconds between two attempts to reach process 0
REFUSED = "refused: "  # prefix of the answer to a process that is not expected


def await_processes(launch: Launch, patience: float) -> None:
    """Returns when all processes are here.

    Raises:
      HostError: some did not come within about `patience` seconds; the message has their number.
    """
    if launch.process == 0:
        receive(launch, patience)
    else:
        report(launch, patience)


def receive(launch: Launch, patience: float) -> None:
    """The part of process 0."""
    port = int(launch.coordinator.rpartition(":")[2])
    dual = socket.has_dualstack_ipv6()
    try:
        server = socket.create_server(
            ("", port),
            family=socket.AF_INET6 if dual else socket.AF_INET,
            dualstack_ipv6=dual,
            backlog=launch.processes,
        )
    except OSError as error:
        raise HostError(
            f"host 0 of {launch.processes} cannot listen on port {port}: "
            f"{error.strerror}; choose another port for --coordinator"
        ) from error
    with server, contextlib.ExitStack() as connections:
        came: dict[int, socket.socket] = {}
        verdict = await_all(server, launch, came, connections, time.monotonic() + patience)
        verdict = verdict and f"{verdict} within {patience:g} s (hosts.initialization_seconds)"
        for connection in came.values():
            with contextlib.suppress(OSError):  # it is gone; JAX will report it
                connection.sendall(f"{verdict or 'all here'}\n".encode())
                connection.recv(1)  # waits until it has closed, which frees the port for JAX
    if verdict:
        raise HostError(verdict)


def await_all(
    server: socket.socket,
    launch: Launch,
    came: dict[int, socket.socket],
    connections: contextlib.ExitStack,
    deadline: float,
) -> str:
    """Fills `came` with a connection to each other process; returns what is wrong, or ""."""
    while len(came) < launch.processes - 1:
        server.settimeout(max(deadline - time.monotonic(), 0.001))
        try:
            connection = connections.enter_context(server.accept()[0])
            connection.settimeout(max(min(deadline - time.monotonic(), 5.0), 0.001))
            words = connection.recv(100).decode(errors="replace").split()
        except TimeoutError:
            if time.monotonic() < deadline:
                continue
            missing = sorted(set(range(1, launch.processes)) - came.keys())
            return (
                f"{len(came) + 1} of {launch.processes} hosts came to {launch.coordinator}, "
                f"missing {named(missing)}"
            )
        except OSError:
            continue
        if (
            len(words) != 3
            or words[0] != "vlp_jax"
            or not all(word.isdigit() for word in words[1:])
        ):
            continue  # an unrelated connection to the port
        process, processes = map(int, words[1:])
        if processes != launch.processes or process in came or not 0 < process < processes:
            connection.sendall(
                f"{REFUSED}host {process} of {processes} is none of the "
                f"{launch.processes} that are awaited, or came twice\n".encode()
            )
            continue
        came[process] = connection
    return ""


def report(launch: Launch, patience: float) -> None:
    """The part of every other process.

    Raises:
      HostsDiffer: process 0 does not expect this one.
      HostError: process 0 does not answer, or others are missing.
    """
    host, _, port = launch.coordinator.rpartition(":")
    deadline, answer = time.monotonic() + patience + 5.0, ""
    while not answer and time.monotonic() < deadline:
        try:
            with socket.create_connection((host.strip("[]"), int(port)), timeout=5.0) as connection:
                connection.sendall(f"vlp_jax {launch.process} {launch.processes}\n".encode())
                connection.settimeout(max(deadline - time.monotonic(), 0.001))
                with connection.makefile() as lines:
                    answer = lines.readline().strip()
        except OSError:
            time.sleep(PAUSE)
    if not answer:
        raise HostError(
            f"host {launch.process} of {launch.processes}: no message from host 0 at "
            f"{launch.coordinator} within {patience:g} s "
            "(hosts.initialization_seconds): was it started, and can its port be "
            "reached?"
        )
    if answer.startswith(REFUSED):
        raise HostsDiffer(answer.removeprefix(REFUSED))
    if answer != "all here":
        raise HostError(answer)


def named(hosts: list[int], most: int = 8) -> str:
    """`host 3`, `hosts 1, 2`; only the first few of many."""
    shown = ", ".join(map(str, hosts[:most])) + (", ..." if len(hosts) > most else "")
    return f"host{'s' * (len(hosts) > 1)} {shown}"
