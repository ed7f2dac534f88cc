"""One way from a connection into another, no faster than it is read there."""

from __future__ import annotations

import errno
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import pytest
from doors import Kind, door, ended, patient
from drivers import LARGEST_SEGMENT
from logs import LoggedErrors
from meetings import End, meeting
from turning import turns, until
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from twisted_net.errors import NetError, TimedOutError
from twisted_net.testing.clock import VirtualTime
from twisted_net.wire.factory import SocketFactory
from twisted_net.wire.limits import Limits
from twisted_net.wire.protocol import SocketProtocol
from twisted_net.wire.relay import PEER, Relay, Straight
from twisted_net.wire.splice import Splice, Splices


def theReactor() -> Any:
    from twisted.internet import reactor

    return reactor


@pytest.mark.parametrize("kind", ["tcp", "unix", pytest.param("tls", marks=pytest.mark.tls)])
@patient
async def test_relay(kind: Kind) -> None:
    from twisted.internet import reactor

    ends: list[End] = []

    def welcome(protocol: SocketProtocol) -> End:
        ends.append(End())
        return ends[-1]

    factory = SocketFactory(welcome, cast(IReactorTime, VirtualTime(reactor)), limits=Limits(reserve=0))
    async with door(factory, kind) as place:
        speaker = await place.connect()
        await until(lambda: len(ends) == 1)
        listener = await place.connect()
        await until(lambda: len(ends) == 2)
        source, sink = ends
        relay = sink.relay = Relay(source.protocol, sink.protocol.write)
        source.protocol.attach(relay.receive)
        speaker.transport.write(b"hello")
        await listener.until(lambda: listener.received == b"hello")
        assert not source.protocol.pressure.paused
        # Nobody reads: what is in flight is bounded by the mark, and not by what is sent.
        listener.transport.pauseProducing()
        content = bytes(range(256)) * 80_000
        speaker.transport.write(content)
        await until(lambda: source.protocol.pressure.owners == (PEER,) and sink.protocol.outlet.unsent >= 65536)
        carried = -1
        while carried != relay.carried:  # the kernel's buffers grow for a while
            carried = relay.carried
            await turns(100)
        assert carried < len(content)
        assert sink.protocol.outlet.unsent + source.protocol.held < 4 * 65536
        listener.transport.resumeProducing()
        await listener.until(lambda: len(listener.received) == len(content) + 5)
        assert listener.received[5:] == content
        assert relay.carried == len(content) + 5
        await until(lambda: not source.protocol.pressure.paused)
        sink.protocol.close()
        await ended(listener)
        factory.abortAll()
    await until(lambda: not factory)


def test_aSinkThatSaysNothing() -> None:
    """What answers with None, as Twisted's own write does, never asks for a pause."""
    taken: list[bytes] = []
    factory = SocketFactory(lambda protocol: End(), cast(IReactorTime, VirtualTime(None)))
    source = factory.buildProtocol(None)
    relay = Relay(source, taken.append)
    relay.receive(b"abc")
    relay.drained()
    assert taken == [b"abc"]
    assert relay.carried == 3
    assert not source.pressure.paused


# Introductions


def _exhausted(protocol: SocketProtocol) -> bool:
    return protocol.exhausted


every = pytest.mark.parametrize("kind", ["tcp", "unix", pytest.param("tls", marks=pytest.mark.tls)])


@every
@patient
async def test_introduced(kind: Kind) -> None:
    """Both ways, as fast as each end reads; what was held comes first."""
    content = bytes(range(256)) * 20_000
    async with meeting(kind) as met:
        met.left.transport.write(b"held")
        await until(lambda: met.first.held == 4)
        introduction = met.introduce()
        met.left.transport.write(content)
        met.right.transport.write(content)
        await met.right.has(len(content) + 4)
        await met.left.has(len(content))
        assert met.right.heard == b"held" + content
        assert met.left.heard == content
        assert introduction.carried == (len(content) + 4, len(content))
        met.left.transport.loseConnection()
        met.right.transport.loseConnection()
        assert await met.ended() is None


@pytest.mark.parametrize("kind", ["tcp", "unix"])
@patient
async def test_anEndIsPassedOn(kind: Kind) -> None:
    async with meeting(kind) as met:
        met.introduce()
        met.left.transport.write(b"question")
        met.left.transport.loseWriteConnection()
        await met.right.happened("readEnd")
        assert met.right.heard == b"question"
        met.right.transport.write(b"answer")
        await met.left.until(lambda: met.left.heard == b"answer")
        assert not met.outcomes
        met.right.transport.loseWriteConnection()
        await met.left.happened("readEnd")
        assert await met.ended() is None


