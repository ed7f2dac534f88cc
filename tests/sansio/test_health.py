"""Whether one is up: two books, a clock that may be set back, and no outage that lasts for ever."""

from __future__ import annotations

from math import inf, nan
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from twisted_net.errors import OptionError
from twisted_net.sansio.health import GRAIN, Health


def suspended(**options: Any) -> Health:
    """One that is out since 100."""
    health = Health(maxFails=1, **options)
    assert health.failed(100.0)
    return health


# -- in passing


def test_isUpAtFirst() -> None:
    health = Health()
    assert health.isUp(0.0)
    assert not health.suspended(0.0)
    assert health.passesChecks
    assert health.retryAt() is None


def test_asManyFailuresSuspendIt() -> None:
    health = Health(maxFails=3, failTimeout=10.0)
    assert not health.failed(100.0)
    assert not health.failed(101.0)
    assert health.isUp(101.0)
    assert health.failed(102.0)
    assert health.suspended(102.0)
    assert not health.isUp(111.9)
    assert health.retryAt() == 112.0
    assert health.isUp(112.0)
    assert health.retryAt() is None


def test_failuresThatAreTooOldDoNotCount() -> None:
    health = Health(maxFails=3, failTimeout=10.0)
    assert [health.failed(at) for at in (100.0, 105.0, 111.0, 115.5)] == [False] * 4
    assert health.failed(121.0)  # 111, 115.5, 121


def test_theFirstAndTheLastMayBeFailTimeoutApart() -> None:
    health = Health(maxFails=2, failTimeout=10.0)
    health.failed(100.0)
    assert health.failed(110.0)


def test_aSuccessBetweenFailuresDoesNotWipeThemOut() -> None:
    """Who fails every other time is not well."""
    health = Health(maxFails=2)
    health.failed(100.0)
    assert not health.succeeded(101.0)
    assert health.failed(102.0)


def test_onTrialOneFailureSuspendsAnew() -> None:
    health = Health(maxFails=3, failTimeout=10.0)
    for at in (100.0, 100.0, 100.0):
        health.failed(at)
    assert health.isUp(150.0)
    assert health.failed(150.0)
    assert health.retryAt() == 160.0


def test_onTrialASuccessMakesItWhole() -> None:
    health = Health(maxFails=2, failTimeout=10.0)
    health.failed(100.0)
    health.failed(100.0)
    assert health.succeeded(110.0)
    assert not health.succeeded(110.0)
    assert not health.failed(110.0)  # the failures of then are forgotten
    assert health.failed(111.0)


def test_aFailureWhileItIsSuspendedPutsOffTheEnd() -> None:
    health = suspended(failTimeout=10.0)
    assert not health.failed(105.0)
    assert health.retryAt() == 115.0
    assert not health.isUp(112.0)


def test_aSuccessWhileItIsSuspendedChangesNothing() -> None:
    health = suspended(failTimeout=10.0)
    assert not health.succeeded(101.0)
    assert not health.isUp(109.0)
    assert health.failed(110.0)  # on trial, not whole


def test_mayNeverBeSuspended() -> None:
    health = Health(maxFails=None)
    assert not any(health.failed(float(at)) for at in range(1000))
    assert health.isUp(1000.0)
    assert not health.succeeded(1000.0)


def test_aClockSetBackMovesTheEndAlong() -> None:
    """Neither over at once, nor an hour late."""
    health = suspended(failTimeout=10.0)
    assert not health.isUp(104.0)
    assert not health.isUp(50.0)
    assert health.retryAt() == 56.0
    assert health.isUp(56.0)


def test_aClockSetBackKeepsFailuresApart() -> None:
    health = Health(maxFails=2, failTimeout=10.0)
    health.failed(3600.0)
    assert health.isUp(3608.0)
    assert health.isUp(0.0)
    assert not health.failed(3.0)  # 11 seconds after the first
    assert health.failed(13.0)


def test_keepsNoMoreThanItNeeds() -> None:
    health = Health(maxFails=1000, failTimeout=10.0)
    for at in range(10_000):
        health.failed(float(at))
    assert len(health._failures) == 11
    assert not hasattr(health, "__dict__")


# -- by checks


def test_fallAndRise() -> None:
    health = Health(rise=2, fall=3)
    results = [False, False, True, False, False, False, True, False, True, True]
    changes = [health.checked(good, 0.0) for good in results]
    assert changes == [False, False, False, False, False, True, False, False, False, True]
    assert health.passesChecks
    assert health.isUp(0.0)


def test_badChecksTakeItDown() -> None:
    health = Health(fall=1)
    assert health.checked(False, 0.0)
    assert not health.passesChecks
    assert not health.isUp(1e9)  # this does not end by itself
    assert not health.suspended(0.0)
    assert health.retryAt() is None


def test_theBooksAreKeptApart() -> None:
    """Up in both is up; who is down already in one does not go down in the other."""
    health = suspended(failTimeout=10.0, rise=1, fall=1)
    assert not health.checked(False, 101.0)
    assert not health.passesChecks
    assert not health.isUp(110.0)  # not suspended any more
    assert not health.failed(111.0)
    assert health.suspended(111.0)
    assert not health.checked(True, 112.0)
    assert health.passesChecks
    assert not health.isUp(112.0)
    assert health.isUp(121.0)


