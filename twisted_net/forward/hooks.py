"""
What a program may hear of forwarded connections: a `Hook` of its own for each.

A hook that does not say what to do with data costs nothing for the bytes: whether it does is asked once, of its class,
when its session is joined. One that does sees each segment before the target, or the client, is sent it, and keeps that
direction out of the kernel's hands (:mod:`~twisted_net.wire.splice`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, TypeAlias

from twisted_net.wire.relay import Carrier

if TYPE_CHECKING:
    from twisted_net.forward.session import Ended, Session

__all__ = ["Direction", "Hook", "Observed"]

Direction: TypeAlias = Literal["upstream", "downstream"]
"""From the client to the target, and back; toxiproxy's words."""


class Hook:
    """
    Hears of one session. Override what you want to know; what raises is logged, and ends that session with RST on both
    sides.
    """

    def connected(self, session: Session) -> None:
        """Client and target are joined; no byte has passed."""

    def data(self, direction: Direction, data: bytes) -> None:
        """A segment is about to be passed on."""

    def closed(self, session: Session, ended: Ended) -> None:
        """It is over; called once, also when nobody served the client."""

    @property
    def seesData(self) -> bool:
        """Whether `data` was overridden."""
        return type(self).data is not Hook.data or "data" in self.__dict__


class Observed:
    """
    A carrier whose segments are shown to somebody first.

    :param show: shows a segment, and returns whether it is to be carried.
    """

    __slots__ = ("_carrier", "_show", "closed", "drained", "ended", "failed", "part")

    def __init__(self, carrier: Carrier, show: Callable[[bytes], bool]) -> None:
        self._carrier = carrier
        self._show = show
        self.drained = carrier.drained
        self.ended = carrier.ended
        self.closed = carrier.closed
        self.failed = carrier.failed
        self.part = carrier.part

    @property
    def receive(self) -> Callable[[bytes], object]:
        """Shows, and hands on."""
        show, receive = self._show, self._carrier.receive

        def observed(data: bytes) -> None:
            if show(data):
                receive(data)

        return observed
