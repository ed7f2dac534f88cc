"""One direction of an introduction: what comes out of one connection goes into another.

A relay is three lines of theory: every segment is written to the sink; when the sink says that enough is unsent,
reading from the source is paused by the owner ``"peer"``; when the sink has drained, that pause is taken back.  It
holds no bytes of its own, so what is in flight is bounded by the sink's high-water mark plus one segment.  Ends are
passed on by whoever introduces the two, because whether a FIN is passed on is a choice (``pipe(destination,
end=False)``).
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_net.interfaces import IConnectionUser
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


class Introduction:
    """
    Introduces two connections to each other, both ways, and takes care of their ends.

    An end of one is passed on as an end to the other, while the other way goes on; a failure of one aborts the other.
    When both ways have ended both connections are closed.

    :param first: a connection that stands; what was held for nobody comes first.
    :param second: another one.
    :param done: called once, when both are gone: with None, or with what went wrong first.
    """

    def __init__(
        self, first: SocketProtocol, second: SocketProtocol, done: Callable[[Exception | None], object]
    ) -> None:
        self._done = done
        self._error: Exception | None = None
        self._parties = (_Party(self, first, second), _Party(self, second, first))
        there, back = self._parties
        there.meet(back)
        back.meet(there)
        for party in self._parties:
            party.begin()

    @property
    def carried(self) -> tuple[int, int]:
        """Bytes carried from the first to the second, and back."""
        there, back = self._parties
        return there.relay.carried, back.relay.carried

    def part(self) -> None:
        """Carry no more: what comes is held, for whoever takes the two connections up."""
        for party in self._parties:
            party.protocol.giveBack(b"")
            party.relay.drained()

    def lost(self, error: Exception | None) -> None:
        """One of them is gone; told by its party."""
        self._error = self._error or error
        if all(party.gone for party in self._parties):
            self._done(self._error)


@implementer(IConnectionUser)
class _Party:
    """Stands behind one of the two."""

    _log = Logger()

    def __init__(self, introduction: Introduction, protocol: SocketProtocol, other: SocketProtocol) -> None:
        self.protocol = protocol
        self.relay = Relay(protocol, other.write)
        self.gone = False
        self._introduction = introduction
        self._peer: _Party

    def meet(self, peer: _Party) -> None:
        """*peer* stands behind the other one."""
        self._peer = peer

    def begin(self) -> None:
        """Bytes flow."""
        self.protocol.user = self
        self.protocol.attach(self.relay.receive)
        if self.protocol.exhausted:
            self.readEnded()

    def connectionOpened(self, protocol: SocketProtocol) -> None:
        """It stood before."""

    def readEnded(self) -> None:
        """Its peer has ended: so does the other side of the other one."""
        self._peer.protocol.end()

    def writeEnded(self) -> None:
        """The end was passed on."""

    def drained(self) -> None:
        """It takes more: the other one may read on."""
        self._peer.relay.drained()

    def connectionClosed(self, error: Exception | None, reason: Failure) -> None:
        """It is gone; one that failed takes the other with it."""
        self.gone = True
        if not self._peer.gone:
            if error is None:
                self._peer.protocol.close()
            else:
                self._peer.protocol.abort(error)
        self._introduction.lost(error)

    def limitPassed(self, name: str, action: str) -> None:
        """What that means comes with `connectionClosed`."""

    def raised(self, where: str, error: Exception) -> None:
        """A defect of ours."""
        self._log.failure("{where} raised", failure=Failure(error), where=where)
