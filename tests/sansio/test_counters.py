"""Counters: fixed names, plain integers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twisted_net.errors import OptionError
from twisted_net.sansio.counters import Counters


def test_counts() -> None:
    counters = Counters("bytesRead", "errors")
    counters.add("bytesRead", 512)
    counters.add("bytesRead", 88)
    counters.add("errors")
    assert counters["bytesRead"] == 600
    assert counters["errors"] == 1


def test_whatRisesMayFall() -> None:
    counters = Counters("open")
    counters.add("open")
    counters.add("open", -1)
    assert counters["open"] == 0


def test_isAMappingInTheOrderOfTheNames() -> None:
    counters = Counters("b", "a", "c")
    counters.add("a", 2)
    assert list(counters) == ["b", "a", "c"]
    assert len(counters) == 3
    assert "a" in counters
    assert "d" not in counters
    assert dict(counters) == {"b": 0, "a": 2, "c": 0}
    assert repr(counters) == "<Counters b=0, a=2, c=0>"


def test_aSnapshotStays() -> None:
    counters = Counters("a")
    earlier = counters.snapshot()
    counters.add("a")
    earlier["b"] = 7
    assert earlier == {"a": 0, "b": 7}
    assert counters.snapshot() == {"a": 1}


def test_differenceTakesWhatASnapshotLacksAsZero() -> None:
    counters = Counters("a", "b")
    counters.add("a", 3)
    counters.add("b", 4)
    assert counters.difference({"b": 1}) == {"a": 3, "b": 3}
    assert counters.difference(counters) == {"a": 0, "b": 0}


def test_unknownNames() -> None:
    counters = Counters("bytesRead", "errors")
    clear = "there is no counter 'byteRead'; there are bytesRead, errors"
    with pytest.raises(KeyError, match=clear):
        counters.add("byteRead")
    with pytest.raises(KeyError, match=clear):
        counters["byteRead"]
    with pytest.raises(KeyError, match=clear):
        counters.difference({"byteRead": 1})
    with pytest.raises(KeyError, match="there is no counter 'x'; there are none"):
        Counters().add("x")
    assert counters.get("byteRead") is None


def test_aNameTwice() -> None:
    with pytest.raises(OptionError, match="hold one twice"):
        Counters("a", "b", "a")


def test_isSmall() -> None:
    assert not hasattr(Counters("a"), "__dict__")


changes = st.lists(st.tuples(st.sampled_from("abc"), st.integers(-(2**70), 2**70)))


@given(changes, changes)
def test_addsUp(before: list[tuple[str, int]], after: list[tuple[str, int]]) -> None:
    counters = Counters("a", "b", "c")
    for name, amount in before:
        counters.add(name, amount)
    earlier = counters.snapshot()
    for name, amount in after:
        counters.add(name, amount)
    assert earlier == {each: sum(amount for name, amount in before if name == each) for each in "abc"}
    assert counters.difference(earlier) == {
        each: sum(amount for name, amount in after if name == each) for each in "abc"
    }
