"""Streams: when what is written leaves, who is paused and asked, and every way in which a connection ends."""

from __future__ import annotations

import errno
import gc
import os
import re
import socket
import weakref
from pathlib import Path
from typing import Any

import pytest
from certificates import selfSigned
from logs import LoggedErrors, text
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IConsumer,
    IHalfCloseableDescriptor,
    IPushProducer,
    ISystemHandle,
    ITCPTransport,
    ITLSTransport,
)
from twisted.python import context, log
from twisted.python.failure import Failure
from uvreactor.uvworld import (
    MEGABYTES,
    Actor,
    Expected,
    Half,
    Hands,
    Producer,
    World,
    both,
    do,
    fail,
    loggedOnce,
    played,
    segments,
    write,
)

from twisted_net.uvreactor import stream as room
from twisted_net.uvreactor.sockets import GuardedSocket


def watched(descriptor: int) -> bool:
    """Whether any epoll of this process watches a descriptor."""
    for name in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{name}") == "anon_inode:[eventpoll]":
                numbers = re.findall(r"^tfd:\s*(\d+)", Path(f"/proc/self/fdinfo/{name}").read_text(), re.MULTILINE)
                if str(descriptor) in numbers:
                    return True
        except FileNotFoundError:  # the descriptor that read the folder
            continue
    return False


# What it is


@played
async def test_interfaces(world: World) -> None:
    actor, _ = await world.accept(Actor())
    for interface in (IConsumer, IHalfCloseableDescriptor, IPushProducer, ISystemHandle, ITCPTransport, ITLSTransport):
        assert interface.providedBy(actor.transport)
    assert actor.transport.connected == 1
    assert actor.transport.getHandle() is actor.transport.socket
    assert actor.transport.fileno() == actor.transport.socket.fileno()
    actor.transport.abortConnection()
    await world.until(lambda: actor.lost)
    assert actor.transport.fileno() == -1
    assert actor.transport.connected == 0
    assert not hasattr(actor.transport, "socket")


@played
async def test_eachKindHasItsAddresses(world: World) -> None:
    one, other = socket.socketpair()
    world.own(other)
    plain = room.Stream(GuardedSocket(socket.AF_UNIX, socket.SOCK_STREAM, 0, one.detach()), Actor(), world.reactor)
    for name in ("getHost", "getPeer"):
        with pytest.raises(NotImplementedError):
            getattr(plain, name)()
    plain.dropConnection(Failure(ConnectionDone()))


@played
async def test_refused(world: World) -> None:
    one, other = socket.socketpair()
    actor, peer = Actor(), world.peer(other)
    plain = room.Stream(GuardedSocket(socket.AF_UNIX, socket.SOCK_STREAM, 0, one.detach()), actor, world.reactor)
    number = plain.fileno()
    assert plain.toHand() is plain.socket
    plain.refused(MemoryError())
    assert actor.why() is ConnectionLost
    assert not Path(f"/proc/self/fd/{number}").exists()
    assert await peer.end() == b""


@pytest.mark.parametrize("way", ["accept", "dial"])
@played
async def test_nothingIsLeftOfOneThatHasEnded(world: World, way: str) -> None:
    actor, peer = await getattr(world, way)(Actor())
    peer.send(b"data")
    await world.until(lambda: actor.received)
    peer.close()
    await world.until(lambda: actor.lost)
    await world.turns(5)
    remembered = weakref.ref(actor.transport)
    del actor.transport, actor.reason
    gc.collect()
    assert remembered() is None


# When what is written leaves


@pytest.mark.parametrize("count", [1, 2, 8, room.MANY - 1, room.MANY, 200])
@pytest.mark.parametrize("way", ["accept", "dial"])
@played
async def test_writesOfACallbackLeaveAsOne(world: World, way: str, count: int) -> None:
    pieces = [b"%03d" % number for number in range(count)]
    actor, peer = await getattr(world, way)(Actor(data=write(*pieces)))
    actor.transport.setTcpNoDelay(True)  # Nagle's algorithm would join them
    for _ in range(2):
        before = segments(actor.transport.socket)
        peer.send(b"?")
        assert await peer.read(3 * count) == b"".join(pieces)
        assert segments(actor.transport.socket) - before == 1


@played
async def test_writesOfOtherTimesLeaveAsOneInTheNextTurn(world: World) -> None:
    actor, peer = await world.accept(Actor())
    await world.turns(5)
    actor.transport.setTcpNoDelay(True)
    for piece in (b"a", b"b", b"c"):
        actor.transport.write(piece)
    actor.transport.writeSequence([b"d", b"e"])
    assert actor.transport.isWriting
    assert actor.transport._tempDataBuffer == [b"a", b"b", b"c", b"d", b"e"]  # of which Twisted's own tests know
    assert peer.isQuiet()
    await world.turns(2)
    assert peer.socket.recv(100) == b"abcde"
    assert segments(actor.transport.socket) == 1
    assert not actor.transport.isWriting


@pytest.mark.parametrize("way", ["accept", "dial"])
@played
async def test_writesOfConnectionMadeLeaveAsOne(world: World, way: str) -> None:
    def greet(actor: Actor) -> None:
        actor.transport.setTcpNoDelay(True)
        write(b"a", b"b", b"c")(actor)

    actor, peer = await getattr(world, way)(Actor(made=greet))
    assert await peer.read(3) == b"abc"
    assert segments(actor.transport.socket) == 1


@played
async def test_whatIsWrittenWaitsForTheTurnThatWasAskedFor(world: World) -> None:
    def answer(actor: Actor, data: bytes) -> None:
        actor.transport.write(b"now,")
        world.reactor.callLater(0, actor.transport.write, b"soon")

    actor, peer = await world.accept(Actor(data=answer))
    actor.transport.setTcpNoDelay(True)
    peer.send(b"?")
    assert await peer.read(8) == b"now,soon"
    assert segments(actor.transport.socket) == 1


@played
async def test_whatIsWrittenWaitsForNothingElse(world: World) -> None:
    def answer(actor: Actor, data: bytes) -> None:
        actor.transport.write(b"now,")
        world.reactor.soon(actor.transport.write, b"later")

    actor, peer = await world.accept(Actor(data=answer))
    actor.transport.setTcpNoDelay(True)
    peer.send(b"?")
    assert await peer.read(9) == b"now,later"
    assert segments(actor.transport.socket) == 2


@played
async def test_order(world: World) -> None:
    def answer(actor: Actor, data: bytes) -> None:
        actor.transport.write(b"2")
        actor.transport.writeSequence([b"3", b"4"])
        world.reactor.callLater(0, actor.transport.write, b"6")
        actor.transport.write(b"5")

    actor, peer = await world.accept(Actor(data=answer))
    actor.transport.write(b"1")
    peer.send(b"?")
    assert await peer.read(6) == b"123456"


