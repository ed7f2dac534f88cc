"""The side that connects: names, errors, and who is told."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from conditions import blackHole, deadPort, needsIPv6
from logs import LoggedErrors
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.error import (
    ConnectBindError,
    ConnectionAborted,
    ConnectionDone,
    ConnectionRefusedError,
    DNSLookupError,
    TimeoutError,
    UserError,
)
from twisted.internet.interfaces import IResolverSimple
from twisted.python.failure import Failure
from uvreactor.uvworld import Actor, Expected, Hands, World, do, fail, loggedOnce, played, write
from zope.interface import implementer

INTERNET = [pytest.param("tcp"), pytest.param("tcp6", marks=needsIPv6)]


class Counted(Hands):
    """Remembers whether it is wanted."""

    wanted = 0

    def doStart(self) -> None:
        self.wanted += 1
        super().doStart()  # type: ignore[no-untyped-call]

    def doStop(self) -> None:
        self.wanted -= 1
        super().doStop()  # type: ignore[no-untyped-call]


# Who is who


@pytest.mark.parametrize("kind", INTERNET)
@played
async def test_names(world: World, kind: str) -> None:
    address = IPv4Address if kind == "tcp" else IPv6Address
    skt = world.listening(kind)
    hands = Hands(Actor())
    connector = world.connect(hands, skt.getsockname())
    actor = hands._protocols[0]
    await world.until(lambda: actor.events)
    transport = actor.transport
    accepted = world.own(skt.accept()[0])
    assert connector.transport is transport
    assert transport.connector is connector
    assert transport.getPeer() == hands.addresses[0] == address("TCP", *skt.getsockname())
    assert transport.getHost() == address("TCP", *accepted.getpeername())
    assert transport.realAddress == skt.getsockname()
    assert transport.logPrefix() == "Actor,client"
    where = transport.addr
    assert where[:2] == skt.getsockname()[:2]
    text = f"<<class 'twisted_net.uvreactor.client.ClientStream'> to {where} at {id(transport):x}>"
    assert repr(transport) == text
    transport.dropConnection(Failure(ConnectionDone()))
    assert transport.getPeer() == hands.addresses[0]
    assert repr(transport) == text


@played
async def test_aHostsName(world: World) -> None:
    skt = world.listening()
    world.reactor.installResolver(Names({"server.example": "127.0.0.1"}))
    actor = Actor()
    hands = Hands(actor)
    world.connect(hands, ("server.example", skt.getsockname()[1]))
    await world.until(lambda: actor.events)
    assert actor.transport.addr == ("server.example", skt.getsockname()[1])
    assert actor.transport.getPeer() == IPv4Address("TCP", *skt.getsockname())
    world.connect(hands, ("nobody.example", 80))
    await world.until(lambda: hands.failed)
    assert hands.failed[0].check(DNSLookupError)


@implementer(IResolverSimple)
class Names:
    """A resolver."""

    def __init__(self, known: dict[str, str]) -> None:
        self._known = known

    def getHostByName(self, name: str, timeout: Any = ()) -> Deferred[str]:
        answer: Deferred[str] = Deferred()
        if name in self._known:
            answer.callback(self._known[name])
        else:
            answer.errback(Failure(DNSLookupError(name)))
        return answer


@played
async def test_bindAddress(world: World) -> None:
    skt = world.listening()
    actor = Actor()
    world.connect(Hands(actor), skt.getsockname(), bindAddress=("127.0.0.2", 0))
    await world.until(lambda: actor.events)
    assert actor.transport.getHost().host == "127.0.0.2"


# What goes wrong


@pytest.mark.parametrize("kind", INTERNET)
@played
async def test_refused(world: World, kind: str) -> None:
    hands = Counted(Actor())
    if kind == "tcp":
        with deadPort() as where:
            world.connect(hands, where)
            await world.until(lambda: hands.failed)
    else:
        with socket.socket(socket.AF_INET6) as dead:
            dead.bind(("::1", 0))
            world.connect(hands, dead.getsockname())
            await world.until(lambda: hands.failed)
    assert hands.failed[0].check(ConnectionRefusedError)
    assert hands.addresses == []
    assert hands.wanted == 0


# Twisted's own client leaves the socket that it could not bind to the collector.
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@played
async def test_addressInUse(world: World) -> None:
    taken, skt = world.listening(), world.listening()
    hands = Counted(Actor())
    world.connect(hands, skt.getsockname(), bindAddress=taken.getsockname())
    await world.until(lambda: hands.failed)
    assert hands.failed[0].check(ConnectBindError)
    assert hands.wanted == 0


@played
async def test_timeout(world: World) -> None:
    hands = Counted(Actor())
    with blackHole() as hole:
        world.connect(hands, hole, timeout=0.01)
        await world.until(lambda: hands.failed)
    assert hands.failed[0].check(TimeoutError)
    assert hands.wanted == 0


@pytest.mark.parametrize("turns", [0, 10])
@pytest.mark.parametrize("verb", ["stopConnecting", "disconnect"])
@played
async def test_stopConnecting(world: World, verb: str, turns: int) -> None:
    hands = Counted(Actor())
    with blackHole() as hole:
        connector = world.connect(hands, hole)
        await world.turns(turns)
        getattr(connector, verb)()
        await world.until(lambda: hands.failed)
    assert hands.failed[0].check(UserError)
    assert hands.wanted == 0
    await world.turns(10)


# Connectors and factories


@pytest.mark.parametrize("turns", [0, 10])
@played
async def test_disconnect(world: World, turns: int) -> None:
    skt, hands = world.listening(), Counted(Actor(made=write(b"goodbye")))
    connector = world.connect(hands, skt.getsockname())
    actor = hands._protocols[0]
    await world.until(lambda: actor.events)
    await world.turns(turns)
    assert connector.state == "connected"
    connector.disconnect()
    peer = world.peer(skt.accept()[0])
    assert await peer.end() == b"goodbye"
    await world.until(lambda: hands.lost)
    assert actor.why() is ConnectionDone
    assert connector.state == "disconnected"
    assert hands.wanted == 0


@played
async def test_theProtocolIsToldBeforeTheFactory(world: World) -> None:
    def lost(actor: Actor, reason: object) -> None:
        seen.append(len(hands.lost))

    seen: list[int] = []
    actor = Actor(lost=lost)
    hands = Hands(actor)
    connector = world.connect(hands, world.listening().getsockname())
    await world.until(lambda: actor.events)
    connector.transport.abortConnection()
    await world.until(lambda: hands.lost)
    assert seen == [0]
    assert hands.lost[0].check(ConnectionAborted)


@played
async def test_theFactoryIsToldWhateverTheProtocolSays(world: World, loggedErrors: LoggedErrors) -> None:
    actor = Actor(lost=fail)
    hands = Counted(actor)
    connector = world.connect(hands, world.listening().getsockname())
    await world.until(lambda: actor.events)
    connector.transport.abortConnection()
    await world.until(lambda: hands.lost)
    assert hands.wanted == 0
    loggedOnce(loggedErrors, "Actor,client")


@played
async def test_theSameConnectorAgain(world: World) -> None:
    class Again(Counted):
        def clientConnectionLost(self, connector: Any, reason: Failure) -> None:
            super().clientConnectionLost(connector, reason)
            if len(self.lost) < 3:
                connector.connect()

    skt = world.listening()
    actors = [Actor(made=do("loseConnection")) for _ in range(3)]
    hands = Again(*actors)
    world.connect(hands, skt.getsockname())
    await world.until(lambda: len(hands.lost) == 3)
    assert all(actor.events == ["made", "lost"] for actor in actors)
    assert hands.wanted == 0


@played
async def test_noProtocol(world: World) -> None:
    skt, hands = world.listening(), Counted(None)
    connector = world.connect(hands, skt.getsockname())
    await world.until(lambda: hands.lost)
    assert await world.peer(skt.accept()[0]).end() == b""
    assert hands.lost[0].check(ConnectionDone)
    assert connector.state == "disconnected"
    assert hands.wanted == 0


@played
async def test_buildProtocolRaises(world: World, loggedErrors: LoggedErrors) -> None:
    class Raising(Counted):
        def buildProtocol(self, addr: Any) -> Any:
            raise Expected

    skt, hands = world.listening(), Raising()
    world.connect(hands, skt.getsockname())
    await world.until(lambda: hands.failed)
    assert await world.peer(skt.accept()[0]).end() == b""
    assert hands.wanted == 0
    loggedErrors.flush("Expected")


@pytest.mark.parametrize("kind", ["tcp", "unix"])
@played
async def test_connectionMadeRaises(world: World, loggedErrors: LoggedErrors, kind: str) -> None:
    skt, actor = world.listening(kind), Actor(made=fail)
    hands = Counted(actor)
    world.connect(hands, skt.getsockname())
    await world.until(lambda: hands.lost or actor.lost)
    assert actor.events == ["made", "lost"]
    assert actor.why() is Expected
    assert hands.lost[0].check(Expected)
    assert await world.peer(skt.accept()[0]).end() == b""
    assert hands.wanted == 0
    loggedOnce(loggedErrors, "Actor,client")


@played
async def test_whatHasConnectedItReachesTheConnectionNoMore(world: World) -> None:
    skt, actor = world.listening(), Actor()
    connector = world.connect(Hands(actor), skt.getsockname())
    before = connector.transport
    await world.until(lambda: actor.events)
    assert connector.transport is not before
    before.loseConnection()
    before.abortConnection()
    before.stopConnecting()
    before.write(b"?")
    await world.turns(5)
    peer = world.peer(skt.accept()[0])
    peer.send(b"?")
    await world.until(lambda: actor.received)
    assert before not in world.reactor.getWriters()
    actor.transport.loseConnection()
    assert await peer.end() == b""
