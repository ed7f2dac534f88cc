"""One direction in the kernel's hands: over and back, with every byte, every end and every failure in its place."""

from __future__ import annotations

import errno
import fcntl
import importlib.util
import os
import random
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from conditions import noDescriptors
from doors import Kind, ended, patient
from lines import line, pattern
from meetings import Ear, Met, meeting
from turning import turns, until
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from zope.interface import alsoProvides

from twisted_net.errors import NetError, TimedOutError
from twisted_net.interfaces import ISimulatedSocket
from twisted_net.testing.clock import VirtualTime
from twisted_net.wire import relay, splice
from twisted_net.wire.limits import Limits
from twisted_net.wire.protocol import SocketProtocol
from twisted_net.wire.relay import PEER, Straight
from twisted_net.wire.splice import LIMIT, OWNER, PIPE_SIZE, QUIET, Splice, Splices

BULK = 400_000
MUCH = 12_000_000
"""More than the kernel's buffers on the way take, once `narrow` has made one of them small."""

both = pytest.mark.parametrize("kind", ["tcp", "unix"])


class Kept(Splices):
    """Splices that can be looked at."""

    def __init__(self, limit: int = LIMIT) -> None:
        super().__init__(limit)
        self.begun: list[Splice] = []

    def begin(self, source: SocketProtocol, sink: SocketProtocol, ended: Callable[[bool], object]) -> Splice | None:
        begun = super().begin(source, sink, ended)
        if begun is not None:
            self.begun.append(begun)
        return begun

    @property
    def last(self) -> Splice:
        return self.begun[-1]


class Play:
    """Four in a row who talk, and what each of the two strangers has said."""

    def __init__(self, met: Met, splices: Kept, time: VirtualTime, **keywords: Any) -> None:
        self.met = met
        self.left, self.right = met.left, met.right
        self.first, self.second = met.first, met.second
        self.splices = splices
        self.time = time
        self.introduction = met.introduce(splices=splices, **keywords)
        self.said = {self.left: bytearray(), self.right: bytearray()}
        self._chance = random.Random(0)
        self.hears = {self.left: self.right, self.right: self.left}

    def say(self, side: Ear, size: int) -> None:
        """Have *side* write so many bytes, which are like no others."""
        data = self._chance.randbytes(size)
        self.said[side] += data
        side.transport.write(data)

    async def heard(self, side: Ear) -> None:
        """The other one has everything that *side* has said, and nothing else."""
        hearer = self.hears[side]
        await hearer.has(len(self.said[side]))
        assert hearer.content == self.said[side]

    async def tell(self, side: Ear, size: int) -> None:
        self.say(side, size)
        await self.heard(side)

    async def goOver(self, side: Ear) -> Splice:
        """Talk until what *side* says is in the kernel's hands."""
        total = self.splices.total
        while self.splices.total == total:
            await self.tell(side, BULK)
        return self.splices.last

    async def fill(self, side: Ear) -> Splice:
        """Go over, and then say much that the other one does not read, until nothing moves any more."""
        spliced = await self.goOver(side)
        hearer = self.hears[side]
        hearer.transport.pauseProducing()
        narrow(self.second.transport if side is self.left else self.first.transport)
        self.say(side, MUCH)
        await self.standstill()
        assert 0 < spliced.underWay <= PIPE_SIZE
        return spliced

    async def standstill(self) -> None:
        """Nothing moves any more, though some would."""
        before = -1, -1
        while before != self.introduction.carried:
            before = self.introduction.carried
            await turns(50)

    def isRight(self) -> bool:
        """What was counted there is what was counted here."""
        there = self.first.bytesRead == self.second.bytesWritten == len(self.said[self.left])
        return there and self.second.bytesRead == self.first.bytesWritten == len(self.said[self.right])


def nothing(again: bool) -> None:
    """Told when a splice that nobody waits for goes back."""


def narrow(writer: Any) -> None:
    """Let the kernel keep little of what is written there. (The reader's window cannot be taken back.)"""
    writer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 131_072)


