"""Which of several: shares that hold, turns that are spread, clients that stay where they are."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twisted_net.errors import OptionError
from twisted_net.sansio.balance import (
    BALANCES,
    Balance,
    LeastConnections,
    RoundRobin,
    SourceHash,
    balanceOf,
)


class One:
    """A candidate. As small as one may be."""

    __slots__ = ("__weakref__", "load", "name", "weight")

    def __init__(self, name: str, weight: int = 1, load: int = 0) -> None:
        self.name = name
        self.weight = weight
        self.load = load

    def __repr__(self) -> str:
        return f"{self.name}({self.weight}, {self.load})"


def several(*weights: int) -> list[One]:
    return [One(chr(ord("a") + index), weight) for index, weight in enumerate(weights)]


def picks(balance: Balance, candidates: Sequence[One], count: int) -> str:
    return "".join(balance.pick(candidates, b"").name for _ in range(count))


weightings = st.lists(st.integers(1, 9), min_size=1, max_size=6)
names = st.text(max_size=20)
groups = st.dictionaries(names, st.integers(1, 9), min_size=2, max_size=6).map(
    lambda weights: [One(name, weight) for name, weight in weights.items()]
)
keys = st.binary(max_size=20)


# -- by name


@pytest.mark.parametrize(
    ("name", "kind"),
    [("round-robin", RoundRobin), ("least-connections", LeastConnections), ("source-hash", SourceHash)],
)
def test_eachHasAName(name: str, kind: type[Balance]) -> None:
    assert BALANCES[name] is kind
    assert kind.name == name
    assert type(balanceOf(name)) is kind
    assert balanceOf(name) is not balanceOf(name)


def test_thereAreNoOthers() -> None:
    assert len(BALANCES) == 3
    with pytest.raises(OptionError) as caught:
        balanceOf("random")
    told = "balance is 'random'; it must be one of round-robin, least-connections, source-hash"
    assert caught.value.strerror == told


@pytest.mark.parametrize("name", BALANCES)
def test_whoIsAloneIsPicked(name: str) -> None:
    balance = balanceOf(name)
    alone = One("a", 3)
    for alone.load in range(5):
        assert balance.pick([alone], b"key") is alone


# -- round-robin


@pytest.mark.parametrize(
    ("weights", "turns"),
    [
        ((1, 1, 1), "abc"),
        ((5, 1, 1), "aabacaa"),  # the example in nginx's commit "Upstream: smooth weighted round-robin balancing"
        ((1, 2), "bab"),
        ((4, 2), "abaaba"),
    ],
)
def test_turnsAreSpread(weights: tuple[int, ...], turns: str) -> None:
    assert picks(RoundRobin(), several(*weights), 2 * len(turns)) == 2 * turns


@given(weightings, st.integers(0, 60))
def test_anyCycleGivesEachItsWeight(weights: list[int], start: int) -> None:
    candidates, balance, cycle = several(*weights), RoundRobin(), sum(weights)
    picks(balance, candidates, start)
    assert Counter(picks(balance, candidates, cycle)) == {one.name: one.weight for one in candidates}


@given(weightings)
def test_nobodyIsAWholePickAhead(weights: list[int]) -> None:
    candidates, cycle = several(*weights), sum(weights)
    counts: Counter[str] = Counter()
    for index, name in enumerate(picks(RoundRobin(), candidates, 2 * cycle), 1):
        counts[name] += 1
        for one in candidates:
            assert counts[one.name] < Fraction(one.weight * index, cycle) + 1


@given(st.integers(1, 8))
def test_equalsAreSpreadExactly(count: int) -> None:
    turns = picks(RoundRobin(), several(*[1] * count), 3 * count)
    assert turns == 3 * turns[:count]
    assert len(set(turns)) == count


@given(st.data())
def test_sharesHoldWhateverWentBefore(data: st.DataObject) -> None:
    """Others came and went, some were out, weights were changed: who is there now has its share, give or take a few."""
    balance = RoundRobin()
    candidates = several(*data.draw(weightings))
    for step in range(data.draw(st.integers(0, 40))):
        there = data.draw(st.lists(st.sampled_from(candidates), min_size=1, unique=True))
        chosen = balance.pick(there, b"")
        match data.draw(st.sampled_from(["goes", "changes", "stays"])):
            case "goes":
                candidates[candidates.index(chosen)] = One(f"new{step}", data.draw(st.integers(1, 9)))
            case "changes":
                chosen.weight = data.draw(st.integers(1, 99))
    cycle = sum(one.weight for one in candidates)
    counts = Counter(balance.pick(candidates, b"") for _ in range(3 * cycle))
    for one in candidates:
        assert abs(counts[one] - 3 * one.weight) <= 2 * len(candidates)


def test_aNewcomerNeedNotWaitForWhatOthersLeftBehind() -> None:
    """Who was just picked is dropped, a thousand times: its debts fall to nobody."""
    balance, staying = RoundRobin(), several(1, 1)
    coming = One("c")
    for _ in range(1000):
        while balance.pick([*staying, coming], b"") is not coming:
            pass
        coming = One("c")
    assert Counter(picks(balance, [*staying, coming], 6)) == {"a": 2, "b": 2, "c": 2}


def test_whoComesBackAfterManyNeedNotWaitEither() -> None:
    balance, staying, back = RoundRobin(), several(1, 1), One("back")
    picks(balance, [*staying, back], 3)
    for _ in range(1000):
        coming = One("c")
        while balance.pick([*staying, coming], b"") is not coming:
            pass
    turns = [balance.pick([*staying, back], b"") for _ in range(30)]
    assert 7 <= turns.count(back) <= 13


def test_whoIsOutIsNotMadeUpFor() -> None:
    """Back again, it gets its turn and not all those that it missed."""
    candidates, balance = several(1, 1, 1), RoundRobin()
    picks(balance, candidates, 3)
    picks(balance, candidates[:2], 1000)
    assert Counter(picks(balance, candidates, 3)) == {"a": 1, "b": 1, "c": 1}


def test_aWeightMayChange() -> None:
    candidates, balance = several(1000, 1), RoundRobin()
    balance.pick(candidates, b"")
    candidates[0].weight = 1
    assert Counter(picks(balance, candidates, 20))["a"] >= 8


def test_whoIsForgottenElsewhereIsForgottenHere() -> None:
    balance, candidates = RoundRobin(), several(1, 2)
    picks(balance, candidates, 5)
    assert len(balance._credits) == 2
    del candidates[0]
    gc.collect()
    assert len(balance._credits) == 1


# -- least connections


def test_takesTheLeastForItsWeight() -> None:
    a, b, c = One("a", 1, 1), One("b", 4, 4), One("c", 2, 3)
    assert LeastConnections().pick([a, b, c], b"") is b  # 2/1, 5/4, 4/2


def test_takesWhereTheNewOneFindsMostRoom() -> None:
    """Not the one that is empty: one of 10 places is used there, and here it would be one of one."""
    large, small = One("large", 10, 1), One("small", 1, 0)
    assert LeastConnections().pick([small, large], b"") is large


def test_equalsTakeTurns() -> None:
    balance = LeastConnections()
    candidates = [One("a", 1, 1), One("b", 1, 1), One("full", 1, 2)]
    assert picks(balance, candidates, 4) == "abab"


def test_shortConnectionsKeepToTheWeights() -> None:
    """Each has ended before the next one comes."""
    assert picks(LeastConnections(), several(5, 1, 1), 7) == "aabacaa"


@given(st.lists(st.tuples(st.integers(1, 2**20), st.integers(0, 2**20)), min_size=1, max_size=6))
def test_isLeast(pairs: list[tuple[int, int]]) -> None:
    candidates = [One(str(index), weight, load) for index, (weight, load) in enumerate(pairs)]
    chosen = LeastConnections().pick(candidates, b"")
    if any(one.load for one in candidates):
        ranks = {one: Fraction(one.load + 1, one.weight) for one in candidates}
        assert ranks[chosen] == min(ranks.values())


@given(weightings, st.integers(1, 200))
def test_connectionsThatStayFillByWeight(weights: list[int], count: int) -> None:
    """Nobody holds more than its share and one."""
    candidates, balance = several(*weights), LeastConnections()
    for _ in range(count):
        balance.pick(candidates, b"").load += 1
    for one in candidates:
        assert one.load < Fraction(one.weight * count, sum(weights)) + len(weights)


@pytest.mark.parametrize("weights", [(1, 1), (1, 2, 3), (4, 3, 2, 1)])
def test_tenThousandConnectionsKeepToTheWeights(weights: tuple[int, ...]) -> None:
    """Some 500 at a time, which end in no order: loads are within 5 % of the weights, and so is who was picked."""
    candidates, balance, random = several(*weights), LeastConnections(), Random(1)
    living: list[One] = []
    served: Counter[One] = Counter()
    loads: Counter[One] = Counter()
    for _ in range(10_000):
        if len(living) == 500:
            living[(index := random.randrange(500))].load -= 1
            living[index] = living[-1]
            living.pop()
        chosen = balance.pick(candidates, b"")
        chosen.load += 1
        living.append(chosen)
        served[chosen] += 1
        if len(living) == 500:
            loads.update({one: one.load for one in candidates})
    for counts in served, loads:
        for one in candidates:
            share = counts.total() * one.weight / sum(weights)
            assert counts[one] == pytest.approx(share, rel=0.05)


# -- source hash


def test_isTheSameEverywhere() -> None:
    """Written down once: another process, Python or machine may not choose differently."""
    candidates = [One("127.0.0.1:8001", 1), One("127.0.0.1:8002", 2), One("/run/\udcff.sock", 3)]
    keys = [b"", b"127.0.0.1", b"10.0.0.1", b"10.0.0.2", b"2001:db8::1", bytes(16)]
    assert [candidates.index(SourceHash().pick(candidates, key)) for key in keys] == [2, 2, 1, 2, 2, 0]


@given(groups, keys, st.randoms())
def test_orderDoesNotMatter(candidates: list[One], key: bytes, random: Random) -> None:
    chosen = SourceHash().pick(candidates, key)
    random.shuffle(candidates)
    assert SourceHash().pick(candidates, key) is chosen


@given(groups, keys, st.data())
def test_onlyWhoseTargetGoesMoves(candidates: list[One], key: bytes, data: st.DataObject) -> None:
    """And likewise, read backwards: who moves when one comes moves to that one."""
    balance = SourceHash()
    chosen = balance.pick(candidates, key)
    gone = data.draw(st.sampled_from(candidates))
    left = [one for one in candidates if one is not gone]
    assert (balance.pick(left, key) is chosen) == (gone is not chosen)


@given(groups, keys, st.data())
def test_aHeavierOneOnlyGains(candidates: list[One], key: bytes, data: st.DataObject) -> None:
    balance = SourceHash()
    before = balance.pick(candidates, key)
    heavier = data.draw(st.sampled_from(candidates))
    heavier.weight += data.draw(st.integers(1, 100))
    assert balance.pick(candidates, key) in (before, heavier)


@pytest.mark.parametrize("weights", [(1, 1), (1, 1, 1), (2, 3, 5)])
def test_tenThousandKeysKeepToTheWeights(weights: tuple[int, ...]) -> None:
    candidates, balance = several(*weights), SourceHash()
    counts = Counter(balance.pick(candidates, b"client %d" % index) for index in range(10_000))
    for one in candidates:
        assert counts[one] == pytest.approx(10_000 * one.weight / sum(weights), rel=0.05)


def test_nameAndKeyAreToldApart() -> None:
    """Else the clients of "a" and "ab" whose addresses begin alike would have one fate."""
    keys = [b"%d" % index for index in range(64)]
    one, other, third = One("a"), One("ab"), One("c")
    balance = SourceHash()
    assert [balance.pick([one, third], b"b" + key) is one for key in keys] != [
        balance.pick([other, third], key) is other for key in keys
    ]
