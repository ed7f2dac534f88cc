"""AMP on a network in memory: commands both ways, and calls whose connection goes away."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint, connectProtocol
from twisted.internet.error import ConnectionLost
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater
from twisted.protocols.amp import AMP, Boolean, Command, Integer, ListOf, Unicode
from weather import inEveryWeather

from twisted_net.testing.network import MemoryNetwork


class Divide(Command):
    arguments: ClassVar = [(b"numerator", Integer()), (b"denominator", Integer())]
    response: ClassVar = [(b"result", Integer())]
    errors: ClassVar = {ZeroDivisionError: b"ZERO_DIVISION"}


class Forget(Command):
    """Is never answered."""


class Notice(Command):
    arguments: ClassVar = [(b"texts", ListOf(Unicode()))]
    response: ClassVar = [(b"taken", Boolean())]


class Peer(AMP):
    """Answers both commands, at either end."""

    transport: Any

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.noticed: list[str] = []

    @Divide.responder
    def divide(self, numerator: int, denominator: int) -> dict[str, int]:
        return {"result": numerator // denominator}

    @Forget.responder
    def forget(self) -> Deferred[Any]:
        self.forgotten: Deferred[Any] = Deferred()
        return self.forgotten

    @Notice.responder
    def notice(self, texts: list[str]) -> dict[str, bool]:
        self.noticed += texts
        return {"taken": True}


class Scene:
    """Two peers that are connected."""

    def __init__(self, network: MemoryNetwork) -> None:
        self._network = network
        self.server: Any = Peer()

    async def __aenter__(self) -> Scene:
        there, here = (self._network.host(name).reactor for name in ("server", "client"))
        self._port = await TCP4ServerEndpoint(there, 5000).listen(Factory.forProtocol(lambda: self.server))
        self.client: Any = await connectProtocol(TCP4ClientEndpoint(here, "server", 5000), Peer())
        # The server knows its client when it has answered once.
        await self.client.callRemote(Divide, numerator=1, denominator=1)
        return self

    async def __aexit__(self, *failure: object) -> None:
        for peer in (self.client, self.server):
            if peer.transport is not None:
                peer.transport.loseConnection()
        await self._port.stopListening()


@inEveryWeather()
async def test_commandsBothWays(network: MemoryNetwork) -> None:
    async with Scene(network) as scene:
        answers = await gatherResults(
            [scene.client.callRemote(Divide, numerator=number * 3, denominator=3) for number in range(50)]
            + [scene.server.callRemote(Divide, numerator=number * 3, denominator=3) for number in range(50)]
        )
        assert [answer["result"] for answer in answers] == [*range(50), *range(50)]


@inEveryWeather()
async def test_longArguments(network: MemoryNetwork) -> None:
    texts = ["häuser " * number for number in range(90)]
    async with Scene(network) as scene:
        assert await scene.server.callRemote(Notice, texts=texts) == {"taken": True}
        assert scene.client.noticed == texts


@inEveryWeather()
async def test_anErrorThatIsExpected(network: MemoryNetwork) -> None:
    async with Scene(network) as scene:
        with pytest.raises(ZeroDivisionError):
            await scene.client.callRemote(Divide, numerator=1, denominator=0)
        assert (await scene.client.callRemote(Divide, numerator=4, denominator=2))["result"] == 2


@inEveryWeather()
async def test_aConnectionThatIsLostInMidCall(network: MemoryNetwork) -> None:
    async with Scene(network) as scene:
        reactor = network.host("server").reactor
        reactor.callLater(5, lambda: scene.server.transport.abortConnection())
        with pytest.raises(ConnectionLost):
            await scene.client.callRemote(Forget)
        assert network.now >= 5


@inEveryWeather()
async def test_aPartitionInMidCall(network: MemoryNetwork) -> None:
    """The client has sent nothing that is not acknowledged, so that only keep-alive can tell it."""
    async with Scene(network) as scene:
        for peer in (scene.client, scene.server):
            peer.transport.setTcpKeepAlive(1)
        call = scene.client.callRemote(Forget)
        await deferLater(network.host("client").reactor, 1)
        network.link("client", "server").cut()
        cut = network.now
        with pytest.raises(ConnectionLost):
            await call
        assert 7200 <= network.now - cut <= 7200 + 75 * 9


@inEveryWeather()
async def test_aCallIntoAPartition(network: MemoryNetwork) -> None:
    """What the client sends is never acknowledged: TCP gives up after about a quarter of an hour."""
    async with Scene(network) as scene:
        network.link("client", "server").cut()
        with pytest.raises(ConnectionLost):
            await scene.client.callRemote(Forget)
        assert 900 <= network.now <= 930
