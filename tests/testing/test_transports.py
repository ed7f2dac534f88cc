"""Twisted's own transports on sockets in memory."""

from __future__ import annotations

import errno
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from logs import LoggedErrors
from pairs import Side
from twisted.internet import tcp
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.endpoints import TCP6ClientEndpoint, connectProtocol
from twisted.internet.error import (
    CannotListenError,
    ConnectError,
    ConnectionDone,
    ConnectionLost,
    ConnectionRefusedError,
)
from twisted.internet.interfaces import IListeningPort, ITCPTransport
from twisted.internet.protocol import ClientFactory, DatagramProtocol, Factory, ServerFactory
from zope.interface.verify import verifyObject

from twisted_net.testing.network import MemoryNetwork


@pytest.fixture
def network() -> MemoryNetwork:
    return MemoryNetwork()


class Ends(ServerFactory, ClientFactory):
    """Makes a `Side` for each connection, and keeps them."""

    def __init__(self) -> None:
        self.sides: list[Side] = []
        self.addresses: list[Any] = []
        self.failure: Any = None

    def buildProtocol(self, addr: Any) -> Any:
        self.addresses.append(addr)
        side = Side()
        self.sides.append(side)
        return side

    def clientConnectionFailed(self, connector: Any, reason: Any) -> None:
        self.failure = reason


class Nobody(Factory):
    """Wants no connection."""

    def buildProtocol(self, addr: Any) -> None:
        return None


Listen = Callable[[Any, Any], Any]

KINDS: dict[str, tuple[Listen, Listen]] = {
    "tcp": (lambda r, f: r.listenTCP(80, f), lambda r, f: r.connectTCP("127.0.0.1", 80, f)),
    "tcp6": (lambda r, f: r.listenTCP(80, f, interface="::"), lambda r, f: r.connectTCP("::1", 80, f)),
    "unix": (lambda r, f: r.listenUNIX("/run/server", f), lambda r, f: r.connectUNIX("/run/server", f)),
}

kinds = pytest.mark.parametrize("kind", KINDS)


class Scene:
    """A port, and a client that is connected to it."""

    def __init__(self, network: MemoryNetwork, kind: str) -> None:
        self.network = network
        self.clients, self.servers = Ends(), Ends()
        listen, connect = KINDS[kind]
        self.port = listen(network.reactor, self.servers)
        self.connector = connect(network.reactor, self.clients)
        network.settle()
        [self.client], [self.server] = self.clients.sides, self.servers.sides

    def end(self) -> None:
        for side in (self.client, self.server):
            side.transport.abortConnection()
        self.port.stopListening()
        self.network.close()


@kinds
def test_bytesAndTheEnd(network: MemoryNetwork, kind: str) -> None:
    scene = Scene(network, kind)
    verifyObject(IListeningPort, scene.port)
    scene.client.transport.write(b"question")
    network.settle()
    assert scene.server.received == b"question"
    scene.server.transport.write(b"answer")
    scene.server.transport.loseConnection()
    network.settle()
    assert scene.client.received == b"answer"
    assert scene.client.events[-1] == "readEnd"
    scene.client.transport.loseConnection()
    network.settle()
    assert scene.client.events[-1] == scene.server.events[-1] == "lost"
    for side in (scene.client, scene.server):
        assert side.reason is not None
        assert side.reason.check(ConnectionDone, ConnectionLost if kind == "unix" else ConnectionDone)
    scene.end()


@pytest.mark.parametrize("kind", ["tcp", "tcp6"])
def test_halfClosed(network: MemoryNetwork, kind: str) -> None:
    scene = Scene(network, kind)
    verifyObject(ITCPTransport, scene.client.transport)
    scene.client.transport.loseWriteConnection()
    network.settle()
    assert (scene.client.events[-1], scene.server.events[-1]) == ("writeEnd", "readEnd")
    scene.server.transport.write(b"answer")
    network.settle()
    assert scene.client.received == b"answer"
    scene.end()


@kinds
def test_aborted(network: MemoryNetwork, kind: str) -> None:
    scene = Scene(network, kind)
    scene.client.transport.abortConnection()
    network.settle()
    if kind == "unix":  # it knows no RST
        assert scene.server.events[-1] == "readEnd"
    else:
        assert scene.server.reason is not None
        assert scene.server.reason.check(ConnectionLost)
    scene.end()


