"""The active check: when it is made, what its results mean, and that nothing of it stays."""

from __future__ import annotations

from typing import Any

import pytest
from between import Stage, between, inCalm
from doors import patient

from twisted_net.errors import OptionError
from twisted_net.forward import Check, Target
from twisted_net.forward.checks import Checks
from twisted_net.forward.targets import Pool
from twisted_net.sansio.balance import balanceOf
from twisted_net.testing.network import MemoryNetwork

TARGETS = ["one", "two", "three"]


@pytest.mark.parametrize("name", ["interval", "timeout"])
@pytest.mark.parametrize("value", [0, -1, float("inf"), float("nan"), True, "2", None])
def test_secondsOutOfRange(name: str, value: Any) -> None:
    with pytest.raises(OptionError, match=f"{name} of a check is"):
        Check(**{name: value})


@pytest.mark.parametrize("name", ["rise", "fall"])
@pytest.mark.parametrize("value", [0, -1, 1.5, True, "2", None])
def test_countsOutOfRange(name: str, value: Any) -> None:
    with pytest.raises(OptionError, match=f"{name} of a check is"):
        Check(**{name: value})


def connects(network: MemoryNetwork, name: str) -> list[float]:
    """When the forwarder has begun to connect to a target."""
    lines = [line.split() for line in str(network.trace).splitlines()]
    return [float(words[0]) for words in lines if words[-2:] == [f"{name}:80", "connect"]]


@inCalm
async def test_theTargetsTakeTurns(network: MemoryNetwork) -> None:
    async with between(network, TARGETS, check=Check(interval=3.0)) as stage:
        await stage.sleep(10.1)
        assert connects(network, "one") == [0, 3, 6, 9]
        assert connects(network, "two") == [1, 4, 7, 10]
        assert connects(network, "three") == [2, 5, 8]
        # A check is no session, and whoever is checked sees that it is over at once.
        assert stage.forwarder.snapshot()["targets"][0]["sessions"] == 0
        for name in TARGETS:
            server = await stage.accept(name)
            assert await server.readAll() == b""
            await server.close()


@inCalm
async def test_riseAndFall(network: MemoryNetwork) -> None:
    async with between(network, TARGETS, check=Check(interval=3.0, rise=2, fall=3)) as stage:
        await stage.sleep(1.5)
        await stage.shut("two")
        await stage.sleep(8)  # two bad ones, at 4 and at 7
        assert stage.states == []
        assert stage.target("two").isUp
        await stage.sleep(1)
        assert stage.states == [("two:80", "down")]
        for _ in range(6):
            await stage.connect()
        await stage.sleep(0.1)
        assert [target.load for target in stage.forwarder.targets] == [3, 0, 3]
        await stage.open("two")
        await stage.sleep(2.5)  # at 13
        assert len(stage.states) == 1
        await stage.sleep(3)  # at 16
        assert stage.states[1:] == [("two:80", "up")]


@inCalm
async def test_whoDoesNotAnswer(network: MemoryNetwork) -> None:
    """No connection within the timeout is a bad check; one that takes longer than the interval is not made twice."""
    async with between(network, TARGETS[:1], check=Check(interval=1.0, timeout=2.5, fall=2)) as stage:
        await stage.sleep(0.5)
        network.link("middle", "one").cut()
        await stage.sleep(3.6)  # begun at 1, over at 3.5; 2 and 3 are left out
        assert connects(network, "one") == [0, 1, 4]
        assert stage.states == []
        await stage.sleep(3)
        assert stage.states == [("one:80", "down")]
        network.link("middle", "one").heal()
        await stage.sleep(3)
        assert stage.states[1:] == [("one:80", "up")]


@inCalm
async def test_whoHasNoDescriptorProvesNothing(network: MemoryNetwork) -> None:
    async with between(network, TARGETS[:1], check=Check(interval=1.0, fall=1)) as stage:
        await stage.sleep(0.5)
        network.host("middle").failing("socket", "EMFILE", 3)
        await stage.sleep(3)
        assert stage.states == []
        assert stage.target("one").health.passesChecks
        network.host("middle").failing("connect", "EADDRNOTAVAIL")
        await stage.sleep(1)
        assert stage.states == []
        network.host("middle").failing("connect", "ENETUNREACH")
        await stage.sleep(1)
        assert stage.states == [("one:80", "down")]


@inCalm
async def test_stop(network: MemoryNetwork) -> None:
    """What is under way is given up, and nothing is left; both may be said twice."""
    stage = Stage(network)
    await stage.open("one")
    await stage.open("two")
    reactor = stage.reactor("middle")
    network.link("middle", "two").cut()
    targets = [Target("one:80"), Target("two:80")]
    pool = Pool(targets, balanceOf("round-robin"), reactor.seconds)
    checks = Checks(pool, Check(interval=1.0, timeout=5.0, fall=1), reactor)
    checks.stop()
    checks.start()
    checks.start()
    await network.sleep(2.1)
    assert connects(network, "one") == [0, 1, 2]
    assert connects(network, "two")[0] == 0.5
    checks.stop()
    checks.stop()
    assert [leak for leak in network.leaks() if leak.startswith("middle: timer")] == []
    await network.sleep(10)
    assert connects(network, "one") == [0, 1, 2]
    assert [target.state for target in targets] == ["up", "up"]
    assert [leak for leak in network.leaks() if leak.startswith("middle:")] == []
    for _ in range(3):
        await (await stage.accept()).close()
    for listener in stage.listeners.values():
        await listener.close()


@inCalm
async def test_nobodyToCheck(network: MemoryNetwork) -> None:
    """Nobody to check: nothing is scheduled."""
    reactor = network.reactor
    checks = Checks(Pool([], balanceOf("round-robin"), reactor.seconds), Check(), reactor)
    checks.start()
    assert network.leaks() == []


@patient
async def test_onRealSockets() -> None:
    async with between(None, TARGETS[:2], check=Check(interval=0.02, rise=1, fall=1)) as stage:
        await stage.sleep(0.05)
        assert stage.states == []
        name = stage.where("two")
        await stage.shut("two")
        await stage.until(lambda: stage.states == [(name, "down")])
        client, server = await stage.meet()
        await client.write(b"x")
        while (await server.read()) == b"":  # those that only checked
            server = await stage.accept()
        assert stage.target("one").load == 1