def watched(time: VirtualTime) -> tuple[int, int]:
    """How many duplicates the reactor reads from, and how many it waits for room in."""
    readers = [one for one in time.getReaders() if isinstance(one, splice._Side)]
    writers = [one for one in time.getWriters() if isinstance(one, splice._Side)]
    return len(readers), len(writers)


@asynccontextmanager
async def play(
    kind: Kind,
    *,
    limit: int = LIMIT,
    limits: Limits = Limits(reserve=0),  # noqa: B008 (it is frozen)
    **keywords: Any,
) -> AsyncIterator[Play]:
    from twisted.internet import reactor

    time = VirtualTime(reactor)
    splices = Kept(limit)
    async with meeting(kind, reactor=time, limits=limits) as met:
        yield Play(met, splices, time, **keywords)
    assert splices.living == 0
    assert not time.getDelayedCalls()
    assert watched(time) == (0, 0)


@pytest.fixture(autouse=True)
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """One full segment is enough here."""
    monkeypatch.setattr(relay, "FULL", 1)


# Over and back


@both
@patient
async def test_overAndBack(kind: Kind) -> None:
    async with play(kind) as scene:
        for count in range(1, 4):
            await scene.goOver(scene.left)
            assert (scene.splices.total, scene.splices.living) == (count, 1)
            assert scene.first.pressure.owners == (OWNER,)
            # Whatever comes goes the same way, a small message too, after a pause that is no long one.
            await scene.tell(scene.left, 7)
            scene.time.advance(QUIET)
            await scene.tell(scene.left, BULK)
            await scene.tell(scene.right, 300)
            assert (scene.splices.total, scene.splices.living) == (count, 1)
            scene.time.advance(2 * QUIET)
            assert scene.splices.living == 0
            assert not scene.first.pressure.paused
            await scene.tell(scene.left, 9)
            await scene.tell(scene.right, 200)
            assert (scene.splices.total, scene.splices.living) == (count, 0)
        assert scene.isRight()
        assert scene.introduction.carried == (len(scene.said[scene.left]), len(scene.said[scene.right]))


@both
@patient
async def test_bothWaysAtOnce(kind: Kind) -> None:
    async with play(kind) as scene:
        while scene.splices.living < 2:
            scene.say(scene.left, BULK)
            scene.say(scene.right, BULK)
            await scene.heard(scene.left)
            await scene.heard(scene.right)
        scene.say(scene.left, 3_000_000)
        scene.say(scene.right, 4_000_000)
        await scene.heard(scene.left)
        await scene.heard(scene.right)
        assert scene.isRight()
        scene.left.transport.loseWriteConnection()
        await scene.right.happened("readEnd")
        assert scene.splices.living == 1
        await scene.tell(scene.right, BULK)
        scene.right.transport.loseWriteConnection()
        await scene.left.happened("readEnd")
        assert await scene.met.ended() is None
        assert scene.isRight()


