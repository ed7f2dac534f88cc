"""From names to addresses, in memory."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.error import DNSLookupError
from twisted.internet.interfaces import IHostnameResolver, IHostResolution, IResolutionReceiver
from zope.interface import implementer
from zope.interface.verify import verifyObject

from twisted_net.errors import OptionError
from twisted_net.testing.names import MemoryResolver, Name
from twisted_net.testing.network import MemoryNetwork


@pytest.fixture
def network() -> MemoryNetwork:
    network = MemoryNetwork()
    network.host("one")
    return network


@implementer(IResolutionReceiver)
class Receiver:
    def __init__(self, network: MemoryNetwork) -> None:
        self._network = network
        self.began: Any = None
        self.found: list[Any] = []
        self.ended: float | None = None

    def resolutionBegan(self, resolutionInProgress: Any) -> None:
        self.began = resolutionInProgress

    def addressResolved(self, address: Any) -> None:
        assert self.ended is None
        self.found.append(address)

    def resolutionComplete(self) -> None:
        self.ended = self._network.now


def lookedUp(network: MemoryNetwork, name: str, *arguments: Any) -> Receiver:
    receiver = Receiver(network)
    resolver = network.host("one").reactor.nameResolver
    assert resolver.resolveHostName(receiver, name, *arguments) is receiver.began
    assert receiver.ended is None  # never at once
    network.advance(100)
    return receiver


def addresses(network: MemoryNetwork, name: str) -> list[str]:
    return [found.host for found in lookedUp(network, name).found]


def test_itIsAResolver(network: MemoryNetwork) -> None:
    host = network.host("one")
    verifyObject(IHostnameResolver, MemoryResolver(host, host.reactor))
    resolution = lookedUp(network, "one").began
    verifyObject(IHostResolution, resolution)
    assert resolution.name == "one"
    with pytest.raises(NotImplementedError):
        resolution.cancel()


def test_hosts(network: MemoryNetwork) -> None:
    network.host("two", "10.7.7.7", "fd00::77")
    receiver = lookedUp(network, "two", 80)
    assert receiver.found == [IPv4Address("TCP", "10.7.7.7", 80), IPv6Address("TCP", "fd00::77", 80)]
    assert receiver.ended == 0


def test_whoeverAsksIsLocalhost(network: MemoryNetwork) -> None:
    assert addresses(network, "localhost") == ["127.0.0.1", "::1"]


def test_addressesAreTheirOwnNames(network: MemoryNetwork) -> None:
    assert addresses(network, "10.9.9.9") == ["10.9.9.9"]
    assert addresses(network, "fd00::9") == ["fd00::9"]


def test_nobodyOfThatName(network: MemoryNetwork) -> None:
    receiver = lookedUp(network, "nobody")
    assert (receiver.found, receiver.ended) == ([], 0)


def test_oneFamily(network: MemoryNetwork) -> None:
    found = lookedUp(network, "localhost", 7, (IPv6Address,), "UDP").found
    assert found == [IPv6Address("UDP", "::1", 7)]


@pytest.mark.parametrize("answer", ["10.0.0.9", ["10.0.0.9"], Name(("10.0.0.9",))])
def test_namesThatATestAdds(network: MemoryNetwork, answer: Any) -> None:
    network.names["db"] = answer
    assert addresses(network, "db") == ["10.0.0.9"]
    network.names["one"] = "10.0.0.8"  # before the hosts' own
    assert addresses(network, "one") == ["10.0.0.8"]
    del network.names["db"]
    assert addresses(network, "db") == []


def test_late(network: MemoryNetwork) -> None:
    network.names["db"] = Name(("10.0.0.9",), delay=3.0)
    assert lookedUp(network, "db").ended == 3.0


def test_never(network: MemoryNetwork) -> None:
    network.names["db"] = Name(("10.0.0.9",), delay=None)
    assert lookedUp(network, "db").ended is None


def test_badAnswers() -> None:
    with pytest.raises(OptionError, match="addresses holds 'nonsense'; each must be an IP address"):
        Name(("10.0.0.1", "nonsense"))
    with pytest.raises(OptionError, match="delay is -1; it counts seconds, 0 or more, or is None for never"):
        Name(delay=-1)


def test_theReactorsOldWayOfAsking(network: MemoryNetwork) -> None:
    reactor = network.host("one").reactor
    assert network.run(lambda: reactor.resolve("one")) == network.host("one").addresses[0]
    with pytest.raises(DNSLookupError):
        network.run(lambda: reactor.resolve("nobody"))
