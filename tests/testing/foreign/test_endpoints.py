"""Twisted's endpoints on a network in memory, names that do not do what they should, and clients that come again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from certificates import selfSigned
from pairs import Side
from twisted.application.internet import ClientService
from twisted.internet.defer import maybeDeferred
from twisted.internet.endpoints import (
    HostnameEndpoint,
    TCP4ClientEndpoint,
    TCP4ServerEndpoint,
    TCP6ClientEndpoint,
    TCP6ServerEndpoint,
    UNIXClientEndpoint,
    UNIXServerEndpoint,
    clientFromString,
    connectProtocol,
    serverFromString,
    wrapClientTLS,
)
from twisted.internet.error import ConnectionRefusedError, DNSLookupError, TCPTimedOutError, TimeoutError
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater
from weather import inEveryWeather

from twisted_net.testing.names import Name
from twisted_net.testing.network import MemoryNetwork

KINDS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "tcp4": (
        lambda reactor: TCP4ServerEndpoint(reactor, 80),
        lambda reactor: TCP4ClientEndpoint(reactor, "10.0.0.2", 80),
    ),
    "tcp6": (
        lambda reactor: TCP6ServerEndpoint(reactor, 80),
        lambda reactor: TCP6ClientEndpoint(reactor, "fd00:0:0:2::1", 80),
    ),
    "name": (
        lambda reactor: TCP6ServerEndpoint(reactor, 80),
        lambda reactor: HostnameEndpoint(reactor, "server", 80),
    ),
    "strings": (
        lambda reactor: serverFromString(reactor, "tcp:80:interface=10.0.0.2:backlog=10"),
        lambda reactor: clientFromString(reactor, "tcp:host=server:port=80:timeout=5"),
    ),
    "strings6": (
        lambda reactor: serverFromString(reactor, "tcp6:port=80:interface=fd00\\:0\\:0\\:2\\:\\:1"),
        lambda reactor: clientFromString(reactor, "tcp:host=fd00\\:0\\:0\\:2\\:\\:1:port=80"),
    ),
}


async def served(endpoint: Any, protocol: Any) -> Any:
    """A port that serves *protocol*."""
    return await endpoint.listen(Factory.forProtocol(protocol))


async def echoed(network: MemoryNetwork, server: Any, client: Any) -> Side:
    """Send something there and back between two endpoints; the client's protocol, which is closed."""
    there, here = Side(), Side()
    port = await served(server, lambda: there)
    await connectProtocol(client, here)
    here.transport.write(b"ping" * 10_000)
    await there.until(lambda: there.received == b"ping" * 10_000)
    there.transport.write(b"pong")
    there.transport.loseConnection()
    await here.until(lambda: here.received == b"pong")
    here.transport.loseConnection()
    await here.happened("lost")
    await port.stopListening()
    return here


@pytest.mark.parametrize("kind", KINDS)
@inEveryWeather()
async def test_kinds(network: MemoryNetwork, kind: str) -> None:
    server, client = KINDS[kind]
    await echoed(network, server(network.host("server").reactor), client(network.host("client").reactor))


@pytest.mark.parametrize("strings", [False, True])
@inEveryWeather()
async def test_unix(network: MemoryNetwork, strings: bool) -> None:
    reactor = network.host("server").reactor
    if strings:
        server, client = serverFromString(reactor, "unix:/run/s"), clientFromString(reactor, "unix:path=/run/s")
    else:
        server, client = UNIXServerEndpoint(reactor, "/run/s"), UNIXClientEndpoint(reactor, "/run/s")
    await echoed(network, server, client)
    # The port has removed its path, and another host has never had it.
    with pytest.raises(Exception, match="No such file"):
        await connectProtocol(client, Side())


