"""
One direction of a connection.

A byte that is sent stands in one of three places::

    send() -> lane.unsent  ->  (on the road: lane.flight)  ->  lane.queue -> recv()
              sender's SNDBUF                                  receiver's RCVBUF

What is in flight or in the queue may be as much as the receiver's window; what does not fit waits unsent, and when that
is full, too, ``send`` takes no more (``EAGAIN``). Reading opens the window again. The FIN stands behind the last byte.
"""

from __future__ import annotations

import os
import socket
from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from twisted_net.sansio.faults import StreamFaults
    from twisted_net.testing.kernel.link import Road
    from twisted_net.testing.kernel.stream import StreamSocket

#: SO_RCVBUF and SO_SNDBUF of sockets for which nobody has set them (Linux' net.ipv4.tcp_rmem); here they do not grow.
#: Half of the one is the window: bytes that a receiver takes before they are read. Half of the other is what a sender's
#: kernel keeps beyond that. The other halves are the kernel's own (socket(7)).
BUFFER: Final = 131_072


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
