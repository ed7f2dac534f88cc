"""Names: the addresses in their order, and every way in which there are none."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted
from conditions import Elsewhere, KnowingNames, NameService
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import CancelledError, Deferred

from twisted_net.address import isIP
from twisted_net.errors import AddressError, NetError
from twisted_net.wire.lookup import lookup


def ask(names: NameService, host: str = "host.test", family: Any = 0) -> Deferred[list[str]]:
    return lookup(Elsewhere(names), host, 80, family)


def resultOf(deferred: Deferred[Any]) -> Any:
    """What it has fired with; an exception is raised."""
    results: list[Any] = []
    deferred.addBoth(results.append)
    assert results, "it has not fired"
    if isinstance(results[0], BaseException) or hasattr(results[0], "raiseException"):
        results[0].raiseException()
    return results[0]


@pytest_twisted.ensureDeferred
async def test_theSystemKnowsThisMachine() -> None:
    found = await lookup(Elsewhere(), "localhost", 80)
    assert found
    assert all(map(isIP, found))
    assert len(set(found)) == len(found)


def test_eachOnceAndInOrder() -> None:
    names = KnowingNames("192.0.2.1", "2001:db8::1", "192.0.2.1", "192.0.2.2")
    assert resultOf(ask(names)) == ["192.0.2.1", "2001:db8::1", "192.0.2.2"]
    assert names.questions == [("host.test", 80, (IPv4Address, IPv6Address))]


@pytest.mark.parametrize(
    ("family", "found", "kinds"), [(4, ["192.0.2.1"], (IPv4Address,)), (6, ["2001:db8::1"], (IPv6Address,))]
)
def test_oneFamilyAlone(family: int, found: list[str], kinds: tuple[type, ...]) -> None:
    names = KnowingNames("192.0.2.1", "2001:db8::1")
    assert resultOf(ask(names, family=family)) == found
    assert names.questions == [("host.test", 80, kinds)]


def test_noneAtAll() -> None:
    with pytest.raises(NetError, match=r"getaddrinfo host\.test: the name has no address") as caught:
        resultOf(ask(KnowingNames()))
    assert (caught.value.code, caught.value.fault, caught.value.address) == ("ENOTFOUND", "user", "host.test")


def test_noneOfThatFamily() -> None:
    with pytest.raises(NetError) as caught:
        resultOf(ask(KnowingNames("192.0.2.1"), family=6))
    assert caught.value.code == "ENOTFOUND"


@pytest.mark.parametrize("host", ["ä" * 60, "a..b"])
def test_aNameThatNobodyCouldBeAskedFor(host: str) -> None:
    names = KnowingNames("192.0.2.1")
    with pytest.raises(AddressError, match="cannot be looked up") as caught:
        resultOf(ask(names, host))
    assert isinstance(caught.value.__cause__, UnicodeError)
    assert names.questions == []


def test_cancellingForgetsTheQuestion() -> None:
    names = NameService("192.0.2.1")
    waiting = ask(names)
    waiting.cancel()
    with pytest.raises(CancelledError):
        resultOf(waiting)
    names.answer()
