"""The outlet: every byte counted, every callback once, in order and at the right moment; nothing polls."""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest
import pytest_twisted
from hypothesis import given, settings
from hypothesis import strategies as st
from lines import ENCRYPTED, Kind, Stranger, line, pattern
from turning import turns
from twisted.internet import main
from twisted.internet.abstract import FileDescriptor
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.protocols.basic import FileSender
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory

from twisted_net.errors import LimitError, NetError
from twisted_net.sansio.bucket import TokenBucket
from twisted_net.wire import layers
from twisted_net.wire.limits import Meter
from twisted_net.wire.outlet import SEGMENT, SMALL, WINDOW, Batch, Outlet

PLAIN: list[Any] = ["tcp", "unix", "policies"]
TLS: list[Any] = [pytest.param(kind, marks=pytest.mark.tls) for kind in ENCRYPTED]


# A kernel that takes as much as a test lets it, under Twisted's own descriptor; and an owner that writes things down.


class Selector:
    """What a descriptor asks of its reactor."""

    def __init__(self) -> None:
        self.writing = False

    def addWriter(self, descriptor: object) -> None:
        self.writing = True

    def removeWriter(self, descriptor: object) -> None:
        self.writing = False

    def addReader(self, descriptor: object) -> None: ...

    def removeReader(self, descriptor: object) -> None: ...


class Kernel(FileDescriptor):
    connected = 1

    def __init__(self) -> None:
        self.selector = Selector()
        super().__init__(reactor=self.selector)  # type: ignore[arg-type]
        self.taken = b""
        self.room = 0
        self.flushes = 0
        self.end = ""

    def writeSomeData(self, data: bytes) -> int:
        size = min(len(data), self.room)
        self.taken += data[:size]
        self.room -= size
        return size

    def _closeWriteConnection(self) -> None:
        self.end = "half-closed"

    def take(self, room: int = 10**9) -> None:
        """Be writable until nothing more is written or *room* is used up."""
        self.room = room
        while self.selector.writing:
            before = len(self.taken)
            self.flushes += 1
            if self.doWrite() is not None:  # type: ignore[no-untyped-call]
                self.end = "closed"
                self.selector.writing = False
            if self.room == 0 and before == len(self.taken):
                break
        self.room = 0


class Owner:
    def __init__(self) -> None:
        self.events: list[str] = []
        self.hooks: dict[str, Callable[[], object]] = {}
        self.errors: list[Exception] = []

    def _note(self, event: str) -> None:
        self.events.append(event)
        self.hooks.get(event, lambda: None)()

    def outletDrained(self) -> None:
        self._note("drained")

    def outletEnded(self) -> None:
        self._note("ended")

    def outletFinished(self) -> None:
        self._note("finished")

    def outletMoved(self) -> None:
        self._note("moved")

    def outletOverdrawn(self, error: LimitError) -> None:
        self.errors.append(error)
        self._note("overdrawn")

    def outletPaced(self) -> None:
        self._note("paced")

    def call(self, where: str, method: Callable[..., object], *args: object) -> None:
        method(*args)


class Turns(Clock):
    """A clock whose turns are those of a reactor: what is asked for in one runs in the next."""

    def turn(self, seconds: float = 0) -> None:
        self.rightNow += seconds
        for call in sorted(self.calls, key=lambda call: call.getTime()):
            if call.active() and call.getTime() <= self.rightNow:
                self.calls.remove(call)
                call.called = 1
                call.func(*call.args, **call.kw)


class Rig:
    """An outlet between its owner and a kernel, all in the hand of the test."""

    def __init__(self, *, attach: bool = True, meter: Meter | None = None, **keywords: Any) -> None:
        self.time = Turns()
        self.owner = Owner()
        self.kernel: Any = Kernel()
        self.outlet = Outlet(self.owner, self.time, **keywords)
        self.meter = meter
        if attach:
            self.attach()

    def attach(self, held: bool = False) -> None:
        self.outlet.attach(self.kernel, self.meter, held)

    def sent(self, name: str) -> None:
        """Ask for a callback that is noted as *name*, or as *name* and the code of its error."""

        def callback(error: Exception | None) -> None:
            self.owner._note(name if error is None else f"{name} {getattr(error, 'code', error)}")

        self.outlet.whenSent(callback)

    def turn(self, seconds: float = 0) -> None:
        self.time.turn(seconds)

    @property
    def events(self) -> list[str]:
        events, self.owner.events = self.owner.events, []
        return events

    @property
    def timers(self) -> int:
        return len(self.time.getDelayedCalls())


# Counting


def test_whatIsCounted() -> None:
    rig = Rig()
    outlet = rig.outlet
    assert outlet.write(b"x" * 1000) is True
    assert (outlet.accepted, outlet.unsent, outlet.given, outlet.sent) == (1000, 1000, 1000, 0)
    assert outlet.write(b"x" * (2 * WINDOW)) is False
    assert (outlet.accepted, outlet.unsent, outlet.given) == (1000 + 2 * WINDOW, 1000 + 2 * WINDOW, WINDOW)
    rig.kernel.take(500)
    # What the kernel took of a part is not known.
    assert outlet.unsent == 1000 + 2 * WINDOW
    rig.kernel.take()
    assert (outlet.unsent, outlet.sent) == (0, outlet.accepted)
    assert rig.kernel.taken == b"x" * outlet.accepted
    assert rig.events == ["drained"]
    assert rig.timers == 0


def test_falseFromTheMarkOn() -> None:
    rig = Rig(highWaterMark=100)
    assert rig.outlet.write(b"x" * 99) is True
    assert rig.outlet.write(b"x") is False
    assert rig.outlet.write(b"") is False
    rig.kernel.take()
    assert rig.events == ["drained"]
    assert rig.outlet.write(b"x" * 99) is True
    rig.kernel.take()
    assert rig.events == []


def test_noMoreThanAWindowIsGiven() -> None:
    rig = Rig()
    for _ in range(40):
        rig.outlet.write(b"x" * 10_000)
    kernel = rig.kernel
    assert rig.outlet.given <= WINDOW
    while rig.outlet.unsent:
        kernel.take(7_000)
        assert len(kernel.dataBuffer) - kernel.offset + kernel._tempDataLen <= WINDOW
    assert len(kernel.taken) == 400_000


def test_whatIsNotBytesIsCountedNowhere() -> None:
    for attach in (True, False):
        rig = Rig(attach=attach)
        for wrong in ("text", bytearray(b"buffer"), memoryview(b"view")):
            with pytest.raises(TypeError):
                rig.outlet.write(wrong)  # type: ignore[arg-type]
        assert (rig.outlet.accepted, rig.outlet.unsent) == (0, 0)


def test_beforeTheConnectionEverythingWaits() -> None:
    rig = Rig(attach=False)
    assert rig.outlet.write(b"early ") is False
    rig.sent("early")
    assert rig.outlet.write(b"") is False
    rig.attach()
    assert rig.outlet.write(b"late") is True
    assert rig.events == []
    rig.turn()
    rig.kernel.take()
    assert rig.kernel.taken == b"early late"
    assert rig.events == ["early", "drained"]


