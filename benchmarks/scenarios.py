"""Scenarios a second: the same scene on the network in memory, and on loopback sockets with this process' reactor.

One scenario: listen, connect, ten echoes of 64 bytes, half-close both ways, and a look for what was left behind::

    python benchmarks/scenarios.py                      # prints a table
    python benchmarks/scenarios.py --json FILE          # and writes the figures
    python benchmarks/scenarios.py --smoke              # a few runs, to see that it works

Each ground runs in several rounds, in turn with the others, in one process; the figure is the median of the rounds' CPU
time. The scene's protocols are Twisted's own kind, with nothing of the test kit in them but the network.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import figures
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import ClientFactory, Factory, Protocol
from zope.interface import implementer

from twisted_net.testing.loopback import LoopbackNetwork
from twisted_net.testing.network import MemoryNetwork

ECHOES = 10
SEGMENT = b"x" * 64
ROUNDS = 3


@implementer(IHalfCloseableProtocol)
class Server(Protocol):
    """Sends back what comes, and ends when the client has ended."""

    def __init__(self) -> None:
        self.done: Deferred[None] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.transport.write(data)  # type: ignore[union-attr]

    def readConnectionLost(self) -> None:
        self.transport.loseWriteConnection()  # type: ignore[union-attr]

    def writeConnectionLost(self) -> None:
        self.transport.loseConnection()  # type: ignore[union-attr]

    def connectionLost(self, reason: object = None) -> None:
        self.done.callback(None)


@implementer(IHalfCloseableProtocol)
class Client(Protocol):
    """Sends, waits for the answer, and half-closes after ten."""

    def __init__(self) -> None:
        self.heard = 0
        self.done: Deferred[None] = Deferred()

    def connectionMade(self) -> None:
        self.transport.write(SEGMENT)  # type: ignore[union-attr]

    def dataReceived(self, data: bytes) -> None:
        self.heard += len(data)
        if self.heard == ECHOES * len(SEGMENT):
            self.transport.loseWriteConnection()  # type: ignore[union-attr]
        elif self.heard % len(SEGMENT) == 0:
            self.transport.write(SEGMENT)  # type: ignore[union-attr]

    def readConnectionLost(self) -> None:
        self.transport.loseConnection()  # type: ignore[union-attr]

    def writeConnectionLost(self) -> None:
        """Its FIN is sent."""

    def connectionLost(self, reason: object = None) -> None:
        self.done.callback(None)


class _Servers(Factory):
    noisy = False

    def __init__(self, server: Server) -> None:
        self._server = server

    def buildProtocol(self, addr: object) -> Server:
        return self._server


class _Clients(ClientFactory):
    noisy = False

    def __init__(self, client: Client) -> None:
        self._client = client

    def buildProtocol(self, addr: object) -> Client:
        return self._client


async def scene(network: Any) -> None:
    """One scenario."""
    client, server = Client(), Server()
    here, there = network.host("client"), network.host("server")
    port = await TCP4ServerEndpoint(there.reactor, 0, interface=there.address).listen(_Servers(server))
    here.reactor.connectTCP(there.address, port.getHost().port, _Clients(client))
    await client.done
    await server.done
    await port.stopListening()
    assert client.heard == ECHOES * len(SEGMENT)


def inMemory(seeds: Iterable[int | None]) -> None:
    """One scenario in memory for each seed, with the look for leaks that `close` does."""
    for seed in seeds:
        with MemoryNetwork(seed) as network:
            network.run(partial(scene, network))


async def onLoopback(count: int) -> None:
    """As many scenarios on real sockets, one after the other."""
    for _ in range(count):
        network = LoopbackNetwork()
        await scene(network)
        await network.ended()


def measure(run: Callable[[], object], count: int) -> tuple[float, float]:
    """Scenarios per second of CPU, and of the wall clock."""
    cpu, wall = time.process_time(), time.perf_counter()
    run()
    return count / (time.process_time() - cpu), count / (time.perf_counter() - wall)


def main() -> None:
    options = figures.parse(__doc__)
    count, rounds = (20, 1) if options.smoke else (2000, ROUNDS)
    outer = LoopbackNetwork()
    grounds: dict[str, Callable[[], object]] = {
        "memory, calm": lambda: inMemory([None] * count),
        "memory, by seeds": lambda: inMemory(range(count)),
        "loopback": lambda: outer.run(lambda: onLoopback(count), timeout=600),
    }
    measured: dict[str, list[tuple[float, float]]] = {name: [] for name in grounds}
    for _ in range(rounds):
        for name, run in grounds.items():
            measured[name].append(measure(run, count))
    medians = {
        name: {
            "per CPU second": round(statistics.median(cpu for cpu, _ in rates)),
            "lowest": round(min(cpu for cpu, _ in rates)),
            "highest": round(max(cpu for cpu, _ in rates)),
            "per second of the wall clock": round(statistics.median(wall for _, wall in rates)),
        }
        for name, rates in measured.items()
    }
    ratios = figures.ratios({name: row["per CPU second"] for name, row in medians.items()}, "loopback")
    for name, row in medians.items():
        spread = f"from {row['lowest']} to {row['highest']}; {ratios[name]:.2f} of loopback"
        print(f"{name:18} {row['per CPU second']:6} scenarios per CPU second ({spread})")
    reactor = type(outer.reactor).__name__
    figures.write(options.json, figures.about(reactor=reactor, scenarios=count, rounds=rounds), medians, ratios)


if __name__ == "__main__":
    main()
