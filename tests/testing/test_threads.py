"""Threads without threads: the same order, every time."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from logs import LoggedErrors
from twisted.internet.threads import deferToThread

from twisted_net.testing.network import MemoryNetwork


@pytest.fixture
def network() -> MemoryNetwork:
    return MemoryNetwork()


def test_deferToThread(network: MemoryNetwork) -> None:
    ran: list[Any] = []

    async def scenario() -> None:
        one = deferToThread(threading.current_thread)
        one.addCallback(ran.append)
        two = deferToThread(ran.append, "two")
        ran.append("nothing has run")
        await one
        await two

    network.run(scenario)
    assert ran == ["nothing has run", "two", threading.current_thread()]  # results come back on a later turn


def test_failures(network: MemoryNetwork) -> None:
    with pytest.raises(ZeroDivisionError):
        network.run(lambda: deferToThread(lambda: 1 / 0))


def test_callInThread(network: MemoryNetwork, loggedErrors: LoggedErrors) -> None:
    ran: list[int] = []
    network.reactor.callInThread(ran.append, 1)
    network.reactor.callInThread(lambda: 1 / 0)
    assert ran == []
    network.advance(0)
    assert ran == [1]
    assert len(loggedErrors.flush(ZeroDivisionError)) == 1


def test_backToTheReactor(network: MemoryNetwork) -> None:
    ran: list[str] = []

    def work() -> None:
        network.reactor.callFromThread(ran.append, "reactor")
        ran.append("thread")

    network.reactor.callInThread(work)
    network.advance(0)
    assert ran == ["thread", "reactor"]


def test_thePool(network: MemoryNetwork) -> None:
    reactor = network.reactor
    pool = reactor.getThreadPool()
    assert reactor.getThreadPool() is pool
    assert (pool.min, pool.max, pool.threads, pool.started, pool.joined) == (0, 1, (), False, False)
    pool.start()
    assert pool.started
    reactor.suggestThreadPoolSize(50)
    assert pool.max == 1
    pool.stop()
    assert (pool.started, pool.joined) == (False, True)
