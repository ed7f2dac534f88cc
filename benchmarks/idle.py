"""Memory for each idle connection: ours beside Twisted's, asyncio's, trio's, Node's, and a program in C.

A server process accepts 10,000 connections, which say nothing; what its resident memory (VmRSS) has grown by is
divided by their number. Both ends are in processes of their own, since a process may have too few descriptors for
both::

    python benchmarks/idle.py                   # prints a table
    python benchmarks/idle.py --json FILE       # and writes the figures

Each server runs several times, in turn with the others; the figure is the median. A peer that is not installed is
named.
"""

from __future__ import annotations

import socket
import statistics
import struct
import time

import figures
import servers

CONNECTIONS = 10_000
ROUNDS = 3
AGAINST = "asyncio streams"
#: Those that are closed in order would keep their ports for a minute.
RESET = struct.pack("ii", 1, 0)


def measure(server: servers.Server, count: int) -> float:
    """Bytes for each connection of an echo server that has had none yet."""
    before, held = server.memory(), server.descriptors()
    clients: list[socket.socket] = []
    try:
        deadline = time.monotonic() + servers.PATIENCE
        for made in range(1, count + 1):
            clients.append(socket.create_connection(("127.0.0.1", server.port), timeout=servers.PATIENCE))
            clients[-1].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            if made % servers.BACKLOG and made < count:
                continue
            # What the backlog cannot hold would be tried again after a second.
            while (accepted := server.descriptors() - held) < made:
                if time.monotonic() > deadline:
                    raise RuntimeError(f"{server.name} has accepted {accepted} of {made} connections")
                time.sleep(0.005)
        # One that speaks, at last: when it is answered, all the others have been dealt with.
        clients[-1].sendall(b"x")
        if clients[-1].recv(1) != b"x":
            raise RuntimeError(f"{server.name} does not echo")
        return (server.memory() - before) / count
    finally:
        for client in clients:
            client.close()


def main() -> None:
    options = figures.parse(__doc__)
    hard = servers.moreDescriptors()
    count, rounds = (50, 1) if options.smoke else (min(CONNECTIONS, hard - 200), ROUNDS)
    present: dict[str, list[float]] = {
        name: [] for name in figures.present({name: peer.needs for name, peer in servers.STREAMS.items()})
    }
    for _ in range(rounds):
        for name, measured in present.items():
            with servers.start(name, "echo") as server:
                measured.append(measure(server, count))
    medians = {name: round(statistics.median(measured)) for name, measured in present.items()}
    ratios = figures.ratios(medians, AGAINST)
    for name, each in medians.items():
        told = f"{each:6} bytes for each of {count} connections, {ratios[name]:.2f} of {AGAINST}"
        print(f"{name:{figures.WIDTH}} {told}")
    figures.write(options.json, figures.about(connections=count, rounds=rounds), medians, ratios)


if __name__ == "__main__":
    main()