def test_heldUntilReleased() -> None:
    rig = Rig(attach=False)
    rig.outlet.release()
    rig.attach(held=True)
    assert rig.outlet.write(b"x") is False
    rig.turn()
    rig.kernel.take()
    assert rig.kernel.taken == b""
    rig.outlet.release()
    rig.outlet.release()
    rig.turn()
    rig.kernel.take()
    assert rig.kernel.taken == b"x"
    assert rig.events == ["drained"]


@pytest.mark.parametrize("attach", [True, False])
def test_theLimit(attach: bool) -> None:
    rig = Rig(attach=attach)
    rig.outlet.limit = 1000
    assert rig.outlet.limit == 1000
    rig.outlet.write(b"x" * 1000)
    assert rig.events == []
    assert rig.outlet.write(b"y") is False
    assert rig.events == ["overdrawn"]
    (error,) = rig.owner.errors
    assert isinstance(error, LimitError)
    assert error.code == "ENOBUFS"
    assert "1001" in str(error)
    assert "1000" in str(error)
    assert (rig.outlet.accepted, rig.outlet.unsent) == (1000, 1000)


# Callbacks


def test_callbacksInOrderWhenTheKernelHasTheBytes() -> None:
    rig = Rig(highWaterMark=1000)
    rig.outlet.write(b"1" * 100)
    rig.sent("one")
    rig.outlet.write(b"2" * 2 * WINDOW)
    rig.sent("two")
    rig.outlet.write(b"3")
    rig.sent("three")
    rig.sent("three again")
    rig.turn()
    rig.kernel.take(99)
    assert rig.events == []
    rig.kernel.take(WINDOW - 99)
    assert rig.events == ["one"]
    rig.kernel.take()
    assert rig.events == ["two", "three", "three again", "drained"]


def test_nothingToSendIsSentOnALaterTurn() -> None:
    rig = Rig()
    rig.sent("nothing")
    rig.outlet.write(b"")
    rig.sent("empty")
    assert rig.events == []
    rig.turn()
    assert rig.events == ["nothing", "empty"]
    assert rig.timers == 0


def test_aCallbackThatAsksAgainHasATurnOfItsOwn() -> None:
    rig = Rig()
    again = iter(range(3))
    rig.owner.hooks["again"] = lambda: rig.sent("again") if next(again, None) is not None else None
    rig.sent("again")
    rig.outlet.end()
    for _ in range(3):
        rig.turn()
        assert rig.events == ["again"]
    rig.turn()
    assert rig.events == ["again", "ended"]


def test_aCallbackThatWrites() -> None:
    rig = Rig(highWaterMark=10)
    rig.owner.hooks["one"] = lambda: rig.outlet.write(b"two")
    rig.outlet.write(b"1234567890")
    rig.sent("one")
    rig.sent("also one")
    rig.kernel.take(10)
    assert rig.events == ["one", "also one"]
    rig.kernel.take()
    # Only now it is empty.
    assert rig.events == ["drained"]
    assert rig.kernel.taken == b"1234567890two"


def test_aCallbackThatShuts() -> None:
    rig = Rig(highWaterMark=1)
    rig.owner.hooks["one"] = rig.outlet.shut
    rig.outlet.write(b"one")
    rig.sent("one")
    rig.kernel.take()
    assert rig.events == ["one"]


def test_drainedThatShuts() -> None:
    rig = Rig(highWaterMark=1)
    rig.owner.hooks["drained"] = rig.outlet.shut
    rig.outlet.end()
    rig.outlet.write(b"one")
    rig.kernel.take()
    assert rig.events == ["drained"]


def test_drainedThatWritesIsOwedAgain() -> None:
    rig = Rig(highWaterMark=3)
    more = iter([b"two", b"", None])
    rig.owner.hooks["drained"] = lambda: rig.outlet.write(next(more) or b"")
    rig.outlet.write(b"one")
    rig.kernel.take(3)
    assert rig.events == ["drained"]
    rig.kernel.take()
    assert rig.events == ["drained"]
    assert rig.kernel.taken == b"onetwo"


def test_failureComesOnceAndInOrder() -> None:
    rig = Rig()
    rig.outlet.write(b"one")
    rig.sent("one")
    rig.kernel.take()
    rig.outlet.write(b"x" * 2 * WINDOW)
    rig.sent("two")
    rig.sent("three")
    rig.outlet.fail(NetError("gone", code="ECONNRESET"))
    assert rig.events == ["one", "two ECONNRESET", "three ECONNRESET"]
    assert rig.outlet.accepted == 3 + WINDOW
    assert rig.outlet.sent == 3
    # Whoever asks now hears of it too, but never before the question was put.
    assert rig.outlet.write(b"four") is False
    rig.sent("four")
    assert rig.events == []
    rig.turn()
    assert rig.events == ["four ECONNRESET"]
    assert rig.outlet.accepted == 3 + WINDOW
    assert rig.timers == 0


def test_aCallbackThatAsksWhileEverythingFails() -> None:
    rig = Rig()
    rig.outlet.write(b"one")
    rig.owner.hooks["one ECONNRESET"] = lambda: rig.sent("late")
    rig.sent("one")
    rig.outlet.fail(NetError("gone", code="ECONNRESET"))
    rig.turn()
    assert rig.events == ["one ECONNRESET", "late ECONNRESET"]


def test_shutAcceptsNothing() -> None:
    rig = Rig()
    rig.outlet.write(b"x" * 2 * WINDOW)
    rig.sent("waits")
    rig.outlet.shut()
    assert rig.outlet.write(b"more") is False
    assert rig.outlet.accepted == 2 * WINDOW
    rig.sent("late")
    rig.turn()
    assert rig.events == ["late EPIPE"]
    rig.outlet.fail(NetError("gone", code="ECONNRESET"))
    assert rig.events == ["waits ECONNRESET"]


def test_neverConnected() -> None:
    rig = Rig(attach=False)
    rig.outlet.fail(NetError("refused", code="ECONNREFUSED"))
    rig.sent("late")
    rig.turn()
    assert rig.events == ["late ECONNREFUSED"]


# Withdrawing


def test_withdraw() -> None:
    rig = Rig(attach=False)
    rig.outlet.write(b"0123")
    rig.sent("four")
    rig.outlet.write(b"4567")
    rig.sent("eight")
    rig.outlet.write(b"89")
    rig.sent("ten")
    assert rig.outlet.withdraw(99) == 10
    assert rig.outlet.withdraw(10) == 10
    assert rig.events == []
    assert rig.outlet.withdraw(6) == 6
    assert rig.events == ["eight ECANCELED", "ten ECANCELED"]
    assert (rig.outlet.accepted, rig.outlet.unsent) == (6, 6)
    rig.outlet.write(b"AB")
    rig.attach()
    rig.turn()
    rig.kernel.take()
    assert rig.kernel.taken == b"012345AB"
    assert rig.events == ["four", "drained"]


def test_withdrawAll() -> None:
    rig = Rig(attach=False)
    rig.outlet.write(b"0123")
    assert rig.outlet.withdraw() == 0
    rig.attach()
    rig.turn()
    rig.kernel.take()
    assert rig.kernel.taken == b""
    assert rig.events == ["drained"]


def test_whatIsGivenStays() -> None:
    rig = Rig()
    rig.outlet.write(b"x" * 3 * WINDOW)
    assert rig.outlet.withdraw() == WINDOW
    rig.sent("window")
    rig.kernel.take()
    assert rig.kernel.taken == b"x" * WINDOW
    assert rig.events == ["window", "drained"]


