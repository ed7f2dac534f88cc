"""
What lies under a transport: layers, down to the one that owns the descriptor.

What a protocol is given as its transport may be a stack. Twisted builds it in two ways::

    wrapped      protocol -> TLSMemoryBIOProtocol -> ... -> tcp.Connection       endpoints, listenSSL, haproxy, policies
    startTLS()   protocol -> tcp.Connection -> (its .protocol is a TLSMemoryBIOProtocol) -> the same tcp.Connection

In the first, every layer is a :class:`~twisted.protocols.policies.ProtocolWrapper`, whose attribute ``transport`` is
the layer below it. In the second, the connection stays what it was, writes into the TLS protocol that it was given, and
says by ``ISSLTransport`` that it does so.

Whether TLS is there is asked of interfaces, never of classes: ``TLSMemoryBIOProtocol`` declares ``INegotiated``, which
is an ``ISSLTransport``, and ``startTLS`` adds ``ISSLTransport`` to the connection. So nothing of TLS is imported here
until a TLS connection is there, and pyOpenSSL (the extra ``tls``) may be missing.

Beside the questions stand the three ways to end that stock transports do not offer: to fall silent; to close with FIN
what is not yet sent (``abortConnection`` sends RST); and to half-close under TLS (``loseWriteConnection`` would reach
past it to the socket: FIN without close_notify, which a TLS peer must take for an attack; RFC 8446, 6.1).

What is asked of the layer at the bottom is an :class:`~twisted_net.interfaces.IExactTransport`: what some reactors'
transports are themselves, and what :class:`Stock` makes of Twisted's own, by reaching into them. Nothing else does.
"""

from __future__ import annotations

import errno
import os
import resource
import select
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, NamedTuple, cast

from twisted.internet.abstract import FileDescriptor
from twisted.internet.interfaces import (
    IHalfCloseableProtocol,
    IHandshakeListener,
    INegotiated,
    IPullProducer,
    ISSLTransport,
)
from twisted.internet.tcp import Connection
from twisted.protocols.policies import ProtocolWrapper
from twisted.python.failure import Failure
from zope.interface import alsoProvides, implementer

from twisted_net.interfaces import IExactTransport, ISimulatedSocket

__all__ = [
    "Credentials",
    "Stock",
    "awaitHandshake",
    "below",
    "credentials",
    "descriptorsLeft",
    "drop",
    "endWriting",
    "endWritingNow",
    "exact",
    "hasRoom",
    "isClosing",
    "isNotified",
    "isReset",
    "isTls",
    "lossErrno",
    "passHalfClose",
    "poll",
    "relinquish",
    "silence",
    "socketOf",
]


def below(transport: Any) -> Any:
    """
    Return the transport that owns the descriptor: ``transport`` itself when it is no layer on another one.

    After ``startTLS`` that is the connection, as before it.
    """
    while isinstance(transport, ProtocolWrapper) and transport.transport is not None:
        transport = transport.transport
    return transport


def socketOf(transport: Any) -> socket.socket | None:
    """
    Return the socket at the bottom, for looking at it and for its options; closing it is the transport's business.

    ``None`` where there is none: a transport that stands on something else, or one whose connection is gone.
    """
    skt: Any = getattr(below(transport), "socket", None)
    if ISimulatedSocket.providedBy(skt):
        return cast(socket.socket, skt)  # it has the same methods
    return skt if isinstance(skt, socket.socket) else None


def poll(skt: Any, events: int = 0) -> int:
    """
    Return what poll(2) reports of a socket, or of a descriptor, at once: of ``events``, and of ``POLLERR`` and
    ``POLLHUP`` unasked.
    """
    if ISimulatedSocket.providedBy(skt):
        mask: int = skt.poll()
        return mask & (events | select.POLLERR | select.POLLHUP)
    poller = select.poll()
    poller.register(skt, events)
    return sum(mask for _, mask in poller.poll(0))


