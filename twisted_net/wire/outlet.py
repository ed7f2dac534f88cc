"""The outgoing queue of a connection: counted, withdrawable, with exact callbacks.

Theory
======
No stock transport tells when bytes were written.  ``write`` appends to a buffer of its own that nobody can count or
take back.  So the bytes wait *here*, and the transport is given at most one window (`WINDOW`) at a time::

      accepted  ==  sent  +  given, not yet sent  +  queued
                             \\_____ unsent: what highWaterMark counts _____/

``queued`` can be withdrawn; ``given`` cannot.  All three are positions in one stream of bytes, so a write callback is a
pair (position, callable) that runs when ``sent`` has passed its position: in order, exactly once (LUV-30).

*When is it sent?*  A descriptor of a stock reactor (``IReadWriteDescriptor``) asks a registered **pull** producer for
more exactly when the kernel has taken its last byte.  The outlet registers itself as that producer for the life of the
connection: one more Python call per flush, none while nothing is written, and no timer.  Three traps come with it:

* a pull producer keeps ``loseConnection`` and ``loseWriteConnection`` from ever completing: the outlet unregisters
  before either, and when somebody who holds the transport has called one of them behind its back, as soon as it has
  given what it still had;
* over TLS it must be registered with the transport *below* TLS (with TLS itself it spins at 100 % CPU).  TLS then tells
  neither when it has encrypted (it gathers small writes until the next turn of the reactor) nor whether the handshake
  is over.  So bytes are held back until ``handshakeCompleted``, and one call on the next turn marks what has reached
  the layer below: what had been given when that call was *scheduled*, since what came later may still be gathered.
  The first flush of the layer below after the mark is the proof;
* a transport that is no descriptor gets a push producer, and its bytes count as sent on the turn after they were given
  unless it asked to pause: the best that can be known.

*Answers go at once, and in one.*  What is written while a segment is delivered (`corked`) is gathered, and goes
straight to the kernel when the delivery is over (``sendNow`` of an :class:`~twisted_net.interfaces.IExactTransport`):
an answer then costs no second event of the reactor's.  Never the first piece alone: the second would wait for the
peer's delayed ACK of it (RFC 1122, 4.2.3.2 and 4.2.3.4), which is 40 ms for every answer of two writes.  What is
written at any other time is gathered by the transport.

*What is forwarded* comes from another connection's ``dataReceived``, for which it is the last of our frames
(`Outlet.forward`): it goes straight to the kernel, and what the kernel does not take is told to the `source` at once,
which then reads no more.  So a forwarded connection holds at most the segment that did not fit, each way.  Where the
reactor can be asked for the end of its turn, small segments wait for that and leave together (`Batch`): first all are
read and then all are sent, which leaves the code of either in the processor's caches, and wakes the process at the
other end once instead of fifty times (8 % less for 50 connections; nothing lost for a single one).

Everything that looks at the queue runs on one of three occasions: a write, a flush, and a turn that was asked for
(`_soon`).  The debt of a rate is a fourth with a timer of its own, so that what needs no bytes (callbacks of what is
sent, the end) never waits for it.

Rejected: a push producer on descriptors (fires only after more than ``bufferSize`` bytes have gathered: a callback for
a small write would never run); asking the transport for the length of its private buffer (Twisted may rename it in any
release); a timer that polls.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol

from twisted.internet.interfaces import IDelayedCall, IPullProducer, IPushProducer, IReactorTime
from zope.interface import implementer

from twisted_net.errors import LimitError, NetError, WriteError
from twisted_net.wire import layers
from twisted_net.wire.limits import Meter

WINDOW: Final = 128 * 1024
"""Bytes that the transport holds at most: what a stock descriptor hands to the kernel in one call
(``FileDescriptor.SEND_LIMIT``)."""

HIGH_WATER_MARK: Final = 64 * 1024
"""Unsent bytes from which on ``write`` returns False (LUV-29)."""

UNSENT_LIMIT: Final = 256 * 1024 * 1024
"""Unsent bytes that are accepted at most, unless set otherwise: a writer that never looks at what ``write`` returns
ends here, not in swap."""

SEGMENT: Final = 64 * 1024
"""Bytes of a forwarded segment that was as much as could be read at once (Twisted's ``bufferSize``; uvloop reads
more)."""

SMALL: Final = 16 * 1024
"""Bytes of a forwarded segment that may wait for the end of the turn; a larger one is not worth the wait."""

_LEAST_METERED: Final = 1024

Written = Callable[[Exception | None], object]


class Source(Protocol):
    """Where forwarded bytes come from (:class:`~twisted_net.wire.relay.Straight`)."""

    def sinkFull(self) -> None:
        """Read no more until the owner was told that all is sent."""

    def segmentFull(self, size: int) -> None:
        """A segment of `SEGMENT` bytes or more has passed."""


class Batch:
    """What is forwarded in one turn of the reactor, by whichever connection.

    :param soon: has a callable called when this turn of the reactor has seen all descriptors that were ready.
    """

    __slots__ = ("_outlets", "_soon")

    def __init__(self, soon: Callable[[Callable[[], object]], object]) -> None:
        self._soon = soon
        self._outlets: list[Outlet] = []

    def begin(self) -> list[Outlet]:
        """The outlets that have gathered something in this turn, for one more to be added."""
        if not self._outlets:
            self._soon(self._leave)
        return self._outlets

    def _leave(self) -> None:
        outlets, self._outlets = self._outlets, []
        for outlet in outlets:
            outlet.uncork()
            if outlet.unsent:
                outlet.sinkFull()


class OutletOwner(Protocol):
    """What an outlet asks of the connection that it belongs to (:class:`~twisted_net.wire.protocol.SocketProtocol`)."""

    def outletDrained(self) -> None: ...
    def outletEnded(self) -> None: ...
    def outletFinished(self) -> None: ...
    def outletMoved(self) -> None: ...
    def outletOverdrawn(self, error: LimitError) -> None: ...
    def outletPaced(self) -> None: ...
    def call(self, where: str, method: Callable[..., object], *args: object) -> None: ...


@implementer(IPushProducer, IPullProducer)
class Outlet:
    """The outgoing queue of one connection.  It exists before the transport does: what is written then waits for
    `attach`."""

    __slots__ = (
        "_alert",
        "_bottom",
        "_callbacks",
        "_debt",
        "_ending",
        "_error",
        "_finishing",
        "_limit",
        "_marked",
        "_meter",
        "_moves",
        "_owing",
        "_paced",
        "_passed",
        "_plain",
        "_producer",
        "_producerStops",
        "_pumping",
        "_queue",
        "_queued",
        "_ready",
        "_registered",
        "_sendNow",
        "_stalled",
        "_straight",
        "_streaming",
        "_tls",
        "_turn",
        "_window",
        "accepted",
        "batch",
        "corked",
        "gathered",
        "highWaterMark",
        "owner",
        "reactor",
        "source",
        "transport",
        "unsent",
    )

    def __init__(self, owner: OutletOwner, reactor: IReactorTime, highWaterMark: int = HIGH_WATER_MARK) -> None:
        self.owner = owner
        self.reactor = reactor
        self.highWaterMark = highWaterMark
        self.limit = UNSENT_LIMIT
        #: The transport that bytes are given to, or None before `attach` and after the end.
        self.transport: Any = None
        #: Bytes that were accepted in all.
        self.accepted = 0
        #: Bytes that were accepted and not yet handed to the kernel.
        self.unsent = 0
        #: Whom `forward` tells of pressure; to be set by who forwards.
        self.source: Source | None = None
        #: With which small forwarded segments leave, at the end of the reactor's turn; None: each at once.
        self.batch: Batch | None = None
        #: A segment is being delivered: what is written now is gathered, until `uncork`.
        self.corked = False
        #: Written meanwhile: given, as far as anybody else is concerned.
        self.gathered: list[bytes] | None = None
        self._queued = 0
        self._queue: deque[memoryview | bytes] | None = None
        self._callbacks: deque[tuple[int, Written]] | None = None
        self._owing = False  # a write returned False and 'drained' is owed
        self._ending = False  # half-close when everything is sent
        self._finishing = False  # the next flush is the last
        self._error: Exception | None = None  # nothing is accepted any more, and why
        self._bottom: Any = None  # the descriptor that tells when it is empty (an IExactTransport)
        self._sendNow: Any = None  # its method
        self._registered = False  # a transport that is no descriptor has us as its push producer
        self._tls = False  # what is given goes through TLS before it comes to the descriptor
        self._ready = False  # bytes may be given (for TLS: the handshake is over)
        self._stalled = False  # an inexact transport asked to pause
        self._plain = False  # fast path: give at once, nobody else to ask
        self._straight = False  # the same for what is forwarded, which does not mind a clock
        self._alert = False  # somebody waits for a flush
        self._moves = False  # the owner wants to know of every movement (a clock runs)
        self._pumping = False
        self._paced = False  # the meter holds bytes back, and the owner knows
        self._passed = 0  # TLS: stream position that is known to be below TLS
        self._marked = 0  # stream position that was given when the turn was asked for
        self._meter: Meter | None = None
        self._turn: IDelayedCall | None = None
        self._debt: IDelayedCall | None = None
        self._producer: Any = None
        self._streaming = False
        self._producerStops = False

    # -- what users call

    @property
    def limit(self) -> int:
        """Unsent bytes that are accepted at most."""
        return self._limit

    @limit.setter
    def limit(self, limit: int) -> None:
        self._limit = limit
        self._window = min(limit, WINDOW)

    def write(self, data: bytes) -> bool:
        """Accept *data*: given to the transport at once when there is room in the window, else queued.

        Returns True while fewer than `highWaterMark` bytes are unsent, this chunk included.  What is written after
        `end` goes out before the FIN while that has not gone, as on every transport (a face refuses it earlier); from
        then on nothing is accepted, and the answer is False.  Everything but the slow path is inlined: this is the
        byte's road.

        :raises TypeError: *data* is not ``bytes``.
        """
        size = len(data)
        unsent = self.unsent + size
        if self._plain and unsent <= self._window and not self._queued:
            if not self.corked:
                self.transport.write(data)
            elif type(data) is not bytes:
                return self._writeSlowly(data, size)
            elif self.gathered is None:
                self.gathered = [data]
            else:
                self.gathered.append(data)
            self.accepted += size
            self.unsent = unsent
            if unsent < self.highWaterMark:
                return True
            self._owing = self._alert = True
            return False
        return self._writeSlowly(data, size)

    def _writeSlowly(self, data: bytes, size: int) -> bool:
        if not isinstance(data, bytes):
            raise TypeError(f"write takes bytes, not {type(data).__name__}: encode a text, copy a buffer with bytes()")
        if self._error is not None:
            return False
        if self.unsent + size > self._limit:
            self.owner.outletOverdrawn(
                LimitError(
                    f"{self.unsent + size} bytes would wait to be sent; the limit is {self._limit}: "
                    "stop writing when write() returns False and go on at 'drain', or raise the limit",
                    sent=self.sent,
                    code="ENOBUFS",
                )
            )
            return False
        self.accepted += size
        self.unsent += size
        if size:
            if self._queue is None:
                self._queue = deque()
            self._queue.append(data)
            self._queued += size
            self._alert = True
            if self._moves:
                self.owner.outletMoved()
            self._pump()
        if self.unsent < self.highWaterMark and self._ready:
            return True
        self._owing = self._alert = True
        if self._producer is not None:
            self._pauseProducer()
        return False

    def forward(self, data: bytes) -> None:
        """Accept a segment of another connection, the `source`: to the kernel at once, and no further one until it has
        taken all."""
        size = len(data)
        if not self._straight or self.unsent:
            self._forwardSlowly(data)
            return
        self.accepted += size
        if self._moves:
            self.owner.outletMoved()
        if self.batch is not None and size < SMALL:
            self.unsent = size
            self.corked = True
            self.gathered = [data]
            self.batch.begin().append(self)
            return
        self.unsent = self._sendNow(data)
        if self.unsent:
            self.sinkFull()
        if size >= SEGMENT:
            self.source.segmentFull(size)  # type: ignore[union-attr]  # who forwards has set it

    def sinkFull(self) -> None:
        """What was forwarded does not fit: the source hears of it, and the owner when it is sent."""
        self._owing = self._alert = True
        if self.source is not None:
            self.source.sinkFull()

    def _forwardSlowly(self, data: bytes) -> None:
        if not self.write(data) and self.source is not None:
            self.source.sinkFull()

    def carriedBeside(self, size: int) -> None:
        """So many bytes went to the kernel on another way: they are accepted and sent."""
        self.accepted += size
        if self._moves:
            self.owner.outletMoved()

    @property
    def metReset(self) -> bool:
        """Whether the kernel has told what was sent last of the peer's RST; the transport finds out as it writes on."""
        return self._bottom is not None and bool(self._bottom.wasReset)

    @property
    def mayBePassed(self) -> bool:
        """Whether bytes may go past it, straight into the socket: nothing is unsent, and nothing wants to see them."""
        return self._straight and not self.unsent

    def uncork(self) -> None:
        """The segment is delivered: what was written meanwhile goes straight to the kernel."""
        self.corked = False
        gathered, self.gathered = self.gathered, None
        if gathered is None:
            return
        data = gathered[0] if len(gathered) == 1 else b"".join(gathered)
        self.unsent -= len(data) - self._sendNow(data)
        if self._alert and not self.unsent:
            self._soon()

    def whenSent(self, callback: Written) -> None:
        """Have *callback* called with None once all that was accepted until now is with the kernel; with an error when
        it never will be, or when nothing is accepted any more.

        Never called before this call has returned.
        """
        if self._error is not None:
            self.reactor.callLater(0, self.owner.call, "write callback", callback, self._error)
            return
        if self._callbacks is None:
            self._callbacks = deque()
        self._callbacks.append((self.accepted, callback))
        self._alert = True
        if not self.unsent and self._ready:
            self._soon()

    @property
    def sent(self) -> int:
        """Bytes that were handed to the kernel, as far as the transport can tell."""
        return self.accepted - self.unsent

    @property
    def given(self) -> int:
        """Stream position up to which bytes can no longer be withdrawn: they are with the transport or the kernel."""
        return self.accepted - self._queued

    def withdraw(self, position: int = 0) -> int:
        """Take back what was accepted after *position* and is still queued.  Returns the position up to which bytes
        remain accepted.

        Callbacks of withdrawn bytes are called with an error (``ECANCELED``).
        """
        keep = min(max(position, self.given), self.accepted)
        cut = self.accepted - keep
        if cut:
            queue = self._queue
            assert queue is not None
            self.accepted = keep
            self.unsent -= cut
            self._queued -= cut
            while cut:
                last = queue.pop()
                if len(last) > cut:
                    queue.append(memoryview(last)[:-cut])
                    break
                cut -= len(last)
            self._failCallbacks(
                NetError(
                    "the bytes were withdrawn before they were sent", code="ECANCELED", fault="user", sent=self.sent
                ),
                keep,
            )
            if not self.unsent and self._ready:
                self._soon()
        return keep

    def end(self) -> None:
        """Half-close once everything accepted is sent: the owner's ``outletEnded`` is called when the FIN may
        follow."""
        self._ending = self._alert = True
        self._choosePath()
        if not self.unsent and self._ready:
            self._soon()

    # -- producers (IConsumer)

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """As ``IConsumer``: a push producer is paused while at least `highWaterMark` bytes are unsent, a pull producer
        asked when none is.  Where nothing is accepted any more it is stopped at once.

        :raises RuntimeError: another producer is registered (the contract of ``IConsumer``).
        """
        if self._producer is not None:
            raise RuntimeError(
                f"Cannot register producer {producer!r}: producer {self._producer!r} was never unregistered; "
                "call unregisterProducer() first"
            )
        if self._error is not None:
            producer.stopProducing()
            return
        self._producer = producer
        self._streaming = streaming
        self._producerStops = False
        self._alert = True
        self._choosePath()
        if not streaming:
            producer.resumeProducing()
        elif self.unsent >= self.highWaterMark or not self._ready:
            self._pauseProducer()

    def unregisterProducer(self) -> None:
        """The producer has written its last byte; an `end` that waited for it goes on."""
        self._producer = None
        self._choosePath()
        bottom = self._bottom
        if bottom is not None and bottom.ending:
            # Somebody told the transport to close meanwhile; that too waited for the producer.  (Not asked without
            # need: an empty send to a peer that has closed is an error, and what it sent before would be lost.)
            bottom.nudge()
        if self._ending and not self.unsent and self._ready:
            self._soon()

    @property
    def producer(self) -> Any:
        """The producer that is registered, or None."""
        return self._producer

    def _pauseProducer(self) -> None:
        if self._streaming and not self._producerStops:
            self._producerStops = True
            self.owner.call("pauseProducing", self._producer.pauseProducing)

    def _resumeProducer(self) -> None:
        if self._producer is not None and (self._producerStops or not self._streaming):
            self._producerStops = False
            self.owner.call("resumeProducing", self._producer.resumeProducing)

    # -- the transport's side

    def attach(self, transport: Any, meter: Meter | None = None, held: bool = False) -> None:
        """Begin to give bytes to *transport*.

        :param meter: what limits the rate, or None.
        :param held: do not give any before `release` (TLS before its handshake).
        """
        self.transport = transport
        self._meter = meter
        self._passed = self._marked = self.given
        bottom = self._bottom = layers.exact(transport)
        if bottom is not None:
            self._sendNow = bottom.sendNow
            bottom.tellDrained(self)
        self._tls = bottom is not None and layers.isTls(transport)
        if self._bottom is None and hasattr(transport, "registerProducer"):
            self._registered = True
            transport.registerProducer(self, True)
        if not held:
            self.release()

    def release(self) -> None:
        """Bytes may be given from now on."""
        if self._ready or self.transport is None:
            return
        self._ready = True
        self._choosePath()
        if self._alert:
            # On a turn of its own: the user has not yet heard that the connection stands.
            self._soon()
        if self._bottom is not None and self.unsent > self._queued:
            # Given before it was detached; what was flushed meanwhile nobody heard of.
            self._bottom.nudge()

    def watchMoves(self, on: bool) -> None:
        """Whether the owner's ``outletMoved`` is called when bytes are written or leave."""
        self._moves = on
        if on:
            self._alert = True
        self._choosePath()

    def _choosePath(self) -> None:
        self._straight = (
            self._ready
            and self._bottom is not None
            and not self._tls
            and self._meter is None
            and self._producer is None
            and not self._ending
        )
        self._plain = self._straight and not self._moves

    def surrender(self) -> None:
        """Give everything that is queued to the transport at once, whatever the window and the meter say."""
        self.uncork()
        while self._queue and self.transport is not None:
            chunk = self._queue.popleft()
            self._queued -= len(chunk)
            self.transport.write(bytes(chunk))
        self._soon()

    def awaitLastFlush(self) -> bool:
        """Have the owner's ``outletFinished`` called when what the transport still has by itself is with the kernel.

        :return: False when the transport cannot tell; nothing will be called.
        """
        if self._bottom is None:
            return False
        self._finishing = self._alert = True
        self._cancel()
        self._bottom.nudge()
        return True

    def detach(self) -> None:
        """Let go of the transport, in good order: it may now be closed, or attached again.  Nothing more is given to
        it."""
        self.uncork()
        transport, self.transport = self.transport, None
        bottom, self._bottom = self._bottom, None
        self._plain = self._straight = self._ready = False
        self._cancel()
        if bottom is not None:
            bottom.tellDrainedNoMore()
        elif self._registered:
            self._registered = False
            transport.unregisterProducer()

    def shut(self, error: Exception | None = None) -> None:
        """As `detach`, for good: nothing is accepted any more.

        :param error: what callbacks are given that still ask; those that wait already hear from `fail`.
        """
        self.detach()
        self._refuse(error)

    def _refuse(self, error: Exception | None = None) -> None:
        self._plain = self._straight = self._ending = self._finishing = False
        self._error = error or WriteError(
            "nothing more can be written: this side of the connection has ended; write before it ends", sent=self.sent
        )

    def fail(self, error: Exception) -> None:
        """The connection is gone: every callback that still waits gets *error*, the queue is dropped, a producer is
        stopped."""
        self.transport = self._bottom = self._sendNow = None
        self._ready = self._owing = self._alert = self._registered = False
        self._cancel()
        self._refuse(error)
        self.corked = False
        self.gathered = self._queue = None
        self.accepted -= self._queued
        self.unsent -= self._queued
        self._queued = 0
        producer, self._producer = self._producer, None
        self._failCallbacks(error, -1)
        if producer is not None:
            self.owner.call("stopProducing", producer.stopProducing)

    def _failCallbacks(self, error: Exception, after: int) -> None:
        callbacks = self._callbacks
        if callbacks is None:
            return
        doomed: list[Written] = []
        while callbacks and callbacks[-1][0] > after:
            doomed.append(callbacks.pop()[1])
        for callback in reversed(doomed):
            self.owner.call("write callback", callback, error)

    # IPullProducer towards a descriptor: "my buffer is empty"; IPushProducer towards anything else: "go on".
    def resumeProducing(self) -> None:
        """The transport has nothing left to write."""
        bottom = self._bottom
        if bottom is not None and bottom.ending:
            self._yield()
        self._stalled = False
        if self._ready:
            self.unsent = self.accepted - self._passed if self._tls else self._queued
            if self._alert:
                if self._finishing:
                    self._finishing = False
                    self.owner.outletFinished()
                else:
                    self._flushed()

    def _yield(self) -> None:
        """TLS, or somebody who holds the transport, has told it to close: it does when we are no longer its producer.

        What is still queued goes first, except under TLS, which takes nothing any more.
        """
        if self._tls or (not self._queued and self._producer is None):
            bottom, self._bottom = self._bottom, None
            bottom.tellDrainedNoMore()
            bottom.nudge()
            if not (self._ending or self._finishing):
                self._refuse()

    def pauseProducing(self) -> None:
        """An inexact transport is full."""
        self._stalled = True

    def stopProducing(self) -> None:
        """The transport is gone; ``connectionLost`` follows and says why."""

    def _flushed(self) -> None:
        """Nothing (of what was given) is unsent: callbacks, then more bytes, then 'drained', then the end."""
        if self._moves:
            self.owner.outletMoved()
        callbacks = self._callbacks
        if callbacks:
            sent = self.sent
            for _ in range(len(callbacks)):  # those that are added meanwhile have their own turn
                if not callbacks or callbacks[0][0] > sent:
                    break
                self.owner.call("write callback", callbacks.popleft()[1], None)
        if self._queued:
            self._pump()
        if self._owing and not self.unsent and self.transport is not None:
            self._owing = False
            self.owner.outletDrained()
        if not self.unsent and self.transport is not None:
            self._resumeProducer()
        if self.unsent or self.transport is None or self._producer is not None or self._callbacks:
            return
        if self._ending:
            self._ending = False
            self.owner.outletEnded()
        else:
            self._alert = self._moves

    def _pump(self) -> None:
        """Give queued bytes to the transport: as much as the window and the meter allow."""
        if self._pumping or not self._ready:
            return
        if self.gathered is not None:
            self.uncork()
        queue = self._queue
        self._pumping = True
        try:
            while queue and self.transport is not None and not self._stalled:
                if self._debt is not None:
                    if not self._paced:
                        self._paced = True
                        self.owner.outletPaced()
                    return
                room = WINDOW - (self.unsent - self._queued)
                if room <= 0 or (self._tls and layers.isClosing(self.transport)):
                    return
                if self._meter is not None:
                    # A tenth of a second's worth at a time: even, and not a call for each byte.
                    room = min(room, max(_LEAST_METERED, int(self._meter.rate / 10)))
                chunk = queue.popleft()
                if len(chunk) > room:
                    view = memoryview(chunk)
                    queue.appendleft(view[room:])
                    chunk = view[:room]
                size = len(chunk)
                self._queued -= size
                self.transport.write(chunk if type(chunk) is bytes else bytes(chunk))
                if self._meter is not None:
                    debt = self._meter.charge(size, self.reactor.seconds())
                    if debt > 0:
                        self._debt = self.reactor.callLater(debt, self._debtPaid)
                if self._tls or self._bottom is None:
                    self._soon()
            self._paced = False
        finally:
            self._pumping = False

    def _debtPaid(self) -> None:
        self._debt = None
        self._pump()

    def _soon(self) -> None:
        if self._turn is None and self.transport is not None:
            self._marked = self.given
            self._turn = self.reactor.callLater(0, self._onTurn)

    def _onTurn(self) -> None:
        self._turn = None
        if self._tls:
            if self._bottom is None or self._bottom.disconnecting:
                return  # whatever TLS still had is lost
            # All that was given before this turn was asked for has been encrypted by now.  A flush of the layer below
            # after this moment proves that it is sent; asking for one is free when bytes wait, and one empty send()
            # when they have already gone.
            self._passed = self._marked
            if self.unsent > self._queued:
                self._bottom.nudge()
        elif self._bottom is None and not self._stalled:
            self.unsent = self.accepted - self._marked
        if self._marked < self.given:
            self._soon()
        self._pump()
        if not self.unsent or (self._callbacks and self._callbacks[0][0] <= self.sent):
            self._flushed()

    def _cancel(self) -> None:
        turn, self._turn = self._turn, None
        debt, self._debt = self._debt, None
        for call in (turn, debt):
            if call is not None:
                call.cancel()