def test_withdrawThatEmptiesTellsSo() -> None:
    rig = Rig(meter=Meter(TokenBucket(100)))
    rig.outlet.write(b"x" * 100_000)
    rig.kernel.take()
    assert rig.events == ["paced"]
    keep = rig.outlet.withdraw()
    rig.sent("kept")
    rig.turn()
    # The debt is not waited for: nothing is to be sent.
    assert rig.events == ["kept", "drained"]
    assert rig.outlet.sent == keep == len(rig.kernel.taken)


SIZES = st.one_of(st.integers(0, 300), st.integers(WINDOW - 2, WINDOW + 2), st.integers(0, 4 * WINDOW))
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), SIZES),
        st.tuples(st.just("take"), SIZES),
        st.tuples(st.just("withdraw"), SIZES),
        st.tuples(st.just("sent"), st.just(0)),
        st.tuples(st.just("turn"), st.sampled_from([0, 1])),
    ),
    max_size=25,
)
STREAM = pattern(4 * 1024 * 1024)


class Model:
    """What must have come of a row of steps."""

    def __init__(self, outlet: Outlet, taken: Callable[[], int]) -> None:
        self._outlet = outlet
        self._taken = taken
        self.stream = b""
        self._source = 0
        self._asked: list[int] = []
        self.called: list[tuple[int, Exception | None]] = []

    def write(self, size: int) -> None:
        data = STREAM[self._source : self._source + size]
        self._source += len(data)
        self._outlet.write(data)
        self.stream += data

    def withdraw(self, back: int) -> None:
        kept = self._outlet.withdraw(len(self.stream) - back)
        assert kept >= len(self.stream) - back
        assert kept >= self._taken()
        self.stream = self.stream[:kept]

    def ask(self) -> None:
        position, number = len(self.stream), len(self._asked)
        self._asked.append(position)

        def callback(error: Exception | None) -> None:
            self.called.append((number, error))
            if error is None:
                assert self._taken() >= position, "called before the kernel had the bytes"

        before = len(self.called)
        self._outlet.whenSent(callback)
        assert len(self.called) == before, "called before whenSent had returned"

    def check(self) -> None:
        outlet = self._outlet
        assert outlet.accepted == len(self.stream)
        assert 0 <= outlet.unsent <= outlet.accepted
        assert outlet.sent <= self._taken() <= outlet.given <= outlet.accepted

    def finish(self) -> None:
        """Everything was sent or withdrawn by now."""
        assert self._outlet.unsent == 0
        assert sorted(number for number, _ in self.called) == list(range(len(self._asked)))
        done = [number for number, error in self.called if error is None]
        assert done == sorted(done)


