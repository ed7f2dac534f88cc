"""What cannot go on, and what was left behind: the reports name the culprit."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.base import DelayedCall
from twisted.internet.protocol import DatagramProtocol, Protocol, ServerFactory
from twisted.python.reflect import fullyQualifiedName

from twisted_net.testing.network import TURNS, MemoryNetwork
from twisted_net.testing.runaway import LeakError, RunawayError, StalledError, leaksOf, report


@pytest.fixture
def network() -> MemoryNetwork:
    return MemoryNetwork()


class Again:
    """A timer that goes on and on."""

    def __init__(self, network: MemoryNetwork, delay: float) -> None:
        self._reactor = network.host("one").reactor
        self._delay = delay

    def tick(self) -> None:
        self._reactor.callLater(self._delay, self.tick)


NAME = fullyQualifiedName(Again.tick)


def test_theyAreFailuresOfATest() -> None:
    for kind in (StalledError, RunawayError, LeakError):
        assert issubclass(kind, AssertionError)


def test_timersWithoutAnEnd(network: MemoryNetwork) -> None:
    Again(network, 1.0).tick()
    with pytest.raises(RunawayError) as caught:
        network.runWhile(lambda: True, timeout=50)
    told = str(caught.value)
    assert told.startswith("it has taken until 50 s of virtual time, and goes on.\nWhat is scheduled:\n  one: timer ")
    assert f"{NAME} in " in told
    assert f"times {NAME}, scheduled by:\n" in told
    assert "self._reactor.callLater(self._delay, self.tick)" in told
    assert "twisted_net/testing/" not in told.partition("What ran in")[2].partition("What happened")[0]


def test_noTimePasses(network: MemoryNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twisted_net.testing.network.TURNS", 500)
    Again(network, 0.0).tick()
    attempts: list[Callable[[], None]] = [
        lambda: network.advance(1),
        network.settle,
        lambda: network.runWhile(lambda: True),
    ]
    for attempt in attempts:
        with pytest.raises(RunawayError, match="500 turns went by at 0 s, and no time passes") as caught:
            attempt()
        assert f"times {NAME}, scheduled by:\n" in str(caught.value)
    assert TURNS == 100_000


def test_aSocketThatIsReadyForever(network: MemoryNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that does not read is asked again and again."""
    monkeypatch.setattr("twisted_net.testing.network.TURNS", 500)

    class Idle(DatagramProtocol):
        pass

    port = network.reactor.listenUDP(7, Idle())
    monkeypatch.setattr(port, "doRead", lambda: None)
    network.reactor.listenUDP(8, Idle()).write(b"x", ("127.0.0.1", 7))
    with pytest.raises(RunawayError) as caught:
        network.advance(1)
    assert "200 times localhost:7 is ready" in str(caught.value)


def test_nothingWillEverHappen(network: MemoryNetwork) -> None:
    with pytest.raises(StalledError, match="nothing is scheduled, and what is waited for has not come"):
        network.runWhile(lambda: True)


def test_leaks(network: MemoryNetwork) -> None:
    one, two = network.host("one"), network.host("two")
    one.reactor.listenTCP(80, ServerFactory.forProtocol(Protocol))
    one.reactor.listenUDP(7, DatagramProtocol())
    two.reactor.callLater(5, [].append, 1)
    unnamed: Any = 7
    two.reactor.callLater(6, unnamed)  # which nobody could call
    client: Any = two.socket(socket.AF_INET, socket.SOCK_STREAM)
    unconnected: Any = two.socket(socket.AF_INET, socket.SOCK_STREAM)
    assert unconnected.fileno() > 0
    client.connect_ex((one.address, 80))
    network.advance(1)
    found = leaksOf(network)
    assert "one: listening socket one:80" in found
    assert "one: datagram socket one:7" in found
    assert "two: connection two:49152 to one:80" in found
    assert "two: connection two to nobody" in found
    assert [line for line in found if line.startswith("two: timer ")] == [
        "two: timer list.append in 4 s",
        "two: timer 7 in 5 s",
    ]
    two.die()
    assert not [line for line in leaksOf(network) if line.startswith("two")]


def test_aReportOfNothing(network: MemoryNetwork) -> None:
    assert "\nWhat is scheduled:\n  nothing\n" in report(network, "it is over")


def test_theReportLeavesTwistedAsItWas(network: MemoryNetwork) -> None:
    before = DelayedCall.debug
    Again(network, 1.0).tick()
    told = report(network, "it goes on")
    assert DelayedCall.debug is before
    assert "200 times" in told or "199 times" in told


def test_theReportEndsWithWhatRan(network: MemoryNetwork) -> None:
    """What is not due in a step is not counted in it."""
    network.reactor.callLater(1, network.reactor.callLater, 1, [].append, 1)
    network.reactor.callLater(9, [].append, 1)
    told = report(network, "it goes on")
    assert "  2 times list.append" in told or told.count("  1 times list.append") == 2


def test_thatOneWasScheduledBefore(network: MemoryNetwork) -> None:
    """Nobody knows any more who has scheduled what stood there already."""
    network.reactor.callLater(1, [].append, 1)
    assert "  1 times list.append\n" in report(network, "it goes on")
