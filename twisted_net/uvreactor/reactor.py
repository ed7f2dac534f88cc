"""
The reactor: Twisted's asyncio reactor on a loop of uvloop's, with streams that are uvloop's own transports.

Timers and threads are seen to as the asyncio reactor does, by the loop's ``call_at`` and ``call_soon_threadsafe``.
What this one changes is who makes connections, what a connection is (:mod:`~twisted_net.uvreactor.stream`), and how
all other descriptors are watched (:mod:`~twisted_net.uvreactor.watcher`).

Whoever asks a reactor what it watches (``removeAll`` and ``disconnectAll`` at shutdown, trial after each test) has to
be told of streams too, although no descriptor of theirs is watched by Twisted.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, Final

import uvloop
from twisted.internet import error, main
from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.base import ReactorBase
from twisted.python import context, log
from twisted.python.failure import Failure

from twisted_net.uvreactor import client, server, unix
from twisted_net.uvreactor.children import ChildSignals
from twisted_net.uvreactor.sockets import GuardedSocket, LentSocket
from twisted_net.uvreactor.stream import Stream
from twisted_net.uvreactor.watcher import READ, WRITE, Watcher

__all__ = ["UvloopReactor", "install"]

_LOST: Final = Failure(main.CONNECTION_LOST)


def install(eventloop: Any = None) -> None:
    """As :func:`twisted_net.uvreactor.install`."""
    main.installReactor(UvloopReactor(eventloop))


def _occupyStandard() -> None:
    """
    Open descriptors 0 to 2 on /dev/null if they are closed.

    A loop that is made then would get one of them for its epoll; and a daemon puts /dev/null there when it has forked.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)


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
        self._arriving: dict[Stream, None] = {}  # in their order
        self._handed: list[tuple[Coroutine[Any, Any, Any], asyncio.Future[Any]]] = []
        #: Has something called in the next turn: ``loop.call_soon``.
        self.soon = eventloop.call_soon
        #: The stack of contexts of the thread that the reactor runs in; the first one is everybody's.
        self.contexts: list[Any] = context.theContextTracker.currentContext().contexts
        self._watcher = Watcher(eventloop, self._serve)
        super().__init__(eventloop)

    def _signalsFactory(self) -> Any:
        # A private name of Twisted's, for which nothing public stands.
        from twisted.internet._signals import _MultiSignalHandling

        return _MultiSignalHandling((ReactorBase._signalsFactory(self), ChildSignals(self.soon)))

    # -- IReactorTime

    #: Somebody has asked for the next turn.
    expecting = False

    def callLater(self, delay: float, callable: Any, *args: Any, **kw: Any) -> Any:
        """As ``IReactorTime``."""
        if delay == 0:
            self.expecting = True
        call = ReactorBase.callLater(self, delay, callable, *args, **kw)
        # As the asyncio reactor, which sorts all its calls to find the first one: only what comes before it is news.
        scheduled = self._scheduledAt
        if scheduled is None or self._asyncioEventloop.time() + delay < scheduled:
            self._reschedule()  # type: ignore[no-untyped-call]
        return call

    def runUntilCurrent(self) -> None:
        """Call what is due."""
        self.expecting = False
        super().runUntilCurrent()

    def iterate(self, delay: float = 0) -> None:
        """As ``IReactorCore``: what is due, what is ready, and one look at the descriptors, for ``delay`` seconds."""
        if delay > 0:
            self._asyncioEventloop.call_later(delay, self._asyncioEventloop.stop)
        else:
            self.soon(self._asyncioEventloop.stop)  # which asks for a turn itself
        self._asyncioEventloop.run_forever()

    def run(self, installSignalHandlers: Any = True) -> None:
        """As ``IReactorCore``."""
        self.startRunning(installSignalHandlers)
        # Not only once: a stop that `iterate` or `crash` asked for may outlast the run that it was meant for.
        while self._started:
            self._asyncioEventloop.run_forever()
        self._justStopped = False

    def startRunning(self, installSignalHandlers: Any = True) -> None:
        """Begin; in whichever thread that is."""
        self.contexts = context.theContextTracker.currentContext().contexts
        super().startRunning(installSignalHandlers)

    # -- from a socket to a transport of uvloop's

    def handOver(self, stream: Stream) -> None:
        """
        Give a stream's socket to uvloop in the next turn, unless the stream has ended by then.

        uvloop's transport calls the stream from then on, and its ``connection_made`` first.
        """
        if not self._arriving:
            self.soon(self._handAll)
        self._arriving[stream] = None
        self._streams.add(stream)

    def _handAll(self) -> None:
        arriving, self._arriving = self._arriving, {}
        for stream in arriving:
            skt = stream.toHand()
            if skt is not None:
                try:
                    self._hand(stream, skt)
                except Exception as failed:  # libuv has no memory for it
                    stream.refused(failed)

    def _hand(self, stream: Stream, skt: GuardedSocket) -> None:
        """
        uvloop makes the transport before its coroutine first waits, and waits for nothing but ``connection_made``: so
        the coroutine needs no task. It must come to its end, though, or the transport is closed with it.
        """
        lent: Any = LentSocket(skt)
        handing = self._asyncioEventloop.connect_accepted_socket(lambda: stream, lent)  # type: ignore[type-var]
        waiter = handing.send(None)
        if not self._handed:
            self.soon(self._endHanding)
        self._handed.append((handing, waiter))

    def _endHanding(self) -> None:
        handed, self._handed = self._handed, []
        for handing, waiter in handed:
            if not waiter.done():
                self._handed.append((handing, waiter))
                continue
            with suppress(StopIteration, RuntimeError):  # done; or closed before uvloop could say that it is there
                handing.send(None)
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
        connector = unix.Connector(address, factory, timeout, self, checkPID)  # type: ignore[no-untyped-call]
        connector.connect()
        return connector

    def adoptStreamPort(self, fileDescriptor: int, addressFamily: Any, factory: Any) -> Any:
        """As ``IReactorSocket``."""
        self._mustSupport(addressFamily)
        if addressFamily == socket.AF_UNIX:
            listening: Any = unix.Port._fromListeningDescriptor(self, fileDescriptor, factory)  # type: ignore[no-untyped-call]
        else:
            listening = server.Port._fromListeningDescriptor(self, fileDescriptor, addressFamily, factory)  # type: ignore[no-untyped-call]
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

    # -- IReactorFDSet: streams, what can be watched, and what is always ready

    def addReader(self, reader: Any) -> None:
        """As ``IReactorFDSet``."""
        if isinstance(reader, Stream):
            reader.startReading()
        elif not self._continuousPolling.isReading(reader):
            try:
                self._watcher.watch(reader, READ)
            except PermissionError:
                self._continuousPolling.addReader(reader)

    def addWriter(self, writer: Any) -> None:
        """As ``IReactorFDSet``."""
        if isinstance(writer, Stream):
            writer.startWriting()
        elif not self._continuousPolling.isWriting(writer):
            try:
                self._watcher.watch(writer, WRITE)
            except PermissionError:
                self._continuousPolling.addWriter(writer)

    def removeReader(self, reader: Any) -> None:
        """As ``IReactorFDSet``."""
        if isinstance(reader, Stream):
            reader.stopReading()
        else:
            self._watcher.forget(reader, READ)
            self._continuousPolling.removeReader(reader)

    def removeWriter(self, writer: Any) -> None:
        """As ``IReactorFDSet``."""
        if isinstance(writer, Stream):
            writer.stopWriting()
        else:
            self._watcher.forget(writer, WRITE)
            self._continuousPolling.removeWriter(writer)

    def _serve(self, one: Any, toRead: bool) -> None:
        log.callWithLogger(one, self._readOrWrite, one, toRead)

    def getReaders(self) -> list[Any]:
        """As ``IReactorFDSet``."""
        streams = [stream for stream in self._streams if stream.isReading]
        return [*self._watcher.watched[READ], *self._continuousPolling.getReaders(), *streams]

    def getWriters(self) -> list[Any]:
        """As ``IReactorFDSet``."""
        streams = [stream for stream in self._streams if stream.isWriting]
        return [*self._watcher.watched[WRITE], *self._continuousPolling.getWriters(), *streams]

    def removeAll(self) -> list[Any]:
        """As ``IReactorFDSet``."""
        removed = self._removeAll(self.getReaders(), self.getWriters())  # type: ignore[no-untyped-call]
        return list(removed)

    def disconnectAll(self) -> None:
        """End every connection; also those that neither read nor write, of which the stock reactors know nothing."""
        super().disconnectAll()
        for stream in list(self._streams):
            log.callWithLogger(stream, stream.connectionLost, _LOST)
