"""The network itself: hosts, links, time, chance, and its end."""

from __future__ import annotations

import sys
from pathlib import Path
from subprocess import run
from typing import Any

import pytest
from twisted.internet.defer import Deferred, succeed
from twisted.internet.protocol import Protocol, ServerFactory

from twisted_net.errors import OptionError
from twisted_net.sansio.faults import Latency
from twisted_net.testing.choices import Choices
from twisted_net.testing.network import DAY, MemoryNetwork
from twisted_net.testing.runaway import LeakError, RunawayError, StalledError

PROGRAM = Path(__file__).parents[1] / "programs" / "digest.py"


@pytest.fixture
def network() -> MemoryNetwork:
    return MemoryNetwork()


# -- hosts and links


def test_hosts(network: MemoryNetwork) -> None:
    one = network.host("one")
    assert network.host("one") is one
    assert network.host("two", "10.9.9.9").addresses == ("10.9.9.9",)
    assert network.host("two", "10.9.9.9") is network.host("two")
    assert one.addresses == ("10.0.0.1", "fd00:0:0:1::1")
    assert list(network.hosts) == ["one", "two"]
    assert network.reactor is network.host("localhost").reactor
    assert network.reactor is not one.reactor


def test_hostsThatCannotBe(network: MemoryNetwork) -> None:
    network.host("one", "10.9.9.9")
    with pytest.raises(OptionError, match="but host 'one' is there with"):
        network.host("one", "10.9.9.8")
    with pytest.raises(OptionError, match="which host 'one' has already; choose another one"):
        network.host("two", "10.9.9.9")
    with pytest.raises(OptionError, match="which every host has already"):
        network.host("two", "127.0.0.1")
    assert list(network.hosts) == ["one"]


def test_oneOfSeedAndChoices() -> None:
    assert MemoryNetwork(3).choices.seed == 3
    assert MemoryNetwork(choices=Choices(4)).choices.seed == 4
    with pytest.raises(OptionError, match="seed is 3 and choices are given, too; give one of them"):
        MemoryNetwork(3, choices=Choices(4))


def test_links(network: MemoryNetwork) -> None:
    one, two = network.host("one"), network.host("two")
    link = network.link(one, two)
    assert network.link("two", "one") is link
    assert network.link("one", "three").hosts == (one, network.host("three"))  # hosts are made as they are named
    assert network.road(one, two) is link.road(two)


def test_partitions(network: MemoryNetwork) -> None:
    one, two, three, four = (network.host(name) for name in ("one", "two", "three", "four"))
    network.partition([one, "two"], ["three"])
    cut = {
        (here.name, there.name)
        for here in network.hosts.values()
        for there in network.hosts.values()
        if network.road(here, there).isCut
    }
    sides = [{"one", "two"}, {"three"}, {"four"}]
    names = list(network.hosts)
    assert cut == {(a, b) for a in names for b in names if not any({a, b} <= side for side in sides)}
    two.die()
    network.heal()
    assert not network.road(one, three).isCut
    assert not network.road(three, four).isCut
    assert network.road(one, two).isCut


def test_whoHasAnAddress(network: MemoryNetwork) -> None:
    one, two = network.host("one", "10.9.9.1"), network.host("two", "10.9.9.2")
    assert network.hostAt(one, "10.9.9.2") is two
    assert network.hostAt(one, "::ffff:10.9.9.2") is two
    assert [network.hostAt(one, text) for text in ("127.0.0.1", "::1", "0.0.0.0", "::")] == [one] * 4
    assert network.hostAt(one, "192.0.2.1") is None
    assert network.labelOf(one, ("10.9.9.2", 80)) == "two:80"
    assert network.labelOf(one, ("192.0.2.1", 80)) == "192.0.2.1:80"


def test_itsText() -> None:
    network = MemoryNetwork(7)
    network.host("one")
    network.host("two")
    network.advance(1.5)
    text = repr(network)
    assert text.startswith("<MemoryNetwork seed=7 at 1.5 s: one, two")


def test_pathsOfItsOwn(network: MemoryNetwork) -> None:
    first, second = network.path(), network.path()
    assert first != second


# -- time


def test_timeJumps(network: MemoryNetwork) -> None:
    times: list[float] = []
    network.reactor.callLater(1800, lambda: times.append(network.seconds()))
    network.runWhile(lambda: not times)
    assert times == [1800.0]


def test_advancing(network: MemoryNetwork) -> None:
    times: list[float] = []
    for delay in (1, 2, 3):
        network.reactor.callLater(delay, lambda: times.append(network.now))
    network.at(2.5, lambda: times.append(network.now))
    network.advance(2)
    assert (times, network.now) == ([1.0, 2.0], 2.0)
    network.advance(0.75)
    assert (times, network.now) == ([1.0, 2.0, 2.5], 2.75)
    network.advance(99)
    assert times == [1.0, 2.0, 2.5, 3.0]


def test_events(network: MemoryNetwork) -> None:
    ran: list[str] = []
    network.advance(5)
    network.at(1, ran.append, "what is late is now")
    network.at(6, ran.append, "first")
    network.at(6, ran.append, "second")
    event = network.at(6, ran.append, "never")
    event.cancel()
    event.cancel()
    network.advance(1)
    assert ran == ["what is late is now", "first", "second"]


def test_cancelledEventsAreNothingToWaitFor(network: MemoryNetwork) -> None:
    network.at(6, [].append, 1).cancel()
    network.settle()
    assert network.now == 0
    with pytest.raises(StalledError):
        network.runWhile(lambda: True)


