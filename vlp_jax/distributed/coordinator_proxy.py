"""A proxy to the coordination service of process 0, so that the loss of process 0 is reported in
words.

JAX's client aborts its process with a stack trace as soon as its connection to process 0 breaks,
and has no working hook for it (jaxlib's `missed_heartbeat_callback` fails with std::bad_cast). Here
its connection goes to a socket on this machine, which stays open when the connection behind it has
closed. The proxy is a process of its own, which runs this file: some of JAX's calls hold Python's
lock while they wait for the answer of process 0, which threads of the same process could then not
forward.
"""

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable

CHUNK = 1 << 16
LOST = b"lost\n"


class CoordinatorProxy:
    """A proxy that forwards connections to `address` to process 0.

    It calls `lost()` when process 0 closes a connection that is still in use. It serves from the
    connection of JAX to the end of the run, and ends with this process for whatever reason.
    """

    def __init__(self, coordinator: str):
        self.lost: Callable[[], None] | None = None
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, coordinator],
            stdin=subprocess.PIPE,
            # Ctrl-C must not reach it
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert self.process.stdout is not None
        self.output = self.process.stdout
        self.address = f"unix:{self.output.readline().decode().strip()}"
        if self.address == "unix:":
            raise OSError(
                f"the proxy to host 0 did not start: {sys.executable} {__file__} ended "
                f"with {self.process.wait()}"
            )
        threading.Thread(target=self.listen, daemon=True, name="relay").start()

    def listen(self) -> None:
        """The thread: waits for the report that the connection is lost."""
        for word in self.output:
            if word == LOST and self.lost is not None:
                self.lost()

    def close(self) -> None:
        """Called before JAX closes the connection or this process ends.

        JAX's last messages are still forwarded.
        """
        self.lost = None


def serve(coordinator: str) -> None:
    """The proxy process: threads that forward, until stdin ends with the process that it serves."""
    host, _, port = coordinator.rpartition(":")
    # the path of a socket has at most 107 bytes
    short = None if len(tempfile.gettempdir()) < 80 else "/tmp"
    with tempfile.TemporaryDirectory(prefix="vlp_jax_", dir=short) as folder:
        server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        server.bind(path := os.path.join(folder, "socket"))
        server.listen()
        threading.Thread(
            target=accept, args=(server, (host.strip("[]"), int(port))), daemon=True
        ).start()
        say(path.encode() + b"\n")
        sys.stdin.buffer.read()


def accept(server: socket.socket, upstream: tuple[str, int]) -> None:
    """Starts a pair of threads for every connection of JAX; never returns."""
    while True:
        near = server.accept()[0]
        try:
            far = socket.create_connection(upstream)
        except OSError:
            near.close()  # JAX retries while it connects
            continue
        far.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        let_go = threading.Event()
        for work in (pass_up, pass_down):
            threading.Thread(target=work, args=(near, far, let_go), daemon=True).start()


def pass_up(near: socket.socket, far: socket.socket, let_go: threading.Event) -> None:
    """Forwards what JAX sends until it closes the connection; `pass_down` notices the loss of
    process 0."""
    while words := received(near):
        with contextlib.suppress(OSError):
            far.sendall(words)
    let_go.set()
    end(near, far)


def pass_down(near: socket.socket, far: socket.socket, let_go: threading.Event) -> None:
    """Forwards what process 0 sends until it is gone; JAX's end then stays open and silent."""
    with contextlib.suppress(OSError):  # JAX has closed the connection
        while words := received(far):
            near.sendall(words)
        if not let_go.is_set():
            say(LOST)


def received(connection: socket.socket) -> bytes:
    """The next bytes; none where the connection has ended, in order or not."""
    try:
        return connection.recv(CHUNK)
    except OSError:
        return b""


def end(*connections: socket.socket) -> None:
    """Ends connections in both directions; does nothing for those already ended."""
    for connection in connections:
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)


def say(words: bytes) -> None:
    """Writes to the process that this one serves."""
    with contextlib.suppress(OSError):  # the process it serves has ended
        os.write(sys.stdout.fileno(), words)


if __name__ == "__main__":
    serve(*sys.argv[1:])
