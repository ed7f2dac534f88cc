"""A warning that comes seldom."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogEvent, Logger, formatEvent
from zope.interface import provider

from twisted_net.wire.seldom import PAUSE, Seldom


class Told:
    """A :class:`Seldom`, its clock, and what it has written."""

    def __init__(self) -> None:
        self.time = Clock()
        self.lines: list[str] = []

        @provider(ILogObserver)
        def observe(event: LogEvent) -> None:
            assert event["log_level"].name == "warn"
            self.lines.append(formatEvent(event))

        self.seldom = Seldom(Logger(observer=observe), self.time, "{count} refused, {left} left")


@pytest.fixture
def told() -> Told:
    return Told()


def test_theFirstAtOnce(told: Told) -> None:
    told.seldom.warn(left=1)
    assert told.lines == ["1 refused, 1 left"]


def test_theRestWhenTheSecondIsOver(told: Told) -> None:
    for left in (9, 8, 7, 6):
        told.seldom.warn(left=left)
    told.time.advance(PAUSE / 2)
    assert told.lines == ["1 refused, 9 left"]
    told.time.advance(PAUSE / 2)
    assert told.lines == ["1 refused, 9 left", "3 refused, 6 left"]


def test_oneLineASecond(told: Told) -> None:
    for _ in range(40):  # ten seconds
        told.seldom.warn(left=0)
        told.time.advance(PAUSE / 4)
    assert len(told.lines) == 11
    told.time.advance(PAUSE)
    assert sum(int(line.split()[0]) for line in told.lines) == 40


def test_noTimerAfterASecondOfSilence(told: Told) -> None:
    told.seldom.warn(left=0)
    told.time.advance(PAUSE)
    assert told.time.getDelayedCalls() == []
    told.seldom.warn(left=0)
    assert len(told.lines) == 2


@pytest.mark.parametrize(
    ("before", "lines"),
    [
        (lambda told: None, 0),
        (lambda told: told.seldom.warn(left=0), 1),
        (lambda told: [told.seldom.warn(left=0) for _ in range(5)], 2),
    ],
)
def test_stoppedNothingIsUnsaidAndNothingLeft(told: Told, before: Callable[[Told], object], lines: int) -> None:
    before(told)
    for _ in range(2):
        told.seldom.stop()
        assert len(told.lines) == lines
        assert told.time.getDelayedCalls() == []


def test_afterAStopAtOnceAgain(told: Told) -> None:
    told.seldom.warn(left=2)
    told.seldom.stop()
    told.seldom.warn(left=1)
    assert told.lines == ["1 refused, 2 left", "1 refused, 1 left"]
