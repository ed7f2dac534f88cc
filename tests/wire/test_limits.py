"""Limits: which values are taken, who counts as one peer, who may enter, and how fast."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable
from dataclasses import FrozenInstanceError
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from twisted.internet.address import HostnameAddress, IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress

from twisted_net.errors import OptionError
from twisted_net.sansio.bucket import TokenBucket
from twisted_net.wire.limits import Admission, Limits, Meter, peerKey

# Values

NUMBERS = (
    "acceptRate",
    "readRate",
    "readRateTotal",
    "writeRate",
    "writeRateTotal",
    "burst",
    "idleTimeout",
    "handshakeTimeout",
    "lifetime",
    "halfOpenTimeout",
)


def made(name: str, value: object) -> Limits:
    values: dict[str, Any] = {name: value}
    return Limits(**values)


def test_defaults() -> None:
    limits = Limits()
    assert {name for name in Limits.__slots__ if getattr(limits, name) is not None} == {"peerPrefix", "mode", "reserve"}
    assert (limits.peerPrefix, limits.mode, limits.reserve) == ((32, 64), "refuse", 8)
    assert limits == Limits(connections=None)
    assert hash(limits) == hash(Limits())


def test_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        Limits().connections = 1  # type: ignore[misc]


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers(name: str) -> None:
    for value in (1, 0.001, 1e9, None):
        assert getattr(made(name, value), name) == value
    for bad in (0, -1, math.inf, math.nan, True, "1", b""):
        with pytest.raises(OptionError, match=f"^{name} is .*; it must be a finite number more than 0") as caught:
            made(name, bad)
        assert repr(bad) in caught.value.strerror


@pytest.mark.parametrize(("name", "none"), [("connections", True), ("perPeer", True), ("reserve", False)])
def test_counts(name: str, none: bool) -> None:
    for value in (0, 1, 10_000):
        assert getattr(made(name, value), name) == value
    for bad in (-1, 1.0, True, "1", *([] if none else [None])):
        with pytest.raises(OptionError, match=f"^{name} is .*; it must be a whole number, 0 or more") as caught:
            made(name, bad)
        assert ("None for no limit" in caught.value.strerror) is none


@pytest.mark.parametrize("bad", ["drop", None, 0, ["wait"]])
def test_mode(bad: object) -> None:
    assert Limits(mode="wait").mode == "wait"
    with pytest.raises(OptionError, match=r'^mode is .*; it must be "refuse" or "wait"'):
        made("mode", bad)


@pytest.mark.parametrize(
    "bad",
    [None, 32, (32,), (32, 64, 1), [32, 64], (33, 64), (32, 129), (-1, 64), (32, -1), (32, 6.4), (True, 64)],
)
def test_peerPrefix(bad: object) -> None:
    assert Limits(peerPrefix=(0, 128)).peerPrefix == (0, 128)
    with pytest.raises(OptionError, match=r"^peerPrefix is .*such as \(32, 64\)"):
        made("peerPrefix", bad)


# Who counts as one peer


def v4(host: str) -> IPv4Address:
    return IPv4Address("TCP", host, 1)


def v6(host: str) -> IPv6Address:
    return IPv6Address("TCP", host, 1)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (v4("192.0.2.1"), IPv4Address("TCP", "192.0.2.1", 2), True),
        (v4("192.0.2.1"), v4("192.0.2.2"), False),
        (v6("2001:db8::1"), v6("2001:db8::ffff:1"), True),
        (v6("2001:db8::1"), v6("2001:db8:0:1::1"), False),
        (v6("::ffff:192.0.2.1"), v4("192.0.2.1"), True),
        (v6("::ffff:192.0.2.1"), v6("::ffff:192.0.2.2"), False),
        (v6("::ffff:192.0.2.1"), v6("::1"), False),
        (v6("fe80::1%eth0"), v6("fe80::2%eth0"), True),
        (v6("::192.0.2.1"), v4("192.0.2.1"), False),
        (v4("0.0.0.0"), v6("::"), False),
        (UNIXAddress(b"/a"), UNIXAddress(None), True),
        (None, UNIXAddress(None), False),
        (HostnameAddress(b"a", 1), HostnameAddress(b"a", 1), True),
        (HostnameAddress(b"a", 1), HostnameAddress(b"b", 1), False),
        (v4("client"), v4("client"), True),
        (v4("client"), v4("other"), False),
    ],
)
def test_peerKey(one: IAddress | None, other: IAddress | None, same: bool) -> None:
    assert (peerKey(one) == peerKey(other)) is same


def test_peerKeyOfUsers() -> None:
    nobody = UNIXAddress(None)
    assert peerKey(nobody, uid=1) == peerKey(UNIXAddress(b"/a"), uid=1)
    assert len({peerKey(nobody, uid=uid) for uid in (None, 0, 1)}) == 3


def test_peerKeyByOtherPrefixes() -> None:
    assert peerKey(v4("192.0.2.1"), (24, 48)) == peerKey(v4("192.0.2.9"), (24, 48))
    assert peerKey(v4("192.0.2.1"), (0, 0)) == peerKey(v4("10.0.0.1"), (0, 0))
    assert peerKey(v4("192.0.2.1"), (0, 0)) != peerKey(v6("::1"), (0, 0))
    assert peerKey(v6("2001:db8::1"), (24, 128)) != peerKey(v6("2001:db8::2"), (24, 128))


@given(st.ip_addresses(v=4))
def test_everyMappedAddressCountsAsIPv4(address: object) -> None:
    assert peerKey(v6(f"::ffff:{address}")) == peerKey(v4(str(address)))


@given(st.ip_addresses(v=6), st.integers(0, 2**64 - 1))
def test_everyHostOfANetworkCountsAsOne(address: Any, host: int) -> None:
    if address.ipv4_mapped is None and int(address) >> 64:
        other = type(address)((int(address) >> 64 << 64) + host)
        assert peerKey(v6(str(other))) == peerKey(v6(str(address)))


# Who may enter


def test_noLimits() -> None:
    admission = Admission(Limits())
    for _ in range(100):
        assert admission.ask("a", 0.0) is None
        admission.enter("a")
    assert (admission.count, admission.peers, admission.countOf("a"), admission.wait(0.0)) == (100, 1, 100, 0.0)


def test_connections() -> None:
    admission = Admission(Limits(connections=2))
    admission.enter("a")
    admission.enter("b")
    assert admission.ask("c", 0.0) == "connections"
    admission.leave("a")
    assert admission.ask("c", 0.0) is None
    assert Admission(Limits(connections=0)).ask("a", 0.0) == "connections"


def test_perPeer() -> None:
    admission = Admission(Limits(perPeer=1))
    admission.enter("a")
    assert admission.ask("a", 0.0) == "perPeer"
    assert admission.ask("b", 0.0) is None
    admission.leave("a")
    assert admission.ask("a", 0.0) is None
    assert admission.peers == 0


def test_acceptRate() -> None:
    admission = Admission(Limits(acceptRate=2), now=10.0)
    assert [admission.ask("a", 10.0) for _ in range(3)] == [None, None, "acceptRate"]
    assert admission.wait(10.0) == pytest.approx(0.5)
    assert admission.ask("a", 10.25) == "acceptRate"
    assert admission.wait(10.5) == 0.0
    assert admission.ask("a", 10.5) is None


def test_whoIsRefusedForAnotherReasonTakesNoShareOfTheRate() -> None:
    admission = Admission(Limits(perPeer=1, acceptRate=1))
    admission.enter("a")
    assert admission.ask("a", 0.0) == "perPeer"
    assert admission.ask("b", 0.0) is None


def test_otherLimits() -> None:
    admission = Admission(Limits(acceptRate=1))
    assert admission.ask("a", 0.0) is None
    admission.enter("a")
    # The rate that stays goes on where it was.
    admission.limits = Limits(acceptRate=1, connections=5)
    assert admission.limits.connections == 5
    assert admission.ask("a", 0.0) == "acceptRate"
    admission.limits = Limits(acceptRate=3)
    assert [admission.ask("a", 0.0) for _ in range(4)] == [None, None, None, "acceptRate"]
    admission.limits = Limits(connections=1)
    assert admission.wait(0.0) == 0.0
    assert admission.ask("a", 0.0) == "connections"


def test_whoIsNotInCannotLeave() -> None:
    admission = Admission(Limits())
    with pytest.raises(KeyError):
        admission.leave("a")
    assert admission.count == 0


class AdmissionModel(RuleBasedStateMachine):
    """Admission against a plain count."""

    def __init__(self) -> None:
        super().__init__()
        self.limits = Limits(connections=5, perPeer=2)
        self.admission = Admission(self.limits)
        self.inside: Counter[Hashable] = Counter()

    @rule(key=st.sampled_from("abcd"))
    def come(self, key: str) -> None:
        answer = self.admission.ask(key, 0.0)
        if self.inside.total() >= 5:
            assert answer == "connections"
        elif self.inside[key] >= 2:
            assert answer == "perPeer"
        else:
            assert answer is None
            self.admission.enter(key)
            self.inside[key] += 1

    @rule(key=st.sampled_from("abcd"))
    def go(self, key: str) -> None:
        if self.inside[key]:
            self.admission.leave(key)
            self.inside[key] -= 1

    @invariant()
    def same(self) -> None:
        self.inside = +self.inside
        assert self.admission.count == self.inside.total()
        assert self.admission.peers == len(self.inside)
        assert all(self.admission.countOf(key) == self.inside[key] for key in "abcd")


TestAdmissionModel = AdmissionModel.TestCase


# How fast


def test_meter() -> None:
    own, total = TokenBucket(10), TokenBucket(100, 10)
    meter = Meter(own, None, total)
    assert meter.rate == 10
    assert meter.charge(10, 0.0) == 0.0
    assert meter.charge(10, 0.0) == pytest.approx(1.0)
    assert total.take(0, 0.0) == pytest.approx(0.1)
    assert Meter(None, total).charge(5, 0.0) == pytest.approx(0.15)


def test_aMeterOfNothing() -> None:
    assert Meter(None).rate == math.inf
    assert Meter().charge(1e9, 0.0) == 0.0


@given(st.lists(st.floats(1, 1e6), min_size=1, max_size=3), st.lists(st.floats(0, 1e6), max_size=10))
def test_theLargestDebtCounts(rates: list[float], amounts: list[float]) -> None:
    meter = Meter(*map(TokenBucket, rates))
    alone = [TokenBucket(rate) for rate in rates]
    for amount in amounts:
        assert meter.charge(amount, 0.0) == max(bucket.take(amount, 0.0) for bucket in alone)
