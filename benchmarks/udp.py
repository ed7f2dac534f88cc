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

import socket
import statistics
from contextlib import ExitStack, closing

import figures
import servers

PAYLOAD = b"x" * 64
WINDOWS = (1, 16)
ROUNDS = 5
AGAINST = "twisted DatagramProtocol on epoll"


class Client:
    """A client of one server."""

    def __init__(self, server: servers.Server) -> None:
        self._server = server
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.settimeout(10)
        self._socket.connect(("127.0.0.1", server.port))

    def echoes(self, window: int, count: int) -> float:
        """Microseconds of the server's CPU for each of *count* datagrams."""
        self._exchange(window, count // 10)
        before = self._server.cpu()
        self._exchange(window, count)
        return (self._server.cpu() - before) / count * 1e6

    def _exchange(self, window: int, count: int) -> None:
        for _ in range(count // window):
            for _ in range(window):
                self._socket.send(PAYLOAD)
            for _ in range(window):
                self._socket.recv(100)

    def close(self) -> None:
        self._socket.close()


def main() -> None:
    options = figures.parse(__doc__)
    count, rounds = (160, 1) if options.smoke else (16_000, ROUNDS)
    present = figures.present({name: peer.needs for name, peer in servers.DATAGRAMS.items()})
    measured: dict[tuple[str, int], list[float]] = {(name, window): [] for name in present for window in WINDOWS}
    with ExitStack() as stack:
        clients = {}
        for name in present:
            server = stack.enter_context(servers.start(name, "udp"))
            clients[name] = stack.enter_context(closing(Client(server)))
        for _ in range(rounds):
            for (name, window), times in measured.items():
                times.append(clients[name].echoes(window, count))
    medians = {
        f"window of {window}": {name: round(statistics.median(measured[name, window]), 1) for name in present}
        for window in WINDOWS
    }
    ratios = {told: figures.ratios(each, AGAINST) for told, each in medians.items()}
    for told, each in medians.items():
        for name, value in each.items():
            print(f"{told:13} {name:{figures.WIDTH}} {value:5.1f} us, {ratios[told][name]:.2f} of {AGAINST}")
    figures.write(options.json, figures.about(datagrams=count, rounds=rounds, payload=len(PAYLOAD)), medians, ratios)


if __name__ == "__main__":
    main()
