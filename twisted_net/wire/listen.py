"""
Bind and listen: TCP, UNIX, a descriptor that was inherited, or any of Twisted's endpoints.

Sockets of our own making are bound here and handed to the reactor when they listen, as inherited ones are. Twisted's
own ``listenTCP`` and ``listenUNIX`` are not used: in versions of Twisted that are supported here they leave the socket
of a failed bind to the garbage collector, and ``doStart`` of a factory without its ``doStop``.

A UNIX socket needs one thing more. Every way that Twisted has to listen on one, ``adoptStreamPort`` included, sets the
file's permissions to 0666 and the backlog to 50 as it begins, and removes the path as it ends, whoever's file is there
by then. For an inherited socket all of that is the business of who made it; for our own see
:mod:`~twisted_net.wire.unixpath`. So both run in a port of Twisted's that has these three things taken out.

What an endpoint makes keeps the manners of its own port.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from typing import Any, Final, TypeVar

from twisted.internet import tcp, unix
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IProtocolFactory,
    IProtocolNegotiationFactory,
    IStreamServerEndpoint,
)
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_net.address import EndpointTarget, Target, TcpTarget, UnixTarget, isIP
from twisted_net.errors import AddressError, BusyError, NetError, OptionError
from twisted_net.interfaces import ISocketMaker
from twisted_net.sansio.backoff import Backoff
from twisted_net.wire import inherit, unixpath
from twisted_net.wire.lookup import lookup
from twisted_net.wire.reasons import translate

__all__ = ["BACKLOG", "ListeningPort", "bind", "listen", "listenRetrying", "serve"]

T = TypeVar("T")

#: Connections that may wait to be accepted: Node's default. The kernel's own bound is ``net.core.somaxconn``.
BACKLOG: Final = 511

# An int of C, as listen(2) takes it.
_HIGHEST_BACKLOG: Final = 2**31 - 1


@implementer(IListeningPort)
class ListeningPort:
    """A port that listens. Made by :func:`listen`."""

    __slots__ = ("_host", "_stopping", "canPause", "port")

    def __init__(self, port: Any) -> None:
        #: Twisted's own port.
        self.port = port
        #: Whether :meth:`pauseProducing` does anything.
        self.canPause: bool = hasattr(port, "pauseProducing") and hasattr(port, "resumeProducing")
        self._host: IAddress = port.getHost()
        self._stopping: Deferred[object] | None = None

    def __repr__(self) -> str:
        return f"<ListeningPort {self._host}{'' if self._stopping is None else ', stopped'}>"

    def startListening(self) -> None:
        """Of no use: a port listens when it is made, and never again when it was stopped."""
        raise BusyError("this port has begun to listen already; call listen() for another one", code="EALREADY")

    def getHost(self) -> IAddress:
        """Return the address that was bound; it stays known when the port has been stopped."""
        return self._host

    def stopListening(self) -> Deferred[None]:
        """
        Accept no more.

        :returns: fires when the port is closed, for every caller; only for the first it may fail, with
            :class:`~twisted_net.errors.NetError`.
        """
        stopped: Deferred[None] = Deferred()
        if self._stopping is None:
            self._stopping = maybeDeferred(self.port.stopListening)
            self._stopping.addErrback(_stopFailed, stopped)
        self._stopping.addBoth(_stopped, stopped)
        return stopped

    def pauseProducing(self) -> None:
        """Leave who connects in the kernel's queue, if :attr:`canPause`. Stock ports finish the turn they are in."""
        if self.canPause and self._stopping is None:
            self.port.pauseProducing()

    def resumeProducing(self) -> None:
        """Accept again."""
        if self.canPause and self._stopping is None:
            self.port.resumeProducing()


