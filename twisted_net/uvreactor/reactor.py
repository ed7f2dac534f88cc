"""
The reactor: Twisted's asyncio reactor on a loop of uvloop's, with streams that are uvloop's own transports.

Timers, threads, datagrams, standard input and output, processes and whatever else has a descriptor are seen to as the
asyncio reactor does: by ``add_reader`` and ``call_at`` of the loop. What this one changes is who makes connections, and
what a connection is (:mod:`~twisted_net.uvreactor.stream`).

Whoever asks a reactor what it watches (``removeAll`` and ``disconnectAll`` at shutdown, trial after each test) has to be
told of streams too, although no descriptor of theirs is watched by Twisted.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Final

import uvloop
from twisted.internet import error, main
from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.base import ReactorBase
from twisted.python import context, log
from twisted.python.failure import Failure

from twisted_net.uvreactor import client, server, unix
from twisted_net.uvreactor.children import ChildSignals
from twisted_net.uvreactor.sockets import GuardedSocket
from twisted_net.uvreactor.stream import Stream

__all__ = ["UvloopReactor"]

_LOST: Final = Failure(main.CONNECTION_LOST)


def _occupyStandard() -> None:
    """
    Open descriptors 0 to 2 on /dev/null if they are closed.

    A loop that is made then would get one of them for its epoll; and a daemon puts /dev/null there when it has forked.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)


@contextmanager
def _blockingAsBefore(descriptor: int) -> Iterator[None]:
    """
    Leave O_NONBLOCK as it is. libuv sets it on what it polls (uv_poll_init); but standard input, a terminal and a pipe
    are shared with programs that count on a read that waits.
    """
    blocking = descriptor >= 0 and os.get_blocking(descriptor)
    yield
    if blocking:
        os.set_blocking(descriptor, True)


