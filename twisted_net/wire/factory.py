"""SocketFactory: admission, the table of living connections, drain on stop.

Theory
======
A connection that the kernel has accepted is, until `SocketFactory.admit` says yes, nobody's: nothing of it is read, no
handler knows of it. The answer is one of three::

    admitted   counted, in the table, its user is told
    waiting    unread, in a queue of at most ``waitLimit``; served first, in order, when there is room
    refused    closed before anything ran; counted, and told to the watcher

It is given when the transport is there, not in ``buildProtocol``: only then the uid of a UNIX peer and the number of
the descriptor are known, and a TLS factory around this one could not bear a ``None``.

*Accepting* is paused by named owners like reading is: ``user``, ``connections`` and ``rate`` (mode ``wait``),
``exhausted``.  A stock port that is paused finishes its accept loop (up to 100 connections), and some ports cannot
pause at all: the waiting queue is where that surplus stands, in either mode.  While nobody has paused, only those wait
whose own peer is over its limit (``perPeer``): everybody else passes them.

*Who waits is not read*, so the reactor does not notice when such a client leaves.  It is asked of the kernel (poll(2))
when there is room for him, and when the queue is full: a reset connection, or one that was closed with nothing left to
read, is let go without a word.  A FIN alone proves nothing: the client may be waiting for an answer.

*Running out of descriptors.*  Descriptors are given lowest first (open(2)), so the number of an accepted one tells how
full the table is: beyond ``limits.reserve`` from the end the connection is refused, while there is still room to do it.
Without room, accept fails and the socket stays readable (EMFILE, ENFILE, ENOBUFS, ENOMEM): a stock port would be called
again at once, for ever, or close every client with a log line each.  `guard` asks for a descriptor before it lets the
port accept, looks whether the port got anywhere, and has accepting rest when not.
"""

from __future__ import annotations

import select
import socket
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IAddress, IDelayedCall, IProtocolFactory, IReactorTime, IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_net.address import Address
from twisted_net.errors import AbortedError, NetError
from twisted_net.interfaces import IConnectionUser
from twisted_net.sansio.bucket import TokenBucket
from twisted_net.sansio.counters import Counters
from twisted_net.sansio.pressure import Pressure
from twisted_net.wire import layers
from twisted_net.wire.limits import Admission, Limits, Meter, peerKey
from twisted_net.wire.outlet import HIGH_WATER_MARK
from twisted_net.wire.protocol import NO_LIMITS, SocketProtocol
from twisted_net.wire.seldom import Seldom

WAIT_LIMIT: Final = 128
"""Connections that wait for admission at most: a stock port accepts up to 100 more after it was paused, and listens in
powers of two."""

REST_AFTER_FAILED_ACCEPT: Final = 0.1
"""Seconds for which accepting rests when the system has no room for another connection: the order of a human's blink,
not of a spin."""

REFUSED: Final = (
    "{count} connection(s) refused: the limit {name!r} is reached ({living} connections, {refused} refused in all)"
)
ACCEPT_FAILED: Final = (
    "accept failed {count} time(s): no descriptor or no memory is left ({living} connections); "
    "close something, or raise the limit of open files"
)

LIMIT_NAMES: Final = (
    "connections",
    "perPeer",
    "acceptRate",
    "reserve",
    "readRate",
    "writeRate",
    "idleTimeout",
    "handshakeTimeout",
    "lifetime",
    "halfOpenTimeout",
)


class Watcher(Protocol):
    """Who wants to hear what a factory does with connections."""

    def limitPassed(self, name: str, peer: Address, action: str) -> None:
        """A limit was met: *action* is ``"refused"``, ``"waits"``, ``"paused"`` or ``"closed"``."""


@dataclass(frozen=True, slots=True)
class Ended:
    """What is known of a connection that has ended, for a journal."""

    peer: Address
    """Who it was."""
    bytesRead: int
    bytesWritten: int
    seconds: float
    """From its admission to its end."""
    error: Exception | None
    """What went wrong, or None after an end in good order."""


