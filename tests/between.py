"""
A forwarder between clients and targets: on hosts of a network in memory, or on real sockets of the reactor of this run.

::

    async with between(network, ["one", "two"], retries=1) as stage:
        client, server = await stage.meet()
        await client.write(b"hello")
        assert await server.readExactly(5) == b"hello"

In memory each target is a host of its own, the forwarder is on ``middle``, clients are on ``client``. Afterwards all is
gone that was opened, every session has been journalled once, and the counts of the forwarder add up.
"""

from __future__ import annotations

import functools
import inspect
import os
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from typing import Any

import pytest
from drivers import theReactor
from logs import heard
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import LogEvent

from twisted_net import streams
from twisted_net.errors import NetError
from twisted_net.forward import Ended, Forwarder, Session, State, Target
from twisted_net.streams import Listener, Stream
from twisted_net.testing.host import Host
from twisted_net.testing.network import MemoryNetwork

PORT = 80
"""Where targets listen in memory."""

DOOR = "middle:7"
"""Where the forwarder does."""


def inCalm(test: Callable[..., Coroutine[Any, Any, None]]) -> Any:
    """A test that takes a ``network``, in which nothing is left to chance and time is virtual."""

    @functools.wraps(test)
    def run(**fixtures: Any) -> None:
        with MemoryNetwork() as network:
            network.run(lambda: test(network=network, **fixtures))

    others = [one for one in inspect.signature(test).parameters.values() if one.name != "network"]
    run.__signature__ = inspect.Signature(others)  # type: ignore[attr-defined]
    return run


class Stage:
    """Made by `between`."""

    def __init__(self, network: MemoryNetwork | None) -> None:
        self.network: Any = network
        #: Who listens, by the names of the targets.
        self.listeners: dict[str, Listener] = {}
        #: What the forwarder has written down.
        self.journal: list[Ended] = []
        #: States of targets that it told, in order.
        self.states: list[tuple[str, State]] = []
        self.forwarder: Forwarder
        self.door = DOOR
        self._folder = ""
        self._streams: list[Stream] = []

    # -- hosts

    def host(self, name: str) -> Host:
        """One of the network's, which has one address: a second one would be a second attempt for who connects."""
        if name not in self.network.hosts:
            self.network.host(name, f"10.0.0.{101 + len(self.network.hosts)}")
        host: Host = self.network.host(name)
        return host

    def reactor(self, name: str) -> Any:
        """That of a host; on real sockets there is one."""
        return theReactor() if self.network is None else self.host(name).reactor

    def where(self, name: str, port: int = PORT) -> str:
        """The address of a target as the forwarder is told it."""
        if self.network is not None:
            return f"{name}:{port}"
        return str(self.listeners[name].address)

    def target(self, name: str) -> Target:
        """What the forwarder knows of it."""
        (found,) = [target for target in self.forwarder.targets if target.name == self.where(name)]
        return found

    async def open(self, name: str, **options: Any) -> Listener:
        """Begin to listen."""
        place = f"{name}:{PORT}" if self.network is not None else "127.0.0.1:0"
        listener = await streams.listen(place, reactor=self.reactor(name), **options)
        self.listeners[name] = listener
        return listener

    async def shut(self, name: str) -> None:
        """Listen no more: who connects there is refused."""
        await self.listeners[name].close()

    async def start(self, targets: Sequence[Any], door: str | None = None, **options: Any) -> Forwarder:
        """Begin to forward."""
        options.setdefault("journal", self.journal.append)
        options.setdefault("changed", lambda target, state: self.states.append((target.name, state)))
        self.forwarder = Forwarder(targets, reactor=self.reactor("middle"), **options)
        place = door or (DOOR if self.network is not None else "127.0.0.1:0")
        port: Any = await self.forwarder.listen(place)
        if self.network is None:
            self.door = door or f"127.0.0.1:{port.getHost().port}"
        return self.forwarder

    # -- clients

    async def connect(self, host: str = "client", **options: Any) -> Stream:
        """A client that is connected to the forwarder, whatever comes of it."""
        return self.keep(await streams.connect(self.door, reactor=self.reactor(host), **options))

    def keep(self, stream: Stream) -> Stream:
        """See to it that it is gone in the end."""
        self._streams.append(stream)
        return stream

    async def accept(self, name: str = "one") -> Stream:
        """The next connection that comes to a target."""
        return self.keep(await self.listeners[name].accept())

    async def meet(self, name: str = "one", **options: Any) -> tuple[Stream, Stream]:
        """A client, and its connection as the target sees it."""
        client = await self.connect(**options)
        return client, await self.accept(name)

    # -- time

    async def sleep(self, seconds: float) -> None:
        """Let time pass."""
        await deferLater(self.reactor("client"), seconds, lambda: None)

    async def until(self, condition: Callable[[], Any]) -> None:
        """Let the reactor work until *condition* holds."""
        reactor = self.reactor("client")
        for _ in range(100_000):
            if condition():
                return
            await deferLater(reactor, 0.001, lambda: None)
        raise AssertionError("it has not come true")

    async def over(self, count: int = 1) -> Ended:
        """Wait until that many sessions are over; the last of them."""
        await self.until(lambda: len(self.journal) >= count)
        assert len(self.journal) == count
        return self.journal[-1]

    # -- the end

    async def leave(self) -> None:
        """End everything."""
        for stream in self._streams:
            stream.abort()
            await stream.close()
        await self.forwarder.close()
        for listener in self.listeners.values():
            await listener.close()

    def check(self) -> None:
        """Counts add up, and nothing is left."""
        adds(self.forwarder, self.journal)
        assert self.forwarder.snapshot()["sessions"] == len(self.forwarder.factory) == 0


