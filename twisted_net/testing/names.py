"""From names to addresses, without asking anybody: the resolver of the reactors in memory.

The names of the hosts are known, ``localhost`` is the host that asks, and a test may add names of its own, which answer
late, or not at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IHostnameResolver, IHostResolution, IResolutionReceiver
from zope.interface import implementer

from twisted_net.errors import OptionError
from twisted_net.testing.kernel.ports import LOOPBACK

if TYPE_CHECKING:
    from twisted_net.testing.host import Host


@dataclass(frozen=True, slots=True)
class Name:
    """What a name's look-up gives.

    :param addresses: IP addresses, in order; none of them: the name does not exist.
    :param delay: seconds until the answer; None: it never comes.
    """

    addresses: tuple[str, ...] = ()
    delay: float | None = 0.0

    def __post_init__(self) -> None:
        for text in self.addresses:
            if not (isIPAddress(text) or isIPv6Address(text)):
                raise OptionError(f"addresses holds {text!r}; each must be an IP address, such as '10.0.0.7'")
        if self.delay is not None and self.delay < 0:
            raise OptionError(f"delay is {self.delay!r}; it counts seconds, 0 or more, or is None for never")


class Names:
    """The names that a network knows beside those of its hosts: ``names["db"] = Name(("10.0.0.7",), delay=3.0)``."""

    def __init__(self) -> None:
        self._names: dict[str, Name] = {}

    def __setitem__(self, name: str, answer: Name | Sequence[str] | str) -> None:
        if isinstance(answer, str):
            answer = (answer,)
        self._names[name] = answer if isinstance(answer, Name) else Name(tuple(answer))

    def __delitem__(self, name: str) -> None:
        del self._names[name]

    def lookUp(self, host: Host, name: str) -> Name:
        """What *host* is told of *name*."""
        if name in self._names:
            return self._names[name]
        if name == "localhost":
            return Name(tuple(LOOPBACK.values()))
        found = host.network.hosts.get(name)
        return Name(() if found is None else found.addresses)


@implementer(IHostResolution)
class _Resolution:
    def __init__(self, name: str) -> None:
        self.name = name

    def cancel(self) -> None:
        """Not implemented in any of Twisted's resolvers either."""
        raise NotImplementedError


@implementer(IHostnameResolver)
class MemoryResolver:
    """The resolver of one host.

    :param reactor: its reactor, for answers that come late.
    """

    def __init__(self, host: Host, reactor: Any) -> None:
        self._host = host
        self._reactor = reactor

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Sequence[type[Any]] | None = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        """As ``IHostnameResolver`` has it: the answer comes on a later turn, as from a real one."""
        resolution = _Resolution(hostName)
        resolutionReceiver.resolutionBegan(resolution)
        answer = self._host.network.names.lookUp(self._host, hostName)
        if isIPAddress(hostName) or isIPv6Address(hostName):
            answer = Name((hostName,))
        wanted = addressTypes or (IPv4Address, IPv6Address)
        found = [
            made
            for made in (_made(text, portNumber, transportSemantics) for text in answer.addresses)
            if isinstance(made, tuple(wanted))
        ]
        if answer.delay is not None:
            self._reactor.callLater(answer.delay, self._answer, resolutionReceiver, found)
        return resolution

    @staticmethod
    def _answer(receiver: IResolutionReceiver, found: Sequence[Any]) -> None:
        for one in found:
            receiver.addressResolved(one)
        receiver.resolutionComplete()


def _made(text: str, port: int, semantics: Any) -> IPv4Address | IPv6Address:
    kind = IPv6Address if ":" in text else IPv4Address
    return kind(semantics, text, port)
