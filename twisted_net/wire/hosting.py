"""Protocols that somebody else wrote, on our engine: with its limits, clocks, counts and drain.

Theory
======
The connection belongs to a :class:`~twisted_net.wire.protocol.SocketProtocol` as always; its user here is a `Guest`,
which plays Twisted's transport-and-protocol game with the hosted protocol.  Two ways of it:

*bare*: no rate and no idle clock is in force.  The guest gets the **real transport** and writes to it himself; we only
stand in the way of what comes in (one frame), and, when a journal wants the bytes counted, a counter stands before the
transport's ``write``.

*screened*: the guest gets a `Screen`, which provides exactly the interfaces of the transport behind it, passes on
whatever it does not know, and sends writes through the outgoing queue and pauses through the named ones (a guest's
``resumeProducing`` does not undo the pause "rate").

The guest must not notice that he is one.  So what stock transports do is done here too: a peer's FIN ends a protocol
that does not provide ``IHalfCloseableProtocol`` at once; ``readConnectionLost`` is told of a FIN and not of the end of
the connection, ``writeConnectionLost`` after ``loseWriteConnection`` and not after ``loseConnection``; the latter waits
for a registered producer, and what is written until everything is sent still goes out (not over TLS); an exception in
``dataReceived`` becomes the reason of ``connectionLost``.  What is done otherwise: a guest who raises in
``connectionMade`` is sent away (a stock port leaves his connection open); a connection that has ended both ways is
closed (twisted#5662), and its reason is ``ConnectionDone`` on every reactor; over TLS nothing is delivered after
``loseConnection``, and ``loseWriteConnection`` of a `Screen` sends close_notify (twisted#5341).

Rejected: ``policies.ProtocolWrapper``.  It hides ``IHalfCloseableProtocol``, ``IHandshakeListener`` and the transport's
interfaces.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IFileDescriptorReceiver,
    IHalfCloseableProtocol,
    IHandshakeListener,
    IProducer,
    IProtocolFactory,
    IReactorTime,
)
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import alsoProvides, directlyProvides, implementer, providedBy

from twisted_net.errors import NetError
from twisted_net.interfaces import IConnectionUser
from twisted_net.wire import layers
from twisted_net.wire.factory import Ended, SocketFactory, Watcher
from twisted_net.wire.limits import Limits
from twisted_net.wire.protocol import NO_LIMITS, SocketProtocol


def host(
    factory: IProtocolFactory,
    reactor: IReactorTime,
    *,
    limits: Limits = NO_LIMITS,
    watcher: Watcher | None = None,
    journal: Callable[[Ended], object] | None = None,
    allowHalfOpen: bool = False,
) -> HostFactory:
    """A factory to listen with, whose connections run the protocols of *factory*, under *limits*.

    :param factory: any Twisted factory; it is started and stopped with the ports, and builds a protocol per admitted
        connection.
    :param allowHalfOpen: do not end a protocol that knows nothing of half-close when its peer sends FIN: it may finish
        its answer, and has to end the connection itself (``halfOpenTimeout`` reaps those that forget).
    """
    return HostFactory(factory, reactor, limits=limits, watcher=watcher, journal=journal, allowHalfOpen=allowHalfOpen)


class HostFactory(SocketFactory):
    """See `host`."""

    def __init__(
        self,
        factory: IProtocolFactory,
        reactor: IReactorTime,
        *,
        limits: Limits,
        watcher: Watcher | None,
        journal: Callable[[Ended], object] | None,
        allowHalfOpen: bool,
    ) -> None:
        super().__init__(self._seat, reactor, limits=limits, watcher=watcher, journal=journal)
        #: The factory of the hosted protocols.
        self.hosted = factory
        self._allowHalfOpen = allowHalfOpen

    def doStart(self) -> None:
        """A port begins: the hosted factory is started with it."""
        self.hosted.doStart()

    def doStop(self) -> None:
        """A port has stopped: the hosted factory is stopped with it."""
        self.hosted.doStop()

    def newProtocol(self, **keywords: Any) -> SocketProtocol:
        """A protocol that can receive descriptors and carries no queue that nobody uses."""
        protocol = HostedProtocol(**keywords)
        limits = self.limits
        screened = (
            keywords["readMeter"] is not None
            or keywords["writeMeter"] is not None
            or limits.idleTimeout is not None
            or limits.halfOpenTimeout is not None
        )
        protocol.bare = not screened
        return protocol

    def _seat(self, protocol: SocketProtocol) -> Guest:
        return Guest(self.hosted, self._allowHalfOpen, counted=protocol.bare and self.journal is not None)


class HostedProtocol(SocketProtocol):
    """With room for the interfaces of the guest."""

    guest: Guest | None = None
    #: The transport is gone: what is reported now is no FIN.
    lost = False

    def connectionLost(self, reason: Failure) -> None:
        """The transport is gone."""
        self.lost = True
        super().connectionLost(reason)

    def handshakeCompleted(self) -> None:
        """TLS is ready; the guest may want to know."""
        super().handshakeCompleted()
        if self.guest is not None and IHandshakeListener.providedBy(self.guest.app):
            self.guest.app.handshakeCompleted()

    def fileDescriptorReceived(self, descriptor: int) -> None:
        """A descriptor came over a UNIX socket (SCM_RIGHTS); only for guests that provide
        ``IFileDescriptorReceiver``."""
        assert self.guest is not None
        self.guest.app.fileDescriptorReceived(descriptor)


@implementer(IConnectionUser)
class Guest:
    """Stands behind the connection of a hosted protocol."""

    _log = Logger()

    def __init__(self, factory: IProtocolFactory, allowHalfOpen: bool, counted: bool) -> None:
        self._factory = factory
        self._allowHalfOpen = allowHalfOpen
        self._counted = counted
        self._protocol: Any = None
        self._screen: Screen | None = None
        self._untap: Callable[[], None] | None = None
        self._raised: Exception | None = None
        #: The hosted protocol, once the connection stands.
        self.app: Any = None

    def connectionOpened(self, protocol: Any) -> None:
        """Build the guest and introduce him to his transport."""
        self._protocol = protocol
        transport = protocol.transport
        app = self._factory.buildProtocol(transport.getPeer())
        if app is None:
            protocol.drop()
            return
        self.app = app
        protocol.guest = self
        if IFileDescriptorReceiver.providedBy(app):
            alsoProvides(protocol, IFileDescriptorReceiver)
        if protocol.bare:
            if self._counted:
                self._untap = _countWrites(transport, protocol)
        else:
            transport = self._screen = Screen(protocol)
        protocol.attach(self._receive)
        app.makeConnection(transport)

    def _receive(self, data: bytes) -> None:
        # Looked up each time, as stock transports do: protocols put another method in the place of theirs.
        self.app.dataReceived(data)

    def readEnded(self) -> None:
        """FIN: told to a guest who knows what it is, the end of one who does not (as on stock transports)."""
        if self.app is None or self._protocol.lost:
            return
        known = IHalfCloseableProtocol(self.app, None)
        if known is not None:
            known.readConnectionLost()
        elif not self._allowHalfOpen:
            layers.drop(self._protocol.transport, Failure(ConnectionDone()))

    def writeEnded(self) -> None:
        """Our FIN is sent: told to a guest who has half-closed."""
        if self._screen is not None and self._screen.disconnecting:
            return
        known = IHalfCloseableProtocol(self.app, None)
        if known is not None:
            known.writeConnectionLost()

    def drained(self) -> None:
        """Producers are told by the outlet."""

    def connectionClosed(self, error: Exception | None, reason: Failure) -> None:
        """Tell the guest, with the reason that a stock transport would have given."""
        untap, self._untap = self._untap, None
        if untap is not None:
            untap()
        if self.app is None:
            return
        if self._raised is not None:
            reason = Failure(self._raised)
        elif isinstance(error, NetError) and error is self._protocol.verdict:
            reason = Failure(ConnectionAborted(str(error)))
        elif error is None and reason.type is ConnectionLost:
            # Both ends had ended in good order; what a transport says after that depends on the reactor, and on TLS.
            reason = Failure(ConnectionDone())
        self.app.connectionLost(reason)

    def limitPassed(self, name: str, action: str) -> None:
        """Guests know of no limits."""

    def raised(self, where: str, error: Exception) -> None:
        """The guest raised: logged, and the reason of his connectionLost."""
        self._raised = error
        self._log.failure("{protocol!r} raised; its connection is closed", failure=Failure(error), protocol=self.app)


def _countWrites(transport: Any, protocol: SocketProtocol) -> Callable[[], None]:
    """Count what is written to *transport* as bytes of *protocol*; returns what takes the counter away."""
    write, writeSequence = transport.write, transport.writeSequence
    outlet = protocol.outlet

    def counted(data: bytes) -> None:
        write(data)
        outlet.accepted += len(data)

    def countedSequence(data: Iterable[bytes]) -> None:
        chunks = list(data)
        before = outlet.accepted
        writeSequence(chunks)
        outlet.accepted = before + sum(map(len, chunks))  # it may have been counted by write() already

    transport.write, transport.writeSequence = counted, countedSequence

    def untap() -> None:
        # They refer to the transport that they sit on: a circle that would wait for the garbage collector.
        for name in ("write", "writeSequence"):
            transport.__dict__.pop(name, None)

    return untap


class Screen:
    """A transport in front of the transport, with exactly its interfaces.

    What is not written here is the transport's own: addresses, TLS certificates, TCP options.
    """

    def __init__(self, protocol: SocketProtocol) -> None:
        self._protocol = protocol
        self._behind = protocol.transport
        self.disconnecting = False
        self._descriptorWaits = False
        directlyProvides(self, providedBy(self._behind))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._behind, name)

    @property
    def connected(self) -> bool:
        """Whether there still is a connection."""
        return self._protocol.transport is not None

    @property
    def disconnected(self) -> bool:
        """The opposite of `connected`."""
        return self._protocol.transport is None

    def write(self, data: bytes) -> None:
        """Queue *data*; silent when the connection has ended or is gone, as on every transport."""
        outlet = self._protocol.outlet
        if self.disconnecting and outlet.producer is None and layers.isTls(self._behind):
            return  # as TLS does; other transports send what comes before they have closed
        outlet.write(data)
        if self._descriptorWaits:
            self._descriptorWaits = False
            outlet.surrender()

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """Queue the chunks in one."""
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        """Close when everything is written and a registered producer has finished."""
        self.disconnecting = True
        self._protocol.close()

    def loseWriteConnection(self) -> None:
        """Half-close when everything is written."""
        self._protocol.end()

    def abortConnection(self) -> None:
        """Drop everything, with RST."""
        self.disconnecting = True
        self._protocol.abort()

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """The outgoing queue pauses it."""
        self._protocol.outlet.registerProducer(producer, streaming)

    def unregisterProducer(self) -> None:
        """The producer has finished."""
        self._protocol.outlet.unregisterProducer()

    def pauseProducing(self) -> None:
        """Read nothing, until resumeProducing."""
        self._protocol.pause("user")

    def resumeProducing(self) -> None:
        """Read again, unless somebody else wants a pause."""
        self._protocol.resume("user")

    def stopProducing(self) -> None:
        """As loseConnection."""
        self.loseConnection()

    def startTLS(self, contextFactory: Any, normal: bool = True) -> None:
        """Encrypt from here on; what was written before goes out as it is."""
        if self.connected:
            self._protocol.startTLS(contextFactory, normal)
            directlyProvides(self, providedBy(self._behind))

    def sendFileDescriptor(self, descriptor: int) -> None:
        """Send a descriptor with the bytes that follow (SCM_RIGHTS).

        Those before it are given to the transport first, and those of the next write at once, whatever the rate: a
        UNIX transport that has more descriptors than bytes to send breaks the connection off.
        """
        self._protocol.outlet.surrender()
        self._behind.sendFileDescriptor(descriptor)
        self._descriptorWaits = True
