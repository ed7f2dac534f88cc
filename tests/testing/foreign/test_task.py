"""twisted.internet.task on a network in memory: what takes the global reactor's time takes the network's."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from twisted.internet import task
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from weather import inEveryWeather

from twisted_net.testing.network import MemoryNetwork


@inEveryWeather()
async def test_cooperate(network: MemoryNetwork) -> None:
    """Two that cooperate take turns."""
    said: list[str] = []

    def speak(word: str) -> Iterator[None]:
        for _ in range(3):
            said.append(word)
            yield

    one, other = task.cooperate(speak("tick")), task.cooperate(speak("tock"))
    await one.whenDone()
    await other.whenDone()
    assert said == ["tick", "tock"] * 3
    assert network.now == 0


@inEveryWeather()
async def test_aLoopOnTheGlobalClock(network: MemoryNetwork) -> None:
    times: list[float] = []

    def note() -> None:
        times.append(network.now)
        if len(times) == 100:
            loop.stop()

    loop = task.LoopingCall(note)
    await loop.start(60.0)
    assert times == [60.0 * number for number in range(100)]


@inEveryWeather()
async def test_aLoopOfWorkThatTakesItsTime(network: MemoryNetwork) -> None:
    """What would overlap is left out."""
    reactor = network.host("client").reactor
    counts: list[int] = []

    def work(count: int) -> Deferred[None]:
        counts.append(count)
        if len(counts) == 4:
            loop.stop()
        return task.deferLater(reactor, 2.5)

    loop = task.LoopingCall.withCount(work)
    loop.clock = reactor
    await loop.start(1.0)
    assert counts == [1, 3, 3, 3]
    assert network.now == 11.5


@inEveryWeather()
async def test_later(network: MemoryNetwork) -> None:
    reactor = network.host("client").reactor
    assert await task.deferLater(reactor, 1800, lambda: "now") == "now"
    assert network.now == 1800
    assert await deferToThread(lambda: "elsewhere") == "elsewhere"


def test_react() -> None:
    """A program's main function, as ``react`` runs it: with the whole network, and an exit at the end."""
    with MemoryNetwork() as network:
        reactor = network.host("client").reactor
        stopped: list[float] = []
        reactor.addSystemEventTrigger("before", "shutdown", lambda: stopped.append(network.now))
        with pytest.raises(SystemExit) as exit:
            task.react(lambda reactor: task.deferLater(reactor, 5), _reactor=reactor)
        assert exit.value.code == 0
        assert stopped == [5.0]
        assert network.now == 5.0
