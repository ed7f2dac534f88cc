"""One direction of an introduction: what comes out of one connection goes into another.

A relay is three lines of theory: every segment is written to the sink; when the sink says that enough is unsent,
reading from the source is paused by the owner ``"peer"``; when the sink has drained, that pause is taken back.  It
holds no bytes of its own, so what is in flight is bounded by the sink's high-water mark plus one segment.  Ends are
passed on by whoever introduces the two, because whether a FIN is passed on is a choice (``pipe(destination,
end=False)``).
"""

from __future__ import annotations

from collections.abc import Callable

from twisted_net.wire.protocol import SocketProtocol

PEER = "peer"
"""The owner of the pause that a sink asks for."""


class Relay:
    """Carries bytes from *source* into *write*, as fast as the sink takes them.

    :param source: the connection that is read from.
    :param write: takes bytes; returns False when the sink wants no more until it has drained.
    """

    __slots__ = ("_source", "_write", "carried")

    def __init__(self, source: SocketProtocol, write: Callable[[bytes], object]) -> None:
        self._source = source
        self._write = write
        #: Bytes carried so far.
        self.carried = 0

    def receive(self, data: bytes) -> None:
        """Carry one segment: give this to ``source.attach``, or call it."""
        self.carried += len(data)
        if self._write(data) is False:
            self._source.pause(PEER)

    def drained(self) -> None:
        """The sink takes more."""
        self._source.resume(PEER)
