"""What is held against the rules, in Twisted's own terms: how to listen, how to connect, and what it claims to do."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol

from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP4ServerEndpoint,
    TCP6ClientEndpoint,
    TCP6ServerEndpoint,
    UNIXClientEndpoint,
    UNIXServerEndpoint,
    wrapClientTLS,
)
from twisted.internet.interfaces import (
    IListeningPort,
    IProtocolFactory,
    IStreamClientEndpoint,
    IStreamServerEndpoint,
)
from twisted.internet.protocol import DatagramProtocol
from zope.interface import implementer

from twisted_net.errors import OptionError
from twisted_net.testing.peers import PATIENCE, HeardError, Peer, Peers

QUIET: Final = 0.05
"""Seconds of the reactor's time in which what should not come has not come: some hundred turns of a real reactor."""

CONNECT_TIMEOUT: Final = 30.0
"""Seconds for a connection to stand, unless a case asks for less: Twisted's own default."""

BACKLOG: Final = 50
"""Connections that the system keeps for a port unless a case asks for less: Twisted's own default."""

MAX_DATAGRAM: Final = 65507
"""Bytes in a UDP datagram over IPv4 at most: 65,535 without the headers of IP and UDP (RFC 768, RFC 791)."""

FEATURES: Final = {
    "stream": "connections: server() and client(port) give endpoints",
    "halfClose": "loseWriteConnection ends one half, and IHalfCloseableProtocol is told",
    "abort": "abortConnection drops what is unsent",
    "reset": "the peer of an aborted connection sees a ConnectionLost, as with TCP's RST",
    "immediate": "the first byte may come with connectionMade: there is no handshake before it",
    "prompt": "dataReceived is not called after pauseProducing or loseConnection has returned (TLS delivers the rest)",
    "ownReason": "connectionLost is told this side's abort, and what dataReceived has raised (TLS says ConnectionLost)",
    "bothEnded": "when both ends have ended, the connection is closed (not by Twisted's own transports: twisted#5662)",
    "waits": "loseConnection waits for any producer (not for one that is not paused in Twisted's own: twisted#5344)",
    "addresses": "both ends have an address and a port, which getHost and getPeer tell crosswise",
    "options": "ITCPTransport: no-delay and keep-alive can be set and read",
    "backlog": "a port has pauseProducing and resumeProducing; connections wait in its backlog, as listen(2) says",
    "silence": "a connection attempt that finds the backlog full is not answered, as with TCP's SYN",
    "refusal": "a factory whose buildProtocol returns None turns a client away (one for TLS cannot)",
    "dismissal": "a client for whom buildProtocol raises is turned away (Twisted's own ports leave him waiting)",
    "datagram": "listenDatagram(protocol) gives a port of datagrams, address(port) its address",
    "refused": "a connected port of datagrams is told connectionRefused (on epoll and poll it is lost: twisted#5377)",
    "factory": "a protocol factory is what is judged (see Subject.serving)",
}
"""Every word that a subject can claim, and what it means."""

_NEEDED: Final = {
    "stream": ("server", "client", "again"),
    "datagram": ("listenDatagram", "address"),
    "factory": ("factory",),
}
"""What a subject must have to claim a feature."""

TCP: Final = frozenset(FEATURES) - {"bothEnded", "waits", "dismissal", "datagram", "refused", "factory"}
"""What Twisted's own TCP keeps."""
UNIX: Final = TCP - {"reset", "addresses", "options", "silence"}
"""What Twisted's own UNIX stream sockets keep."""
TLS: Final = TCP - {"halfClose", "immediate", "prompt", "ownReason", "refusal"} | {"waits"}
"""What Twisted's own TLS over TCP keeps."""
UDP: Final = frozenset({"datagram"})
"""What Twisted's own UDP keeps."""


class DeliberateError(Exception):
    """What a case raises inside of a transport's call, to see what becomes of it.  It may be logged."""


