"""
DatagramPort: the one class that meets the reactor for datagrams, UDP and UNIX.

Theory
======
A datagram is whole or it is not there: nothing is split, joined, or waited for in between, so there is no transport
between the socket and who uses it. A port reads each datagram from the kernel and hands on the very object, and gives
each one to the kernel when it is sent.

*Twisted's own ports are not used.* Four things that a socket can do are lost in them (Twisted 26.10): on epoll and poll
"refused", which comes back for a datagram that nobody wanted, ends the port silently, for both reactors take any error
of a socket for its end; a full kernel raises ``BlockingIOError`` out of ``write``, and nobody is told when there is
room again; ``stopListening`` keeps the port until a later turn; what is longer than ``maxPacketSize`` is cut silently.
What is left is a call of ``recvfrom`` and one of ``sendto``, and these stand here. All that is asked of a reactor is
``IReactorFDSet``, and ``IReactorTime`` for UNIX sockets; one that makes its own sockets
(:class:`~twisted_net.interfaces.ISocketMaker`) is asked for one.

*Receiving.* Datagrams go to `DatagramPort.receive`. Whoever cannot take them at once has them held, at most
`queueLimit` of them: what comes then is dropped and counted, as the kernel does when its own queue is full. A port
reads no more than `READS` datagrams in a turn, so that one that is flooded does not keep the others from theirs, and
whoever takes what is held once in a turn misses none.

*Sending.* A datagram is with the kernel when `send` returns, or there was no room for it (``None``). Then it may be
queued, and is sent in its turn. The kernel tells when there is room, with one exception: a UNIX socket that is not
connected is always writable, however full the one it sends to may be (unix_dgram_poll asks about the peer, and there is
none). There a timer asks again.

*Errors* of a datagram (it is too long, there is no route) are raised by the call that sends it, or told to whom it was
queued for. Errors of the past, which ICMP brings, belong to nobody: they are told to the user, `DatagramUser.failed`,
and the port goes on.

A port that is not connected hears of none, for a call's errno cannot say whom it is about. Linux can keep a queue of
errors that do say it (ip(7), IP_RECVERR): `DatagramPort.tellRefused` asks for that. It has its price: the error that
one place has caused fails the next call whomever that is for. So a send that fails is done once more, since nothing was
sent. And the queue has to be emptied whatever stands in it, or the socket is ready for ever: also what says that a
datagram of our own was too long.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Final, Literal, Protocol, TypeAlias

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IDelayedCall, IReadWriteDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_net.address import Address, UdpTarget, UnixTarget, isIP
from twisted_net.errors import ClosedError, LimitError, NetError, OptionError, forErrno
from twisted_net.interfaces import ISimulatedSocket, ISocketMaker
from twisted_net.wire import casting, layers, unixpath
from twisted_net.wire.casting import DatagramOptions, refusing
from twisted_net.wire.destination import RawPlace, addressOf
from twisted_net.wire.lookup import lookup
from twisted_net.wire.reasons import translate
from twisted_net.wire.waiting import outcome

__all__ = [
    "LONGEST",
    "QUEUE_LIMIT",
    "Data",
    "DatagramPort",
    "DatagramUser",
    "Unsent",
    "bind",
    "checkQueueLimit",
    "connect",
]

Data: TypeAlias = bytes | bytearray | memoryview

#: Bytes of the longest datagram that is received: the longest that UDP has (RFC 768: its length takes two bytes).
LONGEST: Final = 65_535

#: Datagrams that are held while nobody receives: about as many small ones as Linux keeps by default (its
#: ``net.core.rmem_default`` of 212,992 bytes is charged 768 for each).
QUEUE_LIMIT: Final = 256

#: Datagrams that may wait until the kernel has room.
UNSENT_LIMIT: Final = 1024

#: Datagrams that are read in one turn.
READS: Final = 64

#: Seconds after which a full UNIX socket is tried again that would not say that it has room.
RETRY: Final = 0.005

# A longer one shows by being longer.
_SIZE: Final = LONGEST + 1

#: The most that the kernel takes (udp(7)): 65,535 bytes less the headers; IPv6 does not count its own.
_SENDABLE: Final[dict[int, int]] = {socket.AF_INET: 65_507, socket.AF_INET6: 65_527}

#: Options that have Linux keep errors with their places (ip(7), ipv6(7); older Pythons have no names for them). A
#: socket of IPv6 may send to IPv4, too.
_RECVERR: Final = {
    socket.AF_INET: ((socket.IPPROTO_IP, 11),),
    socket.AF_INET6: ((socket.IPPROTO_IPV6, 25), (socket.IPPROTO_IP, 11)),
}

#: The flag that reads them; 0 on other systems.
_ERRQUEUE: Final[int] = getattr(socket, "MSG_ERRQUEUE", 0)

#: Bytes for what comes with each: a ``sock_extended_err``, which begins with the errno, and an address.
_ANCILLARY: Final = 256


def checkQueueLimit(limit: object) -> int:
    """
    *limit*, as a queue's limit.

    :raises OptionError: it is none.
    """
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
        raise OptionError(f"queueLimit is {limit!r}; it counts datagrams, a whole number, 1 or more")
    return limit


class DatagramUser(Protocol):
    """What stands behind a port: one of the faces."""

    def failed(self, error: NetError) -> None:
        """What was sent earlier did not arrive, as ICMP says; the port goes on."""

    def ended(self, error: NetError | None) -> None:
        """The port is closed: by `DatagramPort.close` (None), or by what went wrong. Called once, after all else."""


class Unsent:
    """A datagram that waits for room."""

    __slots__ = ("data", "done", "place")

    def __init__(self, data: bytes, place: RawPlace, done: Callable[[NetError | None], object]) -> None:
        self.data = data
        self.place = place
        self.done = done


@implementer(IReadWriteDescriptor)
class DatagramPort:
    """
    A datagram socket on a reactor. Made by `bind` and `connect`, and begun by `start`.

    :ivar receive: called with the bytes and the place of each datagram that comes. To be assigned; until then, `hold`.
        An exception that it raises ends the port.
    :ivar held: the datagrams that are held, with their places; to be taken from the left.
    :ivar received: datagrams that came.
    :ivar dropped: those of them that found no room.
    :ivar sent: datagrams that the kernel took.
    :ivar family: ``AF_INET``, ``AF_INET6`` or ``AF_UNIX``.
    :ivar peer: whom it is connected to: it sends there, and hears from nobody else. None for nobody.
    :ivar isClosed: whether it is.
    """

    def __init__(self, reactor: Any, skt: Any, file: unixpath.SocketFile | None = None) -> None:
        self.reactor = reactor
        self.receive: Callable[[bytes, RawPlace], object] = self.hold
        self.held: deque[tuple[bytes, RawPlace]] = deque()
        self._queueLimit = QUEUE_LIMIT
        self.received = self.dropped = self.sent = 0
        self.family: int = skt.family
        self.peer: Address | None = None
        self.isClosed = False
        self._skt = skt
        self._file = file
        self._user: Any = None
        self._unsent: deque[Unsent] = deque()
        self._retry: IDelayedCall | None = None
        self._refused: Callable[[RawPlace], object] | None = None
        self._behind = False  # errors wait in the kernel's queue, and poll(2) alone may not tell
        self._address = addressOf(self.family, skt.getsockname())

    def start(self, user: DatagramUser) -> None:
        """Begin to receive, for *user*."""
        self._user = user
        self.reactor.addReader(self)

    def __repr__(self) -> str:
        return f"<DatagramPort {self._address}{', closed' if self.isClosed else ''}>"

    # -- addresses

    @property
    def address(self) -> Address:
        """Where it is bound; it stays known when it is closed."""
        return self._address

    def connect(self, place: RawPlace) -> None:
        """
        Send to *place*, and hear from nobody else; may be called again for another place.

        What came before stays where it is, whoever it is from.

        :raises NetError: the system refuses.
        """
        self.checkOpen("connect")
        peer = addressOf(self.family, place)
        with refusing(peer, "connect"):
            self._skt.connect(place)
        self.peer = peer
        self._address = addressOf(self.family, self._skt.getsockname())

    # -- options

    def setOptions(self, options: DatagramOptions) -> None:
        """Change options; raises as `DatagramOptions.apply`. Those that have to be set before binding are refused."""
        self.checkOpen("setOptions")
        for name in options.given():
            if name in casting.EARLY:
                raise OptionError(f"setOptions: {name} has no effect on a socket that is bound; set it before")
        options.apply(self._skt)

    def joinGroup(self, group: str, interface: str | None = None) -> None:
        """See :func:`twisted_net.wire.casting.joinGroup`."""
        self.checkOpen("joinGroup")
        casting.joinGroup(self._skt, group, interface)

    def leaveGroup(self, group: str, interface: str | None = None) -> None:
        """See :func:`twisted_net.wire.casting.leaveGroup`."""
        self.checkOpen("leaveGroup")
        casting.leaveGroup(self._skt, group, interface)

    # -- receiving

    @property
    def queueLimit(self) -> int:
        """
        How many datagrams may be held, 1 or more; those that are held already stay.

        :raises OptionError: another number is set.
        """
        return self._queueLimit

    @queueLimit.setter
    def queueLimit(self, limit: int) -> None:
        self._queueLimit = checkQueueLimit(limit)

    def doRead(self) -> None:
        """The reactor's call: read what has come. Harmless when nothing has."""
        receiveFrom = self._skt.recvfrom
        if self._behind:
            self._hear()
        for number in range(READS):
            try:
                data, place = receiveFrom(_SIZE)
            except BlockingIOError:
                if number == 0:  # something else has woken us
                    self._hear()
                return
            except OSError as error:
                if self.isClosed:  # by who was told of a datagram
                    return
                if self._hear():
                    continue
                self._tell(error)
                return
            self.received += 1
            self.receive(data, place)

    def hold(self, data: bytes, place: RawPlace) -> bool:
        """Keep a datagram in `held`, or drop and count it when `queueLimit` of them are there; which of the two."""
        if len(self.held) >= self._queueLimit:
            self.dropped += 1
            return False
        self.held.append((data, place))
        return True

    def _tell(self, error: OSError) -> None:
        """Tell the user of an error that belongs to nobody."""
        told = translate(error, address=self.peer, syscall="recv")
        assert told is not None, "an OSError is no clean end"
        self._user.failed(told)

    def tellRefused(self, refused: Callable[[RawPlace], object]) -> bool:
        """
        Have *refused* called with the place of a datagram that ICMP says nobody took: there the port is closed.

        It is for ports that are not connected; whom a connected one sends to needs no telling. It is never called while
        something is sent.

        :returns: whether the system can: Linux, for internet sockets of its own. Otherwise nothing changes.
        """
        if not _ERRQUEUE or self.family == socket.AF_UNIX or ISimulatedSocket.providedBy(self._skt):
            return False
        for level, option in _RECVERR[socket.AddressFamily(self.family)]:
            self._skt.setsockopt(level, option, 1)
        self._refused = refused
        return True

    def _hear(self) -> bool:
        """Empty the queue of errors that have a place; whether there were any."""
        self._behind = False
        heard = False
        if self._refused is None:
            return heard
        for _ in range(READS):
            try:
                _, ancillary, _, place = self._skt.recvmsg(0, _ANCILLARY, _ERRQUEUE)
            except OSError:  # that was all; or who was told has closed the port
                return heard
            heard = True
            if any(int.from_bytes(cause[:4], sys.byteorder) == errno.ECONNREFUSED for _, _, cause in ancillary):
                self._refused(place)
        self._behind = True
        return heard

    # -- sending

    def send(self, data: Data, place: RawPlace = None) -> int | None:
        """
        Give *data* to the kernel.

        :param place: where it is for; None: whom the port is connected to.
        :returns: how many bytes were sent, which are all of them; None when there is no room, or others wait for it.
        :raises ClosedError: the port is closed.
        :raises NetError: it cannot be sent: ``EMSGSIZE``, ``ENETUNREACH``...
        """
        return None if self._unsent else self._give(data, place)

    def enqueue(self, data: Data, place: RawPlace, done: Callable[[NetError | None], object]) -> Unsent:
        """
        Let *data* wait for room. It is copied, unless it is ``bytes``.

        :param done: called when it was sent (None) or cannot be, on a later turn; with a ClosedError by `close`.
        :raises LimitError: `UNSENT_LIMIT` datagrams wait already.
        """
        if len(self._unsent) >= UNSENT_LIMIT:
            raise LimitError(
                f"send: {UNSENT_LIMIT} datagrams wait already until the system has room; wait until they are sent",
                code="ENOBUFS",
                syscall="send",
            )
        unsent = Unsent(bytes(data), place, done)
        self._unsent.append(unsent)
        if len(self._unsent) == 1:
            self._awaitRoom(place)
        return unsent

    def withdraw(self, unsent: Unsent) -> None:
        """Do not send it any more; harmless when it was."""
        if unsent in self._unsent:
            self._unsent.remove(unsent)
            if not self._unsent:
                self._stopWaiting()

    def _awaitRoom(self, place: RawPlace) -> None:
        if self.family == socket.AF_UNIX and place is not None:
            self._retry = self.reactor.callLater(RETRY, self.doWrite)
        else:
            self.reactor.addWriter(self)

    def _stopWaiting(self) -> None:
        self.reactor.removeWriter(self)
        retry, self._retry = self._retry, None
        if retry is not None and retry.active():
            retry.cancel()

    def doWrite(self) -> None:
        """The reactor's call: there may be room."""
        self._stopWaiting()
        while self._unsent:
            first = self._unsent[0]
            error = None
            try:
                if self._give(first.data, first.place) is None:
                    self._awaitRoom(first.place)
                    return
            except NetError as refused:
                error = refused
            self._unsent.popleft()
            first.done(error)

    def _give(self, data: Data, place: RawPlace, again: bool = False) -> int | None:
        try:
            sent: int = self._skt.send(data) if place is None else self._skt.sendto(data, place)
        except BlockingIOError:
            return None
        except OSError as error:
            self.checkOpen("send")
            if self._refused is not None and not again:  # it may be of the past, and of another place
                self._behind = True
                return self._give(data, place, True)
            raise self._unsendable(error, len(data), place) from error
        except TypeError:
            raise OptionError(f"send: {data!r} is no bytes; encode a text first") from None
        self.sent += 1
        return sent

    def _unsendable(self, error: OSError, length: int, place: RawPlace) -> NetError:
        where = self.peer if place is None else addressOf(self.family, place)
        number = error.errno or 0
        if number == errno.EMSGSIZE:
            most = _SENDABLE.get(self.family)
            rule = "a UNIX socket sends less than its SO_SNDBUF" if most is None else f"send at most {most:,} at a time"
            what = f"{length:,} bytes are too long for a datagram; {rule}"
        elif number in (errno.EDESTADDRREQ, errno.ENOTCONN):
            number, what = errno.ENOTCONN, "this socket is not connected; connect() first, or say where to send to"
        elif number == errno.EACCES and self.family != socket.AF_UNIX:
            what = "this is a broadcast address, and broadcasting is not allowed yet; set the option broadcast=True"
        else:
            refusal = translate(error, address=where, syscall="send")
            assert refusal is not None, "an OSError is no clean end"
            return refusal
        return forErrno(number, f"send: {what}", address=where, syscall="send")

    # -- its end

    def checkOpen(self, what: str) -> None:
        """
        Whether something can be done.

        :raises ClosedError: the port is closed.
        """
        if self.isClosed:
            raise ClosedError(f"{what}: the socket is closed; bind or connect another one")

    def close(self) -> None:
        """Free the port, now; what is held or unsent is dropped. Harmless when it was done."""
        if not self.isClosed:
            self._end(None)

    def connectionLost(self, reason: Failure) -> None:
        """The reactor's call: its end, or an error of the socket that the reactor takes for one."""
        if self.isClosed:
            return
        number = self._skt.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if not number and not reason.check(ConnectionDone):
            self._end(translate(reason, address=self._address))
            return
        # A datagram socket has no end to read. Without a number the error was heard already, by a call that sent
        # something in the same turn; or it was that of another socket, whose descriptor was closed and given to us.
        self.reactor.addReader(self)
        if self._unsent:
            self._awaitRoom(self._unsent[0].place)
        if not self._hear() and number:
            self._tell(OSError(number, os.strerror(number)))

    def _end(self, error: NetError | None) -> None:
        self.isClosed = True
        self.reactor.removeReader(self)
        self._stopWaiting()
        if self._file is not None:
            self._file.remove()
        self._skt.close()
        self.held.clear()
        unsent, self._unsent = self._unsent, deque()
        for one in unsent:
            one.done(ClosedError("send: the socket was closed before there was room for the datagram", syscall="send"))
        if self._user is not None:  # it has begun
            self._user.ended(error)

    def descriptorsLeft(self) -> int:
        """How many more descriptors this process can open at most: :func:`twisted_net.wire.layers.descriptorsLeft`."""
        return layers.descriptorsLeft(self._skt)

    # -- for the reactor

    def fileno(self) -> int:
        """The socket's descriptor; -1 when it is closed."""
        number: int = self._skt.fileno()
        return number

    def logPrefix(self) -> str:
        """What Twisted's log has before what is logged meanwhile."""
        return "datagrams"