@given(early=st.booleans(), rate=st.sampled_from([None, 50_000]), steps=STEPS)
def test_everySplittingOverADescriptor(early: bool, rate: float | None, steps: list[tuple[str, int]]) -> None:
    rig = Rig(attach=not early, meter=None if rate is None else Meter(TokenBucket(rate)))
    kernel = rig.kernel
    model = Model(rig.outlet, lambda: len(kernel.taken))
    for index, (name, value) in enumerate(steps):
        if early and index == 3:
            rig.attach()
        if name == "write":
            model.write(value)
        elif name == "take":
            kernel.take(value)
        elif name == "withdraw":
            model.withdraw(value)
        elif name == "sent":
            model.ask()
        else:
            rig.turn(value)
        model.check()
    if early and len(steps) <= 3:
        rig.attach()
    for _ in range(3 + (0 if rate is None else 4 * len(model.stream) // 1024)):
        rig.turn(1)
        kernel.take()
    assert kernel.taken == model.stream
    model.finish()
    assert rig.timers == 0


class Buffered(StringTransport):
    """A transport that is no descriptor: pauses its producer when it is full, until the test empties it."""

    most = 1000

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.full = False

    def write(self, data: bytes) -> None:
        super().write(data)  # type: ignore[no-untyped-call]
        if self.producer is not None and not self.full and self.io.tell() % self.most > self.most // 2:
            self.full = True
            self.producer.pauseProducing()

    def take(self) -> None:
        if self.full:
            self.full = False
            assert self.producer is not None
            self.producer.resumeProducing()


@given(steps=STEPS)
def test_everySplittingOverAnyTransport(steps: list[tuple[str, int]]) -> None:
    time = Turns()
    transport: Any = Buffered()
    outlet = Outlet(Owner(), time)
    outlet.attach(transport)
    model = Model(outlet, lambda: len(transport.value()))
    for name, value in steps:
        if name == "write":
            model.write(value)
        elif name == "take":
            transport.take()
        elif name == "withdraw":
            model.withdraw(value)
        elif name == "sent":
            model.ask()
        else:
            time.turn(value)
        model.check()
    while outlet.unsent or time.getDelayedCalls():
        transport.take()
        time.turn(1)
    assert transport.value() == model.stream
    model.finish()


async def splitOverARealConnection(kind: Kind, steps: list[tuple[str, int]]) -> None:
    async with line(kind) as (ours, _, peer):
        model = Model(ours.outlet, lambda: ours.outlet.given)
        for name, value in steps:
            if name == "write":
                model.write(value)
            elif name == "withdraw":
                model.withdraw(value)
            elif name == "sent":
                model.ask()
            else:
                await turns(1)
            assert ours.outlet.accepted == len(model.stream)
        await peer.until(lambda: len(peer.received) >= len(model.stream))
        await turns(5)
        assert peer.received == model.stream
        model.finish()


# One function each: pytest-twisted cannot run a parametrized one with generated input.
@settings(max_examples=15)
@given(kind=st.sampled_from(["tcp", "unix", "policies"]), steps=STEPS)  # type: ignore[arg-type]
@pytest_twisted.ensureDeferred
async def test_everySplittingOverARealConnection(kind: Kind, steps: list[tuple[str, int]]) -> None:
    await splitOverARealConnection(kind, steps)


@pytest.mark.tls
@settings(max_examples=15)
@given(kind=st.sampled_from(ENCRYPTED), steps=STEPS)  # type: ignore[arg-type]
@pytest_twisted.ensureDeferred
async def test_everySplittingOverRealTls(kind: Kind, steps: list[tuple[str, int]]) -> None:
    await splitOverARealConnection(kind, steps)


# Rates


def test_aRatePacesInSmallParts() -> None:
    rig = Rig(meter=Meter(TokenBucket(100_000)))
    rig.outlet.write(b"x" * 300_000)
    rig.kernel.take()
    assert rig.events == ["paced"]
    for _ in range(40):
        before = len(rig.kernel.taken)
        rig.turn(0.1)
        rig.kernel.take()
        assert len(rig.kernel.taken) - before <= 20_000
    assert len(rig.kernel.taken) == 300_000
    assert rig.time.seconds() >= 2.0
    assert rig.events == ["drained"]
    # What is paid for is not held back, and nobody is told that it were.
    rig.turn(100)
    rig.outlet.write(b"x" * 1000)
    rig.kernel.take()
    assert rig.events == []
    assert rig.timers == 0


def test_theLastPieceMayLeaveADebtThatHoldsNothing() -> None:
    rig = Rig(meter=Meter(TokenBucket(10)))
    rig.outlet.write(b"x" * 1000)
    rig.sent("all")
    rig.kernel.take()
    assert rig.events == ["all"]
    # Neither callbacks nor the end wait for it.
    rig.sent("nothing")
    rig.outlet.end()
    rig.turn()
    assert rig.events == ["nothing", "ended"]
    rig.outlet.shut()
    assert rig.timers == 0


# Producers


class Pusher:
    """A push producer, and what was asked of it."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def pauseProducing(self) -> None:
        self.asked.append("pause")

    def resumeProducing(self) -> None:
        self.asked.append("resume")

    def stopProducing(self) -> None:
        self.asked.append("stop")


class Puller(Pusher):
    """A pull producer of a few chunks."""

    def __init__(self, outlet: Outlet, chunks: list[bytes]) -> None:
        super().__init__()
        self._outlet = outlet
        self._chunks = chunks

    def resumeProducing(self) -> None:
        super().resumeProducing()
        self._outlet.write(self._chunks.pop(0))
        if not self._chunks:
            self._outlet.unregisterProducer()


def test_pushProducer() -> None:
    rig = Rig(highWaterMark=10)
    pusher = Pusher()
    rig.outlet.registerProducer(pusher, True)
    assert rig.outlet.producer is pusher
    rig.outlet.write(b"123456789")
    assert pusher.asked == []
    rig.outlet.write(b"0")
    rig.outlet.write(b"1")
    assert pusher.asked == ["pause"]
    rig.kernel.take()
    assert pusher.asked == ["pause", "resume"]
    assert rig.events == ["drained"]
    rig.outlet.unregisterProducer()
    assert rig.outlet.producer is None
    # Also without a connection there may be one, which may think better of it.
    early = Rig(attach=False)
    early.outlet.registerProducer(Pusher(), True)
    early.outlet.unregisterProducer()
    rig.outlet.write(b"2" * 10)
    rig.kernel.take()
    assert pusher.asked == ["pause", "resume"]


def test_pushProducerIsPausedWhileNothingFlows() -> None:
    rig = Rig(attach=False)
    pusher = Pusher()
    rig.outlet.registerProducer(pusher, True)
    assert pusher.asked == ["pause"]
    rig.attach()
    rig.turn()
    assert pusher.asked == ["pause", "resume"]
    # Nobody wrote, so nobody has to hear of a drain.
    assert rig.events == []


def test_pushProducerRegisteredWhenItIsFull() -> None:
    rig = Rig(highWaterMark=10)
    rig.outlet.write(b"x" * 10)
    pusher = Pusher()
    rig.outlet.registerProducer(pusher, True)
    assert pusher.asked == ["pause"]
    rig.owner.hooks["drained"] = lambda: rig.outlet.write(b"y")
    rig.kernel.take(10)
    # 'drained' wrote again: not empty, so not resumed yet, but not forgotten either.
    assert pusher.asked == ["pause"]
    rig.kernel.take()
    assert pusher.asked == ["pause", "resume"]


def test_aProducerThatFinishesSendsNothing() -> None:
    """An empty send to a peer that has closed is an error."""
    rig = Rig()
    rig.outlet.registerProducer(Pusher(), True)
    rig.outlet.unregisterProducer()
    assert not rig.kernel.selector.writing


def test_pullProducer() -> None:
    rig = Rig(attach=False, highWaterMark=2)
    puller = Puller(rig.outlet, [b"one", b"two", b"three"])
    rig.outlet.registerProducer(puller, False)
    assert puller.asked == ["resume"]
    rig.outlet.end()
    rig.attach()
    rig.turn()
    rig.kernel.take()
    assert rig.kernel.taken == b"onetwothree"
    assert puller.asked == ["resume"] * 3
    assert rig.events[-1] == "ended"


def test_oneProducerAtATime() -> None:
    rig = Rig()
    rig.outlet.registerProducer(Pusher(), True)
    with pytest.raises(RuntimeError, match="never unregistered"):
        rig.outlet.registerProducer(Pusher(), True)


def test_aProducerIsStoppedWithTheConnection() -> None:
    rig = Rig()
    pusher = Pusher()
    rig.outlet.registerProducer(pusher, True)
    rig.outlet.fail(NetError("gone", code="ECONNRESET"))
    assert pusher.asked == ["stop"]
    assert rig.outlet.producer is None
    late = Pusher()
    rig.outlet.registerProducer(late, True)
    assert late.asked == ["stop"]
    assert rig.outlet.producer is None


def test_theEndWaitsForTheProducer() -> None:
    rig = Rig()
    rig.outlet.registerProducer(Pusher(), True)
    rig.outlet.end()
    rig.turn()
    assert rig.events == []
    rig.outlet.write(b"last")
    rig.kernel.take()
    assert rig.events == []
    rig.outlet.unregisterProducer()
    rig.turn()
    assert rig.events == ["ended"]
    assert rig.kernel.taken == b"last"


# Ending


def test_endAfterEverything() -> None:
    rig = Rig(highWaterMark=1)
    rig.outlet.write(b"x" * 2 * WINDOW)
    rig.sent("all")
    rig.outlet.end()
    # As on every transport: not yet too late.
    rig.outlet.write(b"y")
    rig.turn()
    assert rig.events == []
    rig.kernel.take()
    assert rig.events == ["all", "drained", "ended"]
    assert rig.kernel.taken[-1:] == b"y"
    rig.outlet.shut()
    rig.kernel.loseWriteConnection()
    rig.kernel.take()
    assert rig.kernel.end == "half-closed"


def test_endBeforeTheConnection() -> None:
    rig = Rig(attach=False)
    rig.outlet.end()
    rig.attach()
    assert rig.events == []
    rig.turn()
    assert rig.events == ["ended"]


def test_lastFlush() -> None:
    rig = Rig()
    rig.kernel.write(b"by itself")
    rig.outlet.surrender()
    assert rig.outlet.awaitLastFlush()
    rig.turn()
    assert rig.events == []
    rig.kernel.take()
    assert rig.events == ["finished"]
    outlet = Outlet(Owner(), Clock())
    outlet.attach(StringTransport())
    assert not outlet.awaitLastFlush()


@pytest.mark.parametrize(("verb", "end"), [("loseConnection", "closed"), ("loseWriteConnection", "half-closed")])
def test_closedBehindOurBack(verb: str, end: str) -> None:
    rig = Rig()
    rig.outlet.write(b"x" * 3 * WINDOW)
    rig.sent("all")
    getattr(rig.kernel, verb)()
    rig.kernel.take()
    assert rig.kernel.end == end
    assert rig.kernel.taken == b"x" * 3 * WINDOW
    assert rig.events == ["all", "drained"]
    assert rig.outlet.write(b"more") is False
    rig.sent("more")
    rig.turn()
    assert rig.events == ["more EPIPE"]


@pytest.mark.parametrize(("verb", "end"), [("loseConnection", "closed"), ("loseWriteConnection", "half-closed")])
def test_closedBehindTheBackOfAProducer(verb: str, end: str) -> None:
    rig = Rig()
    rig.outlet.registerProducer(Pusher(), True)
    getattr(rig.kernel, verb)()
    rig.kernel.take()
    assert rig.kernel.end == ""
    rig.outlet.write(b"last")
    rig.kernel.take()
    rig.outlet.unregisterProducer()
    rig.kernel.take()
    assert rig.kernel.end == end
    assert rig.kernel.taken == b"last"


def test_closedBehindOurBackWhileItEnds() -> None:
    rig = Rig()
    rig.outlet.write(b"x")
    rig.outlet.end()
    rig.kernel.loseConnection()
    rig.kernel.take()
    assert "ended" in rig.events
    assert rig.kernel.end == "closed"


def test_detachAndAttachAgain() -> None:
    rig = Rig()
    rig.outlet.write(b"x" * 2 * WINDOW)
    rig.outlet.surrender()
    assert rig.outlet.given == 2 * WINDOW
    rig.outlet.detach()
    rig.outlet.detach()
    rig.outlet.write(b"y")
    rig.sent("y")
    rig.turn()
    rig.kernel.take()
    assert rig.kernel.taken == b"x" * 2 * WINDOW
    rig.attach()
    rig.turn()
    rig.kernel.take()
    assert rig.kernel.taken[-1:] == b"y"
    assert rig.events == ["y", "drained"]


def test_moves() -> None:
    rig = Rig()
    rig.outlet.watchMoves(True)
    rig.outlet.write(b"x")
    assert rig.events == ["moved"]
    rig.kernel.take()
    assert rig.events == ["moved"]
    rig.outlet.watchMoves(False)
    rig.outlet.write(b"x")
    rig.kernel.take()
    assert rig.events == []


# Any transport


def test_anyTransport() -> None:
    time, owner = Clock(), Owner()
    transport = StringTransport()
    outlet = Outlet(owner, time, highWaterMark=10)
    outlet.attach(transport)
    assert transport.producer is outlet
    assert transport.streaming is True
    assert outlet.write(b"12345") is True
    outlet.whenSent(lambda error: owner._note(f"sent {error}"))
    assert outlet.write(b"67890") is False
    assert owner.events == []
    assert transport.value() == b"1234567890"
    time.advance(0)
    assert owner.events == ["sent None", "drained"]
    outlet.pauseProducing()
    outlet.write(b"later")
    time.advance(0)
    assert transport.value() == b"1234567890"
    outlet.resumeProducing()
    assert transport.value() == b"1234567890later"
    outlet.stopProducing()
    outlet.detach()
    assert transport.producer is None
    outlet.detach()


def test_pausedAndResumedBeforeItIsReleased() -> None:
    time = Clock()
    transport = StringTransport()
    outlet = Outlet(Owner(), time)
    outlet.attach(transport, held=True)
    outlet.write(b"x")
    outlet.pauseProducing()
    outlet.resumeProducing()
    outlet.release()
    time.advance(0)
    assert transport.value() == b"x"


def test_whatIsWrittenBeforeTheTurnIsSentAfterIt() -> None:
    time, owner = Turns(), Owner()
    outlet = Outlet(owner, time)
    outlet.attach(StringTransport())
    outlet.write(b"one")
    outlet.write(b"two")
    outlet.whenSent(lambda error: owner._note("two"))
    time.turn()
    # Its turn was asked for before "two" was given.
    assert outlet.sent == 3
    assert owner.events == []
    time.turn()
    assert owner.events == ["two"]


class Least:
    """A transport with nothing but write."""

    def __init__(self) -> None:
        self.written = b""

    def write(self, data: bytes) -> None:
        self.written += data


def test_theLeastOfATransport() -> None:
    time = Clock()
    outlet = Outlet(Owner(), time)
    transport = Least()
    outlet.attach(transport)
    outlet.write(b"x")
    time.advance(0)
    assert transport.written == b"x"
    assert outlet.unsent == 0
    outlet.detach()


def test_throughAWrapper() -> None:
    time = Clock()
    wrapper: Any = ProtocolWrapper(WrappingFactory(None), Stranger())
    wrapper.transport = StringTransport()
    outlet = Outlet(Owner(), time)
    outlet.attach(wrapper)
    assert wrapper.transport.producer is outlet
    outlet.write(b"x")
    assert wrapper.transport.value() == b"x"


# Real connections


@pytest.mark.parametrize("kind", PLAIN + TLS)
@pytest_twisted.ensureDeferred
async def test_callbacksOverARealConnection(kind: Kind) -> None:
    async with line(kind) as (ours, user, peer):
        order: list[str] = []
        stream = pattern(1_000_000)

        def ask(name: str) -> None:
            ours.outlet.whenSent(lambda error: order.append(f"{name} {error}"))

        user.hooks["drained"] = lambda: order.append("drained")
        ask("nothing")
        assert ours.write(stream[:10]) is True
        ask("ten")
        assert ours.write(stream[10:]) is False
        ask("all")
        assert order == []
        await user.happened("drained")
        assert order == ["nothing None", "ten None", "all None", "drained"]
        await peer.until(lambda: len(peer.received) == len(stream))
        assert peer.received == stream


async def fill(outlet: Outlet) -> None:
    """Write until the kernel takes no more for a peer that does not read."""
    sent = -1
    while sent != outlet.sent:
        sent = outlet.sent
        outlet.write(b"x" * (4 * WINDOW - outlet.unsent))
        await turns(10)


@pytest.mark.parametrize("kind", PLAIN + TLS)
@pytest_twisted.ensureDeferred
async def test_notCalledWhileTheKernelHasNoRoom(kind: Kind) -> None:
    async with line(kind) as (ours, _, peer):
        peer.transport.pauseProducing()
        await fill(ours.outlet)
        called: list[Exception | None] = []
        ours.write(b"y")
        ours.outlet.whenSent(called.append)
        await turns(20)
        assert called == []
        # No more than a window has left our hands.
        assert ours.outlet.given - ours.outlet.sent <= WINDOW
        size = ours.outlet.accepted
        peer.transport.resumeProducing()
        await peer.until(lambda: len(peer.received) == size)
        await turns(5)
        assert called == [None]


def withTheKernel(skt: socket.socket) -> int:
    """Bytes that the kernel has taken (tcp(7), linux/tcp.h: tcpi_bytes_sent and tcpi_notsent_bytes)."""
    info = skt.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 208)
    (sent,), (unsent,) = struct.unpack_from("Q", info, 200), struct.unpack_from("I", info, 144)
    return int(sent + unsent)


@pytest.mark.tls
@pytest.mark.parametrize("kind", ENCRYPTED)
@pytest_twisted.ensureDeferred
async def test_overTlsAWriteBeforeTheTurnIsNotTakenForOneAfterIt(kind: Kind) -> None:
    """TLS gathers small writes: a turn that was asked for before such a write proves nothing of it."""
    from twisted.internet import reactor as globalReactor

    reactor: Any = globalReactor
    async with line(kind) as (ours, _, peer):
        sent: list[int] = []
        skt = layers.socketOf(ours.transport)
        assert skt is not None
        before = withTheKernel(skt)

        def late() -> None:
            # In the same iteration as the outlet's turn, and before it: what is gathered now goes in the next one.
            ours.write(b"y" * 1000)
            ours.outlet.whenSent(lambda error: sent.append(withTheKernel(skt) - before))

        reactor.callLater(0, late)
        ours.outlet.whenSent(lambda error: None)
        await peer.until(lambda: len(peer.received) == 1000)
        await turns(5)
        assert len(sent) == 1
        assert sent[0] > 1000


@pytest.mark.parametrize("kind", PLAIN + TLS)
@pytest_twisted.ensureDeferred
async def test_idleCostsNothing(kind: Kind) -> None:
    async with line(kind) as (ours, user, peer):
        for size in (1, 100_000):
            ours.write(b"x" * size)
            ours.outlet.whenSent(lambda error: user.note("sent"))
        await user.until(lambda: user.events.count("sent") == 2)
        await peer.until(lambda: len(peer.received) == 100_001)
        await turns(5)
        bottom = layers.below(ours.transport)
        called: list[str] = []
        hot = {Outlet.resumeProducing.__code__, FileDescriptor.doWrite.__code__}

        def profile(frame: FrameType, event: str, arg: object) -> None:
            file = frame.f_code.co_filename
            ours = "/twisted_net/" in file and not file.endswith("/uvreactor/reactor.py")  # whose turns these are
            if event == "call" and (frame.f_code in hot or ours):
                called.append(frame.f_code.co_qualname)

        sys.setprofile(profile)
        try:
            await turns(50)
        finally:
            sys.setprofile(None)
        assert called == []
        assert bottom not in bottom.reactor.getWriters()


@pytest.mark.parametrize("verb", ["loseConnection", "loseWriteConnection"])
@pytest.mark.parametrize("kind", ["tcp", "unix"])
@pytest_twisted.ensureDeferred
async def test_closedBehindOurBackOverARealConnection(kind: Kind, verb: str) -> None:
    async with line(kind) as (ours, user, peer):
        stream = pattern(1_000_000)
        ours.write(stream)
        called: list[Exception | None] = []
        ours.outlet.whenSent(called.append)
        getattr(ours.transport, verb)()
        await peer.happened("readEnd")
        assert peer.received == stream
        assert called == [None]
        if verb == "loseWriteConnection":
            await user.happened("writeEnded")
            peer.write(b"the other half")
            await user.until(lambda: user.received == b"the other half")
            assert ours.write(b"too late") is False
        else:
            await user.happened("closed")
            assert user.error is None


@pytest.mark.tls
@pytest.mark.parametrize("kind", ENCRYPTED)
@pytest_twisted.ensureDeferred
async def test_tlsClosedBehindOurBack(kind: Kind) -> None:
    async with line(kind) as (ours, user, peer):
        codes: list[object] = []
        ours.write(b"before")
        ours.outlet.whenSent(lambda error: codes.append(error))
        await turns(5)
        ours.transport.loseConnection()
        # TLS drops it.
        ours.write(b"after")
        ours.outlet.whenSent(lambda error: codes.append(getattr(error, "code", None)))
        await peer.happened("notified")
        peer.goodbye()
        await user.happened("closed")
        assert codes == [None, "EPIPE"]
        assert peer.received == b"before"
        assert isinstance(user.error, NetError)


@pytest.mark.tls
@pytest_twisted.ensureDeferred
async def test_tlsEndsUnderWhatItGathers() -> None:
    """The peer closes TLS: what TLS still gathers is dropped, and no callback says that it was sent."""
    async with line("tls") as (ours, user, peer):
        codes: list[object] = []

        def answer(data: bytes) -> None:
            ours.write(b"answer")
            ours.outlet.whenSent(lambda error: codes.append(getattr(error, "code", None)))

        user.hooks["data"] = answer
        peer.write(b"question")
        peer.goodbye()
        await user.happened("closed")
        assert codes == ["EPIPE"]
        assert isinstance(user.error, NetError)
        assert user.error.code == "EPIPE"


@pytest.mark.parametrize("kind", ["tcp", *TLS])
@pytest_twisted.ensureDeferred
async def test_fileSender(kind: Kind, tmp_path: Any) -> None:
    path = tmp_path / "file"
    path.write_bytes(pattern(500_000))
    async with line(kind) as (ours, _, peer):
        with path.open("rb") as file:
            sender = FileSender()
            done = sender.beginFileTransfer(file, Consumer(ours.outlet))
            assert await done == pattern(500_000)[-1:]
        ours.end()
        await peer.until(lambda: len(peer.received) == 500_000)
        assert peer.received == pattern(500_000)


@pytest_twisted.ensureDeferred
async def test_fileSenderIsStoppedWithTheConnection(tmp_path: Any) -> None:
    path = tmp_path / "file"
    path.write_bytes(pattern(5_000_000))
    async with line("tcp") as (ours, _, peer):
        peer.transport.pauseProducing()
        failed: list[object] = []
        with path.open("rb") as file:
            done = FileSender().beginFileTransfer(file, Consumer(ours.outlet))
            done.addErrback(failed.append)
            await turns(5)
            ours.drop()
            await turns(3)
            assert len(failed) == 1


class Consumer:
    """The part of an outlet that is an ``IConsumer``."""

    def __init__(self, outlet: Outlet) -> None:
        self.write = outlet.write
        self.registerProducer = outlet.registerProducer
        self.unregisterProducer = outlet.unregisterProducer


# Straight to the kernel


@contextmanager
def delivery(outlet: Outlet) -> Iterator[None]:
    """What the protocol does around the delivery of a segment."""
    outlet.corked = True
    yield
    outlet.uncork()


def test_anAnswerGoesInOne() -> None:
    """What is written while a segment is delivered needs no event of the reactor's, and one call of the system's."""
    rig = Rig()
    rig.kernel.take()
    rig.kernel.room = 100
    with delivery(rig.outlet):
        assert rig.outlet.write(b"answer")
        assert rig.outlet.write(b", and ")
        assert rig.outlet.write(b"more")
        assert (rig.kernel.taken, rig.outlet.unsent, rig.outlet.given) == (b"", 16, 16)
    assert (rig.kernel.taken, rig.outlet.unsent, rig.outlet.sent) == (b"answer, and more", 0, 16)
    assert not rig.kernel.selector.writing
    rig.kernel.room = 100
    rig.outlet.write(b", later")
    assert (rig.kernel.taken, rig.outlet.unsent) == (b"answer, and more", 7)


def test_whatDoesNotFitFollows() -> None:
    told: list[Exception | None] = []
    rig = Rig()
    rig.kernel.take()
    rig.kernel.room = 30
    data = pattern(50)
    with delivery(rig.outlet):
        assert rig.outlet.write(data)
    rig.outlet.whenSent(told.append)
    assert (rig.outlet.unsent, rig.outlet.sent) == (20, 30)
    rig.time.turn()
    assert told == []
    rig.kernel.take()
    assert (rig.kernel.taken, rig.outlet.unsent, told) == (data, 0, [None])


def test_aCallbackOfWhatGoesAtOnceIsCalledOnALaterTurn() -> None:
    rig = Rig()
    rig.kernel.take()
    rig.kernel.room = 100
    with delivery(rig.outlet):
        rig.outlet.write(b"x")
        rig.sent("told")
    assert (rig.kernel.taken, rig.events) == (b"x", [])
    rig.turn()
    assert rig.events == ["told"]


def test_moreThanTheMarkOwesADrain() -> None:
    rig = Rig(highWaterMark=10)
    rig.kernel.take()
    rig.kernel.room = 100
    with delivery(rig.outlet):
        assert not rig.outlet.write(pattern(10))
    assert rig.kernel.taken == pattern(10)
    rig.turn()
    assert rig.owner.events == ["drained"]


def test_whatIsGatheredComesBeforeWhatIsQueued() -> None:
    rig = Rig()
    rig.kernel.take()
    rig.kernel.room = 10**6
    with delivery(rig.outlet):
        rig.outlet.write(b"first, ")
        rig.outlet.write(pattern(2 * WINDOW))
        rig.outlet.write(b"last")
    rig.kernel.take()
    assert rig.kernel.taken == b"first, " + pattern(2 * WINDOW) + b"last"
    assert rig.outlet.unsent == 0


def test_whatIsGatheredGoesBeforeTheTransportIsLetGo() -> None:
    """As by startTLS: what was written before it is not encrypted."""
    rig = Rig()
    rig.kernel.take()
    rig.kernel.room = 100
    with delivery(rig.outlet):
        rig.outlet.write(b"plain")
        rig.outlet.detach()
    assert rig.kernel.taken == b"plain"


def test_whatIsGatheredIsLostWithTheConnection() -> None:
    rig = Rig()
    rig.kernel.take()
    rig.kernel.room = 100
    with delivery(rig.outlet):
        rig.outlet.write(b"lost")
        rig.outlet.fail(NetError("gone", code="ECONNRESET"))
    assert (rig.kernel.taken, rig.outlet.sent) == (b"", 0)


def test_onlyBytesAreGathered() -> None:
    rig = Rig()
    rig.kernel.take()
    with delivery(rig.outlet), pytest.raises(TypeError, match="bytearray"):
        rig.outlet.write(bytearray(b"x"))  # type: ignore[arg-type]


def test_nothingGoesAtOnceBehindWhatWaits() -> None:
    """Somebody who holds the transport has written to it."""
    rig = Rig()
    rig.kernel.take()
    rig.kernel.write(b"first, ")
    rig.kernel.room = 100
    with delivery(rig.outlet):
        rig.outlet.write(b"second")
    assert rig.kernel.taken == b""
    rig.kernel.take()
    assert rig.kernel.taken == b"first, second"


@pytest.mark.parametrize("answer", [main.CONNECTION_LOST, 0, -1])
def test_aKernelThatTakesNothing(answer: Any) -> None:
    kernel = Kernel()
    kernel.writeSomeData = lambda data: answer  # type: ignore[method-assign]
    assert layers.Stock(kernel).sendNow(b"data") == 4
    assert kernel._tempDataBuffer == [b"data"]


@pytest.mark.parametrize("closing", ["disconnecting", "_writeDisconnecting"])
def test_aDescriptorThatIsClosingIsGivenNothing(closing: str) -> None:
    kernel = Kernel()
    kernel.room = 100
    setattr(kernel, closing, True)
    assert layers.Stock(kernel).sendNow(b"data") == 4
    assert kernel.taken == b""


@pytest_twisted.ensureDeferred
async def test_answersOverARealConnection() -> None:
    async with line("tcp") as (ours, user, peer):
        unsent = []

        def answer(data: bytes) -> None:
            for byte in data:
                ours.write(bytes([byte]))
            reactor.callLater(0, lambda: unsent.append(ours.outlet.unsent))

        from twisted.internet import reactor as globalReactor

        reactor: Any = globalReactor
        ours.attach(answer)
        for number in range(20):
            peer.write(b"%d?" % number)
            await peer.until(lambda: peer.received.endswith(b"%d?" % number))  # noqa: B023
        await turns()
        assert set(unsent) == {0}
        ours.end()
        await peer.happened("readEnd")
        assert user.received == b""


# What is forwarded


class Spring:
    """Where forwarded bytes come from."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def sinkFull(self) -> None:
        self.events.append("full")

    def segmentFull(self, size: int) -> None:
        self.events.append(f"segment of {size}")


def forwarding(**keywords: Any) -> tuple[Rig, Spring]:
    rig = Rig(**keywords)
    rig.kernel.take()
    source = rig.outlet.source = Spring()
    return rig, source


def test_whatIsForwardedGoesAtOnce() -> None:
    """It needs no event of the reactor's, and nobody hears of it."""
    rig, source = forwarding()
    rig.kernel.room = 100
    rig.outlet.forward(b"hello, ")
    rig.outlet.forward(b"world")
    assert rig.kernel.taken == b"hello, world"
    assert (rig.outlet.accepted, rig.outlet.sent, rig.outlet.unsent) == (12, 12, 0)
    assert not rig.kernel.selector.writing
    assert (source.events, rig.events, rig.timers) == ([], [], 0)


def test_whatIsForwardedAndDoesNotFit() -> None:
    """The source is told at once, and the owner when all is sent; once for each time."""
    rig, source = forwarding()
    for _ in range(2):
        rig.kernel.room = 3
        rig.outlet.forward(b"hello")
        assert (rig.kernel.taken[-3:], rig.outlet.unsent, source.events) == (b"hel", 2, ["full"])
        rig.kernel.take(1)
        assert rig.events == []
        rig.kernel.take()
        assert (rig.kernel.taken[-5:], rig.outlet.unsent, rig.events) == (b"hello", 0, ["drained"])
        source.events.clear()
    rig.kernel.room = 5
    rig.outlet.forward(b"again")
    rig.kernel.take()
    assert (rig.kernel.taken, rig.events, source.events) == (b"hellohelloagain", [], [])


def test_oneThatComesAllTheSame() -> None:
    """As from a transport that goes on delivering when it is paused: nothing is lost, or out of order."""
    rig, source = forwarding(highWaterMark=10)
    rig.outlet.forward(b"one, ")
    rig.outlet.forward(b"two")
    assert source.events == ["full"]
    rig.outlet.forward(b", three")
    assert source.events == ["full", "full"]
    assert (rig.outlet.accepted, rig.outlet.unsent) == (15, 15)
    rig.kernel.take()
    assert (rig.kernel.taken, rig.outlet.unsent, rig.events) == (b"one, two, three", 0, ["drained"])


def test_fullSegmentsAreTold() -> None:
    rig, source = forwarding()
    rig.kernel.room = 10**9
    rig.outlet.forward(pattern(SEGMENT - 1))
    assert source.events == []
    rig.outlet.forward(pattern(SEGMENT))
    rig.outlet.forward(pattern(SEGMENT + 5))
    assert source.events == [f"segment of {SEGMENT}", f"segment of {SEGMENT + 5}"]
    source.events.clear()
    rig.kernel.room = 1
    rig.outlet.forward(pattern(SEGMENT))
    assert source.events == ["full", f"segment of {SEGMENT}"]


def test_forwardedUnderAClock() -> None:
    """It goes as straight, and the clock sees it."""
    rig, source = forwarding()
    rig.outlet.watchMoves(True)
    rig.kernel.room = 100
    rig.outlet.forward(b"hello")
    assert (rig.kernel.taken, rig.outlet.unsent) == (b"hello", 0)
    assert rig.events == ["moved"]
    rig.outlet.carriedBeside(7)
    assert rig.events == ["moved"]
    assert (rig.outlet.accepted, source.events) == (12, [])


SLOWLY: list[tuple[str, Callable[[Rig], object]]] = [
    ("producer", lambda rig: rig.outlet.registerProducer(Pusher(), True)),
    ("ending", lambda rig: rig.outlet.end()),
    ("detached", lambda rig: rig.outlet.detach()),
]


@pytest.mark.parametrize(("why", "prepare"), SLOWLY)
def test_forwardedWhereItMayNotGoStraight(why: str, prepare: Callable[[Rig], object]) -> None:
    """Then it is written as anything else is."""
    rig, source = forwarding(highWaterMark=10)
    prepare(rig)
    assert not rig.outlet.mayBePassed
    rig.outlet.forward(b"hello")
    assert (rig.kernel.taken, rig.outlet.unsent) == (b"", 5)
    assert source.events == (["full"] if why == "detached" else [])
    rig.outlet.forward(b", world")
    assert source.events[-1:] == ["full"]
    if why == "detached":
        rig.attach()
    rig.turn()
    rig.kernel.take()
    assert (rig.kernel.taken, rig.outlet.unsent) == (b"hello, world", 0)


def test_forwardedToSomethingThatHasEnded() -> None:
    """Nothing is accepted; whoever is there is told not to go on."""
    rig, source = forwarding()
    rig.outlet.shut()
    rig.outlet.forward(b"hello")
    assert (source.events, rig.outlet.accepted) == (["full"], 0)
    rig.outlet.source = None
    rig.outlet.forward(b"hello")
    assert rig.outlet.accepted == 0


def test_forwardedUnderARate() -> None:
    rig, source = forwarding(meter=Meter(TokenBucket(1000)))
    assert not rig.outlet.mayBePassed
    rig.kernel.room = 10**6
    rig.outlet.forward(pattern(3000))
    assert rig.outlet.unsent > 0
    assert source.events == []


def test_carriedBeside() -> None:
    """Counted as sent, in the order in which it was."""
    rig, _ = forwarding()
    rig.kernel.room = 100
    rig.outlet.forward(b"hello")
    rig.outlet.carriedBeside(1000)
    rig.sent("told")
    rig.outlet.forward(b"world")
    assert (rig.outlet.accepted, rig.outlet.sent, rig.outlet.given) == (1010, 1010, 1010)
    assert rig.events == []
    rig.turn()
    assert rig.events == ["told"]


def test_mayBePassed() -> None:
    rig = Rig(attach=False)
    assert not rig.outlet.mayBePassed
    rig.attach()
    assert rig.outlet.mayBePassed
    rig.outlet.write(b"x")
    assert not rig.outlet.mayBePassed
    rig.kernel.take()
    assert rig.outlet.mayBePassed
    rig.outlet.watchMoves(True)
    assert rig.outlet.mayBePassed
    rig.outlet.fail(NetError("gone", code="ECONNRESET"))
    assert not rig.outlet.mayBePassed


# What is forwarded, and leaves with others


class Whole:
    """The end of a reactor's turn, in the hand of the test."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[], object]] = []

    def soon(self, call: Callable[[], object]) -> None:
        self.waiting.append(call)

    def end(self) -> None:
        waiting, self.waiting = self.waiting, []
        for call in waiting:
            call()


def batched(count: int) -> tuple[Whole, list[tuple[Rig, Spring]]]:
    whole = Whole()
    batch = Batch(whole.soon)
    rigs = [forwarding() for _ in range(count)]
    for rig, _ in rigs:
        rig.outlet.batch = batch
        rig.kernel.room = 10**6
    return whole, rigs


def test_smallOnesLeaveTogether() -> None:
    whole, rigs = batched(3)
    for _ in range(2):
        for rig, _ in rigs:
            rig.outlet.forward(b"hello, ")
            rig.outlet.forward(b"world; ")
            assert rig.outlet.unsent in (7, 14)
            assert not rig.outlet.mayBePassed
        assert len(whole.waiting) == 1
        whole.end()
        assert whole.waiting == []
    for rig, source in rigs:
        assert rig.kernel.taken == b"hello, world; " * 2
        assert (rig.outlet.accepted, rig.outlet.unsent, rig.outlet.mayBePassed) == (28, 0, True)
        assert not rig.kernel.selector.writing
        assert (source.events, rig.events, rig.timers) == ([], [], 0)


def test_largeOnesDoNotWait() -> None:
    whole, ((rig, _),) = batched(1)
    rig.outlet.forward(pattern(SMALL))
    assert (rig.kernel.taken, whole.waiting) == (pattern(SMALL), [])
    rig.outlet.forward(b"small")
    rig.outlet.forward(pattern(SEGMENT))  # behind it, in order
    whole.end()
    assert rig.kernel.taken == pattern(SMALL) + b"small" + pattern(SEGMENT)
    assert rig.outlet.unsent == 0


@pytest.mark.parametrize("moves", [False, True])
def test_whatWaitedAndDoesNotFit(moves: bool) -> None:
    whole, ((rig, source),) = batched(1)
    rig.outlet.watchMoves(moves)
    rig.kernel.room = 3
    rig.outlet.forward(b"hello")
    assert source.events == []
    whole.end()
    assert (rig.kernel.taken, rig.outlet.unsent, source.events) == (b"hel", 2, ["full"])
    rig.kernel.take()
    assert (rig.kernel.taken, rig.outlet.unsent) == (b"hello", 0)
    assert rig.events[-1] == "drained"


@pytest.mark.parametrize("verb", ["end", "shut", "detach"])
def test_whatWaitsGoesBeforeTheEnd(verb: str) -> None:
    whole, ((rig, _),) = batched(1)
    rig.outlet.forward(b"hello")
    getattr(rig.outlet, verb)()
    whole.end()
    rig.turn()
    assert (rig.kernel.taken, rig.outlet.unsent) == (b"hello", 0)
    assert rig.events == (["ended"] if verb == "end" else [])


def test_whatWaitsIsLostWithTheConnection() -> None:
    whole, ((rig, source),) = batched(1)
    rig.outlet.forward(b"hello")
    rig.outlet.source = None  # the two were parted
    rig.outlet.fail(NetError("gone", code="ECONNRESET"))
    whole.end()
    assert rig.kernel.taken == b""
    assert source.events == []


def test_whatWaitsGoesWithAnAnswerToTheSameTurn() -> None:
    """A segment of the sink's own is delivered meanwhile: that ends with what was gathered, whoever did."""
    whole, ((rig, source),) = batched(1)
    rig.kernel.room = 7
    rig.outlet.forward(b"forwarded")
    with delivery(rig.outlet):
        rig.outlet.write(b", written")
    assert rig.kernel.taken == b"forward"
    whole.end()
    assert source.events == ["full"]
    rig.kernel.take()
    assert rig.kernel.taken == b"forwarded, written"


@pytest.mark.parametrize("kind", PLAIN)
@pytest_twisted.ensureDeferred
async def test_forwardedOverARealConnection(kind: Kind) -> None:
    """From one to the other, as fast as that reads."""
    content = STREAM * 4
    async with line(kind) as (source, _, speaker), line(kind) as (sink, user, listener):
        # A carrier in two lines; relay.py has the real one.
        spring = sink.outlet.source = Spring()
        spring.sinkFull = lambda: source.pause("peer")  # type: ignore[method-assign]
        user.hooks["drained"] = lambda: source.resume("peer")
        source.attach(sink.outlet.forward)
        listener.transport.pauseProducing()
        speaker.write(content)
        await turns(200)
        assert source.pressure.owners == ("peer",)
        assert sink.outlet.accepted == source.bytesRead < len(content)
        listener.transport.resumeProducing()
        await listener.until(lambda: len(listener.received) == len(content))
        assert listener.received == content
        assert (sink.outlet.unsent, sink.outlet.accepted) == (0, len(content))
