"""
Who is bound where, on one host: ports of TCP and UDP, and the paths and names of UNIX sockets.

Two sockets may not have the same port at overlapping addresses, unless both have set SO_REUSEPORT, or both SO_REUSEADDR
and neither listens (socket(7); for UDP, SO_REUSEADDR is enough). The wildcard overlaps with everything of its family,
and ``"::"`` with IPv4 as well, unless IPV6_V6ONLY is set (ipv6(7)). Nothing is in TIME_WAIT here.

A path that a UNIX socket was bound to stays when the socket is closed (unix(7)): then it is stale, and whoever
connects is refused, until `Ports.unlink`. Paths are names of this host alone; no file is made anywhere.
"""

from __future__ import annotations

import errno
import os
import socket
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from twisted_net.testing.kernel.sockets import Place, Socket, failure

if TYPE_CHECKING:
    from twisted_net.testing.host import Host
    from twisted_net.testing.kernel.datagram import MemoryUdpSocket
    from twisted_net.testing.kernel.stream import StreamSocket

#: Ports that are given to who asks for none (RFC 6335, section 6).
EPHEMERAL: Final = range(49152, 65536)

ANY: Final[dict[int, str]] = {socket.AF_INET: "0.0.0.0", socket.AF_INET6: "::"}
LOOPBACK: Final[dict[int, str]] = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}
_MAPPED: Final = "::ffff:"


def key(path: str | bytes) -> bytes:
    """A UNIX socket's path or name, however it was given."""
    return os.fsencode(path)


@lru_cache(maxsize=1024)
def address(family: int, text: str) -> str:
    """The one way to write the IP address *text*.

    :raises OSError: it is none of *family* (``EINVAL``; the system's own answer is a ``gaierror``).
    """
    if text in ("", "<any>"):
        return ANY[family]
    if text == "<broadcast>":
        return "255.255.255.255"
    try:
        return socket.inet_ntop(family, socket.inet_pton(family, text.partition("%")[0]))
    except OSError:
        raise failure(errno.EINVAL) from None


def isLoopback(text: str) -> bool:
    """Whether the IP address *text* is of the host itself (RFC 1122, 3.2.1.3; RFC 4291, 2.5.3)."""
    return text.startswith("127.") or text == "::1"


def unmapped(text: str) -> str:
    """The IPv4 address within an IPv4-mapped one (RFC 4291, 2.5.5.2); others as they are."""
    return text[len(_MAPPED) :] if text.startswith(_MAPPED) and "." in text else text


