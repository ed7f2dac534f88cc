"""Whom to forward to: addresses and weights as text, tiers, who is up, and what is told when that changes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from between import logged
from twisted.logger import LogEvent, formatEvent

from twisted_net.address import EndpointTarget, TcpTarget, UdpTarget, UnixTarget
from twisted_net.errors import AddressError, OptionError, RefusedError
from twisted_net.forward import Target, readTarget
from twisted_net.forward.targets import Pool, State
from twisted_net.sansio.balance import BALANCES, balanceOf
from twisted_net.sansio.health import Health

REFUSED = RefusedError("connect x: nobody listens there")


class Told:
    """What a pool says: to whom it calls, and to the log."""

    def __init__(self, events: list[LogEvent]) -> None:
        self.states: list[tuple[str, State]] = []
        self.events = events

    def changed(self, target: Target, state: State) -> None:
        self.states.append((target.name, state))


@pytest.fixture
def told() -> Iterator[Told]:
    with logged() as events:
        yield Told(events)


class Stage:
    """A pool and its clock."""

    def __init__(self, *targets: Target, balance: str = "round-robin", told: Told | None = None, **health: Any) -> None:
        self.now = 100.0
        self.pool = Pool(
            targets,
            balanceOf(balance),
            lambda: self.now,
            lambda: Health(**health),
            None if told is None else told.changed,
        )

    def names(self, count: int, tried: tuple[Target, ...] = ()) -> list[str]:
        found = [self.pool.pick(b"", tried) for _ in range(count)]
        return ["nobody" if target is None else target.name for target in found]


def served(stage: Stage, count: int) -> Counter[str]:
    """Who is picked for so many clients, all different."""
    found: Counter[str] = Counter()
    for number in range(count):
        target = stage.pool.pick(b"%d" % number)
        assert target is not None
        found[target.name] += 1
    return found


# Texts


@pytest.mark.parametrize(
    ("text", "where", "weight"),
    [
        ("127.0.0.1:80", TcpTarget("127.0.0.1", 80), 1),
        ("[::1]:80;weight=3", TcpTarget("::1", 80), 3),
        ("/run/x.sock ; weight = 1000", UnixTarget("/run/x.sock"), 1000),
        ("unix:@name", UnixTarget("\0name"), 1),
        ("udp:127.0.0.1:53;weight=2", UdpTarget("127.0.0.1", 53), 2),
        ("tls:example.com:443", EndpointTarget("tls:example.com:443"), 1),
    ],
)
def test_readTarget(text: str, where: object, weight: int) -> None:
    assert readTarget(text) == (where, weight)


@pytest.mark.parametrize(
    "rest", ["", "weight", "weight=", "weight=x", "weight=0", "weight=1001", "weight=00001", "wait=1", "weight=²"]
)
def test_noWeight(rest: str) -> None:
    with pytest.raises(OptionError, match="1 to 1000"):
        readTarget(f"127.0.0.1:80;{rest}")


@pytest.mark.parametrize("text", ["127.0.0.1:0", "udp:127.0.0.1:0", "127.0.0.1", "", "127.0.0.1:99999"])
def test_noAddress(text: str) -> None:
    with pytest.raises(AddressError):
        readTarget(text)


def test_target() -> None:
    target = Target("10.0.0.1:80;weight=3")
    assert (target.name, target.weight, target.backup, target.isDatagram) == ("10.0.0.1:80", 3, False, False)
    assert (target.load, target.isUp, target.state) == (0, True, "up")
    assert target.health.isUp(0.0)
    assert repr(target) == "<Target 10.0.0.1:80;weight=3 up>"
    assert Target("10.0.0.1:80;weight=3", weight=2).weight == 2  # what is given overrides the text's
    datagrams = Target(UdpTarget("10.0.0.1", 53), backup=True)
    assert (datagrams.isDatagram, datagrams.weight, datagrams.backup) == (True, 1, True)
    assert repr(datagrams) == "<Target udp:10.0.0.1:53 up>"


@pytest.mark.parametrize("weight", [0, -1, 1001, 1.5, True, "3"])
def test_weightsOutOfRange(weight: Any) -> None:
    with pytest.raises(OptionError, match="weight is"):
        Target("10.0.0.1:80", weight=weight)


@pytest.mark.parametrize("where", [None, 80, ("10.0.0.1", 80), b"10.0.0.1:80"])
def test_whatIsNoTarget(where: Any) -> None:
    with pytest.raises(AddressError, match="is no target; give a text"):
        Target(where)


def test_aModeIsForWhoListens() -> None:
    with pytest.raises(OptionError, match="has a mode"):
        Target("unix:/run/x.sock:mode=600")


def test_twice() -> None:
    with pytest.raises(OptionError, match="given twice"):
        Stage(Target("10.0.0.1:80"), Target("10.0.0.1:81"), Target("10.0.0.1:80;weight=2"))


# Who is next


@pytest.mark.parametrize("balance", BALANCES)
def test_weightsHold(balance: str) -> None:
    """Over 10,000 connections each target has what its weight says, within 5 %."""
    weights = {"a:1": 1, "b:1": 2, "c:1": 5}
    stage = Stage(*(Target(name, weight=weight) for name, weight in weights.items()), balance=balance)
    for name, count in served(stage, 10_000).items():
        assert abs(count / (10_000 * weights[name] / 8) - 1) < 0.05


def test_leastConnections() -> None:
    """Connections that last: loads are as the weights, at all times; who loses some is given the next ones."""
    targets = [Target("a:1", weight=1), Target("b:1", weight=2), Target("c:1", weight=5)]
    stage = Stage(*targets, balance="least-connections")
    pool = stage.pool
    for number in range(10_000):
        target = pool.pick(b"")
        assert target is not None
        pool.entered(target, number)
    assert sum(target.load for target in targets) == 10_000
    for target in targets:
        assert abs(target.load / (10_000 * target.weight / 8) - 1) < 0.05
    for number in list(targets[0].sessions)[:100]:
        pool.left(targets[0], number)
        pool.left(targets[0], number)  # harmless
    assert {one.name for one in (pool.pick(b"") for _ in range(3)) if one is not None} == {"a:1"}


def test_sourceHash() -> None:
    """A client keeps its target when another one leaves."""
    targets = [Target(f"{name}:1") for name in "abcd"]
    stage = Stage(*targets, balance="source-hash", maxFails=1)
    keys = [b"client %d" % number for number in range(500)]
    before = {key: stage.pool.pick(key) for key in keys}
    stage.pool.failed(targets[1], REFUSED)
    for key in keys:
        after = stage.pool.pick(key)
        assert after is not targets[1]
        assert after is before[key] or before[key] is targets[1]
    stage.now += 10
    assert {key: stage.pool.pick(key) for key in keys} == before


def test_backups() -> None:
    """They are chosen from only while no other target is up."""
    first, second, backup = Target("a:1"), Target("b:1"), Target("c:1", backup=True)
    stage = Stage(first, second, backup, maxFails=1, fall=1, rise=1)
    pool = stage.pool
    assert set(stage.names(10)) == {"a:1", "b:1"}
    pool.failed(first, REFUSED)
    assert set(stage.names(10)) == {"b:1"}
    assert stage.names(1, (second,)) == ["c:1"]
    pool.checked(second, REFUSED)
    assert set(stage.names(10)) == {"c:1"}
    pool.checked(second, None)
    assert set(stage.names(10)) == {"b:1"}


def test_nobodyIsLeft() -> None:
    """Who is merely suspended is tried all the same; who has failed his checks is not."""
    first, second, backup = Target("a:1"), Target("b:1"), Target("c:1", backup=True)
    stage = Stage(first, second, backup, maxFails=1, fall=1)
    pool = stage.pool
    for target in (first, second, backup):
        pool.failed(target, REFUSED)
    assert set(stage.names(10)) == {"a:1", "b:1"}
    pool.checked(first, REFUSED)
    assert set(stage.names(10)) == {"b:1"}
    assert stage.names(1, (second,)) == ["c:1"]
    assert stage.names(1, (second, backup)) == ["nobody"]
    pool.checked(second, REFUSED)
    pool.checked(backup, REFUSED)
    assert stage.names(3) == ["nobody"] * 3
    assert Stage().pool.pick(b"") is None


# What is told


def test_statesAreToldOnce(told: Told) -> None:
    target, other = Target("a:1"), Target("b:1")
    stage = Stage(target, other, told=told, maxFails=2, failTimeout=10.0)
    pool = stage.pool
    pool.succeeded(target)
    pool.failed(target, REFUSED)
    assert told.states == []
    pool.failed(target, REFUSED)
    assert (target.state, target.isUp) == ("suspended", False)
    pool.failed(target, REFUSED)  # somebody who had been on the way
    assert told.states == [("a:1", "suspended")]
    stage.now += 10
    assert (target.state, target.isUp) == ("up", True)  # on trial, which nobody has proved
    assert told.states == [("a:1", "suspended")]
    pool.failed(target, REFUSED)
    assert target.state == "suspended"
    assert told.states == [("a:1", "suspended")]
    stage.now += 10
    pool.succeeded(target)
    pool.succeeded(target)
    assert told.states == [("a:1", "suspended"), ("a:1", "up")]
    levels = [event["log_level"].name for event in told.events]
    assert levels == ["warn", "info"]
    assert [event["net"] for event in told.events] == [
        {"event": "target", "target": "a:1", "state": "suspended", "error": REFUSED.strerror},
        {"event": "target", "target": "a:1", "state": "up", "error": None},
    ]
    assert formatEvent(told.events[0]) == f"target a:1 is suspended: {REFUSED.strerror}"
    assert formatEvent(told.events[1]) == "target a:1 is up"
    assert other.state == "up"


def test_checksAreToldOnce(told: Told) -> None:
    target = Target("a:1")
    stage = Stage(target, told=told, rise=2, fall=3, maxFails=1)
    pool = stage.pool
    for error in (REFUSED, REFUSED, None, REFUSED, REFUSED, REFUSED, REFUSED, None, REFUSED, None, None, None):
        pool.checked(target, error)
    assert told.states == [("a:1", "down"), ("a:1", "up")]
    # Knowledge comes before a guess.
    pool.failed(target, REFUSED)
    for _ in range(3):
        pool.checked(target, REFUSED)
    stage.now += 10
    pool.checked(target, None)
    assert target.state == "down"
    pool.checked(target, None)
    assert told.states[2:] == [("a:1", "suspended"), ("a:1", "down"), ("a:1", "up")]


def test_aSuspensionThatIsOverIsToldWithoutABlame(told: Told) -> None:
    """A bad check that is not yet enough is no reason to be up again."""
    target = Target("a:1")
    stage = Stage(target, told=told, maxFails=1, failTimeout=10.0, fall=3)
    stage.pool.failed(target, REFUSED)
    stage.now += 10
    stage.pool.checked(target, REFUSED)
    assert told.states == [("a:1", "suspended"), ("a:1", "up")]
    assert told.events[-1]["net"]["error"] is None
    assert formatEvent(told.events[-1]) == "target a:1 is up"


def test_neverSuspended(told: Told) -> None:
    target = Target("a:1")
    stage = Stage(target, told=told, maxFails=None)
    for _ in range(100):
        stage.pool.failed(target, REFUSED)
    assert (told.states, target.state) == ([], "up")
    assert target.counters["failures"] == 100


def test_nobodyIsTold() -> None:
    target = Target("a:1")
    Stage(target, maxFails=1).pool.failed(target, REFUSED)
    assert target.state == "suspended"


def test_snapshot() -> None:
    class Session:
        bytesIn, bytesOut = 10, 20

    target = Target("a:1;weight=2", backup=True)
    stage = Stage(target)
    stage.pool.entered(target, Session())
    stage.pool.entered(target, Session())
    stage.pool.succeeded(target)
    stage.pool.failed(target, REFUSED)
    target.counters.add("bytesTo", 100)
    target.counters.add("bytesFrom", 200)
    assert target.snapshot() == {
        "target": "a:1",
        "weight": 2,
        "backup": True,
        "state": "up",
        "load": 2,
        "sessions": 1,
        "failures": 1,
        "bytesTo": 120,
        "bytesFrom": 240,
    }