@pytest.mark.tls
@inEveryWeather()
async def test_tls(network: MemoryNetwork) -> None:
    reactor = network.host("client").reactor
    there, here = Side(), Side()
    options = selfSigned("server").forServer()
    port = network.host("server").reactor.listenSSL(443, Factory.forProtocol(lambda: there), options)
    endpoint = wrapClientTLS(selfSigned("server").forClient(), HostnameEndpoint(reactor, "server", 443))
    await connectProtocol(endpoint, here)
    here.transport.write(b"ping")
    await there.until(lambda: there.received == b"ping")
    here.transport.loseConnection()
    await here.happened("lost")
    await maybeDeferred(port.stopListening)


# Names


@inEveryWeather()
async def test_anAddressThatIsDead(network: MemoryNetwork) -> None:
    """The next address is tried while the first one does not answer, and the first attempt is given up."""
    gone = network.host("gone", "fd00:9::9")
    gone.die()
    network.names["dual"] = Name(("fd00:9::9", "10.0.0.2"))
    client = HostnameEndpoint(network.host("client").reactor, "dual", 80)
    here = await echoed(network, TCP4ServerEndpoint(network.host("server").reactor, 80), client)
    assert here.events[-1] == "lost"
    assert 0.3 <= network.now < 1


@inEveryWeather()
async def test_anAddressThatRefuses(network: MemoryNetwork) -> None:
    """The next address is tried when its turn has come."""
    client = HostnameEndpoint(network.host("client").reactor, "server", 80, attemptDelay=2)
    network.names["server"] = Name(("fd00:0:0:2::1", "10.0.0.2"))
    await echoed(network, TCP4ServerEndpoint(network.host("server").reactor, 80), client)
    assert network.now < 3


@inEveryWeather()
async def test_aNameThatIsSlow(network: MemoryNetwork) -> None:
    network.names["slow"] = Name(("10.0.0.2",), delay=7)
    client = HostnameEndpoint(network.host("client").reactor, "slow", 80)
    await echoed(network, TCP4ServerEndpoint(network.host("server").reactor, 80), client)
    assert 7 <= network.now < 8


@inEveryWeather()
async def test_aNameThatIsNone(network: MemoryNetwork) -> None:
    with pytest.raises(DNSLookupError):
        await connectProtocol(HostnameEndpoint(network.host("client").reactor, "nowhere", 80), Side())


@inEveryWeather()
async def test_aNameThatNeverComes(network: MemoryNetwork) -> None:
    reactor = network.host("client").reactor
    network.names["never"] = Name(("10.0.0.2",), delay=None)
    attempt = connectProtocol(HostnameEndpoint(reactor, "never", 80), Side())
    with pytest.raises(DNSLookupError):
        await attempt.addTimeout(60, reactor)
    assert network.now == 60


# Nobody there


@inEveryWeather()
async def test_refused(network: MemoryNetwork) -> None:
    with pytest.raises(ConnectionRefusedError):
        await connectProtocol(TCP4ClientEndpoint(network.host("client").reactor, "server", 80), Side())


@pytest.mark.parametrize(("patience", "error", "seconds"), [(5, TimeoutError, 5), (1000, TCPTimedOutError, 127)])
@inEveryWeather()
async def test_silence(network: MemoryNetwork, patience: int, error: type[Exception], seconds: int) -> None:
    """The endpoint gives up, or the kernel does (tcp(7), tcp_syn_retries)."""
    network.link("client", "server").cut()
    endpoint = TCP4ClientEndpoint(network.host("client").reactor, "10.0.0.2", 80, timeout=patience)
    with pytest.raises(error):
        await connectProtocol(endpoint, Side())
    assert network.now == seconds


@inEveryWeather()
async def test_aPartitionThatHeals(network: MemoryNetwork) -> None:
    """SYN is sent again, after 1, 3 and 7 seconds."""
    port = await served(TCP4ServerEndpoint(network.host("server").reactor, 80), Side)
    link = network.link("client", "server")
    link.cut()
    network.at(5, link.heal)
    side = Side()
    await connectProtocol(TCP4ClientEndpoint(network.host("client").reactor, "10.0.0.2", 80), side)
    assert 7 <= network.now < 8
    side.transport.abortConnection()
    await port.stopListening()


