"""The idle clock: one timer that asks, however often something happens."""

from __future__ import annotations

from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twisted_net.errors import OptionError
from twisted_net.sansio.deadline import GRAIN, Deadline

# Seconds of any clock: monotonic since boot, or since 1970.
moments = st.floats(min_value=0, max_value=2e9)
spans = st.floats(min_value=0, max_value=1e6)


def test_dueWhenNothingHappened() -> None:
    deadline = Deadline(30.0, 100.0)
    assert deadline.due(100.0) == 30.0
    assert deadline.due(110.0) == 20.0
    assert deadline.due(130.0) == 0.0
    assert deadline.due(999.0) == 0.0


def test_touchStartsAnew() -> None:
    deadline = Deadline(30.0, 100.0)
    deadline.touch(120.0)
    assert deadline.last == 120.0
    assert deadline.due(130.0) == 20.0


def test_secondsMayChange() -> None:
    deadline = Deadline(30.0, 100.0)
    deadline.seconds = 5.0
    assert deadline.due(104.0) == 1.0
    assert deadline.due(105.0) == 0.0


def test_aClockSetBackCountsFromThere() -> None:
    """Neither due at once, nor an hour late."""
    deadline = Deadline(30.0, 3700.0)
    assert deadline.due(100.0) == 30.0
    assert deadline.due(120.0) == 10.0
    assert deadline.due(130.0) == 0.0


def test_zeroIsDueAtOnce() -> None:
    assert Deadline(0, 5.0).due(5.0) == 0.0


@pytest.mark.parametrize("seconds", [-1, -0.001, inf, -inf, nan])
def test_refusesWhatIsNoTime(seconds: float) -> None:
    with pytest.raises(OptionError, match="finite and not negative") as caught:
        Deadline(seconds, 0.0)
    assert repr(seconds) in str(caught.value)


def test_isSmall() -> None:
    assert not hasattr(Deadline(1, 0), "__dict__")


@given(spans, moments, spans)
def test_oneTimerIsEnough(seconds: float, start: float, later: float) -> None:
    """A timer started for what is left never has to start again for what rounding left over."""
    deadline = Deadline(seconds, start)
    now = start + later
    left = deadline.due(now)
    assert 0.0 <= left <= seconds
    assert deadline.due(now + left) == 0.0


@given(spans, moments, st.lists(spans, max_size=20))
def test_leftIsCountedFromTheLastTouch(seconds: float, start: float, steps: list[float]) -> None:
    deadline = Deadline(seconds, start)
    now = start
    for step in steps:
        now += step
        deadline.touch(now)
        assert deadline.due(now) == (seconds if seconds > GRAIN else 0.0)
    assert deadline.due(now + seconds / 2) == pytest.approx(seconds / 2, abs=4 * GRAIN)
