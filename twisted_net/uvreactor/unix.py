"""
UNIX sockets: streams that send and receive descriptors.

A descriptor travels with a byte, by sendmsg(2). Sending one needs nothing but a moment when nothing is unsent.
Receiving them is beyond libuv: see :mod:`~twisted_net.uvreactor.rights`.
"""

from __future__ import annotations

import errno
import os
import socket
from collections import deque
from typing import Any

from twisted.internet import error, interfaces, main, unix
from twisted.internet.abstract import FileDescriptor
from twisted.internet.address import UNIXAddress
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_net.uvreactor.client import ClientStream, Replaced
from twisted_net.uvreactor.rights import ReceivingTransport
from twisted_net.uvreactor.server import Guarding, ServerStream
from twisted_net.uvreactor.sockets import GuardedSocket
from twisted_net.uvreactor.stream import Stream

__all__ = ["ClientUnixStream", "Connector", "Port", "ServerUnixStream"]

#: Descriptors that wait, from which on a producer is paused: as many as with Twisted's own transport.
MANY_DESCRIPTORS = 64


class Room(FileDescriptor):
    """Waits until the kernel has room, on a duplicate of a descriptor: libuv keeps the original to itself."""

    def __init__(self, stream: UnixStream) -> None:
        super().__init__(stream.reactor)
        self._stream = stream
        self._descriptor = os.dup(stream.fileno())
        self.startWriting()  # type: ignore[no-untyped-call]

    def fileno(self) -> int:
        """The duplicate."""
        return self._descriptor

    def logPrefix(self) -> str:
        """The stream's."""
        return self._stream.logPrefix()

    def doWrite(self) -> None:
        """There is room."""
        self.close()
        self._stream.startWriting()

    def close(self) -> None:
        """Wait no more."""
        if self._descriptor != -1:
            self.stopWriting()  # type: ignore[no-untyped-call]
            os.close(self._descriptor)
            self._descriptor = -1

    def connectionLost(self, reason: Failure) -> None:
        """The reactor is shutting down, or the descriptor is no good: the stream will find out."""
        self.close()


@implementer(interfaces.IUNIXTransport)
class UnixStream(Stream):
    """What both sides have in common."""

    _rights: deque[int] | None = None  # descriptors to send
    _room: Room | None = None

    def sendFileDescriptor(self, fileno: int) -> None:
        """
        Send a duplicate of a descriptor, with a byte of what is written after it: there has to be one for each.
        """
        if self.disconnected or self._aborting:
            return
        if self._rights is None:
            self._rights = deque()
        if not self._rights and self._uv is not None and self._out:
            self.settle()  # what was written before it needs no descriptor
        self._rights.append(fileno)
        self._note()
        self._pauseProducer()
        self.startWriting()

    def toHand(self) -> GuardedSocket | None:
        """As :meth:`Stream.toHand`: for uvloop, unless the protocol receives descriptors."""
        skt = super().toHand()
        if skt is None or not interfaces.IFileDescriptorReceiver.providedBy(self.protocol):
            return skt
        ReceivingTransport(self, skt)
        return None

    def descriptorReceived(self, descriptor: int) -> None:
        """A descriptor has come, and belongs to the protocol."""
        self._call(self.protocol.fileDescriptorReceived, descriptor)

    def _note(self) -> None:
        super()._note()
        if self._rights:
            self._alert = True  # also a single write of a callback has to be settled

    def _isFull(self) -> bool:
        return len(self._rights or ()) > MANY_DESCRIPTORS or super()._isFull()

    def sendNow(self, data: bytes) -> int:
        """As :meth:`Stream.sendNow`, behind the descriptors."""
        if self._rights:
            self._writeRaw([data])
            return len(data)
        return super().sendNow(data)

    def settle(self) -> None:
        """Descriptors go first, each with a byte."""
        if self._rights and not self._sendRights(self._rights):
            return
        super().settle()

    def _sendRights(self, rights: deque[int]) -> bool:
        """Say whether all of them are sent; if not, and the connection is alive, a settling will follow."""
        if self._full or self._room is not None:
            self._alert = True
            return False
        data = b"".join(self._out)
        if len(rights) > len(data):
            if not data and not self.disconnecting:
                self._due = False
                return False  # their bytes are still to come
            self.connectionLost(Failure(error.FileDescriptorOverrun()))
            return False
        sent = 0
        try:
            while rights:
                socket.send_fds(self.socket, [data[sent : sent + 1]], [rights[0]])
                rights.popleft()
                sent += 1
        except OSError as failed:
            if failed.errno not in (errno.EAGAIN, errno.ENOBUFS):
                self.lossErrno = failed.errno
                self.connectionLost(Failure(main.CONNECTION_LOST))
                return False
            self._room = Room(self)
        self._out = [data[sent:]] if sent < len(data) else ()
        self._waiting = len(data) - sent
        self._note()
        return self._room is None

    def startWriting(self) -> None:
        """As :meth:`Stream.startWriting`; whoever waited for room has waited enough."""
        self._leaveRoom()
        super().startWriting()

    def _leaveRoom(self) -> None:
        room, self._room = self._room, None
        if room is not None:
            room.close()

    def connectionLost(self, reason: Failure, shared: bool = False) -> None:
        """As :meth:`Stream.connectionLost`."""
        self._leaveRoom()
        super().connectionLost(reason, shared)

    def getTcpNoDelay(self) -> bool:
        """False: UNIX sockets have no such thing."""
        return False

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Nothing: UNIX sockets have no such thing."""


class ServerUnixStream(UnixStream, ServerStream):
    """A connection that was accepted, or adopted."""

    def __init__(self, skt: Any, protocol: Any, name: Any, server: Any, sessionno: int, reactor: Any) -> None:
        super().__init__(skt, protocol, (name, None), server, sessionno, reactor)

    def getHost(self) -> UNIXAddress:
        """Our address."""
        return UNIXAddress(self.socket.getsockname())

    def getPeer(self) -> UNIXAddress:
        """The peer's address, which rarely has a name."""
        return UNIXAddress(self.hostname or None)

    @classmethod
    def adoptUnix(cls, descriptor: int, factory: Any, reactor: Any) -> Any:
        """As :meth:`ServerStream.adopt`."""
        skt = GuardedSocket(socket.AF_UNIX, socket.SOCK_STREAM, 0, os.dup(descriptor))
        try:
            protocol = factory.buildProtocol(UNIXAddress(skt.getsockname()))
        except BaseException:
            skt.close()
            raise
        if protocol is None:
            skt.close()
            return None
        stream = cls(skt, protocol, skt.getpeername(), None, 0, reactor)
        stream._localPort = skt.getsockname()
        stream._copied = True
        stream.logstr = f"{protocol.__class__.__name__},0,{skt.getsockname()}"
        protocol.makeConnection(stream)
        return stream


class ClientUnixStream(UnixStream, ClientStream):
    """A connection that we made."""

    def getHost(self) -> UNIXAddress:
        """Our address, which has no name."""
        return UNIXAddress(None)


class Port(Guarding, unix.Port):
    """A UNIX port."""

    transport = ServerUnixStream  # type: ignore[assignment]


class Client(Replaced, unix.Client):
    """A UNIX client until it is connected."""

    def _streamFor(self, skt: Any, protocol: Any) -> Stream:
        return ClientUnixStream(skt, protocol, self.connector, self)


class Connector(unix.Connector):
    """Makes them."""

    def _makeTransport(self) -> Any:
        return Client(self.address, self, self.reactor, self.checkPID)  # type: ignore[no-untyped-call]