@pytest.mark.tls
@patient
async def test_anEndWithoutHalves() -> None:
    """Over TLS a connection ends as a whole: the other one is closed, after all that was for it."""
    content = bytes(500_000)
    async with meeting("tls") as met:
        met.introduce()
        met.left.transport.write(content)
        met.left.transport.loseConnection()
        await met.right.happened("lost")
        assert met.right.heard == content
        assert await met.ended() is None


@every
@patient
async def test_oneFails(kind: Kind) -> None:
    async with meeting(kind) as met:
        met.introduce()
        met.first.drop(ZeroDivisionError("one of them"))
        await ended(met.right)
        assert str(await met.ended()) == "one of them"
        assert str(met.second.error) == "one of them"


@every
@patient
async def test_oneIsGone(kind: Kind) -> None:
    """Without an error, and without an end that could be passed on: the other one is closed in good order."""
    async with meeting(kind) as met:
        met.introduce()
        met.left.transport.write(b"the last")
        await met.right.until(lambda: met.right.heard == b"the last")
        met.first.drop()
        await ended(met.right)
        assert await met.ended() is None


@pytest.mark.parametrize("kind", ["tcp", "unix"])
@patient
async def test_whoHadEndedBefore(kind: Kind) -> None:
    """His end was told to somebody else; it is passed on all the same, after what was given back."""
    for unread in (b"", b"unread"):
        async with meeting(kind) as met:
            met.first.attach(lambda data: None)
            met.left.transport.write(b"unread")
            met.left.transport.loseWriteConnection()
            await until(partial(_exhausted, met.first))
            met.first.giveBack(unread)
            introduction = met.introduce()
            await met.right.happened("readEnd")
            assert met.right.heard == unread
            assert introduction.carried == (len(unread), 0)
            met.right.transport.loseConnection()
            assert await met.ended() is None


@every
@patient
async def test_part(kind: Kind) -> None:
    """What comes then is held, and nobody waits for the other one any more."""
    async with meeting(kind) as met:
        introduction = met.introduce()
        met.right.transport.pauseProducing()
        met.left.transport.write(bytes(20_000_000))
        await until(lambda: PEER in met.first.pressure.owners)
        introduction.part()
        assert PEER not in met.first.pressure.owners
        carried = introduction.carried[0]
        met.right.transport.resumeProducing()
        await met.right.has(carried)
        await turns(20)
        assert introduction.carried[0] == carried
        received = bytearray()
        met.first.user = End()
        met.first.attach(received.extend)
        await until(lambda: len(received) == 20_000_000 - carried)
        assert not met.outcomes