class MakeServer(Protocol):
    """Gives an endpoint to listen with, each time another address."""

    def __call__(self, *, backlog: int = BACKLOG) -> IStreamServerEndpoint: ...


class MakeClient(Protocol):
    """Gives an endpoint to connect to *port* with."""

    def __call__(self, port: IListeningPort, *, timeout: float = CONNECT_TIMEOUT) -> IStreamClientEndpoint: ...


class ListenDatagram(Protocol):
    """Has *protocol* receive datagrams at that port number (0: any)."""

    def __call__(self, protocol: DatagramProtocol, number: int = 0) -> IListeningPort: ...


FactoryWrapper = Callable[[Any], IProtocolFactory]
"""Takes a protocol factory, returns one that wraps it, such as ``policies.WrappingFactory``."""


@dataclass(frozen=True)
class Subject:
    """What a check is held against.

    A subject for streams has ``server``, ``client`` and ``again``; one for datagrams ``listenDatagram`` and
    ``address``.
    """

    name: str
    """What the failures call it."""
    reactor: Any
    """Provides ``IReactorTime``."""
    features: frozenset[str]
    """What it claims to do: words of `FEATURES`."""
    server: MakeServer | None = None
    """Gives an endpoint to listen with."""
    client: MakeClient | None = None
    """Gives an endpoint to connect to a port with."""
    again: Callable[[IListeningPort], IStreamServerEndpoint] | None = None
    """Gives an endpoint to listen once more at a port's address."""
    listenDatagram: ListenDatagram | None = None
    """Opens a port of datagrams."""
    address: Callable[[IListeningPort], tuple[str, int]] | None = None
    """The address at which datagrams reach a port."""
    factory: Callable[[], IProtocolFactory] | None = None
    """Makes the protocol factory that is judged (see `serving`)."""
    patience: float = field(default=PATIENCE, kw_only=True)
    """Seconds of the reactor's time after which what has not come will not come."""

    def __post_init__(self) -> None:
        featuresOf(self.features)
        for word, needed in _NEEDED.items():
            missing = [name for name in needed if getattr(self, name) is None]
            if word in self.features and missing:
                raise OptionError(f"{self.name} claims {word!r} without {', '.join(missing)}: give it")

    def __str__(self) -> str:
        return self.name

    # -- the usual ones

    @classmethod
    def tcp(cls, reactor: Any, interface: str = "127.0.0.1") -> Subject:
        """The TCP of *reactor*, on a local address of IPv4 or IPv6."""
        Server, Client = (
            (TCP6ServerEndpoint, TCP6ClientEndpoint) if ":" in interface else (TCP4ServerEndpoint, TCP4ClientEndpoint)
        )

        def server(*, backlog: int = BACKLOG) -> IStreamServerEndpoint:
            return Server(reactor, 0, backlog, interface)

        def client(port: IListeningPort, *, timeout: float = CONNECT_TIMEOUT) -> IStreamClientEndpoint:
            return Client(reactor, interface, _number(port), timeout)

        def again(port: IListeningPort) -> IStreamServerEndpoint:
            return Server(reactor, _number(port), BACKLOG, interface)

        return cls(f"TCP on {interface}", reactor, TCP, server, client, again)

    @classmethod
    def unix(cls, reactor: Any, folder: str | os.PathLike[str]) -> Subject:
        """The UNIX stream sockets of *reactor*, with their files in *folder*."""
        made = 0

        def server(*, backlog: int = BACKLOG) -> IStreamServerEndpoint:
            nonlocal made
            made += 1
            return UNIXServerEndpoint(reactor, os.path.join(folder, f"s{made}"), backlog)

        def client(port: IListeningPort, *, timeout: float = CONNECT_TIMEOUT) -> IStreamClientEndpoint:
            return UNIXClientEndpoint(reactor, _path(port), timeout)

        def again(port: IListeningPort) -> IStreamServerEndpoint:
            return UNIXServerEndpoint(reactor, _path(port))

        return cls("UNIX sockets", reactor, UNIX, server, client, again)

    @classmethod
    def udp(cls, reactor: Any, interface: str = "127.0.0.1") -> Subject:
        """The UDP of *reactor*, on a local address."""

        def listen(protocol: DatagramProtocol, number: int = 0) -> IListeningPort:
            port: IListeningPort = reactor.listenUDP(number, protocol, interface, maxPacketSize=MAX_DATAGRAM)
            return port

        return cls(
            f"UDP on {interface}",
            reactor,
            UDP,
            listenDatagram=listen,
            address=lambda port: (interface, _number(port)),
        )

    @classmethod
    def tls(cls, reactor: Any, server: Any, client: Any, interface: str = "127.0.0.1") -> Subject:
        """TLS over the TCP of *reactor*.  Needs pyOpenSSL.

        :param server: context factory or connection creator of the server, such as ``CertificateOptions``.
        :param client: the same of the client, such as ``optionsForClientTLS`` gives.
        """
        from twisted.protocols.tls import TLSMemoryBIOFactory

        plain = cls.tcp(reactor, interface)
        makeClient = plain.client
        assert makeClient is not None

        def connect(port: IListeningPort, *, timeout: float = CONNECT_TIMEOUT) -> IStreamClientEndpoint:
            endpoint: IStreamClientEndpoint = wrapClientTLS(client, makeClient(port, timeout=timeout))
            return endpoint

        served = plain.wrapped(lambda factory: TLSMemoryBIOFactory(server, False, factory), None)
        return replace(served, name=f"TLS on {interface}", features=TLS, client=connect)

    def wrapped(self, server: FactoryWrapper | None, client: FactoryWrapper | None, name: str | None = None) -> Subject:
        """This subject with its servers' and clients' factories wrapped.

        :param server: wraps the factories that listen; None leaves them as they are.
        :param client: wraps the factories that connect; None leaves them as they are.
        :param name: what it is called from now on.
        """
        makeServer, makeClient, makeAgain = self.server, self.client, self.again
        if makeServer is None or makeClient is None or makeAgain is None:
            raise OptionError(f"{self} has no streams to wrap: it needs server, client and again")

        def listen(*, backlog: int = BACKLOG) -> IStreamServerEndpoint:
            return _WrappedServer(makeServer(backlog=backlog), server)

        def connect(port: IListeningPort, *, timeout: float = CONNECT_TIMEOUT) -> IStreamClientEndpoint:
            return _WrappedClient(makeClient(port, timeout=timeout), client)

        def again(port: IListeningPort) -> IStreamServerEndpoint:
            return _WrappedServer(makeAgain(port), server)

        return replace(self, name=name or f"{self}, wrapped", server=listen, client=connect, again=again)

    def serving(self, factory: Callable[[], IProtocolFactory], name: str | None = None) -> Subject:
        """The subject for `checkProtocolFactory`: *factory* makes the factory that is judged, for each case a new
        one, and it serves on this subject's endpoints."""
        return replace(self, name=name or f"a factory on {self}", factory=factory, features=self.features | {"factory"})

    def claiming(self, *words: str) -> Subject:
        """This subject, which claims these features too."""
        return replace(self, features=self.features | featuresOf(words))

    def without(self, *words: str) -> Subject:
        """This subject, which does not claim these features."""
        return replace(self, features=self.features - featuresOf(words))

    # -- what the cases stand on

    @asynccontextmanager
    async def stage(self) -> AsyncIterator[Stage]:
        """A stage on which everything that was begun is ended afterwards, and must have ended."""
        stage = Stage(self)
        try:
            yield stage
        except BaseException:
            with suppress(HeardError):  # the first failure is the one to tell
                await stage.peers.closes()
            raise
        await stage.peers.closes()

    @asynccontextmanager
    async def connection(
        self, client: Callable[[Peer], object] | None = None, server: Callable[[Peer], object] | None = None
    ) -> AsyncIterator[tuple[Peer, Peer]]:
        """Client and server of a connection that stands; see `Stage.connects`."""
        async with self.stage() as stage:
            await stage.listens()
            yield await stage.connects(client, server)


