"""
TCP and UNIX stream sockets: backlog, windows, FIN, RST.

Theory
======
A connection is two :class:`~twisted_net.testing.kernel.lane.Lane`\\ s, one for each direction.

*Ends.* ``close`` with bytes unread sends RST instead of FIN (RFC 1122, 4.2.2.13), as does SO_LINGER with a time of 0;
bytes that reach a closed socket are answered by RST. RST is told by the next call (``ECONNRESET``; ``EPIPE`` when our
own side had been told of the end before: tcp(7)), but bytes that had arrived are read first. A UNIX socket knows no
RST: its peer reads what is left and then the end, can write nothing from the moment of closing, and hears
``ECONNRESET`` when bytes were left unread.

*Connecting.* TCP sends SYN and hears of it later (:mod:`~twisted_net.testing.kernel.handshake`). UNIX connects, or does
not, before ``connect`` returns.
"""

from __future__ import annotations

import array
import errno
import os
import socket
import struct
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from twisted_net.testing.kernel.handshake import Handshake
from twisted_net.testing.kernel.lane import BUFFER, Lane, Rights
from twisted_net.testing.kernel.ports import key, seenBy
from twisted_net.testing.kernel.sockets import POLLERR, POLLHUP, POLLIN, POLLOUT, Place, Socket, failure

if TYPE_CHECKING:
    from twisted_net.testing.host import Host
    from twisted_net.testing.kernel.link import Road

#: The longest queue of connections that wait to be accepted: Linux' net.core.somaxconn.
SOMAXCONN: Final = 4096

_PEEK: Final = int(socket.MSG_PEEK)
_UNIX: Final = socket.AF_UNIX

# States of a socket.
NEW, LISTENING, CONNECTING, OPEN, BROKEN = range(5)


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
        self._attempt: Handshake | None = None
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
        self._attempt = Handshake(self)
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