class _Nobody:
    """Stands behind a connection that was not admitted; nothing reaches it."""

    def raised(self, where: str, error: Exception) -> None:
        raise error


_NOBODY: Final[Any] = _Nobody()

_PAUSING: Final = {"connections": "connections", "rate": "acceptRate"}
"""Which limit an owner of a pause in accepting stands for; the others stand for none."""


@implementer(IProtocolFactory)
class SocketFactory:
    """Builds a :class:`~twisted_net.wire.protocol.SocketProtocol` per connection; usable with any port or endpoint of
    any Twisted app.

    :param welcome: called with the protocol of an admitted connection, before it runs; returns its user.
    :param reactor: provides ``IReactorTime``.
    :param limits: who may enter, how fast, for how long.
    :param watcher: told of limits that were met, or None.
    :param journal: called with an `Ended` for each admitted connection, after its user has heard of the end; or None.
    :param highWaterMark: for each connection, bytes.
    """

    _log = Logger()

    def __init__(
        self,
        welcome: Callable[[SocketProtocol], IConnectionUser],
        reactor: IReactorTime,
        *,
        limits: Limits = NO_LIMITS,
        watcher: Watcher | None = None,
        journal: Callable[[Ended], object] | None = None,
        highWaterMark: int = HIGH_WATER_MARK,
    ) -> None:
        self._welcome = welcome
        self.reactor = reactor
        self.watcher = watcher
        self.journal = journal
        self.highWaterMark = highWaterMark
        #: ``accepted`` (admitted), ``refused``, ``waited``, ``left`` (went away while they waited), ``closed`` and
        #: ``exhausted`` (accept failed for want of room).
        self.counters = Counters("accepted", "refused", "waited", "left", "closed", "exhausted")
        #: How often each limit was met, by its name in `Limits`; ``reserve`` is the one of descriptors.
        self.limited = Counters(*LIMIT_NAMES)
        #: Who has stopped the accepting.
        self.acceptance = Pressure(self._stopAccepting, self._startAccepting)
        #: Connections that may wait for admission.
        self.waitLimit = WAIT_LIMIT
        self._limits = limits
        self._admission = Admission(limits, reactor.seconds())
        self._readTotal = _bucket(limits.readRateTotal, limits.burst, reactor)
        self._writeTotal = _bucket(limits.writeRateTotal, limits.burst, reactor)
        self._table: dict[SocketProtocol, float] = {}  # since when it lives
        self._waiting: deque[SocketProtocol] = deque()
        self._ports: dict[Any, Callable[[], None]] = {}  # with what takes their guard away
        self._serving = False
        self._stopped = False
        self._rateCall: IDelayedCall | None = None
        self._restCall: IDelayedCall | None = None
        self._drained: list[Deferred[None]] = []
        self._late: list[IDelayedCall] = []
        self._seen = 0
        self._refusals = Seldom(self._log, reactor, REFUSED)
        self._failures = Seldom(self._log, reactor, ACCEPT_FAILED)

    # -- IProtocolFactory

    def doStart(self) -> None:
        """A port begins to use this factory."""

    def doStop(self) -> None:
        """A port has stopped using this factory."""
        self._sayAll()

    def buildProtocol(self, addr: IAddress | None) -> SocketProtocol:
        """A protocol for a connection from *addr*; whether it is admitted is decided when its transport is there."""
        self._seen += 1
        limits = self._limits
        protocol = self.newProtocol(
            user=_NOBODY,
            reactor=self.reactor,
            highWaterMark=self.highWaterMark,
            limits=limits,
            readMeter=self._meter(limits.readRate, self._readTotal),
            writeMeter=self._meter(limits.writeRate, self._writeTotal),
        )
        protocol.door = self
        return protocol

    def newProtocol(self, **keywords: Any) -> SocketProtocol:
        """The protocol of the next connection; a subclass may have another."""
        return SocketProtocol(**keywords)

    def _meter(self, rate: float | None, total: TokenBucket | None) -> Meter | None:
        own = _bucket(rate, self._limits.burst, self.reactor)
        return None if own is None and total is None else Meter(own, total)

    # -- admission

    @property
    def limits(self) -> Limits:
        """Who may enter; assign another to change it (rates and deadlines apply to connections that come after)."""
        return self._limits

    @limits.setter
    def limits(self, limits: Limits) -> None:
        before, self._limits = self._limits, limits
        self._admission.limits = limits
        if (limits.readRateTotal, limits.burst) != (before.readRateTotal, before.burst):
            self._readTotal = _bucket(limits.readRateTotal, limits.burst, self.reactor)
        if (limits.writeRateTotal, limits.burst) != (before.writeRateTotal, before.burst):
            self._writeTotal = _bucket(limits.writeRateTotal, limits.burst, self.reactor)
        self._stopWaitingForRate()
        self._review()

    def admit(self, protocol: SocketProtocol) -> bool:
        """Decide on a connection whose transport has just arrived; True when it may run now."""
        skt = layers.socketOf(protocol.transport)
        who = layers.credentials(skt)
        uid = None if who is None else who.uid
        protocol.peerKey = peerKey(protocol.getPeer(), self._limits.peerPrefix, uid)
        if self._stopped:
            self._refuse(protocol, None)
            return False
        if skt is not None and layers.descriptorsLeft(skt) < self._limits.reserve:
            self._refuse(protocol, "reserve")
            return False
        if self.acceptance.paused:
            owners = self.acceptance.owners
            self._wait(protocol, next((limit for owner, limit in _PAUSING.items() if owner in owners), None))
            return False
        name = self._admission.ask(protocol.peerKey, self.reactor.seconds())
        if name is None:
            return self._enter(protocol)
        if self._limits.mode == "wait":
            self._wait(protocol, name)
        else:
            self._refuse(protocol, name)
        return False

    def _enter(self, protocol: SocketProtocol) -> bool:
        self._admission.enter(protocol.peerKey)
        self._table[protocol] = self.reactor.seconds()
        self.counters.add("accepted")
        try:
            protocol.user = self._welcome(protocol)
        except Exception as error:
            self._log.failure("who welcomes connections raised; the connection is closed")
            protocol.error = error
            self._close(protocol, Failure(error))
            return False
        if self._limits.mode == "wait" and self._full():
            self.acceptance.pause("connections")
        return True

    def _full(self) -> bool:
        most = self._limits.connections
        return most is not None and len(self._table) >= most

    def _review(self) -> None:
        # There may be room now, or less of it.
        if self._limits.mode == "wait" and self._full():
            self.acceptance.pause("connections")
        else:
            self.acceptance.resume("connections")
        self._serveWaiting()

    def _wait(self, protocol: SocketProtocol, name: str | None) -> None:
        if len(self._waiting) >= self.waitLimit:
            self._letGoneGo()
        if len(self._waiting) >= self.waitLimit:
            self._refuse(protocol, name or "connections")
            return
        protocol.transport.pauseProducing()
        self._waiting.append(protocol)
        self.counters.add("waited")
        if name is not None:
            self._tell(name, protocol, "waits")
            self._holdBack(name)

    def _holdBack(self, name: str) -> None:
        if name == "connections":
            self.acceptance.pause("connections")
        elif name == "acceptRate" and self._rateCall is None:
            self.acceptance.pause("rate")
            self._rateCall = self.reactor.callLater(self._admission.wait(self.reactor.seconds()), self._rateAllows)

    def _rateAllows(self) -> None:
        self._rateCall = None
        self.acceptance.resume("rate")

    def _stopWaitingForRate(self) -> None:
        call, self._rateCall = self._rateCall, None
        if call is not None:
            call.cancel()
            self.acceptance.resume("rate")

    def _letGoneGo(self) -> None:
        for protocol in [one for one in self._waiting if _gone(one.transport)]:
            self._letGo(protocol)

    def _letGo(self, protocol: SocketProtocol) -> None:
        self._waiting.remove(protocol)
        self.counters.add("left")
        self._close(protocol, Failure(ConnectionDone("The client left while it waited for admission.")))

    def _refuse(self, protocol: SocketProtocol, name: str | None) -> None:
        self.counters.add("refused")
        if name is not None:
            self._tell(name, protocol, "refused")
            self._refusals.warn(name=name, living=len(self._table), refused=self.counters["refused"])
        self._close(
            protocol,
            Failure(NetError(f"refused: {name or 'the server is stopping'}", code="ECONNREFUSED", fault="limit")),
        )

    def _close(self, protocol: SocketProtocol, reason: Failure) -> None:
        transport = protocol.transport
        layers.silence(transport)
        if not layers.isTls(transport):
            layers.drop(transport, reason)
            return
        # TLS is still in its own makeConnection and could not bear to lose its transport there.  But the descriptor is
        # given back now: a port that is short of them may accept a hundred more before the next turn.
        layers.relinquish(transport)
        self.reactor.callLater(0, layers.drop, transport, reason)

    def limitPassed(self, name: str) -> None:
        """A connection met a limit; called by the protocol."""
        self.limited.add(name)

    def _tell(self, name: str, protocol: SocketProtocol, action: str) -> None:
        self.limited.add(name)
        if self.watcher is not None:
            try:
                self.watcher.limitPassed(name, Address.fromTwisted(protocol.getPeer()), action)
            except Exception:
                self._log.failure("the watcher of limits raised")

    def leave(self, protocol: SocketProtocol) -> None:
        """A connection is gone; called by the protocol."""
        since = self._table.pop(protocol, None)
        if since is not None:
            self._admission.leave(protocol.peerKey)
            self.counters.add("closed")
            if self.journal is not None:
                self._record(self.journal, protocol, since)
            self._review()
        elif protocol in self._waiting:
            self._waiting.remove(protocol)
            self.counters.add("left")
        if not self._table:
            self._tellDrained()

    def _record(self, journal: Callable[[Ended], object], protocol: SocketProtocol, since: float) -> None:
        try:
            journal(
                Ended(
                    peer=Address.fromTwisted(protocol.getPeer()),
                    bytesRead=protocol.bytesRead,
                    bytesWritten=protocol.bytesWritten,
                    seconds=self.reactor.seconds() - since,
                    error=protocol.error,
                )
            )
        except Exception:
            self._log.failure("the journal of connections raised")

    def _serveWaiting(self) -> None:
        if self._serving:
            return
        self._serving = True
        try:
            passed = 0
            while passed < len(self._waiting) and not self.acceptance.paused:
                protocol = self._waiting[passed]
                if _gone(protocol.transport):
                    self._letGo(protocol)
                    continue
                name = self._admission.ask(protocol.peerKey, self.reactor.seconds())
                if name is None:
                    del self._waiting[passed]
                    if self._enter(protocol):
                        protocol.transport.resumeProducing()
                        protocol.connectionMade()
                    passed = 0  # user's code ran: those who were passed may have room now
                elif self._limits.mode == "refuse":
                    del self._waiting[passed]
                    self._refuse(protocol, name)
                elif name == "perPeer":
                    passed += 1  # waits for one of its own to leave; others may pass
                else:
                    self._holdBack(name)
        finally:
            self._serving = False

    # -- the ports

    def adopt(self, port: Any) -> None:
        """Be told of a listening port: it is paused with `acceptance` from now on, and guarded against a spinning
        accept.

        :param port: with ``port`` (Twisted's own), ``canPause``, ``pauseProducing`` and ``resumeProducing``, as
            ``listen`` returns it.
        """
        self._ports[port] = guard(port.port, self)
        if self.acceptance.paused and port.canPause:
            port.pauseProducing()

    def disown(self, port: Any) -> None:
        """The port has stopped, or is about to.  Harmless when it is not one of ours."""
        release = self._ports.pop(port, None)
        if release is not None:
            release()
        if not self._ports:
            self._stopResting()
            self._sayAll()

    def _stopAccepting(self) -> None:
        for port in self._ports:
            if port.canPause:
                port.pauseProducing()

    def _startAccepting(self) -> None:
        for port in self._ports:
            if port.canPause:
                port.resumeProducing()
        self._serveWaiting()

    def acceptFailed(self) -> None:
        """The system has no room for another connection: rest, instead of being asked again at once."""
        self.counters.add("exhausted")
        if self._restCall is None:
            self.acceptance.pause("exhausted")
            self._restCall = self.reactor.callLater(REST_AFTER_FAILED_ACCEPT, self._rested)
        self._failures.warn(living=len(self._table))

    def _rested(self) -> None:
        self._restCall = None
        self.acceptance.resume("exhausted")

    def _stopResting(self) -> None:
        call, self._restCall = self._restCall, None
        if call is not None:
            call.cancel()
            self.acceptance.resume("exhausted")

    def _sayAll(self) -> None:
        self._refusals.stop()
        self._failures.stop()

    @property
    def seen(self) -> int:
        """Connections that a port has handed over so far."""
        return self._seen

    # -- the living

    def __len__(self) -> int:
        return len(self._table)

    def __iter__(self) -> Iterator[SocketProtocol]:
        return iter(tuple(self._table))

    @property
    def waiting(self) -> int:
        """Connections that wait for admission."""
        return len(self._waiting)

    def stop(self) -> None:
        """Admit nobody any more; those who wait are refused.  Harmless when done before."""
        self._stopped = True
        while self._waiting:
            self._refuse(self._waiting.popleft(), None)
        self._stopWaitingForRate()
        self._stopResting()
        self._sayAll()

    def start(self) -> None:
        """Admit again, after `stop`."""
        self._stopped = False

    def drain(self, seconds: float | None = None) -> Deferred[None]:
        """Stop admitting and wait until the last connection has ended.

        :param seconds: after this time those that are left are aborted; None waits for ever.
        :return: fires with None when none is left.
        """
        self.stop()
        done: Deferred[None] = Deferred()
        if not self._table:
            done.callback(None)
            return done
        self._drained.append(done)
        if seconds is not None:
            self._late.append(self.reactor.callLater(seconds, self.abortAll))
        return done

    def abortAll(self) -> None:
        """End every living connection at once, with RST."""
        for protocol in self:
            protocol.abort(AbortedError("the server is shutting down and its grace time is over", fault="user"))

    def _tellDrained(self) -> None:
        waiting, self._drained = self._drained, []
        late, self._late = self._late, []
        for call in late:
            if call.active():
                call.cancel()
        for done in waiting:
            done.callback(None)


