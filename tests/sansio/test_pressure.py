"""Named pauses: the flow stands still exactly while the set of owners is not empty."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twisted_net.sansio.pressure import Pressure


def recorded() -> tuple[Pressure, list[str]]:
    calls: list[str] = []
    return Pressure(lambda: calls.append("stop"), lambda: calls.append("go")), calls


def test_flowsAtFirst() -> None:
    pressure, calls = recorded()
    assert not pressure.paused
    assert pressure.owners == ()
    assert calls == []


def test_pauseTwiceResumeOnceFlows() -> None:
    """Node's rule, and the reason why this is no counter."""
    pressure, calls = recorded()
    assert pressure.pause("user")
    assert not pressure.pause("user")
    assert pressure.resume("user")
    assert not pressure.paused
    assert calls == ["stop", "go"]


def test_nobodyLetsGoWhatAnotherHolds() -> None:
    pressure, calls = recorded()
    pressure.pause("user")
    pressure.pause("rate")
    assert list(pressure.owners) == ["rate", "user"]
    assert not pressure.resume("peer")
    assert not pressure.resume("user")
    assert list(pressure.owners) == ["rate"]
    assert calls == ["stop"]
    assert pressure.resume("rate")
    assert calls == ["stop", "go"]


def test_resumeWithoutPauseChangesNothing() -> None:
    pressure, calls = recorded()
    assert not pressure.resume("user")
    assert calls == []


def test_goMayPauseAgain() -> None:
    """What is delivered on resuming may use up the rate at once: the books are right before anybody is called."""
    calls: list[str] = []

    def go() -> None:
        calls.append("go")
        assert not pressure.paused
        assert pressure.pause("rate")

    pressure = Pressure(lambda: calls.append("stop"), go)
    pressure.pause("user")
    assert pressure.resume("user")
    assert list(pressure.owners) == ["rate"]
    assert calls == ["stop", "go", "stop"]


def test_stopMayResume() -> None:
    calls: list[str] = []

    def stop() -> None:
        calls.append("stop")
        assert pressure.paused
        assert pressure.resume("user")

    pressure = Pressure(stop, lambda: calls.append("go"))
    assert pressure.pause("user")
    assert not pressure.paused
    assert calls == ["stop", "go"]


def test_whatTheCallablesRaiseLeavesTheBooksRight() -> None:
    def fail() -> None:
        raise RuntimeError("transport is gone")

    pressure = Pressure(fail, fail)
    with pytest.raises(RuntimeError, match="gone"):
        pressure.pause("user")
    assert list(pressure.owners) == ["user"]
    with pytest.raises(RuntimeError, match="gone"):
        pressure.resume("user")
    assert not pressure.paused


def test_flowingCostsNoSet() -> None:
    one, other = recorded()[0], recorded()[0]
    one.pause("user")
    one.resume("user")
    assert one.owners is other.owners
    assert not hasattr(one, "__dict__")
    assert sys.getsizeof(one) <= 64


@given(st.lists(st.tuples(st.booleans(), st.sampled_from(["user", "rate", "reader", "peer"]))))
def test_behavesAsASet(steps: list[tuple[bool, str]]) -> None:
    pressure, calls = recorded()
    model: set[str] = set()
    for pausing, owner in steps:
        before = bool(model)
        seen = len(calls)
        if pausing:
            model.add(owner)
            answer = pressure.pause(owner)
        else:
            model.discard(owner)
            answer = pressure.resume(owner)
        changed = before != bool(model)
        assert answer == changed
        assert calls[seen:] == ([("stop" if pausing else "go")] if changed else [])
        assert pressure.owners == tuple(sorted(model))
        assert pressure.paused == bool(model)