async def bind(
    reactor: Any, target: UdpTarget | UnixTarget, options: DatagramOptions, family: Literal[0, 4, 6] = 0
) -> DatagramPort:
    """
    A port that is bound to *target*; to be begun with `DatagramPort.start`.

    Host ``""`` is every IPv4 interface, ``"::"`` every interface, IPv4's too unless ``ipv6Only``. A name is looked up,
    and the first of its addresses that this machine has is bound. A UNIX socket's stale file is replaced, a live one is
    ``EADDRINUSE``; the file is removed on closing, if it is still ours.

    To be awaited in a coroutine that Twisted runs, or asyncio.

    :param family: 4 or 6 takes addresses of that version alone for a name.
    :raises NetError: ``EADDRINUSE``, ``EACCES``, ``EADDRNOTAVAIL``...
    """
    with refusing(target, "bind"):
        if isinstance(target, UdpTarget):
            hosts = await _hostsOf(reactor, target, family, "")
            return _first(hosts, lambda host: _open(reactor, _familyOf(host), options, bound=(host, target.port)))
        if ISocketMaker.providedBy(reactor):
            return _open(reactor, socket.AF_UNIX, options, bound=target.path)
        return await _bindFile(reactor, target, options)


async def connect(
    reactor: Any, target: UdpTarget | UnixTarget, options: DatagramOptions, family: Literal[0, 4, 6] = 0
) -> DatagramPort:
    """
    A port that is connected to *target*, and bound to whatever the system chooses: for a UNIX socket an abstract name,
    so that it can be answered. Otherwise as `bind`. That nobody is there shows when something is sent.
    """
    with refusing(target, "connect"):
        if isinstance(target, UnixTarget):
            return _open(reactor, socket.AF_UNIX, options, bound="", peer=target.path)
        hosts = await _hostsOf(reactor, target, family, "127.0.0.1")
        return _first(hosts, lambda host: _open(reactor, _familyOf(host), options, peer=(host, target.port)))


