"""
The await face: streams that coroutines read and write, as Lune and LuaSocket document them, in trio's and asyncio's
manners.

::

    from twisted_net import streams

    async def main():
        listener = await streams.listen("127.0.0.1:8124")

        async def echo(stream):
            async for chunk in stream:
                await stream.write(chunk)

        await listener.serve(echo)

Coroutines run by Twisted (``Deferred.fromCoroutine``, ``task.react``) and, on an asyncio-based reactor, by asyncio
(``asyncio.create_task``) may use them alike.
"""

from __future__ import annotations

from typing import Any, Literal

from twisted.internet.interfaces import IStreamClientEndpoint, IStreamServerEndpoint

from twisted_net.address import Target, UdpTarget, parseTarget
from twisted_net.errors import AddressError
from twisted_net.streams.choosing import select
from twisted_net.streams.connection import BUFFER_LIMIT, Connection
from twisted_net.streams.dialling import Pending, StillConnectingError, begin
from twisted_net.streams.listener import Listener
from twisted_net.streams.master import Master
from twisted_net.streams.pipe import Piped, pipe
from twisted_net.streams.stream import Stats, Stream
from twisted_net.wire.clocks import limitOf
from twisted_net.wire.layers import Credentials
from twisted_net.wire.limits import Limits
from twisted_net.wire.listen import BACKLOG
from twisted_net.wire.options import SocketOptions
from twisted_net.wire.outlet import HIGH_WATER_MARK
from twisted_net.wire.protocol import NO_LIMITS
from twisted_net.wire.waiting import DriverError

__all__ = [
    "Credentials",
    "DriverError",
    "Limits",
    "Listener",
    "Master",
    "Pending",
    "Piped",
    "Stats",
    "StillConnectingError",
    "Stream",
    "connect",
    "listen",
    "pipe",
    "select",
    "tcp",
    "wrap",
]


async def connect(
    address: str | Target | IStreamClientEndpoint,
    *,
    timeout: float | None = None,
    localAddress: tuple[str, int] | None = None,
    family: Literal[0, 4, 6] = 0,
    noDelay: bool | None = None,
    bufferLimit: int = BUFFER_LIMIT,
    highWaterMark: int = HIGH_WATER_MARK,
    reactor: Any = None,
) -> Stream:
    """
    Connect to *address*: ``"host:port"``, ``"[::1]:80"``, ``"/path"``, ``"unix:@name"``, an endpoint or its text.

    :param timeout: seconds for the attempt, the look-up of a name included. When it is up, the attempt goes on in the
        error's ``pending`` (LUAS-22).
    :param localAddress: an IP address (``""``: any) and a port (0: any) to connect from.
    :param family: 4 or 6 tries addresses of that version alone.
    :param noDelay: send every write at once (True), or let the kernel gather small ones (False).
    :param bufferLimit: bytes that are kept while nobody reads; then the peer is paused.
    :param highWaterMark: unsent bytes above which ``write`` waits.
    :param reactor: the reactor; default: the global one.
    :raises AddressError: what was given is no address.
    :raises TimedOutError: see *timeout*.
    :raises NetError: why there is no connection.
    """
    limit = limitOf("timeout", timeout)
    options = None
    if noDelay is not None:
        options = SocketOptions()
        options.setNoDelay(noDelay)
    pending = begin(
        _reactor(reactor),
        _target(address),
        bufferLimit=bufferLimit,
        highWaterMark=highWaterMark,
        family=family,
        localAddress=localAddress,
        options=options,
    )
    try:
        return await pending.wait(limit)
    except StillConnectingError:
        raise
    except BaseException:  # whoever is cancelled gets no error that he could close it by
        pending.close()
        raise


async def listen(
    address: str | Target | IStreamServerEndpoint | int,
    *,
    backlog: int = BACKLOG,
    limits: Limits = NO_LIMITS,
    bufferLimit: int = BUFFER_LIMIT,
    highWaterMark: int = HIGH_WATER_MARK,
    reactor: Any = None,
) -> Listener:
    """
    Listen at *address* (LUNE-12): ``"host:port"``, ``":port"`` (every IPv4 interface), ``"/path"``, ``"unix:@name"``,
    an endpoint or its text, or a descriptor that was inherited.

    :param backlog: clients that wait in the kernel.
    :param limits: who may enter, how fast, for how long.
    :param bufferLimit: of each stream: see `connect`.
    :param highWaterMark: of each stream: see `connect`.
    :param reactor: the reactor; default: the global one.
    :raises AddressError: what was given is no address.
    :raises NetError: ``EADDRINUSE``, ``EACCES``...
    """
    listener = Listener(_reactor(reactor), limits=limits, bufferLimit=bufferLimit, highWaterMark=highWaterMark)
    await listener.begin(address if isinstance(address, int) else _target(address), backlog)
    return listener


def tcp(reactor: Any = None) -> Master:
    """A TCP master object, as LuaSocket's ``socket.tcp()`` (LUAS-1)."""
    return Master(_reactor(reactor))


def wrap(socket: Any, *, bufferLimit: int = BUFFER_LIMIT) -> Stream:
    """
    A stream of the connection of an event face's ``Socket`` (or of anything else with ``handOver()``, which returns
    the engine's protocol), with nothing lost: what was received and not delivered comes first. The socket emits
    nothing more.

    :raises ClosedError: it has no connection.
    """
    protocol = socket.handOver()
    return Stream(Connection.over(protocol, bufferLimit))


def _reactor(reactor: Any) -> Any:
    if reactor is None:
        from twisted.internet import reactor
    return reactor


def _target(address: Any) -> Any:
    target = parseTarget(address) if isinstance(address, str) else address
    if isinstance(target, UdpTarget):
        raise AddressError(f"{address} is UDP; streams are TCP or UNIX: use twisted_net.udp", address=str(address))
    return target
