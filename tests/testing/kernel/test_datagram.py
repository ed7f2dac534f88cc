"""UDP in memory: scenes that are played on this machine's kernel, too, and what only memory can do."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from worlds import ERR, IN, OUT, Memory, World, fails, playing

from twisted_net.sansio.faults import Duplicate, Latency
from twisted_net.testing.network import MemoryNetwork

UDP4, UDP6, DATAGRAM = socket.AF_INET, socket.AF_INET6, socket.SOCK_DGRAM
SOCKET, IP, IPV6 = socket.SOL_SOCKET, socket.IPPROTO_IP, socket.IPPROTO_IPV6

LOOPBACK: dict[int, str] = {UDP4: "127.0.0.1", UDP6: "::1"}
LONGEST: dict[int, int] = {UDP4: 65_507, UDP6: 65_527}

families = pytest.mark.parametrize("family", [UDP4, UDP6], ids=["udp4", "udp6"])


@pytest.fixture(params=["kernel", "memory"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    with playing(request.param, tmp_path) as found:
        yield found


def bound(world: World, text: str = "127.0.0.1", port: int = 0, *options: int) -> Any:
    """A socket that is bound to that address."""
    skt = world.socket(UDP6 if ":" in text else UDP4, DATAGRAM)
    for option in options:
        skt.setsockopt(SOCKET, option, 1)
    skt.bind((text, port))
    return skt


def unbound(world: World, family: int = UDP4) -> Any:
    return world.socket(family, DATAGRAM)


# -- scenes on both kernels


@families
def test_datagrams(world: World, family: int) -> None:
    server, client = bound(world, LOOPBACK[family]), unbound(world, family)
    assert world.mask(client) == world.mask(server) == OUT
    fails(errno.EAGAIN, server.recv, 9)
    assert client.sendto(b"one", server.getsockname()) == 3
    assert client.sendto(b"", server.getsockname()) == 0
    assert client.sendto(b"three", 0, server.getsockname()) == 5
    world.until(server, IN | OUT)
    data, source = server.recvfrom(99)
    assert data == b"one"
    assert source[:2] == (LOOPBACK[family], client.getsockname()[1])
    assert server.recv(99) == b""
    assert server.recv(3, socket.MSG_PEEK) == b"thr"
    assert server.recv(3) == b"thr"  # what does not fit is lost
    assert world.mask(server) == OUT
    server.sendto(b"back", source)
    world.until(client, IN | OUT)
    assert client.recv(99) == b"back"


def test_noBytesAreNotReceived(world: World) -> None:
    server, client = bound(world), unbound(world)
    client.sendto(b"stays", server.getsockname())
    world.until(server, IN | OUT)
    assert server.recv(0) == b""
    assert server.recv(9) == b"stays"


@families
def test_theLongest(world: World, family: int) -> None:
    server, client = bound(world, LOOPBACK[family]), unbound(world, family)
    assert client.sendto(bytes(LONGEST[family]), server.getsockname()) == LONGEST[family]
    fails(errno.EMSGSIZE, client.sendto, bytes(LONGEST[family] + 1), server.getsockname())
    world.until(server, IN | OUT)
    assert len(server.recv(100_000)) == LONGEST[family]


def test_unconnected(world: World) -> None:
    skt = unbound(world)
    assert skt.getsockname() == ("0.0.0.0", 0)
    fails(errno.ENOTCONN, skt.getpeername)
    fails(errno.EDESTADDRREQ, skt.send, b"x")
    text, port = skt.getsockname()
    assert text == "0.0.0.0"
    assert port  # it was bound all the same
    fails(errno.EDESTADDRREQ, skt.send, b"x")


@families
def test_connected(world: World, family: int) -> None:
    server, stranger, client = bound(world, LOOPBACK[family]), bound(world, LOOPBACK[family]), unbound(world, family)
    client.connect(server.getsockname())
    assert client.getpeername() == server.getsockname()
    assert client.getsockname()[0] == LOOPBACK[family]
    assert client.send(b"x") == 1
    assert client.sendto(b"y", stranger.getsockname()) == 1
    stranger.sendto(b"not heard", client.getsockname())
    server.sendto(b"heard", client.getsockname())
    world.until(client, IN | OUT)
    assert client.recv(99) == b"heard"
    fails(errno.EAGAIN, client.recv, 99)
    client.connect(stranger.getsockname())
    stranger.sendto(b"heard now", client.getsockname())
    world.until(client, IN | OUT)
    assert client.recv(99) == b"heard now"


def test_connectedToAnyAddress(world: World) -> None:
    server, client = bound(world, "0.0.0.0"), unbound(world)
    client.connect(("0.0.0.0", server.getsockname()[1]))
    assert client.getpeername()[0] == client.getsockname()[0] == "127.0.0.1"


def test_sentToAnyAddress(world: World) -> None:
    server, elsewhere, client = bound(world), bound(world, "127.0.0.2"), unbound(world)
    client.sendto(b"x", ("0.0.0.0", server.getsockname()[1]))
    client.sendto(b"y", ("0.0.0.0", elsewhere.getsockname()[1]))
    world.until(server, IN | OUT)
    assert (server.recv(9), world.mask(elsewhere)) == (b"x", OUT)


def test_connectedToItself(world: World) -> None:
    skt = bound(world)
    skt.connect(skt.getsockname())
    skt.send(b"x")
    world.until(skt, IN | OUT)
    assert skt.recv(9) == b"x"


@families
def test_refused(world: World, family: int) -> None:
    server, client, loose = bound(world, LOOPBACK[family]), unbound(world, family), unbound(world, family)
    place = server.getsockname()
    client.connect(place)
    server.close()
    assert client.send(b"x") == 1
    world.until(client, OUT | ERR)
    fails(errno.ECONNREFUSED, client.send, b"x")
    assert world.mask(client) == OUT
    client.send(b"x")
    world.until(client, OUT | ERR)
    fails(errno.ECONNREFUSED, client.recv, 9)
    fails(errno.EAGAIN, client.recv, 9)
    client.send(b"x")
    world.until(client, OUT | ERR)
    fails(errno.ECONNREFUSED, client.sendto, b"x", place)
    client.send(b"x")
    world.until(client, OUT | ERR)
    assert client.getsockopt(SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED
    # Who is not connected is not told.
    assert loose.sendto(b"x", place) == 1
    assert loose.sendto(b"x", place) == 1
    assert world.mask(loose) == OUT


def test_placesThatAreNone(world: World) -> None:
    skt = unbound(world)
    fails(errno.EACCES, skt.sendto, b"x", ("255.255.255.255", 9))
    fails(errno.EINVAL, skt.sendto, b"x", ("127.0.0.1", 0))


def test_anOverflow(world: World) -> None:
    server, client = bound(world), unbound(world)
    server.setsockopt(SOCKET, socket.SO_RCVBUF, 4096)
    for _ in range(100):
        client.sendto(bytes(1000), server.getsockname())
    world.until(server, IN | OUT)
    count = 0
    while world.mask(server) & IN:
        count += len(server.recv(2000)) // 1000
    assert 0 < count < 10
    client.sendto(b"room again", server.getsockname())
    world.until(server, IN | OUT)
    assert server.recv(99) == b"room again"


def test_overBothFamilies(world: World) -> None:
    dual, client = bound(world, "::"), unbound(world)
    port = dual.getsockname()[1]
    client.sendto(b"question", ("127.0.0.1", port))
    world.until(dual, IN | OUT)
    data, source = dual.recvfrom(99)
    assert (data, source[0], len(source)) == (b"question", "::ffff:127.0.0.1", 4)
    dual.sendto(b"answer", source)
    world.until(client, IN | OUT)
    assert client.recvfrom(99) == (b"answer", ("127.0.0.1", port))


def test_notOverBothFamilies(world: World) -> None:
    six, client = unbound(world, UDP6), unbound(world)
    six.setsockopt(IPV6, socket.IPV6_V6ONLY, 1)
    six.bind(("::", 0))
    client.sendto(b"question", ("127.0.0.1", six.getsockname()[1]))
    assert world.mask(six) == OUT


def test_whoIsMoreParticular(world: World) -> None:
    """Who is connected hears before who is bound to the address, and that one before who is bound to all."""
    reuse = socket.SO_REUSEADDR
    everywhere, client = bound(world, "0.0.0.0", 0, reuse), bound(world)
    port = everywhere.getsockname()[1]
    here = bound(world, "127.0.0.1", port, reuse)
    client.sendto(b"one", ("127.0.0.1", port))
    client.sendto(b"two", ("127.0.0.2", port))
    world.until(here, IN | OUT)
    world.until(everywhere, IN | OUT)
    assert (here.recv(9), everywhere.recv(9)) == (b"one", b"two")
    last = bound(world, "127.0.0.1", port, reuse)
    client.sendto(b"three", ("127.0.0.1", port))
    world.until(last, IN | OUT)
    assert last.recv(9) == b"three"
    here.connect(client.getsockname())
    client.sendto(b"four", ("127.0.0.1", port))
    world.until(here, IN | OUT)
    assert here.recv(9) == b"four"
    bound(world).sendto(b"five", ("127.0.0.1", port))
    world.until(last, IN | OUT)
    assert (world.mask(here), last.recv(9)) == (OUT, b"five")


GROUP = "224.0.0.250"
MEMBER = socket.inet_aton(GROUP) + socket.inet_aton("127.0.0.1")


def speaker(world: World) -> Any:
    """A socket that speaks to groups on the loopback interface."""
    skt = unbound(world)
    skt.setsockopt(IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
    return skt


def test_aGroup(world: World) -> None:
    member, speaks = bound(world, "0.0.0.0", 0, socket.SO_REUSEADDR), speaker(world)
    port = member.getsockname()[1]
    other = bound(world, "0.0.0.0", port, socket.SO_REUSEADDR)
    particular = bound(world, "127.0.0.1", port, socket.SO_REUSEADDR)
    speaks.sendto(b"nobody has joined", (GROUP, port))
    member.setsockopt(IP, socket.IP_ADD_MEMBERSHIP, MEMBER)
    fails(errno.EADDRINUSE, member.setsockopt, IP, socket.IP_ADD_MEMBERSHIP, MEMBER)
    speaks.sendto(b"x", (GROUP, port))
    world.until(member, IN | OUT)
    data, source = member.recvfrom(9)
    assert (data, source[0]) == (b"x", "127.0.0.1")
    # As Linux has it, who is bound to every address hears what anybody on the host has joined.
    assert other.recv(9) == b"x"
    assert world.mask(particular) == OUT
    other.setsockopt(IP, 49, 0)  # IP_MULTICAST_ALL
    speaks.sendto(b"y", (GROUP, port))
    world.until(member, IN | OUT)
    assert (member.recv(9), world.mask(other)) == (b"y", OUT)
    # The loopback interface does not ask for IP_MULTICAST_LOOP, nor for a TTL.
    speaks.setsockopt(IP, socket.IP_MULTICAST_LOOP, 0)
    speaks.setsockopt(IP, socket.IP_MULTICAST_TTL, 0)
    speaks.sendto(b"z", (GROUP, port))
    world.until(member, IN | OUT)
    assert member.recv(9) == b"z"
    member.setsockopt(IP, socket.IP_DROP_MEMBERSHIP, MEMBER)
    fails(errno.EADDRNOTAVAIL, member.setsockopt, IP, socket.IP_DROP_MEMBERSHIP, MEMBER)


def test_noGroup(world: World) -> None:
    member = bound(world, "0.0.0.0")
    fails(errno.EINVAL, member.setsockopt, IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton("10.0.0.1") * 2)


def test_optionsOfGroups(world: World) -> None:
    skt = unbound(world)
    assert (skt.getsockopt(IP, socket.IP_MULTICAST_LOOP), skt.getsockopt(IP, socket.IP_MULTICAST_TTL)) == (1, 1)
    skt.setsockopt(IP, socket.IP_MULTICAST_TTL, b"\5")
    assert skt.getsockopt(IP, socket.IP_MULTICAST_TTL) == 5
    six = unbound(world, UDP6)
    assert six.getsockopt(IPV6, socket.IPV6_MULTICAST_LOOP) == 1


def test_closedSocketsKnowNothing(world: World) -> None:
    skt = bound(world)
    place = skt.getsockname()
    skt.close()
    for call, arguments in [
        (skt.bind, (place,)),
        (skt.connect, (place,)),
        (skt.getpeername, ()),
        (skt.recvfrom, (1,)),
        (skt.send, (b"x",)),
        (skt.sendto, (b"x", place)),
        (skt.setsockopt, (IP, socket.IP_ADD_MEMBERSHIP, MEMBER)),
    ]:
        fails(errno.EBADF, call, *arguments)


# -- what only memory can do


class Field:
    """Three hosts with a socket each, bound to the same port of every address."""

    def __init__(self, family: int = UDP4) -> None:
        self.network = MemoryNetwork()
        self.hosts = [self.network.host(name) for name in ("one", "two", "three")]
        self.sockets = [self._bound(host, family) for host in self.hosts]
        self.one, self.two, self.three = self.sockets
        self.places = [(host.addressOf(family), 7) for host in self.hosts]

    @staticmethod
    def _bound(host: Any, family: int) -> Any:
        skt = host.socket(family, DATAGRAM)
        skt.bind(("", 7))
        return skt

    def heard(self) -> list[bytes | None]:
        """What each has received; None for nothing."""
        self.network.advance(10)
        return [skt.recv(99) if skt.poll() & IN else None for skt in self.sockets]


def test_fromHostToHost() -> None:
    field = Field()
    field.one.sendto(b"x", field.places[1])
    assert field.two.recvfrom(9) == (b"x", field.places[0])
    fails(errno.ENETUNREACH, field.one.sendto, b"x", ("192.0.2.1", 7))


def test_broadcast() -> None:
    field = Field()
    field.one.setsockopt(SOCKET, socket.SO_BROADCAST, 1)
    field.one.sendto(b"x", ("<broadcast>", 7))
    assert field.heard() == [b"x", b"x", b"x"]
    sender: Any = field.hosts[0].socket(UDP4, DATAGRAM)
    sender.setsockopt(SOCKET, socket.SO_BROADCAST, 1)
    sender.connect(("255.255.255.255", 7))
    field.hosts[2].die()
    sender.send(b"y")
    assert field.two.recvfrom(9) == (b"y", (field.places[0][0], sender.getsockname()[1]))


def test_groupsBetweenHosts() -> None:
    field = Field()
    for skt in (field.one, field.two):
        skt.setsockopt(IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton(GROUP) * 2)
    field.one.sendto(b"x", (GROUP, 7))
    assert field.heard() == [b"x", b"x", None]
    field.one.setsockopt(IP, socket.IP_MULTICAST_LOOP, 0)
    field.one.sendto(b"y", (GROUP, 7))
    assert field.heard() == [None, b"y", None]
    field.one.setsockopt(IP, socket.IP_MULTICAST_LOOP, 1)
    field.one.setsockopt(IP, socket.IP_MULTICAST_TTL, 0)
    field.one.sendto(b"z", (GROUP, 7))
    assert field.heard() == [b"z", None, None]
    field.one.setsockopt(IP, socket.IP_MULTICAST_TTL, 1)
    field.one.setsockopt(IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
    field.one.sendto(b"inside", (GROUP, 7))
    assert field.heard() == [b"inside", None, None]


def test_groupsOfIpv6() -> None:
    field = Field(UDP6)
    field.two.setsockopt(IPV6, socket.IPV6_JOIN_GROUP, socket.inet_pton(UDP6, "ff02::7") + bytes(4))
    field.one.sendto(b"x", ("ff02::7", 7))
    assert field.heard() == [None, b"x", None]
    field.two.setsockopt(IPV6, socket.IPV6_LEAVE_GROUP, socket.inet_pton(UDP6, "ff02::7") + bytes(4))
    field.one.sendto(b"x", ("ff02::7", 7))
    assert field.heard() == [None, None, None]


def test_whoIsConnectedDoesNotHearTheGroup() -> None:
    field = Field()
    field.two.setsockopt(IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton(GROUP) * 2)
    field.two.connect(field.places[2])
    field.one.sendto(b"x", (GROUP, 7))
    assert field.heard() == [None, None, None]


def test_aRefusalThatComesTooLate() -> None:
    field = Field()
    field.two.close()
    field.network.link("one", "two").setFaults(Latency(1.0))
    field.one.connect(field.places[1])
    field.one.send(b"x")
    field.one.close()
    field.network.advance(5)
    assert not field.hosts[0].sockets()


def test_faultsAndCuts() -> None:
    field = Field()
    link = field.network.link("one", "two")
    link.setFaults(Duplicate(), Latency(1.0))
    field.one.sendto(b"x", field.places[1])
    assert field.heard()[1] == b"x"
    assert field.two.recv(9) == b"x"
    link.cut()
    field.one.sendto(b"lost", field.places[1])
    link.heal()
    assert field.heard() == [None, None, None]


def test_dropsAreCounted() -> None:
    world = Memory()
    server, client = bound(world), unbound(world)
    for _ in range(300):
        client.sendto(bytes(1000), server.getsockname())
    assert server.dropped == 300 - 212
    assert str(world.network.trace).count("  drop  ") == 88
    world.close()


def test_thereAreNoneOfUnix() -> None:
    host = MemoryNetwork().host("one")
    fails(errno.EAFNOSUPPORT, host.socket, socket.AF_UNIX, DATAGRAM)
    assert not host.sockets()