@both
@patient
async def test_backWhenLittleComes(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    """In pieces, though never a pause; and not, when much has come in between."""
    monkeypatch.setattr(splice, "LITTLES", 8)
    async with play(kind) as scene:
        await scene.goOver(scene.left)
        for _ in range(5):
            await scene.tell(scene.left, 100)
            await scene.tell(scene.left, 100)
            await scene.tell(scene.left, BULK)
        assert (scene.splices.total, scene.splices.living) == (1, 1)
        for _ in range(8):
            await scene.tell(scene.left, 100)
        assert scene.splices.living == 0
        await scene.tell(scene.left, 100)
        assert scene.isRight()


@both
@patient
async def test_anEndIsPassedOnByTheTransport(kind: Kind) -> None:
    """Behind everything that the kernel still carried; and the answer comes."""
    async with play(kind) as scene:
        await scene.goOver(scene.left)
        scene.say(scene.left, 2_000_000)
        scene.left.transport.loseWriteConnection()
        await scene.right.happened("readEnd")
        await scene.heard(scene.left)
        assert scene.splices.living == 0
        await scene.goOver(scene.right)
        scene.say(scene.right, 2_000_000)
        scene.right.transport.loseConnection()
        await ended(scene.left)
        await scene.heard(scene.right)
        assert await scene.met.ended() is None
        assert scene.isRight()


@both
@patient
async def test_anEndBehindASlowSink(kind: Kind) -> None:
    async with play(kind) as scene:
        await scene.fill(scene.left)
        scene.left.transport.loseConnection()
        await turns(20)
        assert "readEnd" not in scene.right.events
        scene.right.transport.resumeProducing()
        await scene.right.happened("readEnd")
        await scene.heard(scene.left)
        scene.right.transport.loseConnection()
        assert await scene.met.ended() is None


@both
@patient
async def test_aSlowSink(kind: Kind) -> None:
    """At most one pipe is under way, nobody reads on, and nobody goes back for that."""
    async with play(kind) as scene:
        spliced = await scene.fill(scene.left)
        assert watched(scene.time) == (0, 1)
        assert scene.first.bytesRead - scene.second.bytesWritten == spliced.underWay
        assert scene.second.outlet.unsent == scene.first.held == 0
        scene.time.advance(5 * QUIET)
        assert scene.splices.living == 1
        scene.right.transport.resumeProducing()
        await scene.heard(scene.left)
        assert spliced.underWay == 0
        await until(lambda: watched(scene.time) == (1, 0))
        assert (scene.splices.living, scene.splices.total) == (1, 1)
        assert scene.isRight()


@patient
async def test_otherThingsHaveTheirTurn(monkeypatch: pytest.MonkeyPatch) -> None:
    """However much is there, only so many pipes of it are moved at a time."""
    moves: list[int] = []
    really = os.splice

    def counted(*args: Any, **keywords: Any) -> int:
        moves.append(1)
        return really(*args, **keywords)

    monkeypatch.setattr(os, "splice", counted)
    monkeypatch.setattr(splice, "PIPE_SIZE", 4096)
    async with play("tcp") as scene:
        spliced = await scene.goOver(scene.left)
        scene.first.reactor.removeReader(spliced._sourceSide)  # type: ignore[attr-defined]
        scene.say(scene.left, 200_000)
        await turns(20)
        moves.clear()
        spliced._turn()
        assert len(moves) == 2 * splice.ROUNDS
        await scene.heard(scene.left)


# Who may


@patient
async def test_noMoreThanTheLimit() -> None:
    async with play("tcp", limit=1) as scene:
        await scene.goOver(scene.left)
        for _ in range(4):
            await scene.tell(scene.right, BULK)
        assert (scene.splices.total, scene.splices.living) == (1, 1)
        scene.time.advance(3 * QUIET)
        await scene.goOver(scene.right)
        assert (scene.splices.total, scene.splices.living) == (2, 1)


async def refused(scene: Play) -> None:
    """However much is said, nobody goes over."""
    for _ in range(4):
        await scene.tell(scene.left, BULK)
    assert scene.splices.total == 0
    assert scene.isRight()


@patient
async def test_aLimitOfNone() -> None:
    async with play("tcp", limit=0) as scene:
        await refused(scene)


@patient
async def test_aSystemThatCannot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splice, "_AVAILABLE", False)
    async with play("tcp") as scene:
        await refused(scene)


def test_loadedWhereThereIsNoSplice(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in dir(os) if name.lower().startswith("splice")]:
        monkeypatch.delattr(os, name)
    spec = importlib.util.spec_from_file_location("elsewhere", splice.__file__)
    assert spec is not None
    assert spec.loader is not None
    elsewhere = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(elsewhere)
    assert not elsewhere._AVAILABLE


@pytest.mark.tls
@patient
async def test_notUnderTls() -> None:
    async with play("tls") as scene:
        for _ in range(4):
            await scene.tell(scene.left, BULK)
        assert scene.splices.total == 0