class UvloopReactor(AsyncioSelectorReactor):
    """
    A reactor on uvloop.

    :param eventloop: a loop of uvloop's, or None for a new one, which becomes asyncio's loop of this thread.
    """

    def __init__(self, eventloop: Any = None) -> None:
        if eventloop is None:
            _occupyStandard()
            eventloop = uvloop.new_event_loop()
            asyncio.set_event_loop(eventloop)
        self._streams: set[Stream] = set()
        self._handed: list[tuple[Coroutine[Any, Any, Any], asyncio.Future[Any]]] = []
        #: Has something called in the next turn: ``loop.call_soon``.
        self.soon = eventloop.call_soon
        #: The stack of contexts of the thread that the reactor runs in; the first one is everybody's.
        self.contexts: list[Any] = context.theContextTracker.currentContext().contexts
        super().__init__(eventloop)

    def _signalsFactory(self) -> Any:
        # Both are private names of Twisted's, for which nothing public stands.
        from twisted.internet._signals import _MultiSignalHandling

        soon = self._asyncioEventloop.call_soon
        return _MultiSignalHandling((ReactorBase._signalsFactory(self), ChildSignals(soon)))

    def startRunning(self, installSignalHandlers: Any = True) -> None:
        """Begin; in whichever thread that is."""
        self.contexts = context.theContextTracker.currentContext().contexts
        super().startRunning(installSignalHandlers)

    # -- from a socket to a transport of uvloop's

    def handOver(self, stream: Stream, skt: GuardedSocket) -> None:
        """
        Give a connected socket to uvloop, whose transport will call ``stream``, beginning in the next turn.

        uvloop makes the transport before its coroutine first waits, and waits for nothing but ``connection_made``: so
        the coroutine needs no task. It must come to its end, though, or the transport is closed with it.
        """
        handing = self._asyncioEventloop.connect_accepted_socket(lambda: stream, skt)
        if skt.family == socket.AF_UNIX:
            waiter = handing.send(None)
        else:
            # uvloop turns it on, always; Twisted leaves it as it is.
            noDelay = skt.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            waiter = handing.send(None)
            if not noDelay:
                skt.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 0)
        if not self._handed:
            self.soon(self._endHanding)
        self._handed.append((handing, waiter))
        self._streams.add(stream)

    def _endHanding(self) -> None:
        handed, self._handed = self._handed, []
        for handing, waiter in handed:
            if not waiter.done():
                self._handed.append((handing, waiter))
                continue
            try:
                handing.send(None)
            except (StopIteration, RuntimeError):
                pass  # done; or closed before uvloop could say that it is there
        if self._handed:
            self.soon(self._endHanding)

    def forget(self, stream: Stream) -> None:
        """A stream has ended."""
        self._streams.discard(stream)

    # -- IReactorTCP, IReactorUNIX, IReactorSocket: as in PosixReactorBase, with our kinds

    def listenTCP(self, port: Any, factory: Any, backlog: int = 50, interface: str = "") -> Any:
        """As ``IReactorTCP``."""
        listening = server.Port(port, factory, backlog, interface, self)
        listening.startListening()
        return listening

    def connectTCP(
        self, host: str, port: int, factory: Any, timeout: float = 30.0, bindAddress: Any = None
    ) -> Any:
        """As ``IReactorTCP``."""
        connector = client.Connector(host, port, factory, timeout, bindAddress, self)
        connector.connect()
        return connector

    def listenUNIX(self, address: Any, factory: Any, backlog: int = 50, mode: int = 0o666, wantPID: Any = 0) -> Any:
        """As ``IReactorUNIX``."""
        listening = unix.Port(address, factory, backlog, mode, self, wantPID)
        listening.startListening()
        return listening

    def connectUNIX(self, address: Any, factory: Any, timeout: float = 30, checkPID: Any = 0) -> Any:
        """As ``IReactorUNIX``."""
        connector = unix.Connector(address, factory, timeout, self, checkPID)
        connector.connect()
        return connector

    def adoptStreamPort(self, fileDescriptor: int, addressFamily: Any, factory: Any) -> Any:
        """As ``IReactorSocket``."""
        self._mustSupport(addressFamily)
        if addressFamily == socket.AF_UNIX:
            listening: Any = unix.Port._fromListeningDescriptor(self, fileDescriptor, factory)
        else:
            listening = server.Port._fromListeningDescriptor(self, fileDescriptor, addressFamily, factory)
        listening.startListening()
        return listening

    def adoptStreamConnection(self, fileDescriptor: int, addressFamily: Any, factory: Any) -> Any:
        """As ``IReactorSocket``."""
        self._mustSupport(addressFamily)
        if addressFamily == socket.AF_UNIX:
            return unix.ServerUnixStream.adoptUnix(fileDescriptor, factory, self)
        return server.ServerStream.adopt(fileDescriptor, addressFamily, factory, self)

    def _mustSupport(self, addressFamily: Any) -> None:
        if addressFamily not in self._supportedAddressFamilies:
            raise error.UnsupportedAddressFamily(addressFamily)

    # -- IReactorFDSet, for streams too

    def addReader(self, reader: Any) -> None:
        """As ``IReactorFDSet``."""
        if isinstance(reader, Stream):
            reader.startReading()
        else:
            with _blockingAsBefore(reader.fileno()):
                super().addReader(reader)

    def removeReader(self, reader: Any) -> None:
        """As ``IReactorFDSet``."""
        if isinstance(reader, Stream):
            reader.stopReading()
        else:
            super().removeReader(reader)

    def addWriter(self, writer: Any) -> None:
        """As ``IReactorFDSet``."""
        if isinstance(writer, Stream):
            writer.startWriting()
        else:
            with _blockingAsBefore(writer.fileno()):
                super().addWriter(writer)

    def removeWriter(self, writer: Any) -> None:
        """As ``IReactorFDSet``."""
        if isinstance(writer, Stream):
            writer.stopWriting()
        else:
            super().removeWriter(writer)

    def getReaders(self) -> list[Any]:
        """As ``IReactorFDSet``."""
        return [*super().getReaders(), *(stream for stream in self._streams if stream.isReading)]

    def getWriters(self) -> list[Any]:
        """As ``IReactorFDSet``."""
        return [*super().getWriters(), *(stream for stream in self._streams if stream.isWriting)]

    def removeAll(self) -> list[Any]:
        """As ``IReactorFDSet``."""
        watched = [stream for stream in self._streams if stream.isReading or stream.isWriting]
        for stream in watched:
            stream.stopReading()
            stream.stopWriting()
        return [*super().removeAll(), *watched]

    def disconnectAll(self) -> None:
        """End every connection; also those that neither read nor write, of which the stock reactors know nothing."""
        super().disconnectAll()
        for stream in list(self._streams):
            log.callWithLogger(stream, stream.connectionLost, _LOST)
