"""
Several addresses, one connection: attempts that race (RFC 8305, "Happy Eyeballs").

A name may have several addresses, and some of them may be dead. Tried one after the other each of those costs a minute
or two; tried all at once they cost the servers. So the starts are staggered: the next attempt starts 250 ms after the
last one, or at once when one has failed. The first connection wins, and the others are stopped. Only the winner asks
the factory for a protocol; a loser is closed without a byte, though its server may have seen it come and go.

*Nothing stays on the byte's road.* Endpoints put a wrapper around the protocol for the whole life of a connection, to
know when it is connected. Here ``connectTCP`` and ``connectUNIX`` are used, whose transports call their protocol
directly. To know the moment, a transport is given not the protocol but an :class:`Introduction`, which makes the two
known to each other, leaves its own place on the transport to the protocol, and is gone.

*Whose clock.* Twisted's own timeout for an attempt is set out of reach. The time for the whole is the caller's.

*A UNIX server with a full queue* makes connect(2) answer ``EAGAIN``, and nothing will ever tell when there is room.
Twisted takes that for "in progress": one reactor then gives up without a reason, another asks again without a pause,
at 100 % CPU. Here it is asked again every 50 ms, and so waits for room as a blocking connect(2) does.

*A connection to itself* is what TCP makes of an attempt whose own port happens to be the one it connects to (RFC 9293,
3.5, simultaneous open). Whoever waits for a local server to come back meets it some day. It counts as refused.
"""

from __future__ import annotations

