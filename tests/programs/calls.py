"""Counts the Python calls per echoed 64-byte segment: a bare Protocol, both faces, and a forwarder there and back.

``python calls.py REACTOR`` prints one JSON object: ``{"bare": 51.0, "net": 27.0, "streams": 40.0, "forward": 42.0}``.
``sys.setprofile`` reports a ``call`` for each Python frame;
calls of C functions are not counted.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
from types import FrameType
from typing import Any

from twisted.application.reactors import installReactor

installReactor(sys.argv[1])

from twisted.internet import reactor as globalReactor  # noqa: E402
from twisted.internet.defer import Deferred  # noqa: E402
from twisted.internet.protocol import Factory, Protocol  # noqa: E402

from twisted_net import net, streams  # noqa: E402
from twisted_net.forward import Forwarder  # noqa: E402

reactor: Any = globalReactor
SEGMENT = b"x" * 64
ROUNDS = 500


class Echo(Protocol):
    def dataReceived(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(data)


def onConnection(client: net.Socket) -> None:
    @client.on("data")
    def echo(data: bytes) -> None:
        client.write(data)


async def serve(stream: streams.Stream) -> None:
    while data := await stream.read():
        await stream.write(data)


def elsewhere(listener: socket.socket) -> None:
    """The forwarder's target, in a thread that is not counted: echoes one connection."""
    with listener, listener.accept()[0] as connection:
        while data := connection.recv(65536):
            connection.sendall(data)


class Count:
    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, frame: FrameType, event: str, argument: object) -> None:
        if event == "call":
            self.calls += 1


def roundTrips(connection: socket.socket, rounds: int) -> None:
    for _ in range(rounds):
        connection.sendall(SEGMENT)
        assert connection.recv(64, socket.MSG_WAITALL) == SEGMENT


def inReactor(function: Any, *args: Any) -> None:
    done = threading.Event()

    def run() -> None:
        function(*args)
        done.set()

    reactor.callFromThread(run)
    assert done.wait(30)


def measure(port: int) -> float:
    count = Count()
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        roundTrips(connection, 10)
        inReactor(sys.setprofile, count)
        roundTrips(connection, 10)
        before = count.calls
        roundTrips(connection, ROUNDS)
        calls = count.calls - before
        inReactor(sys.setprofile, None)
    return calls / ROUNDS


def main() -> None:
    factory = Factory.forProtocol(Echo)
    factory.noisy = False
    bare = reactor.listenTCP(0, factory, interface="127.0.0.1")
    server = net.createServer(onConnection)
    listeners: list[streams.Listener] = []

    async def listen() -> None:
        listeners.append(await streams.listen("127.0.0.1:0"))
        await listeners[0].serve(serve)

    Deferred.fromCoroutine(listen())
    target = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=elsewhere, args=(target,)).start()
    forwarded: list[Any] = []
    Forwarder([f"127.0.0.1:{target.getsockname()[1]}"]).listen("127.0.0.1:0").addCallback(forwarded.append)

    def work() -> None:
        try:
            assert server.port is not None
            ports = {
                "bare": bare.getHost().port,
                "net": server.port.getHost().port,
                "streams": listeners[0].address.port or 0,
                "forward": forwarded[0].getHost().port,
            }
            counts = {name: measure(port) for name, port in ports.items()}
            print(json.dumps(counts), flush=True)
        finally:
            reactor.callFromThread(reactor.stop)

    server.listen(0, "127.0.0.1", lambda: threading.Thread(target=work).start())
    reactor.run()


main()
