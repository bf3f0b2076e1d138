"""Between a host and host 0's coordination service: a relay, so that the end of host 0 can be told in words.

JAX's client aborts its process, with a stack trace, in the moment in which its connection to host 0 breaks, and has no working
hook for it (jaxlib's `missed_heartbeat_callback` fails with std::bad_cast). Its connection goes to a socket on this machine
instead, which stays open when the one behind it has closed. The relay is a process of its own, this file: some of JAX's calls
keep Python's lock while they wait for host 0's answer, which threads of the same process could then not pass on.
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
    """Passes on what comes to `address` to host 0, and calls `lost()` once host 0 has closed a connection that this process
    wanted open. It is used in the moment of joining and for the whole run, and ends with this process however that ends."""

    def __init__(self, coordinator: str):
        self.lost: Callable[[], None] | None = None
        self.process = subprocess.Popen([sys.executable, "-I", "-S", __file__, coordinator], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, start_new_session=True)  # Ctrl-C is for this process alone
        self.address = f"unix:{self.process.stdout.readline().decode().strip()}"
        if self.address == "unix:":
            raise OSError(f"the relay to host 0 did not start: {sys.executable} {__file__} ended with {self.process.wait()}")
        threading.Thread(target=self.listen, daemon=True, name="relay").start()

    def listen(self) -> None:
        for word in self.process.stdout:
            if word == LOST and self.lost is not None:
                self.lost()

    def close(self) -> None:
        """When JAX is to let go of the connection, or this process ends. JAX's last words still pass."""
        self.lost = None


def serve(coordinator: str) -> None:
    """The relay's process: threads that pass on, until stdin says that the process it serves has ended."""
    host, _, port = coordinator.rpartition(":")
    short = None if len(tempfile.gettempdir()) < 80 else "/tmp"  # a socket's path has at most 107 bytes
    with tempfile.TemporaryDirectory(prefix="vlp_jax_", dir=short) as folder:
        server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        server.bind(path := os.path.join(folder, "socket"))
        server.listen()
        threading.Thread(target=accept, args=(server, (host.strip("[]"), int(port))), daemon=True).start()
        say(path.encode() + b"\n")
        sys.stdin.buffer.read()


def accept(server: socket.socket, upstream: tuple[str, int]) -> None:
    """A pair of threads for every connection of JAX, for ever."""
    while True:
        near = server.accept()[0]
        try:
            far = socket.create_connection(upstream)
        except OSError:
            near.close()  # JAX tries again while it joins
            continue
        far.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        let_go = threading.Event()
        for work in (pass_up, pass_down):
            threading.Thread(target=work, args=(near, far, let_go), daemon=True).start()


def pass_up(near: socket.socket, far: socket.socket, let_go: threading.Event) -> None:
    """What JAX says, until it lets go of the connection; `pass_down` notices where host 0 is gone."""
    while words := received(near):
        with contextlib.suppress(OSError):
            far.sendall(words)
    let_go.set()
    end(near, far)


def pass_down(near: socket.socket, far: socket.socket, let_go: threading.Event) -> None:
    """What host 0 says, until it is gone: JAX's end stays open and silent then."""
    with contextlib.suppress(OSError):  # JAX has let go
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
    """Ends connections in both directions; one that is over already stays so."""
    for connection in connections:
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)


def say(words: bytes) -> None:
    """Writes to the process that this one serves."""
    with contextlib.suppress(OSError):  # the process it serves has ended
        os.write(sys.stdout.fileno(), words)


if __name__ == "__main__":
    serve(*sys.argv[1:])
