"""Two connections, joined: what comes out of the one goes into the other, with pressure and ends.

Theory
======
A direction has a *carrier*. It is given the segments of its source and writes them to its sink, and it decides what an
end, a failure, and the sink's "I take more" mean. `Straight` is what everybody has: each segment goes from the source's
``dataReceived`` to the sink's :meth:`~twisted_net.wire.outlet.Outlet.forward`, with no frame of ours in between, and
a direction that is busy may leave it to the kernel (:mod:`~twisted_net.wire.splice`). Who wants to see the bytes, or to
do something to them, brings a carrier of his own (:class:`Carrier`).

`Introduction` stands behind both connections and knows what concerns the two of them::

    FIN of one              FIN to the other, behind what it was sent; the other direction goes on
    both ends of one        the other is closed, when what it was sent has gone
    failure of one (RST)    the other is aborted (RST): its peer must know that something was lost
    a deadline of one       the other is dropped (FIN) if nothing is under way to it, else aborted

`Relay` is one direction without ends, into anything that has a ``write``: for a pipe whose user decides what an end
means (``pipe(destination, end=False)``).

No carrier but one that delays holds bytes of its own: what is under way is bounded by the sink's unsent segment.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeAlias

from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_net.errors import TimedOutError
from twisted_net.interfaces import IConnectionUser
from twisted_net.wire.outlet import Batch
from twisted_net.wire.protocol import SocketProtocol
from twisted_net.wire.splice import FULL, Splice, Splices

__all__ = ["PEER", "Carrier", "Introduction", "Relay", "Straight", "Way"]

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


class Carrier(Protocol):
    """One direction of an introduction, from a source to a sink."""

    @property
    def receive(self) -> Callable[[bytes], object]:
        """Is given each segment of the source; asked for once, as the introduction begins."""

    def drained(self) -> None:
        """The sink had answered False to a write, and takes more."""

    def ended(self) -> None:
        """The source has sent its last."""

    def closed(self) -> None:
        """The source is gone, in good order; told after `ended`. The sink is to be closed behind what it is sent."""

    def failed(self, error: Exception) -> None:
        """The source has failed; the sink is to be ended with it."""

    def part(self) -> None:
        """It is over: the sink is gone, or the two are parted. Nothing may be left behind; nothing more is told."""


Way: TypeAlias = Callable[[SocketProtocol, SocketProtocol], Carrier]
"""Makes the carrier from a source to a sink."""


class Straight:
    """
    The carrier that everybody has.

    :param splices: what may have a busy direction carried by the kernel; None: nothing.
    :param batch: with which small segments leave; None: each at once.
    """

    __slots__ = ("_before", "_full", "_fullBytes", "_sink", "_soon", "_source", "_splice", "_splices")

    def __init__(
        self,
        source: SocketProtocol,
        sink: SocketProtocol,
        splices: Splices | None = None,
        batch: Batch | None = None,
    ) -> None:
        self._source = source
        self._sink = sink
        self._splices = splices
        self._splice: Splice | None = None
        self._full = 0  # full segments, with not more than as much between them
        self._fullBytes = 0  # what they had
        self._before = 0  # bytes that had come before the first of them
        self._soon: IDelayedCall | None = None
        sink.outlet.source = self
        sink.outlet.batch = batch

    @property
    def receive(self) -> Callable[[bytes], object]:
        """The sink's own method."""
        return self._sink.outlet.forward

    # Source, as the outlet knows it

    def sinkFull(self) -> None:
        """Not everything could be sent."""
        self._source.pause(PEER)

    def segmentFull(self, size: int) -> None:
        """The source has as much as can be read at once."""
        if self._splices is None:
            return
        before = self._source.bytesRead - size
        if not self._full or before - self._before > 2 * self._fullBytes:
            # Others came between, and were more: this is the first one, again.
            self._full, self._fullBytes, self._before = 0, 0, before
        self._full += 1
        self._fullBytes += size
        if self._full >= FULL and self._soon is None and not self._sink.outlet.unsent:
            # Not from within the source's own reading.
            self._soon = self._source.reactor.callLater(0, self._goOver)

    def _goOver(self) -> None:
        self._soon = None
        if self._splices is not None:
            self._splice = self._splices.begin(self._source, self._sink, self._wentBack)
            if self._splice is not None or not self._sink.outlet.unsent:
                self._full = 0

    def _wentBack(self, again: bool) -> None:
        self._splice = None
        if not again:
            self._splices = None

    # Carrier

    def drained(self) -> None:
        """Read on; or it is the moment to go over, with nothing unsent, that is hard to meet at a sink that is slow."""
        self._source.resume(PEER)
        if self._full >= FULL and self._soon is None:
            self._goOver()

    def ended(self) -> None:
        """Pass the end on."""
        self._sink.end()

    def closed(self) -> None:
        """Nothing more will come."""
        self._letGo()
        self._sink.close()

    def failed(self, error: Exception) -> None:
        """Pass the failure on, as what it is: RST says that something was lost, FIN that nothing was."""
        splice = self._splice
        isWhole = not self._sink.outlet.unsent and (splice is None or not splice.underWay)
        self._stop()
        if isWhole and isinstance(error, TimedOutError) and error is self._source.verdict:
            self._sink.drop(error)
        else:
            self._sink.abort(error)

    def part(self) -> None:
        """Let go of both."""
        self._letGo()
        if self._sink.outlet.source is self:
            self._sink.outlet.source = None
        self._source.resume(PEER)

    def _letGo(self) -> None:
        """What is under way goes to the sink, as far as there is one."""
        self._splices = None
        splice = self._splice
        if splice is not None:
            splice.release()
        self._stop()

    def _stop(self) -> None:
        soon, self._soon = self._soon, None
        if soon is not None:
            soon.cancel()
        splice, self._splice = self._splice, None
        if splice is not None:
            splice.stop()