# -- both, against a model


class Model(RuleBasedStateMachine):
    """
    A list of what happened, from which everything is told anew. Its time is whole quarters of a second, which never go
    back; the clock that health is told may be set to anything in between.
    """

    @initialize(
        maxFails=st.none() | st.integers(1, 4),
        failTimeout=st.integers(1, 40),
        rise=st.integers(1, 3),
        fall=st.integers(1, 3),
        clock=st.integers(-(2**20), 2**33),
    )
    def begin(self, maxFails: int | None, failTimeout: int, rise: int, fall: int, clock: int) -> None:
        self.health = Health(maxFails=maxFails, failTimeout=failTimeout / 4, rise=rise, fall=fall)
        self.maxFails, self.failTimeout, self.rise, self.fall = maxFails, failTimeout, rise, fall
        self.clock = clock
        self.time = 0
        self.events: list[tuple[int, bool]] = []
        self.checks: list[bool] = []

    @property
    def now(self) -> float:
        return self.clock / 4

    def passive(self) -> tuple[int | None, bool]:
        """Until when it is suspended, and whether it is on trial."""
        until: int | None = None
        trial = False
        failures: list[int] = []
        for at, good in [*self.events, (self.time, None)]:
            if until is not None and at >= until:
                until, trial = None, True
            if good:
                trial = False
            if good is not False or self.maxFails is None:
                continue
            failures = [one for one in failures if at - one <= self.failTimeout] + [at]
            if until is not None or trial or len(failures) >= self.maxFails:
                until, trial, failures = at + self.failTimeout, False, []
        return until, trial

    def passes(self) -> bool:
        passes = True
        for index in range(1, len(self.checks) + 1):
            size = self.fall if passes else self.rise
            last = self.checks[max(0, index - size) : index]
            if last == [not passes] * size:
                passes = not passes
        return passes

    def isUp(self) -> bool:
        return self.passive()[0] is None and self.passes()

    @rule(step=st.integers(0, 50))
    def timePasses(self, step: int) -> None:
        self.time += step
        self.clock += step

    @rule(step=st.integers(1, 2**34))
    def clockIsSetBack(self, step: int) -> None:
        self.clock -= step

    @rule(times=st.integers(1, 4))
    def fails(self, times: int) -> None:
        for _ in range(times):
            wasUp = self.isUp()
            self.events.append((self.time, False))
            assert self.health.failed(self.now) == (wasUp != self.isUp())

    @rule()
    def succeeds(self) -> None:
        _, trial = self.passive()
        self.events.append((self.time, True))
        assert self.health.succeeded(self.now) == trial

    @rule(good=st.booleans(), times=st.integers(1, 3))
    def isChecked(self, good: bool, times: int) -> None:
        for _ in range(times):
            wasUp = self.isUp()
            self.checks.append(good)
            assert self.health.checked(good, self.now) == (wasUp != self.isUp())

    @invariant()
    def saysWhatTheModelSays(self) -> None:
        until, _ = self.passive()
        assert self.health.isUp(self.now) == self.isUp()
        assert self.health.suspended(self.now) == (until is not None)
        assert self.health.passesChecks == self.passes()
        assert self.health.retryAt() == (None if until is None else self.now + (until - self.time) / 4)


TestModel = Model.TestCase


@given(st.floats(1e-3, 1e6), st.floats(0, 2e9), st.floats(0, 1))
def test_oneTimerIsEnough(failTimeout: float, start: float, share: float) -> None:
    """Started for what is left, it finds the suspension over: never again for what rounding left."""
    health = Health(maxFails=1, failTimeout=failTimeout)
    health.failed(start)
    now = start + failTimeout * share
    if health.suspended(now):
        at = health.retryAt()
        assert at is not None
        assert health.isUp(now + (at - now))


@given(
    st.lists(st.tuples(st.floats(-1e6, 1e6), st.sampled_from(["failed", "succeeded", "isUp"])), max_size=20),
    st.floats(1e-3, 1e4),
)
def test_noOutageIsForEver(steps: list[tuple[float, str]], failTimeout: float) -> None:
    """However the clock jumps, it is up again when failTimeout has passed without a failure."""
    health = Health(maxFails=2, failTimeout=failTimeout)
    now = 0.0
    for step, call in steps:
        now += step
        getattr(health, call)(now)
    assert health.suspended(now) == (health.retryAt() is not None)
    assert (health.retryAt() or now) - now <= failTimeout + GRAIN
    assert health.isUp(now + failTimeout + GRAIN)


@pytest.mark.parametrize(
    ("name", "values", "remedy"),
    [
        ("maxFails", [0, -1, 1.5, True, "3"], "a whole number of at least 1, or None for never"),
        ("failTimeout", [0, -1, inf, nan, None, True, "10"], "seconds, finite and more than 0"),
        ("rise", [0, -1, 1.5, None, True], "a whole number of at least 1"),
        ("fall", [0, -1, 1.5, None, True], "a whole number of at least 1"),
    ],
)
def test_refusesWhatBreaksARule(name: str, values: list[Any], remedy: str) -> None:
    for value in values:
        with pytest.raises(OptionError) as caught:
            Health(**{name: value})
        assert caught.value.strerror == f"{name} is {value!r}; it must be {remedy}"
