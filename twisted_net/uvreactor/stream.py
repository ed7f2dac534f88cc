"""
A connected stream: Twisted's transport in front, uvloop's behind.

::

    in    libuv -> uvloop's transport -> Stream.data_received -> protocol.dataReceived
    out   protocol -> Stream.write ...                the end of the callback -> uvloop's transport.write -> send(2)

One Python call in, one out. What the stock transports do in some forty, and what they promise, hangs on these ideas:

*Corking.* uvloop sends inside ``write``: eight small writes would be eight system calls. So what is written while a
callback runs is gathered, and leaves as one when it returns; what is written at any other time, in the next turn of the
loop (:meth:`Stream.settle`). That is also what makes the rest possible: bytes that are still gathered can be dropped by
``abortConnection``, follow a ``loseConnection`` that came before them, and be counted for a producer.

When somebody has asked for the next turn by ``callLater(0)``, what the callback wrote waits for it too: there is more
to come. TLS does so with every small write, and what leaves in two segments meets Nagle's algorithm and a delayed ACK
(RFC 1122, 4.2.3.2 and 4.2.3.4): 40 ms. Stock transports send after the timers' turn, always.

*One moment for everything that waits.* Stock transports act when "the buffer is empty" is found in ``doWrite``: ask a
producer for more, close, half-close. Here it is :meth:`Stream._emptied`, at the end of a settling after which uvloop
holds nothing either. uvloop's limits are (0, 0), so that ``pause_writing`` means "something is left" and
``resume_writing`` "nothing is"; neither is called while the kernel takes everything at once. uvloop is told to close
when it has nothing left, and never earlier. The FIN of a half-close is shutdown(2) by our own hand at that moment,
since uvloop says of its ``write_eof`` neither when it is done nor that it failed.

*One flag says whether a write is an ordinary one* (``_special``): not after the end, not over TLS, and not counted
for a producer. Assigning another ``write`` to the instance would spare the question, but whoever taps a transport
does that too.

*A stream begins before uvloop has it.* The protocol is told of its connection where the stock transports tell it:
while the port accepts. The socket is handed to uvloop in the next turn, unless the connection is over by then, whose
descriptor is given back at once, and unless reading is paused by then and nothing was written: then it stays with the
kernel alone until either is wanted. uvloop's transport comes one turn later (:meth:`Stream.connection_made`), and
starts to read whatever is said. Until then writes are gathered, and a pause is remembered. A paused stream that
writes may so be given one chunk that nobody wants yet: it is held, and delivered when reading is resumed. The same
goes for an end.

*What protocols raise* is caught here, logged in their own context, and costs them the connection, as on every reactor.
uvloop would log it too, elsewhere.

Rejected: no frame of ours at all (``write`` of uvloop's transport given to the protocol: 15 % cheaper for one write a
message, four times dearer for eight, and ``abortConnection``, ``bufferSize``, log contexts and the check for ``bytes``
are lost); uvloop's server for accepting (it closes itself, silently, on ENOBUFS and ENOMEM, and is no cheaper);
``add_reader`` with Twisted's own transports, which is the asyncio reactor and slower than epoll.
"""

from __future__ import annotations

import fcntl
import socket
import struct
import termios
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from twisted.internet import error, interfaces, main
from twisted.internet.abstract import _LogOwner
from twisted.python import log
from twisted.python.failure import Failure
from zope.interface import Interface, implementer

if TYPE_CHECKING:
    from twisted_net.uvreactor.reactor import UvloopReactor
    from twisted_net.uvreactor.sockets import GuardedSocket

try:
    from twisted.internet import _newtls
    from twisted.internet.interfaces import ITLSTransport
except ImportError:  # pragma: no cover (pyOpenSSL is not installed)
    _newtls = None  # type: ignore[assignment]
    ITLSTransport = Interface  # type: ignore[misc, assignment]

__all__ = ["Stream"]

#: Chunks from which on they are handed to uvloop as they are (writev(2)) and not joined.
MANY: Final = 64

#: Nothing was gathered. An idle stream has no list.
_NOTHING: Final = ()

_DONE: Final = Failure(main.CONNECTION_DONE)
_LOST: Final = Failure(main.CONNECTION_LOST)
#: SO_LINGER on, for no time: close(2) sends RST (socket(7)).
_RESET: Final = struct.pack("ii", 1, 0)


