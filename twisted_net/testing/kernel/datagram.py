"""
UDP sockets: queues that overflow, "refused" by ICMP, broadcast and multicast groups.

A datagram that does not fit into the receiver's queue (SO_RCVBUF) is dropped and counted, as on any system. One for a
port that nobody has is answered by ICMP; only a connected socket hears of that, as ``ECONNREFUSED`` of its next call
(udp(7)). A group is one of its host's network: every host gets a copy, and there every member of the group (ip(7),
IP_ADD_MEMBERSHIP), the sender's own host included unless IP_MULTICAST_LOOP is off. Between hosts there is one
network, so that a TTL of 1 reaches everybody, and one of 0 nobody else. On a host that has a member, whoever is bound
to the port and to every address hears the group, too, unless IP_MULTICAST_ALL is off (ip(7)).
"""

from __future__ import annotations

import errno
import socket
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from twisted_net.testing.kernel.ports import ANY, isGroup, isLoopback, seenBy, unmapped
from twisted_net.testing.kernel.sockets import MULTICAST_ALL, POLLERR, POLLIN, POLLOUT, Place, Socket, failure

if TYPE_CHECKING:
    from twisted_net.testing.host import Host

#: The longest payload (udp(7)): 65,535 bytes less the headers of IP and UDP; IPv6 does not count its own header.
LONGEST: Final = {socket.AF_INET: 65_507, socket.AF_INET6: 65_527}

#: Bytes that wait to be received: SO_RCVBUF of sockets for which nobody has set it (Linux' net.core.rmem_default).
QUEUE: Final = 212_992

_JOIN: Final = {(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP), (socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP)}
_LEAVE: Final = {(socket.IPPROTO_IP, socket.IP_DROP_MEMBERSHIP), (socket.IPPROTO_IPV6, socket.IPV6_LEAVE_GROUP)}


