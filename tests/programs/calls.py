"""Counts the Python calls per echoed 64-byte segment on the epoll reactor: a bare Protocol, and the event face.

Prints one JSON object: ``{"bare": 49.0, "net": 53.0}``.  ``sys.setprofile`` reports a ``call`` for each Python frame;
calls of C functions are not counted.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
from types import FrameType
from typing import Any

from twisted.internet import epollreactor

epollreactor.install()

from twisted.internet import reactor as globalReactor  # noqa: E402
from twisted.internet.protocol import Factory, Protocol  # noqa: E402

from twisted_net import net  # noqa: E402

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

    def work() -> None:
        try:
            assert server.port is not None
            counts = {"bare": measure(bare.getHost().port), "net": measure(server.port.getHost().port)}
            print(json.dumps(counts), flush=True)
        finally:
            reactor.callFromThread(reactor.stop)

    server.listen(0, "127.0.0.1", lambda: threading.Thread(target=work).start())
    reactor.run()


main()
