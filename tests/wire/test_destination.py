"""Whom a datagram is for: every way to say it, the place that it means, and what means none."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from conditions import Elsewhere, KnowingNames, NameService
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred

from twisted_net.address import Address, UdpTarget, UnixTarget
from twisted_net.errors import AddressError, NetError
from twisted_net.wire.destination import addressOf, datagramTarget, locate, placeOf, targetOf

INET, INET6, UNIX = socket.AF_INET, socket.AF_INET6, socket.AF_UNIX


@pytest.mark.parametrize(
    ("family", "destination", "place"),
    [
        (INET, "192.0.2.1:53", ("192.0.2.1", 53)),
        (INET, "udp:192.0.2.1:53", ("192.0.2.1", 53)),
        (INET, ("192.0.2.1", 53), ("192.0.2.1", 53)),
        (INET, UdpTarget("192.0.2.1", 53), ("192.0.2.1", 53)),
        (INET, Address("192.0.2.1", 53, "IPv4"), ("192.0.2.1", 53)),
        (INET, ":53", ("127.0.0.1", 53)),
        (INET6, ":53", ("::1", 53)),
        (INET6, "[2001:db8::1]:53", ("2001:db8::1", 53)),
        (INET6, Address("fe80::1%eth0", 53, "IPv6"), ("fe80::1%eth0", 53)),
        (INET6, "192.0.2.1:53", ("::ffff:192.0.2.1", 53)),
        (UNIX, "/run/x", "/run/x"),
        (UNIX, "unix:@x", "\0x"),
        (UNIX, Address("\0x", None, "unix"), "\0x"),
        (UNIX, UnixTarget("x"), "x"),
        (INET, "host.test:53", None),
        (INET6, ("host.test", 53), None),
    ],
)
def test_places(family: int, destination: Any, place: Any) -> None:
    assert placeOf(family, destination) == place
    assert placeOf(family, destination) == place  # remembered


@pytest.mark.parametrize(
    ("family", "destination", "message"),
    [
        (INET, "/run/x", "an internet socket sends to host:port"),
        (UNIX, "127.0.0.1:53", "a UNIX socket sends to unix:/path"),
        (INET, "[::1]:53", r"::1 is an IPv6 address, and this socket speaks IPv4; bind one at \[::\]:0"),
        (INET, "127.0.0.1:0", "127.0.0.1 port 0: nobody can be reached there"),
        (INET, "tcp:53", "'tcp:53' is no address of datagrams; write host:port or unix:/path"),
        (INET, "nonsense", "neither a port nor"),
        (UNIX, Address("", None, "unix"), "the sender has no name"),
        (INET, Address("what", None, "endpoint"), "is nobody to send to"),
        (INET, 53, "53 is nobody to send to"),
        (INET, ("127.0.0.1", 53, 0), "is nobody to send to"),
        (INET, ["127.0.0.1", 53], r"\['127.0.0.1', 53\] is nobody to send to"),
        (INET, ("127.0.0.1", "x"), "port 'x' is no whole number"),
    ],
)
def test_noPlaces(family: int, destination: Any, message: str) -> None:
    with pytest.raises(AddressError, match=message):
        placeOf(family, destination)


@pytest.mark.parametrize(
    ("family", "place", "address"),
    [
        (INET, ("192.0.2.1", 53), Address("192.0.2.1", 53, "IPv4")),
        (INET6, ("::1", 53, 0, 0), Address("::1", 53, "IPv6")),
        (UNIX, "/run/x", Address("/run/x", None, "unix")),
        (UNIX, b"\0x", Address("\0x", None, "unix")),
        (UNIX, None, Address("", None, "unix")),
        (UNIX, "", Address("", None, "unix")),
    ],
)
def test_addresses(family: int, place: Any, address: Address) -> None:
    assert addressOf(family, place) == address


@given(st.ip_addresses(), st.integers(1, 65535))
def test_whatCameGoesBack(ip: Any, port: int) -> None:
    """The address of a datagram, and its text, are the place that it came from (LUNE-5)."""
    family, place = (INET, (str(ip), port)) if ip.version == 4 else (INET6, (str(ip), port, 0, 0))
    address = addressOf(family, place)
    assert placeOf(family, address) == placeOf(family, str(address)) == place[:2]


def test_targets() -> None:
    assert datagramTarget("localhost:53") == datagramTarget("udp:localhost:53") == UdpTarget("localhost", 53)
    assert datagramTarget("/run/x:mode=600") == UnixTarget("/run/x:mode=600")
    assert targetOf(("localhost", 0)) == UdpTarget("localhost", 0)


def ask(names: NameService, family: int, destination: Any) -> Deferred[Any]:
    return Deferred.fromCoroutine(locate(Elsewhere(names), family, destination))


def resultOf(deferred: Deferred[Any]) -> Any:
    results: list[Any] = []
    deferred.addBoth(results.append)
    assert results, "it has not fired"
    if hasattr(results[0], "raiseException"):
        results[0].raiseException()
    return results[0]


def test_aNameIsLookedUpEachTime() -> None:
    names = KnowingNames("192.0.2.1", "192.0.2.2")
    assert resultOf(ask(names, INET, "192.0.2.9:53")) == ("192.0.2.9", 53)
    assert names.questions == []
    assert resultOf(ask(names, INET, "host.test:53")) == ("192.0.2.1", 53)
    assert resultOf(ask(names, INET, "host.test:53")) == ("192.0.2.1", 53)
    assert len(names.questions) == 2


def test_theSocketsOwnKindOfAddressComesFirst() -> None:
    both = KnowingNames("192.0.2.1", "2001:db8::1")
    assert resultOf(ask(both, INET6, "host.test:53")) == ("2001:db8::1", 53)
    assert resultOf(ask(both, INET, "host.test:53")) == ("192.0.2.1", 53)
    assert resultOf(ask(KnowingNames("192.0.2.1"), INET6, "host.test:53")) == ("::ffff:192.0.2.1", 53)


def test_aNameWithoutAddress() -> None:
    with pytest.raises(NetError) as caught:
        resultOf(ask(KnowingNames(), INET, "host.test:53"))
    assert caught.value.code == "ENOTFOUND"


def test_cancelled() -> None:
    asked = ask(NameService("192.0.2.1"), INET, "host.test:53")
    asked.cancel()
    with pytest.raises(CancelledError):
        resultOf(asked)