import errno
import socket
from collections import deque
from collections.abc import Callable, Iterable
from functools import cache, partial
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.error import NoProtocol
from twisted.internet.interfaces import (
    IAddress,
    IConnector,
    IDelayedCall,
    ILoggingContext,
    IProtocol,
    IProtocolFactory,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_net.address import Address
from twisted_net.errors import EndError, NetError, RefusedError
from twisted_net.interfaces import ISimulatedSocket
from twisted_net.wire import layers
from twisted_net.wire.options import SocketOptions, setReuseAddress
from twisted_net.wire.reasons import translate

__all__ = ["Attempt", "Introduction", "Race", "notConnected"]

#: Seconds between the starts of two attempts: "Connection Attempt Delay", RFC 8305, section 8.
ATTEMPT_DELAY: Final = 0.25

#: Seconds between two attempts to get into the full queue of a UNIX server.
QUEUE_DELAY: Final = 0.05

#: Seconds: Twisted's timeout for an attempt, which must never be the first to fire.
NEVER: Final = 365 * 24 * 3600.0

#: These tell more of this machine than of the server: any other reason is the better one to report.
LOCAL_CODES: Final = frozenset({"EADDRNOTAVAIL", "EAFNOSUPPORT", "EHOSTUNREACH", "ENETUNREACH"})


def notConnected(reason: Failure | Exception, where: object) -> NetError:
    """Return the error for an attempt to connect to ``where`` that ended with ``reason``, whatever that is."""
    error = translate(reason, address=where, syscall="connect")
    if error is None:
        error = EndError(
            f"connect {where}: the peer ended the connection before it was ready; look into its log",
            address=where,
            syscall="connect",
        )
    return error


class Race:
    """
    All attempts of one dialling, of which at most one wins.

    :param reactor: provides ``IReactorTCP``, ``IReactorUNIX``, ``IReactorTime``.
    :param factory: started once and stopped once, whatever the number of attempts.
    :param addresses: in the order in which they are tried.
    :param localAddress: IP address and port to connect from.
    :param options: set on each socket before it connects.
    """

    def __init__(
        self,
        reactor: Any,
        factory: IProtocolFactory,
        addresses: Iterable[Address],
        localAddress: tuple[str, int] | None = None,
        options: SocketOptions | None = None,
    ) -> None:
        self.reactor = reactor
        self.localAddress = localAddress
        self.options = options
        self._factory = factory
        self._done: Deferred[IProtocol] = Deferred(lambda done: self._end())
        self._waiting = deque(addresses)
        self._running: set[Attempt] = set()
        self._timer: IDelayedCall | None = None
        self._errors: list[NetError] = []
        self._won = False

    def run(self) -> Deferred[IProtocol]:
        """
        Start.

        :returns: fires with what the factory built, once its ``makeConnection`` has returned; fails with
            :class:`~twisted_net.errors.NetError`. Cancelling it ends every attempt.
        """
        self._factory.doStart()
        self._advance()
        return self._done

    def _advance(self) -> None:
        """Start the next attempt; or lose, when there is none left and none running."""
        self._stopTimer()
        while self._waiting:
            attempt = Attempt(self, self._waiting.popleft())
            try:
                attempt.start()
            except Exception as error:
                self._errors.append(notConnected(error, attempt.address))
                continue
            self._running.add(attempt)
            if self._waiting:
                self._setTimer(ATTEMPT_DELAY)
            return
        if not self._running:
            self._lose(_mostTelling(self._errors))

    def failed(self, attempt: Attempt, reason: Failure) -> None:
        """News of an attempt: it has come to nothing."""
        if attempt not in self._running:
            return  # it was stopped from here
        self._running.remove(attempt)
        if attempt.address.family == "unix" and getattr(reason.value, "osError", None) == errno.EBUSY:
            self._waiting.append(attempt.address)
            self._setTimer(QUEUE_DELAY)
            return
        self._errors.append(notConnected(reason, attempt.address))
        self._advance()

    def connected(self, attempt: Attempt, peer: IAddress, host: IAddress) -> Introduction | None:
        """News of an attempt: it has a connection. ``None`` closes that again."""
        if peer == host:
            self.failed(attempt, Failure(_toItself(attempt.address)))
            return None
        self._running.remove(attempt)
        self._halt()
        try:
            protocol = self._factory.buildProtocol(peer)
            if protocol is None:
                raise NoProtocol
        except Exception as error:
            self._lose(notConnected(error, attempt.address))
            return None
        if self._done.called:  # buildProtocol has cancelled all this
            return None
        self._won = True
        attempt.won(self._factory)
        return Introduction(protocol, self)

    def introduced(self, protocol: IProtocol, transport: Any, error: Exception | None) -> None:
        """News of the winner: ``protocol`` was connected, or raised ``error`` as it was."""
        if error is not None:
            transport.abortConnection()
            self._lose(notConnected(error, transport.getPeer()))
        elif self._done.called:  # makeConnection has cancelled all this
            transport.abortConnection()
        else:
            self._done.callback(protocol)

    def _lose(self, error: NetError) -> None:
        if not self._done.called:
            self._end()
            self._done.errback(error)

    def _end(self) -> None:
        """There is no winner, or nobody wants it any more."""
        self._halt()
        if not self._won:  # a winner's attempt does that when the connection is over
            self._factory.doStop()

    def _halt(self) -> None:
        """Stop everything that has not won."""
        self._stopTimer()
        self._waiting.clear()
        running, self._running = self._running, set()
        for attempt in running:
            attempt.stop()

    def _setTimer(self, seconds: float) -> None:
        self._timer = self.reactor.callLater(seconds, self._due)

    def _due(self) -> None:
        self._timer = None
        self._advance()

    def _stopTimer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()


class Attempt:
    """One attempt at one address: what ``connectTCP`` and ``connectUNIX`` take for a ClientFactory."""

    __slots__ = ("_connector", "_race", "_started", "address")

    def __init__(self, race: Race, address: Address) -> None:
        self.address = address
        self._connector: Any = None
        self._race: Race | None = race
        self._started: IProtocolFactory | None = None

    def start(self) -> None:
        """Begin; on an exception nothing is left running."""
        race, address = self._race, self.address
        assert race is not None
        if address.port is None:
            self._connector = race.reactor.connectUNIX(address.address, self, timeout=NEVER)
        else:
            self._connector = race.reactor.connectTCP(address.address, address.port, self, timeout=NEVER)
        try:
            # Twisted has made the socket, and connects it on its next turn.
            _prepare(self._connector.transport, race.localAddress, race.options)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End it; nobody hears of that."""
        self._connector.stopConnecting()

    def won(self, factory: IProtocolFactory) -> None:
        """The race is over, and is forgotten: ``factory`` is to be stopped when the connection is over."""
        self._started = factory
        self._race = None

    # What Twisted calls

    def doStart(self) -> None:
        """The attempt begins. The user's factory was started with the race."""

    def doStop(self) -> None:
        """The attempt has failed, or the connection is over."""
        if self._started is not None:
            self._started.doStop()

    def startedConnecting(self, connector: IConnector) -> None:
        """The attempt has begun."""

    def buildProtocol(self, addr: IAddress) -> Introduction | None:
        """There is a connection."""
        assert self._race is not None, "an attempt connects once"
        return self._race.connected(self, addr, self._connector.transport.getHost())

    def clientConnectionFailed(self, connector: IConnector, reason: Failure) -> None:
        """There will be none."""
        assert self._race is not None, "an attempt that failed has not won"
        self._race.failed(self, reason)

    def clientConnectionLost(self, connector: IConnector, reason: Failure) -> None:
        """The connection is over; its protocol knows."""


@implementer(ILoggingContext)
class Introduction:
    """A transport's protocol for one call, in which the transport and its real protocol come to know each other."""

    __slots__ = ("_protocol", "_race")

    def __init__(self, protocol: IProtocol, race: Race) -> None:
        self._protocol = protocol
        self._race = race

    def logPrefix(self) -> str:
        """What the transport's log lines begin with: the protocol's, as without us."""
        protocol = self._protocol
        return protocol.logPrefix() if ILoggingContext.providedBy(protocol) else type(protocol).__name__

    def makeConnection(self, transport: Any) -> None:
        """Step aside."""
        transport.protocol = self._protocol
        error = None
        try:
            self._protocol.makeConnection(transport)
        except Exception as raised:
            error = raised
        self._race.introduced(self._protocol, transport, error)


class _Impatient:
    """What makes a UNIX socket one for which connecting is never in progress (see the top of this module)."""

    __slots__ = ()

    def connect_ex(self, address: Any) -> int:
        """``EBUSY``, which connect(2) itself has no use for, when the server's queue is full."""
        return _impatient(super().connect_ex, address)  # type: ignore[misc]


@cache
def _impatientKind(kind: Any) -> Any:
    return type(f"Impatient{kind.__name__}", (_Impatient, kind), {"__slots__": ()})


def _impatient(connect: Callable[[Any], int], address: Any) -> int:
    number = connect(address)
    return errno.EBUSY if number == errno.EAGAIN else number


def _prepare(transport: Any, localAddress: tuple[str, int] | None, options: SocketOptions | None) -> None:
    """What has to be done between making a socket and connecting it."""
    skt = layers.socketOf(transport)
    if skt is None:
        return  # it could not be made: news for Twisted's next turn
    if ISimulatedSocket.providedBy(skt):
        skt.connect_ex = partial(_impatient, skt.connect_ex)  # type: ignore[method-assign]
    elif skt.family == socket.AF_UNIX:
        # Some reactors have sockets of a kind of their own.
        kind: Any = type(skt)
        skt.__class__ = _impatientKind(kind)
    setReuseAddress(transport, True)
    if options is not None:
        options.apply(transport)
    if localAddress is None:
        return
    try:
        # Not left to connectTCP, which would do it before SO_REUSEADDR is set.
        skt.bind(localAddress)
    except OSError as error:
        refusal = translate(error, address="{}:{}".format(*localAddress), syscall="bind")
        assert refusal is not None, "an OSError is no clean end"
        raise refusal from error


def _toItself(address: Address) -> NetError:
    return RefusedError(
        f"connect {address}: nobody accepts connections there (it was connected to itself); start the server",
        address=address,
        syscall="connect",
    )


def _mostTelling(errors: list[NetError]) -> NetError:
    *_, told = [error for error in errors if error.code not in LOCAL_CODES] or errors
    for error in errors:
        if error is not told:
            told.add_note(f"tried as well: {error}")
    return told
