"""
Clients, a forwarder and targets in every weather: faults, partitions and deaths by chance, one seed for each.

What has to hold, whatever happens: a target has received the beginning of what its client has sent, and the client the
beginning of what the target has; all of it where an end in order was heard. Every session ends, and is journalled once;
the counts add up at all times; and nothing is left.
"""

from __future__ import annotations

from collections.abc import Coroutine, Iterable
from contextlib import suppress
from random import Random
from typing import Any

from between import adds
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from twisted_net import streams
from twisted_net.errors import NetError, TimedOutError
from twisted_net.forward import Check, Ended, Forwarder
from twisted_net.sansio.faults import (
    Bandwidth,
    Fault,
    Faults,
    Glue,
    Latency,
    LimitData,
    Refuse,
    Reset,
    Slicer,
    SlowClose,
    Timeout,
)
from twisted_net.streams import Limits, Listener, Stream
from twisted_net.testing.explore import explore
from twisted_net.testing.network import MemoryNetwork

LENGTH = 300_000
"""Bytes that one side sends, at most; some fit into the network's buffers, some do not."""

LIMITS = Limits(idleTimeout=40.0, halfOpenTimeout=20.0, lifetime=400.0)

SHORTENING = (Timeout, LimitData)
"""Faults of which an end in order may be what is left of more."""


class Chance:
    """What a scene is like: every question has its answer by the seed."""

    def __init__(self, random: Random) -> None:
        self._random = random

    def below(self, count: int) -> int:
        return int(self._random.random() * count)

    def often(self, share: float) -> bool:
        return self._random.random() < share

    def time(self, most: float) -> float:
        return round(self._random.random() * most, 3)

    def of(self, *choices: Any) -> Any:
        return choices[self.below(len(choices))]

    def roads(self) -> Iterable[Fault]:
        """What a link does."""
        if self.often(0.3):
            yield Latency(self.time(0.2), jitter=self.time(0.1))
        if self.often(0.2):
            yield Slicer(1 + self.below(5000), delay=self.time(0.01))
        if self.often(0.15):
            yield Bandwidth(20_000 + self.below(100_000))
        if self.often(0.1):
            yield self.of(Reset(after=self.time(5)), Reset(at=self.below(LENGTH)))

    def faults(self) -> Iterable[Fault]:
        """What the forwarder does besides."""
        yield from self.roads()
        for fault in (
            Glue(self.time(0.1), limit=1 + self.below(5000)),
            SlowClose(self.time(2)),
            Timeout(self.time(3), close=self.often(0.5)),
            LimitData(self.below(LENGTH)),
            Refuse(self.below(3), probability=0.5),
        ):
            if self.often(0.12):
                yield fault


