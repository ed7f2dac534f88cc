"""
The side that accepts.

The port is Twisted's own: bind, backlog, accept, EMFILE and ECONNABORTED, pausing, and what it logs. It makes a
:class:`ServerStream` of each connection where it would make a ``tcp.Server``, and its socket hands out guarded ones.
"""

from __future__ import annotations

import os
import socket
from typing import Any

from twisted.internet import tcp
from twisted.internet.address import IPv4Address, IPv6Address

from twisted_net.uvreactor.sockets import GuardedSocket, ListeningSocket
from twisted_net.uvreactor.stream import Stream

__all__ = ["Guarding", "Port", "ServerStream"]


class ServerStream(Stream):
    """
    A connection that was accepted, or adopted.

    :param client: the peer's address, as accept(2) gave it.
    :param server: the port, or None.
    :param sessionno: its number there.
    """

    _tlsClientDefault = False
    _localPort: int | None = None
    _logstr: str | None = None

    def __init__(self, skt: Any, protocol: Any, client: Any, server: Any, sessionno: int, reactor: Any) -> None:
        self.client = client
        self.server = server
        self.sessionno = sessionno
        super().__init__(skt, protocol, reactor)

    @property
    def hostname(self) -> Any:
        """The peer's host."""
        return self.client[0]

    @property
    def logstr(self) -> str:
        """What lines of the log begin with: made when it is first needed, and kept from then on."""
        if self._logstr is None:
            return f"{self._getLogPrefix(self.protocol)},{self.sessionno},{self.client[0]}"
        return self._logstr

    @logstr.setter
    def logstr(self, text: str) -> None:
        self._logstr = text

    def __repr__(self) -> str:
        port = self._localPort if self.server is None else self.server._realPortNumber
        name = "(lost)" if self.disconnected else self.protocol.__class__.__name__
        return f"<{name} #{self.sessionno} on {port}>"

    def _addressOf(self, pair: Any) -> IPv4Address | IPv6Address:
        return (IPv4Address if len(pair) == 2 else IPv6Address)("TCP", *pair)

    def getHost(self) -> Any:
        """Our address."""
        return self._addressOf(tcp._getsockname(self.socket))

    def getPeer(self) -> Any:
        """The peer's address."""
        return self._addressOf(self.client)

    @classmethod
    def adopt(cls, descriptor: int, family: int, factory: Any, reactor: Any) -> ServerStream | None:
        """Make a stream on a duplicate of a connected ``descriptor``; None when the factory wants no connection."""
        skt = GuardedSocket(family, socket.SOCK_STREAM, 0, os.dup(descriptor))
        try:
            client = tcp._getpeername(skt)
            localPort = skt.getsockname()[1]
            protocol = factory.buildProtocol((IPv4Address if len(client) == 2 else IPv6Address)("TCP", *client))
        except BaseException:
            skt.close()
            raise
        if protocol is None:
            skt.close()
            return None
        stream = cls(skt, protocol, client, None, client[1], reactor)
        stream._localPort = localPort
        stream._copied = True
        protocol.makeConnection(stream)
        return stream


class Guarding:
    """What a port of Twisted's needs in order to accept guarded sockets; stands before it among the bases."""

    _preexistingSocket: Any

    def createInternetSocket(self) -> Any:
        """The socket that will listen."""
        return ListeningSocket.of(super().createInternetSocket())  # type: ignore[misc]

    def startListening(self) -> None:
        """Listen, on the socket that was adopted if there is one."""
        if self._preexistingSocket is not None:
            self._preexistingSocket = ListeningSocket.of(self._preexistingSocket)
        super().startListening()  # type: ignore[misc]


class Port(Guarding, tcp.Port):
    """A TCP port."""

    transport = ServerStream  # type: ignore[assignment]
