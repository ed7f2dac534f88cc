"""SocketProtocol: the one protocol that meets Twisted's transports.

Theory
======
Whatever a face promises about a connection's life, pressure, clocks, counts and limits is kept here, once; faces only
translate.

*The byte's road.*  ``dataReceived`` counts, and calls ``receive``: a callable that is assigned when listeners change,
never looked up when bytes come.  One flag, ``_attentive``, says that something wants to see each segment first (a
clock, a rate, a pause that the transport does not honour, bytes that wait); while it is off, that is all there is.

*Holding.*  Bytes are held back in two cases: nobody is there to receive them (``receive is None``), and a transport
goes on delivering although it was paused (TLS: what was already decrypted).  What came after held bytes waits behind
them: more bytes, the peer's end, and the end of the connection when it was a clean one.  A reset does not wait: it is
reported at once.  Nothing is held beyond ``holdLimit`` plus one segment: from there the transport is paused, by the
owner ``"full"``.  While bytes are held the clocks run on, also when the transport has gone: what is never fetched ends
with the idle time.

*Pauses* have owners (design law 8): ``user``, ``peer`` (a pipe's other end), ``rate``, ``full``.  Reading stops when
the set becomes non-empty and starts when it is empty again.  Only a TLS handshake goes on under a pause: without it
nothing could be written either.

*Ending.*  ``end()`` flushes, sends FIN and lets the peer go on.  ``close()`` flushes and ends both ways.  ``drop()``
sends FIN without flushing; ``abort()`` sends RST.  The two bits of the lifecycle are the book that Twisted does not
keep: when both are gone the transport is told to close (twisted#5662).  While a side is half-open, the clock
``halfOpenTimeout`` runs.  TLS answers a close with its own, and Twisted waits for that: for `GOODBYE` seconds, here.
What the transport says of its end after both halves have ended is no error any more.

Rejected: a state machine that decides per segment (a dictionary look-up for each byte's road); sub-classes for server
and client (there is no difference after ``makeConnection``); ``policies.ProtocolWrapper`` for timeouts and limits (it
hides ``IHalfCloseableProtocol``, so that a client's FIN kills the reply).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol

from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IHalfCloseableProtocol,
    IHandshakeListener,
    IProtocol,
    IPushProducer,
    IReactorTime,
)
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_net.address import Address
from twisted_net.errors import ClosedError, LimitError, NetError, TimedOutError, WriteError
from twisted_net.interfaces import IConnectionUser
from twisted_net.sansio.lifecycle import Input, State, step
from twisted_net.sansio.pressure import Pressure
from twisted_net.wire import layers, reasons
from twisted_net.wire.clocks import Clocks
from twisted_net.wire.limits import Limits, Meter
from twisted_net.wire.outlet import HIGH_WATER_MARK, Outlet

NO_LIMITS: Final = Limits()

RESET_CHECK: Final = 1.0
"""Seconds between two looks at a connection whose reading is stopped.  No reactor reports anything of a descriptor that
it does not read, not even its reset, and one that nobody reads may stay so for ever."""

GOODBYE: Final = 10.0
"""Seconds for which a TLS peer may keep its close_notify when we have sent ours and want nothing more from it: it need
not answer at all (RFC 8446, section 6.1), and many do not."""

_CLEAN: Final = Failure(ConnectionDone("The connection was closed by this side."))


@implementer(IConnectionUser)
class _Unclaimed:
    """Stands behind a connection that was given back, until the next user comes."""

    def connectionOpened(self, protocol: SocketProtocol) -> None: ...
    def readEnded(self) -> None: ...
    def writeEnded(self) -> None: ...
    def drained(self) -> None: ...
    def connectionClosed(self, error: Exception | None, reason: Failure) -> None: ...
    def limitPassed(self, name: str, action: str) -> None: ...

    def raised(self, where: str, error: Exception) -> None:
        """Nobody's code has run."""


UNCLAIMED: Final = _Unclaimed()
"""Whoever has a connection without a user yet, or any more, has this one."""


