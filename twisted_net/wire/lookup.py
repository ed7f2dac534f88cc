"""
From a host name to its addresses, by whatever resolver the reactor has (``reactor.nameResolver``).

Nothing here connects or binds. The resolver's answer is kept in its order, which is the one of RFC 6724 when the system
gave it; who wants another one sorts it.
"""

from __future__ import annotations

from typing import Any, Final, Literal

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.error import DNSLookupError
from twisted.internet.interfaces import IAddress, IHostResolution, IResolutionReceiver
from zope.interface import implementer

from twisted_net.address import isIP
from twisted_net.errors import AddressError
from twisted_net.wire.reasons import translate

__all__ = ["lookup"]

_KINDS: Final[dict[int, tuple[type[IPv4Address | IPv6Address], ...]]] = {
    0: (IPv4Address, IPv6Address),
    4: (IPv4Address,),
    6: (IPv6Address,),
}


def lookup(reactor: Any, host: str, port: int, family: Literal[0, 4, 6] = 0) -> Deferred[list[str]]:
    """
    Ask for the addresses of ``host``, each of them once.

    :param reactor: provides ``IReactorPluggableNameResolver``.
    :param port: goes along for resolvers that look up services; the addresses come without it.
    :param family: 4 or 6 asks for addresses of that version alone.
    :returns: fires with at least one IP address, as text. Cancelling it forgets the question; the system's resolver,
        which runs in a thread, cannot be stopped, and its answer is dropped. Fails with
        :class:`~twisted_net.errors.AddressError` when the name cannot be asked for, and with
        :class:`~twisted_net.errors.NetError` ``ENOTFOUND`` when it has no address (of that family).
    """
    answer: Deferred[list[str]] = Deferred()
    try:
        # getaddrinfo(3) is given the name in this form. Twisted's resolver never answers when it has none.
        host.encode("idna")
        kinds = _KINDS[family]
        reactor.nameResolver.resolveHostName(_Receiver(host, family, answer), host, port, kinds, "TCP")
    except UnicodeError as error:
        refusal = AddressError(f"host {host!r} cannot be looked up: {error}; correct the name", address=host)
        refusal.__cause__ = error
        answer.errback(refusal)
    return answer


@implementer(IResolutionReceiver)
class _Receiver:
    """Collects the answer."""

    def __init__(self, host: str, family: int, answer: Deferred[list[str]]) -> None:
        self._host = host
        self._family = family
        self._answer = answer
        self._found: dict[str, None] = {}  # in order, and /etc/hosts may well say the same twice

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        """Nobody keeps it: its ``cancel`` is not implemented in any of Twisted's resolvers."""

    def addressResolved(self, address: IAddress) -> None:
        """One more. A resolver may give addresses that were not asked for, such as its only IPv4 one."""
        if isinstance(address, _KINDS[self._family]) and isIP(address.host):
            self._found[address.host] = None

    def resolutionComplete(self) -> None:
        """That was all."""
        if self._found:
            self._answer.callback(list(self._found))
            return
        failure = translate(DNSLookupError(), address=self._host)
        assert failure is not None, "a name without an address is no clean end"
        self._answer.errback(failure)
