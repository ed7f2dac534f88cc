"""CPU for each datagram of 64 bytes that a server echoes: ours in each manner, Twisted's bare protocol, and asyncio's.

::

    python benchmarks/udp.py                      # prints a table
    python benchmarks/udp.py --json FILE          # and writes the figures
    python benchmarks/udp.py --smoke              # a few datagrams, to see that it works

Each server is a process of its own. A client with plain sockets sends a window of datagrams, waits for their echoes,
and sends the next window; the figure is the server's own CPU time for each datagram (the process' usage, after a
warm-up), the median of several rounds in which the servers take turns. With a window of 1 every datagram costs a turn
of the reactor; with 16 a turn finds several.
"""

from __future__ import annotations

import asyncio
import resource
import socket
import statistics
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import figures

from twisted_net.address import Address

PAYLOAD = b"x" * 64
WINDOWS = (1, 16)
ROUNDS = 5


def cpu() -> float:
    """Seconds of CPU that this process has used."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


# The servers. Each prints its port, and then its CPU time for every line that it is given.


def serveCalls(address: Any) -> None:
    """In a thread, which costs nothing while nothing is asked."""
    print(address.port, flush=True)

    def answer() -> None:
        for _ in sys.stdin:
            print(cpu(), flush=True)

    threading.Thread(target=answer, daemon=True).start()


def install(name: str) -> Any:
    """The reactor *name*, which becomes the global one."""
    if name == "asyncio":
        from twisted.internet import asyncioreactor

        asyncioreactor.install()
    from twisted.internet import reactor

    return reactor


def twistedsOwn(name: str) -> None:
    """A bare DatagramProtocol that writes back."""
    from twisted.internet.protocol import DatagramProtocol

    reactor = install(name)

    class Echo(DatagramProtocol):
        def datagramReceived(self, datagram: bytes, addr: Any) -> None:
            self.transport.write(datagram, addr)  # type: ignore[union-attr]

    serveCalls(reactor.listenUDP(0, Echo(), interface="127.0.0.1").getHost())
    reactor.run()


def ourEvents(name: str) -> None:
    """The event manner."""
    from twisted_net import udp

    reactor = install(name)
    server = udp.createSocket("udp4")
    server.on("message", server.send)
    server.bind(0, "127.0.0.1", lambda: serveCalls(server.address()))
    reactor.run()


async def echo(reactor: Any) -> None:
    from twisted_net import udp

    server = await udp.bind("127.0.0.1:0", reactor=reactor)
    serveCalls(server.address)
    while True:
        packet = await server.recvFrom()
        await server.sendTo(packet.data, packet.address)


def ourCoroutine(name: str) -> None:
    """The await manner, in a coroutine that Twisted runs."""
    from twisted.internet.defer import Deferred

    reactor = install(name)
    reactor.callWhenRunning(lambda: Deferred.fromCoroutine(echo(reactor)))
    reactor.run()


def ourTask(name: str) -> None:
    """The await manner, in a task of asyncio's."""
    reactor = install(name)
    tasks: list[Any] = []
    reactor.callWhenRunning(lambda: tasks.append(asyncio.get_event_loop().create_task(echo(reactor))))
    reactor.run()


def asynciosOwn(name: str) -> None:
    """A bare protocol of asyncio's."""

    class Echo(asyncio.DatagramProtocol):
        transport: asyncio.DatagramTransport

        def connection_made(self, transport: Any) -> None:
            self.transport = transport
            serveCalls(Address("127.0.0.1", transport.get_extra_info("sockname")[1], "IPv4"))

        def datagram_received(self, data: bytes, addr: Any) -> None:
            self.transport.sendto(data, addr)

    async def main() -> None:
        await asyncio.get_running_loop().create_datagram_endpoint(Echo, ("127.0.0.1", 0))
        await asyncio.Event().wait()

    asyncio.run(main())


SERVERS: dict[str, tuple[Callable[[str], None], str]] = {
    "Twisted, epoll": (twistedsOwn, "default"),
    "events, epoll": (ourEvents, "default"),
    "coroutine, epoll": (ourCoroutine, "default"),
    "asyncio": (asynciosOwn, ""),
    "Twisted, asyncioreactor": (twistedsOwn, "asyncio"),
    "events, asyncioreactor": (ourEvents, "asyncio"),
    "coroutine, asyncioreactor": (ourCoroutine, "asyncio"),
    "task, asyncioreactor": (ourTask, "asyncio"),
}


# The client


class Server:
    """A server that runs."""

    def __init__(self, name: str) -> None:
        command = (sys.executable, __file__, "serve", name)
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.settimeout(10)
        self._socket.connect(("127.0.0.1", int(self._stdout.readline())))

    def echoes(self, window: int, count: int) -> float:
        """Microseconds of its CPU for each of *count* datagrams."""
        self._exchange(window, count // 10)
        before = self._cpu()
        self._exchange(window, count)
        return (self._cpu() - before) / count * 1e6

    def _exchange(self, window: int, count: int) -> None:
        for _ in range(count // window):
            for _ in range(window):
                self._socket.send(PAYLOAD)
            for _ in range(window):
                self._socket.recv(100)

    def _cpu(self) -> float:
        self._stdin.write("\n")
        self._stdin.flush()
        return float(self._stdout.readline())

    def stop(self) -> None:
        self._socket.close()
        self._process.kill()
        self._process.communicate()


def main() -> None:
    options = figures.parse(__doc__)
    count, rounds = (160, 1) if options.smoke else (16_000, ROUNDS)
    servers = {name: Server(name) for name in SERVERS}
    measured: dict[tuple[str, int], list[float]] = {(name, window): [] for name in servers for window in WINDOWS}
    for _ in range(rounds):
        for (name, window), times in measured.items():
            times.append(servers[name].echoes(window, count))
    for server in servers.values():
        server.stop()
    medians = {
        f"window of {window}": {name: round(statistics.median(measured[name, window]), 1) for name in servers}
        for window in WINDOWS
    }
    ratios = {told: figures.ratios(each, "Twisted, epoll") for told, each in medians.items()}
    for told, each in medians.items():
        for name, value in each.items():
            print(f"{told:13} {name:26} {value:5.1f} us, {ratios[told][name]:.2f} of Twisted's bare protocol on epoll")
    figures.write(options.json, figures.about(datagrams=count, rounds=rounds, payload=len(PAYLOAD)), medians, ratios)


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve, reactorName = SERVERS[sys.argv[2]]
        serve(reactorName)
    else:
        main()