@patient
async def test_aDefect(loggedErrors: LoggedErrors) -> None:
    """What raises on a road of ours is logged, and ends both."""
    async with meeting("tcp") as met:
        met.introduce()
        met.first.attach(lambda data: 1 // 0)
        met.first.user.limitPassed("idleTimeout", "closed")
        met.left.transport.write(b"x")
        assert isinstance(await met.ended(), ZeroDivisionError)
    assert len(loggedErrors.flush(ZeroDivisionError)) == 1


# Carriers


class Own:
    """A carrier that writes down what it is told, and carries the bytes in a manner of its own."""

    def __init__(self, source: SocketProtocol, sink: SocketProtocol) -> None:
        self.source = source
        self.sink = sink
        self.events: list[str] = []

    def receive(self, data: bytes) -> None:
        if not self.sink.write(data.upper()):
            self.source.pause("own")

    def drained(self) -> None:
        self.events.append("drained")
        self.source.resume("own")

    def ended(self) -> None:
        self.events.append("ended")
        self.sink.end()

    def closed(self) -> None:
        self.events.append("closed")
        self.sink.close()

    def failed(self, error: Exception) -> None:
        self.events.append(f"failed {error}")
        self.sink.abort(error)

    def part(self) -> None:
        self.events.append("part")


@pytest.mark.parametrize("kind", ["tcp", "unix"])
@pytest.mark.parametrize("way", ["there", "back"])
@patient
async def test_aCarrierOfOnesOwn(kind: Kind, way: str) -> None:
    """It sees every segment of its direction, the drains of its sink, and the end; the other direction is as ever."""
    made: list[Own] = []

    def make(source: SocketProtocol, sink: SocketProtocol) -> Own:
        made.append(Own(source, sink))
        return made[-1]

    async with meeting(kind) as met:
        met.introduce(**{way: make})
        (own,) = made
        one, other = (met.left, met.right) if way == "there" else (met.right, met.left)
        assert own.source is (met.first if way == "there" else met.second)
        one.transport.write(b"there")
        await other.until(lambda: other.heard == b"THERE")
        other.transport.write(b"and back")
        await one.until(lambda: one.heard == b"and back")
        assert own.events == []
        other.transport.pauseProducing()
        one.transport.write(b"x" * 20_000_000)
        await until(lambda: own.source.pressure.owners == ("own",))
        other.transport.resumeProducing()
        await other.has(20_000_005)
        await until(lambda: not own.source.pressure.paused)
        assert set(own.events) == {"drained"}
        own.events.clear()
        one.transport.loseWriteConnection()
        await other.happened("readEnd")
        assert own.events == ["ended"]
        other.transport.write(b", and on")
        other.transport.loseConnection()
        await one.until(lambda: one.heard == b"and back, and on")
        assert await met.ended() is None
        assert own.events.count("part") == 1


@pytest.mark.parametrize("way", ["there", "back"])
@pytest.mark.parametrize("who", ["source", "sink"])
@pytest.mark.parametrize("error", [None, ZeroDivisionError("enough")])
@patient
async def test_whatACarrierIsToldOfTheEnd(way: str, who: str, error: Exception | None) -> None:
    made: list[Own] = []

    def make(source: SocketProtocol, sink: SocketProtocol) -> Own:
        made.append(Own(source, sink))
        return made[-1]

    async with meeting("tcp") as met:
        met.introduce(**{way: make})
        (own,) = made
        getattr(own, who).drop(error)
        assert await met.ended() is error
        told = "closed" if error is None else "failed enough"
        assert own.events == ([told, "part"] if who == "source" else ["part"])


@patient
async def test_nothingMoreIsToldOnceTheSinkIsGone() -> None:
    """Not the end of its source either, which the other direction may let live for a while."""

    class Lingering(Own):
        def closed(self) -> None:
            self.events.append("closed")

    made: list[Own] = []

    def make(source: SocketProtocol, sink: SocketProtocol) -> Own:
        made.append(Lingering(source, sink))
        return made[-1]

    async with meeting("tcp") as met:
        met.introduce(there=make, back=make)
        met.second.drop()
        await until(lambda: made[1].events == ["closed"])
        met.left.transport.loseWriteConnection()
        await until(lambda: not met.first.state.canRead)
        assert made[0].events == ["part"]
        met.first.drop()
        assert await met.ended() is None
        assert [own.events for own in made] == [["part"], ["closed", "part"]]


@pytest.mark.parametrize("kind", ["tcp", "unix"])
@patient
async def test_noMoreThanASegmentWaits(kind: Kind) -> None:
    """What the sink's kernel does not take is told to the source at once, which reads no more."""
    async with meeting(kind) as met:
        met.introduce()
        met.right.transport.pauseProducing()
        content = bytes(range(256)) * 80_000
        met.left.transport.write(content)
        carried = -1
        while carried != met.first.bytesRead:
            carried = met.first.bytesRead
            await turns(100)
        assert met.first.pressure.owners == (PEER,)
        assert met.first.held == 0
        assert 0 < met.second.outlet.unsent <= LARGEST_SEGMENT
        assert met.second.bytesWritten == carried < len(content)
        met.right.transport.resumeProducing()
        await met.right.has(len(content))
        assert met.right.heard == content
        assert not met.first.pressure.paused


@pytest.mark.parametrize("name", ["idleTimeout", "lifetime"])
@patient
async def test_aDeadlineEndsBothByFin(name: str) -> None:
    """Nothing was lost."""
    time = VirtualTime(theReactor())
    async with meeting("tcp", reactor=time, limits=Limits(reserve=0, **{name: 10.0})) as met:  # type: ignore[arg-type]
        met.introduce()
        met.left.transport.write(b"hello")
        await met.right.has(5)
        time.advance(10.1)
        for side in (met.left, met.right):
            await ended(side)
            assert side.reason is None or side.reason.check(ConnectionDone)
        assert isinstance(await met.ended(), TimedOutError)
        assert isinstance(met.second.error, TimedOutError)


@patient
async def test_aDeadlineWithSomethingUnderWay() -> None:
    """An end would hide that it is lost."""
    async with meeting("tcp") as met:
        met.introduce()
        met.right.transport.pauseProducing()
        met.left.transport.write(bytes(20_000_000))
        await until(lambda: PEER in met.first.pressure.owners)
        met.first.drop(TimedOutError("the connection has been idle"))
        met.right.transport.resumeProducing()
        await met.right.happened("lost")
        assert met.right.reason is not None
        assert met.right.reason.check(ConnectionLost)
        assert isinstance(await met.ended(), TimedOutError)


@patient
async def test_aTimeoutThatIsNoneOfOurs() -> None:
    """The kernel has given up (ETIMEDOUT): that is a failure as any other."""
    async with meeting("tcp") as met:
        met.introduce()
        met.first.transport.connectionLost(Failure(OSError(errno.ETIMEDOUT, "timed out")))
        await met.right.happened("lost")
        assert met.right.reason is not None
        assert met.right.reason.check(ConnectionLost)
        assert isinstance(await met.ended(), TimedOutError)


@patient
async def test_aFailureEndsTheOtherByReset() -> None:
    async with meeting("tcp") as met:
        met.introduce()
        met.left.transport.abortConnection()
        await met.right.happened("lost")
        assert met.right.reason is not None
        assert met.right.reason.check(ConnectionLost)
        error = await met.ended()
        assert isinstance(error, NetError)
        assert error.code == "ECONNRESET"


# When a direction goes over; how it fares then is the business of test_splice.py


class Counted(Splices):
    """Splices that begin nothing, and say how often they were asked."""

    asked = 0

    def begin(self, source: SocketProtocol, sink: SocketProtocol, ended: Callable[[bool], object]) -> Splice | None:
        self.asked += 1
        return None


def straight() -> tuple[Straight, SocketProtocol, SocketProtocol, Counted, Clock]:
    time = Clock()
    source, sink = (SocketProtocol(End(), time) for _ in range(2))
    splices = Counted()
    return Straight(source, sink, splices), source, sink, splices, time


FILLED = 65_536


@pytest.mark.parametrize(
    ("segments", "asked"),
    [
        pytest.param([FILLED] * 7, 0, id="too few"),
        pytest.param([FILLED] * 8, 1, id="enough"),
        pytest.param([FILLED] * 17, 2, id="once for each time that there are enough"),
        pytest.param([FILLED, 4 * FILLED] * 4, 1, id="of different sizes"),
        pytest.param([4 * FILLED] * 7 + [FILLED], 1, id="the last is the smallest"),
        pytest.param([FILLED, 30_000] * 8, 1, id="with less between"),
        pytest.param([FILLED, *[1000] * 100] * 20, 0, id="with more between"),
        pytest.param([FILLED] * 7 + [1000] * 1000 + [FILLED] * 7, 0, id="with much between"),
        pytest.param([FILLED] * 7 + [1000] * 1000 + [FILLED] * 8, 1, id="and again"),
        pytest.param([FILLED - 1] * 100, 0, id="not full"),
    ],
)
def test_whenItGoesOver(segments: list[int], asked: int) -> None:
    carrier, source, _, splices, time = straight()
    for size in segments:
        source.bytesRead += size
        if size >= FILLED:
            carrier.segmentFull(size)
        time.advance(0)
    assert splices.asked == asked
    assert not time.getDelayedCalls()


def test_aSinkThatIsSlowGoesOverWhenItHasTakenAll() -> None:
    carrier, source, sink, splices, time = straight()
    for _ in range(7):
        carrier.segmentFull(FILLED)
    carrier.drained()
    assert splices.asked == 0
    sink.outlet.unsent = 1
    carrier.sinkFull()
    carrier.segmentFull(FILLED)
    assert not time.getDelayedCalls()
    assert source.pressure.owners == (PEER,)
    sink.outlet.unsent = 0
    carrier.drained()
    assert splices.asked == 1
    assert not source.pressure.paused


def test_itsTurnComesWhenSomethingIsUnsentAgain() -> None:
    carrier, _, sink, splices, time = straight()
    for _ in range(8):
        carrier.segmentFull(FILLED)
    carrier.drained()  # it has its turn already
    sink.outlet.unsent = 1
    time.advance(0)
    assert splices.asked == 1
    sink.outlet.unsent = 0
    carrier.drained()
    assert splices.asked == 2


def test_withoutSplices() -> None:
    time = Clock()
    source, sink = (SocketProtocol(End(), time) for _ in range(2))
    carrier = Straight(source, sink)
    for _ in range(20):
        carrier.segmentFull(FILLED)
        carrier.drained()
    assert not time.getDelayedCalls()


def test_closedBeforeItGoesOver() -> None:
    """Its sink takes the last of it then, and there is nothing to go over for."""
    carrier, _, sink, splices, time = straight()
    for _ in range(8):
        carrier.segmentFull(FILLED)
    carrier.closed()
    carrier.drained()
    time.advance(0)
    assert splices.asked == 0
    carrier.part()
    assert sink.outlet.source is None


def test_partLeavesTheSourceOfAnother() -> None:
    carrier, source, sink, _, _ = straight()
    other = Straight(source, sink)
    carrier.part()
    assert sink.outlet.source is other
    other.part()
    assert sink.outlet.source is None
