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

import socket

import figures
import servers

SEGMENT = b"x" * 64
WARM_UP = 20
ROUNDS = 2000
AGAINST = "twisted Protocol on epoll"
OTHERS = ("Node", "C")
"""Not in Python."""


def measure(name: str, rounds: int) -> float:
    """Calls for each segment."""
    with (
        servers.start(name, "echo", count=True) as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=servers.PATIENCE) as connection,
    ):

        def echoed(times: int) -> int:
            for _ in range(times):
                connection.sendall(SEGMENT)
                assert connection.recv(len(SEGMENT), socket.MSG_WAITALL) == SEGMENT
            return server.ask()

        before = echoed(WARM_UP)
        return (echoed(rounds) - before) / rounds


def main() -> None:
    options = figures.parse(__doc__)
    rounds = 50 if options.smoke else ROUNDS
    present = figures.present({name: peer.needs for name, peer in servers.STREAMS.items() if name not in OTHERS})
    counts = {name: round(measure(name, rounds), 1) for name in present}
    ratios = figures.ratios(counts, AGAINST)
    for name, count in counts.items():
        print(f"{name:{figures.WIDTH}} {count:5.1f} calls for each segment, {ratios[name]:.2f} of a {AGAINST}")
    figures.write(options.json, figures.about(segments=rounds, payload=len(SEGMENT)), counts, ratios)


if __name__ == "__main__":
    main()