class MemoryUdpSocket(Socket):
    """A UDP socket of a host in memory.

    :ivar dropped: datagrams that came and did not fit into the queue.
    """

    kind = socket.SOCK_DGRAM
    bufferSize = QUEUE

    def __init__(self, host: Host, family: int) -> None:
        if family == socket.AF_UNIX:
            raise failure(errno.EAFNOSUPPORT)
        super().__init__(host, family)
        self.dropped = 0
        self._queue: deque[tuple[bytes, Place]] = deque()
        self._size = 0
        self._remote: Place = None
        self._groups: set[str] = set()

    # -- addresses

    def connect(self, place: Place) -> None:
        """Send to *place*, and hear from nobody else."""
        self._alive()
        self._remote = self.host.ports.reached(self.family, place)
        if self.place is None:
            self._bindFor(self._remote)
        self.place = self._seenAs(self._remote[0])

    def getpeername(self) -> Place:
        """Whom it is connected to.

        :raises OSError: ``ENOTCONN`` for nobody.
        """
        self._alive()
        if self._remote is None:
            raise failure(errno.ENOTCONN)
        return self._remote

    def _bindFor(self, remote: Place) -> None:
        if isGroup(unmapped(remote[0])) or unmapped(remote[0]) == "255.255.255.255" or self._remote is None:
            self.bind(self.unbound())
        else:
            self.place = self.host.ports.ephemeral(self, remote)
            self.label = self.host.labelOf(self.place)

    # -- groups

    def setsockopt(self, level: int, option: int, value: Any) -> None:
        """As socket.setsockopt; joins and leaves groups."""
        self._alive()
        if (level, option) in _JOIN | _LEAVE:
            self._member((level, option) in _JOIN, self._group(level, value))
        else:
            if isinstance(value, bytes) and level == socket.IPPROTO_IP and len(value) == 1:
                value = value[0]  # Twisted packs a TTL as one byte
            super().setsockopt(level, option, value)

    @staticmethod
    def _group(level: int, value: bytes) -> str:
        if level == socket.IPPROTO_IP:
            return socket.inet_ntop(socket.AF_INET, value[:4])
        return socket.inet_ntop(socket.AF_INET6, value[:16])

    def _member(self, joins: bool, group: str) -> None:
        if not isGroup(group):
            raise failure(errno.EINVAL)
        if joins:
            if group in self._groups:
                raise failure(errno.EADDRINUSE)
            self._groups.add(group)
        elif group not in self._groups:
            raise failure(errno.EADDRNOTAVAIL)
        else:
            self._groups.remove(group)

    # -- sending

    def send(self, data: bytes | bytearray | memoryview, flags: int = 0) -> int:
        """Send to whom it is connected to.

        :raises OSError: ``EMSGSIZE``; ``ECONNREFUSED`` when an earlier datagram was; ``EDESTADDRREQ`` when unconnected.
        """
        self.raiseError()
        self._alive()
        if self._remote is None:
            if self.place is None:
                self.bind(self.unbound())  # as Linux does, although nothing is sent
            raise failure(errno.EDESTADDRREQ)
        return self._send(bytes(data), self._remote)

    def sendto(self, data: bytes | bytearray | memoryview, *arguments: Any) -> int:
        """``sendto(data, [flags,] place)``.

        :raises OSError: ``EMSGSIZE``; ``EACCES`` for a broadcast without SO_BROADCAST; ``ENETUNREACH`` for an address
            that no host has.
        """
        self.raiseError()
        self._alive()
        return self._send(bytes(data), self.host.ports.reached(self.family, arguments[-1]))

    def _send(self, data: bytes, remote: Place) -> int:
        if len(data) > LONGEST[self.family]:
            raise failure(errno.EMSGSIZE)
        if not remote[1]:
            raise failure(errno.EINVAL)
        text = unmapped(remote[0])
        broadcast = text == "255.255.255.255"
        if broadcast and not self.option(socket.SOL_SOCKET, socket.SO_BROADCAST):
            raise failure(errno.EACCES)
        if self.place is None:
            self._bindFor(remote)
        network = self.host.network
        if broadcast or isGroup(text):
            self._sendToAll(data, remote, text)
            return len(data)
        host = network.hostAt(self.host, text)
        if host is None:
            raise failure(errno.ENETUNREACH)
        network.trace.note(self.label, network.labelOf(self.host, remote), "datagram", data)
        source = self._seenAs(remote[0])
        network.road(self.host, host).datagram(data, lambda piece: self._arrive(host, piece, source, remote))
        return len(data)

    def _seenAs(self, remote: str) -> Place:
        """Where a datagram to *remote* comes from: a socket of every address sends from the nearest one."""
        text, port = self.place[:2]
        if text in ANY.values():
            interface = self.option(socket.IPPROTO_IP, socket.IP_MULTICAST_IF)
            if interface and isGroup(remote):
                text = socket.inet_ntop(socket.AF_INET, interface[:4])
            else:
                text = self.host.ports.sourceFor(self.family, remote)
        return (text, port, *self.place[2:])

    def _arrive(self, host: Host, data: bytes, source: Place, remote: Place) -> None:
        """A datagram has come to *host*."""
        skt = host.ports.receiver(remote, source)
        if skt is not None:
            skt.enqueue(data, source)
        elif self._remote is not None:
            self.host.network.road(host, self.host).control(self._refused)

    def _refused(self) -> None:
        """ICMP has come: nobody has that port."""
        if not self.closed:
            self.error = errno.ECONNREFUSED
            self.wake()

    def _sendToAll(self, data: bytes, remote: Place, group: str) -> None:
        network = self.host.network
        level, loop, hops = _GROUP_OPTIONS[self.family]
        broadcast = group == "255.255.255.255"
        network.trace.note(self.label, f"{group}:{remote[1]}", "datagram", data)
        source = self._seenAs(group)
        inside = isLoopback(source[0])  # that interface brings everything back, and nothing anywhere else
        for host in [self.host] if inside else network.living():
            goes = self.option(level, loop) if host is self.host else self.option(level, hops) > 0
            if not (inside or broadcast or goes):
                continue
            network.road(self.host, host).datagram(data, _ToMembers(host, source, group, remote[1]))

    # -- receiving

    @property
    def isConnected(self) -> bool:
        """Whether it hears from one address alone."""
        return self._remote is not None

    def hears(self, source: Place) -> bool:
        """Whether a datagram from *source* is for this socket."""
        return self._remote is None or tuple(self._remote[:2]) == tuple(source[:2])

    def isMember(self, group: str) -> bool:
        """Whether it has joined *group*; everybody has joined the broadcast."""
        return group == "255.255.255.255" or group in self._groups

    def hearsAll(self) -> bool:
        """Whether it hears the groups that others on its host have joined."""
        return bool(self.option(*MULTICAST_ALL[self.family]))

    def enqueue(self, data: bytes, source: Place) -> None:
        """Keep *data* for who receives, or drop it."""
        if self._size + len(data) > self.option(socket.SOL_SOCKET, socket.SO_RCVBUF):
            self.dropped += 1
            self.host.network.trace.note(self.label, "", "drop", data)
            return
        self._queue.append((data, seenBy(self.family, source)))
        self._size += len(data) + 1  # an empty one takes room, too
        self.wake()

    def recvfrom(self, size: int, flags: int = 0) -> tuple[bytes, Place]:
        """The next datagram, cut to *size* bytes, and where it came from.

        :raises OSError: ``EAGAIN`` when there is none; ``ECONNREFUSED`` of a connected socket.
        """
        self._alive()
        self.raiseError()
        if not self._queue:
            raise failure(errno.EAGAIN)
        if flags & socket.MSG_PEEK:
            data, source = self._queue[0]
            return data[:size], source
        data, source = self._queue.popleft()
        self._size -= len(data) + 1
        self.host.network.trace.note(self.label, "", "read", data)
        return data[:size], source

    def recv(self, size: int, flags: int = 0) -> bytes:
        """As :meth:`recvfrom`, without the address; for no bytes the socket module asks no kernel."""
        if size == 0:
            return b""
        return self.recvfrom(size, flags)[0]

    def poll(self) -> int:
        return POLLOUT | (POLLIN if self._queue else 0) | (POLLERR if self.error else 0)

    def release(self) -> None:
        self._queue.clear()
        self.host.ports.leave(self)


class _ToMembers:
    """Brings a copy to everybody on a host who hears a group."""

    __slots__ = ("_group", "_host", "_port", "_source")

    def __init__(self, host: Host, source: Place, group: str, port: int) -> None:
        self._host = host
        self._source = source
        self._group = group
        self._port = port

    def __call__(self, data: bytes) -> None:
        if not any(isinstance(skt, MemoryUdpSocket) and skt.isMember(self._group) for skt in self._host.sockets()):
            return
        for skt in self._host.ports.bound((self._group, self._port)):
            if (skt.isMember(self._group) or skt.hearsAll()) and skt.hears(self._source):
                skt.enqueue(data, self._source)


_GROUP_OPTIONS: Final = {
    socket.AF_INET: (socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, socket.IP_MULTICAST_TTL),
    socket.AF_INET6: (socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, socket.IPV6_MULTICAST_HOPS),
}
