"""
TCP and UNIX stream sockets: backlog, windows, FIN, RST.

Theory
======
A connection is two `Lane`\\ s, one for each direction. A byte that is sent stands in one of three places::

    send() -> lane.unsent  ->  (on the road: lane.flight)  ->  lane.queue -> recv()
              sender's SNDBUF                                  receiver's RCVBUF

What is in flight or in the queue may be as much as the receiver's window; what does not fit waits unsent, and when that
is full, too, ``send`` takes no more (``EAGAIN``). Reading opens the window again. The FIN stands behind the last byte.

*Ends.* ``close`` with bytes unread sends RST instead of FIN (RFC 1122, 4.2.2.13), as does SO_LINGER with a time of 0;
bytes that reach a closed socket are answered by RST. RST is told by the next call (``ECONNRESET``; ``EPIPE`` when our
own side had been told of the end before: tcp(7)), but bytes that had arrived are read first. A UNIX socket knows no
RST: its peer reads what is left and then the end, can write nothing from the moment of closing, and hears
``ECONNRESET`` when bytes were left unread.

*Connecting.* TCP sends SYN and hears of it later; the server's program can accept when that has been acknowledged, too
(RFC 9293, 3.5), and so never meets a client that has heard nothing. SYN and its answer are sent again after 1, 3, 7,
15, 31 and 63 seconds when nothing comes back (a full backlog, a host that is gone), and after 127 it is ``ETIMEDOUT``
(tcp(7), tcp_syn_retries). UNIX connects, or does not, before ``connect`` returns.
"""

from __future__ import annotations

import array
import errno
import os
import socket
import struct
from collections import deque
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from twisted_net.testing.kernel.ports import key, seenBy
from twisted_net.testing.kernel.sockets import POLLERR, POLLHUP, POLLIN, POLLOUT, Place, Socket, failure

if TYPE_CHECKING:
    from twisted_net.sansio.faults import StreamFaults
    from twisted_net.testing.host import Host
    from twisted_net.testing.kernel.link import Road

#: SO_RCVBUF and SO_SNDBUF of sockets for which nobody has set them (Linux' net.ipv4.tcp_rmem); here they do not grow.
#: Half of the one is the window: bytes that a receiver takes before they are read. Half of the other is what a sender's
#: kernel keeps beyond that. The other halves are the kernel's own (socket(7)).
BUFFER: Final = 131_072

#: The longest queue of connections that wait to be accepted: Linux' net.core.somaxconn.
SOMAXCONN: Final = 4096

#: Seconds after the first SYN at which it is sent again, and at which that is given up (tcp(7): tcp_syn_retries is 6).
SYN_RETRIES: Final = (1.0, 3.0, 7.0, 15.0, 31.0, 63.0)
SYN_TIMEOUT: Final = 127.0

_PEEK: Final = int(socket.MSG_PEEK)
_UNIX: Final = socket.AF_UNIX

# States of a socket.
NEW, LISTENING, CONNECTING, OPEN, BROKEN = range(5)


class Rights(NamedTuple):
    """Descriptors of this process that travel with bytes (unix(7): SCM_RIGHTS).

    :ivar start: how many bytes of the lane come before those that they were sent with.
    :ivar end: how many, those included.
    """

    start: int
    end: int
    descriptors: list[int]

    def discard(self) -> None:
        """Nobody wants them: close them."""
        for number in self.descriptors:
            os.close(number)


