"""
Two streams with a connection between them, in memory or on real sockets, and somebody who cancels what they do.

::

    async with talking(network) as (client, server):
        await client.write(b"hello")
        ...
"""

from __future__ import annotations

import os
import tempfile
import types
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from contextlib import asynccontextmanager
from typing import Any

from drivers import theReactor
from twisted.internet.defer import CancelledError

from twisted_net import streams
from twisted_net.streams import Listener, Stream
from twisted_net.testing.network import MemoryNetwork


@asynccontextmanager
async def listening(network: MemoryNetwork | None = None, kind: str = "tcp", **options: Any) -> AsyncIterator[Listener]:
    """A listener: on the network's host ``server``, or on real sockets of the reactor of this run."""
    reactor = theReactor() if network is None else network.host("server").reactor
    address = f"{'127.0.0.1' if network is None else 'server'}:0"
    path = None
    if kind == "unix":
        path = os.path.join(tempfile.mkdtemp(), "s") if network is None else network.path()
        address = f"unix:{path}"
    listener = await streams.listen(address, reactor=reactor, **options)
    try:
        yield listener
    finally:
        await listener.close()
        if path is not None and network is None:
            os.rmdir(os.path.dirname(path))


async def connecting(listener: Listener, network: MemoryNetwork | None = None, **options: Any) -> Stream:
    """A stream to *listener*: from the network's host ``client``, or on real sockets."""
    address = listener.address
    if address.family == "unix":
        where, host = f"unix:{address.address}", "server"
    else:
        where, host = f"{'127.0.0.1' if network is None else 'server'}:{address.port}", "client"
    reactor = theReactor() if network is None else network.host(host).reactor
    return await streams.connect(where, reactor=reactor, **options)


@asynccontextmanager
async def talking(
    network: MemoryNetwork | None = None, kind: str = "tcp", **options: Any
) -> AsyncIterator[tuple[Stream, Stream]]:
    """Client and server; both are gone afterwards.

    :param options: of both streams: ``bufferLimit``, ``highWaterMark``.
    """
    async with listening(network, kind, **options) as listener:
        client = await connecting(listener, network, **options)
        server = await listener.accept()
        try:
            yield client, server
        finally:
            for stream in (client, server):
                stream.abort()
                await stream.close()


class Canceller:
    """
    Runs operations and cancels one of them, once: at the wait of that number, counted over all.

    :param at: the number of the wait, from 0.
    :param later: how many turns later, 1 or more.

    :ivar waits: how many waits there were so far.
    :ivar cancelled: how often an operation was cancelled.
    """

    def __init__(self, reactor: Any, at: int, later: int = 1) -> None:
        self.waits = 0
        self.cancelled = 0
        self._reactor = reactor
        self._at = at
        self._later = later

    async def __call__(self, operation: Callable[..., Coroutine[Any, Any, Any]], *args: Any) -> Any:
        """The outcome of ``operation(*args)``, which is repeated when it was cancelled."""
        while True:
            try:
                return await self._counted(operation(*args))
            except CancelledError:
                self.cancelled += 1

    async def write(self, stream: Stream, data: bytes) -> None:
        """Write all of *data*, going on after a cancellation with what was not sent."""
        sent = 0
        while sent < len(data):
            try:
                sent = await self._counted(stream.write(data, sent))
            except CancelledError as error:
                self.cancelled += 1
                sent = error.sent  # type: ignore[attr-defined]

    @types.coroutine
    def _counted(self, coroutine: Coroutine[Any, Any, Any]) -> Generator[Any, Any, Any]:
        error: BaseException | None = None
        while True:
            try:
                waiter = coroutine.send(None) if error is None else coroutine.throw(error)
            except StopIteration as stop:
                return stop.value
            if self.waits == self._at:
                self._reactor.callLater(0, self._cancel, waiter, self._later - 1)
            self.waits += 1
            error = None
            try:
                yield waiter
            except BaseException as raised:
                error = raised

    def _cancel(self, waiter: Any, turns: int) -> None:
        if turns:
            self._reactor.callLater(0, self._cancel, waiter, turns - 1)
        else:
            waiter.cancel()
