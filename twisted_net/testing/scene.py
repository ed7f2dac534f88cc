"""What a test needs before it can begin: a pair of peers that are connected, or a server and whoever connects to it.

The same on a network in memory and on the loopback interface; pytest's fixtures and the mixin for trial are made of it.
"""

from __future__ import annotations

from inspect import iscoroutinefunction
from typing import Any, Final, Literal, Protocol, get_args

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP4ServerEndpoint,
    UNIXClientEndpoint,
    UNIXServerEndpoint,
)
from twisted.internet.interfaces import (
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
    IStreamServerEndpoint,
)
from twisted.internet.protocol import Factory

from twisted_net.errors import OptionError
from twisted_net.net.server import Server
from twisted_net.testing.peers import Peer, Peers

Transport = Literal["tcp", "unix"]
TRANSPORTS: Final = get_args(Transport)

CLIENT: Final = "client"
SERVER: Final = "server"
"""The hosts on which the scene is played; with UNIX sockets, the server's alone."""


class Network(Protocol):
    """What a scene needs of :class:`~twisted_net.testing.network.MemoryNetwork`, or of
    :class:`~twisted_net.testing.loopback.LoopbackNetwork`."""

    @property
    def reactor(self) -> Any: ...

    def host(self, name: str, *addresses: str) -> Any: ...

    def path(self) -> str: ...


class Served:
    """A server of the test's, and a way to connect to it.

    :ivar port: Twisted's port.
    :ivar endpoint: connects to it, from the client's host.
    :ivar server: the event face's :class:`~twisted_net.net.server.Server`; None for a protocol or a factory.
    """

    def __init__(self, peers: Peers, port: Any, endpoint: IStreamClientEndpoint, server: Server | None) -> None:
        self.port = port
        self.endpoint = endpoint
        self.server = server
        self._peers = peers
        self._stopped: Deferred[Any] | None = None

    async def connects(self, peer: Peer | None = None) -> Peer:
        """A :class:`~twisted_net.testing.peers.Peer` that is connected to it."""
        return await self._peers.connects(self.endpoint, peer)

    async def closes(self) -> None:
        """Stop listening, end the sockets of the event face, and wait until it has ended. Harmless when it was done."""
        self.ends()
        await (self._stops() if self.server is None else self.server.whenClosed())

    def ends(self) -> None:
        """As `closes`, without waiting."""
        if self.server is None:
            self._stops()
            return
        self.server.close()
        for client in tuple(self.server.clients):
            client.destroy()

    def _stops(self) -> Deferred[Any]:
        """Stop listening, once: a port that is about to stop must not be asked again."""
        if self._stopped is None:
            self._stopped = maybeDeferred(self.port.stopListening)
        return self._stopped


class Scene:
    """
    Servers and peers on one network.

    :param network: where it is played.
    :param transport: ``"tcp"`` or ``"unix"``.
    :raises OptionError: for another one.
    """

    def __init__(self, network: Network, transport: Transport = "tcp") -> None:
        if transport not in TRANSPORTS:
            raise OptionError(f"transport is {transport!r}; it must be one of {', '.join(TRANSPORTS)}")
        #: Everybody who is connected by the scene.
        self.peers = Peers(network.host(CLIENT).reactor)
        self._network = network
        self._transport = transport
        self._served: list[Served] = []

    async def pair(self) -> tuple[Peer, Peer]:
        """Client and server of a connection that stands."""
        endpoint, reach = self._endpoints()
        port = await self.peers.listens(endpoint)
        served = Served(self.peers, port, reach(port), None)
        self._served.append(served)
        return await served.connects(), await self.peers.accepts()

    async def serve(self, what: Any) -> Served:
        """
        Serve *what*, and be ready to connect to it.

        :param what: a protocol class, a factory, or a function that takes a
            :class:`~twisted_net.net.socket.Socket` (the event face's).
        :raises OptionError: for anything else.
        """
        endpoint, reach = self._endpoints()
        factory = _factory(what)
        server = None
        if factory is None:
            server = Server({"reactor": self._network.host(SERVER).reactor}, what)
            await server.listen(endpoint).whenListening()
            port: Any = server.port
        else:
            port = await maybeDeferred(endpoint.listen, factory)
        served = Served(self.peers, port, reach(port), server)
        self._served.append(served)
        return served

    def ends(self) -> None:
        """
        End everything. It has ended a few turns later; the network's own end (its look for leaks) lets them pass.

        In memory, links that are cut are healed for it, and hosts that are frozen thawed. Nothing is waited for here,
        because a host may be dead, and never tell; whoever it was connected to is connected still, and that is a leak.
        """
        network: Any = self._network
        if network.inMemory:
            network.heal()
            for host in network.living():
                host.thaw()
        for served in self._served:
            served.ends()
        for peer in self.peers.all:
            if peer.count("made") and not peer.gone:
                peer.aborts()

    def _endpoints(self) -> tuple[IStreamServerEndpoint, Any]:
        host = self._network.host(SERVER)
        if self._transport == "unix":
            path = self._network.path()
            return UNIXServerEndpoint(host.reactor, path), lambda port: UNIXClientEndpoint(host.reactor, path)
        reactor = self._network.host(CLIENT).reactor
        return TCP4ServerEndpoint(host.reactor, 0, interface=host.address), lambda port: TCP4ClientEndpoint(
            reactor, host.address, port.getHost().port
        )


def _factory(what: Any) -> IProtocolFactory | None:
    """What builds the protocols; None for a listener of the event face."""
    factory: IProtocolFactory
    if IProtocolFactory.providedBy(what):
        factory = what
        return factory
    if isinstance(what, type) and IProtocol.implementedBy(what):
        made: Any = Factory.forProtocol(what)
        made.noisy = False
        factory = made
        return factory
    if callable(what) and not isinstance(what, type) and not iscoroutinefunction(what):
        return None
    raise OptionError(
        f"what is {what!r}; it must be a protocol class, a factory (an object, not its class), or a function of a "
        "socket (not an async one)"
    )