def descriptorsLeft(skt: Any) -> int:
    """
    Return how many descriptors this process can still open at most, told by a socket that it was just given.

    Descriptors are given lowest first (open(2)): all below the socket's are in use, and only those above it, up to the
    soft limit (getrlimit(2): ``RLIMIT_NOFILE`` is one more than the highest), can be free. The fuller the table, the
    closer the answer: with one ``accept`` it is known, without counting, when the last ones are being given out.
    """
    if ISimulatedSocket.providedBy(skt):
        left: int = skt.descriptorsLeft()
        return left
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft - skt.fileno() - 1


class Credentials(NamedTuple):
    """Who is at the other end of a UNIX socket (unix(7): SO_PEERCRED)."""

    pid: int
    uid: int
    gid: int


def credentials(skt: socket.socket | None) -> Credentials | None:
    """
    Return who is at the other end of a UNIX socket; ``None`` for others, and where the system does not tell.
    """
    if skt is None or skt.family != socket.AF_UNIX or not hasattr(socket, "SO_PEERCRED"):
        return None
    packed = skt.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return Credentials(*struct.unpack("3i", packed))


def hasRoom(skt: Any) -> bool:
    """
    Say whether the program that ``skt`` belongs to can open one more descriptor, by trying to.
    """
    if ISimulatedSocket.providedBy(skt):
        return descriptorsLeft(skt) > 0
    try:
        os.close(os.dup(skt.fileno()))
    except OSError:
        return False
    return True


def isTls(transport: Any) -> bool:
    """Say whether bytes written to ``transport`` are encrypted on their way, by any layer under it."""
    return any(ISSLTransport.providedBy(layer) for layer in _walk(transport))


def awaitHandshake(transport: Any, listener: IHandshakeListener) -> bool:
    """
    Have ``listener.handshakeCompleted`` called when TLS under ``transport`` is ready to carry bytes.

    TLS tells the protocol directly above it, and only that. Where another layer stands between, which knows nothing of
    handshakes, it is made to pass the news on.

    :return: False when there is nothing to wait for: no TLS, or its handshake is over (both ends' Finished is known,
        RFC 8446, 4.4.4).
    """
    tls = _tlsOf(transport)
    if tls is None:
        return False
    handle = tls.getHandle()
    if handle.get_finished() is not None and handle.get_peer_finished() is not None:
        return False
    above = tls.wrappedProtocol
    if not IHandshakeListener.providedBy(above):
        above.handshakeCompleted = listener.handshakeCompleted
        alsoProvides(above, IHandshakeListener)
    return True


def passHalfClose(transport: Any, protocol: IHalfCloseableProtocol) -> None:
    """
    See to it that a client endpoint's wrapper tells ``protocol``, the one it wraps, of half-close.

    The wrapper means to pass on the interfaces of its protocol, but each replaces the one before: of a protocol that
    also listens for handshakes, half-close is forgotten, and the peer's FIN would be the end of the connection.
    """
    upper = getattr(below(transport), "protocol", None)
    if (
        upper is not protocol
        and hasattr(type(upper), "readConnectionLost")
        and not IHalfCloseableProtocol.providedBy(upper)
    ):
        alsoProvides(upper, IHalfCloseableProtocol)


def isClosing(transport: Any) -> bool:
    """Say whether TLS under ``transport`` is closing or closed, and drops what is written from now on."""
    tls = _tlsOf(transport)
    return bool(below(transport).disconnecting or (tls is not None and tls.disconnecting))


def isNotified(transport: Any) -> bool:
    """
    Say whether the peer's close_notify has come: under TLS that is its end, however the socket goes (RFC 8446, 6.1).

    TLS knows until its protocol's ``connectionLost`` has returned; after ``startTLS`` the connection forgets it before.
    """
    tls = _tlsOf(transport)
    handle = None if tls is None else tls.getHandle()
    if handle is None:
        return False
    from OpenSSL.SSL import RECEIVED_SHUTDOWN

    return bool(handle.get_shutdown() & RECEIVED_SHUTDOWN)


def isReset(transport: Any) -> bool:
    """
    Say whether the kernel knows that the connection was reset, or has failed otherwise, while nobody read from it.

    A reactor reports nothing of a descriptor that it neither reads nor writes; poll(2) does (``POLLERR``).
    """
    skt = socketOf(transport)
    return skt is not None and bool(poll(skt) & select.POLLERR)


