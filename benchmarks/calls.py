"""Python calls for each echoed segment of 64 bytes: our faces beside a bare Protocol, asyncio's streams and trio's.

::

    python benchmarks/calls.py                   # prints a table
    python benchmarks/calls.py --json FILE       # and writes the figures

Counts do not depend on how busy a machine is. Each server is a process of its own, in which ``sys.setprofile`` counts
the Python frames that its one thread enters: calls of C functions are not among them. One connection echoes segments,
one after the other; a few before the count, so that nothing is met for the first time. A peer that is not installed is
named.
"""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

import figures

SEGMENT = b"x" * 64
WARM_UP = 20
ROUNDS = 2000
PATIENCE = 30.0


class Count:
    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, frame: FrameType, event: str, argument: object) -> None:
        if event == "call":
            self.calls += 1


def ready(port: int) -> None:
    """Say on which port, count this thread's calls from now on, and tell their number whenever a line comes."""
    count = Count()

    def answer() -> None:
        for _ in sys.stdin:
            print(count.calls, flush=True)

    threading.Thread(target=answer, daemon=True).start()
    print(port, flush=True)
    sys.setprofile(count)


# -- servers: each runs for ever


def twisted(serve: Callable[[Any], None]) -> None:
    """Run a server of Twisted's on epoll."""
    from twisted.internet import epollreactor

    epollreactor.install()
    from twisted.internet import reactor as installed

    reactor: Any = installed
    reactor.callWhenRunning(serve, reactor)
    reactor.run()


def bare(reactor: Any) -> None:
    from twisted.internet.protocol import Factory, Protocol

    class Echo(Protocol):
        def dataReceived(self, data: bytes) -> None:
            assert self.transport is not None
            self.transport.write(data)

    ready(reactor.listenTCP(0, Factory.forProtocol(Echo), interface="127.0.0.1").getHost().port)


def netSockets(reactor: Any) -> None:
    from twisted_net import net

    def connected(client: net.Socket) -> None:
        client.on("data", lambda data: client.write(data))

    server = net.createServer(connected)
    server.listen(0, "127.0.0.1", lambda: ready(server.address().port))  # type: ignore[union-attr, arg-type]


def ourStreams(reactor: Any) -> None:
    from twisted.internet.defer import Deferred

    from twisted_net import streams

    async def echo(stream: streams.Stream) -> None:
        while data := await stream.read():
            await stream.write(data)

    async def serve() -> None:
        listener = await streams.listen("127.0.0.1:0")
        ready(listener.address.port or 0)
        await listener.serve(echo)

    Deferred.fromCoroutine(serve())


def asyncioProtocol() -> None:
    class Echo(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            self.transport.write(data)

    async def serve() -> None:
        server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", 0)
        ready(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(serve())


def asyncioStreams() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()

    async def serve() -> None:
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        ready(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(serve())


def trioStreams() -> None:
    import trio

    async def echo(stream: trio.SocketStream) -> None:
        while data := await stream.receive_some(65536):
            await stream.send_all(data)

    async def serve() -> None:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        ready(listeners[0].socket.getsockname()[1])
        await trio.serve_listeners(echo, listeners)

    trio.run(serve)


AGAINST = "twisted Protocol, epoll"
SERVERS: dict[str, tuple[str | None, Callable[[], None]]] = {
    AGAINST: (None, lambda: twisted(bare)),
    "net.Socket, epoll": (None, lambda: twisted(netSockets)),
    "streams.Stream, epoll": (None, lambda: twisted(ourStreams)),
    "asyncio Protocol": (None, asyncioProtocol),
    "asyncio streams": (None, asyncioStreams),
    "trio": ("trio", trioStreams),
}

# -- the client


def measure(name: str, rounds: int) -> float:
    """Calls for each segment."""
    command = [sys.executable, __file__, "--serve", name]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        stdin, stdout = server.stdin, server.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            port = int(stdout.readline())
            with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:

                def echoed(times: int) -> int:
                    for _ in range(times):
                        connection.sendall(SEGMENT)
                        assert connection.recv(len(SEGMENT), socket.MSG_WAITALL) == SEGMENT
                    stdin.write("\n")
                    stdin.flush()
                    return int(stdout.readline())

                before = echoed(WARM_UP)
                return (echoed(rounds) - before) / rounds
        finally:
            server.kill()


def main() -> None:
    options = figures.parse(__doc__)
    rounds = 50 if options.smoke else ROUNDS
    present = figures.present({name: package for name, (package, _) in SERVERS.items()})
    counts = {name: round(measure(name, rounds), 1) for name in present}
    ratios = figures.ratios(counts, AGAINST)
    for name, count in counts.items():
        print(f"{name:24} {count:5.1f} calls for each segment, {ratios[name]:.2f} of a {AGAINST}")
    figures.write(options.json, figures.about(segments=rounds, payload=len(SEGMENT)), counts, ratios)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        SERVERS[sys.argv[2]][1]()
    else:
        main()