def bytesOnly(data: object) -> None:
    """
    Let bytes pass.

    :raises TypeError: ``data`` is anything else; the words are Twisted's.
    """
    if not isinstance(data, bytes):
        raise TypeError("Data must be bytes")


@implementer(
    interfaces.IConsumer,
    interfaces.IHalfCloseableDescriptor,
    interfaces.IPushProducer,
    interfaces.ISystemHandle,
    interfaces.ITCPTransport,
    ITLSTransport,
)
class Stream(_LogOwner):
    """
    One connection.

    :param skt: connected; it belongs to the stream from now on.
    :param protocol: what bytes are delivered to. The caller has to call its ``makeConnection``.
    :param reactor: whose loop it lives on.
    """

    # What most streams never change stands in the class, so that an idle one stays small.
    connected = 0
    disconnected = 0
    disconnecting = 0
    bufferSize = 65536
    producer: Any = None
    producerPaused = False
    streamingProducer = False
    TLS = False
    logstr = "Uninitialized"
    #: The error number of the system call that ended the connection (``errno.ECONNRESET``), or None: nothing failed.
    lossErrno: int | None = None
    wasReset = False  # libuv tells whoever reads and whoever writes of the same error
    #: Set when there is a socket; deleted with the connection.
    socket: GuardedSocket
    protocol: Any

    _copied = False  # somebody may have the descriptor's original
    _handed = False  # the socket is uvloop's business
    _full = False  # uvloop holds bytes that the kernel did not take
    _waiting = 0  # gathered bytes; counted only for a producer that is paused by it
    _reads = True  # nobody has paused reading
    _readEnded = False
    _held: bytes | None = None  # arrived while reading was paused already
    _heldEnd = False
    _keeping = False  # what arrives is held
    _aborting = False
    _writeDisconnecting = False
    _writeDisconnected = False

    def __init__(self, skt: GuardedSocket, protocol: Any, reactor: UvloopReactor) -> None:
        self.socket = skt
        self.protocol = protocol
        self.reactor = reactor
        self._out: Any = _NOTHING  # what was gathered
        # What every segment asks for stands here: an attribute of the class costs a walk along its ancestors.
        self._uv: Any = None  # uvloop's transport
        self._corked = True  # a settling is coming: writes need not ask for one
        self._due = False  # a settling was asked for, also if nothing was written
        self._special = False  # a write is no ordinary one: see `_writeSpecially`
        self._alert = False  # somebody waits for the moment when nothing is left
        self._context: Any = None  # see `_makeContext`
        self.connected = 1
        skt.guard = self
        reactor.handOver(self)

    # -- bytes in: what uvloop calls

    def toHand(self) -> GuardedSocket | None:
        """The socket for uvloop, whose business it is from now on; None if the connection is over, or rests."""
        if not self.connected or self._aborting:
            return None
        if not (self._reads or self._out or self._due):
            self._corked = False  # a write has to ask for a turn
            return None
        self._handed = True
        return self.socket

    def refused(self, failed: BaseException) -> None:
        """uvloop does not take the socket, which is ours to close."""
        self._handed = False
        self.connection_lost(failed)

    def connection_made(self, uv: Any) -> None:
        """uvloop has the socket."""
        if self.disconnected or not self.connected:
            uv.abort()
            return
        self._uv = uv
        if self._aborting:
            uv.abort()
            return
        uv.set_write_buffer_limits(0, 0)
        if not self._reads:
            self._hold()
        self._corked = False
        if self._out or self._due:
            self._call(self.settle)

    def data_received(self, data: bytes) -> None:
        """Bytes have come."""
        self._corked = True
        contexts = self.reactor.contexts
        contexts.append(self._context or self._makeContext())
        try:
            self.protocol.dataReceived(data)
        except BaseException:
            self._raised()
        finally:
            contexts.pop()
        self._corked = False
        out = self._out
        if out:
            if self.reactor.expecting:
                self._ask()
            elif len(out) == 1 and not self._alert:
                self._out = _NOTHING
                self._uv.write(out[0])
            else:
                self._call(self.settle)
        elif self._due:
            self._call(self.settle)

    def eof_received(self) -> bool:
        """The peer has sent its last; nothing is closed for that by uvloop."""
        self._readEnded = True
        if self._reads:
            self._call(self.readConnectionLost, _DONE)
        else:
            self._heldEnd = True
        return True

    def connection_lost(self, exc: BaseException | None) -> None:
        """uvloop has lost or closed the connection."""
        if self.disconnected:
            return
        if isinstance(exc, OSError):
            self.lossErrno = exc.errno
        if self._aborting:
            # The descriptor is closed right after this, and RST goes out; the protocol is told when it has.
            self._linger()
            self.socket.guard = None
            self._abortedSoon()
        else:
            self._call(self.connectionLost, _DONE if exc is None else _LOST)

    def pause_writing(self) -> None:
        """The kernel did not take everything."""
        self._full = True

    def resume_writing(self) -> None:
        """The kernel has everything."""
        self._full = False
        if self._alert or self._out:
            self._ask()

    # -- reading: paused before it began

    def _hold(self) -> None:
        """Keep what comes until reading is resumed: uvloop begins to read on its own."""
        self._keeping = True
        self.data_received = self._keep  # type: ignore[method-assign]
        self._uv.set_protocol(self)

    def _keep(self, data: bytes) -> None:
        self._held = data if self._held is None else self._held + data
        self._uv.pause_reading()

    def _release(self) -> None:
        """Reading was resumed: deliver what was held, in a turn of its own."""
        if not self._reads or self.disconnected or self.disconnecting or self._aborting:
            return
        data, self._held = self._held, None
        if self._keeping:
            self._keeping = False
            del self.data_received
            self._uv.set_protocol(self)
        if data is not None:
            self.data_received(data)
        if self._heldEnd and not self.disconnected:
            self._heldEnd = False
            self.eof_received()
        elif self._reads and not (self.disconnected or self.disconnecting or self._readEnded):
            self._uv.resume_reading()

    # -- bytes out

    def write(self, data: bytes) -> None:
        """Send ``data`` after everything that was written before it."""
        if data.__class__ is not bytes:
            bytesOnly(data)
        if self._special:
            self._writeSpecially(data)
            return
        if self._out:
            self._out.append(data)
        else:
            self._out = [data]
        if not self._corked:
            self._ask()

    def writeSequence(self, iovec: Any) -> None:
        """Send every chunk of ``iovec``, in order."""
        for data in iovec:
            if data.__class__ is not bytes:  # twisted.web writes its headers in two dozen pieces
                bytesOnly(data)
        if self.TLS:
            if self.connected:
                self.protocol.writeSequence(iovec)
        else:
            self._writeRaw(iovec)

    def _writeSpecially(self, data: bytes) -> None:
        if self.TLS:
            if self.connected:
                self.protocol.write(data)
        else:
            self._writeRaw([data])

    def _writeRaw(self, chunks: Any) -> None:
        """Below TLS."""
        if not chunks or self._isMute():
            return
        if self._out:
            self._out.extend(chunks)
        else:
            self._out = list(chunks)
        if not self._corked:
            self._ask()
        if self.streamingProducer:
            self._waiting += sum(map(len, chunks))
            self._pauseProducer()

    def _isMute(self) -> bool:
        """Whether nothing that is written from now on will be sent."""
        return bool(self.disconnected or self._aborting or self._writeDisconnected)

    @property
    def _tempDataBuffer(self) -> Any:
        """What is gathered, by the name that Twisted's own tests know."""
        return self._out

    def _ask(self) -> None:
        """Settle in the next turn of the loop."""
        if not self._corked:
            self._corked = True
            self.reactor.soon(self._turn)

    def _turn(self) -> None:
        if self._uv is None:
            self._wake()
            return
        self._corked = False
        if self._out or self._due or self._alert:
            self._call(self.settle)

    def _wake(self) -> None:
        """Something is wanted of a stream that uvloop may not have yet."""
        if not self._handed and not self.disconnected:
            self.reactor.handOver(self)

    def settle(self) -> None:
        """Hand what was gathered to uvloop. When all of it went straight to the kernel, see what waited for that."""
        self._due = False
        uv, out = self._uv, self._out
        if out:
            self._waiting = 0
            self._out = _NOTHING
            if len(out) < MANY:
                uv.write(out[0] if len(out) == 1 else b"".join(out))
            else:
                uv.writelines(out)
        if self._alert and not self._full and not uv.is_closing():
            self._emptied()

    def _emptied(self) -> None:
        """The kernel has everything: the moment for whoever waits, one at a time as in ``FileDescriptor.doWrite``."""
        producer = self.producer
        if producer is not None and (self.producerPaused or not self.streamingProducer):
            self.producerPaused = False
            try:
                producer.resumeProducing()
            except BaseException:
                self._raised()
        elif self.disconnecting:
            self.connectionLost(_DONE)
        elif self._writeDisconnecting and not self._writeDisconnected:
            self._endWriting()

    def sendNow(self, data: bytes) -> int:
        """
        Send ``data``, at once when nothing waits before it.

        :return: how many of its bytes the kernel has not taken yet.
        """
        uv = self._uv
        if uv is None or self._out or self._full or self.disconnecting or self._writeDisconnecting:
            self._writeRaw([data])
            return len(data)
        uv.write(data)
        if self._full:
            unsent: int = uv.get_write_buffer_size()
            return unsent
        return len(data) if uv.is_closing() else 0

    # -- IConsumer

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """
        As ``IConsumer``: pause a push producer when more than ``bufferSize`` bytes are unsent, and ask a pull producer
        for more when none is.

        :raises RuntimeError: there is one already.
        """
        if self.TLS:
            self.protocol.registerProducer(producer, streaming)
        else:
            self.registerRawProducer(producer, streaming)

    def tellDrained(self, producer: Any) -> None:
        """Have ``producer.resumeProducing`` called whenever nothing is left to send, TLS or not; and once now."""
        self.registerRawProducer(producer, False)

    def tellDrainedNoMore(self) -> None:
        """Take :meth:`tellDrained` back."""
        self.unregisterRawProducer()

    def registerRawProducer(self, producer: Any, streaming: bool) -> None:
        """As :meth:`registerProducer`, below TLS."""
        if self.producer is not None:
            raise RuntimeError(
                f"Cannot register producer {producer}, because producer {self.producer} was never unregistered."
            )
        if self.disconnected:
            producer.stopProducing()
            return
        self.producer = producer
        self.streamingProducer = streaming
        self._note()
        if streaming:
            self._waiting = sum(map(len, self._out))
        else:
            producer.resumeProducing()

    def unregisterProducer(self) -> None:
        """The producer has written its last; what waited for it goes on."""
        if self.TLS:
            self.protocol.unregisterProducer()
        else:
            self.unregisterRawProducer()

    def unregisterRawProducer(self) -> None:
        """As :meth:`unregisterProducer`, below TLS."""
        self.producer = None
        self.producerPaused = self.streamingProducer = False
        self._note()
        if self.connected and self._alert:
            self.startWriting()

    def stopConsuming(self) -> None:
        """The producer has lost its source: close when everything is sent."""
        self.unregisterProducer()
        self.loseConnection()

    def _pauseProducer(self) -> None:
        producer = self.producer
        if producer is not None and self.streamingProducer and self._isFull():
            self.producerPaused = True
            producer.pauseProducing()

    def _isFull(self) -> bool:
        unsent = self._waiting
        if self._full:
            unsent += self._uv.get_write_buffer_size()
        return unsent > self.bufferSize

    def _note(self) -> None:
        """Something has changed: note whether writes are ordinary, and whether anybody waits until nothing is left."""
        hasProducer = self.producer is not None
        self._special = bool(self._isMute() or self.TLS or (hasProducer and self.streamingProducer))
        self._alert = bool(
            hasProducer or self.disconnecting or (self._writeDisconnecting and not self._writeDisconnected)
        )

    # -- IPushProducer, and what reactors call these two

    def pauseProducing(self) -> None:
        """Stop reading."""
        self.stopReading()

    def resumeProducing(self) -> None:
        """Read again, unless the connection is closing."""
        if self.connected and not self.disconnecting:
            self.startReading()

    def stopProducing(self) -> None:
        """Close when everything is sent."""
        self.loseConnection()

    def stopReading(self) -> None:
        """Take nothing from the kernel any more."""
        self._reads = False
        if self._uv is not None:
            self._uv.pause_reading()

    def startReading(self) -> None:
        """Take bytes from the kernel again."""
        if self._reads or self.disconnected:
            return
        self._reads = True
        if self._uv is None:
            self._wake()
            return
        if self._keeping or self._heldEnd:
            self.reactor.soon(self._release)
        elif not self._readEnded:
            self._uv.resume_reading()

    def startWriting(self) -> None:
        """Look whether anything is left to send, and tell whoever waits for that; in the next turn."""
        self._due = True
        self._ask()

    def stopWriting(self) -> None:
        """Keep what is not with uvloop yet."""
        self._due = False

    def nudge(self) -> None:
        """Have the drain told once more."""
        self.startWriting()

    def silence(self) -> None:
        """Read and write nothing from now on, and tell nobody."""
        self.stopReading()
        self.stopWriting()
        self._out = _NOTHING

    @property
    def isReading(self) -> bool:
        """Whether bytes are taken from the kernel."""
        return bool(self._reads and not self._readEnded and not self.disconnecting and not self.disconnected)

    @property
    def isWriting(self) -> bool:
        """Whether anything is left to send."""
        return bool(self._out or self._due or self._full)

    # -- the ends

    def loseConnection(self, _connDone: object = None) -> None:
        """Close when everything is sent, and a registered producer has finished."""
        if self.TLS:
            if self.connected and not self.disconnecting:
                self.protocol.loseConnection()
        else:
            self.loseRawConnection()

    def loseRawConnection(self) -> None:
        """As :meth:`loseConnection`, below TLS."""
        if not self.connected or self.disconnecting:
            return
        if self._writeDisconnected:
            self.connectionLost(_DONE)
            return
        self.stopReading()
        self.disconnecting = 1
        self._note()
        self.startWriting()

    def abortConnection(self) -> None:
        """Close now: drop what is unsent, send RST. ``connectionLost`` follows in a later turn."""
        if self.disconnected or self._aborting:
            return
        self._aborting = True
        self._out = _NOTHING
        self._note()
        self.stopReading()
        if self._uv is not None:
            self._uv.abort()
        elif not self._handed:
            self._abortedSoon()

    def _abortedSoon(self) -> None:
        self.reactor.soon(self._call, self.connectionLost, Failure(error.ConnectionAborted()))

    def loseWriteConnection(self) -> None:
        """Half-close when everything is sent, and a registered producer has finished."""
        if self._writeDisconnecting or not self.connected:
            return
        self._writeDisconnecting = True
        self._note()
        self.startWriting()

    def finishWriting(self) -> None:
        """Half-close now, which needs nothing unsent. The protocol is not told."""
        self._due = False
        self._writeDisconnecting = self._writeDisconnected = True
        self._note()
        with suppress(OSError):  # the peer has closed: nobody waits for the FIN
            self.socket.shutdown(socket.SHUT_WR)

    def _endWriting(self) -> None:
        self.finishWriting()
        protocol = interfaces.IHalfCloseableProtocol(self.protocol, None)
        if protocol is not None:
            try:
                protocol.writeConnectionLost()
            except BaseException:
                self._raised()

    def readConnectionLost(self, reason: Failure) -> None:
        """The peer has sent its last: the end of the connection for a protocol that knows no half-close."""
        protocol = interfaces.IHalfCloseableProtocol(self.protocol, None)
        if protocol is None:
            self.connectionLost(reason)
            return
        try:
            protocol.readConnectionLost()
        except BaseException:
            self._raised()

    def writeConnectionLost(self, reason: Failure) -> None:
        """The other half; nobody calls it."""
        self.connectionLost(reason)

    def dropConnection(self, reason: Failure) -> None:
        """
        Close now and without RST, what is unsent dropped.

        :param reason: for the protocol's ``connectionLost``, which runs before this returns.
        """
        self.connectionLost(reason)

    @property
    def ending(self) -> bool:
        """Whether it was told to close or half-close."""
        return bool(self.disconnecting or self._writeDisconnecting)

    def relinquish(self) -> None:
        """Give the descriptor back, and tell nobody yet: now if uvloop has not got it, else with the end."""
        self.silence()
        self.connected = 0
        if not self._handed:
            self.socket.guard = None
            self.socket.close()

    def forsaken(self) -> None:
        """
        Somebody has closed the socket object, or taken its descriptor: the connection is over for us, in the next turn.
        It may live on by another descriptor.
        """
        if not self.disconnected:
            self.disconnecting = 1
            self.silence()
            self.reactor.soon(self._call, self.connectionLost, _LOST, True)

    def connectionLost(self, reason: Failure, shared: bool = False) -> None:
        """The end, once: the producer hears of it, then the protocol. The descriptor is closed now, or a turn later."""
        if self.disconnected:
            return
        self.disconnected = 1
        self.connected = 0
        self._alert = self._due = False
        self._corked = self._special = True
        self._out = _NOTHING
        if self._keeping:
            del self.data_received  # it refers to this object
        self.logstr = self.logstr  # that of the protocol
        producer, self.producer = self.producer, None
        if producer is not None:
            try:
                producer.stopProducing()
            except BaseException:
                log.err()
        skt, uv = self.socket, self._uv
        skt.guard = None
        if self._aborting:
            self._linger()
        elif not shared and (uv is None or not uv.is_closing()):
            self._finish(skt)
        if uv is not None:
            self._uv = None
            uv.abort()
        elif not self._handed:
            skt.close()
        self._held = None
        protocol = self.protocol
        del self.protocol, self.socket
        self.reactor.forget(self)
        try:
            protocol.connectionLost(reason)
        finally:
            self._gone(reason)

    def _gone(self, reason: Failure) -> None:
        """The protocol knows."""

    def _finish(self, skt: GuardedSocket) -> None:
        """
        FIN now, also if a child has a copy of the descriptor; what uvloop still holds fails.

        Where something lies unread it is left to close(2), which answers that with RST (RFC 1122, 4.2.2.13): a FIN
        before it, one turn earlier, would be the end that the peer sees. Nothing is answered, though, as long as
        somebody else has the descriptor.
        """
        if skt.fileno() < 0:
            return  # it was given back
        with suppress(OSError):  # it is not connected any more
            if self._held is not None and not self._copied:
                self._linger()  # it lay unread as far as anybody knows
                return
            if self._reads or self._copied or fcntl.ioctl(skt, termios.FIONREAD, bytes(4)) == bytes(4):
                skt.shutdown(socket.SHUT_RDWR)

    def _linger(self) -> None:
        with suppress(OSError):  # close(2) does what it can
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)

    # -- what protocols raise, and whose log it is

    def _call(self, method: Any, *args: Any) -> None:
        """Call one of our methods as a reactor calls ``doRead``: in this connection's context of the log, guarded."""
        if self.disconnected:
            return
        contexts = self.reactor.contexts
        contexts.append(self._context or self._makeContext())
        try:
            method(*args)
        except BaseException:
            self._raised()
        finally:
            contexts.pop()

    def _raised(self) -> None:
        """The protocol has raised: that is logged, and costs it the connection."""
        failure = Failure()
        log.err(failure)
        if not self.disconnected:
            try:
                self.connectionLost(failure)
            except BaseException:
                log.err()

    def _makeContext(self) -> Any:
        """Prepare what :func:`twisted.python.log.callWithLogger` makes anew for every event."""
        common = self.reactor.contexts[0]
        ours = {**common.get(log.ILogContext, {}), "system": self.logPrefix()}
        self._context = {**common, log.ILogContext: ours}
        return self._context

    def logPrefix(self) -> str:
        """What lines of the log about this connection begin with."""
        return self.logstr

    # -- ITCPTransport, ISystemHandle

    def getHost(self) -> Any:
        """Our address."""
        raise NotImplementedError  # each kind has its own

    def getPeer(self) -> Any:
        """The peer's address."""
        raise NotImplementedError

    def fileno(self) -> int:
        """The descriptor, or -1 when it is gone."""
        return -1 if self.disconnected else self.socket.fileno()

    def getHandle(self) -> GuardedSocket:
        """The socket; under TLS, OpenSSL's connection."""
        return self.socket

    def getTcpNoDelay(self) -> bool:
        """TCP_NODELAY."""
        return bool(self.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    def setTcpNoDelay(self, enabled: bool) -> None:
        """TCP_NODELAY."""
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, enabled)

    def getTcpKeepAlive(self) -> bool:
        """SO_KEEPALIVE."""
        return bool(self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """SO_KEEPALIVE."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, enabled)

    # -- ITLSTransport

    def startTLS(self, ctx: Any, normal: bool = True) -> None:
        """
        Encrypt from now on.

        :param normal: whether the client of the connection is the client of TLS.
        """
        self.logstr = self.logstr  # that of the protocol which is there now
        _newtls.startTLS(self, ctx, normal, BelowTls)
        self._note()


class BelowTls:
    """Where TLS itself writes: the methods of a stream as they are without it (for ``_newtls``, by these names)."""

    @staticmethod
    def write(stream: Stream, data: bytes) -> None:
        stream._writeRaw([data])

    @staticmethod
    def writeSequence(stream: Stream, iovec: Any) -> None:
        stream._writeRaw(iovec)

    @staticmethod
    def loseConnection(stream: Stream, *args: object) -> None:
        stream.loseRawConnection()

    registerProducer = staticmethod(Stream.registerRawProducer)
    unregisterProducer = staticmethod(Stream.unregisterRawProducer)
