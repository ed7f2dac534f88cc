"""Clocks: countdowns run once, rest clocks once per rest, and none is left behind."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from twisted_net.errors import OptionError
from twisted_net.wire.clocks import Clocks, RestClock, limitOf


class Bell:
    """Writes down when it rang."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.rang: list[float] = []

    def __call__(self) -> None:
        self.rang.append(self._clock.seconds())


@pytest.fixture
def time() -> Clock:
    return Clock()


@pytest.fixture
def bell(time: Clock) -> Bell:
    return Bell(time)


def test_restOncePerPeriod(time: Clock, bell: Bell) -> None:
    rest = RestClock(time, 10, bell)
    assert rest.seconds == 10
    time.advance(9.5)
    assert bell.rang == []
    time.advance(0.5)
    assert bell.rang == [10]
    time.pump([10] * 5)
    assert bell.rang == [10]
    rest.touch(time.seconds())
    time.advance(10)
    assert bell.rang == [10, 70]
    assert not time.getDelayedCalls()


def test_activityOnlyMarksTheTime(time: Clock, bell: Bell) -> None:
    rest = RestClock(time, 10, bell)
    (timer,) = time.getDelayedCalls()
    for _ in range(9):
        time.advance(1)
        rest.touch(time.seconds())
        assert time.getDelayedCalls() == [timer]
    time.advance(9)
    assert bell.rang == []
    time.advance(1)
    assert bell.rang == [19]


@pytest.mark.parametrize("rung", [False, True])
def test_restCancelled(time: Clock, bell: Bell, rung: bool) -> None:
    rest = RestClock(time, 10, bell)
    if rung:
        time.advance(10)
    rest.cancel()
    rest.cancel()
    rest.touch(time.seconds())
    assert not time.getDelayedCalls()
    time.advance(100)
    assert len(bell.rang) == rung


@given(st.lists(st.floats(0.01, 30), min_size=1, max_size=30), st.floats(0.1, 20))
def test_restRingsExactlyWhenNothingHappenedForLong(gaps: list[float], seconds: float) -> None:
    time = Clock()
    bell = Bell(time)
    rest = RestClock(time, seconds, bell)
    expected = 0
    for gap in gaps:
        if abs(gap - seconds) < 0.001:
            continue
        # In small steps, so that each timer runs near its own time.
        time.pump([gap / 64] * 64)
        expected += gap > seconds
        assert len(bell.rang) == expected
        rest.touch(time.seconds())
    rest.cancel()
    assert not time.getDelayedCalls()


def test_restByName(time: Clock, bell: Bell) -> None:
    clocks = Clocks(time)
    assert not clocks.resting
    clocks.touch()
    clocks.rest("idle", None, bell)
    clocks.rest("idle", 10, bell)
    assert clocks.resting
    time.advance(5)
    clocks.touch()
    time.advance(5)
    assert bell.rang == []
    clocks.rest("idle", 20, bell)
    assert len(time.getDelayedCalls()) == 1
    time.advance(20)
    assert bell.rang == [30]
    clocks.rest("idle", None, bell)
    assert not clocks.resting
    clocks.touch()
    assert not time.getDelayedCalls()


def test_touchReachesEveryRest(time: Clock, bell: Bell) -> None:
    clocks = Clocks(time)
    clocks.rest("idle", 10, bell)
    clocks.rest("halfOpen", 6, bell)
    time.advance(5)
    clocks.touch()
    time.advance(5)
    assert bell.rang == []
    time.pump([1] * 10)
    assert bell.rang == [11, 15]


def test_aRestThatStopsItselfWhenItRings(time: Clock) -> None:
    clocks = Clocks(time)
    rang: list[str] = []

    def ring() -> None:
        rang.append("ring")
        clocks.cancel()

    clocks.rest("idle", 10, ring)
    time.advance(10)
    clocks.touch()
    time.advance(100)
    assert rang == ["ring"]


def test_countdown(time: Clock, bell: Bell) -> None:
    clocks = Clocks(time)
    clocks.countdown("lifetime", 10, bell)
    assert not clocks.resting
    time.advance(5)
    clocks.touch()
    time.advance(5)
    assert bell.rang == [10]
    time.advance(100)
    assert bell.rang == [10]
    clocks.stop("lifetime")


def test_countdownSetAnewAndStopped(time: Clock, bell: Bell) -> None:
    clocks = Clocks(time)
    clocks.countdown("lifetime", 10, bell)
    time.advance(5)
    clocks.countdown("lifetime", 10, bell)
    time.advance(5)
    assert bell.rang == []
    clocks.stop("lifetime")
    clocks.stop("lifetime")
    assert not time.getDelayedCalls()


def test_countdownThatStartsItselfAgain(time: Clock) -> None:
    clocks = Clocks(time)
    rang: list[float] = []

    def ring() -> None:
        rang.append(time.seconds())
        clocks.countdown("lifetime", 10, ring)

    clocks.countdown("lifetime", 10, ring)
    time.pump([10, 10])
    clocks.cancel()
    time.advance(10)
    assert rang == [10, 20]


def test_cancelStopsAll(time: Clock, bell: Bell) -> None:
    clocks = Clocks(time)
    clocks.rest("idle", 10, bell)
    clocks.rest("halfOpen", 20, bell)
    clocks.countdown("lifetime", 30, bell)
    clocks.cancel()
    clocks.cancel()
    assert not time.getDelayedCalls()
    assert not clocks.resting
    clocks.touch()
    time.advance(100)
    assert bell.rang == []


# limits of time


@pytest.mark.parametrize("none", [None, -1, -0.5, float("inf")])
def test_noLimit(none: float | None) -> None:
    assert limitOf("timeout", none) is None


def test_aLimit() -> None:
    assert limitOf("timeout", 0) == 0
    assert limitOf("timeout", 2) == 2.0
    for wrong in (float("nan"), True, "5"):
        with pytest.raises(OptionError, match=r"grace is .*; it must be a number of seconds"):
            limitOf("grace", wrong)  # type: ignore[arg-type]
