"""UNIX streams whose protocol receives descriptors: what they receive, and that they are streams like any other."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from logs import LoggedErrors
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IFileDescriptorReceiver, IHalfCloseableProtocol
from twisted.python import log
from twisted.python.failure import Failure
from uvreactor.uvworld import (
    MEGABYTES,
    Actor,
    Half,
    Hands,
    Peer,
    Producer,
    World,
    both,
    do,
    fail,
    loggedOnce,
    played,
    write,
)
from zope.interface import implementer

from twisted_net.uvreactor.rights import MOST_DESCRIPTORS, ReceivingTransport

SYSTEM = "Receiver,0,"


@implementer(IFileDescriptorReceiver)
class Receiver(Actor):
    """Keeps descriptors; has the reaction ``descriptor``."""

    def __init__(self, **reactions: Callable[..., object]) -> None:
        super().__init__(**reactions)
        self.descriptors: list[int] = []

    def fileDescriptorReceived(self, descriptor: int) -> None:
        self.descriptors.append(descriptor)
        self._note("descriptor", descriptor)

    def close(self) -> None:
        """Close what was received."""
        while self.descriptors:
            os.close(self.descriptors.pop())


@implementer(IHalfCloseableProtocol)
class HalfReceiver(Receiver):
    """The same, which goes on with one half."""

    readConnectionLost = Half.readConnectionLost
    writeConnectionLost = Half.writeConnectionLost


def send(peer: Peer, data: bytes, *descriptors: int) -> None:
    """Send descriptors with the first byte of ``data``."""
    assert socket.send_fds(peer.socket, [data], descriptors) == len(data)


def number() -> int:
    """A descriptor of a file that is open only once."""
    one, other = os.pipe()
    os.close(other)
    return one


# Descriptors


@pytest.mark.parametrize("way", ["accept", "dial"])
@played
async def test_received(world: World, way: str) -> None:
    actor, peer = await getattr(world, way)(Receiver(), "unix")
    await world.turns(3)
    assert isinstance(actor.transport._uv, ReceivingTransport)
    mine = number()
    send(peer, b"hello", mine)
    await world.until(lambda: actor.received == b"hello")
    assert actor.events == ["made", "descriptor", "data"]
    [theirs] = actor.descriptors
    assert theirs != mine
    assert os.path.sameopenfile(theirs, mine)
    assert not os.get_inheritable(theirs)
    os.close(mine)
    actor.close()


@pytest.mark.parametrize("count", [3, MOST_DESCRIPTORS])
@played
async def test_severalWithOneByte(world: World, count: int) -> None:
    actor, peer = await world.accept(Receiver(), "unix")
    mine = [number() for _ in range(count)]
    send(peer, b"!", *mine)
    await world.until(lambda: actor.received == b"!")
    assert len(actor.descriptors) == count
    assert all(map(os.path.sameopenfile, actor.descriptors, mine))
    for one in mine:
        os.close(one)
    actor.close()


@pytest.mark.parametrize("count", [1, 100, 300])
@played
async def test_bothWays(world: World, count: int) -> None:
    def deal(actor: Receiver, data: bytes = b"") -> None:
        if len(actor.descriptors) < count:
            for _ in range(count):
                actor.transport.sendFileDescriptor(mine)
            actor.transport.write(bytes(count))

    mine = number()
    server, client = Receiver(made=deal), Receiver(made=deal)
    await world.meet(server, client, "unix")
    await world.until(lambda: len(server.received) == len(client.received) == count)
    assert len(server.descriptors) == len(client.descriptors) == count
    for one in (server, client):
        assert all(os.path.sameopenfile(descriptor, mine) for descriptor in one.descriptors)
        one.close()
    client.transport.loseConnection()
    await world.until(lambda: server.lost and client.lost)
    os.close(mine)


@played
async def test_whoDoesNotReceiveGetsTheBytes(world: World) -> None:
    actor, peer = await world.accept(Actor(), "unix")
    with open(number()) as mine:
        send(peer, b"hello", mine.fileno())
        await world.until(lambda: actor.received == b"hello")


@pytest.mark.parametrize("count", [1, 3])
@played
async def test_theHandlerRaises(world: World, loggedErrors: LoggedErrors, count: int) -> None:
    actor, peer = await world.accept(Receiver(descriptor=fail), "unix")
    mine = [number() for _ in range(count)]
    send(peer, b"hello", *mine)
    await world.until(lambda: actor.lost)
    assert await peer.end() == b""
    await world.turns(5)
    assert actor.events == ["made", "descriptor", "lost"]
    loggedOnce(loggedErrors, SYSTEM)
    for one in mine:
        os.close(one)
    actor.close()  # the others were closed, or the test's fixture will know


@pytest.mark.parametrize("end", ["abortConnection", "dropConnection"])
@played
async def test_theHandlerEndsTheConnection(world: World, end: str) -> None:
    ending = do(end, *([Failure(ConnectionDone())] if end == "dropConnection" else []))
    actor, peer = await world.accept(Receiver(descriptor=ending), "unix")
    mine = [number() for _ in range(3)]
    send(peer, b"hello", *mine)
    await world.until(lambda: actor.lost)
    await world.turns(5)
    assert actor.events == ["made", "descriptor", "lost"]
    for one in mine:
        os.close(one)
    actor.close()


@played
async def test_otherAncillaryData(world: World) -> None:
    told: list[str] = []

    def observe(event: dict[str, Any]) -> None:
        told.extend(event["message"])

    actor, peer = await world.accept(Receiver(), "unix")
    await world.turns(3)
    actor.transport.socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    log.addObserver(observe)
    try:
        peer.send(b"hello")
        await world.until(lambda: actor.received == b"hello")
    finally:
        log.removeObserver(observe)
    assert told == [f"ancillary data of level {socket.SOL_SOCKET} and type 2 is not supported, and dropped"]


# Streams like any other


@pytest.mark.parametrize("count", [1, 8, 100])
@played
async def test_echo(world: World, count: int) -> None:
    actor, peer = await world.accept(Receiver(data=write(*[b"%03d" % number for number in range(count)])), "unix")
    peer.send(b"?")
    await world.until(lambda: actor.received)
    # All of it is there when the callback has returned.
    assert peer.socket.recv(1000) == b"".join(b"%03d" % number for number in range(count))


@played
async def test_aSlowReader(world: World) -> None:
    actor, peer = await world.accept(Receiver(), "unix")
    producer = Producer()
    actor.transport.registerProducer(producer, True)
    actor.transport.write(MEGABYTES)
    await world.turns(5)
    assert actor.transport.isWriting
    actor.transport.write(b" and")
    await world.turns(5)
    actor.transport.write(b" more")
    assert producer.told[0] == "pause"
    assert await peer.read(len(MEGABYTES) + 9) == MEGABYTES + b" and more"
    await world.until(lambda: producer.told[-1] == "resume")
    actor.transport.unregisterProducer()
    actor.transport.write(MEGABYTES)
    actor.transport.loseConnection()
    assert await peer.end() == MEGABYTES
    await world.until(lambda: actor.lost)
    assert actor.why() is ConnectionDone


@played
async def test_aKernelWithoutAnyRoom(world: World) -> None:
    actor, peer = await world.accept(Receiver(), "unix")
    await world.turns(5)
    filled = 0
    with suppress(BlockingIOError):
        while True:
            filled += actor.transport.socket.send(MEGABYTES)
    actor.transport.write(b"behind")
    await world.turns(5)
    assert (await peer.read(filled + 6)).endswith(b"behind")


@played
async def test_nothingIsNothing(world: World) -> None:
    actor, peer = await world.accept(Receiver(data=write(b"")), "unix")
    peer.send(b"?")
    await world.until(lambda: actor.received)
    actor.transport._uv.doRead()  # as when somebody else has taken what was there
    actor.transport.loseConnection()
    assert await peer.end() == b""
    assert actor.events[:2] == ["made", "data"]


@played
async def test_aPeerThatHasGoneBeforeItBegan(world: World) -> None:
    actor = Receiver(made=both(lambda actor: peer.close(), write(b"?")))
    port = world.listen(Hands(actor), "unix")
    peer = world.own(socket.socket(socket.AF_UNIX))
    peer.connect(port.socket.getsockname())
    await world.until(lambda: actor.lost)
    assert actor.why() is ConnectionLost
    assert actor.transport.lossErrno == errno.EPIPE
    await port.stopListening()


@played
async def test_sendNow(world: World) -> None:
    actor, peer = await world.accept(Receiver(), "unix")
    await world.turns(5)
    assert actor.transport.sendNow(b"at once") == 0
    assert peer.socket.recv(100) == b"at once"
    assert 0 < actor.transport.sendNow(MEGABYTES) < len(MEGABYTES)
    assert await peer.read(len(MEGABYTES)) == MEGABYTES


@played
async def test_pausedFromTheStart(world: World) -> None:
    actor, peer = await world.accept(Receiver(made=both(do("pauseProducing"), write(b"!"))), "unix")
    mine = number()
    send(peer, b"hello", mine)
    os.close(mine)
    assert await peer.read(1) == b"!"
    await world.turns(10)
    assert actor.events == ["made"]
    actor.transport.resumeProducing()
    await world.until(lambda: actor.received == b"hello")
    actor.close()


@played
async def test_pausedAndResumed(world: World) -> None:
    actor, peer = await world.accept(HalfReceiver(data=do("pauseProducing")), "unix")
    peer.send(b"one")
    await world.until(lambda: actor.received)
    peer.send(b"two")
    peer.socket.shutdown(socket.SHUT_WR)
    await world.turns(10)
    assert actor.received == b"one"
    actor.transport.resumeProducing()
    actor.transport.resumeProducing()
    await world.until(lambda: actor.received == b"onetwo")
    actor.transport.resumeProducing()
    await world.until(lambda: "readEnd" in actor.events)


@played
async def test_halves(world: World) -> None:
    actor, peer = await world.accept(HalfReceiver(), "unix")
    actor.transport.write(MEGABYTES)
    actor.transport.loseWriteConnection()
    assert await peer.end() == MEGABYTES
    await world.until(lambda: "writeEnd" in actor.events)
    peer.send(b"the other half")
    peer.socket.shutdown(socket.SHUT_WR)
    await world.until(lambda: actor.events == ["made", "writeEnd", "data", "readEnd"])
    actor.transport.loseConnection()
    assert actor.lost


@played
async def test_halfClosedByThePeer(world: World) -> None:
    actor, peer = await world.accept(Receiver(), "unix")
    peer.socket.shutdown(socket.SHUT_WR)
    await world.until(lambda: actor.lost)
    assert actor.why() is ConnectionDone
    assert await peer.end() == b""


@pytest.mark.parametrize("end", ["loseConnection", "abortConnection", "dropConnection", "relinquish", "close"])
@pytest.mark.parametrize("when", ["made", "data", "later", "full"])
@played
async def test_theEnds(world: World, end: str, when: str) -> None:
    def over(actor: Actor, *args: object) -> None:
        actor.transport.write(b"last")
        if end == "close":
            actor.transport.getHandle().close()
        elif end == "dropConnection":
            actor.transport.dropConnection(Failure(ConnectionDone()))
        else:
            do(end)(actor)

    actor, peer = await world.accept(Receiver(**({when: over} if when in ("made", "data") else {})), "unix")
    if when == "data":
        peer.send(b"?")
    elif when == "later":
        await world.turns(5)
        over(actor)
    elif when == "full":
        await world.turns(5)
        actor.transport.write(MEGABYTES)
        await world.turns(5)
        over(actor)
    if end == "relinquish":
        await world.turns(5)
        assert not actor.lost
        actor.transport.dropConnection(Failure(ConnectionDone()))
    data = await peer.end()
    if end == "loseConnection":
        assert data.endswith(b"last")
    else:
        assert len(data) < len(MEGABYTES) if when == "full" else data == b""
    await world.until(lambda: actor.lost)
    assert actor.why() is {"abortConnection": ConnectionAborted, "close": ConnectionLost}.get(end, ConnectionDone)
    assert actor.events.count("lost") == 1


@pytest.mark.parametrize("end", ["abortConnection", "dropConnection", "relinquish"])
@played
async def test_overBetweenTheTurnsInWhichItBegins(world: World, end: str) -> None:
    ending = do(end, *([Failure(ConnectionDone())] if end == "dropConnection" else []))
    actor, peer = await world.accept(Receiver(made=lambda actor: world.reactor.soon(ending, actor)), "unix")
    assert await peer.end() == b""
    if end == "relinquish":
        actor.transport.dropConnection(Failure(ConnectionDone()))
    await world.until(lambda: actor.lost)
    assert actor.events == ["made", "lost"]


@played
async def test_brokenPipe(world: World) -> None:
    actor, peer = await world.accept(Receiver(), "unix")
    await world.turns(5)
    actor.transport.pauseProducing()
    peer.close()
    actor.transport.write(b"?")
    await world.until(lambda: actor.lost)
    assert actor.why() is ConnectionLost
    assert actor.transport.lossErrno == errno.EPIPE


@played
async def test_brokenPipeWithSomethingUnsent(world: World) -> None:
    actor, peer = await world.accept(Receiver(), "unix")
    await world.turns(5)
    actor.transport.pauseProducing()
    actor.transport.write(MEGABYTES)
    await world.turns(5)
    peer.close()
    await world.until(lambda: actor.lost)
    assert actor.why() is ConnectionLost
    assert actor.transport.lossErrno in (errno.EPIPE, errno.ECONNRESET)


@played
async def test_reset(world: World) -> None:
    actor, peer = await world.accept(Receiver(), "unix")
    actor.transport.write(b"unread")
    await world.turns(5)
    peer.close()  # with something unread, which is a reset on UNIX sockets
    await world.until(lambda: actor.lost)
    assert actor.why() is ConnectionLost
    assert actor.transport.lossErrno == errno.ECONNRESET


@played
async def test_givenUpByTheWatcher(world: World) -> None:
    actor, peer = await world.accept(Receiver(), "unix")
    await world.turns(5)
    below = actor.transport._uv
    assert below.logPrefix() == SYSTEM
    assert below.fileno() == actor.transport.fileno()
    below.connectionLost(Failure(ConnectionLost()))
    below.connectionLost(Failure(ConnectionLost()))
    await world.until(lambda: actor.lost)
    assert await peer.end() == b""


def test_openWhenTheReactorStops(world: World) -> None:
    actors: list[Any] = []

    async def scene() -> None:
        for made in (do("resumeProducing"), do("pauseProducing"), write(MEGABYTES)):
            actor, _ = await world.accept(Receiver(made=made), "unix")
            actors.append(actor)
            await world.turns(5)

    world.play(scene())
    assert [actor.events for actor in actors] == [["made", "lost"]] * 3
