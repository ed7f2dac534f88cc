"""A server and a client from the engine alone (Evo's "Low-level Access"): no face, no events.

``python wire_pair.py`` uses a free port of 127.0.0.1, ``python wire_pair.py /tmp/x.sock`` that path. The manual's own
lines stand above ours. What a face would do is done here by hand: attach what takes the bytes, answer the peer's end,
and stop reading while a peer does not take what it is sent.
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import react
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_net.address import Address, parseTarget
from twisted_net.interfaces import IConnectionUser

# 1. Load the Lua bindings for libuv [...]: local uv = require("uv")
from twisted_net.wire.dial import dial
from twisted_net.wire.factory import SocketFactory
from twisted_net.wire.listen import listen
from twisted_net.wire.protocol import SocketProtocol


@implementer(IConnectionUser)
class Conversation:
    """What stands behind a connection: the engine tells it everything but the bytes."""

    name = "?"

    def __init__(self, protocol: SocketProtocol) -> None:
        self.protocol = protocol
        self.closed: Deferred[None] = Deferred()

    def say(self, *words: object) -> None:
        print(f"{self.name}:", *words)

    # 5. Finally, use read_start() (after the connection has been established) to start reading
    def connectionOpened(self, protocol: SocketProtocol) -> None:
        self.say("connected")
        protocol.attach(self.received)

    def received(self, data: bytes) -> None:
        raise NotImplementedError

    def readEnded(self) -> None:
        self.say("the peer has ended")

    def writeEnded(self) -> None:
        self.say("our end is sent")

    def drained(self) -> None:
        # The peer of the echo takes bytes again (see Echo.received): handle:read_start() once more.
        self.protocol.resume("user")

    def connectionClosed(self, error: Exception | None, reason: Failure) -> None:
        self.say("closed", "in good order" if error is None else error)
        self.closed.callback(None)

    def limitPassed(self, name: str, action: str) -> None:
        self.say("limit", name, action)

    def raised(self, where: str, error: Exception) -> None:
        self.say(where, "raised", repr(error))


class Echo(Conversation):
    name = "server"

    def received(self, data: bytes) -> None:
        self.say("received", data)
        # "If you're using libuv TCP handles directly, you can use handle:read_stop()"
        if not self.protocol.write(data):
            self.protocol.pause("user")

    def readEnded(self) -> None:
        super().readEnded()
        self.protocol.end()


class Hello(Conversation):
    name = "client"

    # 5. [...] or write(data) to send data
    def connectionOpened(self, protocol: SocketProtocol) -> None:
        super().connectionOpened(protocol)
        protocol.write(b"hello")

    def received(self, data: bytes) -> None:
        self.say("received", data)
        self.protocol.end()


async def main(reactor: Any, where: str = "127.0.0.1:0") -> None:
    # 2. Create TCP handles via uv.new_tcp(), one per client and server socket
    server = SocketFactory(Echo, reactor)
    clients = SocketFactory(Hello, reactor)

    # 3. For servers: Call bind(host, port), listen(queueSize, onConnectionCallback), then accept(clientTcpHandle)
    port = await listen(reactor, server, parseTarget(where), backlog=128)
    server.adopt(port)
    address = Address.fromTwisted(port.getHost())
    print("listening")

    # 4. For clients: Call connect(host, port)
    protocol: Any = await dial(reactor, clients, parseTarget(str(address)))
    print("the client is connected")
    await protocol.user.closed

    server.disown(port)
    await port.stopListening()
    await server.drain()
    print("stopped")


if __name__ == "__main__":
    react(main, sys.argv[1:])