class Lane:
    """One direction of a connection.

    :ivar transit: what faults make of the bytes on their way; None without faults.
    :ivar due: when it is to be asked again although nothing is sent.
    :ivar sent: how many bytes were put into it, ever.
    :ivar taken: how many were taken out.
    :ivar rights: descriptors that nobody has received yet.
    """

    __slots__ = (
        "__weakref__",
        "arrivedEnd",
        "buffer",
        "cutSite",
        "delaySite",
        "due",
        "ended",
        "flight",
        "lastAt",
        "overdue",
        "queue",
        "rights",
        "road",
        "sent",
        "sentEnd",
        "sentReset",
        "sink",
        "site",
        "size",
        "source",
        "takeSite",
        "taken",
        "transit",
        "unsent",
        "unsentSize",
        "window",
    )

    def __init__(self, source: StreamSocket, sink: StreamSocket, road: Road) -> None:
        self.source = source
        self.sink = sink
        self.road = road
        self.queue: deque[bytes] = deque()
        self.size = 0
        self.flight = 0
        self.unsent: deque[bytes] = deque()
        self.unsentSize = 0
        self.window: int = sink.option(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2
        self.buffer: int = source.option(socket.SOL_SOCKET, socket.SO_SNDBUF) // 2
        self.ended = self.sentEnd = self.sentReset = self.arrivedEnd = False
        self.transit: StreamFaults | None = None
        self.due: float | None = None
        self.lastAt = 0.0
        self.overdue = False
        self.sent = self.taken = 0
        self.rights: deque[Rights] = deque()
        #: How it, and its decisions, are named.
        self.site = f"{source.label}>{sink.label}"
        self.cutSite = f"cut {self.site}"
        self.delaySite = f"delay {self.site}"
        self.takeSite = f"take {self.site}"

    # -- the sender's side

    def room(self) -> int:
        """Bytes that can be taken now."""
        free = 0 if self.road.stalled else max(0, self.window - self.size - self.flight)
        return self.buffer - self.unsentSize + free

    def isWritable(self) -> bool:
        """Whether poll(2) would report room: a third of the buffer is free, as on Linux."""
        return self.unsentSize * 3 <= self.buffer * 2

    def put(self, data: bytes) -> int:
        """Take what fits of *data*; the number of bytes."""
        if not data:
            return 0
        road = self.road
        if road.plain and not self.unsent and not self.flight and len(data) <= self.window - self.size:
            self.sent += len(data)
            if road.clear:
                self.arrive(data)
            else:
                road.wander(self, data)
            return len(data)
        if len(data) > (room := self.room()):
            data = data[:room]
        if data:
            self.sent += len(data)
            self.unsent.append(data)
            self.unsentSize += len(data)
            self.pump()
        return len(data)

    def end(self) -> None:
        """FIN, behind everything that was put."""
        self.ended = True
        self.pump()

    def pump(self) -> None:
        """Send what the window allows, and then the FIN."""
        road = self.road
        while self.unsent:
            free = self.window - self.size - self.flight
            if free <= 0 or road.stalled:
                return
            if free < self.unsentSize and free * 2 < self.window:
                return  # RFC 9293, 3.8.6.2: no crumbs, which would become more and smaller for ever
            data = self.unsent.popleft()
            if len(data) > free:
                self.unsent.appendleft(data[free:])
                data = data[:free]
            self.unsentSize -= len(data)
            if road.clear and not self.flight:
                self.arrive(data)
            else:
                road.carry(self, data)
        if self.ended and not self.sentEnd and not road.stalled:
            self.sentEnd = True
            if road.clear and not self.flight:
                self.arriveEnd()
            else:
                road.carryEnd(self)

    def reset(self) -> None:
        """RST, once: what is unsent is dropped."""
        if self.sentReset:
            return
        self.purge()
        self.ended = self.sentEnd = self.sentReset = True
        self.source.note(self.sink, "reset")
        if self.road.clear and not self.flight:
            self.arriveReset()
        else:
            self.road.carryReset(self)

    def purge(self) -> None:
        """Drop what is unsent."""
        self.unsent.clear()
        self.unsentSize = 0

    # -- the receiver's side

    def arrive(self, data: bytes) -> None:
        """Bytes have come; they are no longer in flight."""
        sink = self.sink
        if sink.closed or (sink.readShut and sink.writeShut):
            # Nobody reads them any more: RFC 1122, 4.2.2.13.
            sink.turnAway()
            return
        self.queue.append(data)
        self.size += len(data)
        if not sink.listed and sink.reader is not None:
            sink.listed = True
            sink.host.ready.append(sink)

    def arriveEnd(self) -> None:
        """The FIN has come."""
        self.arrivedEnd = True
        self.sink.wake()

    def arriveReset(self) -> None:
        """The RST has come."""
        self.sink.hearReset()

    def take(self, most: int) -> bytes:
        """Take up to *most* bytes out of the queue, and open the window for as many."""
        queue = self.queue
        first = queue[0]
        if self.rights:
            # A call does not read beyond the bytes that descriptors have come with.
            most = min(most, self.rights[0].end - self.taken)
        if len(queue) == 1 and len(first) <= most:
            queue.clear()
            data = first
        else:
            pieces = []
            left = most
            while queue and left:
                piece = queue.popleft()
                if len(piece) > left:
                    queue.appendleft(piece[left:])
                    piece = piece[:left]
                pieces.append(piece)
                left -= len(piece)
            data = b"".join(pieces)
        self.size -= len(data)
        self.taken += len(data)
        if self.unsent:
            self.pump()
            self.source.wake()
        return data

    def takeRights(self) -> Rights | None:
        """The descriptors that have come with what was taken last, if any have."""
        return self.rights.popleft() if self.rights and self.rights[0].start < self.taken else None

    def discardRights(self) -> None:
        """Close the descriptors that nobody will receive any more."""
        while self.rights:
            self.rights.popleft().discard()

    def peek(self, most: int) -> bytes:
        """Up to *most* bytes that can be taken; they stay."""
        return b"".join(self.queue)[:most]


class StreamSocket(Socket):
    """A TCP or UNIX stream socket of a host in memory.

    :param opened: False for a connection that nobody has accepted yet: it has no descriptor.
    """

    kind = socket.SOCK_STREAM
    bufferSize = BUFFER

    def __init__(self, host: Host, family: int, *, opened: bool = True) -> None:
        super().__init__(host, family, opened=opened)
        self.state = NEW
        self.inward: Lane | None = None
        self.outward: Lane | None = None
        self.remote: Place = None
        self.readShut = self.writeShut = False
        #: Connections that wait to be accepted, and how many of them may.
        self.pending: deque[StreamSocket] = deque()
        self.backlog = 0
        #: Of a connection that it does not know of yet: who will accept it.
        self._listener: StreamSocket | None = None
        self._attempt: _Attempt | None = None
        #: `connect` has begun, and no later call of it has told how that went.
        self._untold = False

    # -- listening

    def listen(self, backlog: int = SOMAXCONN) -> None:
        """Let clients connect; up to *backlog* and one more of them wait to be accepted, as on Linux."""
        self._alive()
        self.host.maybeFail("listen")
        if self.state not in (NEW, LISTENING) or (self.place is None and self.family is _UNIX):
            raise failure(errno.EINVAL)
        if self.place is None:
            self.bind(self.unbound())
        self.host.ports.listen(self)
        self.state = LISTENING
        self.isListening = True
        self.note(None, "listen")
        self.backlog = max(0, min(backlog, SOMAXCONN))

    def isFull(self) -> bool:
        """Whether nobody more may wait."""
        return len(self.pending) > self.backlog

    def answer(self, client: StreamSocket, back: Road, road: Road) -> StreamSocket:
        """Make the other end of *client*'s connection. It waits to be accepted once its client has heard of it."""
        server = StreamSocket(self.host, self.family, opened=False)
        server.place = server.host.ports.local(self, client)
        server.label = self.label
        server.remote = None if client.place is None else seenBy(self.family, client.place)
        server.introduce(client.host.credentials)
        client.introduce(self.host.credentials)
        server.state = OPEN
        client.outward = server.inward = Lane(client, server, road)
        server.outward = client.inward = Lane(server, client, back)
        server._listener = self
        return server

    def acknowledged(self) -> None:
        """The client knows that it is connected: now the listener is told, if there still is one."""
        listener, self._listener = self._listener, None
        assert listener is not None
        if listener.closed:
            self.abandon()
        else:
            listener.pending.append(self)
            listener.wake()

    def abandon(self) -> None:
        """Reset a connection that nobody has accepted, nor will."""
        assert self.inward is not None
        assert self.outward is not None
        self.closed = True
        self.inward.discardRights()
        self.outward.reset()

    def introduce(self, credentials: bytes) -> None:
        """Tell who is at the other end; TCP tells nobody."""
        if self.family is _UNIX:
            self._options[socket.SOL_SOCKET, socket.SO_PEERCRED] = credentials

    def accept(self) -> tuple[StreamSocket, Place]:
        """The next connection that waits, and its client's address.

        :raises OSError: ``EAGAIN`` when nobody waits; ``EMFILE`` without a descriptor for it (it goes on waiting).
        """
        self._alive()
        if self.state != LISTENING:
            raise failure(errno.EINVAL)
        self.host.maybeFail("accept")
        if not self.pending:
            raise failure(errno.EAGAIN)
        number = self.host.openDescriptor(self.pending[0])
        server = self.pending.popleft()
        server._number = number
        server.note(server.peer, "accept")
        return server, "" if server.remote is None else server.remote

    # -- connecting

    def connect(self, place: Place) -> None:
        """As :meth:`connect_ex`, raising its errno.

        :raises OSError: every errno but 0; that is ``EINPROGRESS`` for a TCP socket that has begun.
        """
        number = self.connect_ex(place)
        if number:
            raise failure(number)

    def connect_ex(self, place: Place) -> int:
        """Begin to connect, as connect(2) of a non-blocking socket; an errno, or 0 when it is connected."""
        if self.closed:
            return errno.EBADF
        if self.state == CONNECTING:
            return errno.EALREADY
        if self._untold:
            return self._tell()
        if self.state != NEW and self.family is not _UNIX:
            return errno.EISCONN
        try:
            self.host.maybeFail("connect")
            if self.family is _UNIX:
                return self._connectUnix(place)
            self.remote = self.host.ports.reached(self.family, place)
            if self.place is None:
                self.place = self.host.ports.ephemeral(self, self.remote)
                self.label = self.host.labelOf(self.place)
        except OSError as error:
            return error.errno or errno.EINVAL
        self.state = CONNECTING
        self._untold = True
        self._attempt = _Attempt(self)
        self._attempt.begin()
        return errno.EINPROGRESS

    def _tell(self) -> int:
        """How the attempt went. One that has failed is forgotten then, and the next call begins another."""
        self._untold = False
        if self.state == OPEN:
            return 0
        if self.outward is None:
            self.state = NEW
        return self.takeError() or errno.ECONNABORTED

    def _connectUnix(self, place: Place) -> int:
        listener = self.host.ports.file(place)
        if listener is None:
            return errno.ECONNREFUSED if key(place)[:1] == b"\0" else errno.ENOENT
        if listener.closed or listener.state != LISTENING:
            return errno.ECONNREFUSED
        if listener.isFull():
            return errno.EAGAIN
        if self.state != NEW:
            return errno.EISCONN if self.state == OPEN else errno.EINVAL
        self.remote = listener.place
        self.note(listener, "connect")
        listener.answer(self, self.host.inside, self.host.inside).acknowledged()
        self.state = OPEN
        return 0

    def established(self) -> None:
        """The other side has answered."""
        self.state = OPEN
        self._attempt = None
        self.wake()

    def fail(self, number: int) -> None:
        """The connection, or the attempt at one, has failed with errno *number*; the next call tells it."""
        self._attempt = None
        self.state = BROKEN
        self.error = number
        if self.outward is not None:
            self.outward.purge()
        self.wake()

    def hearReset(self) -> None:
        """RST has come."""
        assert self.inward is not None
        assert self.outward is not None
        if self.closed:
            self.outward.purge()
        elif self.state == OPEN and not self._isOver():
            self.fail(errno.EPIPE if self.inward.arrivedEnd and not self.writeShut else errno.ECONNRESET)

    def turnAway(self) -> None:
        """Bytes have come that nobody can read any more: the connection is reset, for both sides."""
        assert self.outward is not None
        self.outward.reset()
        if not self.closed:
            self.fail(errno.ECONNRESET)

    def _isOver(self) -> bool:
        """Whether both sides of a TCP connection have ended it: then the kernel knows it no more (RFC 9293, 3.3.2)."""
        if self.family is _UNIX or self.inward is None or self.outward is None:
            return False
        return self.inward.arrivedEnd and self.outward.arrivedEnd

    # -- bytes

    def recv(self, size: int, flags: int = 0) -> bytes:
        """Up to *size* bytes that have come; ``b""`` after the end.

        :raises OSError: ``EAGAIN`` when there are none; ``ECONNRESET`` and others when the connection has failed.
        """
        data = self._receive(size, flags)
        if self.inward is not None and self.inward.rights and not flags & _PEEK:
            rights = self.inward.takeRights()
            if rights is not None:
                rights.discard()
        return data

    def _receive(self, size: int, flags: int = 0) -> bytes:
        inward = self.inward
        if size == 0:
            return b""  # the socket module asks no kernel then
        if self.closed:
            raise failure(errno.EBADF)
        if inward is not None and inward.size and self.state != CONNECTING:
            if flags & _PEEK:
                return inward.peek(size)
            choices = self.host.network.choices
            if not choices.calm:
                # A segment may end anywhere.
                size = choices.pick(inward.cutSite, min(size, inward.size), 4) or size
            data = inward.take(size)
            self.note(inward.source, "read", data)
            return data
        if inward is None and self.state != BROKEN:
            if self.family is _UNIX:
                raise failure(errno.EINVAL)
            raise failure(errno.EAGAIN if self.state == CONNECTING else errno.ENOTCONN)
        if inward is not None and inward.arrivedEnd and self.family is not _UNIX:
            return b""  # an error that came after the end is for who writes
        self.raiseError()
        if self.readShut or self.state == BROKEN or inward is None or inward.arrivedEnd:
            return b""
        raise failure(errno.EAGAIN)

    def recvmsg(self, size: int, space: int = 0, flags: int = 0) -> tuple[bytes, list[Any], int, Place]:
        """As :meth:`recv`, with the descriptors that came along (unix(7): SCM_RIGHTS)."""
        data = self._receive(size, flags)
        rights = None if self.inward is None else self.inward.takeRights()
        if rights is None:
            return data, [], 0, None
        if space < socket.CMSG_LEN(4 * len(rights.descriptors)):
            rights.discard()
            return data, [], socket.MSG_CTRUNC, None
        packed = array.array("i", rights.descriptors).tobytes()
        return data, [(socket.SOL_SOCKET, socket.SCM_RIGHTS, packed)], 0, None

    def send(self, data: bytes | bytearray | memoryview, flags: int = 0) -> int:
        """Hand over what fits of *data*; the number of bytes.

        :raises OSError: ``EAGAIN`` when nothing fits; ``EPIPE`` after the end; what the connection has failed with.
        """
        return self._send(bytes(data))

    def sendmsg(self, buffers: Any, ancillary: Any = (), flags: int = 0, place: Place = None) -> int:
        """As :meth:`send`, with descriptors of this process (SCM_RIGHTS), which are duplicated at once."""
        data = b"".join(bytes(one) for one in buffers)
        numbers = array.array("i")
        for level, kind, packed in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                numbers.frombytes(bytes(packed))
        if not numbers or self.family is not _UNIX:
            return self._send(data)  # TCP does not look at them
        for number in numbers:
            os.fstat(number)
        taken = self._send(data)
        if taken:
            assert self.outward is not None
            sent = self.outward.sent
            self.outward.rights.append(Rights(sent - taken, sent, [os.dup(number) for number in numbers]))
        return taken

    def _send(self, data: bytes) -> int:
        outward = self.outward
        if self.closed:
            raise failure(errno.EBADF)
        if self.family is _UNIX:
            if outward is None:
                raise failure(errno.ENOTCONN)
            if self.writeShut or outward.sink.closed:
                raise failure(errno.EPIPE)
        self.raiseError()
        if outward is None or self.state != OPEN or self.writeShut:
            raise failure(errno.EAGAIN if self.state == CONNECTING else errno.EPIPE)
        choices = self.host.network.choices
        if not choices.calm and len(data) > 1:
            # The kernel may take less than it could.
            data = data[: choices.pick(outward.takeSite, len(data), 8) or len(data)]
        taken = outward.put(data)
        if taken:
            self.note(outward.sink, "data", data if taken == len(data) else data[:taken])
        elif data:
            raise failure(errno.EAGAIN)
        return taken

    def shutdown(self, how: int) -> None:
        """End one way, or both, as shutdown(2).

        :raises OSError: ``ENOTCONN`` without a connection.
        """
        self._alive()
        if self.state != OPEN or self._isOver():
            raise failure(errno.ENOTCONN)
        assert self.inward is not None
        assert self.outward is not None
        self._untold = False
        if how in (socket.SHUT_RD, socket.SHUT_RDWR):
            self.readShut = True
            if self.family is _UNIX:
                self.inward.source.writeShut = True
                self.inward.source.wake()
        if how in (socket.SHUT_WR, socket.SHUT_RDWR):
            self._end()
        self.wake()

    def _end(self) -> None:
        assert self.outward is not None
        self.writeShut = True
        if not self.outward.ended:
            self.note(self.outward.sink, "end")
            self.outward.end()

    # -- its end

    def vanish(self) -> None:
        super().vanish()
        if self.inward is not None:
            self.inward.discardRights()
        for server in self.pending:
            server.vanish()

    def release(self) -> None:
        if self.state == LISTENING:
            self.host.ports.leave(self)
            for server in self.pending:
                server.abandon()
            self.pending.clear()
            self.note(None, "unlisten")
            return
        self.host.ports.leave(self)
        if self._attempt is not None:
            self._attempt.giveUp()
        elif self.state == OPEN:
            self._disconnect()

    def _disconnect(self) -> None:
        inward, outward = self.inward, self.outward
        assert inward is not None
        assert outward is not None
        unread = inward.size > 0
        inward.discardRights()
        if self.family is _UNIX:
            self._end()
            peer = outward.sink
            if unread and not peer.closed:
                peer.error = errno.ECONNRESET
            inward.purge()
            peer.wake()
        elif unread or self._lingersNot():
            outward.reset()
        else:
            self._end()

    def _lingersNot(self) -> bool:
        """Whether SO_LINGER is on with a time of 0: close means RST (socket(7))."""
        isOn, seconds = struct.unpack("ii", self.option(socket.SOL_SOCKET, socket.SO_LINGER))
        return bool(isOn) and seconds == 0

    # -- looking at it

    @property
    def peer(self) -> StreamSocket | None:
        """The socket at the other end."""
        return None if self.outward is None else self.outward.sink

    @property
    def isGone(self) -> bool:
        """Whether its program has closed it or its kernel has given it up: what reaches it is answered with RST."""
        return self.closed or self.state == BROKEN

    def getpeername(self) -> Place:
        """The other side's address.

        :raises OSError: ``ENOTCONN`` without a connection.
        """
        self._alive()
        if self.state != OPEN or self._isOver():
            raise failure(errno.ENOTCONN)
        return "" if self.remote is None else self.remote

    def poll(self) -> int:
        state = self.state
        if state == OPEN:
            inward, outward = self.inward, self.outward
            assert inward is not None
            assert outward is not None
            readEnd = inward.arrivedEnd or self.readShut
            gone = self.family is _UNIX and outward.sink.closed
            mask = POLLIN if inward.size or readEnd else 0
            if gone or outward.isWritable() or (self.writeShut and self.family is not _UNIX):
                mask |= POLLOUT
            if readEnd and (self.writeShut or gone):
                mask |= POLLHUP
            return mask | POLLERR if self.error else mask
        if state == LISTENING:
            return POLLIN if self.pending else 0
        if state == BROKEN:
            return POLLIN | POLLOUT | POLLHUP | (POLLERR if self.error else 0)
        return 0 if state == CONNECTING else POLLOUT | POLLHUP

    def isDue(self) -> bool:
        if self.writer is None and self.state == OPEN:
            # As below, for the commonest case: a connection that is only read.
            inward = self.inward
            assert inward is not None
            return self.reader is not None and bool(inward.size or inward.arrivedEnd or self.readShut or self.error)
        return super().isDue()

    def note(self, other: Socket | None, what: str, data: bytes | None = None) -> None:
        """Write it into the network's trace."""
        self.host.network.trace.note(self.label, "" if other is None else other.label, what, data)


class _Attempt:
    """TCP's three-way handshake, from the client's side."""

    __slots__ = ("_begun", "_client", "_server", "_timer")

    def __init__(self, client: StreamSocket) -> None:
        self._client: StreamSocket | None = client
        self._server: StreamSocket | None = None
        self._timer: Any = None
        self._begun = client.host.network.now

    def begin(self) -> None:
        client = self._client
        assert client is not None
        network = client.host.network
        network.trace.note(client.label, network.labelOf(client.host, client.remote), "connect", None)
        self._synchronise(0)

    def _synchronise(self, attempt: int) -> None:
        """Send SYN."""
        client = self._client
        assert client is not None
        network = client.host.network
        if attempt > len(SYN_RETRIES):
            self._end(errno.ETIMEDOUT)
            return
        host = network.hostAt(client.host, client.remote[0])
        if host is None:
            self._end(errno.EHOSTUNREACH)
            return
        network.road(client.host, host).control(self._arrive, host)
        if self._client is not None:
            at = SYN_RETRIES[attempt] if attempt < len(SYN_RETRIES) else SYN_TIMEOUT
            self._timer = network.at(self._begun + at, self._synchronise, attempt + 1)

    def _arrive(self, host: Host) -> None:
        """SYN has come to *host*."""
        client = self._client
        if client is None or host.dead:
            return
        road, back = host.network.road(client.host, host), host.network.road(host, client.host)
        if self._server is None:
            listener = host.ports.listener(client.remote)
            if listener is None or road.refuses():
                back.control(self._refused)
                return
            if listener.isFull():
                return  # dropped, as Linux does; it will be sent again
            self._server = listener.answer(client, back, road)
        back.control(self._established)

    def _established(self) -> None:
        """SYN-ACK has come."""
        client = self._client
        if client is not None:
            assert client.outward is not None
            self._forget()
            client.established()
            client.outward.road.acknowledge(client.outward)

    def _refused(self) -> None:
        """RST has come instead."""
        if self._client is not None:
            self._client.host.network.trace.note(
                self._client.host.network.labelOf(self._client.host, self._client.remote),
                self._client.label,
                "refuse",
                None,
            )
        self._end(errno.ECONNREFUSED)

    def _end(self, number: int) -> None:
        client = self._client
        if client is not None:
            self._forget()
            client.fail(number)

    def giveUp(self) -> None:
        """The client closes: nobody waits for an answer any more; what the server has made of it is reset."""
        client = self._client
        assert client is not None
        self._forget()
        if self._server is not None and client.outward is not None:
            client.outward.reset()

    def _forget(self) -> None:
        self._client = None
        if self._timer is not None:
            self._timer.cancel()