# Clients that come again


class Kept(Side):
    """Asks its kernel to look after the connection, and answers an end with its own."""

    def connectionMade(self) -> None:
        self.transport.setTcpKeepAlive(1)
        super().connectionMade()

    def readConnectionLost(self) -> None:
        self.transport.loseConnection()


class Scene:
    """A server that keeps the protocols it has had, and a service that connects to it."""

    def __init__(self, network: MemoryNetwork) -> None:
        self._network = network
        self.clients: list[Kept] = []
        reactor = network.host("client").reactor
        endpoint = TCP4ClientEndpoint(reactor, "10.0.0.2", 80)
        self.service = ClientService(endpoint, Factory.forProtocol(self._made), clock=reactor)

    def _made(self) -> Kept:
        self.clients.append(Kept())
        return self.clients[-1]

    async def __aenter__(self) -> Scene:
        await self.listen()
        self.service.startService()
        await self.service.whenConnected()
        return self

    async def listen(self) -> None:
        self.port = await served(TCP4ServerEndpoint(self._network.host("server").reactor, 80), Kept)

    async def after(self, seconds: float) -> None:
        await deferLater(self._network.host("client").reactor, seconds)

    async def lost(self) -> None:
        """The first connection is lost, and the service has been told, too."""
        await self.clients[0].happened("lost")
        await self.after(0)

    async def __aexit__(self, *failure: object) -> None:
        await self.after(0)  # a service cannot be stopped while it tells that it has connected
        await self.service.stopService()
        await self.port.stopListening()

    def attempts(self) -> int:
        return sum(event.what == "connect" for event in self._network.trace.events)


@inEveryWeather()
async def test_aPartitionThatOutlastsKeepAlive(network: MemoryNetwork) -> None:
    async with Scene(network) as scene:
        await scene.after(10)
        cut = network.now
        network.link("client", "server").cut()
        await scene.lost()
        assert 7200 <= network.now - cut <= 7200 + 9 * 75
        await scene.after(3600)
        # Each attempt takes 30 seconds at most, and the pause between two of them a minute and a little.
        assert 30 < scene.attempts() < 100
        network.link("client", "server").heal()
        healed = network.now
        await scene.service.whenConnected()
        assert network.now - healed < 100
        assert len(scene.clients) == 2


@inEveryWeather()
async def test_aPartitionThatOutlastsRetransmission(network: MemoryNetwork) -> None:
    """The client says something into the partition, and is told after about a quarter of an hour."""
    async with Scene(network) as scene:
        await scene.after(10)
        network.link("client", "server").cut()
        scene.clients[0].transport.write(b"is anybody there?")
        await scene.lost()
        assert 900 < network.now < 940
        network.link("client", "server").heal()
        await scene.service.whenConnected()
        assert len(scene.clients) == 2
        await scene.after(1)
        # The server has heard nothing of all that, and hears of it when its kernel asks.
        assert len(network.host("server").sockets()) == 3
        await scene.after(7200)
        assert len(network.host("server").sockets()) == 2


@inEveryWeather()
async def test_aPartitionThatIsShort(network: MemoryNetwork) -> None:
    """Nobody notices."""
    async with Scene(network) as scene:
        network.link("client", "server").cut()
        scene.clients[0].transport.write(b"is anybody there?")
        await scene.after(600)
        network.link("client", "server").heal()
        await scene.after(600)
        assert len(scene.clients) == 1


@inEveryWeather()
async def test_aServerThatIsStartedAgain(network: MemoryNetwork) -> None:
    async with Scene(network) as scene:
        await scene.port.stopListening()
        for skt in network.host("server").sockets():
            skt.reader.abortConnection()
        await scene.lost()
        await scene.after(1800)
        # Refused at once, each time: what grows is the pause, up to a minute.
        assert 25 < scene.attempts() < 60
        await scene.listen()
        await scene.service.whenConnected()
        assert len(scene.clients) == 2
