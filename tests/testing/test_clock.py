"""The test kit's clock: virtual time over real sockets."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted
from hypothesis import given
from hypothesis import strategies as st
from lines import Once
from pairs import Side
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorTCP, IReactorTime
from twisted.internet.protocol import Factory

from twisted_net.testing.clock import VirtualTime


@pytest.fixture
def time() -> VirtualTime:
    from twisted.internet import reactor

    return VirtualTime(reactor)


def test_itIsAReactor(time: VirtualTime) -> None:
    assert IReactorTime.providedBy(time)
    assert IReactorTCP.providedBy(time)


def test_timeStandsStill(time: VirtualTime) -> None:
    assert time.seconds() == 0.0
    time.advance(1800)
    assert time.seconds() == 1800.0


def test_everythingDueRunsInOrderAtItsOwnTime(time: VirtualTime) -> None:
    ran: list[tuple[str, float]] = []

    def run(name: str, again: float | None = None) -> None:
        ran.append((name, time.seconds()))
        if again is not None:
            time.callLater(again, run, name)

    time.callLater(3, run, "three")
    time.callLater(1, run, "one", again=1.5)
    time.callLater(9, run, "nine")
    assert [call.getTime() for call in sorted(time.getDelayedCalls(), key=lambda call: call.getTime())] == [1, 3, 9]
    time.advance(4)
    assert ran == [("one", 1.0), ("one", 2.5), ("three", 3.0)]
    assert time.seconds() == 4.0
    assert len(time.getDelayedCalls()) == 1
    time.advance(5)
    assert ran[-1] == ("nine", 9.0)
    assert not time.getDelayedCalls()


def test_cancelAndReset(time: VirtualTime) -> None:
    ran: list[str] = []
    time.callLater(1, ran.append, "cancelled").cancel()
    later = time.callLater(1, ran.append, "later")
    later.reset(5)
    time.advance(4)
    assert ran == []
    time.advance(1)
    assert ran == ["later"]


@given(st.lists(st.floats(0.001, 1000), max_size=20), st.floats(0, 2000))
def test_whateverTheTimes(delays: list[float], seconds: float) -> None:
    from twisted.internet import reactor

    time = VirtualTime(reactor)
    ran: list[float] = []
    for delay in delays:
        time.callLater(delay, lambda: ran.append(time.seconds()))
    time.advance(seconds)
    assert ran == sorted(ran)
    assert len(ran) == sum(delay <= seconds for delay in delays)
    assert time.seconds() == pytest.approx(seconds)


@pytest_twisted.ensureDeferred
async def test_aCallWithNoDelayIsATurnOfTheRealReactor(time: VirtualTime) -> None:
    done: Deferred[str] = Deferred()
    time.callLater(0, done.callback, "turned")
    assert not time.getDelayedCalls()
    assert await done == "turned"
    assert time.seconds() == 0.0


@pytest_twisted.ensureDeferred
async def test_theNetworkIsReal(time: VirtualTime) -> None:
    reactor: Any = time
    client, server = Side(), Side()
    port = reactor.listenTCP(0, Factory.forProtocol(lambda: server), interface="127.0.0.1")
    reactor.connectTCP("127.0.0.1", port.getHost().port, Once(client))
    await client.happened("made")
    client.transport.write(b"real")
    await server.until(lambda: server.received == b"real")
    client.transport.loseConnection()
    await client.happened("lost")
    server.transport.loseConnection()
    await server.happened("lost")
    await maybeDeferred(port.stopListening)
