"""A reactor in memory: what Twisted's reactors do with the system, done with a host of a network in memory.

It is Twisted's own ``ReactorBase`` (triggers, ``callWhenRunning``, calls from threads), with three things of its own:

*Time* is the network's. Calls that are due at the same time run in the order in which they were made, which matters
more here than on a real clock, where hardly any two are.

*Turns.* A turn runs what is due, and then serves every socket that was ready when it began, as epoll's does: first
``doRead``, then ``doWrite``, with the same consequences for what they return or raise, and in the same log context.
The network decides whose turn it is.

*Sockets* come from the host, and Twisted's transports run on them unchanged (:mod:`twisted_net.testing.transports`).
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Any, Final

from twisted.internet import error, tcp
from twisted.internet.base import DelayedCall, ReactorBase
from twisted.internet.interfaces import (
    IHalfCloseableDescriptor,
    IReactorFDSet,
    IReactorMulticast,
    IReactorSSL,
    IReactorTCP,
    IReactorUDP,
    IReactorUNIX,
)
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.logger import Logger
from twisted.python import context
from twisted.python.failure import Failure
from twisted.python.log import ILogContext
from zope.interface import implementer

from twisted_net.interfaces import ISocketMaker
from twisted_net.testing.kernel.sockets import POLLERR, POLLHUP, POLLIN, POLLOUT, Socket
from twisted_net.testing.names import MemoryResolver
from twisted_net.testing.threads import InlineThreadPool
from twisted_net.testing.transports import TcpConnector, TcpPort, UdpPort, UnixConnector, UnixPort

if TYPE_CHECKING:
    from twisted_net.testing.host import Host

_GONE: Final = POLLERR | POLLHUP

#: Cancelled calls that may lie among the pending ones before they are swept out.
_SWEEP: Final = 64


@implementer(IReactorFDSet, IReactorTCP, IReactorSSL, IReactorUNIX, IReactorUDP, IReactorMulticast, ISocketMaker)
class MemoryReactor(ReactorBase):
    """The reactor of one host; made with it."""

    _registerAsIOThread = False
    _log = Logger()

    def __init__(self, host: Host) -> None:
        #: The host that it runs on.
        self.host = host
        self._network = host.network
        self._order = f"order {host.name}"
        self._calls: list[tuple[float, int, DelayedCall]] = []
        self._made = 0
        self._cancelled = 0
        self._reads: dict[Any, Socket] = {}
        self._writes: dict[Any, Socket] = {}
        super().__init__()
        #: The descriptor that Twisted's ports give up to turn a client away when there is no other.
        self.spare = tcp._FileDescriptorReservation(self._openSpare)

    def __repr__(self) -> str:
        return f"<MemoryReactor of {self.host.name} at {self.seconds():g} s>"

    # -- what ReactorBase asks of reactors

    def installWaker(self) -> None:
        """Nobody sleeps here: nothing has to be woken."""

    def _initThreads(self) -> None:
        self.installNameResolver(MemoryResolver(self.host, self))
        self.usingThreads = True

    def getThreadPool(self) -> Any:
        """A pool without threads; see :mod:`twisted_net.testing.threads`."""
        if self.threadpool is None:
            self.threadpool = InlineThreadPool(self)  # type: ignore[assignment]
        return self.threadpool

    def run(self, installSignalHandlers: bool = False) -> None:
        """Run until `stop`, and with it the whole network; it never installs handlers of signals.

        :raises StalledError: nothing is scheduled any more, anywhere.
        """
        if not self._started:
            self.startRunning(installSignalHandlers=False)
        self._network.runWhile(lambda: self._started)

    def iterate(self, delay: float = 0) -> None:
        """One step of the network, or as many as *delay* seconds take."""
        self._network.advance(delay)

    def startOnce(self) -> None:
        """Be running from now on, unless it has been started before."""
        if not self._startedBefore and not self._started:
            self.startRunning(installSignalHandlers=False)

    def advance(self, seconds: float) -> None:
        """Let *seconds* pass on the whole network, as :meth:`MemoryNetwork.advance
        <twisted_net.testing.network.MemoryNetwork.advance>` does."""
        self._network.advance(seconds)

    def _openSpare(self) -> Any:
        return _Spare(self.host)

    # -- time

    def seconds(self) -> float:
        """The network's time: seconds since it was made."""
        return self._network.now

    def callLater(self, delay: float, callable: Callable[..., Any], *args: object, **kw: object) -> DelayedCall:
        """Call after *delay* seconds; without a delay, on the next turn."""
        if not delay >= 0:
            raise AssertionError(f"{delay} is not greater than or equal to 0 seconds")
        at = self._network.now + delay
        cancel, sooner = self._cancelCallLater, self._moveCallLaterSooner
        call = DelayedCall(at, callable, args, kw, cancel, sooner, seconds=self.seconds)
        self._schedule(call)
        return call

    def _schedule(self, call: DelayedCall) -> None:
        self._made += 1
        heappush(self._calls, (call.time, self._made, call))

    def _cancelCallLater(self, delayedCall: DelayedCall) -> None:
        self._cancelled += 1
        if self._cancelled > _SWEEP and self._cancelled * 2 > len(self._calls):
            self._calls = [entry for entry in self._calls if entry[2].active() and entry[2] is not delayedCall]
            heapify(self._calls)
            self._cancelled = 0

    def _moveCallLaterSooner(self, delayedCall: DelayedCall) -> None:
        # The entry that it had is passed over when its time comes: the call has been made then, or says another time.
        self._schedule(delayedCall)

    def getDelayedCalls(self) -> Sequence[Any]:
        """What is scheduled."""
        return list({id(call): call for _, _, call in sorted(self._calls, key=_when) if call.active()}.values())

    def nextDeadline(self) -> float | None:
        """When something is due: now, for a turn that has work; None when nothing ever is."""
        if self.host.ready or self.threadCallQueue or self._justStopped:
            return self._network.now
        entry = self._nextCall() if self._calls else None
        return None if entry is None else entry[0]

    def _nextCall(self) -> tuple[float, int, DelayedCall] | None:
        """The entry of the call that is due first, once those of no more meaning are gone."""
        calls = self._calls
        while calls:
            entry = calls[0]
            at, _, call = entry
            if call.cancelled or call.called or call.time != at:
                heappop(calls)
                self._cancelled -= call.cancelled
            elif call.delayed_time > 0.0:
                heappop(calls)
                call.activate_delay()
                self._schedule(call)
            else:
                return entry
        return None

    # -- turns

    def turn(self) -> None:
        """What is due, and then every socket that is ready."""
        if self._calls or self.threadCallQueue or self._justStopped:
            self._runDue()
        ready = self.host.ready
        for _ in range(len(ready)):
            if not ready:  # the host has died in between
                break
            choices = self._network.choices
            if choices.calm or len(ready) == 1:
                skt = ready.popleft()
            else:
                place = choices.pick(self._order, len(ready), 3)
                skt = ready[place]
                del ready[place]
            skt.listed = False
            self._serve(skt)

    def _runDue(self) -> None:
        if self.threadCallQueue:
            calls, self.threadCallQueue = self.threadCallQueue, []
            for function, args, kw in calls:
                self._guarded(function, *args, **kw)
        now = self._network.now
        limit = self._made  # what is made in this turn is for the next one
        while (entry := self._nextCall()) is not None and entry[0] <= now and entry[1] <= limit:
            call = heappop(self._calls)[2]
            call.called = 1
            self._guarded(call.func, *call.args, **call.kw)
        if self._justStopped:
            self._justStopped = False
            self.fireSystemEvent("shutdown")

    def _guarded(self, function: Callable[..., object], *args: object, **kw: object) -> None:
        try:
            function(*args, **kw)
        except Exception:
            self._log.failure("while handling a call of {function!r}", function=function)

    def _serve(self, skt: Socket) -> None:
        """Let whoever watches *skt* read, write, or hear of its end."""
        reader, writer = skt.reader, skt.writer
        selectable = writer if reader is None else reader
        if selectable is None:
            return
        mask = skt.poll()
        reads, writes = reader is not None and mask & POLLIN, writer is not None and mask & POLLOUT
        why: Any = None
        contexts = context.theContextTracker.currentContext().contexts
        contexts.append({**contexts[-1], ILogContext: {"system": selectable.logPrefix(), "isError": 0}})
        try:
            if mask & POLLERR and skt.kind is socket.SOCK_DGRAM:
                # ICMP has come. Most of Twisted's reactors let the port read it; epoll's takes it for the port's end.
                reads = reader is not None
            if mask & _GONE and not reads:
                # As Twisted's reactors that poll: with nothing more to read, this is the end.
                why = CONNECTION_LOST if reader is None else CONNECTION_DONE
                reads = reader is not None
            else:
                if reads:
                    why = selectable.doRead()
                if not why and writes and skt.writer is not None:
                    why = selectable.doWrite()
                    reads = False
        except Exception as raised:
            self._log.failure("while serving {selectable!r}", selectable=selectable)
            why = raised
        try:
            if why:
                self._disconnect(selectable, why, bool(reads))
        except Exception:
            self._log.failure("while disconnecting {selectable!r}", selectable=selectable)
        finally:
            contexts.pop()
        skt.wake()

    def _disconnect(self, selectable: Any, why: Exception, isRead: bool) -> None:
        """What *why*, returned or raised by *selectable*, means for it."""
        self.removeReader(selectable)
        kind = type(why)
        if isRead and kind is error.ConnectionDone and IHalfCloseableDescriptor.providedBy(selectable):
            selectable.readConnectionLost(_ENDS[kind])
            return
        self.removeWriter(selectable)
        selectable.connectionLost(_ENDS.get(kind) or Failure(why))

    # -- IReactorFDSet

    def addReader(self, reader: Any) -> None:
        """Serve *reader*, whose ``fileno()`` is of this host's, whenever its socket is readable."""
        if reader not in self._reads:
            skt = self.host.descriptor(self._fileno(reader))
            self._reads[reader] = skt
            skt.reader = reader
            skt.wake()

    def addWriter(self, writer: Any) -> None:
        """Serve *writer*, whose ``fileno()`` is of this host's, whenever its socket is writable."""
        if writer not in self._writes:
            skt = self._reads.get(writer) or self.host.descriptor(self._fileno(writer))
            self._writes[writer] = skt
            skt.writer = writer
            skt.wake()

    def removeReader(self, reader: Any) -> None:
        """Serve it no more. Harmless when it was not served."""
        skt = self._reads.pop(reader, None)
        if skt is not None:
            skt.reader = None

    def removeWriter(self, writer: Any) -> None:
        """Serve it no more. Harmless when it was not served."""
        skt = self._writes.pop(writer, None)
        if skt is not None:
            skt.writer = None

    def removeAll(self) -> list[Any]:
        """Serve nobody any more; those who were served."""
        served = list({**self._reads, **self._writes})
        for one in served:
            self.removeReader(one)
            self.removeWriter(one)
        return served

    def getReaders(self) -> list[Any]:
        """Those who are served when they can be read."""
        return list(self._reads)

    def getWriters(self) -> list[Any]:
        """Those who are served when they can be written."""
        return list(self._writes)

    def _fileno(self, selectable: Any) -> int:
        number: int = selectable.fileno()
        if number >= 0 and not self.host.hasDescriptor(number):
            raise ValueError(
                f"{selectable!r} has descriptor {number}, which is none of the host in memory {self.host.name!r}; "
                "a reactor in memory serves its own sockets alone: make them with makeSocket()"
            )
        return number

    # -- ISocketMaker

    def makeSocket(self, family: int, kind: int) -> Any:
        """A socket of the host's."""
        return self.host.socket(family, kind)

    def serveSocket(self, skt: Any, factory: Any) -> Any:
        """Take over *skt*, which is bound and listens, and serve it with *factory*."""
        kind = UnixPort if skt.family == socket.AF_UNIX else TcpPort
        port = kind.adopting(self, skt, factory)
        port.startListening()
        return port

    def unlink(self, path: Any) -> None:
        """Remove a UNIX socket's path from the host, as unlink(2); silent when it is not there."""
        try:
            self.host.ports.unlink(path)
        except FileNotFoundError:
            return

    # -- IReactorTCP, IReactorSSL, IReactorUNIX, IReactorUDP, IReactorMulticast

    def listenTCP(self, port: Any, factory: Any, backlog: int = 50, interface: str = "") -> TcpPort:
        """As ``IReactorTCP.listenTCP``."""
        listening = TcpPort(port, factory, backlog, interface, self)
        listening.startListening()
        return listening

    def connectTCP(
        self, host: str, port: int, factory: Any, timeout: float = 30, bindAddress: Any = None
    ) -> TcpConnector:
        """As ``IReactorTCP.connectTCP``."""
        connector = TcpConnector(host, port, factory, timeout, bindAddress, self)
        connector.connect()
        return connector

    def listenSSL(
        self, port: Any, factory: Any, contextFactory: Any, backlog: int = 50, interface: str = ""
    ) -> TcpPort:
        """As ``IReactorSSL.listenSSL``. Needs pyOpenSSL."""
        from twisted.protocols.tls import TLSMemoryBIOFactory

        wrapped = TLSMemoryBIOFactory(contextFactory, False, factory, clock=self)
        listening = self.listenTCP(port, wrapped, backlog, interface)
        listening._type = "TLS"
        return listening

    def connectSSL(
        self,
        host: str,
        port: int,
        factory: Any,
        contextFactory: Any,
        timeout: float = 30,
        bindAddress: Any = None,
    ) -> TcpConnector:
        """As ``IReactorSSL.connectSSL``. Needs pyOpenSSL."""
        from twisted.protocols.tls import TLSMemoryBIOFactory

        wrapped = TLSMemoryBIOFactory(contextFactory, True, factory, clock=self)
        return self.connectTCP(host, port, wrapped, timeout, bindAddress)

    def listenUNIX(
        self, address: Any, factory: Any, backlog: int = 50, mode: int = 0o666, wantPID: int = 0
    ) -> UnixPort:
        """As ``IReactorUNIX.listenUNIX``. The path is a name of the host's; *mode* and *wantPID* change nothing."""
        listening = UnixPort(address, factory, backlog, mode, self)
        listening.startListening()
        return listening

    def connectUNIX(self, address: Any, factory: Any, timeout: float = 30, checkPID: int = 0) -> UnixConnector:
        """As ``IReactorUNIX.connectUNIX``; *checkPID* changes nothing."""
        connector = UnixConnector(address, factory, timeout, self, False)  # type: ignore[no-untyped-call]
        connector.connect()
        return connector

    def listenUDP(self, port: int, protocol: Any, interface: str = "", maxPacketSize: int = 8192) -> UdpPort:
        """As ``IReactorUDP.listenUDP``."""
        return self.listenMulticast(port, protocol, interface, maxPacketSize)

    def listenMulticast(
        self,
        port: int,
        protocol: Any,
        interface: str = "",
        maxPacketSize: int = 8192,
        listenMultiple: bool = False,
    ) -> UdpPort:
        """As ``IReactorMulticast.listenMulticast``."""
        listening = UdpPort(port, protocol, interface, maxPacketSize, self, listenMultiple)
        listening.startListening()
        return listening


class _Spare:
    """A descriptor that is there to be given up."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._number = host.openDescriptor(None)

    def close(self) -> None:
        """Give it up."""
        self._host.closeDescriptor(self._number)


def _when(entry: tuple[float, int, DelayedCall]) -> tuple[float, int]:
    return entry[:2]


_ENDS: Final[dict[Any, Failure]] = {
    error.ConnectionDone: Failure(error.ConnectionDone()),
    error.ConnectionLost: Failure(error.ConnectionLost()),
}
