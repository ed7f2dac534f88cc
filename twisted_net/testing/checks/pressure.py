"""What a transport owes under pressure: who does not read is not sent everything, and who writes is told to wait.

The words are Twisted's: a transport is an ``IPushProducer`` of what it receives and an ``IConsumer`` of what it sends.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IPullProducer, IPushProducer
from twisted.internet.task import deferLater
from zope.interface import implementer

from twisted_net.testing.checks.conformance import Check
from twisted_net.testing.checks.stream import MUCH, pattern
from twisted_net.testing.checks.subject import QUIET, Subject
from twisted_net.testing.peers import Peer

checkPressure = Check("pressure", "stream")

CHUNK = 65536
"""Bytes that the producers write at a time."""

BOUND = 16 * 1024 * 1024
"""Bytes that may be written to a peer who does not read: tcp(7) gives 4 MiB to send and 6 MiB to receive at most, and
the transport has some of its own."""


@checkPressure.case()
async def aPauseHoldsTheBytes(subject: Subject) -> None:
    """After pauseProducing nothing is received until resumeProducing, and then exactly what was held
    (IPushProducer)."""
    async with subject.connection() as (client, server):
        server.pauses()
        client.sends(b"held")
        await server.hearsNothing(QUIET)
        server.resumes()
        await server.hears(b"held")


@checkPressure.case()
async def pausesAreNotCounted(subject: Subject) -> None:
    """One resumeProducing ends any number of pauses, and one too many does no harm (IPushProducer)."""
    async with subject.connection() as (client, server):
        server.resumes()
        server.pauses()
        server.pauses()
        client.sends(b"held")
        await server.hearsNothing(QUIET)
        server.resumes()
        await server.hears(b"held")
        server.resumes()
        client.sends(b"more")
        await server.hears(b"more")


@checkPressure.case("prompt")
async def aPauseInDataReceivedHoldsTheRest(subject: Subject) -> None:
    """pauseProducing inside of dataReceived: not one segment more comes (IPushProducer.pauseProducing)."""
    async with subject.connection() as (client, server):
        server.reacts("data", server.pauses)
        client.sends(pattern(MUCH))
        while not server.count("data"):
            await deferLater(subject.reactor, QUIET, lambda: None)
        await deferLater(subject.reactor, QUIET, lambda: None)
        assert server.count("data") == 1, server.tells()


@checkPressure.case()
async def aReaderWhoPausesAllTheTimeLosesNothing(subject: Subject) -> None:
    """Whoever pauses at each segment and resumes in a later turn receives everything, in order (IPushProducer)."""
    async with subject.connection() as (client, server):

        def rest() -> None:
            server.transport.pauseProducing()
            subject.reactor.callLater(0, server.transport.resumeProducing)

        server.reacts("data", rest)
        client.sends(pattern(MUCH))
        await server.hears(pattern(MUCH))


@checkPressure.case("immediate")
async def aPauseInConnectionMadeHoldsTheFirstByte(subject: Subject) -> None:
    """pauseProducing inside of connectionMade holds the first byte, on both ends (IPushProducer; twisted#1780)."""
    async with subject.stage() as stage:
        await stage.listens()
        client, server = await stage.connects(
            lambda peer: peer.reacts("made", peer.pauses), lambda peer: peer.reacts("made", peer.pauses)
        )
        client.sends(b"to the server")
        server.sends(b"to the client")
        await client.hearsNothing(QUIET)
        await server.hearsNothing(QUIET)
        client.resumes()
        server.resumes()
        await client.hears(b"to the client")
        await server.hears(b"to the server")


@checkPressure.case()
async def aPauseHoldsTheCloseAsWell(subject: Subject) -> None:
    """Who has paused hears of the peer's close after the bytes before it, when he reads again (IPushProducer)."""
    async with subject.connection() as (client, server):
        server.pauses()
        client.sends(b"last words")
        client.closes()
        await server.hearsNothing(QUIET)
        server.resumes()
        assert await server.hearsAll() == b"last words"


@checkPressure.case()
async def aProducerIsPausedWhenThePeerDoesNotRead(subject: Subject) -> None:
    """A push producer is paused when the peer does not read, before more is written than buffers hold, and resumed when
    he does; nothing is lost (IConsumer.registerProducer, IPushProducer)."""
    async with subject.connection() as (client, server):
        server.pauses()
        producer = _Push(client, subject.reactor)
        client.transport.registerProducer(producer, True)
        quiet = False
        while not quiet:
            await producer.pauses()
            written = producer.written
            assert written <= BOUND, f"{written} bytes were written to a peer who does not read"
            await deferLater(subject.reactor, QUIET, lambda: None)
            quiet = producer.written == written  # a kernel's buffers may grow meanwhile, and take some more
        assert producer.paused, "it was resumed although nobody reads, and writes nothing"
        server.resumes()
        await producer.resumes()
        producer.finishes()
        await server.hears(pattern(producer.written))


@checkPressure.case()
async def aPullProducerIsAskedUntilItHasFinished(subject: Subject) -> None:
    """A pull producer is asked again when what it wrote is sent, until it unregisters (IPullProducer)."""
    async with subject.connection() as (client, server):
        producer = _Pull(client, asked=20)
        client.transport.registerProducer(producer, False)
        await server.hears(pattern(20 * CHUNK))
        assert not producer.left, f"it was asked {producer.left} times too few"
        client.sends(b"then")
        await server.hears(b"then")


@checkPressure.case()
async def aSecondProducerIsRefused(subject: Subject) -> None:
    """registerProducer raises RuntimeError while another producer is registered (IConsumer.registerProducer)."""
    async with subject.connection() as (client, _):
        client.transport.registerProducer(Idle(), True)
        try:
            client.transport.registerProducer(Idle(), True)
        except RuntimeError:
            client.transport.unregisterProducer()
            client.transport.registerProducer(Idle(), True)
        else:
            raise AssertionError("a second producer was registered")


@checkPressure.case("abort")
async def aProducerIsStoppedWhenTheConnectionIsLost(subject: Subject) -> None:
    """When the connection is lost, its producer is told stopProducing, once (IProducer.stopProducing)."""
    async with subject.connection() as (client, server):
        producer = Idle()
        client.transport.registerProducer(producer, True)
        server.aborts()
        client.aborts()
        await client.hears("gone")
        assert producer.stops == 1, f"it was told {producer.stops} times"


@checkPressure.case()
async def aProducerOfAGoneConnectionIsStopped(subject: Subject) -> None:
    """A producer that is registered with a connection that is gone is told stopProducing at once
    (IConsumer.registerProducer)."""
    async with subject.connection() as (client, server):
        client.closes()
        server.closes()
        await client.hears("gone")
        producer = Idle()
        client.transport.registerProducer(producer, True)
        assert producer.stops == 1, f"it was told {producer.stops} times"


@checkPressure.case("waits")
async def loseConnectionWaitsForAProducer(subject: Subject) -> None:
    """With a producer registered loseConnection closes when it has unregistered, and sends what it wrote until then
    (ITransport.loseConnection: "it will not be closed until the producer has been unregistered")."""
    async with subject.connection() as (client, server):
        client.transport.registerProducer(Idle(), True)
        client.sends(b"before")
        client.closes()
        await server.hears(b"before")
        await server.hearsNothing(QUIET)
        client.sends(b", after")
        await server.hears(b", after")
        client.transport.unregisterProducer()
        assert await server.hearsAll() == b""
        server.closes()
        await client.hears("gone")


@checkPressure.case()
async def loseConnectionWaitsForAPausedProducer(subject: Subject) -> None:
    """loseConnection while a producer is paused: it is resumed, what it writes is sent, and the connection closes when
    it has unregistered (ITransport.loseConnection, IConsumer.unregisterProducer)."""
    async with subject.connection() as (client, server):
        server.pauses()
        producer = _Push(client, subject.reactor)
        client.transport.registerProducer(producer, True)
        await producer.pauses()
        client.closes()
        before = producer.written
        server.resumes()
        await producer.resumes()
        await deferLater(subject.reactor, 0, lambda: None)
        await deferLater(subject.reactor, 0, lambda: None)
        producer.finishes()
        assert producer.written > before, "it was resumed, and could not write"
        heard = await server.hearsAll()
        assert heard == pattern(producer.written), f"{len(heard)} of {producer.written} bytes came"
        server.closes()
        await client.hears("gone")


@checkPressure.case()
async def stopProducingOfATransportCloses(subject: Subject) -> None:
    """A transport that is told stopProducing closes its connection (IProducer.stopProducing)."""
    async with subject.stage() as stage:
        await stage.listens(halfClose=False)
        client, server = await stage.connects()
        client.transport.stopProducing()
        await server.hears("gone")
        await client.hears("gone")


@implementer(IPushProducer)
class Idle:
    """A producer that writes nothing, whatever it is told."""

    def __init__(self) -> None:
        #: How often it was told to stop.
        self.stops = 0

    def pauseProducing(self) -> Any:
        """There is nothing to pause."""

    def resumeProducing(self) -> Any:
        """There is nothing to resume."""

    def stopProducing(self) -> Any:
        """Counted."""
        self.stops += 1


@implementer(IPushProducer)
class _Push:
    """Writes a chunk a turn unless it is paused."""

    def __init__(self, peer: Peer, reactor: Any) -> None:
        self.written = 0
        self.paused = False
        self._peer = peer
        self._reactor = reactor
        self._stream = pattern(BOUND + 2 * CHUNK)
        self._waiter: Deferred[None] | None = None
        self._next: IDelayedCall | None = reactor.callLater(0, self._produce)

    def pauseProducing(self) -> Any:
        self._stops()
        self._turns(True)

    def resumeProducing(self) -> Any:
        self._stops()
        self._next = self._reactor.callLater(0, self._produce)
        self._turns(False)

    def stopProducing(self) -> Any:
        self._stops()

    async def pauses(self) -> None:
        """Wait until it has been paused."""
        await self._waits(True, "it was never paused")

    async def resumes(self) -> None:
        """Wait until it has been resumed."""
        await self._waits(False, "it was never resumed")

    def finishes(self) -> None:
        """It has written everything that it wanted to."""
        self._stops()
        self._peer.transport.unregisterProducer()

    async def _waits(self, paused: bool, failure: str) -> None:
        def late(result: object, seconds: float) -> None:
            self._stops()
            raise AssertionError(f"{failure} in {seconds:g} seconds, and has written {self.written} bytes")

        if self.paused is not paused:
            self._waiter = Deferred()
            await self._waiter.addTimeout(self._peer.patience, self._reactor, late)

    def _turns(self, paused: bool) -> None:
        self.paused = paused
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            self._reactor.callLater(0, waiter.callback, None)

    def _stops(self) -> None:
        call, self._next = self._next, None
        if call is not None:
            call.cancel()

    def _produce(self) -> None:
        self._next = None
        begin, self.written = self.written, min(self.written + CHUNK, len(self._stream))
        if self.written > begin:
            self._next = self._reactor.callLater(0, self._produce)
            self._peer.transport.write(self._stream[begin : self.written])


@implementer(IPullProducer)
class _Pull:
    """Writes a chunk each time it is asked, as often as it was told."""

    def __init__(self, peer: Peer, asked: int) -> None:
        self.left = asked
        self._peer = peer
        self._stream = pattern(asked * CHUNK)

    def resumeProducing(self) -> Any:
        begin = len(self._stream) - self.left * CHUNK
        self.left -= 1
        self._peer.transport.write(self._stream[begin : begin + CHUNK])
        if not self.left:
            self._peer.transport.unregisterProducer()

    def stopProducing(self) -> Any:
        """It has no more to do."""
