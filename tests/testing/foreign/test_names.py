"""twisted.names on a network in memory: a server that has authority, and clients that ask it over UDP and TCP."""

from __future__ import annotations

from socket import AF_INET6, inet_pton
from typing import Any

import pytest
from twisted.internet.defer import TimeoutError
from twisted.internet.endpoints import HostnameEndpoint, TCP4ServerEndpoint, connectProtocol
from twisted.internet.interfaces import IResolverSimple
from twisted.internet.protocol import Factory, Protocol
from twisted.names import dns
from twisted.names.authority import FileAuthority
from twisted.names.client import Resolver
from twisted.names.error import DNSNameError
from twisted.names.server import DNSServerFactory
from weather import inEveryWeather

import twisted
from twisted_net.sansio.faults import Duplicate, Loss
from twisted_net.testing.network import MemoryNetwork

#: Seconds that a client waits for the answers to its first, second and third datagram.
PATIENCE = (1, 3, 11)


class Zone(FileAuthority):
    """A zone that stands here, and in no file."""

    soa: Any
    records: Any

    def loadFile(self, filename: object) -> None:
        soa = dns.Record_SOA(b"ns.example.org", b"root.example.org", 1, 3600, 600, 86400, 60, ttl=60)
        self.soa = (b"example.org", soa)
        self.records = {
            b"example.org": [soa],
            b"www.example.org": [dns.Record_A("10.1.1.1", 60), dns.Record_AAAA("fd00:1::1", 60)],
            b"server.example.org": [dns.Record_A("10.0.0.2", 60)],
            b"long.example.org": [dns.Record_TXT(b"x" * 200, b"%d" % number, ttl=60) for number in range(8)],
        }


class Truncating(dns.DNSDatagramProtocol):
    """Keeps to the 512 bytes of RFC 1035, 4.2.1, which Twisted's own server does not."""

    def writeMessage(self, message: Any, address: Any) -> None:
        message.maxSize = 512
        super().writeMessage(message, address)


# These have no annotations in Twisted.
_zone: Any = Zone
_truncating: Any = Truncating


class Scene:
    """A name server on port 53 of both kinds, and a client's resolver."""

    def __init__(self, network: MemoryNetwork) -> None:
        self._network = network

    async def __aenter__(self) -> Resolver:
        server = self._network.host("server")
        factory: Any = DNSServerFactory(authorities=[_zone("")])
        self._udp: Any = server.reactor.listenUDP(53, _truncating(factory, server.reactor))
        self._tcp: Any = server.reactor.listenTCP(53, factory)
        reactor = self._network.host("client").reactor
        self.resolver = Resolver(servers=[(server.addresses[0], 53)], timeout=PATIENCE, reactor=reactor)
        return self.resolver

    async def __aexit__(self, *failure: object) -> None:
        for connection in self.resolver.connections:
            connection.transport.loseConnection()
        await self._udp.stopListening()
        await self._tcp.stopListening()


@inEveryWeather()
async def test_addresses(network: MemoryNetwork) -> None:
    async with Scene(network) as resolver:
        answers, _, _ = await resolver.lookupAddress("www.example.org")
        assert [answer.payload.dottedQuad() for answer in answers] == ["10.1.1.1"]
        answers, _, _ = await resolver.lookupIPV6Address("www.example.org")
        assert [answer.payload.address for answer in answers] == [inet_pton(AF_INET6, "fd00:1::1")]
        assert network.now < 1


@inEveryWeather()
async def test_aNameThatIsNone(network: MemoryNetwork) -> None:
    async with Scene(network) as resolver:
        with pytest.raises(DNSNameError):
            await resolver.lookupAddress("nothing.example.org")
        assert network.now < 1


@pytest.mark.skipif(twisted.__version__ < "25", reason="that Twisted cannot bear a message's length in two segments")
@inEveryWeather()
async def test_anAnswerTooLongForADatagram(network: MemoryNetwork) -> None:
    async with Scene(network) as resolver:
        answers, _, _ = await resolver.lookupText("long.example.org")
        assert [int(answer.payload.data[1]) for answer in answers] == list(range(8))
    assert {event.what for event in network.trace.events} >= {"datagram", "connect", "accept"}


@inEveryWeather()
async def test_aDatagramThatIsLost(network: MemoryNetwork) -> None:
    async with Scene(network) as resolver:
        link = network.link("client", "server")
        link.cut()
        network.at(PATIENCE[0] / 2, link.heal)
        answers, _, _ = await resolver.lookupAddress("www.example.org")
        assert len(answers) == 1
        assert PATIENCE[0] <= network.now < PATIENCE[0] + 1


@inEveryWeather()
async def test_anyTwoOfThreeMayBeLost(network: MemoryNetwork) -> None:
    async with Scene(network) as resolver:
        network.link("client", "server").setFaults(Loss(probability=0.2), Duplicate(probability=0.5))
        for _ in range(20):
            try:
                answers, _, _ = await resolver.lookupAddress("www.example.org")
            except TimeoutError:
                continue  # one in 22: both ways have to hold once in three times
            assert len(answers) == 1
        events = [event.what for event in network.trace.events]
        assert events.count("datagram") > 40
        assert network.now < 20 * sum(PATIENCE)


@inEveryWeather()
async def test_aServerThatIsDead(network: MemoryNetwork) -> None:
    scene = Scene(network)
    resolver = await scene.__aenter__()
    network.host("server").die()
    with pytest.raises(TimeoutError):
        await resolver.lookupAddress("www.example.org")
    assert network.now == sum(PATIENCE)


@inEveryWeather()
async def test_asTheResolverOfAReactor(network: MemoryNetwork) -> None:
    """What connects by a name asks the name server."""
    reactor = network.host("client").reactor
    port = await TCP4ServerEndpoint(network.host("server").reactor, 80).listen(Factory.forProtocol(Protocol))
    async with Scene(network) as resolver:
        assert IResolverSimple.providedBy(resolver)
        reactor.installResolver(resolver)
        client = await connectProtocol(HostnameEndpoint(reactor, "server.example.org", 80), Protocol())
        assert client.transport is not None
        client.transport.loseConnection()
    await port.stopListening()
