"""Who is bound where: the same conflicts, paths and addresses as on this machine."""

from __future__ import annotations

import errno
import itertools
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st
from worlds import IN, OUT, Memory, World, fails, playing

from twisted_net.testing.kernel import ports as room
from twisted_net.testing.kernel.ports import address, isGroup, isLoopback, seenBy, unmapped
from twisted_net.testing.network import MemoryNetwork

TCP, TCP6, UNIX = socket.AF_INET, socket.AF_INET6, socket.AF_UNIX
STREAM, DATAGRAM = socket.SOCK_STREAM, socket.SOCK_DGRAM
SOCKET, ADDRESS, PORT = socket.SOL_SOCKET, socket.SO_REUSEADDR, socket.SO_REUSEPORT

TEXTS = ("127.0.0.1", "127.0.0.2", "0.0.0.0", "::1", "::", "::ffff:127.0.0.1")


@pytest.fixture(params=["kernel", "memory"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    with playing(request.param, tmp_path) as found:
        yield found


def made(world: World, text: str, kind: socket.SocketKind, options: tuple[int, ...], only6: bool) -> Any:
    skt = world.socket(TCP6 if ":" in text else TCP, kind)
    for option in options:
        skt.setsockopt(SOCKET, option, 1)
    if only6 and text == "::":
        skt.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    return skt


Case: TypeAlias = tuple[str, str, tuple[int, ...], tuple[int, ...], bool]

OPTIONS: tuple[tuple[int, ...], ...] = ((), (ADDRESS,), (PORT,))


def cases() -> Iterator[Case]:
    """Two addresses, the options of the sockets that want them, and whether ``"::"`` is IPv6 alone."""
    for one, other, mine, theirs, only6 in itertools.product(TEXTS, TEXTS, OPTIONS, OPTIONS, (False, True)):
        if not only6 or "::" in (one, other):
            yield one, other, mine, theirs, only6


def conflict(world: World, kind: socket.SocketKind, listens: bool, case: Case) -> str:
    """What two sockets hear that want the same port."""
    one, other, mine, theirs, only6 = case
    with made(world, one, kind, mine, only6) as first, made(world, other, kind, theirs, only6) as second:
        first.bind((one, 0))
        if listens:
            first.listen(1)
        try:
            second.bind((other, first.getsockname()[1]))
        except OSError as error:
            return f"bind: {errno.errorcode[error.errno or 0]}"
        try:
            for skt in (second, first) if kind == STREAM else ():
                skt.listen(1)
        except OSError as error:
            return f"listen: {errno.errorcode[error.errno or 0]}"
    return "nothing"


@pytest.mark.parametrize(
    ("kind", "listens"),
    [(STREAM, False), (STREAM, True), (DATAGRAM, False)],
    ids=["bound", "listening", "udp"],
)
def test_conflicts(tmp_path: Path, kind: socket.SocketKind, listens: bool) -> None:
    told = set()
    with playing("kernel", tmp_path) as kernel, playing("memory", tmp_path) as memory:
        for case in cases():
            found = conflict(memory, kind, listens, case)
            # Another program may have the same port at the second address: then another port tells the truth.
            real = [conflict(kernel, kind, listens, case)]
            while real[-1] != found and len(real) < 4:
                real.append(conflict(kernel, kind, listens, case))
            assert (case, found) == (case, real[-1])
            told.add(found)
    assert len(told) > 1


# -- scenes on both kernels


def test_addressesOfOthers(world: World) -> None:
    skt = world.socket(TCP)
    fails(errno.EADDRNOTAVAIL, skt.bind, ("192.0.2.77", 0))
    with pytest.raises(OverflowError, match="port must be 0-65535"):
        skt.bind(("127.0.0.1", 70_000))
    skt.bind(("127.0.0.1", 0))
    fails(errno.EINVAL, skt.bind, ("127.0.0.1", 0))


def test_anyAddress(world: World) -> None:
    skt = world.socket(TCP)
    skt.bind(("", 0))
    assert skt.getsockname()[0] == "0.0.0.0"


def test_aPortIsFreeAgain(world: World) -> None:
    skt = world.socket(TCP)
    skt.bind(("127.0.0.1", 0))
    place = skt.getsockname()
    skt.close()
    again = world.socket(TCP)
    again.bind(place)
    assert again.getsockname() == place


def test_clientsHavePorts(world: World) -> None:
    listener = world.listening(TCP)
    client, _ = world.connect(listener)
    fails(errno.EADDRINUSE, world.socket(TCP).bind, client.getsockname())


@pytest.mark.parametrize(
    ("listens", "family", "asked", "seen", "peer"),
    [
        ("::", TCP, "127.0.0.1", "::ffff:127.0.0.1", "127.0.0.1"),
        ("::", TCP6, "::1", "::1", "::1"),
        ("::", TCP6, "::ffff:127.0.0.1", "::ffff:127.0.0.1", "::ffff:127.0.0.1"),
        ("127.0.0.1", TCP6, "::ffff:127.0.0.1", "127.0.0.1", "::ffff:127.0.0.1"),
        ("0.0.0.0", TCP, "0.0.0.0", "127.0.0.1", "127.0.0.1"),
    ],
)
def test_whatEachSeesOfTheOther(
    world: World, listens: str, family: socket.AddressFamily, asked: str, seen: str, peer: str
) -> None:
    listener = world.socket(TCP6 if ":" in listens else TCP)
    listener.bind((listens, 0))
    listener.listen(1)
    client = world.socket(family)
    client.connect_ex((asked, listener.getsockname()[1]))
    world.until(client, OUT)
    server = world.accept(listener)
    assert (server.getpeername()[0], server.getsockname()[0]) == (seen, seen)
    assert (client.getpeername()[0], client.getsockname()[0]) == (peer, peer)


def test_whoListensAtTheAddressComesFirst(world: World) -> None:
    everywhere, here = world.socket(TCP), world.socket(TCP)
    for skt in (everywhere, here):
        skt.setsockopt(SOCKET, PORT, 1)
    everywhere.bind(("0.0.0.0", 0))
    here.bind(("127.0.0.1", everywhere.getsockname()[1]))
    everywhere.listen(1)
    client = world.socket(TCP)
    client.connect_ex(here.getsockname())  # which does not listen yet
    world.until(everywhere, IN)
    here.listen(1)
    world.socket(TCP).connect_ex(here.getsockname())
    world.until(here, IN)


def test_whoeverIsMoreParticularHears(world: World) -> None:
    client, everywhere = world.socket(TCP, DATAGRAM), world.socket(TCP, DATAGRAM)
    everywhere.setsockopt(SOCKET, ADDRESS, 1)
    everywhere.bind(("0.0.0.0", 0))
    place = ("127.0.0.1", everywhere.getsockname()[1])
    client.sendto(b"x", place)
    world.until(everywhere, IN | OUT)
    first, last = world.socket(TCP, DATAGRAM), world.socket(TCP, DATAGRAM)
    for skt in (first, last):
        skt.setsockopt(SOCKET, ADDRESS, 1)
        skt.bind(place)
    client.sendto(b"x", place)
    world.until(last, IN | OUT)
    first.connect(("127.0.0.1", client.getsockname()[1]))
    client.sendto(b"x", place)
    world.until(first, IN | OUT)
    assert [len(skt.recv(9)) for skt in (everywhere, first, last)] == [1, 1, 1]


def test_paths(world: World) -> None:
    path = world.path("server")
    first, second = world.socket(UNIX), world.socket(UNIX)
    first.bind(path)
    fails(errno.EADDRINUSE, first.bind, path)
    fails(errno.EINVAL, first.bind, world.path("other"))
    fails(errno.EADDRINUSE, second.bind, path)
    first.close()
    fails(errno.EADDRINUSE, second.bind, path)  # the path stays
    world.unlink(path)
    second.bind(path)
    assert second.getsockname() == path
    with pytest.raises(FileNotFoundError):
        world.unlink(world.path("nothing"))


def test_abstractNames(world: World) -> None:
    first, second = world.socket(UNIX), world.socket(UNIX)
    first.bind("")  # of the kernel's choice
    name = first.getsockname()
    assert isinstance(name, bytes)
    assert (name[:1], len(name)) == (b"\0", 6)
    first.listen(1)
    client = world.socket(UNIX)
    client.connect(name)
    assert client.getpeername() == name
    fails(errno.EADDRINUSE, second.bind, name)
    first.close()
    second.bind(name)


# -- what is so in memory alone


def test_ephemeralPorts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "EPHEMERAL", range(50_000, 50_003))
    world = Memory()
    skts = [world.socket(TCP) for _ in range(4)]
    for skt in skts[:3]:
        skt.bind(("127.0.0.1", 0))
    assert [skt.getsockname()[1] for skt in skts[:3]] == [50_000, 50_001, 50_002]
    fails(errno.EADDRINUSE, skts[3].bind, ("127.0.0.1", 0))
    skts[1].close()
    skts[3].bind(("127.0.0.1", 0))
    assert skts[3].getsockname()[1] == 50_001
    world.close()


def test_ofSeveralListenersEachInTurn() -> None:
    world = Memory()
    listeners = [world.socket(TCP) for _ in range(2)]
    for skt in listeners:
        skt.setsockopt(SOCKET, PORT, 1)
        skt.bind(("127.0.0.1", 80))
        skt.listen(9)
    for _ in range(4):
        world.socket(TCP).connect_ex(("127.0.0.1", 80))
    assert [len(skt.pending) for skt in listeners] == [2, 2]
    world.close()


def test_hostsHavePortsOfTheirOwn() -> None:
    network = MemoryNetwork()
    for name in ("one", "two"):
        skt: Any = network.host(name).socket(TCP, STREAM)
        skt.bind((network.host(name).addresses[0], 80))
    other: Any = network.host("one").socket(TCP, STREAM)
    there = network.host("two").addresses[0]
    fails(errno.EADDRNOTAVAIL, other.bind, (there, 81))
    other.connect_ex((there, 80))
    assert other.getsockname()[0] == network.host("one").addresses[0]
    mapped: Any = network.host("one").socket(TCP6, STREAM)
    mapped.connect_ex((f"::ffff:{there}", 80))
    assert mapped.getsockname()[0] == f"::ffff:{network.host('one').addresses[0]}"


def test_leavingTwice() -> None:
    world = Memory()
    skt, other = world.socket(TCP), world.socket(TCP)
    skt.bind(("127.0.0.1", 80))
    skt.close()
    world.host.ports.leave(skt)
    other.bind(("127.0.0.1", 80))
    world.host.ports.leave(skt)
    fails(errno.EADDRINUSE, world.socket(TCP).bind, ("127.0.0.1", 80))
    world.close()


@pytest.mark.parametrize(
    ("family", "text", "canonical"),
    [
        (TCP, "", "0.0.0.0"),
        (TCP6, "", "::"),
        (TCP, "<any>", "0.0.0.0"),
        (TCP, "<broadcast>", "255.255.255.255"),
        (TCP, "10.0.0.7", "10.0.0.7"),
        (TCP6, "FD00:0:0::7", "fd00::7"),
        (TCP6, "fe80::1%eth0", "fe80::1"),
    ],
)
def test_addresses(family: int, text: str, canonical: str) -> None:
    assert address(family, text) == canonical


@given(st.ip_addresses())
def test_anyAddressIsCanonical(given: Any) -> None:
    family = TCP if given.version == 4 else TCP6
    assert address(family, address(family, str(given))) == address(family, given.exploded)
    assert isGroup(address(family, str(given))) == given.is_multicast


@pytest.mark.parametrize(("family", "text"), [(TCP, "nonsense"), (TCP, "::1"), (TCP6, "10.0.0.7")])
def test_noAddresses(family: int, text: str) -> None:
    fails(errno.EINVAL, address, family, text)


def test_formsOfAddresses() -> None:
    assert isLoopback("127.3.4.5")
    assert isLoopback("::1")
    assert not isLoopback("10.0.0.1")
    assert unmapped("::ffff:10.0.0.1") == "10.0.0.1"
    assert unmapped("::ffff:0") == "::ffff:0"
    assert seenBy(TCP6, ("10.0.0.1", 7)) == ("::ffff:10.0.0.1", 7, 0, 0)
    assert seenBy(TCP6, ("fd00::1", 7, 0, 0)) == ("fd00::1", 7, 0, 0)
    assert seenBy(TCP, ("::ffff:10.0.0.1", 7, 0, 0)) == ("10.0.0.1", 7)
