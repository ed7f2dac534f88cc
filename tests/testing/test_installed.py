"""Another reactor in the place of the global ones, and back."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import twisted.internet
from twisted.internet import task

from twisted_net.testing.installed import InPlace
from twisted_net.testing.network import MemoryNetwork


def current() -> Any:
    from twisted.internet import reactor

    return reactor


def test_inPlaceAndBack() -> None:
    before, cooperator = current(), task._theCooperator
    network = MemoryNetwork()
    reactor: Any
    with InPlace(network.reactor) as reactor:
        assert reactor is network.reactor
        assert current() is reactor
        assert sys.modules["twisted.internet.reactor"] is reactor
        assert task._theCooperator is not cooperator
    assert current() is before
    assert sys.modules["twisted.internet.reactor"] is before
    assert task._theCooperator is cooperator


def test_backAfterAnError() -> None:
    before = current()
    with pytest.raises(ZeroDivisionError), InPlace(MemoryNetwork().reactor):
        raise ZeroDivisionError
    assert current() is before


def test_nested() -> None:
    one, two = MemoryNetwork().reactor, MemoryNetwork().reactor
    with InPlace(one):
        with InPlace(two):
            assert current() is two
        assert current() is one


def test_anotherOneWithin() -> None:
    network = MemoryNetwork()
    one, two = network.host("one").reactor, network.host("two").reactor
    with InPlace(one) as place:
        assert place is one
    inPlace = InPlace(one)
    with inPlace:
        first = task._theCooperator
        inPlace.show(two)
        assert current() is two
        assert task._theCooperator is not first
        inPlace.show(one)
        assert task._theCooperator is first  # one for each reactor


def test_cooperatingOnIt() -> None:
    network = MemoryNetwork()
    ran: list[int] = []

    def work() -> Iterator[None]:
        for number in range(3):
            ran.append(number)
            yield

    with InPlace(network.reactor):
        done = task.cooperate(work()).whenDone()
    network.run(done)
    assert ran == [0, 1, 2]


def test_whereNoneWasInstalled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "twisted.internet.reactor")
    monkeypatch.delattr(twisted.internet, "reactor")
    with InPlace(MemoryNetwork().reactor) as reactor:
        assert current() is reactor
    assert "twisted.internet.reactor" not in sys.modules
    assert not hasattr(twisted.internet, "reactor")


def test_inAProcessWhereNoneWasInstalled() -> None:
    program = """
import sys
from twisted_net.testing.network import MemoryNetwork
network = MemoryNetwork()
async def scenario():
    from twisted.internet import reactor
    assert reactor is network.reactor
network.run(scenario)
import twisted.internet
print("twisted.internet.reactor" in sys.modules, hasattr(twisted.internet, "reactor"))
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("False False\n", "")