class Stage:
    """Where the scene of a case is played: the peers, and the port that they meet at."""

    def __init__(self, subject: Subject) -> None:
        self.peers = Peers(subject.reactor, patience=subject.patience)
        self.subject = subject
        #: The port of the last `listens`.
        self.port: Any = None
        self._prepare: Callable[[Peer], object] | None = None
        self._halfClose = True

    async def listens(
        self,
        endpoint: IStreamServerEndpoint | None = None,
        *,
        backlog: int = BACKLOG,
        halfClose: bool = True,
        make: Callable[[], Peer | None] | None = None,
    ) -> Any:
        """Listen for the connections to come; returns the port.

        :param halfClose: whether the servers' protocols provide ``IHalfCloseableProtocol``.
        :param make: stands in the place of buildProtocol.
        """
        if endpoint is None:
            assert self.subject.server is not None
            endpoint = self.subject.server(backlog=backlog)
        self._halfClose = halfClose
        self.port = await self.peers.listens(endpoint, make or self._make)
        return self.port

    def endpoint(self, *, timeout: float = CONNECT_TIMEOUT) -> IStreamClientEndpoint:
        """The endpoint to connect to the port with."""
        assert self.subject.client is not None
        return self.subject.client(self.port, timeout=timeout)

    def atTheSameAddress(self) -> IStreamServerEndpoint:
        """An endpoint to listen at the port's address."""
        assert self.subject.again is not None
        return self.subject.again(self.port)

    async def connects(
        self, client: Callable[[Peer], object] | None = None, server: Callable[[Peer], object] | None = None
    ) -> tuple[Peer, Peer]:
        """Client and server of a connection that stands, after the handshake where there is one.

        :param client: prepares the client's peer before it is connected, to say how it reacts; such a connection is
            not waited for to be ready.
        :param server: the same for the server's.
        """
        self._prepare = server
        peer = self.peers.peer("client")
        if client is not None:
            client(peer)
        here = await self.peers.connects(self.endpoint(), peer)
        there = await self.peers.accepts()
        if "immediate" not in self.subject.features and client is None and server is None:
            await here.hears("handshake")
            await there.hears("handshake")
        return here, there

    def _make(self) -> Peer:
        peer = self.peers.peer("server", halfClose=self._halfClose)
        if self._prepare is not None:
            self._prepare(peer)
        return peer