class Talk:
    """One end of a connection: sends what it has to, reads what comes, each at its own pace."""

    def __init__(self, scene: Scene, number: int, stream: Stream) -> None:
        chance = scene.chance
        self.scene = scene
        self.stream = stream
        size = chance.of(0, chance.below(500), chance.below(20_000), chance.below(LENGTH))
        pattern = bytes((number + place * 7) % 256 for place in range(251))
        self.whole = bytes([number]) + (pattern * (size // len(pattern) + 1))[:size]
        self.received = b""
        self.ended = False  # it has sent all, and then its end
        self.heard = ""  # how the other one has
        self._patience = chance.of(0.0, 0.0, 0.0, chance.time(1.0))  # between two reads
        self._pieces = 1 + chance.below(4)
        self._manner = chance.of("first", "first", "last", "abort")
        self._rest = chance.time(2.0) if chance.often(0.3) else 0.0
        self.isOver = False
        name = stream.getSockName()
        self.port = 0 if name is None else name.port

    async def play(self) -> None:
        reading = Deferred.fromCoroutine(self._read())
        await self._write()
        await reading
        with suppress(NetError):
            await self.stream.close()
        self.isOver = True

    async def _write(self) -> None:
        step = -(-len(self.whole) // self._pieces)
        try:
            for at in range(0, len(self.whole), step):
                await self.stream.write(self.whole[at : at + step])
                if self._rest:
                    await self.scene.sleep(self._rest)
            if self._manner == "abort":
                self.stream.abort()
                return
            if self._manner == "last":
                await self.scene.within(30.0, lambda: self.heard)
            await self.stream.end()
            self.ended = True
        except NetError:
            self.stream.abort()

    async def _read(self) -> None:
        try:
            while data := await self.stream.read(1 + self.scene.chance.below(60_000)):
                self.received += data
                if self._patience:
                    await self.scene.sleep(self._patience)
            self.heard = "end"
        except NetError as error:
            self.heard = error.code


class Scene:
    """One run."""

    def __init__(self, net: MemoryNetwork) -> None:
        self.net = net
        self.chance = Chance(net.choices.random("scene"))
        self.journal: list[Ended] = []
        self.clients: list[Talk] = []
        self.servers: list[Talk] = []
        self.listeners: list[Listener] = []
        self.forwarder: Forwarder
        self._visitors = 0
        self._visited = 0
        self.faults: list[Fault] = []
        self.errors: list[Failure] = []

    def _begin(self, what: Coroutine[Any, Any, None]) -> None:
        Deferred.fromCoroutine(what).addErrback(self.errors.append)

    async def sleep(self, seconds: float) -> None:
        await deferLater(self.net.reactor, seconds, lambda: None)

    async def within(self, seconds: float, condition: Any) -> None:
        latest = self.net.now + seconds
        while not condition() and self.net.now < latest:
            await self.sleep(0.25)

    async def play(self) -> None:
        net, chance = self.net, self.chance
        names = ["one", "two", "three"][: 1 + chance.below(3)]
        for name in ("middle", "client", *names):
            net.host(name)
        net.link("client", "middle").setFaults(*chance.roads())
        for name in names:
            net.link("middle", name).setFaults(*chance.roads())
            if chance.often(0.9):
                self.listeners.append(await streams.listen(f"{name}:80", reactor=net.host(name).reactor))
                self._begin(self._serve(self.listeners[-1]))
        up, down = (Faults(*(chance.faults() if chance.often(0.4) else ())) for _ in range(2))
        self.faults = [*up, *down]
        self.forwarder = Forwarder(
            [f"{name}:80;weight={1 + chance.below(3)}" for name in names],
            reactor=net.host("middle").reactor,
            balance=chance.of("round-robin", "least-connections", "source-hash"),
            retries=chance.below(4),
            timeoutConnect=chance.of(0.5, 5.0),
            limits=LIMITS,
            onFailure=chance.of("reset", "close"),
            failTimeout=3.0,
            check=Check(interval=2.0) if chance.often(0.3) else None,
            shutdownSessions=chance.often(0.5),
            faultsUpstream=up,
            faultsDownstream=down,
            seed=chance.below(1000),
            journal=self.ended,
        )
        await self.forwarder.listen("middle:7")
        for name in names:
            if chance.often(0.3):
                begin = chance.time(6)
                net.at(begin, chance.of(net.link("middle", name).cut, net.link("middle", name).stall))
                net.at(begin + chance.of(1.0, 10.0, 100.0, 2000.0), self._heal, name)
        if len(names) > 1 and chance.often(0.1):
            net.at(chance.time(4), net.link("middle", names[0]).cut)
        self._visitors = 1 + chance.below(4)
        for number in range(self._visitors):
            self._begin(self._visit(number, chance.time(3) * chance.of(0, 1)))
        await self._toTheEnd()

    def _heal(self, name: str) -> None:
        link = self.net.link("middle", name)
        link.heal()
        link.stall(stalled=False)

    async def _visit(self, number: int, after: float) -> None:
        await self.sleep(after)
        try:
            stream = await streams.connect("middle:7", reactor=self.net.host("client").reactor)
        except NetError:
            self._visited += 1
            return
        talk = Talk(self, number, stream)
        self.clients.append(talk)
        self._visited += 1
        await talk.play()

    async def _serve(self, listener: Listener) -> None:
        while True:
            try:
                stream = await listener.accept()
            except NetError:
                return
            talk = Talk(self, 100 + len(self.servers), stream)
            self.servers.append(talk)
            self._begin(talk.play())

    def ended(self, ended: Ended) -> None:
        self.journal.append(ended)
        try:
            adds(self.forwarder, self.journal)
        except AssertionError:
            self.errors.append(Failure())

    async def _toTheEnd(self) -> None:
        chance, forwarder = self.chance, self.forwarder
        if chance.often(0.5):
            await self.within(600.0, lambda: self._visited == self._visitors and not forwarder.sessions)
            assert not forwarder.sessions, f"these outlive their limits: {forwarder.sessions}"
            await forwarder.close()
        else:
            await self.sleep(chance.time(8))
            await forwarder.close(chance.of(0.0, 1.0, 600.0))
        adds(forwarder, self.journal)
        assert not forwarder.sessions
        # Who sits behind a road that was cut has not heard of it.
        for name in self.net.hosts:
            self._heal(name)
        await self.sleep(150.0)
        for listener in self.listeners:
            await listener.close(0.0)
        for talk in (*self.clients, *self.servers):
            talk.stream.abort()
        await self.within(10.0, lambda: all(talk.isOver for talk in (*self.clients, *self.servers)))
        left = [leak for leak in self.net.leaks() if leak.startswith("middle:")]
        assert not left, left
        assert not self.errors, self.errors
        self._judge()

    def _judge(self) -> None:
        by = {ended.client.port: ended for ended in self.journal}
        assert len(by) == len(self.journal), "a session was written down twice"
        shortened = any(isinstance(fault, SHORTENING) for fault in self.faults)
        for server in self.servers:
            if not server.received:
                continue
            client = self._talk(self.clients, server.received[0])
            assert client.whole.startswith(server.received), "the target has received something else"
            late = isinstance(by[client.port].error, TimedOutError)
            if server.heard == "end" and not (shortened or late):
                assert client.ended, "an end came that was none"
                assert server.received == client.whole, "an end came too early"
        for client in self.clients:
            if not client.received:
                continue
            server = self._talk(self.servers, client.received[0])
            assert server.whole.startswith(client.received), "the client has received something else"
            late = isinstance(by[client.port].error, TimedOutError)
            if client.heard == "end" and not (shortened or late):
                assert server.ended, "an end came that was none"
                assert client.received == server.whole, "an end came too early"
        for ended in self.journal:
            if ended.error is None and not self.faults:
                assert ended.target is not None
                for client in self.clients:
                    if client.port == ended.client.port:
                        assert client.ended
                        assert ended.bytesIn == len(client.whole)

    @staticmethod
    def _talk(talks: list[Talk], number: int) -> Talk:
        (found,) = [talk for talk in talks if talk.whole[0] == number]
        return found


def scenario(net: MemoryNetwork) -> None:
    scene = Scene(net)
    net.run(scene.play)


def test_whateverTheWeather() -> None:
    assert explore(scenario, range(500), shrinkRuns=100).runs == 500
