"""
Datagrams: UDP and UNIX, in coroutines as Lune documents it, or with events as Node's ``dgram``.

::

    from twisted_net import udp

    async def main():
        socket = await udp.bind("127.0.0.1:27015")
        async for packet in socket:
            await socket.sendTo(b"ACK", packet.address)

    udp.createSocket("udp4", lambda data, address: print(data, address)).bind(27016)

Coroutines run by Twisted (``Deferred.fromCoroutine``, ``task.react``) and, on an asyncio-based reactor, by asyncio
(``asyncio.create_task``) may use the sockets of the first kind alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from twisted_net.address import Address, UdpTarget, UnixTarget
from twisted_net.udp import dgram
from twisted_net.udp.dgram import DatagramSocket
from twisted_net.udp.socket import Received, UdpSocket
from twisted_net.wire import datagram
from twisted_net.wire.casting import DatagramOptions
from twisted_net.wire.datagram import QUEUE_LIMIT, checkQueueLimit
from twisted_net.wire.destination import targetOf

__all__ = [
    "Address",
    "DatagramOptions",
    "DatagramSocket",
    "Received",
    "UdpSocket",
    "bind",
    "connect",
    "createSocket",
]


async def bind(
    address: str | UdpTarget | UnixTarget,
    *,
    queueLimit: int = QUEUE_LIMIT,
    family: Literal[0, 4, 6] = 0,
    reactor: Any = None,
    **options: Any,
) -> UdpSocket:
    """
    A socket that is bound to *address* (LUNE-1): ``"host:port"``, ``":port"`` (every IPv4 interface), ``"[::]:port"``
    (every interface), ``"/path"``, ``"unix:/path:mode=600"``, ``"unix:@name"``; port 0 is a free one.

    :param queueLimit: datagrams that are kept while nobody receives; more are dropped, and counted.
    :param family: 4 or 6: which kind of address a name is to have.
    :param reactor: the reactor; default: the global one.
    :param options: by name, those of :class:`~twisted_net.wire.casting.DatagramOptions`: ``broadcast=True``,
        ``reusePort=True``, ``ttl=4`` ...
    :raises AddressError: what was given is no address.
    :raises OptionError: an option is unknown, or has no such value.
    :raises NetError: ``EADDRINUSE``, ``EACCES``...
    """
    return await _made(datagram.bind, address, queueLimit, family, reactor, options)


async def connect(
    address: str | UdpTarget | UnixTarget,
    *,
    queueLimit: int = QUEUE_LIMIT,
    family: Literal[0, 4, 6] = 0,
    reactor: Any = None,
    **options: Any,
) -> UdpSocket:
    """
    A socket that sends to *address*, hears from nobody else, and is bound to whatever the system chooses.

    Nothing is sent yet: that nobody is there shows later, as a ``RefusedError`` of `send` or `recv`. The parameters are
    those of `bind`.
    """
    return await _made(datagram.connect, address, queueLimit, family, reactor, options)


async def _made(
    open: Any, address: Any, queueLimit: int, family: int, reactor: Any, options: dict[str, Any]
) -> UdpSocket:
    if reactor is None:
        from twisted.internet import reactor
    limit = checkQueueLimit(queueLimit)
    port = await open(reactor, targetOf(address), DatagramOptions.named(options), family)
    port.queueLimit = limit
    return UdpSocket(port)


def createSocket(options: Mapping[str, Any] | str, listener: Any = None, **keywords: Any) -> dgram.DatagramSocket:
    """
    A socket with events: ``createSocket("udp4", [listener])``, ``createSocket({"type": "udp6", ...}, [listener])``.

    The options are those of :class:`~twisted_net.udp.dgram.DatagramSocket`; *listener* is added for 'message'.
    """
    chosen = {"type": options} if isinstance(options, str) else dict(options)
    return dgram.DatagramSocket(listener=listener, **chosen, **keywords)