class Ports:
    """The tables of one host."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._bound: dict[tuple[socket.SocketKind, int], list[Socket]] = {}
        self._files: dict[bytes, Socket] = {}
        self._next = 0
        self._turn = 0

    # -- addresses

    def canonical(self, family: int, place: Place) -> Place:
        """*place* in the form that getsockname(2) has."""
        host, port = place[0], place[1]
        if not 0 <= port <= 65535:
            raise OverflowError("port must be 0-65535.")
        text = address(family, host)
        return (text, port) if family == socket.AF_INET else (text, port, 0, place[3] if len(place) > 3 else 0)

    def reached(self, family: int, place: Place) -> Place:
        """*place* as somebody who connects to it reaches it: of "any address" that is the loopback one."""
        text, *rest = self.canonical(family, place)
        return (LOOPBACK[family] if text in ANY.values() else text, *rest)

    def sourceFor(self, family: int, remote: str) -> str:
        """The address of this host that *remote* is reached from."""
        text = unmapped(remote)
        if text != remote:
            return _MAPPED + self.sourceFor(socket.AF_INET, text)
        if isLoopback(text):
            return LOOPBACK[family]
        return self._host.addressOf(family)

    def local(self, listener: StreamSocket, client: StreamSocket) -> Place:
        """Where a connection of *client*'s to *listener* ends."""
        return listener.place if listener.family == socket.AF_UNIX else seenBy(listener.family, client.remote)

    # -- binding

    def bind(self, skt: Socket, place: Place) -> Place:
        """Give *place* to *skt*; where it is bound now."""
        if skt.family == socket.AF_UNIX:
            return self._bindFile(skt, place)
        if skt.place is not None:
            raise failure(errno.EINVAL)
        canonical = self.canonical(skt.family, place)
        text, port = canonical[:2]
        if text not in ANY.values() and not self._host.has(unmapped(text)) and not isGroup(text):
            raise failure(errno.EADDRNOTAVAIL)
        self._host.maybeFail(f"bind:{port}")
        if port == 0:
            port = self._free(skt.kind)
        elif any(self._collide(skt, text, other) for other in self._bound.get((skt.kind, port), ())):
            raise failure(errno.EADDRINUSE)
        self._bound.setdefault((skt.kind, port), []).append(skt)
        return (text, port, *canonical[2:])

    def ephemeral(self, skt: Socket, remote: Place) -> Place:
        """Bind *skt*, which is about to reach *remote*, to a port that is free."""
        return self.bind(skt, (self.sourceFor(skt.family, remote[0]), 0))

    def _bindFile(self, skt: Socket, path: Place) -> Place:
        name = key(path)
        if not name:
            # unix(7): an empty address is an abstract name of the system's choice.
            name = b"\0%05x" % self._free(skt.kind)
        if name in self._files:
            raise failure(errno.EADDRINUSE)
        if skt.place is not None:
            raise failure(errno.EINVAL)
        self._files[name] = skt
        return name if name[:1] == b"\0" else os.fsdecode(name)

    def _free(self, kind: socket.SocketKind) -> int:
        for _ in EPHEMERAL:
            port = EPHEMERAL[self._next % len(EPHEMERAL)]
            self._next += 1
            if (kind, port) not in self._bound:
                return port
        raise failure(errno.EADDRINUSE)

    def _collide(self, skt: Socket, text: str, other: Socket) -> bool:
        theirs = _ranges(other, other.place[0])
        if not any(one == two or _isWhole(one, two) for one in _ranges(skt, text) for two in theirs):
            return False

        def both(option: int) -> bool:
            return bool(skt.option(socket.SOL_SOCKET, option) and other.option(socket.SOL_SOCKET, option))

        if both(socket.SO_REUSEPORT):
            return False
        return not (both(socket.SO_REUSEADDR) and not other.isListening)

    def listen(self, skt: StreamSocket) -> None:
        """*skt* is about to listen.

        :raises OSError: ``EADDRINUSE`` when another one listens at the same address.
        """
        if skt.family == socket.AF_UNIX:
            return
        for other in self._bound.get((skt.kind, skt.place[1]), ()):
            if other is not skt and other.isListening and self._collide(skt, skt.place[0], other):
                raise failure(errno.EADDRINUSE)

    def leave(self, skt: Socket) -> None:
        """*skt* is closed: its port, or its abstract name, is free again. A path stays."""
        if skt.place is None:
            return
        if skt.family == socket.AF_UNIX:
            name = key(skt.place)
            if name[:1] == b"\0" and self._files.get(name) is skt:
                del self._files[name]
            return
        where = (skt.kind, skt.place[1])
        bound = self._bound.get(where, [])
        if skt in bound:
            bound.remove(skt)
            if not bound:
                del self._bound[where]

    # -- finding

    def listener(self, remote: Place) -> StreamSocket | None:
        """Who listens at *remote*; of several that share it (SO_REUSEPORT), each in turn."""
        bound = self._bound.get((socket.SOCK_STREAM, remote[1]), ())
        found: Any = [skt for skt in bound if skt.isListening and _takes(skt, remote[0])]
        if len(found) > 1:
            found = [skt for skt in found if skt.place[0] not in ANY.values()] or found
            self._turn += 1
        return found[self._turn % len(found)] if found else None

    def receiver(self, remote: Place, source: Place) -> MemoryUdpSocket | None:
        """Whom a datagram from *source* to *remote* is for: the most particular one, and of equal ones the last."""
        best: Any = None
        for skt in self.bound(remote):
            if skt.hears(source) and (best is None or _rank(skt) >= _rank(best)):
                best = skt
        return best  # type: ignore[no-any-return]

    def bound(self, remote: Place) -> list[MemoryUdpSocket]:
        """The UDP sockets that are bound to *remote*, or to its port of every address."""
        bound = self._bound.get((socket.SOCK_DGRAM, remote[1]), ())
        found: Any = [skt for skt in bound if not skt.closed and _takes(skt, remote[0])]
        return found  # type: ignore[no-any-return]

    def file(self, path: str | bytes) -> StreamSocket | None:
        """The socket that is, or was, bound to *path*; None where there is nothing."""
        found: Any = self._files.get(key(path))
        return found  # type: ignore[no-any-return]

    def unlink(self, path: str | bytes) -> None:
        """Remove the path, as unlink(2): nobody can connect to it any more.

        :raises FileNotFoundError: there is none.
        """
        name = key(path)
        if name[:1] == b"\0" or name not in self._files:
            raise failure(errno.ENOENT)
        del self._files[name]


def seenBy(family: int, place: Place) -> Place:
    """*place* as a socket of *family* sees it: an IPv4 address in IPv6's form for IPv6, and in its own for IPv4."""
    if family == socket.AF_INET6 and ":" not in place[0]:
        return (_MAPPED + place[0], place[1], 0, 0)
    if family == socket.AF_INET:
        return (unmapped(place[0]), place[1])
    return place


def _ranges(skt: Socket, text: str) -> tuple[str, ...]:
    """The addresses that *skt* has when it is bound to *text*: one of them, or all of one family or of both."""
    if text == "::" and not skt.option(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY):
        return tuple(ANY.values())
    return (unmapped(text),)


def _isWhole(one: str, other: str) -> bool:
    """Whether one of these is all of the family that both are of."""
    return (":" in one) == (":" in other) and (one in ANY.values() or other in ANY.values())


def _takes(skt: Socket, text: str) -> bool:
    """Whether *skt* has the address *text*."""
    plain = unmapped(text)
    return any(one == plain or _isWhole(one, plain) for one in _ranges(skt, skt.place[0]))


def _rank(skt: MemoryUdpSocket) -> tuple[bool, bool]:
    """How particular a socket is: who is connected comes before who is bound to one address."""
    return skt.isConnected, skt.place[0] not in ANY.values()


def isGroup(text: str) -> bool:
    """Whether the IP address *text* is a multicast group's (RFC 5771; RFC 4291, 2.7)."""
    if ":" in text:
        return text[:2].lower() == "ff"
    return 224 <= int(text.split(".", 1)[0]) <= 239