async def _hostsOf(reactor: Any, target: UdpTarget, family: Literal[0, 4, 6], nowhere: str) -> list[str]:
    if not target.host or isIP(target.host):
        return [target.host or nowhere]
    return await outcome(reactor, lookup(reactor, target.host, target.port, family))


def _familyOf(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if isIP(host) == 6 else socket.AF_INET


def _first(hosts: list[str], attempt: Callable[[str], DatagramPort]) -> DatagramPort:
    """The first attempt that succeeds: a name may have addresses that this machine cannot use."""
    *others, last = hosts
    for host in others:
        try:
            return attempt(host)
        except OSError as error:
            if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.ENETUNREACH):
                raise
    return attempt(last)


def _open(
    reactor: Any,
    family: socket.AddressFamily,
    options: DatagramOptions,
    *,
    bound: RawPlace = None,
    peer: RawPlace = None,
) -> DatagramPort:
    make = reactor.makeSocket if ISocketMaker.providedBy(reactor) else socket.socket
    with ExitStack() as undo:
        skt = undo.enter_context(make(family, socket.SOCK_DGRAM))
        skt.setblocking(False)
        if family == socket.AF_INET6 and options.ipv6Only is None:
            # The system's default may be either (sysctl net.ipv6.bindv6only).
            skt.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        options.prepare(skt)
        if bound is not None:
            skt.bind(bound)
        options.apply(skt)
        port = DatagramPort(reactor, skt)
        if peer is not None:
            port.connect(peer)
        undo.pop_all()
    return port


async def _bindFile(reactor: Any, target: UnixTarget, options: DatagramOptions) -> DatagramPort:
    with ExitStack() as undo:

        def made(result: tuple[socket.socket, unixpath.SocketFile | None]) -> Any:
            skt, file = result
            undo.callback(skt.close)
            if file is not None:
                undo.callback(file.remove)
            return result

        # If this is cancelled when the socket is made and before that is told, the stack undoes it.
        making = Deferred.fromCoroutine(unixpath.bind(reactor, target, None)).addCallback(made)
        skt, file = await outcome(reactor, making)
        options.prepare(skt)
        options.apply(skt)
        port = DatagramPort(reactor, skt, file)
        undo.pop_all()
    return port