def listen(
    reactor: Any,
    factory: IProtocolFactory,
    where: Target | IStreamServerEndpoint | int,
    *,
    backlog: int = BACKLOG,
) -> Deferred[ListeningPort]:
    """
    Listen at ``where``, with ``factory`` building a protocol for each connection.

    ``where`` is one of:

    - :class:`~twisted_net.address.TcpTarget`. Host ``""`` is every IPv4 interface, ``"::"`` every interface, IPv4's
      too. A name is looked up; of its addresses the first one that this machine has is bound. SO_REUSEADDR is set
      (LUV-7).
    - :class:`~twisted_net.address.UnixTarget`. A stale socket file is replaced, a live one is ``EADDRINUSE``; the file
      is removed on stopping if it is still ours (LUV-8; :mod:`~twisted_net.wire.unixpath` has the details).
    - A whole number: a descriptor that was inherited, bound to a TCP or UNIX stream socket; it need not listen yet.
      On success it is taken over: only stopping the port closes the socket. On failure it stays with the caller.
    - :class:`~twisted_net.address.EndpointTarget`, or an endpoint itself.

    :param reactor: provides ``IReactorSocket``; for UNIX sockets also ``IReactorFDSet`` and ``IReactorTime``, for host
        names ``IReactorPluggableNameResolver``. One that provides
        :class:`~twisted_net.interfaces.ISocketMaker` is asked for its sockets instead.
    :param backlog: how many connections may wait to be accepted. Sockets that listen already and endpoints have theirs.
    :returns: fires with the port, at once where nothing has to be waited for (a name, another starter of the same UNIX
        socket, an endpoint). Cancelling it stops everything and fails it with code ``ECANCELED``.

        Fails with :class:`~twisted_net.errors.AddressError` for what cannot be listened on at all,
        :class:`~twisted_net.errors.OptionError` for a bad backlog, otherwise :class:`~twisted_net.errors.NetError`:
        ``EADDRINUSE``, ``EACCES``, ``ENOTFOUND``...
    """
    return Deferred.fromCoroutine(_listen(reactor, factory, where, backlog))


def bind(reactor: Any, target: TcpTarget) -> Deferred[Any]:
    """
    Bind a TCP socket to ``target``, without listening: for who decides later what it becomes.

    :returns: fires with the socket, which has ``getsockname()`` and ``close()``, and may be handed to :func:`serve`.
        Fails as :func:`listen`.
    """
    return Deferred.fromCoroutine(_refusing(_bindTcp(reactor, target), target))


def serve(reactor: Any, factory: IProtocolFactory, skt: Any, *, backlog: int = BACKLOG) -> Deferred[ListeningPort]:
    """
    Listen with a socket that :func:`bind` made; it is taken over, also when that fails.

    :returns: as :func:`listen`.
    """
    return Deferred.fromCoroutine(_refusing(_serveBound(reactor, factory, skt, backlog), "a socket that is bound"))


async def _serveBound(reactor: Any, factory: IProtocolFactory, skt: Any, backlog: int) -> ListeningPort:
    try:
        _checkBacklog(backlog)
    except OptionError:
        skt.close()
        raise
    return ListeningPort(_listenWith(reactor, factory, skt, backlog))


async def _refusing(work: Coroutine[Any, Any, T], where: object) -> T:
    """*work*, with every failure as one of ours."""
    try:
        return await work
    except NetError:
        raise
    except Exception as error:
        raise _refusal(error, where) from error


def listenRetrying(
    reactor: Any,
    factory: IProtocolFactory,
    where: Target | IStreamServerEndpoint | int,
    backoff: Backoff,
    *,
    onRetry: Callable[[NetError, int, float], object],
    backlog: int = BACKLOG,
) -> Deferred[ListeningPort]:
    """
    :func:`listen`, and again while the address is in use (LUV-6). Any other failure is final.

    :param reactor: see :func:`listen`; and ``IReactorTime`` for the delays.
    :param backoff: when, and how often.
    :param onRetry: called after each failure that will be followed by another attempt, with the error, the number of
        attempts that have failed, and the seconds until the next one.
    :returns: as :func:`listen`; fails with the last ``EADDRINUSE`` when attempts or time are spent. Cancelling it
        during a delay ends the delay.
    """
    return Deferred.fromCoroutine(_listenRetrying(reactor, factory, where, backoff, onRetry, backlog))