@pytest.mark.parametrize("rate", ["readRate", "writeRate"])
@patient
async def test_notUnderARate(rate: str) -> None:
    async with play("tcp", limits=Limits(reserve=0, **{rate: 1e9})) as scene:  # type: ignore[arg-type]
        await refused(scene)


@patient
async def test_onlyWhatIsPlain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing between, and a socket of the kernel's at the bottom."""
    splices = Splices()
    async with line("tcp") as (ours, _, _), line("policies") as (wrapped, _, _):
        for source, sink in ((ours, wrapped), (wrapped, ours)):
            assert splices.begin(source, sink, nothing) is None
        simulated = type("Simulated", (), {})()
        alsoProvides(simulated, ISimulatedSocket)
        monkeypatch.setattr(ours.transport, "socket", simulated)
        assert splices.begin(ours, ours, nothing) is None
        monkeypatch.undo()
        memory = SocketProtocol(ours.user, Clock())
        memory.makeConnection(StringTransport())
        monkeypatch.setattr(memory.outlet, "_straight", True)
        assert splices.begin(ours, memory, nothing) is None
        monkeypatch.setattr(memory.outlet, "_straight", False)
        memory.drop()
    assert (splices.total, splices.living) == (0, 0)


@patient
async def test_onlyWhatMayBePassed() -> None:
    splices = Splices()
    async with line("tcp") as (source, _, _), line("tcp") as (sink, _, _):
        source.pause("user")
        assert splices.begin(source, sink, nothing) is None
        source.resume("user")
        sink.write(b"first")
        assert splices.begin(source, sink, nothing) is None
        await until(lambda: not sink.outlet.unsent)
        begun = splices.begin(source, sink, nothing)
        assert begun is not None
        begun.stop()
        begun.stop()
        assert source.pressure.owners == (OWNER,)
        assert splices.living == 0


# What a system may refuse


@patient
async def test_noDescriptors() -> None:
    splices = Splices()
    async with line("tcp") as (ours, _, _):
        with noDescriptors():
            assert splices.begin(ours, ours, nothing) is None
        assert not ours.pressure.paused


