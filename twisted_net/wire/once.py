"""The factory of exactly one connection: for who dials, or adopts, with a protocol that is there already."""

from __future__ import annotations

from twisted.internet.interfaces import IAddress, IProtocolFactory
from zope.interface import implementer

from twisted_net.sansio.lifecycle import State
from twisted_net.wire.protocol import SocketProtocol

__all__ = ["Once"]


@implementer(IProtocolFactory)
class Once:
    """Hands out *protocol*, once; nobody wants a second connection, or one that was given up meanwhile."""

    __slots__ = ("_protocol",)

    def __init__(self, protocol: SocketProtocol) -> None:
        self._protocol: SocketProtocol | None = protocol

    def doStart(self) -> None:
        """Nothing to prepare."""

    def doStop(self) -> None:
        """Nothing to release."""

    def buildProtocol(self, addr: IAddress | None) -> SocketProtocol | None:
        """The protocol, the first time."""
        protocol, self._protocol = self._protocol, None
        return None if protocol is None or protocol.state in (State.DROPPED, State.CLOSED) else protocol
