"""Between a host and host 0's coordination service: a relay in this process, so that the end of host 0 can be told in words.

JAX's client aborts its process, with a stack trace, in the moment in which its connection to host 0 breaks, and has no working
hook for it (jaxlib's `missed_heartbeat_callback` fails with std::bad_cast). Its connection goes to a socket of this process
instead, which stays open when the one behind it has closed.
"""

import contextlib
import os
import socket
import tempfile
import threading
from collections.abc import Callable

CHUNK = 1 << 16


class Relay:
    """Passes on what comes to `address` to host 0, in threads of its own, and calls `lost()` once host 0 has closed a
    connection that this process wanted open. It is used in the moment of joining and for the whole run."""

    def __init__(self, coordinator: str):
        host, _, port = coordinator.rpartition(":")
        self.upstream = host.strip("[]"), int(port)
        self.lost: Callable[[], None] | None = None
        short = None if len(tempfile.gettempdir()) < 80 else "/tmp"  # a socket's path has at most 107 bytes
        self.folder = tempfile.TemporaryDirectory(prefix="vlp_jax_", dir=short)
        self.address = f"unix:{os.path.join(self.folder.name, 'socket')}"
        self.server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.server.bind(self.address.removeprefix("unix:"))
        self.server.listen()
        threading.Thread(target=self.accept, daemon=True, name="relay").start()

    def accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                near = self.server.accept()[0]
                try:
                    far = socket.create_connection(self.upstream)
                except OSError:
                    near.close()  # JAX tries again while it joins
                    continue
                far.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                for work in (self.pass_up, self.pass_down):
                    threading.Thread(target=work, args=(near, far), daemon=True, name="relay").start()

    def pass_up(self, near: socket.socket, far: socket.socket) -> None:
        """What JAX says, until it lets go of the connection; `pass_down` notices where host 0 is gone."""
        while words := received(near):
            with contextlib.suppress(OSError):
                far.sendall(words)
        self.end(near, far)

    def pass_down(self, near: socket.socket, far: socket.socket) -> None:
        """What host 0 says, until it is gone: JAX's end stays open and silent then."""
        with contextlib.suppress(OSError):  # JAX has let go
            while words := received(far):
                near.sendall(words)
            if self.lost is not None:
                self.lost()
                return
        self.end(near, far)

    def end(self, *connections: socket.socket) -> None:
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """When JAX is to let go of the connection, or this process ends."""
        self.lost = None
        self.server.close()
        self.folder.cleanup()


def received(connection: socket.socket) -> bytes:
    """The next bytes; none where the connection has ended, in order or not."""
    try:
        return connection.recv(CHUNK)
    except OSError:
        return b""
