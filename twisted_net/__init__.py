"""A network toolkit for Twisted.

One engine for connections, and faces on it:

:mod:`twisted_net.net`
    the event face: sockets and servers as the Luvit, Mongoose and Evo manuals (and Node's ``net``) document them::

        from twisted_net import net

        server = net.createServer(lambda socket: socket.pipe(socket))
        server.listen(8124, "127.0.0.1")

:mod:`twisted_net.streams`
    the await face: streams for coroutines, as Lune and LuaSocket document them, run by Twisted or by asyncio::

        from twisted_net import streams

        async def main():
            stream = await streams.connect("127.0.0.1:8124")
            await stream.write(b"hello\n")
            print(await stream.readLine())

:mod:`twisted_net.udp`
    datagrams, UDP and UNIX: awaited, or as events.

:mod:`twisted_net.forward`
    a forwarder and load balancer for TCP, UNIX sockets and UDP::

        from twisted_net import forward

        async def main():
            forwarder = forward.Forwarder(["10.0.0.1:80", "10.0.0.2:80;weight=3"], balance="least-connections")
            await forwarder.listen(":8080")

:mod:`twisted_net.wire`
    the engine itself, for who builds a face of his own: a protocol and a factory that any Twisted endpoint takes.

:mod:`twisted_net.testing`
    the test kit: a network in memory with a clock that jumps, faults, fixtures and checks, for any Twisted project.

:mod:`twisted_net.uvreactor`
    a reactor on uvloop, for any Twisted program: ``twistd --reactor=uvloop ...``.

``twistd net``
    the launcher: ``twistd -n --pidfile= net echo``, ``... net serve MODULE:HANDLER``,
    ``... net forward --listen ADDRESS --target ADDRESS``, ``twistd net connect ADDRESS``.

What can go wrong is in :mod:`twisted_net.errors`, how addresses are written in :mod:`twisted_net.address`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from twisted_net import forward, net, streams, udp
    from twisted_net.address import Address, parseTarget
    from twisted_net.errors import NetError
    from twisted_net.sansio.backoff import Backoff
    from twisted_net.wire.limits import Limits

__all__ = ["Address", "Backoff", "Limits", "NetError", "forward", "net", "parseTarget", "streams", "udp"]

# Opened when somebody comes through: pytest imports this package wherever it is installed, and does not want a network
# for that.
_ROOMS: Final = {
    "Address": "twisted_net.address",
    "Backoff": "twisted_net.sansio.backoff",
    "Limits": "twisted_net.wire.limits",
    "NetError": "twisted_net.errors",
    "parseTarget": "twisted_net.address",
}


def __getattr__(name: str) -> Any:
    if name in ("forward", "net", "streams", "udp"):
        return import_module(f"twisted_net.{name}")
    if name in _ROOMS:
        return getattr(import_module(_ROOMS[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
