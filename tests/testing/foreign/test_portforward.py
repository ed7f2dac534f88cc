"""twisted.protocols.portforward between three hosts in memory. It takes the reactor that is the global one."""

from __future__ import annotations

from random import Random

import pytest
from pairs import Side
from twisted.internet.defer import maybeDeferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint, connectProtocol
from twisted.internet.protocol import ClientFactory, Factory
from twisted.internet.task import deferLater
from twisted.protocols.portforward import ProxyFactory
from weather import inEveryWeather

from twisted_net.testing.network import MemoryNetwork

HOSTS = ("client", "middle", "server")

SOME = Random(1).randbytes(1_000_000)


class Scene:
    """A client whose connection is forwarded by the host in the middle."""

    def __init__(self, network: MemoryNetwork) -> None:
        self._network = network
        self.server = Side()
        self.client = Side()

    async def __aenter__(self) -> Scene:
        here, middle, there = (self._network.host(name).reactor for name in HOSTS)
        self._ports = [
            await TCP4ServerEndpoint(there, 80).listen(Factory.forProtocol(lambda: self.server)),
            middle.listenTCP(8080, ProxyFactory("server", 80)),
        ]
        # No endpoint: it would hide that the client is half-closeable when it is a listener of handshakes, too.
        here.connectTCP("middle", 8080, ClientFactory.forProtocol(lambda: self.client))
        await self.client.happened("made")
        await self.server.happened("made")
        return self

    async def __aexit__(self, *failure: object) -> None:
        for side in (self.client, self.server):
            side.transport.loseConnection()
        await self.client.happened("lost")
        for port in self._ports:
            await maybeDeferred(port.stopListening)

    def sentBy(self, host: str) -> int:
        """Bytes that a host has given to its kernel."""
        events = self._network.trace.events
        return sum(len(it.data or b"") for it in events if it.what == "data" and it.source.startswith(f"{host}:"))


@inEveryWeather(*HOSTS)
async def test_everyByteBothWays(network: MemoryNetwork) -> None:
    async with Scene(network) as scene:
        scene.client.transport.write(SOME)
        scene.server.transport.write(SOME[::-1])
        await scene.server.until(lambda: len(scene.server.received) >= len(SOME))
        await scene.client.until(lambda: len(scene.client.received) >= len(SOME))
        assert (scene.server.received, scene.client.received) == (SOME, SOME[::-1])


@inEveryWeather(*HOSTS)
async def test_pressureGoesThrough(network: MemoryNetwork) -> None:
    async with Scene(network) as scene:
        scene.server.transport.pauseProducing()
        scene.client.transport.write(SOME * 3)
        await deferLater(network.host("client").reactor, 60)
        # Four kernels and one transport are full; the rest is still the client's.
        assert scene.sentBy("client") < 1_000_000
        assert scene.server.received == b""
        scene.server.transport.resumeProducing()
        await scene.server.until(lambda: len(scene.server.received) >= len(SOME) * 3)
        assert scene.server.received == SOME * 3


@inEveryWeather(*HOSTS)
async def test_anEndGoesThrough(network: MemoryNetwork) -> None:
    async with Scene(network) as scene:
        scene.client.transport.write(SOME)
        scene.client.transport.loseConnection()
        await scene.server.happened("readEnd")
        assert scene.server.received == SOME


@pytest.mark.xfail(
    raises=AssertionError, reason="its protocols are not half-closeable: a client that sends FIN loses its answer"
)
@inEveryWeather(*HOSTS)
async def test_anAnswerAfterTheEnd(network: MemoryNetwork) -> None:
    async with Scene(network) as scene:
        scene.client.transport.write(b"question")
        scene.client.transport.loseWriteConnection()
        await scene.server.happened("readEnd")
        assert scene.server.received == b"question"
        scene.server.transport.write(b"answer")
        scene.server.transport.loseConnection()
        await scene.client.happened("readEnd")
        assert scene.client.received == b"answer"


@inEveryWeather(*HOSTS)
async def test_nobodyThere(network: MemoryNetwork) -> None:
    """The forwarder accepts, and closes when it has been refused itself."""
    middle = network.host("middle").reactor
    port = middle.listenTCP(8080, ProxyFactory("server", 80))
    client = Side()
    await connectProtocol(TCP4ClientEndpoint(network.host("client").reactor, "middle", 8080), client)
    await client.happened("lost")
    await maybeDeferred(port.stopListening)
