"""
The side that connects.

Until it is connected, the transport is Twisted's own ``tcp.Client``: names, bindAddress, errors, the time limit and
``stopConnecting``. When connect(2) has succeeded it steps aside: a :class:`ClientStream` takes its socket and its place
with the connector.
"""

from __future__ import annotations

from typing import Any

from twisted.internet import tcp
from twisted.internet.protocol import Protocol

from twisted_net.uvreactor.sockets import GuardedSocket
from twisted_net.uvreactor.stream import Stream

__all__ = ["ClientStream", "Connector", "Replaced"]


class ClientStream(Stream):
    """
    A connection that we made.

    :param connector: told when it ends.
    :param client: what has connected it, with its addresses.
    """

    _tlsClientDefault = True

    def __init__(self, skt: Any, protocol: Any, connector: Any, client: Any) -> None:
        self.connector = connector
        self.addr = client.addr
        self.realAddress = client.realAddress
        self._peer = client.getPeer()
        self.logstr = f"{self._getLogPrefix(protocol)},client"
        super().__init__(skt, protocol, client.reactor)

    def __repr__(self) -> str:
        return f"<{type(self)} to {self.addr} at {id(self):x}>"

    def getHost(self) -> Any:
        """Our address."""
        return type(self._peer)("TCP", *tcp._getsockname(self.socket))

    def getPeer(self) -> Any:
        """The peer's address."""
        return self._peer

    def _gone(self, reason: Any) -> None:
        self.connector.connectionLost(reason)


class Replaced:
    """A client of Twisted's that a stream takes the place of; stands before it among the bases."""

    addressFamily: Any
    connector: Any
    reactor: Any
    socket: Any
    socketType: Any

    def createInternetSocket(self) -> Any:
        """The socket that will be connected."""
        skt = GuardedSocket(self.addressFamily, self.socketType)
        skt.setblocking(False)
        return skt

    def _connectDone(self) -> None:
        connector = self.connector
        protocol = connector.buildProtocol(self.getPeer())  # type: ignore[attr-defined]
        stream = self._streamFor(self.socket, protocol or Protocol())
        # From now on nothing that is done to this object reaches the connection.
        del self.socket, self.connector
        self.connected, self.disconnected = 0, 1
        connector.transport = stream
        if protocol is None:
            stream.loseConnection()
        else:
            stream._call(protocol.makeConnection, stream)

    def _streamFor(self, skt: Any, protocol: Any) -> Stream:
        return ClientStream(skt, protocol, self.connector, self)


class Client(Replaced, tcp.Client):
    """A TCP client until it is connected."""


class Connector(tcp.Connector):
    """Makes them."""

    def _makeTransport(self) -> Any:
        return Client(self.host, self.port, self.bindAddress, self, self.reactor)  # type: ignore[no-untyped-call]