def adds(forwarder: Forwarder, journal: Sequence[Ended]) -> None:
    """Say that the counts of a forwarder add up, whenever it is."""
    told = forwarder.snapshot()
    living = forwarder.sessions
    served = [ended for ended in journal if ended.target is not None]
    assert (told["served"], told["failed"]) == (len(served), len(journal) - len(served))
    assert told["accepted"] == told["served"] + told["failed"] + told["sessions"]
    assert told["sessions"] == len(living)
    for name in ("bytesIn", "bytesOut"):
        over = sum(getattr(ended, name) for ended in journal)
        assert told[name] == over + sum(getattr(session, name) for session in living)
    for target, facts in zip(forwarder.targets, told["targets"], strict=True):
        here = [session for session in living if session.target is target]
        gone = [ended for ended in served if ended.target == target.name]
        ways: list[Ended | Session] = [*gone, *here]
        assert facts["load"] == target.load == len(here)
        assert facts["sessions"] == len(gone) + sum(session.isConnected for session in here)
        assert facts["bytesTo"] == sum(one.bytesIn for one in ways)
        assert facts["bytesFrom"] == sum(one.bytesOut for one in ways)
    if told["sessions"] == 0 and forwarder.splices is not None:
        assert told["splicing"] == 0


@asynccontextmanager
async def between(
    network: MemoryNetwork | None = None,
    targets: Sequence[str] = ("one",),
    *,
    dead: Sequence[str] = (),
    backups: Sequence[str] = (),
    **options: Any,
) -> AsyncIterator[Stage]:
    """
    A forwarder with its targets.

    :param targets: their names; ``"one;weight=3"`` has a weight.
    :param dead: those of them that do not listen: who connects is refused.
    :param backups: more of them.
    :param options: of the `Forwarder`.
    """
    stage = Stage(network)
    for name in (*targets, *backups):
        plain = name.partition(";")[0]
        await stage.open(plain)
        if plain in dead:
            await stage.shut(plain)

    def places(names: Sequence[str]) -> list[str]:
        return [stage.where(name.partition(";")[0]) + "".join(name.partition(";")[1:]) for name in names]

    try:
        await stage.start(places(targets), backups=places(backups), **options)
        yield stage
    finally:
        await stage.leave()
    stage.check()


async def isReset(stream: Stream) -> None:
    """Say that the connection was reset, and told nothing before."""
    with pytest.raises(NetError) as raised:
        await stream.readAll()
    assert raised.value.code in ("ECONNRESET", "EPIPE")


async def hears(stream: Stream) -> tuple[bytes, str]:
    """Everything that comes, and how it ends: ``"end"`` or the code of an error."""
    heard = b""
    while True:
        try:
            data = await stream.read()
        except NetError as error:
            return heard, error.code
        if not data:
            return heard, "end"
        heard += data


def running(coroutine: Coroutine[Any, Any, Any]) -> Deferred[Any]:
    """Begin something that is waited for later."""
    return Deferred.fromCoroutine(coroutine)


def logged() -> AbstractContextManager[list[LogEvent]]:
    """What the forwarder's rooms say in the log meanwhile."""
    return heard(lambda event: event.get("log_namespace", "").startswith("twisted_net.forward."))


@asynccontextmanager
async def folder() -> AsyncIterator[str]:
    """A folder for sockets; it has to be empty again."""
    name = tempfile.mkdtemp()
    try:
        yield name
    finally:
        os.rmdir(name)