def test_addresses(network: MemoryNetwork) -> None:
    scene = Scene(network, "tcp")
    server, client = scene.client.transport.getPeer(), scene.client.transport.getHost()
    assert server == IPv4Address("TCP", "127.0.0.1", 80) == scene.server.transport.getHost()
    assert scene.servers.addresses == [client]
    assert scene.server.transport.getPeer() == client
    assert scene.port.getHost() == IPv4Address("TCP", "0.0.0.0", 80)
    scene.end()


def test_addressesOfIpv6(network: MemoryNetwork) -> None:
    scene = Scene(network, "tcp6")
    assert scene.client.transport.getPeer() == IPv6Address("TCP", "::1", 80)
    assert scene.servers.addresses == [scene.client.transport.getHost()]
    scene.end()


def test_addressesOfUnix(network: MemoryNetwork) -> None:
    scene = Scene(network, "unix")
    assert scene.client.transport.getPeer() == UNIXAddress("/run/server") == scene.port.getHost()
    scene.end()


def test_noDelayAndKeepAlive(network: MemoryNetwork) -> None:
    scene = Scene(network, "tcp")
    transport = scene.client.transport
    transport.setTcpNoDelay(True)
    transport.setTcpKeepAlive(True)
    assert (transport.getTcpNoDelay(), transport.getTcpKeepAlive()) == (True, True)
    scene.end()


@kinds
def test_nobodyIsWanted(network: MemoryNetwork, kind: str) -> None:
    clients = Ends()
    listen, connect = KINDS[kind]
    port = listen(network.reactor, Nobody())
    connect(network.reactor, clients)
    network.settle()
    assert clients.sides[0].events == ["made", "readEnd"] or clients.sides[0].events[-1] == "lost"
    clients.sides[0].transport.abortConnection()
    port.stopListening()
    network.close()


@kinds
def test_aFactoryThatRaises(network: MemoryNetwork, kind: str, loggedErrors: LoggedErrors) -> None:
    class Broken(Factory):
        def buildProtocol(self, addr: Any) -> None:
            raise ZeroDivisionError

    clients = Ends()
    listen, connect = KINDS[kind]
    port = listen(network.reactor, Broken())
    connect(network.reactor, clients)
    network.settle()
    assert len(loggedErrors.flush(ZeroDivisionError)) == 1
    port.stopListening()
    clients.sides[0].transport.abortConnection()
    network.shut()


@kinds
def test_refused(network: MemoryNetwork, kind: str) -> None:
    clients = Ends()
    KINDS[kind][1](network.reactor, clients)
    network.settle()
    assert clients.failure.check(ConnectError)
    if kind != "unix":
        assert clients.failure.check(ConnectionRefusedError)
    network.close()


@kinds
def test_twoPorts(network: MemoryNetwork, kind: str) -> None:
    listen = KINDS[kind][0]
    port = listen(network.reactor, Ends())
    with pytest.raises(CannotListenError) as caught:
        listen(network.reactor, Ends())
    assert caught.value.socketError.errno == errno.EADDRINUSE
    port.stopListening()
    network.settle()
    listen(network.reactor, Ends()).stopListening()
    network.close()


@pytest.mark.skipif(not hasattr(tcp, "makeBinding"), reason="Twisted has no bindings yet")
def test_portsThatShareAnAddress(network: MemoryNetwork) -> None:
    binding = tcp.makeBinding("127.0.0.1", 80, reusePort=True)
    factories = [Ends(), Ends()]
    ports: list[Any] = [network.reactor.listenTCP(binding, factory) for factory in factories]
    clients = Ends()
    for _ in range(2):
        network.reactor.connectTCP("127.0.0.1", 80, clients)
    network.settle()
    assert [len(factory.sides) for factory in factories] == [1, 1]
    for side in (*clients.sides, *factories[0].sides, *factories[1].sides):
        side.transport.abortConnection()
    for port in ports:
        port.stopListening()
    network.close()


def test_aUdpPortThatIsTaken(network: MemoryNetwork) -> None:
    port: Any = network.reactor.listenUDP(7, DatagramProtocol())
    with pytest.raises(CannotListenError):
        network.reactor.listenUDP(7, DatagramProtocol())
    port.stopListening()
    network.close()


