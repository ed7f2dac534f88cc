"""
Twisted's own transports on sockets in memory.

Each class is Twisted's with one thing changed: where a socket comes from. Two more things are taken out of ports,
because they would touch this process instead of the host in memory: the file of a UNIX socket, and the spare
descriptor that answers ``EMFILE`` (here it is one of the host's).
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from twisted.internet import tcp, udp, unix
from twisted.internet.address import UNIXAddress
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IProtocolFactory
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_net.testing.kernel.ports import key

if TYPE_CHECKING:
    from twisted_net.testing.reactor import MemoryReactor


class TcpClient(tcp.Client):
    """A TCP client's transport."""

    def createInternetSocket(self) -> Any:
        return self.connector.reactor.makeSocket(self.addressFamily, self.socketType)


class TcpConnector(tcp.Connector):
    """What ``connectTCP`` returns."""

    def _makeTransport(self) -> Any:
        return _client(TcpClient, self.host, self.port, self.bindAddress, self, self.reactor)


class UnixClient(unix.Client):
    """A UNIX client's transport."""

    def createInternetSocket(self) -> Any:
        return self.connector.reactor.makeSocket(self.addressFamily, self.socketType)


class UnixConnector(unix.Connector):
    """What ``connectUNIX`` returns."""

    def _makeTransport(self) -> Any:
        return _client(UnixClient, self.address, self, self.reactor)


def _client(kind: Any, *arguments: Any) -> Any:
    return kind(*arguments)  # Twisted's clients have no annotations


class _Accepting:
    """What ports of both kinds do alike."""

    reactor: Any
    socket: Any
    addressFamily: Any
    socketType: Any
    factory: Any
    sessionno: int
    numberAccepts: int
    transport: Any
    _buildAddr: Any
    _log = Logger()

    def createInternetSocket(self) -> Any:
        return self.reactor.makeSocket(self.addressFamily, self.socketType)

    def doRead(self) -> None:
        """Accept whoever waits."""
        try:
            for skt, place in tcp._accept(self._log, range(self.numberAccepts), self.socket, self.reactor.spare):
                self._welcome(skt, place)
        except Exception:
            self._log.failure("accepting a connection has failed")

    def _welcome(self, skt: Any, place: Any) -> None:
        if isinstance(place, tuple) and len(place) == 4:
            place = (place[0], place[1], 0, 0)
        protocol = self.factory.buildProtocol(self._buildAddr(place))
        if protocol is None:
            skt.close()
            return
        number = self.sessionno
        self.sessionno = number + 1
        protocol.makeConnection(self.transport(skt, protocol, place, self, number, self.reactor))


class TcpPort(_Accepting, tcp.Port):
    """A TCP port that listens."""

    _log = Logger()
    _made: Any = None
    _buildAddr = tcp.Port._buildAddr

    def createInternetSocket(self) -> Any:
        skt = self._made = self.reactor.makeSocket(self.addressFamily, self.socketType)
        if getattr(self, "_reuseAddress", True):  # Twisted before 25 has no choice
            skt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if getattr(self, "_reusePort", False):
            skt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        return skt

    def startListening(self) -> None:
        self.reactor.spare.reserve()
        with _closingUnbound(self):
            super().startListening()

    @classmethod
    def adopting(cls, reactor: MemoryReactor, skt: Any, factory: IProtocolFactory) -> TcpPort:
        """A port for a socket that listens already."""
        self = cls(None, factory, None, skt.getsockname()[0], reactor)  # type: ignore[arg-type]
        self._preexistingSocket = skt
        return self


class UnixPort(_Accepting, unix.Port):
    """A UNIX port that listens."""

    _log = Logger()
    _buildAddr = unix.Port._buildAddr

    def __init__(
        self, fileName: bytes, factory: IProtocolFactory, backlog: int = 50, mode: int = 0o666, reactor: Any = None
    ) -> None:
        super().__init__(fileName, factory, backlog, mode, reactor)
        self._path = key(UNIXAddress(fileName).name or b"")

    def startListening(self) -> None:
        self.reactor.spare.reserve()
        self.factory.doStart()
        skt: Any = self._preexistingSocket
        if skt is None:
            try:
                skt = self.createInternetSocket()
                skt.bind(self._path)
            except OSError as error:
                self.factory.doStop()
                if skt is not None:
                    skt.close()
                raise CannotListenError(None, self._path, error) from error
        if not skt.isListening:
            skt.listen(self.backlog)
        self.connected = True
        self.socket = skt
        self.fileno = skt.fileno  # type: ignore[method-assign]  # as tcp.Port does
        self.numberAccepts = 100
        self.startReading()  # type: ignore[no-untyped-call]

    def connectionLost(self, reason: Failure) -> None:
        self.reactor.unlink(self._path)
        tcp.Port.connectionLost(self, reason)

    @classmethod
    def adopting(cls, reactor: MemoryReactor, skt: Any, factory: IProtocolFactory) -> UnixPort:
        """A port for a socket that is bound already."""
        self = cls(key(skt.getsockname()), factory, reactor=reactor)
        self._preexistingSocket = skt
        return self


class UdpPort(udp.MulticastPort):
    """A UDP port; multicast or not."""

    _made: Any = None

    def createInternetSocket(self) -> Any:
        skt = self._made = self.reactor.makeSocket(self.addressFamily, self.socketType)
        if self.listenMultiple:
            skt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            skt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        return skt

    def startListening(self) -> None:
        with _closingUnbound(self):
            super().startListening()  # type: ignore[no-untyped-call]


@contextmanager
def _closingUnbound(port: Any) -> Iterator[None]:
    """Close the socket of a port that cannot be bound: Twisted leaves some of them to the garbage collector."""
    try:
        yield
    except CannotListenError:
        if port._made is not None:
            port._made.close()
        raise
