"""Connections that come as descriptors."""

from __future__ import annotations

import gc
import os
import socket
from typing import Any

import pytest
from doors import patient
from pairs import Side
from twisted.internet.protocol import ServerFactory

from twisted_net.errors import NetError
from twisted_net.wire.adopt import adoptConnection


class Taking(ServerFactory):
    noisy = False

    def __init__(self, side: Any) -> None:
        self._side = side

    def buildProtocol(self, addr: object) -> Any:
        return self._side


def adopt(fd: int, side: Any = None) -> None:
    from twisted.internet import reactor

    adoptConnection(reactor, Taking(side), fd)


def tcp(family: int, host: str) -> tuple[socket.socket, socket.socket]:
    with socket.create_server((host, 0), family=family) as server:
        client = socket.create_connection(server.getsockname()[:2])
        return client, server.accept()[0]


@pytest.mark.parametrize("kind", ["tcp", "tcp6", "unix"])
@patient
async def test_adopt(kind: str) -> None:
    if kind == "unix":
        theirs, ours = socket.socketpair()
    else:
        theirs, ours = tcp(*((socket.AF_INET6, "::1") if kind == "tcp6" else (socket.AF_INET, "127.0.0.1")))
    theirs.settimeout(10)
    side = Side()
    with theirs:
        number = ours.detach()
        adopt(number, side)
        assert side.events == ["made"]
        with pytest.raises(OSError, match="Bad file"):
            os.fstat(number)
        theirs.sendall(b"hello")
        await side.until(lambda: side.received == b"hello")
        side.transport.write(b"you")
        side.transport.loseConnection()
        await side.happened("lost")
        assert theirs.recv(10) == b"you"
        assert theirs.recv(10) == b""  # no duplicate keeps it open


@patient
async def test_nobodyWantsIt() -> None:
    theirs, ours = socket.socketpair()
    with theirs:
        adopt(ours.detach())
        theirs.settimeout(10)
        assert theirs.recv(1) == b""


def test_closed() -> None:
    for number in (1_000_000, -1, 2**40):
        with pytest.raises(NetError, match=rf"descriptor {number} cannot be adopted: .*; give one") as caught:
            adopt(number)
        assert caught.value.code == "EBADF"


def untouched(number: int) -> None:
    os.fstat(number)


def test_noSocket() -> None:
    read, write = os.pipe()
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(NetError, match="it is no socket; give") as caught:
        adopt(read)
    assert caught.value.code == "ENOTSOCK"
    del caught
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before
    untouched(read)
    os.close(read)
    os.close(write)


def test_otherKinds() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        with pytest.raises(NetError, match=r"SOCK_DGRAM; give one of type SOCK_STREAM") as caught:
            adopt(one.fileno())
        assert caught.value.code == "ESOCKTNOSUPPORT"
        untouched(one.fileno())
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with one, other, pytest.raises(NetError, match="SOCK_SEQPACKET"):
        adopt(one.fileno())


def test_notConnected() -> None:
    with socket.create_server(("127.0.0.1", 0)) as one:
        with pytest.raises(NetError, match="is not connected; connect it") as caught:
            adopt(one.fileno())
        assert caught.value.code == "ENOTCONN"
        untouched(one.fileno())
