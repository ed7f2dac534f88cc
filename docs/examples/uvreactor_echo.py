"""Twisted's own echo server, on uvloop; a task of asyncio's on the same loop counts what it has served.

``python uvreactor_echo.py [ADDRESS]``, such as ``tcp:8124:interface=127.0.0.1`` or ``unix:/run/echo.sock``; Ctrl-C ends
it.
"""

from __future__ import annotations

import asyncio
import sys

from twisted_net import uvreactor

uvreactor.install()  # before anything imports the reactor

from twisted.internet import reactor  # noqa: E402
from twisted.internet.defer import Deferred  # noqa: E402
from twisted.internet.endpoints import serverFromString  # noqa: E402
from twisted.internet.protocol import Factory, Protocol, connectionDone  # noqa: E402
from twisted.internet.task import react  # noqa: E402
from twisted.python.failure import Failure  # noqa: E402

WHERE = sys.argv[1] if sys.argv[1:] else "tcp:8124:interface=127.0.0.1"

ended: asyncio.Queue[int] = asyncio.Queue()


class Echo(Protocol):
    count = 0

    def dataReceived(self, data: bytes) -> None:
        assert self.transport is not None
        self.count += len(data)
        self.transport.write(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        ended.put_nowait(self.count)


async def tell() -> None:
    while True:
        print("a client has gone:", await ended.get(), "bytes")


async def main(_: object) -> None:
    port = await serverFromString(reactor, WHERE).listen(Factory.forProtocol(Echo))
    print(type(reactor).__name__, "listens on", port.getHost())
    await Deferred.fromFuture(asyncio.ensure_future(tell()))


react(main)
