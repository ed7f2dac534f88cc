"""Delays between attempts: they grow, they end, and they keep their bounds whatever the dice say."""

from __future__ import annotations

import pickle
from dataclasses import FrozenInstanceError
from math import inf, nan
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twisted_net.errors import OptionError
from twisted_net.sansio.backoff import GRAIN, Backoff

rules = st.builds(
    lambda initial, factor, times, jitter, attempts, total: Backoff(
        initial=initial, factor=factor, maximum=initial * times, jitter=jitter, attempts=attempts, total=total
    ),
    st.floats(1e-3, 1e3),
    st.floats(1, 1e3),
    st.floats(1, 1e3),
    st.floats(0, 1),
    st.none() | st.integers(1, 20),
    st.none() | st.floats(1e-3, 1e4),
)


def delays(rule: Backoff, limit: int, seed: int = 0, now: float = 0.0) -> list[float]:
    """The delays of a series whose attempts fail as soon as they are made; at most ``limit`` of them."""
    attempts = rule.begin(now, Random(seed))
    found: list[float] = []
    while len(found) < limit and (delay := attempts.failed(now)) is not None:
        found.append(delay)
        now += delay
    return found


def test_growsUpToTheMaximum() -> None:
    assert delays(Backoff(initial=1, factor=3, maximum=20, jitter=0), 5) == [1, 3, 9, 20, 20]


def test_attemptsCountTheFirstOne() -> None:
    assert delays(Backoff(jitter=0, attempts=3), 9) == [1, 2]
    assert delays(Backoff(attempts=1), 9) == []


def test_theLastAttemptIsMadeWhenTheTimeIsOver() -> None:
    assert delays(Backoff(jitter=0, total=10), 9) == [1, 2, 4, 3]


def test_attemptsThatTakeTimeUseUpTheTotal() -> None:
    attempts = Backoff(jitter=0, total=10).begin(100.0)
    assert attempts.failed(109.5) == 0.5
    assert attempts.failed(111.0) is None


def test_countsTheFailures() -> None:
    attempts = Backoff(attempts=2).begin(0.0)
    assert attempts.count == 0
    attempts.failed(0.0)
    assert attempts.count == 1
    assert attempts.failed(1.0) is None
    assert attempts.count == 2


def test_aSeriesWithoutEndDoesNotOverflow() -> None:
    """2.0 ** 1024 would be an OverflowError."""
    assert delays(Backoff(jitter=0), 2000)[-1] == 30.0


def test_aClockSetBackCountsFromThere() -> None:
    attempts = Backoff(jitter=0, total=10).begin(1000.0)
    assert attempts.failed(5.0) == 1.0
    assert attempts.failed(6.0) == 2.0
    assert attempts.failed(14.0) == 1.0
    assert attempts.failed(15.0) is None


def test_seriesAreIndependent() -> None:
    rule = Backoff(jitter=0)
    one = rule.begin(0.0)
    assert (one.failed(0.0), one.failed(1.0)) == (1.0, 2.0)
    assert rule.begin(0.0).failed(0.0) == 1.0


def test_jitterComesFromTheGivenGenerator() -> None:
    rule = Backoff(jitter=0.5)
    assert delays(rule, 5, seed=1) == delays(rule, 5, seed=1)
    assert delays(rule, 5, seed=1) != delays(rule, 5, seed=2)


def test_jitterIsOnByDefault() -> None:
    """Of a hundred clients, not all come back at once."""
    firsts = {Backoff().begin(0.0).failed(0.0) for _ in range(100)}
    assert len(firsts) > 1


def test_isAValue() -> None:
    rule = Backoff(attempts=3)
    assert rule == Backoff(attempts=3) == pickle.loads(pickle.dumps(rule))
    assert len({rule, Backoff(attempts=3)}) == 1
    with pytest.raises(FrozenInstanceError):
        rule.jitter = 0.5  # type: ignore[misc]


@pytest.mark.parametrize(
    ("name", "values", "rule"),
    [
        ("initial", [0, -1, inf, nan, None, "1", True], "seconds, finite and more than 0"),
        ("factor", [0.9, inf, nan, None], "a finite number of at least 1"),
        ("maximum", [0.5, inf, nan, "30"], "seconds, finite and at least initial"),
        ("jitter", [-0.1, 1.1, nan, None], "a share of the delay from 0 to 1"),
        ("attempts", [0, -1, 1.5, inf, True, "3"], "a whole number of at least 1, or None"),
        ("total", [0, -1, inf, nan, "9"], "seconds, finite and more than 0, or None"),
    ],
)
def test_refusesWhatBreaksARule(name: str, values: list[Any], rule: str) -> None:
    for value in values:
        with pytest.raises(OptionError, match=rule) as caught:
            Backoff(**{name: value})
        assert str(caught.value).startswith(f"{name} is {value!r}; ")


@given(rules, st.integers(), st.floats(0, 2e9))
def test_keepsItsBounds(rule: Backoff, seed: int, start: float) -> None:
    found = delays(rule, 50, seed, start)
    base = rule.initial
    for index, delay in enumerate(found):
        cut = rule.total is not None and index == len(found) - 1
        assert 0 < delay <= base <= rule.maximum
        assert cut or delay >= base * (1 - rule.jitter) * (1 - 1e-9)
        base = min(rule.maximum, base * rule.factor)
    if rule.attempts is not None:
        assert len(found) < rule.attempts
    if rule.total is not None:
        slack = GRAIN * (len(found) + 1)
        assert sum(found) <= rule.total + slack
        if len(found) < min(50, (rule.attempts or 51) - 1):  # neither we nor the attempts ended it: the time did
            assert sum(found) >= rule.total - slack
