"""The event face: sockets and servers with events, as the Luvit, Mongoose and Evo manuals (and Node's ``net``) document
them.

::

    from twisted_net import net

    def connected(socket):
        socket.pipe(socket)

    net.createServer(connected).listen(8124, "127.0.0.1")
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted_net.address import Address, isIP, isIPv4, isIPv6
from twisted_net.errors import NetError
from twisted_net.net.arguments import Listener
from twisted_net.net.server import Server
from twisted_net.net.service import ServerService
from twisted_net.net.socket import Socket
from twisted_net.sansio.backoff import Backoff
from twisted_net.wire.limits import Limits

__all__ = [
    "Address",
    "Backoff",
    "Limits",
    "NetError",
    "Server",
    "ServerService",
    "Socket",
    "connect",
    "createConnection",
    "createServer",
    "isIP",
    "isIPv4",
    "isIPv6",
]


def createServer(
    options: Mapping[str, Any] | Listener | None = None, listener: Listener | None = None, **keywords: Any
) -> Server:
    """Make a server: ``createServer([options], [listener])``; *listener* is added for 'connection'.

    The options are those of :class:`~twisted_net.net.server.Server`, in a mapping or as keywords (LUV-32, MON-2).
    """
    return Server(options, listener, **keywords)


def connect(*args: Any, reactor: Any = None, allowHalfOpen: bool = False, **keywords: Any) -> Socket:
    """Make a socket and connect it: ``connect(port, [host], [listener])``, ``connect(path, [listener])``,
    ``connect(options, [listener])``.

    The options are those of :class:`~twisted_net.net.socket.Socket` and of its
    :meth:`~twisted_net.net.socket.Socket.connect` (LUV-31, MON-1).
    """
    mine: dict[str, Any] = {
        name: keywords.pop(name) for name in ("type", "highWaterMark", "timeoutStep") if name in keywords
    }
    rest = list(args)
    if rest and isinstance(rest[0], Mapping):
        # One mapping for both, as the manuals have it.
        options = dict(rest[0])
        for name in ("type", "highWaterMark", "timeoutStep"):
            if name in options:
                mine[name] = options.pop(name)
        reactor = options.pop("reactor", reactor)
        allowHalfOpen = options.pop("allowHalfOpen", allowHalfOpen)
        rest[0] = options
    return Socket(mine, reactor=reactor, allowHalfOpen=allowHalfOpen).connect(*rest, **keywords)


createConnection = connect