@played
async def test_orderWhenTheKernelIsFull(world: World) -> None:
    actor, peer = await world.accept(Actor(), receiveBuffer=4096)
    actor.transport.write(MEGABYTES)
    await world.turns(3)
    assert actor.transport.isWriting
    actor.transport.write(b"and then")
    await world.turns(3)
    actor.transport.writeSequence([b" the ", b"rest"])
    actor.transport.loseConnection()
    assert await peer.end() == MEGABYTES + b"and then the rest"
    await world.until(lambda: actor.lost)
    assert actor.why() is ConnectionDone


@played
async def test_manyLargeChunks(world: World) -> None:
    chunks = [bytes([number]) * 100_000 for number in range(200)]
    actor, peer = await world.accept(Actor(data=lambda actor, data: actor.transport.writeSequence(chunks)))
    peer.send(b"?")
    await world.until(lambda: actor.received)
    actor.transport.write(b"and then")
    actor.transport.loseConnection()
    assert await peer.end() == b"".join(chunks) + b"and then"


@pytest.mark.parametrize("data", ["text", bytearray(b"array"), memoryview(b"view"), None, 7])
@played
async def test_bytesOnly(world: World, data: Any) -> None:
    actor, peer = await world.accept(Actor())
    with pytest.raises(TypeError, match="Data must be bytes"):
        actor.transport.write(data)
    with pytest.raises(TypeError, match="Data must be bytes"):
        actor.transport.writeSequence([b"good", data])
    actor.transport.write(type("Bytes", (bytes,), {})(b"a subclass"))
    actor.transport.loseConnection()
    assert await peer.end() == b"a subclass"


@played
async def test_nothingIsNothing(world: World) -> None:
    actor, peer = await world.accept(Actor(data=do("write", b"")))
    actor.transport.write(b"")
    actor.transport.writeSequence([])
    peer.send(b"?")
    await world.until(lambda: actor.received)
    actor.transport.loseConnection()
    assert await peer.end() == b""


@pytest.mark.parametrize("way", ["accept", "dial"])
@played
async def test_writesAfterLoseConnectionAreStillSent(world: World, way: str) -> None:
    def end(actor: Actor, data: bytes) -> None:
        actor.transport.loseConnection()
        actor.transport.write(b"in the callback, ")
        world.reactor.callLater(0, late, actor)

    def late(actor: Actor) -> None:
        late_.append(actor.transport.disconnecting)
        actor.transport.write(b"and after it")

    late_: list[int] = []
    actor, peer = await getattr(world, way)(Actor(data=end))
    peer.send(b"?")
    assert await peer.end() == b"in the callback, and after it"
    await world.until(lambda: actor.lost)
    assert late_ == [1]
    actor.transport.write(b"dropped")
    actor.transport.writeSequence([b"dropped"])
    assert actor.events == ["made", "data", "lost"]


# Producers


@played
async def test_aPushProducerIsPausedAndResumed(world: World) -> None:
    actor, peer = await world.accept(Actor(), receiveBuffer=4096)
    transport, left = actor.transport, []
    producer = Producer(lambda: left.append(transport.isWriting))
    transport.registerProducer(producer, True)
    transport.write(bytes(transport.bufferSize))
    assert producer.told == []
    transport.write(b"!")
    assert producer.told == ["pause"]
    assert transport.producerPaused
    await world.until(lambda: len(producer.told) == 2)
    transport.write(MEGABYTES)
    await world.turns(5)
    transport.write(b"?")
    assert producer.told == ["pause", "resume", "pause", "pause"]
    transport.unregisterProducer()
    transport.registerProducer(producer, True)
    transport.write(b"?")
    assert await peer.read(transport.bufferSize + 3 + len(MEGABYTES))
    await world.until(lambda: producer.told == ["pause", "resume", "pause", "pause", "pause", "resume"])
    assert left == [False, False]
    transport.unregisterProducer()
    transport.loseConnection()
    assert await peer.end() == b""


