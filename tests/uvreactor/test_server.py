"""The side that accepts, and what is adopted."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from conditions import needsIPv6
from logs import LoggedErrors
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.error import CannotListenError, ConnectionDone, UnsupportedAddressFamily
from twisted.python.failure import Failure
from uvreactor.uvworld import FAMILIES, Actor, Expected, Half, Hands, Peer, World, do, fail, played

import twisted

HOSTS = {"tcp": "127.0.0.1", "tcp6": "::1"}
INTERNET = [pytest.param("tcp"), pytest.param("tcp6", marks=needsIPv6)]


class Raising(Hands):
    """Builds nothing."""

    def buildProtocol(self, addr: Any) -> Any:
        raise Expected


# Who is who


@pytest.mark.parametrize("kind", INTERNET)
@played
async def test_names(world: World, kind: str) -> None:
    hands = Hands(Actor(), Half())
    port = world.listen(hands, kind)
    number = port.getHost().port
    address = IPv4Address if kind == "tcp" else IPv6Address
    actors = list(hands._protocols)
    for session, actor in enumerate(actors):
        skt = world.own(socket.create_connection((HOSTS[kind], number)))
        await world.made(actor)
        transport, name = actor.transport, type(actor).__name__
        assert transport.getHost() == address("TCP", *skt.getpeername()) == port.getHost()
        assert transport.getPeer() == address("TCP", *skt.getsockname()) == hands.addresses[session]
        assert repr(transport) == f"<{name} #{session} on {number}>"
        assert transport.logPrefix() == f"{name},{session},{HOSTS[kind]}"
        assert (transport.hostname, transport.sessionno) == (HOSTS[kind], session)
        assert transport.client == skt.getsockname()
        assert transport.server is port
        transport.dropConnection(Failure(ConnectionDone()))
        assert repr(transport) == f"<(lost) #{session} on {number}>"
        assert transport.logPrefix() == f"{name},{session},{HOSTS[kind]}"
    await port.stopListening()


# Who is not wanted


@played
async def test_noProtocol(world: World) -> None:
    actor = Actor()
    port = world.listen(Hands(None, actor))
    first = world.peer(socket.create_connection(port.socket.getsockname()))
    second = world.peer(socket.create_connection(port.socket.getsockname()))
    assert await first.end() == b""
    second.send(b"?")
    await world.until(lambda: actor.received == b"?")
    assert actor.transport.sessionno == 0
    await port.stopListening()


@played
async def test_connectionMadeRaises(world: World, loggedErrors: LoggedErrors) -> None:
    # As with stock ports: the port logs it, and the connection stays.
    actor, peer = await world.accept(Actor(made=fail))
    [event] = loggedErrors.flush("Expected")
    assert event["log_system"] == "uvreactor.uvworld.Hands"
    peer.send(b"?")
    await world.until(lambda: actor.received)


@pytest.mark.skipif(twisted.__version__ < "26", reason="that Twisted leaves a failed bind's socket to the collector")
@played
async def test_cannotListen(world: World) -> None:
    taken = world.listening()
    with pytest.raises(CannotListenError):
        world.reactor.listenTCP(taken.getsockname()[1], Hands(Actor()), interface="127.0.0.1")


@played
async def test_aPortThatIsPaused(world: World) -> None:
    actor = Actor()
    port = world.listen(Hands(actor))
    port.pauseProducing()
    world.own(socket.create_connection(port.socket.getsockname()))
    await world.turns(10)
    assert actor.events == []
    port.resumeProducing()
    await world.until(lambda: actor.events)
    await port.stopListening()


@played
async def test_many(world: World) -> None:
    actors = [Half(made=do("write", b"hello"), readEnd=do("loseConnection")) for _ in range(50)]
    port = world.listen(Hands(*actors))
    peers = [world.peer(socket.create_connection(port.socket.getsockname())) for _ in actors]
    for peer in peers:
        peer.socket.shutdown(socket.SHUT_WR)
    for peer in peers:
        assert await peer.end() == b"hello"
    await world.until(lambda: all(actor.lost for actor in actors))
    assert all(actor.events == ["made", "readEnd", "lost"] for actor in actors)
    await port.stopListening()


# What is adopted


@pytest.mark.parametrize("kind", INTERNET)
@played
async def test_adoptedPort(world: World, kind: str) -> None:
    actor = Actor()
    with world.listening(kind) as skt:
        port = world.reactor.adoptStreamPort(skt.fileno(), FAMILIES[kind], Hands(actor))
        where = skt.getsockname()
    assert port.getHost().port == where[1]
    peer = world.peer(socket.create_connection(where[:2]))
    peer.send(b"?")
    await world.until(lambda: actor.received == b"?")
    peer.close()
    await world.until(lambda: actor.lost)
    await port.stopListening()


@pytest.mark.parametrize("kind", INTERNET)
@played
async def test_adoptedConnection(world: World, kind: str) -> None:
    actor, hands, original, peer = adopt(world, kind)
    transport = actor.transport
    address = IPv4Address if kind == "tcp" else IPv6Address
    assert actor.events == ["made"]
    assert transport.fileno() != original.fileno()
    assert transport.getPeer() == hands.addresses[0] == address("TCP", *peer.socket.getsockname())
    assert transport.getHost() == address("TCP", *peer.socket.getpeername())
    number = peer.socket.getsockname()[1]
    assert transport.logPrefix() == f"Actor,{number},{HOSTS[kind]}"
    assert repr(transport) == f"<Actor #{number} on {peer.socket.getpeername()[1]}>"
    peer.send(b"question")
    await world.until(lambda: actor.received == b"question")
    transport.write(b"answer")
    transport.loseConnection()
    # The original is still open: without shutdown(2) there would be no end.
    assert await peer.end() == b"answer"
    await world.until(lambda: actor.lost)


def adopt(world: World, kind: str = "tcp", actor: Any = None) -> tuple[Any, Hands, socket.socket, Peer]:
    """Adopt a connection: its protocol and factory, what it was adopted from, and the peer."""
    listening = world.listening(kind)
    peer = world.peer(socket.create_connection(listening.getsockname()[:2]))
    original = world.own(listening.accept()[0])
    actor = actor or Actor()
    hands = Hands(actor)
    world.reactor.adoptStreamConnection(original.fileno(), FAMILIES[kind], hands)
    return actor, hands, original, peer


@pytest.mark.parametrize("end", ["abortConnection", "loseConnection"])
@played
async def test_anAdoptedConnectionEndsAsOthersDo(world: World, end: str) -> None:
    actor, _, original, peer = adopt(world, actor=Actor(made=do(end)))
    await world.until(lambda: actor.lost)
    if end == "loseConnection":
        assert await peer.end() == b""
    else:
        original.close()
        await peer.reset()


@pytest.mark.parametrize("end", ["loseConnection", "dropConnection"])
@played
async def test_anAdoptedConnectionEndsWithSomethingUnread(world: World, end: str) -> None:
    # Without anything unread shutdown(2) sends FIN; with it, close(2) would send RST, if nobody had the original.
    actor, _, _, peer = adopt(world, actor=Actor(data=do("pauseProducing")))
    peer.send(b"?")
    await world.until(lambda: actor.received)
    peer.send(b"unread")
    do(end, *([Failure(ConnectionDone())] if end == "dropConnection" else []))(actor)
    assert await peer.end() == b""
    await world.until(lambda: actor.lost)


@played
async def test_adoptedAndNotWanted(world: World) -> None:
    listening = world.listening()
    peer = world.peer(socket.create_connection(listening.getsockname()))
    with listening.accept()[0] as original:
        number, family = original.fileno(), socket.AF_INET
        assert world.reactor.adoptStreamConnection(number, family, Hands(None)) is None
        with pytest.raises(Expected):
            world.reactor.adoptStreamConnection(number, family, Raising())
        for adopting in (world.reactor.adoptStreamConnection, world.reactor.adoptStreamPort):
            with pytest.raises(UnsupportedAddressFamily):
                adopting(number, socket.AF_IRDA, Hands(Actor()))
        assert peer.isQuiet()
    with pytest.raises(OSError, match="not connected"):
        world.reactor.adoptStreamConnection(listening.fileno(), family, Hands(Actor()))
    assert await peer.end() == b""
