"""Two kernels for one scene: this machine's own, and the one in memory, which has to do as the first does.

A scene is given a `World`, makes its sockets there, and says what each call does. It is played in both worlds. Where
they disagree, the one in memory is wrong.

A real kernel may take its time. Before a call whose result depends on what the other side has done, a scene waits with
`World.until` for what poll(2) reports then; in memory it is there at once.
"""

from __future__ import annotations

import errno
import fcntl
import select
import socket
import struct
import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from twisted_net.testing.kernel.sockets import Socket
from twisted_net.testing.network import MemoryNetwork

IN, OUT, ERR, HUP = select.POLLIN, select.POLLOUT, select.POLLERR, select.POLLHUP

#: Seconds that a real kernel may take until the other side knows; it takes microseconds.
PATIENCE = 20.0

LOOPBACK: dict[int, str] = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}


class World:
    """Makes sockets, which never block, and closes what a scene has left open."""

    def __init__(self) -> None:
        self._sockets: list[Any] = []

    def socket(self, family: int, kind: int = socket.SOCK_STREAM) -> Any:
        """A socket that does not block."""
        return self.keep(self._make(family, kind))

    def keep(self, skt: Any) -> Any:
        """Close it at the end, too."""
        self._sockets.append(skt)
        return skt

    def close(self) -> None:
        """Close every socket."""
        for skt in self._sockets:
            skt.close()

    def _make(self, family: int, kind: int) -> Any:
        raise NotImplementedError

    def place(self, family: int) -> Any:
        """An address of this host that a socket of *family* can be bound to."""
        return self.path("server") if family == socket.AF_UNIX else (LOOPBACK[family], 0)

    def path(self, name: str) -> str:
        """A path for a UNIX socket."""
        raise NotImplementedError

    def unlink(self, path: str) -> None:
        """Remove it."""
        raise NotImplementedError

    def mask(self, skt: Any) -> int:
        """What poll(2) reports of IN, OUT, ERR and HUP."""
        raise NotImplementedError

    def until(self, skt: Any, mask: int, size: int = 0) -> None:
        """Wait until poll(2) reports exactly *mask*, and *size* bytes or more can be received."""
        raise NotImplementedError

    # -- what many scenes begin with

    def listening(self, family: int, backlog: int = 5) -> Any:
        """A socket that listens."""
        skt = self.socket(family)
        skt.bind(self.place(family))
        skt.listen(backlog)
        return skt

    def connect(self, listener: Any) -> tuple[Any, Any]:
        """A connection: the client's socket, and the server's."""
        client = self.socket(listener.family)
        assert client.connect_ex(listener.getsockname()) in (0, errno.EINPROGRESS)
        self.until(client, OUT)
        assert client.connect_ex(listener.getsockname()) in (0, errno.EISCONN, errno.EAGAIN)
        return client, self.accept(listener)

    def accept(self, listener: Any) -> Any:
        """The server's side of the next connection."""
        self.until(listener, IN)
        server, _ = listener.accept()
        server.setblocking(False)
        return self.keep(server)

    def closedPort(self, family: int) -> Any:
        """An address where nobody listens."""
        with self.socket(family) as skt:
            skt.bind((LOOPBACK[family], 0))
            return skt.getsockname()

    def pair(self, family: int) -> tuple[Any, Any]:
        """A connection of its own."""
        listener = self.listening(family)
        client, server = self.connect(listener)
        listener.close()
        if family == socket.AF_UNIX:
            self.unlink(self.path("server"))
        return client, server


class Kernel(World):
    """This machine."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def _make(self, family: int, kind: int) -> Any:
        try:
            skt = socket.socket(family, kind)
        except OSError:
            if family == socket.AF_INET6:
                pytest.skip("this machine has no IPv6")
            raise
        skt.setblocking(False)
        return skt

    def path(self, name: str) -> str:
        return str(self._folder / name)

    def unlink(self, path: str) -> None:
        Path(path).unlink()

    def mask(self, skt: Any) -> int:
        poller = select.poll()
        poller.register(skt, IN | OUT)
        return dict(poller.poll(0)).get(skt.fileno(), 0)

    def until(self, skt: Any, mask: int, size: int = 0) -> None:
        latest = monotonic() + PATIENCE
        with select.epoll() as changes:
            # Edges: each change is told once, so that a state that is not the last one does not wake us again.
            changes.register(skt, IN | OUT | select.EPOLLET)
            while (found := self.mask(skt)) != mask or self._size(skt) < size:
                assert changes.poll(max(0.0, latest - monotonic())), f"the mask is {found}, and not {mask}"

    @staticmethod
    def _size(skt: Any) -> int:
        listens = skt.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        return 0 if listens else int.from_bytes(fcntl.ioctl(skt, termios.FIONREAD, bytes(4)), sys.byteorder)

    def close(self) -> None:
        super().close()
        for path in self._folder.iterdir():
            if path.is_socket():
                path.unlink()


class Memory(World):
    """The kernel in memory; both ends are sockets of one host."""

    def __init__(self, network: MemoryNetwork | None = None) -> None:
        super().__init__()
        self.network = network or MemoryNetwork()
        self.host = self.network.host("one")

    def _make(self, family: int, kind: int) -> Socket:
        return self.host.socket(family, kind)

    def path(self, name: str) -> str:
        return f"/run/{name}"

    def unlink(self, path: str) -> None:
        self.host.ports.unlink(path)

    def mask(self, skt: Any) -> int:
        found: int = skt.poll()
        return found

    def until(self, skt: Any, mask: int, size: int = 0) -> None:
        latest = self.network.now + PATIENCE
        while (found := self.mask(skt)) != mask:
            assert self.network.now < latest, f"the mask is {found}, and not {mask}"
            self.network.advance(0.5)


class Between:
    """Two hosts in memory, the link between them, and a listener on the second one."""

    def __init__(self, seed: int | None = None) -> None:
        self.network = MemoryNetwork(seed)
        self.here, self.there = self.network.host("here"), self.network.host("there")
        self.link = self.network.link(self.here, self.there)
        listener: Any = self.there.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.listener = listener
        self.listener.bind(("0.0.0.0", 80))
        self.listener.listen(5)

    def start(self) -> Any:
        """A client that has begun to connect."""
        client: Any = self.here.socket(socket.AF_INET, socket.SOCK_STREAM)
        assert client.connect_ex((self.there.addresses[0], 80)) == errno.EINPROGRESS
        return client

    def connect(self) -> tuple[Any, Any]:
        """A connection: the client's socket, and the server's."""
        client = self.start()
        while not self.listener.pending or client.poll() != OUT:
            self.network.advance(0.01)
        return client, self.listener.accept()[0]


@contextmanager
def playing(name: str, folder: Path) -> Iterator[World]:
    """The world of that name: ``"kernel"`` or ``"memory"``."""
    world = Kernel(folder) if name == "kernel" else Memory()
    try:
        yield world
    finally:
        world.close()


def fails(code: int, call: Callable[..., Any], *arguments: Any) -> None:
    """Say that *call* raises OSError with errno *code*."""
    with pytest.raises(OSError) as caught:  # noqa: PT011  # its errno is what is looked at
        call(*arguments)
    found = caught.value.errno
    assert found == code, f"{errno.errorcode.get(found or 0, found)}, and not {errno.errorcode[code]}"


def fill(skt: Any) -> int:
    """Send until nothing more is taken; the number of bytes."""
    count = 0
    try:
        while True:
            count += skt.send(bytes(10_000))
    except BlockingIOError:
        return count


def linger(seconds: int) -> bytes:
    """The value of SO_LINGER."""
    return struct.pack("ii", 1, seconds)