def exact(transport: Any) -> Any:
    """
    Return the :class:`~twisted_net.interfaces.IExactTransport` at the bottom of ``transport``; ``None`` where there is
    no descriptor of the reactor's.
    """
    bottom = below(transport)
    if hasattr(bottom, "dropConnection"):
        return bottom
    return Stock(bottom) if isinstance(bottom, FileDescriptor) else None


@implementer(IExactTransport)
class Stock:
    """What a descriptor of Twisted's own reactors does not offer, taken from it."""

    __slots__ = ("descriptor", "wasReset")

    lossErrno: None = None

    def __init__(self, descriptor: Any) -> None:
        self.descriptor = descriptor
        #: `sendNow` has met the peer's RST: what a reader meets now looks like FIN (the kernel tells an error once).
        self.wasReset = False

    @property
    def disconnecting(self) -> bool:
        """Whether ``loseConnection`` was called."""
        return bool(self.descriptor.disconnecting)

    @property
    def ending(self) -> bool:
        """Whether that, or ``loseWriteConnection``, was called."""
        return bool(self.descriptor.disconnecting or self.descriptor._writeDisconnecting)

    def sendNow(self, data: bytes) -> int:
        """
        Hand ``data`` to the kernel at once, past the descriptor's own buffer, when that is empty.

        A stock descriptor gathers what is written and sends it when its reactor next says that there is room: one more
        event of the reactor's for every answer, though there nearly always is room.

        A connection that turns out to be lost counts as one without room: the descriptor finds out in its own way.
        """
        descriptor = self.descriptor
        size = len(data)
        if not (
            descriptor.dataBuffer
            or descriptor._tempDataBuffer
            or descriptor.disconnecting
            or descriptor._writeDisconnecting
        ):
            taken = self._send(data)
            if taken == size:
                return 0
            if taken > 0:
                data = data[taken:]
                size -= taken
        # The descriptor's own method: after startTLS, the connection's would encrypt.
        FileDescriptor.write(descriptor, data)
        return size

    def _send(self, data: bytes) -> int:
        descriptor = self.descriptor
        if type(descriptor).writeSomeData is not Connection.writeSomeData:
            taken = descriptor.writeSomeData(data)
            return taken if isinstance(taken, int) else 0
        try:
            # As Connection.writeSomeData does, which does not say what it was that has failed.
            sent: int = descriptor.socket.send(memoryview(data)[: descriptor.SEND_LIMIT])
        except OSError as error:
            self.wasReset = error.errno == errno.ECONNRESET
            return 0
        return sent

    def tellDrained(self, producer: IPullProducer) -> None:
        """As the descriptor does with a pull producer."""
        # The descriptor's own method: after startTLS, the connection's would give the producer to TLS, which polls it.
        FileDescriptor.registerProducer(self.descriptor, producer, False)

    def tellDrainedNoMore(self) -> None:
        """Take that back."""
        FileDescriptor.unregisterProducer(self.descriptor)

    def nudge(self) -> None:
        """Nothing while bytes wait; one empty ``send`` when they have gone already."""
        self.descriptor.startWriting()

    def silence(self) -> None:
        """Have the reactor watch neither half."""
        self.descriptor.stopReading()
        self.descriptor.stopWriting()

    def finishWriting(self) -> None:
        """shutdown(2)."""
        self.descriptor.stopWriting()  # after the FIN every send fails, even an empty one
        with suppress(OSError):  # the peer has closed: nobody waits for the FIN
            self.descriptor.socket.shutdown(socket.SHUT_WR)

    def dropConnection(self, reason: Failure) -> None:
        """What the reactor does with a descriptor that is lost."""
        self.descriptor.connectionLost(reason)

    def relinquish(self) -> None:
        """close(2)."""
        self.descriptor.connected = False
        self.descriptor.socket.close()


def silence(transport: Any) -> None:
    """
    Read and write nothing from now on, and tell nobody.

    The connection stays in the hands of the caller, who has to :func:`drop` it: its end is not noticed any more.
    A transport that is no descriptor of the reactor's only stops reading.
    """
    bottom = exact(transport)
    if bottom is not None:
        bottom.silence()
    else:
        transport.pauseProducing()