class Door(Protocol):
    """Who admits a connection and keeps the table of them (:class:`~twisted_net.wire.factory.SocketFactory`)."""

    def admit(self, protocol: SocketProtocol) -> bool: ...
    def leave(self, protocol: SocketProtocol) -> None: ...
    def limitPassed(self, name: str) -> None: ...


@implementer(IProtocol, IHalfCloseableProtocol, IHandshakeListener, IPushProducer)
class SocketProtocol:
    """One connection: give it to any transport, and it serves an :class:`~twisted_net.interfaces.IConnectionUser`.

    :param user: who stands behind the connection.
    :param reactor: provides ``IReactorTime``.
    :param highWaterMark: unsent bytes from which on `write` returns False, and received bytes that are held while
        nobody receives them.
    :param limits: rates and deadlines of this connection.
    :param readMeter: charged with bytes received, or None.
    :param writeMeter: charged with bytes sent, or None.
    """

    __slots__ = (
        "__weakref__",
        "_attentive",
        "_clocks",
        "_closing",
        "_debt",
        "_dropping",
        "_endAgain",
        "_engaged",
        "_first",
        "_held",
        "_heldEnd",
        "_heldLoss",
        "_heldSize",
        "_peer",
        "_readMeter",
        "_releasing",
        "_shaking",
        "_writeMeter",
        "bare",
        "bytesRead",
        "door",
        "error",
        "factory",
        "holdLimit",
        "limits",
        "outlet",
        "peerKey",
        "pressure",
        "reactor",
        "receive",
        "state",
        "transport",
        "user",
        "verdict",
        "write",
    )

    _log = Logger()

    def __init__(
        self,
        user: IConnectionUser,
        reactor: IReactorTime,
        *,
        highWaterMark: int = HIGH_WATER_MARK,
        limits: Limits = NO_LIMITS,
        readMeter: Meter | None = None,
        writeMeter: Meter | None = None,
    ) -> None:
        self.user = user
        self.reactor = reactor
        self.limits = limits
        #: Twisted's transport, from `makeConnection` until the connection is gone.
        self.transport: Any = None
        #: Where in its life the connection stands.
        self.state = State.IDLE
        #: Bytes received so far.
        self.bytesRead = 0
        #: Called with each segment; None keeps them.  Assign through `attach` once the connection stands.
        self.receive: Callable[[bytes], object] | None = None
        #: Received bytes that are held at most before the peer is made to wait.
        self.holdLimit = highWaterMark
        #: The outgoing queue.
        self.outlet = Outlet(self, reactor, highWaterMark)
        #: ``write(data) -> bool``: the outlet's own, so that a byte meets no frame in between.
        self.write: Callable[[bytes], bool] = self.outlet.write
        #: Who has stopped the reading.
        self.pressure = Pressure(self._stopReading, self._startReading)
        #: What went wrong, once it did: None while all is well, and after an end in good order.
        self.error: Exception | None = None
        #: The error that this side ended the connection with, by `drop` or `abort`; None when it did not.
        self.verdict: Exception | None = None
        self._peer: IAddress | None = None
        #: Who admits this connection and keeps it in its table, or None.
        self.door: Door | None = None
        #: Set by Twisted's own factories when they build one; nothing here asks for it.
        self.factory: Any = None
        #: What the factory counts it under.
        self.peerKey: object = None
        self._readMeter = readMeter
        self._writeMeter = writeMeter
        self._clocks: Clocks | None = None
        #: Leave writing to the user, who has the transport: no outgoing queue of ours.
        self.bare = False
        self._attentive = True
        self._first = False
        self._engaged = False
        self._closing = False  # nothing more is delivered, whatever comes
        self._shaking = False  # a TLS handshake is under way
        self._held: deque[bytes] | None = None
        self._heldSize = 0
        self._heldEnd = False
        self._endAgain = False  # it was told already, to who has given bytes back
        self._heldLoss: Failure | None = None
        self._releasing: IDelayedCall | None = None
        self._debt: IDelayedCall | None = None
        self._dropping: IDelayedCall | None = None

    # -- the transport's side

    def makeConnection(self, transport: Any) -> None:
        """The transport is there; called by Twisted."""
        self.transport = transport
        layers.passHalfClose(transport, self)
        door = self.door
        if door is not None and not door.admit(self):
            return
        self.connectionMade()

    def connectionMade(self) -> None:
        """Begin: clocks run, bytes flow, the user is told.  For a server's connection this is the moment of
        admission."""
        transport = self.transport
        if self._engaged or transport is None or (self._closing and self.state is State.IDLE):
            return
        self.state = step(self.state, Input.MADE)
        if self.state is State.DROPPED:
            # Given up while it was dialled: its user has been told so by whoever dialled.
            self._dropSoon(transport)
            return
        self._engaged = True
        self._startLimits()
        if not self.bare:
            self._shaking = layers.awaitHandshake(transport, self)
            self.outlet.attach(transport, self._writeMeter, held=self._shaking)
        if self.pressure.paused:
            self._stopReading()
        if self.state is State.ENDING:
            self._endWriting()
        if self._closing:
            self.state = step(self.state, Input.PEER_END)
        self._lookUp()
        self.call("connectionOpened", self.user.connectionOpened, self)

    def _startLimits(self) -> None:
        limits = self.limits
        if limits.lifetime is not None:
            self._clock().countdown("lifetime", limits.lifetime, lambda: self._expired("lifetime", limits.lifetime))
        if limits.handshakeTimeout is not None:
            self._first = True
            self._clock().countdown(
                "handshakeTimeout",
                limits.handshakeTimeout,
                lambda: self._expired("handshakeTimeout", limits.handshakeTimeout),
            )
        if limits.idleTimeout is not None:
            self.setRestClock(
                "idleTimeout", limits.idleTimeout, lambda: self._expired("idleTimeout", limits.idleTimeout)
            )

    def handshakeCompleted(self) -> None:
        """TLS is ready to carry bytes; called by Twisted's TLS."""
        if self._shaking:
            self._shaking = False
            if self.pressure.paused:
                self._stopReading()
            self.outlet.release()

    def dataReceived(self, data: bytes) -> None:
        """A segment came; called by Twisted."""
        self.bytesRead += len(data)
        outlet = self.outlet
        outlet.corked = True
        if self._attentive:
            self._receiveAttentively(data)
        else:
            try:
                self.receive(data)  # type: ignore[misc]
            except Exception as error:
                self._raised("receive", error)
        if outlet.gathered is None:
            outlet.corked = False
        else:
            outlet.uncork()

    def _receiveAttentively(self, data: bytes) -> None:
        if self.state is State.DROPPED or self.state is State.CLOSED:
            return
        if self._first:
            self._first = False
            self._clock().stop("handshakeTimeout")
        if self._clocks is not None:
            self._clocks.touch()
        receive = self.receive
        if receive is None or self._held or self.pressure.paused:
            self._hold(data)
        else:
            try:
                receive(data)
            except Exception as error:
                self._raised("receive", error)
                return
        if self._readMeter is not None:
            debt = self._readMeter.charge(len(data), self.reactor.seconds())
            if debt > 0 and self.transport is not None:
                self._owe(debt)
        self._lookUp()

    def _lookUp(self) -> None:
        """Decide whether each segment must be looked at (design law 4: bind when things change)."""
        self._attentive = (
            self.receive is None
            or bool(self._held)
            or self.pressure.paused
            or self._readMeter is not None
            or self._first
            or (self._clocks is not None and self._clocks.resting)
            or not (self.state.canRead and self._engaged)
        )

    def readConnectionLost(self) -> None:
        """The peer's FIN; called by Twisted."""
        if self.outlet.metReset:
            # No FIN: an error is told once, and it was told to who wrote. That it is lost comes from there.
            return
        if self._held:
            self._heldEnd = True
        else:
            self._peerEnded()

    def _peerEnded(self) -> None:
        if not self.state.canRead:
            return
        self.state = step(self.state, Input.PEER_END)
        self._lookUp()
        self._watchHalfOpen()
        self.call("readEnded", self.user.readEnded)
        self._closeWhenEnded()

    def writeConnectionLost(self) -> None:
        """Our FIN is with the kernel; called by Twisted."""
        if self.state.canWrite:
            # Somebody who holds the transport half-closed it by itself.
            self.state = step(self.state, Input.END)
            self.outlet.shut()
        if self.state in (State.ENDING, State.LAST_WORDS):
            self.state = step(self.state, Input.END_SENT)
            self._watchHalfOpen()
            self.call("writeEnded", self.user.writeEnded)
            self._closeWhenEnded()

    def _closeWhenEnded(self) -> None:
        transport = self.transport
        if self.state is State.ENDED and transport is not None and self._dropping is None:
            if layers.isTls(transport):
                self._dropping = self.reactor.callLater(GOODBYE, layers.drop, transport, _CLEAN)
            # Twisted adds nothing up: after both ends it still waits for this (twisted#5662).
            transport.loseConnection()

    def connectionLost(self, reason: Failure) -> None:
        """The transport is gone; called by Twisted."""
        self._peer = self.getPeer()
        if reason.type is ConnectionLost and layers.isNotified(self.transport):
            # The peer has said goodbye and left; that its kernel answers our goodbye with RST tells nothing more.
            reason = Failure(ConnectionDone())
        if self._held and reason.check(ConnectionDone) is not None and self.state is not State.DROPPED:
            # The user has not seen everything yet; the descriptor is closed, the story is not over.
            self._heldLoss = reason
            self._heldEnd = True
            if self.state.canWrite:
                self.state = step(self.state, Input.END)
            broken = self._brokenOff(reason)
            if self.outlet.unsent:
                self.error = self.error or broken
            self.outlet.fail(broken)
            self.transport = None
            return
        self._lost(reason)

    def _lost(self, reason: Failure) -> None:
        if not self._engaged:
            # Lost before it was admitted: nobody ever heard of it.
            self._finish(self._brokenOff(reason))
            if self.door is not None:
                self.door.leave(self)
            return
        if self.state not in (State.DROPPED, State.ENDED):
            # After both ends, and after ours, it does not matter how the transport went.
            lost = reasons.translate(
                reason, address=self.describePeer(), syscall="read", number=layers.lossErrno(self.transport)
            )
            if lost is None and self.error is None and self.state.canRead:
                # A transport without half-close (TLS): the peer's end and the end of the connection are one.
                self._peerEnded()
            if lost is None and self.outlet.unsent and self.verdict is None:
                lost = self._brokenOff(reason)
            self.error = self.error or lost
        error = self.error
        self._finish(error or self._brokenOff(reason))
        self.call("connectionClosed", self.user.connectionClosed, error, reason)
        if self.door is not None:
            self.door.leave(self)

    def _finish(self, error: Exception) -> None:
        self.transport = None
        self.state = step(self.state, Input.LOST)
        self._stopClocks()
        for call in (self._releasing, self._debt, self._dropping):
            if call is not None and call.active():
                call.cancel()
        self._releasing = self._debt = self._dropping = None
        self._held = None
        self._heldSize = 0
        self._heldEnd = False
        self.receive = None
        self.outlet.fail(error)

    def discard(self, error: Exception | None) -> None:
        """No connection came of it: everything that waits for one is told *error*."""
        self.state = step(self.state, Input.FAILED)
        self.error = error
        self._finish(error or ClosedError("the connection was given up before it stood", sent=0))

    def _brokenOff(self, reason: Failure) -> NetError:
        unsent = self.outlet.unsent
        error = WriteError(
            f"the connection with {self.describePeer()} ended while {unsent} bytes were unsent: they are lost",
            sent=self.outlet.sent,
            syscall="write",
        )
        error.__cause__ = reason.value
        return error

    # -- reading

    def attach(self, receive: Callable[[bytes], object] | None) -> None:
        """Deliver bytes to *receive* from now on (None: keep them).  Held bytes follow on a later turn of the
        reactor."""
        if self._closing:
            return
        self.receive = receive
        self._lookUp()
        if receive is not None:
            self._releaseSoon()

    def pause(self, owner: str) -> None:
        """No segment is delivered after this call until the last owner has resumed; the kernel's window closes on the
        peer."""
        self.pressure.pause(owner)
        self._attentive = True

    def resume(self, owner: str) -> None:
        """Take back *owner*'s pause.  Harmless when there is none."""
        self.pressure.resume(owner)
        if self._held and not self._stoppedByOthers():
            # "full" stays until what is held was delivered.
            self._releaseSoon()

    def _stopReading(self) -> None:
        if self.transport is not None and not self._shaking:
            self.transport.pauseProducing()
            self._watchReset()

    def _watchReset(self) -> None:
        self._clock().countdown("reset", RESET_CHECK, self._checkReset)

    def _checkReset(self) -> None:
        if layers.isReset(self.transport):
            layers.drop(self.transport, Failure(ConnectionLost()))
        elif self.transport is not None:
            self._watchReset()

    def _startReading(self) -> None:
        if self._clocks is not None:
            self._clocks.stop("reset")
        if self._held:
            # What is held comes first; reading goes on when it is gone.
            self._releaseSoon()
        elif self.transport is not None and self.state.canRead:
            self.transport.resumeProducing()
        self._lookUp()

    def _hold(self, data: bytes) -> None:
        if self._held is None:
            self._held = deque()
        self._held.append(data)
        self._heldSize += len(data)
        if self._heldSize >= self.holdLimit:
            self.pressure.pause("full")

    def giveBack(self, data: bytes) -> None:
        """The user lets go of the connection and hears nothing more of it: whoever wants it sets `user` and attaches.

        :param data: what was delivered and not used; it is held, before everything else, for the next one.
        """
        self.user = UNCLAIMED
        self.receive = None
        if data:
            if self._held is None:
                self._held = deque()
            self._held.appendleft(data)
            self._heldSize += len(data)
            self._endAgain = not self.state.canRead
            if self._heldSize >= self.holdLimit:
                self.pressure.pause("full")
        self._lookUp()

    @property
    def exhausted(self) -> bool:
        """Whether the peer has ended, and everything that it sent was delivered."""
        return not self.state.canRead and not self._held

    def _releaseSoon(self) -> None:
        if self._held and self._releasing is None:
            self._releasing = self.reactor.callLater(0, self._release)

    def _release(self) -> None:
        self._releasing = None
        while self._held and self.receive is not None and not self._stoppedByOthers():
            data = self._held.popleft()
            self._heldSize -= len(data)
            try:
                self.receive(data)
            except Exception as error:
                self._raised("receive", error)
        if self._held is None or self._held:
            return
        if self._heldEnd:
            self._heldEnd = False
            self._peerEnded()
        elif self._endAgain:
            self._endAgain = False
            self.call("readEnded", self.user.readEnded)
        elif not self.pressure.resume("full") and not self.pressure.paused:
            self._startReading()
        self._lookUp()
        if self._heldLoss is not None:
            reason, self._heldLoss = self._heldLoss, None
            self._lost(reason)

    def _stoppedByOthers(self) -> bool:
        owners = self.pressure.owners
        return bool(owners) and owners != ("full",)

    def carriedBeside(self, size: int) -> None:
        """So many bytes came on another way (a splice): they are counted, and the clocks are touched."""
        self.bytesRead += size
        if self._clocks is not None:
            self._clocks.touch()

    @property
    def mayBePassed(self) -> bool:
        """Whether bytes may go past it, straight from the socket: nothing is held, nothing stops them, and no rate has
        to count them as they come."""
        return (
            self._engaged
            and self.state.canRead
            and self._readMeter is None
            and not self._first
            and not self._held
            and not self.pressure.paused
        )

    @property
    def held(self) -> int:
        """Bytes that were received and wait for somebody to receive them."""
        return self._heldSize

    def _owe(self, debt: float) -> None:
        if self._debt is None:
            self._debt = self.reactor.callLater(debt, self._debtPaid)
            self.pause("rate")
            self._limitPassed("readRate", "paused")

    def _debtPaid(self) -> None:
        self._debt = None
        assert self._readMeter is not None
        # What came meanwhile (TLS delivers on, others share the bucket) is owed too.
        debt = self._readMeter.charge(0, self.reactor.seconds())
        if debt > 0:
            self._debt = self.reactor.callLater(debt, self._debtPaid)
        else:
            self.resume("rate")

    # IPushProducer: whoever reads from this connection through Twisted's producer interface.
    def pauseProducing(self) -> None:
        """As `pause`, for the owner ``user``."""
        self.pause("user")

    def resumeProducing(self) -> None:
        """As `resume`, for the owner ``user``."""
        self.resume("user")

    def stopProducing(self) -> None:
        """Nobody wants the bytes any more: as `close`."""
        self.close()

    # -- writing and ending

    def end(self) -> None:
        """Half-close: FIN after everything written.  Harmless when done before."""
        if self.state.canWrite:
            self.state = step(self.state, Input.END)
            if self._engaged:
                self._endWriting()

    def _endWriting(self) -> None:
        if self.bare:
            self.outletFinished()
        else:
            self.outlet.end()

    def close(self) -> None:
        """End both ways in good order: everything written is sent, nothing more is delivered.

        The user's ``connectionClosed`` comes on a later turn of the reactor.  Before there is a connection or an
        attempt at one there is nothing to close.
        """
        if self.state is State.IDLE:
            self.drop()
        if self._closing or self.state in (State.IDLE, State.CLOSED):
            return
        self.end()
        self._deafen()
        if self._engaged:
            self.state = step(self.state, Input.PEER_END)
            self._lookUp()
            if self._heldLoss is not None:
                self._tellLossSoon()
            elif self.state is State.ENDED and self._dropping is None:
                self._dropping = self.reactor.callLater(0, self._closeNow)

    def _closeNow(self) -> None:
        self._dropping = None
        self._closeWhenEnded()

    def drop(self, error: Exception | None = None) -> None:
        """No I/O any more: what is unsent is dropped and the peer sees FIN (RST when bytes lay unread in the kernel).

        :param error: handed to the user's ``connectionClosed``, which comes on a later turn of the reactor.
        """
        if self._letGo(error):
            transport = self.transport
            if transport is not None:
                self._dropSoon(transport)
            elif self._heldLoss is not None:
                self._tellLossSoon()

    def abort(self, error: Exception | None = None) -> None:
        """Drop everything and send RST (TCP), so that the peer knows that something was lost.

        :param error: as for `drop`.
        """
        transport = self.transport
        if not hasattr(transport, "abortConnection"):
            self.drop(error)
        elif self._letGo(error):
            self.outlet.shut()
            transport.abortConnection()

    def _letGo(self, error: Exception | None) -> bool:
        """Forget everything that is under way; False when there is nothing to let go of."""
        if self.state in (State.CLOSED, State.DROPPED) or (self.state is State.IDLE and self.transport is None):
            return False
        self.error = self.verdict = self.error or error
        self.state = step(self.state, Input.DROP)
        self._deafen()
        self._attentive = True
        self._stopClocks()
        return True

    def _deafen(self) -> None:
        self._closing = True
        self.receive = self._nothing
        self._held = None
        self._heldSize = 0

    def _dropSoon(self, transport: Any) -> None:
        self.outlet.shut()
        layers.silence(transport)
        self._insteadOfDropping(layers.drop, transport, _CLEAN)

    def _tellLossSoon(self) -> None:
        reason, self._heldLoss = self._heldLoss, None
        self._insteadOfDropping(self._lost, reason)

    def _insteadOfDropping(self, call: Callable[..., object], *args: object) -> None:
        if self._dropping is not None:
            self._dropping.cancel()
        self._dropping = self.reactor.callLater(0, call, *args)

    def _nothing(self, data: bytes) -> None:
        """Receives what nobody wants any more."""

    def startTLS(self, contextFactory: Any, normal: bool = True) -> None:
        """Encrypt from here on (``ITLSTransport``): what was written before goes out as it is, what is written
        meanwhile waits for the handshake.

        :raises ClosedError: there is no connection.
        """
        transport = self.transport
        if transport is None:
            raise ClosedError("startTLS: there is no connection to encrypt; wait for connectionOpened")
        self.outlet.surrender()
        self.outlet.detach()
        transport.startTLS(contextFactory, normal)
        self._shaking = layers.awaitHandshake(transport, self)
        if self._shaking and self.pressure.paused:
            transport.resumeProducing()
        self.outlet.attach(transport, self._writeMeter, held=self._shaking)

    # OutletOwner
    def outletDrained(self) -> None:
        """Nothing is unsent any more."""
        self.call("drained", self.user.drained)

    def outletEnded(self) -> None:
        """Everything was sent; now the end."""
        transport = self.transport
        if layers.isTls(transport):
            layers.endWriting(transport)
            if self.outlet.awaitLastFlush():
                return
        self.outletFinished()

    def outletFinished(self) -> None:
        """Now the FIN; under TLS that was close_notify, and it is with the kernel."""
        transport = self.transport
        self.outlet.shut()
        if (
            self.state is State.LAST_WORDS
            or layers.isTls(transport)
            or (not self.bare and layers.endWritingNow(transport))
            or layers.endWriting(transport)
        ):
            self.writeConnectionLost()

    def outletMoved(self) -> None:
        """Bytes were written, or left; called only while a clock wants to know."""
        assert self._clocks is not None
        self._clocks.touch()

    def outletPaced(self) -> None:
        """The write rate holds bytes back."""
        self._limitPassed("writeRate", "paused")

    def outletOverdrawn(self, error: LimitError) -> None:
        """More is unsent than may be."""
        self.drop(error)

    # -- clocks

    def _clock(self) -> Clocks:
        if self._clocks is None:
            self._clocks = Clocks(self.reactor)
        return self._clocks

    def setRestClock(self, name: str, seconds: float | None, fire: Callable[[], object]) -> None:
        """Call *fire* whenever no byte has moved for *seconds*, in either direction; None stops it.

        ``setTimeout`` of the event face and the idle limit are two names of it.
        """
        if self.state in (State.CLOSED, State.DROPPED) or (seconds is None and self._clocks is None):
            return
        self._clock().rest(name, seconds, fire)
        self.outlet.watchMoves(self._clock().resting)
        self._lookUp()

    def _watchHalfOpen(self) -> None:
        seconds = self.limits.halfOpenTimeout
        if seconds is not None and self.state.canRead != self.state.canWrite:
            self.setRestClock("halfOpenTimeout", seconds, lambda: self._expired("halfOpenTimeout", seconds))

    def _expired(self, name: str, seconds: float | None) -> None:
        what = {
            "lifetime": "has lasted its whole lifetime",
            "handshakeTimeout": "has sent nothing since it was accepted",
            "idleTimeout": "has been idle",
            "halfOpenTimeout": "has been half-open without a byte",
        }[name]
        self._limitPassed(name, "closed")
        self.drop(
            TimedOutError(f"the connection with {self.describePeer()} {what}: {seconds:g} s ({name}); it was closed")
        )

    def _stopClocks(self) -> None:
        clocks, self._clocks = self._clocks, None
        if clocks is not None:
            clocks.cancel()
            self.outlet.watchMoves(False)

    def _limitPassed(self, name: str, action: str) -> None:
        if self.door is not None:
            self.door.limitPassed(name)
        self.call("limitPassed", self.user.limitPassed, name, action)

    # -- the user's code

    def call(self, where: str, method: Callable[..., object], *args: object) -> None:
        """Run a callable of the user's: what it raises is reported, and the connection is dropped."""
        try:
            method(*args)
        except Exception as error:
            self._raised(where, error)

    def _raised(self, where: str, error: Exception) -> None:
        try:
            self.user.raised(where, error)
        except Exception:
            self._log.failure("{user!r} raised while it was told that {where} had raised", user=self.user, where=where)
        self.drop(error)

    # -- looking at it

    @property
    def bytesWritten(self) -> int:
        """Bytes handed to the kernel so far, and those that wait for it."""
        return self.outlet.accepted

    def getPeer(self) -> IAddress | None:
        """Twisted's address of the other side, also after the connection has ended; None when there never was one."""
        return self._peer if self.transport is None else self.transport.getPeer()

    def describePeer(self) -> str:
        """The other side in words, for messages."""
        peer = self.getPeer()
        return "an unknown peer" if peer is None else str(Address.fromTwisted(peer))