def test_whoIsFrozenHasNoWork(network: MemoryNetwork) -> None:
    ran: list[tuple[str, float]] = []
    one, two = network.host("one"), network.host("two")
    for host in (one, two):
        host.reactor.callLater(1, lambda name=host.name: ran.append((name, network.now)))
    one.freeze()
    network.advance(3)
    assert ran == [("two", 1.0)]
    one.thaw()
    network.runWhile(lambda: len(ran) < 2)
    assert ran[1] == ("one", 3.0)


def test_settling(network: MemoryNetwork) -> None:
    """What is under way arrives; timers do not go off."""
    network.link("one", "two").setFaults(Latency(1.0))
    factory = ServerFactory.forProtocol(Protocol)
    network.host("two").reactor.listenTCP(80, factory)
    client: Any = network.host("one").socket(2, 1)
    client.connect_ex((network.host("two").address, 80))
    ran: list[int] = []
    network.reactor.callLater(100, ran.append, 1)
    network.reactor.callLater(0, ran.append, 0)
    network.settle()
    assert ran == [0]
    assert client.getpeername()


def test_sleeping(network: MemoryNetwork) -> None:
    async def scenario() -> float:
        await network.sleep(30)
        return network.now

    assert network.run(scenario) == 30


# -- running


async def coroutine() -> str:
    return "done"


@pytest.mark.parametrize(
    "what",
    [coroutine, coroutine(), succeed("done"), lambda: "done", lambda: succeed("done"), lambda: coroutine()],
    ids=["coroutineFunction", "coroutine", "Deferred", "function", "toDeferred", "toCoroutine"],
)
def test_whatCanBeRun(network: MemoryNetwork, what: Any) -> None:
    assert network.run(what) == "done"


def test_whatFails(network: MemoryNetwork) -> None:
    async def scenario() -> None:
        await network.sleep(1)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        network.run(scenario)
    failed = network.begin(scenario)
    assert failed.called
    failed.addErrback(lambda failure: failure.trap(ZeroDivisionError))
    assert network.begin(coroutine).result == "done"


def test_whatNeverComes(network: MemoryNetwork) -> None:
    with pytest.raises(StalledError, match="nothing is scheduled, and what is waited for has not come"):
        network.run(Deferred())


def test_whatComesTooLate(network: MemoryNetwork) -> None:
    with pytest.raises(RunawayError, match="until 0 s of virtual time"):
        network.run(lambda: network.sleep(11), timeout=10)
    assert network.run(lambda: network.sleep(DAY)) is None


def test_reactorsTakeTheGlobalOnesPlace(network: MemoryNetwork) -> None:
    seen: list[Any] = []

    def look() -> None:
        from twisted.internet import reactor

        seen.append(reactor)

    look()
    one, two = network.host("one").reactor, network.host("two").reactor
    one.callLater(1, look)
    two.callLater(1, look)
    one.callLater(2, look)
    network.advance(3)
    with network.installed("two"):
        look()
    look()
    assert seen == [seen[0], *sorted(seen[1:3], key=[one, two].index), one, two, seen[0]]


def test_runningWhileItRuns(network: MemoryNetwork) -> None:
    async def scenario() -> float:
        network.advance(5)
        return network.now

    assert network.run(scenario) == 5


# -- chance


def test_whoseTurnItIsIsLeftToChance() -> None:
    orders = set()
    for seed in range(20):
        network = MemoryNetwork(seed)
        ran: list[str] = []
        for name in ("one", "two", "three"):
            network.host(name).reactor.callLater(1, ran.append, name)
        network.advance(1)
        orders.add(tuple(ran))
    assert len(orders) > 3


def test_theSameSeedIsTheSameRun() -> None:
    def digest(seed: int) -> str:
        done = run([sys.executable, str(PROGRAM), str(seed)], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    assert digest(1) == digest(1) != digest(2)


# -- the end


def test_nothingLeft() -> None:
    with MemoryNetwork() as network:
        network.run(lambda: network.sleep(1))
    network.close()
    with pytest.raises(StalledError, match="the network is closed"):
        network.advance(1)


def test_somethingLeft() -> None:
    network = MemoryNetwork()
    network.host("one").reactor.listenTCP(80, ServerFactory())
    assert network.leaks() == ["one: listening socket one:80"]
    with pytest.raises(LeakError, match="left behind:\n  one: listening socket one:80\nWhat happened on the network"):
        network.close()
    network.close()
    assert network.leaks() == []


def test_aTestThatFailsShowsTheStory() -> None:
    network = MemoryNetwork(17)
    network.host("one").reactor.listenTCP(80, ServerFactory())  # left, but that is not why
    with pytest.raises(ZeroDivisionError) as caught, network:
        raise ZeroDivisionError
    assert caught.value.__notes__ == [
        "The network's seed was 17.\nWhat happened on the network:\n   0.000000  one:80  listen"
    ]


def test_theStoryIsToldOnce() -> None:
    """Errors that are the network's own tell it themselves."""
    network = MemoryNetwork(17)
    with pytest.raises(StalledError) as caught, network:
        network.run(Deferred())
    assert not hasattr(caught.value, "__notes__")
    assert str(caught.value).count("What happened on the network") == 1


def test_aLivelockIsNoted(network: MemoryNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twisted_net.testing.network.TURNS", 100)

    def again() -> None:
        network.reactor.callLater(0, again)

    again()
    with pytest.raises(RunawayError, match="100 turns went by at 0 s, and no time passes"):
        network.advance(1)


def test_aLongStoryIsCut(network: MemoryNetwork) -> None:
    for number in range(70):
        network.trace.note("one", "", f"event {number}")
    story = network.story()
    assert story.startswith("What happened on the network:\n(10 lines before these)\n")
    assert "event 9\n" not in story
    assert story.endswith("event 69")
