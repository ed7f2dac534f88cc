"""What all sockets in memory share: options as on this machine, descriptors, readiness."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from worlds import ERR, HUP, IN, OUT, World, fails, linger, playing
from zope.interface.verify import verifyObject

from twisted_net.interfaces import ISimulatedSocket
from twisted_net.testing.host import FIRST_DESCRIPTOR, Host
from twisted_net.testing.kernel.sockets import Socket
from twisted_net.testing.network import MemoryNetwork

TCP, TCP6, UNIX = socket.AF_INET, socket.AF_INET6, socket.AF_UNIX
STREAM, DATAGRAM, SOCKET = socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOL_SOCKET


@pytest.fixture(params=["kernel", "memory"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    with playing(request.param, tmp_path) as found:
        yield found


@pytest.fixture
def host() -> Host:
    return MemoryNetwork().host("one")


# -- scenes on both kernels


@pytest.mark.parametrize(
    ("family", "kind"),
    [(TCP, STREAM), (TCP6, STREAM), (UNIX, STREAM), (TCP, DATAGRAM), (TCP6, DATAGRAM)],
)
def test_whatItIs(world: World, family: int, kind: socket.SocketKind) -> None:
    skt = world.socket(family, kind)
    assert (skt.family, skt.type, skt.proto, skt.gettimeout()) == (family, kind, 0, 0.0)
    assert skt.getsockopt(SOCKET, socket.SO_TYPE) == kind
    assert skt.getsockopt(SOCKET, socket.SO_DOMAIN) == family
    assert skt.getsockopt(SOCKET, socket.SO_ACCEPTCONN) == 0
    assert skt.getsockopt(SOCKET, socket.SO_ERROR) == 0


@pytest.mark.parametrize(
    ("level", "option", "default", "value"),
    [
        (SOCKET, socket.SO_KEEPALIVE, 0, 1),
        (SOCKET, socket.SO_REUSEADDR, 0, 1),
        (SOCKET, socket.SO_REUSEPORT, 0, 1),
        (SOCKET, socket.SO_BROADCAST, 0, 1),
        (socket.IPPROTO_TCP, socket.TCP_NODELAY, 0, 1),
        (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 7200, 60),
        (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 75, 10),
        (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 9, 3),
        (socket.IPPROTO_IP, socket.IP_TTL, 64, 3),
    ],
)
def test_options(world: World, level: int, option: int, default: int, value: int) -> None:
    skt = world.socket(TCP)
    assert skt.getsockopt(level, option) == default
    skt.setsockopt(level, option, value)
    assert skt.getsockopt(level, option) == value
    assert skt.getsockopt(level, option, 4) == struct.pack("i", value)


def test_lingering(world: World) -> None:
    skt = world.socket(TCP)
    assert skt.getsockopt(SOCKET, socket.SO_LINGER, 8) == bytes(8)
    skt.setsockopt(SOCKET, socket.SO_LINGER, linger(3))
    assert skt.getsockopt(SOCKET, socket.SO_LINGER, 8) == linger(3)
    assert skt.getsockopt(SOCKET, socket.SO_LINGER) == 1


@pytest.mark.parametrize(("option", "least"), [(socket.SO_RCVBUF, 2304), (socket.SO_SNDBUF, 4608)])
@pytest.mark.parametrize("kind", [STREAM, DATAGRAM])
def test_buffers(world: World, kind: socket.SocketKind, option: int, least: int) -> None:
    """The kernel takes twice what it is asked for, and no less than it needs."""
    skt = world.socket(TCP, kind)
    assert skt.getsockopt(SOCKET, option) > least
    skt.setsockopt(SOCKET, option, 10_000)
    assert skt.getsockopt(SOCKET, option) == 20_000
    skt.setsockopt(SOCKET, option, 1)
    assert skt.getsockopt(SOCKET, option) == least


@pytest.mark.parametrize("option", [socket.SO_ERROR, socket.SO_TYPE, socket.SO_DOMAIN, socket.SO_ACCEPTCONN])
def test_optionsThatCanOnlyBeRead(world: World, option: int) -> None:
    fails(errno.ENOPROTOOPT, world.socket(TCP).setsockopt, SOCKET, option, 1)


@pytest.mark.parametrize(
    ("family", "kind", "place"),
    [
        (TCP, STREAM, ("0.0.0.0", 0)),
        (TCP6, STREAM, ("::", 0, 0, 0)),
        (UNIX, STREAM, ""),
        (TCP, DATAGRAM, ("0.0.0.0", 0)),
    ],
)
def test_boundNowhere(world: World, family: int, kind: socket.SocketKind, place: Any) -> None:
    assert world.socket(family, kind).getsockname() == place


def test_closing(world: World) -> None:
    with world.socket(TCP) as skt:
        assert skt.fileno() >= 0
    assert skt.fileno() == -1
    skt.close()
    fails(errno.EBADF, skt.getsockname)
    fails(errno.EBADF, skt.getsockopt, SOCKET, socket.SO_ERROR)
    fails(errno.EBADF, skt.setsockopt, SOCKET, socket.SO_KEEPALIVE, 1)


# -- what is so in memory alone


def test_itIsASimulatedSocket(host: Host) -> None:
    for skt in (host.socket(TCP, STREAM), host.socket(TCP, DATAGRAM)):
        verifyObject(ISimulatedSocket, skt)


def test_theNumberIsNoneOfThisProcess(host: Host) -> None:
    skt = host.socket(TCP, STREAM)
    assert skt.fileno() > FIRST_DESCRIPTOR
    with pytest.raises(OSError, match="Bad file descriptor"):
        socket.socket(fileno=skt.fileno())


def test_itNeverBlocks(host: Host) -> None:
    skt = host.socket(TCP, STREAM)
    skt.setblocking(False)
    with pytest.raises(NotImplementedError, match="leave it non-blocking"):
        skt.setblocking(True)


def test_descriptorsThatAreLeft(host: Host) -> None:
    host.descriptorLimit = 3
    skt = host.socket(TCP, STREAM)
    before = skt.descriptorsLeft()
    host.socket(TCP, STREAM).close()
    assert skt.descriptorsLeft() == before
    host.socket(TCP, STREAM)
    assert skt.descriptorsLeft() == before - 1


def test_itsText(host: Host) -> None:
    skt: Any = host.socket(TCP, STREAM)
    skt.bind(("127.0.0.1", 80))
    assert repr(skt) == f"<StreamSocket {skt.fileno()} one:80>"
    skt.close()
    assert repr(skt).endswith(" one:80, closed>")


def test_kindsHaveToSayTheirPart(host: Host) -> None:
    class Nothing(Socket):
        kind = STREAM

    skt = Nothing(host, TCP)
    with pytest.raises(NotImplementedError):
        skt.poll()
    with pytest.raises(NotImplementedError):
        skt.release()


class Kind(Socket):
    """A socket whose readiness a test sets."""

    kind = STREAM
    mask = 0

    def poll(self) -> int:
        return self.mask

    def release(self) -> None:
        self.mask = 0


@pytest.mark.parametrize(
    ("reads", "writes", "mask", "due"),
    [
        (True, False, IN, True),
        (True, False, OUT, False),
        (True, False, ERR, True),
        (True, False, HUP, True),
        (False, True, OUT, True),
        (False, True, IN, False),
        (False, True, HUP, True),
        (True, True, OUT, True),
        (True, True, 0, False),
        (False, False, IN | OUT | ERR | HUP, False),
    ],
)
def test_whoIsDue(host: Host, reads: bool, writes: bool, mask: int, due: bool) -> None:
    skt = Kind(host, TCP)
    skt.mask = mask
    skt.reader = object() if reads else None
    skt.writer = object() if writes else None
    skt.wake()
    skt.wake()
    assert list(host.ready) == ([skt] if due else [])


def test_errorsAreToldOnce(host: Host) -> None:
    skt = Kind(host, TCP)
    skt.raiseError()
    skt.error = errno.ECONNRESET
    with pytest.raises(ConnectionResetError):
        skt.raiseError()
    skt.raiseError()
    skt.error = errno.EPIPE
    assert (skt.takeError(), skt.takeError()) == (errno.EPIPE, 0)


def test_closedOrGone(host: Host) -> None:
    skt = Kind(host, TCP)
    skt.reader = skt.writer = object()
    skt.close()
    assert (skt.reader, skt.writer, host.sockets()) == (None, None, [])
    other = Kind(host, TCP)
    other.mask = IN
    other.vanish()
    assert (other.closed, other.mask) == (True, IN)  # its end was told to nobody
