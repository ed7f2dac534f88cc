"""A computer in memory: addresses, descriptors, calls that fail, and its own end."""

from __future__ import annotations

import errno
import socket
from typing import Any

import pytest
from worlds import IN, Memory, fails

from twisted_net.errors import OptionError
from twisted_net.testing.host import FIRST_DESCRIPTOR, Host
from twisted_net.testing.network import MemoryNetwork

TCP, TCP6, STREAM, DATAGRAM = socket.AF_INET, socket.AF_INET6, socket.SOCK_STREAM, socket.SOCK_DGRAM


@pytest.fixture
def network() -> MemoryNetwork:
    return MemoryNetwork()


@pytest.fixture
def host(network: MemoryNetwork) -> Host:
    return network.host("one")


def stream(host: Host) -> Any:
    return host.socket(TCP, STREAM)


# -- addresses


def test_itsAddresses(network: MemoryNetwork) -> None:
    host = network.host("db", "10.1.2.3", "FD00::0:7")
    assert host.addresses == ("10.1.2.3", "fd00::7")
    assert host.reactor.host is host
    assert repr(host) == "<Host db 10.1.2.3 fd00::7>"
    assert all(host.has(text) for text in ("10.1.2.3", "fd00::7", "127.0.0.1", "127.9.9.9", "::1"))
    assert not host.has("10.1.2.4")
    assert host.address == host.addressOf(TCP) == "10.1.2.3"
    assert host.addressOf(TCP6) == "fd00::7"
    fails(errno.EADDRNOTAVAIL, network.host("only4", "10.1.2.4").addressOf, TCP6)


def test_addressesThatAreNone(network: MemoryNetwork) -> None:
    with pytest.raises(OptionError, match="each must be an IP address, such as"):
        network.host("one", "nonsense")


def test_whatSocketsAreCalled(host: Host) -> None:
    assert host.labelOf(("0.0.0.0", 80)) == "one:80"
    assert host.labelOf("/run/server") == "one:/run/server"
    assert host.labelOf(b"\0abc") == "one:@abc"


# -- descriptors


def test_descriptors(host: Host) -> None:
    first, second = stream(host), host.socket(TCP, DATAGRAM)
    assert host.sockets() == [first, second]
    assert list(host.streams()) == [first]
    assert host.descriptor(first.fileno()) is first
    number = first.fileno()
    assert number > FIRST_DESCRIPTOR
    first.close()
    fails(errno.EBADF, host.descriptor, number)
    assert host.hasDescriptor(number)
    assert not host.hasDescriptor(number + 100)
    assert not host.hasDescriptor(FIRST_DESCRIPTOR)
    assert host.sockets() == [second]


def test_theTableOfDescriptorsIsFull(host: Host) -> None:
    host.descriptorLimit = host.descriptorLimit - host.descriptorsLeft() + 1
    skt = stream(host)
    assert host.descriptorsLeft() == 0
    fails(errno.EMFILE, host.socket, TCP, STREAM)
    skt.close()
    stream(host)


def test_whoCannotBeAcceptedWaits() -> None:
    world = Memory()
    listener = world.listening(TCP)
    client = world.socket(TCP)
    client.connect_ex(listener.getsockname())
    world.host.descriptorLimit -= world.host.descriptorsLeft()
    fails(errno.EMFILE, listener.accept)
    assert listener.poll() == IN
    world.host.descriptorLimit += 1
    listener.accept()[0].close()
    world.close()


# -- calls that fail


def test_callsThatFail(host: Host) -> None:
    skt = stream(host)
    for call, code in [("bind", "EADDRINUSE"), ("listen", "EADDRINUSE"), ("accept", "EMFILE"), ("socket", "ENFILE")]:
        host.failing(call, code, 2)
    place = ("127.0.0.1", 80)
    for _ in range(2):
        fails(errno.EADDRINUSE, skt.bind, place)
    skt.bind(place)
    for _ in range(2):
        fails(errno.EADDRINUSE, skt.listen)
    skt.listen()
    for _ in range(2):
        fails(errno.EMFILE, skt.accept)
    fails(errno.EAGAIN, skt.accept)
    for _ in range(2):
        fails(errno.ENFILE, stream, host)
    host.failing("connect", "ENETUNREACH")
    client = stream(host)
    assert client.connect_ex(place) == errno.ENETUNREACH
    assert client.connect_ex(place) == errno.EINPROGRESS


def test_onePortFails(host: Host) -> None:
    host.failing("bind:80", "EADDRINUSE")
    skt = stream(host)
    other = stream(host)
    other.bind(("127.0.0.1", 81))
    fails(errno.EADDRINUSE, skt.bind, ("127.0.0.1", 80))
    skt.bind(("127.0.0.1", 80))


def test_callsThatAreNone(host: Host) -> None:
    with pytest.raises(OptionError, match="call is 'write'; it must be one of accept, bind, connect, listen, socket"):
        host.failing("write", "EPIPE")
    with pytest.raises(OptionError, match="code is 'EFOO'; it must be the name of an errno, such as"):
        host.failing("bind", "EFOO")


# -- its own end


def test_frozen(network: MemoryNetwork, host: Host) -> None:
    ran: list[float] = []
    host.reactor.callLater(1, lambda: ran.append(network.now))
    host.freeze()
    network.advance(5)
    assert ran == []
    host.thaw()
    network.advance(0)
    assert ran == [5.0]


def test_deadHostsAreSilent(network: MemoryNetwork, host: Host) -> None:
    ran: list[float] = []
    other = network.host("two")
    listener = stream(other)
    listener.bind(("0.0.0.0", 80))
    listener.listen()
    client = stream(host)
    client.connect_ex((other.addresses[0], 80))
    network.advance(0)
    server = listener.accept()[0]
    host.reactor.callLater(1, lambda: ran.append(network.now))
    host.die()
    network.advance(2000)
    assert (ran, host.sockets(), client.closed) == ([], [], True)
    fails(errno.EAGAIN, server.recv, 1)  # nobody was told
    server.send(b"x")
    network.advance(2000)
    fails(errno.ETIMEDOUT, server.recv, 1)