def drop(transport: Any, reason: Failure) -> None:
    """
    Close the connection now: what is unsent is dropped, and the peer sees FIN, or RST when bytes lay unread in the
    kernel (RFC 1122, 4.2.2.13).

    Harmless when the connection is gone already. A transport that is no descriptor of the reactor's is aborted, or
    where it cannot be, closed.

    :param reason: handed to the protocol's ``connectionLost``, which runs before this returns. TLS, which misses the
        peer's close_notify, puts ``ConnectionLost`` in its place; what is no descriptor gives a reason of its own.
    """
    bottom = exact(transport)
    if bottom is not None:
        bottom.dropConnection(reason)
    elif hasattr(transport, "abortConnection"):
        transport.abortConnection()
    else:
        transport.loseConnection()


def relinquish(transport: Any) -> None:
    """
    Give the descriptor back as soon as can be, and tell nobody; to be followed by :func:`drop`.

    Nothing happens where there is none.
    """
    bottom = exact(transport)
    if bottom is not None and socketOf(transport) is not None:
        bottom.relinquish()


def lossErrno(transport: Any) -> int | None:
    """Return the errno of what failed when ``transport`` was lost, where it can tell."""
    bottom = exact(transport)
    number: int | None = None if bottom is None else bottom.lossErrno
    return number


def endWriting(transport: Any) -> bool:
    """
    Half-close: tell the peer that nothing more will come, and go on reading.

    Everything written must have left the layers above the descriptor. Without TLS that is FIN; under TLS it is
    close_notify, and the FIN follows when both ends have sent theirs. What has no half to close is closed whole:
    TLS whose handshake is not over, and transports that cannot half-close at all.

    :return: True when it is done by now and nobody will call the protocol's ``writeConnectionLost``; False when the
        transport will call it.
    """
    tls = _tlsOf(transport)
    if tls is not None:
        _notify(tls, transport)
        return True
    if not hasattr(transport, "loseWriteConnection"):
        transport.loseConnection()
        return True
    transport.loseWriteConnection()
    # A wrapper passes the request down, but not the answer up.
    return not IHalfCloseableProtocol.providedBy(getattr(below(transport), "protocol", None))


def endWritingNow(transport: Any) -> bool:
    """
    As :func:`endWriting`, at once, for a transport that is known to have nothing left to write; FIN whatever lies over
    the descriptor.

    ``loseWriteConnection`` waits for one more turn, and then tries to send nothing. On a UNIX socket whose peer has
    closed meanwhile that fails (``EPIPE``), and what the peer had sent before is lost with the connection.

    :return: False, and nothing is done, when there is no descriptor of the reactor's.
    """
    bottom = exact(transport)
    if bottom is None or socketOf(transport) is None:
        return False
    bottom.finishWriting()
    return True


def _walk(transport: Any) -> Iterator[Any]:
    """Yield ``transport`` and every layer under it; a wrapper that is not connected yet is the last."""
    while transport is not None:
        yield transport
        transport = transport.transport if isinstance(transport, ProtocolWrapper) else None


def _tlsOf(transport: Any) -> Any:
    """Return the uppermost ``TLSMemoryBIOProtocol`` (or one like it) under ``transport``, or ``None``."""
    for layer in _walk(transport):
        for candidate in (layer, getattr(layer, "protocol", None)):
            if isinstance(candidate, ProtocolWrapper) and INegotiated.implementedBy(type(candidate)):
                return candidate
    return None


def _notify(tls: Any, transport: Any) -> None:
    """Send close_notify (RFC 8446, 6.1), by the connection of OpenSSL that ``ISystemHandle`` gives."""
    from OpenSSL.SSL import SENT_SHUTDOWN, Error

    handle = tls.getHandle()
    if handle.get_shutdown() & SENT_SHUTDOWN:
        return
    try:
        handle.shutdown()
    except Error:  # the handshake is not over
        transport.loseConnection()
    else:
        tls.transport.write(handle.bio_read(2**15))