async def _listenRetrying(
    reactor: Any, factory: IProtocolFactory, where: Any, backoff: Backoff, onRetry: Callable[..., object], backlog: int
) -> ListeningPort:
    attempts = backoff.begin(reactor.seconds())
    while True:
        try:
            return await _listen(reactor, factory, where, backlog)
        except NetError as error:
            delay = attempts.failed(reactor.seconds()) if error.code == "EADDRINUSE" else None
            if delay is None:
                raise
            onRetry(error, attempts.count, delay)
        try:
            await deferLater(reactor, delay)
        except Exception as cancelled:
            raise _refusal(cancelled, where) from cancelled


async def _listen(reactor: Any, factory: IProtocolFactory, where: Any, backlog: int) -> ListeningPort:
    return ListeningPort(await _refusing(_start(reactor, factory, where, _checkBacklog(backlog)), where))


def _refusal(error: Exception, where: Any) -> NetError:
    refusal = translate(error, address=where, syscall="listen")
    assert refusal is not None, "nothing has ended that had begun"
    return refusal


async def _start(reactor: Any, factory: IProtocolFactory, where: Any, backlog: int) -> Any:
    """Twisted's port."""
    if isinstance(where, TcpTarget):
        return await _serveTcp(reactor, factory, where, backlog)
    if isinstance(where, UnixTarget) and ISocketMaker.providedBy(reactor):
        # Its paths are no files: nothing can be stale, and nobody else can take one meanwhile.
        return _listenWith(reactor, factory, _bound(reactor, socket.AF_UNIX, where.path), backlog)
    if isinstance(where, UnixTarget):
        return _serveUnix(reactor, factory, *await unixpath.bind(reactor, where, backlog))
    if isinstance(where, int):
        port = _serve(reactor, factory, inherit.listening(where, backlog))
        os.close(where)
        return port
    if isinstance(where, EndpointTarget):
        where = _endpoint(reactor, where)
        _declineProtocols(where, factory)
    if IStreamServerEndpoint.providedBy(where):
        return await maybeDeferred(where.listen, factory)
    raise AddressError(
        f"{where!r} is nothing to listen on; give a TcpTarget, a UnixTarget, an endpoint or its text, or a descriptor",
        address=where,
    )


def _serve(reactor: Any, factory: IProtocolFactory, skt: socket.socket) -> Any:
    if ISocketMaker.providedBy(reactor):
        return reactor.serveSocket(skt, factory)
    if skt.family == socket.AF_UNIX:
        return _serveUnix(reactor, factory, skt, None)
    with skt:  # Twisted duplicates it
        return reactor.adoptStreamPort(skt.fileno(), skt.family, factory)


# TCP


async def _serveTcp(reactor: Any, factory: IProtocolFactory, target: TcpTarget, backlog: int) -> Any:
    return _listenWith(reactor, factory, await _bindTcp(reactor, target), backlog)


async def _bindTcp(reactor: Any, target: TcpTarget) -> socket.socket:
    literal = not target.host or isIP(target.host)
    *others, last = [target.host] if literal else await lookup(reactor, target.host, target.port)
    for host in others:
        try:
            return _bindTo(reactor, host, target.port)
        except OSError as error:
            # A name may have addresses that this machine has not, or of a kind that it cannot use (no IPv6).
            if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                raise
    return _bindTo(reactor, last, target.port)


def _bindTo(reactor: Any, host: str, port: int) -> socket.socket:
    return _bound(reactor, socket.AF_INET6 if isIP(host) == 6 else socket.AF_INET, (host, port))


def _bound(reactor: Any, family: int, place: Any) -> socket.socket:
    make = reactor.makeSocket if ISocketMaker.providedBy(reactor) else socket.socket
    with ExitStack() as undo:
        skt: socket.socket = undo.enter_context(make(family, socket.SOCK_STREAM))
        skt.setblocking(False)
        if family != socket.AF_UNIX:
            skt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if place[0] == "::":
            # The system's default may be either (sysctl net.ipv6.bindv6only).
            skt.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        skt.bind(place)
        undo.pop_all()
    return skt


