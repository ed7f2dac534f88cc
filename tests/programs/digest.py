"""Prints the hash of a run's trace on a network in memory: ``digest.py SEED``. The same seed, the same line.

Client and server talk over TCP in bad weather, over UNIX and by datagrams, with timers in between.
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet.protocol import ClientFactory, DatagramProtocol, Protocol, ServerFactory

from twisted_net.sansio.faults import Duplicate, Latency, Loss, Slicer
from twisted_net.testing.network import MemoryNetwork


class Echo(Protocol):
    transport: Any

    def dataReceived(self, data: bytes) -> None:
        self.transport.write(data)


class Talker(Protocol):
    transport: Any

    def connectionMade(self) -> None:
        self.left = 20
        self.talk()

    def talk(self) -> None:
        self.transport.write(b"hello " * self.left)
        self.left -= 1

    def dataReceived(self, data: bytes) -> None:
        if self.left:
            self.talk()
        else:
            self.transport.loseConnection()


class Sender(DatagramProtocol):
    transport: Any

    def __init__(self, place: Any, reactor: Any) -> None:
        self._place = place
        self._reactor = reactor
        self._left = 20

    def startProtocol(self) -> None:
        self.transport.write(b"datagram %d" % self._left, self._place)
        self._left -= 1
        if self._left:
            self._reactor.callLater(0.01, self.startProtocol)


def main(seed: int) -> str:
    network = MemoryNetwork(seed)
    here, there = network.host("here"), network.host("there")
    network.link(here, there).setFaults(Latency(0.01, jitter=0.01), Slicer(30, variation=20), Loss(probability=0.2))
    network.link(here, here).setFaults(Duplicate(probability=0.5))
    there.reactor.listenTCP(80, ServerFactory.forProtocol(Echo))
    here.reactor.listenUNIX("/run/echo", ServerFactory.forProtocol(Echo))
    for _ in range(3):
        here.reactor.connectTCP("there", 80, ClientFactory.forProtocol(Talker))
        here.reactor.connectUNIX("/run/echo", ClientFactory.forProtocol(Talker))
    for host in (here, there):
        here.reactor.listenUDP(0, Sender((host.address, 7), here.reactor))
        host.reactor.listenUDP(7, DatagramProtocol())
    network.advance(60)
    return network.trace.digest()


if __name__ == "__main__":
    print(main(int(sys.argv[1])))