@played
async def test_aPushProducerIsNotResumedBeforeEverythingIsWithTheKernel(world: World) -> None:
    actor, peer = await world.accept(Actor(), receiveBuffer=4096)
    producer = Producer()
    actor.transport.registerProducer(producer, True)
    actor.transport.write(MEGABYTES)
    await world.turns(5)
    await peer.read(len(MEGABYTES) // 10)
    await world.turns(5)
    assert producer.told == ["pause"]
    await peer.read(len(MEGABYTES) - len(MEGABYTES) // 10)
    await world.until(lambda: producer.told == ["pause", "resume"])
    actor.transport.unregisterProducer()


@pytest.mark.parametrize("gathered", [False, True])
@played
async def test_bufferSizeIsTheApplicationsToChange(world: World, gathered: bool) -> None:
    actor, peer = await world.accept(Actor())
    actor.transport.bufferSize = 10
    producer = Producer()
    if gathered:  # what waits already counts
        actor.transport.write(bytes(10))
    actor.transport.registerProducer(producer, True)
    if not gathered:
        actor.transport.write(bytes(5))
        actor.transport.writeSequence([bytes(3), bytes(2)])
    assert producer.told == []
    actor.transport.write(b"!")
    assert producer.told == ["pause"]
    assert await peer.read(11)
    await world.until(lambda: producer.told == ["pause", "resume"])
    actor.transport.unregisterProducer()


@played
async def test_aPullProducerIsAskedAfterEveryFlush(world: World) -> None:
    actor, peer = await world.accept(Actor())

    def more() -> None:
        actor.transport.write(b"%d," % len(producer.told))
        if len(producer.told) == 5:
            actor.transport.unregisterProducer()
            actor.transport.loseConnection()

    producer = Producer(more)
    actor.transport.registerProducer(producer, False)
    assert producer.told == ["resume"]
    assert await peer.end() == b"1,2,3,4,5,"
    assert producer.told == ["resume"] * 5


@played
async def test_aPullProducerIsAskedWhenTheKernelHasEverything(world: World) -> None:
    actor, peer = await world.accept(Actor(), receiveBuffer=4096)
    producer = Producer()
    actor.transport.registerProducer(producer, False)
    actor.transport.write(MEGABYTES)
    await world.turns(10)
    assert producer.told == ["resume"]
    await peer.read(len(MEGABYTES))
    await world.until(lambda: producer.told == ["resume", "resume"])
    actor.transport.unregisterProducer()


@played
async def test_aPullProducerThatWritesNothingIsNotAskedAgain(world: World) -> None:
    actor, peer = await world.accept(Actor())
    producer = Producer()
    actor.transport.registerProducer(producer, False)
    await world.turns(20)
    assert producer.told == ["resume"]
    actor.transport.write(b"now")
    assert await peer.read(3) == b"now"
    await world.turns(20)
    assert producer.told == ["resume", "resume"]
    actor.transport.unregisterProducer()


@pytest.mark.parametrize("streaming", [False, True])
@played
async def test_oneProducerAtATime(world: World, streaming: bool) -> None:
    actor, _ = await world.accept(Actor())
    actor.transport.registerProducer(Producer(), streaming)
    with pytest.raises(RuntimeError, match="was never unregistered"):
        actor.transport.registerProducer(Producer(), streaming)
    actor.transport.unregisterProducer()
    actor.transport.registerProducer(Producer(), streaming)


# A push producer that is not paused is not waited for, as with stock transports: it has written, or it will not.


@played
async def test_aCloseWaitsForThePullProducer(world: World) -> None:
    actor, peer = await world.accept(Actor())
    producer = Producer()
    actor.transport.registerProducer(producer, False)
    actor.transport.write(b"first")
    actor.transport.loseConnection()
    assert await peer.read(5) == b"first"
    await world.turns(10)
    assert not actor.lost
    actor.transport.write(b", last")
    actor.transport.unregisterProducer()
    assert await peer.end() == b", last"
    await world.until(lambda: actor.lost)
    assert "stop" not in producer.told


@played
async def test_aCloseWaitsForThePushProducerThatIsPaused(world: World) -> None:
    def last() -> None:
        actor.transport.write(b"last")
        actor.transport.unregisterProducer()

    actor, peer = await world.accept(Actor(), receiveBuffer=4096)
    actor.transport.registerProducer(Producer(last), True)
    actor.transport.write(MEGABYTES)
    actor.transport.loseConnection()
    assert await peer.end() == MEGABYTES + b"last"
    await world.until(lambda: actor.lost)


@played
async def test_aCloseDoesNotWaitForThePushProducerThatIsNotPaused(world: World) -> None:
    actor, peer = await world.accept(Actor())
    producer = Producer()
    actor.transport.registerProducer(producer, True)
    actor.transport.loseConnection()
    assert await peer.end() == b""
    await world.until(lambda: actor.lost)
    assert producer.told == ["stop"]


@played
async def test_aHalfCloseWaitsForThePullProducer(world: World) -> None:
    actor, peer = await world.accept(Half())
    actor.transport.registerProducer(Producer(), False)
    actor.transport.write(b"first")
    actor.transport.loseWriteConnection()
    assert await peer.read(5) == b"first"
    await world.turns(10)
    assert peer.isQuiet()
    actor.transport.unregisterProducer()
    assert await peer.end() == b""
    await world.until(lambda: actor.events == ["made", "writeEnd"])


@pytest.mark.parametrize("streaming", [False, True])
@played
async def test_aProducerIsStoppedWithTheConnection(world: World, streaming: bool) -> None:
    actor, peer = await world.accept(Actor())
    producer = Producer()
    actor.transport.registerProducer(producer, streaming)
    peer.close()
    await world.until(lambda: actor.lost)
    assert producer.told[-1] == "stop"
    late = Producer()
    actor.transport.registerProducer(late, streaming)
    assert late.told == ["stop"]
    assert actor.transport.producer is None


@played
async def test_aProducerThatCannotStop(world: World, loggedErrors: LoggedErrors) -> None:
    class Obstinate(Producer):
        stopProducing = fail

    actor, peer = await world.accept(Actor())
    actor.transport.registerProducer(Obstinate(), True)
    peer.send(b"?")
    await world.until(lambda: actor.received)
    peer.socket.shutdown(socket.SHUT_WR)
    assert await peer.end() == b""
    await world.until(lambda: actor.lost)
    assert actor.why() is ConnectionDone
    loggedOnce(loggedErrors, "Actor,0,127.0.0.1")


@played
async def test_aProducerThatClosesTheSocketWhenItStops(world: World) -> None:
    class Thorough(Producer):
        def stopProducing(self) -> None:
            super().stopProducing()
            actor.transport.getHandle().close()

    actor, peer = await world.accept(Actor())
    producer = Thorough()
    actor.transport.registerProducer(producer, True)
    await world.turns(5)
    actor.transport.dropConnection(Failure(ConnectionDone()))
    assert await peer.end() == b""
    assert producer.told == ["stop"]
    assert actor.events == ["made", "lost"]


@played
async def test_stopConsuming(world: World) -> None:
    actor, peer = await world.accept(Actor())
    producer = Producer()
    actor.transport.registerProducer(producer, True)
    actor.transport.write(b"last")
    actor.transport.stopConsuming()
    assert await peer.end() == b"last"
    await world.until(lambda: actor.lost)
    assert producer.told == []


@played
async def test_stopProducing(world: World) -> None:
    actor, peer = await world.accept(Actor())
    actor.transport.write(b"last")
    actor.transport.stopProducing()
    assert await peer.end() == b"last"
    await world.until(lambda: actor.lost)


@played
async def test_aProducerThatRaises(world: World, loggedErrors: LoggedErrors) -> None:
    actor, peer = await world.accept(Actor())
    producer = Producer()
    actor.transport.registerProducer(producer, False)
    producer.resumed = fail
    actor.transport.write(b"?")
    await world.until(lambda: actor.lost)
    assert actor.why() is Expected
    assert producer.told == ["resume", "resume", "stop"]
    loggedOnce(loggedErrors, "Actor,0,127.0.0.1")
    assert await peer.end() == b"?"


# Reading


@pytest.mark.parametrize("way", ["accept", "dial"])
@pytest.mark.parametrize("end", [False, True])
@played
async def test_pausedFromTheStart(world: World, way: str, end: bool) -> None:
    actor, peer = await getattr(world, way)(Actor(made=do("pauseProducing")))
    assert not actor.transport.isReading
    peer.send(b"hello")
    if end:
        peer.socket.shutdown(socket.SHUT_WR)
    await world.turns(20)
    assert actor.events == ["made"]
    actor.transport.resumeProducing()
    assert actor.events == ["made"]
    assert actor.transport.isReading
    await world.until(lambda: actor.received == b"hello")
    if end:
        await world.until(lambda: actor.lost)
        assert actor.why() is ConnectionDone
    else:
        peer.send(b", and more")
        await world.until(lambda: actor.received == b"hello, and more")


@pytest.mark.parametrize("way", ["accept", "dial"])
@pytest.mark.parametrize("kind", ["tcp", "unix"])
@played
async def test_whoRestsFromTheStartIsNotWatched(world: World, way: str, kind: str) -> None:
    actor, peer = await getattr(world, way)(Actor(made=do("pauseProducing")), kind)
    await world.turns(10)
    assert not watched(actor.transport.fileno())
    peer.send(b"hello")
    actor.transport.resumeProducing()
    await world.until(lambda: actor.received == b"hello")
    assert watched(actor.transport.fileno())


@pytest.mark.parametrize("kind", ["tcp", "unix"])
@played
async def test_whoRestsWakesToWrite(world: World, kind: str) -> None:
    actor, peer = await world.accept(Actor(made=do("pauseProducing")), kind)
    await world.turns(10)
    peer.send(b"hello")
    actor.transport.write(b"an")
    actor.transport.write(b"swer")
    assert await peer.read(6) == b"answer"
    await world.turns(10)
    assert actor.events == ["made"]
    actor.transport.resumeProducing()
    await world.until(lambda: actor.received == b"hello")


@pytest.mark.parametrize("way", ["accept", "dial"])
@played
async def test_whoRestsWakesToClose(world: World, way: str) -> None:
    actor, peer = await getattr(world, way)(Actor(made=do("pauseProducing")))
    await world.turns(10)
    actor.transport.loseConnection()
    assert await peer.end() == b""
    await world.until(lambda: actor.lost)
    assert actor.why() is ConnectionDone


@pytest.mark.parametrize("way", ["accept", "dial"])
@played
async def test_whoRestsWakesToAbort(world: World, way: str) -> None:
    actor, peer = await getattr(world, way)(Actor(made=do("pauseProducing")))
    await world.turns(10)
    actor.transport.abortConnection()
    assert not actor.lost
    await peer.reset()
    await world.until(lambda: actor.lost)
    assert actor.why() is ConnectionAborted


@played
async def test_whoRestsWakesToHalfClose(world: World) -> None:
    actor, peer = await world.accept(Half(made=do("pauseProducing")))
    await world.turns(10)
    actor.transport.loseWriteConnection()
    assert await peer.end() == b""
    await world.until(lambda: actor.events == ["made", "writeEnd"])


@played
async def test_aPauseWithdrawnInTheSameTurn(world: World) -> None:
    def waver(actor: Actor) -> None:
        actor.transport.pauseProducing()
        actor.transport.resumeProducing()

    actor, peer = await world.accept(Actor(made=waver))
    peer.send(b"hello")
    await world.until(lambda: actor.received == b"hello")


@played
async def test_pausedInDataReceived(world: World) -> None:
    actor, peer = await world.accept(Actor(data=do("pauseProducing")))
    peer.send(b"one")
    await world.until(lambda: actor.received == b"one")
    peer.send(b", two")
    await world.turns(20)
    assert actor.received == b"one"
    actor.transport.resumeProducing()
    actor.transport.resumeProducing()
    await world.until(lambda: actor.received == b"one, two")


@pytest.mark.parametrize("kind", [Actor, Half])
@played
async def test_anEndIsNotToldWhileReadingIsPaused(world: World, kind: type[Actor]) -> None:
    # Data and FIN may come by one look of libuv's.
    actor, peer = await world.accept(kind(data=do("pauseProducing")))
    peer.send(b"one")
    peer.socket.shutdown(socket.SHUT_WR)
    await world.until(lambda: actor.received == b"one")
    await world.turns(20)
    assert actor.events == ["made", "data"]
    actor.transport.resumeProducing()
    last = "readEnd" if kind is Half else "lost"
    await world.until(lambda: actor.events == ["made", "data", last])


@played
async def test_aChunkThatIsHeldIsDeliveredInATurnOfItsOwn(world: World) -> None:
    actor, peer = await held(world)
    actor.transport.resumeProducing()
    assert actor.received == b""
    await world.until(lambda: actor.received == b"hello")
    assert actor.chunks == [b"hello"]
    peer.send(b"more")
    await world.until(lambda: actor.received == b"hellomore")


async def held(world: World, kind: type[Actor] = Actor, end: bool = False, **reactions: Any) -> tuple[Any, Any]:
    """A stream that was paused from the start and has written: one chunk is held, behind which an end may come."""
    actor = kind(made=both(do("pauseProducing"), write(b"!")), **reactions)
    actor, peer = await world.accept(actor)
    peer.send(b"hello")
    if end:
        peer.socket.shutdown(socket.SHUT_WR)
    assert await peer.read(1) == b"!"
    await world.until(lambda: actor.transport._held is not None)
    await world.turns(10)
    assert actor.events == ["made"]
    return actor, peer


@played
async def test_aPauseIsTakenBackAndRenewed(world: World) -> None:
    actor, peer = await held(world)
    actor.transport.resumeProducing()
    actor.transport.pauseProducing()
    await world.turns(10)
    assert actor.received == b""
    actor.transport.resumeProducing()
    actor.transport.pauseProducing()
    actor.transport.resumeProducing()
    await world.until(lambda: actor.received == b"hello")
    peer.send(b", and more")
    await world.until(lambda: actor.received == b"hello, and more")


@pytest.mark.parametrize("kind", [Actor, Half])
@played
async def test_aChunkIsHeldAndThenTheEndComes(world: World, kind: type[Actor]) -> None:
    actor, _ = await held(world, kind, True)
    actor.transport.resumeProducing()
    last = "readEnd" if kind is Half else "lost"
    await world.until(lambda: actor.events == ["made", "data", last])
    assert actor.received == b"hello"


@pytest.mark.parametrize("kind", [Actor, Half])
@played
async def test_anEndIsHeld(world: World, kind: type[Actor]) -> None:
    actor, peer = await world.accept(kind(made=both(do("pauseProducing"), write(b"!"))))
    peer.socket.shutdown(socket.SHUT_WR)
    await world.until(lambda: actor.transport._heldEnd)
    await world.turns(10)
    assert actor.events == ["made"]
    actor.transport.resumeProducing()
    last = "readEnd" if kind is Half else "lost"
    await world.until(lambda: actor.events == ["made", last])
    assert await peer.read(1) == b"!"


@played
async def test_pausedAgainByTheChunkThatWasHeld(world: World) -> None:
    actor, _ = await held(world, Half, True, data=do("pauseProducing"))
    actor.transport.resumeProducing()
    await world.until(lambda: actor.received)
    await world.turns(10)
    assert actor.events == ["made", "data"]
    actor.transport.resumeProducing()
    await world.until(lambda: actor.events == ["made", "data", "readEnd"])


@played
async def test_lostByTheChunkThatWasHeld(world: World, loggedErrors: LoggedErrors) -> None:
    actor, _ = await held(world, Half, True, data=fail)
    actor.transport.resumeProducing()
    await world.until(lambda: actor.lost)
    await world.turns(5)
    assert actor.events == ["made", "data", "lost"]
    loggedOnce(loggedErrors, "Half,0,127.0.0.1")


@pytest.mark.parametrize("end", ["loseConnection", "abortConnection"])
@played
async def test_whatIsHeldIsNotDeliveredToOneThatCloses(world: World, end: str) -> None:
    actor, peer = await held(world)
    actor.transport.resumeProducing()
    do(end)(actor)
    await peer.reset()  # since it lay unread
    await world.until(lambda: actor.lost)
    assert actor.events == ["made", "lost"]


@played
async def test_noReadingAfterTheEnd(world: World) -> None:
    actor, peer = await world.accept(Half())
    peer.socket.shutdown(socket.SHUT_WR)
    await world.until(lambda: "readEnd" in actor.events)
    assert not actor.transport.isReading
    actor.transport.pauseProducing()
    actor.transport.resumeProducing()
    await world.turns(10)
    assert actor.events == ["made", "readEnd"]
    peer.close()
    actor.transport.loseConnection()
    await world.until(lambda: actor.lost)
    actor.transport.resumeProducing()
    actor.transport.pauseProducing()
    assert actor.events == ["made", "readEnd", "lost"]


@played
async def test_noReadingWhileItCloses(world: World) -> None:
    actor, peer = await world.accept(Actor(), receiveBuffer=4096)
    actor.transport.write(MEGABYTES)
    actor.transport.loseConnection()
    actor.transport.resumeProducing()
    assert not actor.transport.isReading
    peer.send(b"too late")
    await world.turns(20)
    assert actor.events == ["made"]
    assert await peer.read(len(MEGABYTES)) == MEGABYTES


@played
async def test_dataReceivedIsLookedUpEachTime(world: World) -> None:
    heard: list[bytes] = []
    actor, peer = await world.accept(Actor(data=lambda actor, data: setattr(actor, "dataReceived", heard.append)))
    peer.send(b"one")
    await world.until(lambda: actor.received == b"one")
    peer.send(b"two")
    await world.until(lambda: heard == [b"two"])
    other = Actor()
    actor.transport.protocol = other
    peer.send(b"three")
    await world.until(lambda: other.received == b"three")


# Closing


@pytest.mark.parametrize("kind", ["tcp", "unix"])
@played
async def test_closingSendsEverything(world: World, kind: str) -> None:
    actor, peer = await world.accept(Actor(data=lambda actor, data: end(actor)), kind, receiveBuffer=4096)

    def end(actor: Actor) -> None:
        actor.transport.write(MEGABYTES)
        actor.transport.loseConnection()
        actor.transport.loseConnection()

    peer.send(b"?")
    await world.until(lambda: actor.received)
    await world.turns(10)
    assert actor.transport.disconnecting
    assert actor.transport.ending
    assert not actor.lost
    assert await peer.end() == MEGABYTES
    await world.until(lambda: actor.lost)
    assert actor.why() is ConnectionDone
    assert actor.transport.lossErrno is None


@pytest.mark.parametrize("way", ["accept", "dial"])
@pytest.mark.parametrize("written", [b"", b"goodbye"])
@played
async def test_closedWhenItWasMade(world: World, way: str, written: bytes) -> None:
    actor, peer = await getattr(world, way)(Actor(made=both(write(written), do("loseConnection"))))
    assert await peer.end() == written
    await world.until(lambda: actor.lost)
    assert actor.why() is ConnectionDone


@pytest.mark.parametrize("way", ["accept", "dial"])
@pytest.mark.parametrize("kind", ["tcp", "unix"])
@played
async def test_abortedWhenItWasMade(world: World, way: str, kind: str) -> None:
    def abort(actor: Actor) -> None:
        actor.transport.write(b"dropped")
        actor.transport.abortConnection()
        actor.transport.abortConnection()
        assert not actor.lost
        actor.transport.write(b"dropped")

    actor, peer = await getattr(world, way)(Actor(made=abort), kind)
    assert await (peer.reset() if kind == "tcp" else peer.end()) == b""
    await world.until(lambda: actor.lost)
    assert actor.why() is ConnectionAborted
    actor.transport.abortConnection()
    actor.transport.loseConnection()
    actor.transport.loseWriteConnection()
    await world.turns(5)
    assert actor.events == ["made", "lost"]


@pytest.mark.parametrize("ending", ["abortConnection", "relinquish"])
@played
async def test_overBetweenTheTurnsInWhichUvloopTakesIt(world: World, ending: str) -> None:
    # This one comes right behind what hands the socket over, and before uvloop says that it has it.
    actor, peer = await world.accept(Actor(made=lambda actor: world.reactor.soon(do(ending), actor)))
    await world.turns(5)
    if ending == "relinquish":
        assert await peer.end() == b""
        actor.transport.dropConnection(Failure(ConnectionDone()))
    else:
        await peer.reset()
    await world.until(lambda: actor.lost)
    assert actor.events == ["made", "lost"]


@played
async def test_droppedBetweenTheTurnsInWhichUvloopTakesIt(world: World) -> None:
    drop = do("dropConnection", Failure(ConnectionDone()))
    actor, peer = await world.accept(Actor(made=lambda actor: world.reactor.soon(drop, actor)))
    assert await peer.end() == b""
    assert actor.events == ["made", "lost"]


@pytest.mark.parametrize("paused", [False, True])
@played
async def test_abort(world: World, paused: bool) -> None:
    def abort(actor: Actor, data: bytes) -> None:
        if paused:
            actor.transport.pauseProducing()
        actor.transport.write(b"dropped")
        actor.transport.abortConnection()

    def lost(actor: Actor, reason: object) -> None:
        with pytest.raises(ConnectionResetError):
            peer.socket.recv(1)
        heard.append("reset")

    heard: list[str] = []
    actor, peer = await world.accept(Actor(data=abort, lost=lost))
    peer.send(b"?")
    await world.until(lambda: actor.lost)
    assert heard == ["reset"], "the protocol is told when RST is out"
    assert actor.why() is ConnectionAborted
    assert actor.transport.lossErrno is None


@played
async def test_abortDropsWhatIsUnsent(world: World) -> None:
    actor, peer = await world.accept(Actor(), receiveBuffer=4096)
    actor.transport.write(MEGABYTES)
    actor.transport.loseConnection()
    await world.turns(5)
    actor.transport.abortConnection()
    await world.until(lambda: actor.lost)
    assert actor.why() is ConnectionAborted
    assert len(await peer.reset()) < len(MEGABYTES)


@played
async def test_abortIsStrongerThanAnEndThatComesWithIt(world: World) -> None:
    actor, peer = await world.accept(Actor(data=do("abortConnection")))
    peer.send(b"?")
    peer.socket.shutdown(socket.SHUT_WR)
    await world.until(lambda: actor.lost)
    assert actor.why() is ConnectionAborted


@pytest.mark.parametrize("unread", [False, True])
@pytest.mark.parametrize("way", ["accept", "dial"])
@played
async def test_drop(world: World, way: str, unread: bool) -> None:
    actor, peer = await getattr(world, way)(Actor())
    actor.transport.pauseProducing()
    await world.turns(5)
    actor.transport.pauseProducing()
    if unread:
        peer.send(b"unread")
        await world.turns(5)
    actor.transport.write(b"dropped")
    reason = Failure(Expected())
    actor.transport.dropConnection(reason)
    assert actor.events == ["made", "lost"]
    assert actor.reason is reason
    assert await (peer.reset() if unread else peer.end()) == b""
    actor.transport.dropConnection(reason)
    assert actor.events == ["made", "lost"]


@played
async def test_dropOfWhatIsHeld(world: World) -> None:
    actor, peer = await held(world)
    actor.transport.dropConnection(Failure(ConnectionDone()))
    await peer.reset()
    assert actor.events == ["made", "lost"]


@played
async def test_dropOfWhatThePeerHasReset(world: World) -> None:
    actor, peer = await world.accept(Actor())
    await world.turns(5)
    peer.close(reset=True)
    actor.transport.dropConnection(Failure(ConnectionDone()))
    await world.turns(5)
    assert actor.events == ["made", "lost"]


@played
async def test_dropIsStrongerThanAbort(world: World) -> None:
    actor, peer = await world.accept(Actor())
    await world.turns(5)
    actor.transport.abortConnection()
    actor.transport.dropConnection(Failure(ConnectionDone()))
    await peer.reset()
    await world.turns(5)
    assert actor.events == ["made", "lost"]
    assert actor.why() is ConnectionDone


@pytest.mark.parametrize("kind", ["tcp", "unix"])
@played
async def test_loseWriteConnection(world: World, kind: str) -> None:
    def ended(actor: Actor) -> None:
        left.append(actor.transport.isWriting)

    left: list[bool] = []
    actor, peer = await world.accept(Half(writeEnd=ended), kind, receiveBuffer=4096)
    actor.transport.write(MEGABYTES)
    actor.transport.loseWriteConnection()
    actor.transport.loseWriteConnection()
    assert actor.transport.ending
    actor.transport.write(b"still sent")
    await world.turns(10)
    assert actor.events == ["made"]
    assert await peer.end() == MEGABYTES + b"still sent"
    await world.until(lambda: actor.events == ["made", "writeEnd"])
    assert left == [False]
    actor.transport.write(b"dropped")
    actor.transport.writeSequence([b"dropped"])
    actor.transport.loseWriteConnection()
    peer.send(b"the other half")
    await world.until(lambda: actor.received == b"the other half")
    actor.transport.loseConnection()
    assert actor.events == ["made", "writeEnd", "data", "lost"]


@played
async def test_loseWriteConnectionOfAProtocolThatKnowsNoHalves(world: World) -> None:
    actor, peer = await world.accept(Actor(made=do("loseWriteConnection")))
    assert await peer.end() == b""
    peer.send(b"the other half")
    await world.until(lambda: actor.received == b"the other half")
    peer.close()
    await world.until(lambda: actor.lost)
    assert actor.events == ["made", "data", "lost"]


@played
async def test_loseWriteConnectionWhenThePeerHasGone(world: World) -> None:
    actor, peer = await world.accept(Half())
    await world.turns(5)
    actor.transport.pauseProducing()
    peer.close(reset=True)
    actor.transport.loseWriteConnection()
    await world.until(lambda: "writeEnd" in actor.events)
    actor.transport.loseConnection()
    assert actor.lost


@played
async def test_bothHalves(world: World) -> None:
    actor, peer = await world.accept(Half(readEnd=do("loseConnection")))
    actor.transport.write(b"answer")
    peer.socket.shutdown(socket.SHUT_WR)
    assert await peer.end() == b"answer"
    await world.until(lambda: actor.lost)
    assert actor.events == ["made", "readEnd", "lost"]
    assert actor.why() is ConnectionDone


@pytest.mark.parametrize("way", ["accept", "dial"])
@pytest.mark.parametrize("kind", ["tcp", "unix"])
@played
async def test_halfClosedByThePeer(world: World, way: str, kind: str) -> None:
    actor, peer = await getattr(world, way)(Half(), kind)
    peer.send(b"question")
    peer.socket.shutdown(socket.SHUT_WR)
    await world.until(lambda: actor.events == ["made", "data", "readEnd"])
    actor.transport.write(b"answer")
    assert await peer.read(6) == b"answer"
    assert not actor.lost
    actor.transport.loseConnection()
    assert await peer.end() == b""


@played
async def test_halfClosedByThePeerOfAProtocolThatKnowsNoHalves(world: World) -> None:
    actor, peer = await world.accept(Actor())
    peer.socket.shutdown(socket.SHUT_WR)
    await world.until(lambda: actor.lost)
    assert actor.why() is ConnectionDone
    assert await peer.end() == b""


@played
async def test_reset(world: World) -> None:
    actor, peer = await world.accept(Actor())
    await world.turns(5)
    peer.close(reset=True)
    await world.until(lambda: actor.lost)
    assert actor.why() is ConnectionLost
    assert actor.transport.lossErrno == errno.ECONNRESET


@played
async def test_brokenPipe(world: World) -> None:
    actor, peer = await world.accept(Actor(), "unix")
    await world.turns(5)
    actor.transport.pauseProducing()
    peer.close()
    actor.transport.write(b"?")
    await world.until(lambda: actor.lost)
    assert actor.why() is ConnectionLost
    assert actor.transport.lossErrno == errno.EPIPE


@played
async def test_theSocketObjectIsClosed(world: World) -> None:
    actor, peer = await world.accept(Actor())
    await world.turns(5)
    actor.transport.socket.close()
    actor.transport.socket.close()
    assert actor.events == ["made"]
    assert await peer.end() == b""
    await world.until(lambda: actor.lost)
    assert actor.why() is ConnectionLost


@played
async def test_writeConnectionLostIsTheEnd(world: World) -> None:
    actor, _ = await world.accept(Half())
    actor.transport.writeConnectionLost(Failure(ConnectionDone()))
    assert actor.events == ["made", "lost"]


# What the engine of this package asks for


@played
async def test_silence(world: World) -> None:
    actor, peer = await world.accept(Actor())
    await world.turns(5)
    actor.transport.write(b"dropped")
    actor.transport.silence()
    peer.send(b"unread")
    await world.turns(20)
    assert actor.events == ["made"]
    assert peer.isQuiet()
    assert not actor.transport.isReading
    assert not actor.transport.isWriting
    actor.transport.dropConnection(Failure(ConnectionDone()))
    await peer.reset()


@played
async def test_stopWritingKeepsWhatIsGathered(world: World) -> None:
    actor, peer = await world.accept(Actor())
    await world.turns(5)
    actor.transport.startWriting()
    actor.transport.stopWriting()
    await world.turns(2)
    assert not actor.transport.isWriting
    actor.transport.write(b"sent")
    assert await peer.read(4) == b"sent"


@pytest.mark.parametrize("unborn", [False, True])
@played
async def test_relinquish(world: World, unborn: bool) -> None:
    actor, peer = await world.accept(Actor(made=do("pauseProducing") if unborn else lambda actor: None))
    await world.turns(5)
    number = actor.transport.fileno()
    actor.transport.write(b"dropped")
    actor.transport.relinquish()
    if unborn:
        assert not Path(f"/proc/self/fd/{number}").exists()
        assert await peer.end() == b""
    assert actor.events == ["made"]
    actor.transport.dropConnection(Failure(ConnectionDone()))
    assert actor.events == ["made", "lost"]
    assert await peer.end() == b""


@played
async def test_finishWriting(world: World) -> None:
    actor, peer = await world.accept(Half())
    actor.transport.write(b"all of it")
    assert await peer.read(9)
    actor.transport.startWriting()
    actor.transport.finishWriting()
    assert peer.socket.recv(1) == b""
    assert actor.transport.ending
    actor.transport.write(b"dropped")
    peer.send(b"the other half")
    await world.until(lambda: actor.received == b"the other half")
    assert actor.events == ["made", "data"]


@played
async def test_finishWritingWhenThePeerHasGone(world: World) -> None:
    actor, peer = await world.accept(Half())
    await world.turns(5)
    actor.transport.pauseProducing()
    peer.close(reset=True)
    actor.transport.finishWriting()
    actor.transport.loseConnection()
    assert actor.events == ["made", "lost"]


@played
async def test_sendNow(world: World) -> None:
    actor, peer = await world.accept(Actor(), receiveBuffer=4096)
    assert actor.transport.sendNow(b"early, ") == 7, "uvloop has not got it yet"
    await world.turns(5)
    assert actor.transport.sendNow(b"at once") == 0
    assert peer.socket.recv(100) == b"early, at once"
    unsent = actor.transport.sendNow(MEGABYTES)
    assert 0 < unsent < len(MEGABYTES)
    assert actor.transport.sendNow(b"behind") == 6
    actor.transport.write(b" them")
    assert actor.transport.sendNow(b" all") == 4
    actor.transport.loseConnection()
    assert actor.transport.sendNow(b", closing") == 9
    assert await peer.end() == MEGABYTES + b"behind them all, closing"
    await world.until(lambda: actor.lost)
    assert actor.transport.sendNow(b"dropped") == 7


@played
async def test_sendNowBehindWhatIsGathered(world: World) -> None:
    actor, peer = await world.accept(Actor())
    await world.turns(5)
    actor.transport.write(b"first, ")
    assert actor.transport.sendNow(b"second") == 6
    assert peer.isQuiet()
    assert await peer.read(13) == b"first, second"
    actor.transport.loseWriteConnection()
    assert actor.transport.sendNow(b"last") == 4
    assert await peer.end() == b"last"
    assert actor.transport.sendNow(b"dropped") == 7


@played
async def test_sendNowToAPeerThatHasGone(world: World) -> None:
    actor, peer = await world.accept(Actor())
    await world.turns(5)
    peer.close(reset=True)
    assert actor.transport.sendNow(b"lost") == 4
    await world.until(lambda: actor.lost)
    assert actor.why() is ConnectionLost


@played
async def test_tellDrained(world: World) -> None:
    actor, peer = await world.accept(Actor(), receiveBuffer=4096)
    drains = Producer()
    actor.transport.tellDrained(drains)
    assert drains.told == ["resume"]
    actor.transport.write(MEGABYTES)
    await world.turns(10)
    assert drains.told == ["resume"]
    await peer.read(len(MEGABYTES))
    await world.until(lambda: len(drains.told) == 2)
    await world.turns(10)
    assert len(drains.told) == 2
    actor.transport.nudge()
    await world.until(lambda: len(drains.told) == 3)
    actor.transport.tellDrainedNoMore()
    actor.transport.write(b"?")
    actor.transport.nudge()
    assert await peer.read(1) == b"?"
    await world.turns(10)
    assert drains.told == ["resume"] * 3


# What protocols raise


@pytest.mark.parametrize("way", ["accept", "dial"])
@played
async def test_dataReceivedRaises(world: World, loggedErrors: LoggedErrors, way: str) -> None:
    actor, peer = await getattr(world, way)(Actor(data=fail))
    peer.send(b"?")
    await world.until(lambda: actor.lost)
    assert actor.why() is Expected
    loggedOnce(loggedErrors, "Actor,0,127.0.0.1" if way == "accept" else "Actor,client")
    assert await peer.end() == b""


@played
async def test_dataReceivedRaisesWhenItHasWritten(world: World, loggedErrors: LoggedErrors) -> None:
    actor, peer = await world.accept(Actor(data=both(write(b"dropped"), fail)))
    peer.send(b"?")
    await world.until(lambda: actor.lost)
    assert await peer.end() == b""
    loggedOnce(loggedErrors, "Actor,0,127.0.0.1")


@played
async def test_dataReceivedRaisesWhenItHasEndedTheConnection(world: World, loggedErrors: LoggedErrors) -> None:
    drop = do("dropConnection", Failure(ConnectionDone()))
    actor, peer = await world.accept(Actor(data=both(drop, fail)))
    peer.send(b"?")
    await world.until(lambda: actor.lost)
    await world.turns(3)
    assert actor.events == ["made", "data", "lost"]
    assert actor.why() is ConnectionDone
    loggedOnce(loggedErrors, "Actor,0,127.0.0.1")


@pytest.mark.parametrize("event", ["readEnd", "writeEnd"])
@played
async def test_anEndOfAHalfRaises(world: World, loggedErrors: LoggedErrors, event: str) -> None:
    actor, peer = await world.accept(Half(**{event: fail}))
    if event == "readEnd":
        peer.socket.shutdown(socket.SHUT_WR)
    else:
        actor.transport.loseWriteConnection()
    await world.until(lambda: actor.lost)
    assert actor.events == ["made", event, "lost"]
    assert actor.why() is Expected
    loggedOnce(loggedErrors, "Half,0,127.0.0.1")


@pytest.mark.parametrize("end", ["peer", "loseConnection", "abortConnection"])
@pytest.mark.parametrize("way", ["accept", "dial"])
@played
async def test_connectionLostRaises(world: World, loggedErrors: LoggedErrors, way: str, end: str) -> None:
    actor, peer = await getattr(world, way)(Actor(lost=fail))
    await world.turns(5)
    if end == "peer":
        peer.close()
    else:
        do(end)(actor)
    await world.until(lambda: actor.lost)
    await world.turns(5)
    assert actor.events == ["made", "lost"]
    loggedOnce(loggedErrors, "Actor,0,127.0.0.1" if way == "accept" else "Actor,client")


@played
async def test_everythingRaises(world: World, loggedErrors: LoggedErrors) -> None:
    actor, peer = await world.accept(Actor(data=fail, lost=fail))
    peer.send(b"?")
    await world.until(lambda: actor.lost)
    assert actor.events == ["made", "data", "lost"]
    events = loggedErrors.flush("Expected")
    assert [event["log_system"] for event in events] == ["Actor,0,127.0.0.1"] * 2
    assert ["data" in text(event) for event in events]


# Whose log it is


@pytest.mark.parametrize("way", ["accept", "dial"])
@played
async def test_logContext(world: World, way: str) -> None:
    def note(actor: Actor, *args: object) -> None:
        systems.append(context.get(log.ILogContext)["system"])
        extra.append(context.get("extra"))

    systems: list[str] = []
    extra: list[Any] = []
    actor, peer = await getattr(world, way)(Half(data=note, readEnd=note, writeEnd=note, lost=note))
    before = context.get(log.ILogContext)
    peer.send(b"?")
    await world.until(lambda: systems)
    peer.socket.shutdown(socket.SHUT_WR)
    await world.until(lambda: len(systems) == 2)
    actor.transport.loseWriteConnection()
    await world.until(lambda: len(systems) == 3)
    actor.transport.abortConnection()
    await world.until(lambda: actor.lost)
    assert systems == ["Half,0,127.0.0.1" if way == "accept" else "Half,client"] * 4
    assert context.get(log.ILogContext) is before


@pytest.mark.parametrize("way", ["accept", "dial"])
@played
async def test_logPrefix(world: World, way: str) -> None:
    class Named(Actor):
        def logPrefix(self) -> str:
            return "name"

    actor, _ = await getattr(world, way)(Named())
    prefix = "name,0,127.0.0.1" if way == "accept" else "name,client"
    assert actor.transport.logPrefix() == actor.transport.logstr == prefix
    actor.transport.dropConnection(Failure(ConnectionDone()))
    assert actor.transport.logPrefix() == prefix
    actor.transport.logstr = "other"
    assert actor.transport.logPrefix() == "other"


# Options


@pytest.mark.parametrize("way", ["accept", "dial"])
@played
async def test_options(world: World, way: str) -> None:
    actor, _ = await getattr(world, way)(Actor())
    await world.turns(10)
    transport = actor.transport
    for get, put in (
        (transport.getTcpNoDelay, transport.setTcpNoDelay),
        (transport.getTcpKeepAlive, transport.setTcpKeepAlive),
    ):
        assert get() is False
        put(True)
        assert get() is True
        put(0)
        assert get() is False


@pytest.mark.parametrize("way", ["accept", "dial"])
@played
async def test_optionsOfConnectionMadeStay(world: World, way: str) -> None:
    actor, peer = await getattr(world, way)(Actor(made=both(do("setTcpNoDelay", 1), do("setTcpKeepAlive", 1))))
    peer.send(b"?")
    await world.until(lambda: actor.received)
    assert actor.transport.getTcpNoDelay()
    assert actor.transport.getTcpKeepAlive()


@played
async def test_optionsOfTheListenerStay(world: World) -> None:
    actor = Actor()
    port = world.listen(Hands(actor))
    port.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    port.socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    peer = world.peer(socket.create_connection(port.socket.getsockname()))
    peer.send(b"?")
    await world.until(lambda: actor.received)
    assert actor.transport.getTcpNoDelay()
    assert actor.transport.getTcpKeepAlive()
    await port.stopListening()


# TLS


@pytest.mark.tls
@pytest.mark.parametrize("kind", ["tcp", "unix"])
@pytest.mark.parametrize("clientIsServer", [False, True])
@played
async def test_startTls(world: World, kind: str, clientIsServer: bool) -> None:
    server = Actor(data=lambda actor, data: actor.transport.write(data))
    client = Actor()
    await world.meet(server, client, kind)
    shows, trusts = (client, server) if clientIsServer else (server, client)
    shows.transport.startTLS(selfSigned().forServer(), not clientIsServer)
    trusts.transport.startTLS(selfSigned().forClient(), not clientIsServer)
    assert client.transport.TLS
    client.transport.write(b"hello")
    client.transport.writeSequence([b", ", b"world"])
    await world.until(lambda: client.received == b"hello, world")
    large = MEGABYTES[: 1 << 20]
    client.transport.write(large)
    await world.until(lambda: len(client.received) == len(large) + 12)
    client.transport.loseConnection()
    client.transport.loseConnection()
    await world.until(lambda: client.lost and server.lost)
    assert client.why() is server.why() is ConnectionDone
    client.transport.write(b"dropped")
    client.transport.writeSequence([b"dropped"])
    client.transport.loseConnection()


@pytest.mark.tls
@played
async def test_tlsProducers(world: World) -> None:
    server, client = Actor(), Actor()
    await world.meet(server, client)
    server.transport.startTLS(selfSigned().forServer())
    client.transport.startTLS(selfSigned().forClient())
    server.transport.pauseProducing()
    producer = Producer()
    client.transport.registerProducer(producer, True)
    client.transport.write(MEGABYTES)
    await world.until(lambda: "pause" in producer.told)
    server.transport.resumeProducing()
    await world.until(lambda: producer.told[-1] == "resume" and len(server.received) == len(MEGABYTES))
    client.transport.unregisterProducer()

    def more() -> None:
        client.transport.write(b"more")
        if pulled.told.count("resume") == 3:
            client.transport.unregisterProducer()
            client.transport.loseConnection()

    pulled = Producer(more)
    client.transport.registerProducer(pulled, False)
    await world.until(lambda: server.lost and client.lost)
    assert server.received == MEGABYTES + b"more" * 3


@pytest.mark.tls
@played
async def test_whatWasWrittenBeforeTlsComesBeforeIt(world: World) -> None:
    def begin(actor: Actor) -> None:
        actor.transport.write(b"220 ")
        actor.transport.writeSequence([b"go ", b"ahead"])
        actor.transport.startTLS(selfSigned().forClient())

    _, peer = await world.dial(Actor(made=begin))
    assert await peer.read(14) == b"220 go ahead" + b"\x16\x03", "a record of the handshake (RFC 8446, 5.1)"


@pytest.mark.tls
@played
async def test_aProducerFromBeforeTls(world: World) -> None:
    server, client = Actor(), Actor()
    await world.meet(server, client)
    producer = Producer()
    client.transport.registerProducer(producer, True)
    server.transport.startTLS(selfSigned().forServer())
    client.transport.startTLS(selfSigned().forClient())
    server.transport.pauseProducing()
    client.transport.write(MEGABYTES)
    await world.until(lambda: "pause" in producer.told)
    server.transport.resumeProducing()
    await world.until(lambda: producer.told[-1] == "resume" and len(server.received) == len(MEGABYTES))
    client.transport.unregisterProducer()


@pytest.mark.tls
@played
async def test_tellDrainedBelowTls(world: World) -> None:
    server, client = Actor(), Actor()
    await world.meet(server, client)
    server.transport.startTLS(selfSigned().forServer())
    client.transport.startTLS(selfSigned().forClient())
    client.transport.write(b"?")
    await world.until(lambda: server.received)
    drains = Producer()
    client.transport.tellDrained(drains)
    server.transport.pauseProducing()
    client.transport.write(MEGABYTES)
    await world.turns(20)
    assert drains.told == ["resume"]
    server.transport.resumeProducing()
    await world.until(lambda: len(server.received) == len(MEGABYTES) + 1 and len(drains.told) == 2)
    client.transport.tellDrainedNoMore()


@pytest.mark.tls
@played
async def test_belowTls(world: World) -> None:
    actor, peer = await world.accept(Actor())
    actor.transport.startTLS(selfSigned().forServer())
    below = actor.transport.protocol.transport
    below.write(b"no ")
    below.writeSequence([b"record", b" at all"])
    assert await peer.read(16) == b"no record at all"
    below.loseConnection()
    assert await peer.end() == b""
    await world.until(lambda: actor.lost)


@pytest.mark.tls
@played
async def test_tlsAborts(world: World) -> None:
    server, client = Actor(), Actor(data=do("abortConnection"))
    await world.meet(server, client)
    server.transport.startTLS(selfSigned().forServer())
    client.transport.startTLS(selfSigned().forClient())
    server.transport.write(b"?")
    await world.until(lambda: server.lost and client.lost)
    assert client.why() is server.why() is ConnectionLost  # TLS puts its own reason in the place of ours


@pytest.mark.tls
@played
async def test_aRecordLeavesAsOne(world: World) -> None:
    server, client = Actor(data=write(b"a", b"b", b"c")), Actor()
    await world.meet(server, client)
    server.transport.startTLS(selfSigned().forServer())
    client.transport.startTLS(selfSigned().forClient())
    client.transport.write(b"?")
    await world.until(lambda: client.received == b"abc")
    server.transport.setTcpNoDelay(True)
    below = server.transport.socket
    await world.turns(10)
    before = segments(below)
    client.transport.write(b"?")
    await world.until(lambda: client.received == b"abcabc")
    assert segments(below) - before == 1
