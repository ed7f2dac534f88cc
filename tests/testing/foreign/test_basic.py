"""twisted.protocols.basic on a network in memory: lines and files, however they are cut."""

from __future__ import annotations

import io
from random import Random
from typing import Any

from pairs import Side
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint, connectProtocol
from twisted.internet.protocol import Factory
from twisted.protocols.basic import FileSender, Int32StringReceiver, LineReceiver
from weather import inEveryWeather

from twisted_net.testing.network import MemoryNetwork

FIVE = Random(1).randbytes(5_000_000)


class Shouter(LineReceiver):
    """Answers each line in capitals; after ``raw N`` the next N bytes are no lines."""

    transport: Any
    _raw = 0

    def lineReceived(self, line: bytes) -> None:
        if line.startswith(b"raw "):
            self._raw = int(line[4:])
            self.setRawMode()  # type: ignore[no-untyped-call]
        else:
            self.sendLine(line.upper())  # type: ignore[no-untyped-call]

    def rawDataReceived(self, data: bytes) -> None:
        mine, rest = data[: self._raw], data[self._raw :]
        self._raw -= len(mine)
        self.transport.write(mine)
        if not self._raw:
            self.setLineMode(rest)  # type: ignore[no-untyped-call]


class Echoer(Int32StringReceiver):
    """Sends every string back."""

    def stringReceived(self, string: bytes) -> None:
        self.sendString(string)  # type: ignore[no-untyped-call]


class Scene:
    """A server's protocol, and a client that is connected to it."""

    def __init__(self, network: MemoryNetwork, protocol: Any) -> None:
        self._network = network
        self._protocol = protocol

    async def __aenter__(self) -> Side:
        here, there = (self._network.host(name).reactor for name in ("client", "server"))
        self._port = await TCP4ServerEndpoint(there, 7).listen(Factory.forProtocol(self._protocol))
        self._client = Side()
        await connectProtocol(TCP4ClientEndpoint(here, "server", 7), self._client)
        return self._client

    async def __aexit__(self, *failure: object) -> None:
        self._client.transport.loseConnection()
        await self._client.happened("lost")
        await self._port.stopListening()


@inEveryWeather()
async def test_lines(network: MemoryNetwork) -> None:
    async with Scene(network, Shouter) as client:
        client.transport.write(b"hello\r\nraw 5\r\n\r\na\r\nworld\r\n")
        await client.until(lambda: client.received.endswith(b"WORLD\r\n"))
        assert client.received == b"HELLO\r\n\r\na\r\nWORLD\r\n"


@inEveryWeather()
async def test_aThousandLines(network: MemoryNetwork) -> None:
    lines = b"".join(b"line %d" % number + b"." * (number % 50) + b"\r\n" for number in range(1000))
    async with Scene(network, Shouter) as client:
        client.transport.write(lines)
        await client.until(lambda: len(client.received) >= len(lines))
        assert client.received == lines.upper()


@inEveryWeather()
async def test_strings(network: MemoryNetwork) -> None:
    strings = b"".join(len(one).to_bytes(4, "big") + one for one in (FIVE[:size] for size in (0, 1, 90_000, 7)))
    async with Scene(network, Echoer) as client:
        client.transport.write(strings)
        await client.until(lambda: len(client.received) >= len(strings))
        assert client.received == strings


@inEveryWeather()
async def test_aFileForASlowReader(network: MemoryNetwork) -> None:
    reactor = network.host("server").reactor
    taken: list[int] = []

    class Reader(Side):
        def dataReceived(self, data: bytes) -> None:
            taken.append(len(data))
            self.transport.pauseProducing()
            self.rest = reactor.callLater(0.01, self.transport.resumeProducing)
            super().dataReceived(data)

    reader = Reader()
    async with Scene(network, lambda: reader) as client:
        file = io.BytesIO(FIVE)
        sent = FileSender().beginFileTransfer(file, client.transport)
        await reader.until(lambda: len(reader.received) > 1_000_000)
        # What is read of the file and not yet by the reader: two windows, and what the transport and its sender hold.
        assert file.tell() - sum(taken) < 400_000
        await sent
        await reader.until(lambda: len(reader.received) >= len(FIVE))
        assert reader.received == FIVE
        reader.rest.cancel()
        reader.transport.loseConnection()