@kinds
def test_noSocketToListenOn(network: MemoryNetwork, kind: str) -> None:
    network.host("localhost").failing("socket", "EMFILE")
    with pytest.raises(CannotListenError) as caught:
        KINDS[kind][0](network.reactor, Ends())
    assert caught.value.socketError.errno == errno.EMFILE
    assert not network.host("localhost").sockets()


def test_noDescriptorForAClient(network: MemoryNetwork) -> None:
    """Twisted gives up a spare descriptor to turn the client away."""
    scene = Scene(network, "tcp")
    host = network.host("localhost")
    clients = Ends()
    host.failing("accept", "EMFILE", 1)
    network.reactor.connectTCP("127.0.0.1", 80, clients)
    network.settle()
    assert clients.sides[0].events[0] == "made"
    clients.sides[0].transport.abortConnection()
    network.settle()
    scene.end()


def test_multicast(network: MemoryNetwork) -> None:
    heard: list[Any] = []

    class Member(DatagramProtocol):
        transport: Any

        def startProtocol(self) -> None:
            self.transport.joinGroup("224.0.0.7")

        def datagramReceived(self, datagram: bytes, addr: Any) -> None:
            heard.append((self.transport, datagram))

    one, two = network.host("one").reactor, network.host("two").reactor
    ports: list[Any] = [
        one.listenMulticast(7, Member(), listenMultiple=True),
        one.listenMulticast(7, Member(), listenMultiple=True),
        two.listenMulticast(7, Member()),
    ]
    network.settle()
    ports[0].write(b"x", ("224.0.0.7", 7))
    network.settle()
    assert sorted(ports.index(port) for port, _ in heard) == [0, 1, 2]
    for port in ports:
        port.stopListening()
    network.close()


# -- sockets that somebody else has made


def bound(network: MemoryNetwork, family: int, place: Any) -> Any:
    skt: Any = network.reactor.makeSocket(family, socket.SOCK_STREAM)
    skt.bind(place)
    skt.listen(7)
    return skt


@pytest.mark.parametrize(
    ("kind", "family", "place"),
    [
        ("tcp", socket.AF_INET, ("127.0.0.1", 80)),
        ("tcp6", socket.AF_INET6, ("::1", 80)),
        ("unix", socket.AF_UNIX, "/run/server"),
    ],
)
def test_adopting(network: MemoryNetwork, kind: str, family: int, place: Any) -> None:
    servers, clients = Ends(), Ends()
    skt = bound(network, family, place)
    port = network.reactor.serveSocket(skt, servers)
    assert skt.backlog == 7
    KINDS[kind][1](network.reactor, clients)
    network.settle()
    assert len(servers.sides) == 1
    for side in (clients.sides[0], servers.sides[0]):
        side.transport.abortConnection()
    port.stopListening()
    network.close()


def test_adoptingAPathThatIsBoundAlone(network: MemoryNetwork) -> None:
    skt: Any = network.reactor.makeSocket(socket.AF_UNIX, socket.SOCK_STREAM)
    skt.bind("/run/server")
    port = network.reactor.serveSocket(skt, Ends())
    assert skt.isListening
    port.stopListening()
    network.close()


def test_thePathGoesWithItsPort(network: MemoryNetwork) -> None:
    port: Any = network.reactor.listenUNIX("/run/server", Ends())
    port.stopListening()
    network.settle()
    assert network.host("localhost").ports.file("/run/server") is None
    network.close()


def test_overEndpoints(network: MemoryNetwork) -> None:
    servers = Ends()
    there = network.host("there")
    port: Any = there.reactor.listenTCP(80, servers, interface="::")
    side = Side()

    async def scenario() -> None:
        reactor = network.host("here").reactor
        connecting: Awaitable[Any] = connectProtocol(TCP6ClientEndpoint(reactor, there.addresses[1], 80), side)
        await connecting
        side.transport.loseConnection()

    network.run(scenario)
    network.settle()
    assert servers.sides[0].events[-1] in ("lost", "readEnd")
    servers.sides[0].transport.loseConnection()
    port.stopListening()
    network.close()
