"""A server in the manner of Evo's TcpServer: it accepts by itself, knows its clients, and holds them to limits.

``python evo_server.py [ADDRESS [IDLE]]`` listens on 127.0.0.1:8125 and closes who is silent for 60 seconds, unless told
otherwise. It serves until it is interrupted.

A client, such as ``evo_client.py``, sends lines: first its name, then what it has to say, which goes to all others;
``close NAME`` closes one of them. Each may send 10,000 bytes a second, 1,000 of them at once; a line has 4,000 at most.
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import react

from twisted_net import NetError, net
from twisted_net.address import Address
from twisted_net.sansio.buffer import ReadBuffer

WORK = 0.01
"""Seconds that each line takes to be dealt with; meanwhile its sender is paused."""

LONGEST = 4_000
"""Bytes of a line; who sends a longer one is closed."""


class Room:
    """A server, and what it knows of its clients."""

    def __init__(self, reactor: Any, idle: float) -> None:
        self.reactor = reactor
        self.names: dict[net.Socket, str] = {}
        # "It manages connected clients and allows controlling the flow of incoming data via rate limits and idle
        # timeouts."
        limits = net.Limits(connections=100, perPeer=10, readRate=10_000, burst=1_000, idleTimeout=idle)
        self.server = net.createServer(self.connected, limits=limits)
        self.server.on("limit", self.limited)
        self.server.on("close", lambda: print("closed"))

    def name(self, client: net.Socket | Address) -> str:
        return self.names.get(client, "somebody") if isinstance(client, net.Socket) else str(client)

    def connected(self, client: net.Socket) -> None:
        inbox = ReadBuffer(LONGEST)

        # "Call self:Pause(client) and self:Resume(client) in any of the relevant event handler callbacks": no byte of
        # this client is read while there is work to do for it, and the kernel makes it wait.
        @client.on("data")
        def received(data: bytes) -> None:
            inbox.feed(data)
            self.server.pauseClient(client)
            self.reactor.callLater(WORK, work)

        def work() -> None:
            if client not in self.server.clients:
                return  # it was closed meanwhile
            try:
                line = inbox.takeLine(LONGEST)
            except NetError as error:
                client.destroy(error)
                return
            if line is None:
                self.server.resumeClient(client)
            else:
                self.heard(client, line.decode(errors="replace"))
                self.reactor.callLater(WORK, work)

        @client.on("error")
        def failed(error: NetError) -> None:
            print(f"{self.name(client)}: {error.code}")

        @client.on("close")
        def left(hadError: bool) -> None:
            print(self.name(client), "has left", "after an error" if hadError else "in good order")
            self.names.pop(client, None)

    def heard(self, client: net.Socket, line: str) -> None:
        name = self.names.get(client)
        if name is None:
            self.names[client] = line
            print(f"{line} is here, one of {len(self.server.clients)}")
            client.write(f"welcome, {line}\n")
        elif line.startswith("close "):
            found = self.server.find(lambda one: self.names.get(one) == line[len("close ") :])
            if found is not None:
                print(f"{name} closes {self.name(found)}")
                self.server.closeClient(found)
        else:
            told = self.server.broadcast(f"{name}: {line}\n", but=client)
            print(f"{name} says {len(line)} characters to {told}")

    def limited(self, limit: str, client: net.Socket | Address, action: str) -> None:
        print(f"{self.name(client)} is {action}: {limit}")


def main(reactor: Any, where: str = "127.0.0.1:8125", idle: str = "60") -> Deferred[None]:
    room = Room(reactor, float(idle))
    room.server.listen(where, lambda: print("listening on", room.server.address()))

    @room.server.once("error")
    def failed(error: Exception) -> None:
        print("cannot listen:", error)

    def goodbye() -> Deferred[None]:
        room.server.broadcast("the server closes\n")
        for client in tuple(room.server.clients):
            room.server.closeClient(client)
        return room.server.drain(5)

    reactor.addSystemEventTrigger("before", "shutdown", goodbye)
    return room.server.whenClosed()


if __name__ == "__main__":
    react(main, sys.argv[1:])