def guard(port: Any, factory: SocketFactory) -> Callable[[], None]:
    """Keep *port* from spinning when there is no room for another connection.

    :param port: Twisted's own; nothing is done to one that is no descriptor.
    :param factory: the one that is listening there, or that stands within the one that is.
    :return: takes the guard away.
    """
    skt = getattr(port, "socket", None)
    if skt is None or not IReadDescriptor.providedBy(port):
        return _nothing
    accept = port.doRead
    failed = False

    def doRead() -> None:
        nonlocal failed
        if not layers.hasRoom(skt):
            factory.acceptFailed()
            return
        before = factory.seen
        accept()
        if factory.seen != before or skt.fileno() < 0 or not layers.poll(skt, select.POLLIN):
            failed = False
        elif failed:
            factory.acceptFailed()
        else:
            # Once may be chance: another process that shares the socket was faster, and then somebody new came.
            failed = True

    port.doRead = doRead  # type: ignore[method-assign]

    def release() -> None:
        # It refers to the port that it sits on: a circle that would wait for the garbage collector.
        del port.doRead

    return release


def _nothing() -> None:
    """There is nothing to take away."""


def _gone(transport: Any) -> bool:
    """Whether the client of an unread connection has left for good: reset, or closed with nothing left to read."""
    skt = layers.socketOf(transport)
    if skt is None:
        return False
    events = layers.poll(skt)
    if not events or events & select.POLLERR:
        return bool(events)
    try:
        return not skt.recv(1, socket.MSG_PEEK)
    except OSError:
        return True


def _bucket(rate: float | None, burst: float | None, reactor: IReactorTime) -> TokenBucket | None:
    return None if rate is None else TokenBucket(rate, burst, reactor.seconds())
