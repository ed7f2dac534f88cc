"""TLS over the network in memory: Twisted's own TLS, above Twisted's own TCP."""

from __future__ import annotations

import io
from random import Random
from typing import Any

import pytest
from certificates import selfSigned
from pairs import Side
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint, connectProtocol, wrapClientTLS
from twisted.internet.interfaces import ISSLTransport
from twisted.internet.protocol import ClientFactory, Factory
from twisted.internet.task import deferLater
from twisted.protocols.basic import FileSender
from weather import WEATHERS, inEveryWeather

from twisted_net.testing.network import MemoryNetwork

pytestmark = pytest.mark.tls

FIVE = Random(1).randbytes(5_000_000)


class Ways:
    """Every way to a TLS connection from ``client`` to ``server``. Each connects, and waits for the handshakes."""

    def __init__(self, network: MemoryNetwork) -> None:
        self.network = network
        self.here = network.host("client").reactor
        self.there = network.host("server").reactor
        self.client, self.server = Side(), Side()
        self.certificate = selfSigned("server")
        self.port: Any = None

    async def byReactors(self) -> None:
        """``listenSSL`` and ``connectSSL``."""
        served, dialled = Factory.forProtocol(lambda: self.server), ClientFactory.forProtocol(lambda: self.client)
        self.port = self.there.listenSSL(443, served, self.certificate.forServer())
        self.here.connectSSL("server", 443, dialled, self.certificate.forClient())

    async def byEndpoints(self) -> None:
        """``wrapClientTLS``, and a server that begins TLS as soon as it is connected."""
        await self._listen()
        endpoint = wrapClientTLS(self.certificate.forClient(), TCP4ClientEndpoint(self.here, "server", 443))
        connected = connectProtocol(endpoint, self.client)
        await self.server.happened("made")
        self.server.transport.startTLS(self.certificate.forServer())
        await connected

    async def byStartTls(self) -> None:
        """Both ends begin TLS when a few bytes have gone in the open."""
        await self._listen()
        self.here.connectTCP("server", 443, ClientFactory.forProtocol(lambda: self.client))
        await self.client.happened("made")
        self.client.transport.write(b"STARTTLS\n")
        await self.server.until(lambda: self.server.received == b"STARTTLS\n")
        self.server.received = b""
        self.server.transport.write(b"go ahead\n")
        self.server.transport.startTLS(self.certificate.forServer())
        await self.client.until(lambda: self.client.received == b"go ahead\n")
        self.client.received = b""
        self.client.transport.startTLS(self.certificate.forClient())

    async def _listen(self) -> None:
        self.port = await TCP4ServerEndpoint(self.there, 443).listen(Factory.forProtocol(lambda: self.server))

    async def connect(self, way: str = "byReactors") -> tuple[Side, Side]:
        await getattr(self, way)()
        for side in (self.client, self.server):
            await side.happened("handshake")
            assert ISSLTransport.providedBy(side.transport)
        return self.client, self.server

    async def close(self) -> None:
        """The client says that it is done, the server answers, and both are gone."""
        self.client.transport.loseConnection()
        await self.server.happened("lost")
        await self.client.happened("lost")
        await self.port.stopListening()


@pytest.mark.parametrize("way", ["byReactors", "byEndpoints", "byStartTls"])
@inEveryWeather()
async def test_bytesBothWays(network: MemoryNetwork, way: str) -> None:
    ways = Ways(network)
    client, server = await ways.connect(way)
    client.transport.write(FIVE[:300_000])
    server.transport.write(FIVE[300_000:500_000])
    await server.until(lambda: len(server.received) >= 300_000)
    await client.until(lambda: len(client.received) >= 200_000)
    assert (server.received, client.received) == (FIVE[:300_000], FIVE[300_000:500_000])
    await ways.close()


@inEveryWeather()
async def test_theLastBytesComeBeforeTheEnd(network: MemoryNetwork) -> None:
    ways = Ways(network)
    client, server = await ways.connect()
    client.transport.write(FIVE[:1_000_000])
    await ways.close()
    assert server.received == FIVE[:1_000_000]


@inEveryWeather()
async def test_anAbortedConnection(network: MemoryNetwork) -> None:
    ways = Ways(network)
    client, server = await ways.connect()
    client.transport.abortConnection()
    await server.happened("lost")
    assert any(event.what == "reset" for event in network.trace.events)
    await ways.port.stopListening()


@inEveryWeather()
async def test_fiveMegabytesUnderPressure(network: MemoryNetwork) -> None:
    ways = Ways(network)
    client, server = await ways.connect()
    server.transport.pauseProducing()
    with io.BytesIO(FIVE) as file:
        sending = FileSender().beginFileTransfer(file, client.transport)
        await deferLater(ways.here, 60)
        # What kernels, transports and TLS hold by themselves; the rest is still in the file.
        assert file.tell() < 500_000
        server.transport.resumeProducing()
        await sending
    await server.until(lambda: len(server.received) >= len(FIVE))
    assert server.received == FIVE
    await ways.close()


def test_smallWritesAreAggregated() -> None:
    """A hundred writes in one turn are one record: Twisted waits for the next turn of the reactor that it is given."""
    with MemoryNetwork() as network:
        ways = Ways(network)

        async def scenario() -> None:
            client, server = await ways.connect()
            await deferLater(ways.here, 1)
            before = len(network.trace.events)
            for _ in range(100):
                client.transport.write(b"x")
            await server.until(lambda: len(server.received) == 100)
            events = network.trace.events[before:]
            assert [event.what for event in events] == ["data", "read"]
            await ways.close()

        network.run(scenario)


def test_anEndWithoutANotice() -> None:
    """``loseWriteConnection`` over TLS is TCP's FIN, and no close_notify before it (twisted#5341)."""
    with MemoryNetwork() as network:
        ways = Ways(network)

        async def scenario() -> None:
            client, server = await ways.connect()
            await deferLater(ways.here, 1)
            before = len(network.trace.events)
            client.transport.loseWriteConnection()
            await deferLater(ways.here, 1)
            sent = [event.what for event in network.trace.events[before:] if event.source.startswith("client")]
            assert sent == ["end"]
            for side in (client, server):
                if "lost" not in side.events:
                    side.transport.abortConnection()
            await ways.port.stopListening()

        network.run(scenario)


def _session(weather: str) -> str:
    """The digest of a session's events and sizes; what is random in its bytes is left out."""
    with WEATHERS[weather].network("client", "server") as network:
        ways = Ways(network)
        ways.certificate = selfSigned("server", evenly=True)

        async def scenario() -> None:
            client, server = await ways.connect()
            client.transport.write(FIVE[:200_000])
            await server.until(lambda: len(server.received) == 200_000)
            server.transport.write(b"done")
            await client.until(lambda: client.received == b"done")
            await ways.close()

        network.run(scenario)
        return network.trace.digest(content=False)


@pytest.mark.parametrize("weather", WEATHERS)
def test_oneSeedIsOneRun(weather: str) -> None:
    assert _session(weather) == _session(weather)


def test_otherSeedsAreOtherRuns() -> None:
    assert len({_session(weather) for weather in WEATHERS}) == len(WEATHERS)