class Introduction:
    """
    Introduces two connections to each other, both ways, and takes care of their ends.

    :param first: a connection that stands; what was held for nobody comes first.
    :param second: another one.
    :param done: called once, when both are gone: with None, or with what went wrong first.
    :param there: makes the carrier from the first to the second; None: `Straight`.
    :param back: makes the one from the second to the first.
    :param splices: what may have a busy direction carried by the kernel; None: nothing.
    :param batch: with which small segments leave; None: each at once.
    """

    def __init__(
        self,
        first: SocketProtocol,
        second: SocketProtocol,
        done: Callable[[Exception | None], object],
        *,
        there: Way | None = None,
        back: Way | None = None,
        splices: Splices | None = None,
        batch: Batch | None = None,
    ) -> None:
        self._done = done
        self._error: Exception | None = None

        def straight(source: SocketProtocol, sink: SocketProtocol) -> Carrier:
            return Straight(source, sink, splices, batch)

        self._parties = (_Party(self, first), _Party(self, second))
        one, other = self._parties
        one.meet(other, there or straight)
        other.meet(one, back or straight)
        for party in self._parties:
            party.begin()

    @property
    def carried(self) -> tuple[int, int]:
        """Bytes that came from the first for the second, and back."""
        one, other = self._parties
        return one.carried, other.carried

    def part(self) -> None:
        """Carry no more: what comes is held, for whoever takes the two connections up."""
        for party in self._parties:
            party.protocol.giveBack(b"")
            party.carrier.part()

    def lost(self, error: Exception | None) -> None:
        """One of them is gone; told by its party."""
        self._error = self._error or error
        if all(party.gone for party in self._parties):
            self._done(self._error)


@implementer(IConnectionUser)
class _Party:
    """Stands behind one of the two, and has the carrier of what comes from it."""

    _log = Logger()

    __slots__ = ("_introduction", "_peer", "_start", "carrier", "gone", "protocol")

    carrier: Carrier

    def __init__(self, introduction: Introduction, protocol: SocketProtocol) -> None:
        self.protocol = protocol
        self.gone = False
        self._introduction = introduction
        self._start = protocol.bytesRead - protocol.held
        self._peer: _Party

    def meet(self, peer: _Party, way: Way) -> None:
        """*peer* stands behind the other one."""
        self._peer = peer
        self.carrier = way(self.protocol, peer.protocol)

    def begin(self) -> None:
        """Bytes flow."""
        self.protocol.user = self
        self.protocol.attach(self.carrier.receive)
        if self.protocol.exhausted:
            self.readEnded()

    @property
    def carried(self) -> int:
        """Bytes that were handed to the carrier."""
        return self.protocol.bytesRead - self.protocol.held - self._start

    def connectionOpened(self, protocol: SocketProtocol) -> None:
        """It stood before."""

    def readEnded(self) -> None:
        """Its peer has ended."""
        if not self._peer.gone:
            self.carrier.ended()

    def writeEnded(self) -> None:
        """The end was passed on."""

    def drained(self) -> None:
        """It takes more of what comes from the other one."""
        self._peer.carrier.drained()

    def connectionClosed(self, error: Exception | None, reason: Failure) -> None:
        """It is gone; one that failed takes the other with it."""
        self.gone = True
        self._peer.carrier.part()
        if self._peer.gone:
            pass  # its own was parted then, with its sink
        elif error is None:
            self.carrier.closed()
        else:
            self.carrier.failed(error)
        self._introduction.lost(error)

    def limitPassed(self, name: str, action: str) -> None:
        """What that means comes with `connectionClosed`."""

    def raised(self, where: str, error: Exception) -> None:
        """A defect of ours, or of a carrier's."""
        self._log.failure("{where} raised", failure=Failure(error), where=where)