@implementer(IStreamServerEndpoint)
class _WrappedServer:
    def __init__(self, endpoint: IStreamServerEndpoint, wrapper: FactoryWrapper | None) -> None:
        self._endpoint = endpoint
        self._wrapper = wrapper

    def listen(self, protocolFactory: IProtocolFactory) -> Any:
        return self._endpoint.listen(_wrap(self._wrapper, protocolFactory))


@implementer(IStreamClientEndpoint)
class _WrappedClient:
    def __init__(self, endpoint: IStreamClientEndpoint, wrapper: FactoryWrapper | None) -> None:
        self._endpoint = endpoint
        self._wrapper = wrapper

    def connect(self, protocolFactory: IProtocolFactory) -> Any:
        return self._endpoint.connect(_wrap(self._wrapper, protocolFactory))


def featuresOf(words: Iterable[str]) -> frozenset[str]:
    """The words as a set; raises OptionError for one that is not in `FEATURES`."""
    known = frozenset(words)
    for word in sorted(known - FEATURES.keys()):
        raise OptionError(f"there is no feature {word!r}: one of {', '.join(FEATURES)}")
    return known


def _wrap(wrapper: FactoryWrapper | None, factory: IProtocolFactory) -> IProtocolFactory:
    return factory if wrapper is None else wrapper(factory)


def _number(port: IListeningPort) -> int:
    host: Any = port.getHost()
    number: int = host.port
    return number


def _path(port: IListeningPort) -> str:
    host: Any = port.getHost()
    return os.fsdecode(host.name)
