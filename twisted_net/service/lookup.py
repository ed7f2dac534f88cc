"""
Host names before the reactor runs.

The reactor's own resolver asks in a thread and answers in a turn of the reactor: neither can be had while a service is
being made, and a thread would not survive the fork of a daemon. So for that moment the reactor is given a resolver that
asks the system and waits. It may wait: nobody is being served yet.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator, Sequence
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IAddress, IHostnameResolver, IHostResolution, IResolutionReceiver
from zope.interface import implementer

__all__ = ["blockingLookup"]


@contextlib.contextmanager
def blockingLookup(reactor: Any) -> Iterator[None]:
    """Within this context names are looked up at once, by the system's resolver (getaddrinfo(3))."""
    before = reactor.installNameResolver(_Resolver())
    try:
        yield
    finally:
        reactor.installNameResolver(before)


@implementer(IHostResolution)
class _Resolution:
    """A question that has been answered when it is asked."""

    def __init__(self, name: str) -> None:
        self.name = name

    def cancel(self) -> None:
        """Too late."""


@implementer(IHostnameResolver)
class _Resolver:
    """Asks and waits."""

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Sequence[type[IAddress]] | None = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        """Tell the receiver every address, in the system's order; none when the name has none."""
        resolution = _Resolution(hostName)
        resolutionReceiver.resolutionBegan(resolution)
        with contextlib.suppress(socket.gaierror):
            for family, _, _, _, address in socket.getaddrinfo(hostName, portNumber, type=socket.SOCK_STREAM):
                kind = IPv6Address if family == socket.AF_INET6 else IPv4Address
                if addressTypes is None or kind in addressTypes:
                    resolutionReceiver.addressResolved(kind("TCP", str(address[0]), portNumber))
        resolutionReceiver.resolutionComplete()
        return resolution