@pytest.mark.parametrize("allowed", [0, 1])
@patient
async def test_noDescriptorsButThePipes(allowed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    splices = Splices()
    left = [allowed]
    really = os.dup

    def dup(number: int) -> int:
        if not left[0]:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        left[0] -= 1
        return really(number)

    async with line("tcp") as (ours, _, _):
        monkeypatch.setattr(os, "dup", dup)
        before = set(os.listdir("/proc/self/fd"))
        assert splices.begin(ours, ours, nothing) is None
        assert set(os.listdir("/proc/self/fd")) == before
        assert not ours.pressure.paused
        monkeypatch.undo()
    assert (splices.total, splices.living) == (0, 0)


@patient
async def test_aReactorThatCannotWatchMore(monkeypatch: pytest.MonkeyPatch) -> None:
    """epoll_ctl(2): ENOSPC, the user watches too many."""
    splices = Splices()

    def full(reader: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    async with line("tcp") as (ours, _, _):
        monkeypatch.setattr(ours.reactor, "addReader", full)
        before = set(os.listdir("/proc/self/fd"))
        assert splices.begin(ours, ours, nothing) is None
        assert set(os.listdir("/proc/self/fd")) == before
        assert not ours.pressure.paused
        monkeypatch.undo()
    assert (splices.total, splices.living) == (0, 0)


@pytest.mark.parametrize(("size", "enough"), [(splice.LEAST_PIPE, True), (4096, False)])
@patient
async def test_aPipeThatCannotBeWidened(size: int, enough: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """pipe(7): a user whose pipes are many gets small ones, and no larger."""
    really = fcntl.fcntl

    def refuse(number: int, command: int, argument: int = 0) -> int:
        if command == fcntl.F_SETPIPE_SZ:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        if command == fcntl.F_GETPIPE_SZ:
            really(number, fcntl.F_SETPIPE_SZ, size)
        return int(really(number, command, argument))

    async with play("tcp") as scene:
        monkeypatch.setattr(fcntl, "fcntl", refuse)
        if enough:
            await scene.goOver(scene.left)
            await scene.tell(scene.left, 2_000_000)
            assert scene.splices.living == 1
        else:
            await refused(scene)
        monkeypatch.undo()


def unable(monkeypatch: pytest.MonkeyPatch, number: int, *, reads: bool) -> list[int]:
    """Have splices into the pipe fail, or those out of it."""
    really = os.splice
    calls: list[int] = []

    def failing(source: int, sink: int, count: int, **keywords: Any) -> int:
        if os.readlink(f"/proc/self/fd/{source}").startswith("pipe") is not reads:
            calls.append(number)
            raise OSError(number, os.strerror(number))
        return really(source, sink, count, **keywords)

    monkeypatch.setattr(os, "splice", failing)
    return calls


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS, errno.ENOMEM, errno.EPERM])
@pytest.mark.parametrize("reads", [True, False])
@patient
async def test_aSocketThatCannot(number: int, reads: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is carried as before, with what was in the pipe, and not asked again."""
    async with play("tcp") as scene:
        calls = unable(monkeypatch, number, reads=reads)
        for _ in range(6):
            await scene.tell(scene.left, BULK)
        assert calls == [number]
        assert (scene.splices.total, scene.splices.living) == (1, 0)
        assert scene.isRight()
        monkeypatch.undo()
        await scene.goOver(scene.right)  # the other direction has its own way
        assert scene.isRight()


@patient
async def test_aSocketThatCannotAndIsSlow(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was in the pipe waits at the sink, and the source with it."""
    async with play("tcp") as scene:
        await scene.fill(scene.left)
        unable(monkeypatch, errno.EINVAL, reads=False)
        scene.right.transport.resumeProducing()
        await until(lambda: scene.splices.living == 0)
        scene.right.transport.pauseProducing()
        monkeypatch.undo()
        await scene.standstill()
        assert scene.first.pressure.owners == (PEER,)
        assert scene.second.outlet.unsent > 0
        scene.right.transport.resumeProducing()
        await scene.heard(scene.left)
        assert scene.splices.total == 1
        assert scene.isRight()


# Failures


def lost(side: Ear) -> object:
    assert side.reason is not None
    return side.reason.type


@pytest.mark.parametrize("spliced", ["there", "back", "both"])
@pytest.mark.parametrize("who", ["left", "right"])
@patient
async def test_oneIsReset(who: str, spliced: str) -> None:
    """The other one sees RST, and what was carried is right."""
    async with play("tcp") as scene:
        for side, when in ((scene.left, "there"), (scene.right, "back")):
            await scene.tell(side, 10)
            if spliced in (when, "both"):
                await scene.goOver(side)
        one = scene.left if who == "left" else scene.right
        one.transport.abortConnection()
        other = scene.hears[one]
        await other.happened("lost")
        assert lost(other) is ConnectionLost
        error = await scene.met.ended()
        assert isinstance(error, NetError)
        assert error.code == "ECONNRESET"
        assert scene.isRight()


@pytest.mark.parametrize("backToo", [False, True])
@patient
async def test_aSlowSinkIsReset(backToo: bool) -> None:
    async with play("tcp") as scene:
        if backToo:
            await scene.goOver(scene.right)
        spliced = await scene.fill(scene.left)
        written = scene.second.bytesWritten
        underWay = spliced.underWay
        scene.right.transport.abortConnection()
        await scene.left.happened("lost")
        assert lost(scene.left) is ConnectionLost
        error = await scene.met.ended()
        assert isinstance(error, NetError)
        assert error.code == "ECONNRESET"
        assert scene.second.bytesWritten == written
        assert scene.first.bytesRead == written + underWay


@patient
async def test_theSourceOfASlowSinkIsReset() -> None:
    """Nobody reads from it: that it has gone is found by looking."""
    async with play("tcp") as scene:
        await scene.fill(scene.left)
        scene.left.transport.abortConnection()
        await turns(5)
        scene.time.advance(2.0)
        scene.right.transport.resumeProducing()
        await scene.right.happened("lost")
        assert lost(scene.right) is ConnectionLost
        error = await scene.met.ended()
        assert isinstance(error, NetError)
        assert error.code == "ECONNRESET"
        assert scene.right.content == scene.said[scene.left][: len(scene.right.content)]


@patient
async def test_whatWentBeforeTheFailureIsCounted(monkeypatch: pytest.MonkeyPatch) -> None:
    async with play("tcp") as scene:
        await scene.goOver(scene.left)
        written = scene.second.bytesWritten
        really = os.splice
        left = [1]

        def failing(source: int, sink: int, count: int, **keywords: Any) -> int:
            if not os.readlink(f"/proc/self/fd/{source}").startswith("pipe"):
                return really(source, sink, count, **keywords)
            if not left[0]:
                raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
            left[0] -= 1
            return really(source, sink, 1000, **keywords)

        monkeypatch.setattr(os, "splice", failing)
        scene.say(scene.left, BULK)
        error = await scene.met.ended()
        monkeypatch.undo()
        assert isinstance(error, NetError)
        assert error.code == "ETIMEDOUT"
        assert scene.second.bytesWritten == written + 1000


@both
@pytest.mark.parametrize("size", [10, 150_000])
@patient
async def test_lastWordsOfASinkThatFails(kind: Kind, size: int) -> None:
    """
    It has answered, and closed while more was on its way to it: the answer is with the kernel all the same.

    (As a server does that has had enough of an upload. What Twisted's own transport, at the other end, makes of such an
    end is another thing: it reads once, then finds that it cannot write.)
    """
    async with play(kind) as scene:
        await scene.fill(scene.left)
        answer = pattern(size)
        assert scene.right.transport.socket.send(answer) == size
        scene.right.transport.abortConnection()
        await scene.left.happened("lost")
        assert (scene.second.bytesRead, scene.first.bytesWritten) == (size, size)
        assert scene.left.heard == answer[: max(10, len(scene.left.heard))]
        error = await scene.met.ended()
        assert isinstance(error, NetError)
        assert error.code in ("ECONNRESET", "EPIPE")


@patient
async def test_lastWordsThatPartTheTwo() -> None:
    """Whoever hears them may end everything meanwhile."""
    async with play("tcp", back=lambda source, sink: Hearing(source, sink)) as scene:
        back = scene.introduction._parties[1].carrier
        assert isinstance(back, Hearing)
        await scene.fill(scene.left)
        back.hear = scene.introduction.part
        scene.right.transport.pauseProducing()
        # Not read by the transport first:
        scene.second.transport.stopReading()
        scene.right.transport.socket.send(b"last words")
        scene.splices.last._sinkSide.connectionLost(Failure(ConnectionLost()))
        assert scene.splices.living == 0
        assert scene.second.transport is not None
        assert not scene.met.outcomes
        scene.second.transport.startReading()


@patient
async def test_lastWordsThatNobodyTakes() -> None:
    """Reading stands still: what lies there is lost, as it would be without a splice."""
    async with play("tcp") as scene:
        spliced = await scene.fill(scene.left)
        scene.second.pause("user")
        scene.right.transport.socket.send(b"last words")
        spliced._sinkSide.connectionLost(Failure(ConnectionLost()))
        assert isinstance(await scene.met.ended(), NetError)
        assert scene.second.bytesRead == 0


class Hearing(Straight):
    """A carrier who can be told to do something when bytes come."""

    hear: Callable[[], object] | None = None

    @property
    def receive(self) -> Callable[[bytes], object]:
        return self._hear

    def _hear(self, data: bytes) -> None:
        hear, self.hear = self.hear, None
        if hear is not None:
            hear()


@pytest.mark.parametrize("number", [errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.EPIPE, errno.ECONNRESET])
@pytest.mark.parametrize("reads", [True, False])
@patient
async def test_whatHasFailed(number: int, reads: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors are told as what they are."""
    async with play("tcp") as scene:
        await scene.goOver(scene.left)
        unable(monkeypatch, number, reads=reads)
        scene.say(scene.left, 100)
        error = await scene.met.ended()
        monkeypatch.undo()
        assert isinstance(error, NetError)
        assert error.code == errno.errorcode[errno.ECONNRESET if number == errno.EPIPE else number]
        other = scene.right if reads else scene.left
        await other.happened("lost")
        assert lost(other) is ConnectionLost


@pytest.mark.parametrize("side", ["_sourceSide", "_sinkSide"])
@patient
async def test_theReactorStops(side: str) -> None:
    """It tells everybody whom it watches, in any order, and some who are not there any more."""
    async with play("tcp") as scene:
        spliced = await scene.fill(scene.left)
        told = getattr(spliced, side)
        told.connectionLost(Failure(ConnectionLost()))
        assert scene.splices.living == 0
        assert isinstance(scene.first.error or scene.second.error, NetError)
        spliced._sourceSide.connectionLost(Failure(ConnectionLost()))
        spliced._sinkSide.connectionLost(Failure(ConnectionLost()))
        assert isinstance(await scene.met.ended(), NetError)
        assert told.logPrefix() == "splice"


@patient
async def test_toldOfAnErrorWithoutDescriptors() -> None:
    """The reason is asked of the socket, which needs no new descriptor."""
    async with play("tcp") as scene:
        spliced = await scene.fill(scene.left)
        with noDescriptors():
            spliced._sinkSide.connectionLost(Failure(ConnectionLost()))
        assert isinstance(await scene.met.ended(), NetError)


# Ends of ours


@both
@patient
async def test_partWhileBytesAreUnderWay(kind: Kind) -> None:
    """What had been read is sent; the rest is for whoever takes the connection up."""
    async with play(kind) as scene:
        await scene.fill(scene.left)
        carried = scene.introduction.carried[0]
        scene.introduction.part()
        assert scene.splices.living == 0
        assert not scene.first.pressure.paused
        scene.right.transport.resumeProducing()
        await scene.right.has(carried)
        taken = bytearray()
        scene.first.attach(taken.extend)
        await until(lambda: carried + len(taken) == len(scene.said[scene.left]))
        assert scene.right.content + taken == scene.said[scene.left]
        assert not scene.met.outcomes


@patient
async def test_partWhileNothingIsUnderWay() -> None:
    async with play("tcp") as scene:
        await scene.goOver(scene.left)
        scene.introduction.part()
        taken = bytearray()
        scene.first.attach(taken.extend)
        scene.say(scene.left, 1000)
        await until(lambda: len(taken) == 1000)


@patient
async def test_partJustBeforeItGoesOver(monkeypatch: pytest.MonkeyPatch) -> None:
    async with play("tcp") as scene:
        carrier = scene.introduction._parties[0].carrier
        assert isinstance(carrier, Straight)
        carrier.segmentFull(70_000)
        assert carrier._soon is not None
        scene.introduction.part()
        await turns(3)
        assert scene.splices.total == 0


@both
@pytest.mark.parametrize("verb", ["drop", "close"])
@patient
async def test_endTheSource(kind: Kind, verb: str) -> None:
    """In good order: what had been read is sent, and FIN."""
    async with play(kind) as scene:
        await scene.fill(scene.left)
        getattr(scene.first, verb)()
        await ended(scene.left)
        carried = scene.first.bytesRead
        assert scene.splices.living == 0
        scene.right.transport.resumeProducing()
        await ended(scene.right)
        assert scene.right.content == scene.said[scene.left][:carried]
        assert await scene.met.ended() is None


@patient
async def test_dropTheSink() -> None:
    async with play("tcp") as scene:
        await scene.fill(scene.left)
        scene.second.drop()
        await scene.left.happened("lost")
        assert await scene.met.ended() is None
        assert scene.splices.living == 0


@pytest.mark.parametrize("who", ["first", "second"])
@pytest.mark.parametrize("busy", [False, True])
@patient
async def test_abort(who: str, busy: bool) -> None:
    """Both strangers see RST, though the kernel has duplicates of both sockets."""
    async with play("tcp") as scene:
        await scene.goOver(scene.right)
        await (scene.fill if busy else scene.goOver)(scene.left)
        getattr(scene, who).abort(ZeroDivisionError("enough"))
        scene.right.transport.resumeProducing()
        await scene.left.happened("lost")
        await scene.right.happened("lost")
        assert (lost(scene.left), lost(scene.right)) == (ConnectionLost, ConnectionLost)
        assert isinstance(await scene.met.ended(), ZeroDivisionError)


# Clocks


@pytest.mark.parametrize("name", ["idleTimeout", "halfOpenTimeout"])
@patient
async def test_whatIsCarriedTouchesTheClocks(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splice, "QUIET", 1000.0)
    async with play("tcp", limits=Limits(reserve=0, **{name: 10.0})) as scene:  # type: ignore[arg-type]
        if name == "halfOpenTimeout":
            scene.right.transport.loseWriteConnection()
            await scene.left.happened("readEnd")
        await scene.goOver(scene.left)
        for _ in range(4):
            scene.time.advance(6)
            await scene.tell(scene.left, 10)
        assert scene.splices.living == 1
        scene.time.advance(11)
        for side in (scene.left, scene.right):
            await ended(side)
            assert side.reason is None or lost(side) is ConnectionDone
        assert isinstance(await scene.met.ended(), TimedOutError)


@patient
async def test_aDeadlineWhileBytesAreUnderWay() -> None:
    """Both see FIN: nothing has failed."""
    async with play("tcp", limits=Limits(reserve=0, lifetime=100.0)) as scene:
        await scene.fill(scene.left)
        scene.time.advance(101)
        scene.right.transport.resumeProducing()
        await ended(scene.right)
        assert scene.right.reason is None or lost(scene.right) is ConnectionDone
        assert isinstance(await scene.met.ended(), TimedOutError)
        assert scene.right.content == scene.said[scene.left][: len(scene.right.content)]


# By chance


@pytest.mark.parametrize("seed", range(12))
@both
@patient
async def test_byChance(kind: Kind, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is written when, read or not read, in whosever hands: all of it comes, in order, to the end."""
    monkeypatch.setattr(splice, "LITTLES", 2)
    monkeypatch.setattr(splice, "LITTLE", 60_000)
    chance = random.Random(f"{kind} {seed}")
    async with play(kind) as scene:
        if chance.random() < 0.5:
            narrow(scene.second.transport)
            narrow(scene.first.transport)
        for _ in range(250):
            side = chance.choice((scene.left, scene.right))
            act = chance.random()
            if act < 0.5:
                scene.say(side, chance.choice((1, 100, 5_000, 70_000, 200_000, chance.randrange(1, 500_000))))
            elif act < 0.6:
                side.transport.pauseProducing()
            elif act < 0.75:
                side.transport.resumeProducing()
            elif act < 0.85:
                scene.time.advance(chance.random() * 2 * QUIET)
            else:
                await turns(chance.randrange(1, 30))
        for side in chance.sample((scene.left, scene.right), 2):
            side.transport.loseWriteConnection()
            await turns(chance.randrange(3))
        scene.left.transport.resumeProducing()
        scene.right.transport.resumeProducing()
        await scene.left.happened("readEnd")
        await scene.right.happened("readEnd")
        await scene.heard(scene.left)
        await scene.heard(scene.right)
        assert await scene.met.ended() is None
        assert scene.isRight()
        assert scene.splices.total
