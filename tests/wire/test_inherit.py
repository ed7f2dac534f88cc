"""Descriptors that others made: those that can be listened with, and what is said of all the rest."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from conditions import needsIPv6

from twisted_net.errors import NetError
from twisted_net.wire.inherit import connected, listening


@contextmanager
def made(family: int = socket.AF_INET, kind: int = socket.SOCK_STREAM, where: Any = None) -> Iterator[socket.socket]:
    with socket.socket(family, kind) as skt:
        if where is not None:
            skt.bind(where)
        yield skt


def refused(fd: int) -> NetError:
    with pytest.raises(NetError) as caught:
        listening(fd, 5)
    assert str(caught.value).startswith(f"listen: descriptor {fd} cannot be listened on: ")
    return caught.value


@pytest.mark.parametrize(
    ("family", "where"),
    [
        (socket.AF_INET, ("127.0.0.1", 0)),
        pytest.param(socket.AF_INET6, ("::1", 0), marks=needsIPv6),
        (socket.AF_UNIX, "path"),
        (socket.AF_UNIX, f"\0inherit{os.getpid()}"),
    ],
    ids=["IPv4", "IPv6", "path", "abstract"],
)
@pytest.mark.parametrize("already", [True, False], ids=["listening", "bound"])
def test_takenAsItIs(family: int, where: Any, already: bool, tmp_path: Path) -> None:
    path = tmp_path / "s"
    with made(family, where=str(path) if where == "path" else where) as skt:
        if already:
            skt.listen()
        with listening(skt.fileno(), 5) as taken:
            assert taken.fileno() != skt.fileno()
            assert (taken.family, taken.getsockname()) == (skt.family, skt.getsockname())
            assert taken.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1
            assert not taken.getblocking()
            assert not taken.get_inheritable()
        assert skt.fileno() >= 0
        assert os.fstat(skt.fileno())
    path.unlink(missing_ok=True)


def test_aBacklogForWhatDoesNotListenYet() -> None:
    with made(where=("127.0.0.1", 0)) as skt, listening(skt.fileno(), 0), made() as first, made() as second:
        first.connect(skt.getsockname())
        second.settimeout(0.05)
        with pytest.raises(TimeoutError):
            second.connect(skt.getsockname())


def test_aConnection() -> None:
    one, other = socket.socketpair()
    with one, other, connected(one.fileno()) as taken:
        assert taken.fileno() != one.fileno()
        assert not taken.getblocking()
        other.sendall(b"x")
        assert taken.recv(1) == b"x"


def test_noConnection() -> None:
    with made(where=("127.0.0.1", 0)) as skt, pytest.raises(NetError, match=r"adopt: .* is not connected") as caught:
        connected(skt.fileno())
    assert caught.value.code == "ENOTCONN"


def test_closed() -> None:
    fd = os.dup(0)
    os.close(fd)
    assert refused(fd).code == "EBADF"
    assert refused(-1).code == "EBADF"
    assert refused(2**40).code == "EBADF"


def test_noSocket() -> None:
    reading, writing = os.pipe()
    assert refused(reading).code == "ENOTSOCK"
    os.close(reading)
    os.close(writing)


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_SEQPACKET])
def test_notAStream(kind: socket.SocketKind) -> None:
    with made(socket.AF_UNIX, kind) as skt:
        error = refused(skt.fileno())
    assert error.code == "ESOCKTNOSUPPORT"
    assert kind.name in str(error)


def test_anotherFamily() -> None:
    try:
        skt = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
    except OSError:
        pytest.skip("this machine has no stream socket that is neither TCP nor UNIX")
    with skt:
        error = refused(skt.fileno())
    assert error.code == "EAFNOSUPPORT"
    assert "AF_VSOCK" in str(error)


@pytest.mark.parametrize("family", [socket.AF_INET, pytest.param(socket.AF_INET6, marks=needsIPv6), socket.AF_UNIX])
def test_boundToNothing(family: int) -> None:
    with made(family) as skt:
        assert refused(skt.fileno()).code == "EINVAL"
        assert skt.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 0


def test_connected() -> None:
    one, other = socket.socketpair()
    with one, other:
        assert refused(one.fileno()).code == "EISCONN"


def test_anotherListensThere() -> None:
    with made() as first, made() as second:
        for skt in (first, second):
            skt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        first.bind(("127.0.0.1", 0))
        second.bind(first.getsockname())
        first.listen()
        with pytest.raises(OSError, match="in use"):
            listening(second.fileno(), 5)
