"""The token bucket: never more than the rate and one burst, whatever is asked and however the clock goes."""

from __future__ import annotations

from fractions import Fraction
from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twisted_net.errors import OptionError
from twisted_net.sansio.bucket import GRAIN, TokenBucket

rates = st.floats(min_value=1e-3, max_value=1e10)
amounts = st.floats(min_value=0, max_value=1e7) | st.integers(0, 10**7).map(float)
moments = st.floats(min_value=0, max_value=2e9)
pauses = st.floats(min_value=0, max_value=1e4)


def test_aBurstThenTheRate() -> None:
    bucket = TokenBucket(10, 5)
    assert bucket.take(5, 0.0) == 0.0
    assert bucket.take(1, 0.0) == pytest.approx(0.1)
    assert bucket.take(1, 0.0) == pytest.approx(0.2)
    assert bucket.take(0, 0.2) == 0.0


def test_fillsUpToTheBurstAndNoFurther() -> None:
    bucket = TokenBucket(10, 5)
    bucket.take(5, 0.0)
    assert bucket.wait(5, 0.25) == pytest.approx(0.25)
    assert bucket.take(5, 1000.0) == 0.0
    assert bucket.take(1, 1000.0) == pytest.approx(0.1)


def test_aPieceLargerThanTheBurstPaysLater() -> None:
    assert TokenBucket(100, 50).take(250, 0.0) == pytest.approx(2.0)


def test_waitTakesNothing() -> None:
    bucket = TokenBucket(2, 4)
    for _ in range(3):
        assert bucket.wait(4, 0.0) == 0.0
    assert bucket.take(4, 0.0) == 0.0
    assert bucket.wait(1, 0.0) == 0.5
    assert bucket.wait(1, 0.5) == 0.0


def test_moreThanTheBurstNeverPassesWithoutDebt() -> None:
    assert TokenBucket(2, 4).wait(4.5, 0.0) == inf


@pytest.mark.parametrize(("rate", "burst"), [(1000.0, 1000.0), (0.5, 1.0)])
def test_defaultBurstIsOneSecondAndAtLeastOneToken(rate: float, burst: float) -> None:
    bucket = TokenBucket(rate)
    assert (bucket.rate, bucket.burst) == (rate, burst)
    assert bucket.wait(1, 0.0) == 0.0


def test_startsAtItsOwnTime() -> None:
    bucket = TokenBucket(1, 1, now=1000.0)
    bucket.take(1, 1000.0)
    assert bucket.wait(1, 1000.0) == 1.0


def test_aClockSetBackCountsFromThere() -> None:
    """The lost time counts as none, and nobody waits until the clock has caught up."""
    bucket = TokenBucket(1, 1, now=3600.0)
    assert bucket.take(2, 3600.0) == 1.0
    assert bucket.take(0, 0.0) == 1.0
    assert bucket.take(0, 1.0) == 0.0


@pytest.mark.parametrize("bad", [0, -1, inf, nan])
def test_refusesWhatIsNoRate(bad: float) -> None:
    with pytest.raises(OptionError, match=f"rate is {bad!r}; .* more than 0"):
        TokenBucket(bad)
    with pytest.raises(OptionError, match=f"burst is {bad!r}; .* more than 0"):
        TokenBucket(1, bad)


def test_isSmall() -> None:
    assert not hasattr(TokenBucket(1), "__dict__")


@given(rates, rates, st.lists(st.tuples(amounts, pauses), max_size=30))
def test_debtIsTheExactModels(rate: float, burst: float, steps: list[tuple[float, float]]) -> None:
    """Against a bucket that counts in fractions and forgets nothing."""
    bucket = TokenBucket(rate, burst)
    tokens, last, now = Fraction(burst), Fraction(0), 0.0
    for amount, pause in steps:
        now += pause
        tokens = min(Fraction(burst), tokens + (Fraction(now) - last) * Fraction(rate)) - Fraction(amount)
        last = Fraction(now)
        debt = float(max(Fraction(0), -tokens) / Fraction(rate))
        assert bucket.take(amount, now) == pytest.approx(debt, rel=1e-6, abs=2 * GRAIN + 1e-14 * burst / rate)


@given(rates, rates, moments, st.lists(st.tuples(amounts, st.floats(min_value=-100, max_value=100)), max_size=40))
def test_neverGrantsMoreThanRateTimesTimeAndBurst(
    rate: float, burst: float, start: float, steps: list[tuple[float, float]]
) -> None:
    """Time is what passed forwards: a clock that jumps back and forth may not be paid for twice over."""
    bucket = TokenBucket(rate, burst, start)
    now, passed, granted = start, 0.0, 0.0
    for amount, step in steps:
        passed += max(0.0, now + step - now)
        now += step
        if bucket.wait(amount, now) == 0.0:
            granted += amount
            bucket.take(amount, now)
            assert granted <= (rate * (passed + GRAIN) + burst) * (1 + 1e-9)


@given(rates, rates, moments, st.lists(amounts, min_size=1, max_size=20))
def test_whoWaitsForTheDebtNeverGetsMore(rate: float, burst: float, start: float, pieces: list[float]) -> None:
    """Pieces that cannot be refused, each taken when the debt of those before is paid: all but the last are earned."""
    bucket = TokenBucket(rate, burst, start)
    now, taken = start, 0.0
    for piece in pieces:
        assert taken <= (rate * (now - start + GRAIN) + burst) * (1 + 1e-6)
        taken += piece
        now += bucket.take(piece, now)


@given(rates, rates, st.floats(min_value=0, max_value=1), st.floats(min_value=0, max_value=1e6), amounts)
def test_oneWaitIsEnough(rate: float, burst: float, share: float, start: float, drained: float) -> None:
    """A timer started for the answer finds the tokens there: it never starts again for what rounding left over."""
    bucket = TokenBucket(rate, burst, start)
    bucket.take(min(drained, burst), start)
    amount = burst * share
    seconds = bucket.wait(amount, start)
    assert seconds >= 0.0
    assert bucket.wait(amount, start + seconds) == 0.0
