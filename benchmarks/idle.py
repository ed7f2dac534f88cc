"""Memory for each idle connection: ours beside asyncio's streams, trio's, and a bare Protocol of Twisted's.

A server process accepts 10,000 connections, which say nothing; what its resident memory (VmRSS) has grown by is
divided by their number. Both ends are in processes of their own, since a process may have too few descriptors for
both::

    python benchmarks/idle.py                   # prints a table
    python benchmarks/idle.py --json FILE       # and writes the figures

Each server runs several times, in turn with the others; the figure is the median. A peer that is not installed is
named.
"""

from __future__ import annotations

import gc
import resource
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import figures

CONNECTIONS = 10_000
ROUNDS = 3
PATIENCE = 60.0

# -- servers: each calls `ready(port)` and then runs for ever; `accepted` counts


def report(port: int) -> None:
    """Say on which port, and then the memory in use whenever somebody asks."""
    print(port, flush=True)


def memory() -> int:
    """Resident bytes of this process."""
    gc.collect()
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


def answer(counted: Callable[[], int]) -> None:
    """Answer a line on standard input with the number of connections, and the memory in use."""
    for _ in sys.stdin:
        print(counted(), memory(), flush=True)


def twisted(serve: Callable[[Any, Callable[[int], None]], Callable[[], int]]) -> None:
    """Run a server of Twisted's on epoll."""
    from twisted.internet import epollreactor

    epollreactor.install()
    from twisted.internet import reactor as installed

    reactor: Any = installed
    counted = serve(reactor, report)
    reactor.callInThread(answer, counted)
    reactor.run()


def bare(reactor: Any, ready: Callable[[int], None]) -> Callable[[], int]:
    from twisted.internet.protocol import Factory, Protocol

    connections = []

    class Idle(Protocol):
        def connectionMade(self) -> None:
            connections.append(self)

    factory = Factory.forProtocol(Idle)
    factory.noisy = False
    reactor.callWhenRunning(lambda: ready(reactor.listenTCP(0, factory, 511, "127.0.0.1").getHost().port))
    return lambda: len(connections)


def netSockets(reactor: Any, ready: Callable[[int], None]) -> Callable[[], int]:
    from twisted_net import net

    server = net.createServer(lambda socket: socket.on("data", print))
    server.on("listening", lambda: ready(server.address().port))  # type: ignore[union-attr, arg-type]
    reactor.callWhenRunning(server.listen, 0, "127.0.0.1")
    return lambda: server.connections


def ourStreams(reactor: Any, ready: Callable[[int], None]) -> Callable[[], int]:
    from twisted.internet.defer import Deferred

    from twisted_net import streams

    connections = []

    async def idle(stream: streams.Stream) -> None:
        connections.append(stream)
        await stream.read()

    async def serve() -> None:
        listener = await streams.listen("127.0.0.1:0")
        ready(listener.address.port or 0)
        await listener.serve(idle)

    reactor.callWhenRunning(lambda: Deferred.fromCoroutine(serve()))
    return lambda: len(connections)


def asyncioStreams() -> None:
    import asyncio
    import threading

    connections = []

    async def idle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        await reader.read(65536)

    async def serve() -> None:
        server = await asyncio.start_server(idle, "127.0.0.1", 0, backlog=511)
        report(server.sockets[0].getsockname()[1])
        threading.Thread(target=answer, args=(lambda: len(connections),), daemon=True).start()
        await asyncio.sleep(3600)

    asyncio.run(serve())


def trioStreams() -> None:
    import threading

    import trio

    connections = []

    async def idle(stream: trio.SocketStream) -> None:
        connections.append(stream)
        await stream.receive_some(65536)

    async def serve() -> None:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1", backlog=511)
        report(listeners[0].socket.getsockname()[1])
        threading.Thread(target=answer, args=(lambda: len(connections),), daemon=True).start()
        await trio.serve_listeners(idle, listeners)

    trio.run(serve)


SERVERS: dict[str, tuple[str | None, Callable[[], None]]] = {
    "twisted Protocol": (None, lambda: twisted(bare)),
    "net.Socket": (None, lambda: twisted(netSockets)),
    "streams.Stream": (None, lambda: twisted(ourStreams)),
    "asyncio streams": (None, asyncioStreams),
    "trio": ("trio", trioStreams),
}

# -- the client


def measure(name: str, count: int) -> float:
    """Bytes for each connection."""
    command = [sys.executable, __file__, "--serve", name]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        port = int(server.stdout.readline())

        def ask() -> tuple[int, int]:
            server.stdin.write("\n")  # type: ignore[union-attr]
            server.stdin.flush()  # type: ignore[union-attr]
            connections, resident = server.stdout.readline().split()  # type: ignore[union-attr]
            return int(connections), int(resident)

        clients: list[socket.socket] = []
        try:
            _, before = ask()
            clients += [socket.create_connection(("127.0.0.1", port)) for _ in range(count)]
            deadline = time.monotonic() + PATIENCE
            while (held := ask())[0] < count:
                assert time.monotonic() < deadline, f"{name} has accepted {held[0]} of {count}"
                time.sleep(0.05)
            return (held[1] - before) / count
        finally:
            for client in clients:
                client.close()
            server.kill()


def main() -> None:
    options = figures.parse(__doc__)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    count, rounds = (50, 1) if options.smoke else (min(CONNECTIONS, hard - 200), ROUNDS)
    present: dict[str, list[float]] = {
        name: [] for name in figures.present({name: package for name, (package, _) in SERVERS.items()})
    }
    for _ in range(rounds):
        for name, measured in present.items():
            measured.append(measure(name, count))
    medians = {name: round(statistics.median(measured)) for name, measured in present.items()}
    ratios = figures.ratios(medians, "asyncio streams")
    for name, each in medians.items():
        print(f"{name:18} {each:6} bytes for each of {count} connections, {ratios[name]:.2f} of asyncio streams")
    figures.write(options.json, figures.about(connections=count, rounds=rounds), medians, ratios)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        SERVERS[sys.argv[2]][1]()
    else:
        main()