def _listenWith(reactor: Any, factory: IProtocolFactory, skt: socket.socket, backlog: int) -> Any:
    """Twisted's port for a socket that is bound; it is taken over, also when this fails."""
    with ExitStack() as undo:
        undo.callback(skt.close)
        skt.listen(backlog)
        undo.pop_all()
    return _serve(reactor, factory, skt)


# UNIX


class _UnixPort(unix.Port):
    """Twisted's port for a UNIX socket that is bound and listens: neither its file nor its backlog is touched."""

    # Another process may listen with the same socket; shutdown(2) would end that too.
    _shouldShutdown = False

    def __init__(
        self, skt: socket.socket, factory: IProtocolFactory, reactor: Any, file: unixpath.SocketFile | None
    ) -> None:
        super().__init__(skt.getsockname(), factory, reactor=reactor)
        self._listening = skt
        self._file = file

    def startListening(self) -> None:
        # What tcp.Port does with a socket that exists: its spare descriptor answers EMFILE in accept(2).
        tcp._reservedFD.reserve()
        self.factory.doStart()  # type: ignore[union-attr]  # a factory was given
        self.connected = True
        self.socket = self._listening
        self.fileno = self.socket.fileno  # type: ignore[method-assign]  # as tcp.Port does
        self.numberAccepts = 100
        self.startReading()  # type: ignore[no-untyped-call]

    def connectionLost(self, reason: Failure) -> None:
        # Also called for each port that is open when the reactor stops.
        if self._file is not None:
            self._file.remove()
        tcp.Port.connectionLost(self, reason)


def _serveUnix(
    reactor: Any, factory: IProtocolFactory, skt: socket.socket, file: unixpath.SocketFile | None
) -> _UnixPort:
    with ExitStack() as undo:
        undo.callback(skt.close)
        if file is not None:
            undo.callback(file.remove)
        port = _UnixPort(skt, factory, reactor, file)
        port.startListening()
        undo.pop_all()
    return port


# Endpoints


def _endpoint(reactor: Any, target: EndpointTarget) -> IStreamServerEndpoint:
    try:
        endpoint: IStreamServerEndpoint = serverFromString(reactor, target.description)
    except Exception as error:
        # Each kind of endpoint reads its own arguments, and raises what it happens to.
        raise AddressError(
            f"{target.description!r} is no endpoint to listen on: {error or type(error).__name__}; "
            'correct it, or write "host:port" or "/path" for a plain one',
            address=target,
        ) from error
    return endpoint


def _declineProtocols(endpoint: IStreamServerEndpoint, factory: IProtocolFactory) -> None:
    """
    Let TLS clients in that offer protocols (ALPN), though ``factory`` has none to choose from.

    Most clients of HTTP offer some. A server without ALPN goes on as if they had not (RFC 7301, 3.2, leaves that to
    it); Twisted 26.10 sends them away with an internal error.
    """
    options = getattr(endpoint, "_sslContextFactory", None)
    if options is None or IProtocolNegotiationFactory(factory, None) is not None:
        return
    from OpenSSL.SSL import NO_OVERLAPPING_PROTOCOLS

    options.getContext().set_alpn_select_callback(lambda connection, offered: NO_OVERLAPPING_PROTOCOLS)


def _checkBacklog(backlog: object) -> int:
    if isinstance(backlog, bool) or not isinstance(backlog, int) or not 0 <= backlog <= _HIGHEST_BACKLOG:
        raise OptionError(f"backlog is {backlog!r}; it counts connections, a whole number from 0 to {_HIGHEST_BACKLOG}")
    return backlog


def _stopFailed(failure: Failure, first: Deferred[None]) -> None:
    first.errback(translate(failure, syscall="close") or failure)


def _stopped(result: object, waiter: Deferred[None]) -> None:
    if not waiter.called:
        waiter.callback(None)
