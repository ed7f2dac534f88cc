"""
A stage for tests of the event face: servers, sockets and strangers on one kind of connection, all gone afterwards.

::

    @played()                                   # once over TCP, once over UNIX
    async def test_echo(scene: Scene) -> None:
        server = await scene.server(lambda socket: socket.pipe(socket))
        client = scene.client(server)
        heard = Journal(client)
        client.end("hello")
        await heard.happened("close")
        assert heard.data == b"hello"

A *stranger* is a protocol of Twisted's own, so that what our side is told to do is seen by somebody else.
"""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Literal

import pytest
import pytest_twisted
from pairs import Side
from turning import PATIENCE, until
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.protocol import ClientFactory, ServerFactory

from twisted_net.net import Server, Socket
from twisted_net.sansio.emitter import Emitter
from twisted_net.wire.protocol import SocketProtocol

Kind = Literal["tcp", "unix"]

SOCKET_EVENTS = ("connect", "ready", "data", "end", "finish", "timeout", "drain", "error", "close", "lookup")
SERVER_EVENTS = ("listening", "connection", "close", "error", "drop", "limit", "retry")


def played(*kinds: Kind) -> Callable[[Callable[..., Coroutine[Any, Any, None]]], Any]:
    """Play a test that takes a ``scene`` once for each of *kinds* (all, unless some are named)."""

    def decorate(test: Callable[..., Coroutine[Any, Any, None]]) -> Any:
        async def play(kind: Kind, **fixtures: Any) -> None:
            async with Scene(kind) as scene:
                await patient(test(scene=scene, **fixtures))

        play.__name__ = test.__name__
        play.__doc__ = test.__doc__
        play.__module__ = test.__module__
        play.__dict__.update(test.__dict__)
        others = [one for one in inspect.signature(test).parameters.values() if one.name != "scene"]
        first = inspect.Parameter("kind", inspect.Parameter.POSITIONAL_OR_KEYWORD)
        play.__signature__ = inspect.Signature([first, *others])  # type: ignore[attr-defined]
        return pytest.mark.parametrize("kind", kinds or ("tcp", "unix"))(pytest_twisted.ensureDeferred(play))

    return decorate


async def patient(waiting: Coroutine[Any, Any, Any] | Deferred[Any]) -> Any:
    """Wait, but not for ever."""
    from twisted.internet import reactor

    done = waiting if isinstance(waiting, Deferred) else Deferred.fromCoroutine(waiting)
    return await done.addTimeout(PATIENCE, reactor)


def heard(emitter: Emitter, event: str) -> Deferred[tuple[Any, ...]]:
    """Fires with the arguments of the next *event*."""
    done: Deferred[tuple[Any, ...]] = Deferred()
    emitter.once(event, lambda *args: done.callback(args))
    return done


def engine(socket: Socket) -> SocketProtocol:
    """The engine's object for a connection that there is."""
    assert socket.protocol is not None
    return socket.protocol


class Journal:
    """What an emitter says, in order: each event's name (several 'data' in a row count once), and what came with it."""

    def __init__(self, emitter: Emitter, *events: str, without: tuple[str, ...] = ()) -> None:
        self.events: list[str] = []
        self.args: dict[str, list[tuple[Any, ...]]] = {}
        self._chunks: list[bytes] = []
        self._waiters: list[Deferred[None]] = []
        for event in events or (SERVER_EVENTS if isinstance(emitter, Server) else SOCKET_EVENTS):
            if event not in without:
                emitter.on(event, self._listener(event))

    def _listener(self, event: str) -> Callable[..., None]:
        def note(*args: Any) -> None:
            if event == "data":
                self._chunks.append(args[0])
            else:
                self.args.setdefault(event, []).append(args)
            if event != "data" or self.events[-1:] != ["data"]:
                self.events.append(event)
            waiters, self._waiters = self._waiters, []
            for waiter in waiters:
                waiter.callback(None)

        return note

    @property
    def data(self) -> bytes:
        """All bytes of 'data' so far."""
        self._chunks = [b"".join(self._chunks)]
        return self._chunks[0]

    @property
    def size(self) -> int:
        """How many they are."""
        return sum(map(len, self._chunks))

    @property
    def errors(self) -> list[Any]:
        """The errors of 'error' so far."""
        return [args[0] for args in self.args.get("error", ())]

    @property
    def codes(self) -> list[str]:
        """Their codes."""
        return [error.code for error in self.errors]

    @property
    def hadError(self) -> list[bool]:
        """The arguments of 'close' so far."""
        return [args[0] for args in self.args.get("close", ())]

    async def until(self, condition: Callable[[], Any]) -> None:
        """Wait until *condition* holds; it is asked whenever something has happened here."""
        while not condition():
            waiter: Deferred[None] = Deferred()
            self._waiters.append(waiter)
            await waiter

    async def happened(self, event: str) -> None:
        """Wait for *event*, unless it has happened."""
        await self.until(lambda: event in self.events)


class Stranger(Side):
    """A protocol of Twisted's own, which closes when both ways have ended (Twisted does not do so by itself)."""

    def readConnectionLost(self) -> None:
        super().readConnectionLost()
        if "writeEnd" in self.events:
            self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        super().writeConnectionLost()
        if "readEnd" in self.events:
            self.transport.loseConnection()


class Plain(ServerFactory):
    """A server of Twisted's own; its `sides` are the ends that it has accepted."""

    noisy = False

    def __init__(self) -> None:
        self.sides: list[Stranger] = []
        self.port: Any = None
        self.place: dict[str, Any] = {}
        self._waiters: list[Deferred[None]] = []

    def buildProtocol(self, addr: object) -> Stranger:
        side = Stranger()
        self.sides.append(side)
        return side

    async def side(self, index: int = 0) -> Stranger:
        """The end that was accepted as number *index*, once it stands."""
        await until(lambda: len(self.sides) > index)
        await self.sides[index].happened("made")
        return self.sides[index]


class Dialler(ClientFactory):
    """Connects one `Stranger`."""

    noisy = False

    def __init__(self) -> None:
        self.side = Stranger()

    def buildProtocol(self, addr: object) -> Stranger:
        return self.side


class Scene:
    """Servers, sockets and strangers on connections of one *kind*; entering and leaving is asynchronous."""

    def __init__(self, kind: Kind) -> None:
        from twisted.internet import reactor

        self.kind = kind
        self.reactor: Any = reactor
        self._folder = tempfile.TemporaryDirectory()
        self.folder = Path(self._folder.name)
        self._servers: list[Server] = []
        self._sockets: list[Socket] = []
        self._sides: list[Stranger] = []
        self._plains: list[Plain] = []
        self._connectors: list[Any] = []
        self._count = 0

    async def __aenter__(self) -> Scene:
        return self

    async def __aexit__(self, *failure: object) -> None:
        for socket in self._sockets:
            # Whatever a test has hung on them is no longer of interest.
            socket.removeAllListeners().on("error", print)
            socket.destroy()
        for server in self._servers:
            server.removeAllListeners().on("error", print)
            server.close()
            for client in tuple(server.clients):
                client.removeAllListeners().on("error", print)
                client.destroy()
        for connector in self._connectors:
            if connector.state == "connecting":
                connector.stopConnecting()
        for side in [*self._sides, *(side for plain in self._plains for side in plain.sides)]:
            if "made" in side.events and "lost" not in side.events:
                side.transport.abortConnection()
                await side.happened("lost")
        for plain in self._plains:
            await maybeDeferred(plain.port.stopListening)
        for server in self._servers:
            await server.whenClosed()
        for socket in self._sockets:
            if socket.protocol is not None:
                await socket.whenClosed()
        self._folder.cleanup()

    def place(self) -> dict[str, Any]:
        """Where a server can listen: as options of ``listen``."""
        if self.kind == "tcp":
            return {"port": 0, "host": "127.0.0.1"}
        self._count += 1
        return {"path": str(self.folder / f"{self._count}.sock")}

    def keep(self, one: Any) -> Any:
        """See to it that a server or socket is gone after the test; returns it."""
        (self._servers if isinstance(one, Server) else self._sockets).append(one)
        return one

    async def server(self, listener: Callable[..., object] | None = None, **options: Any) -> Server:
        """A server that listens."""
        server: Server = self.keep(Server(options, listener))
        server.listen(self.place())
        await server.whenListening()
        return server

    def where(self, server: Server | Plain) -> dict[str, Any]:
        """How to reach *server*: as options of ``connect``."""
        if isinstance(server, Plain):
            return server.place
        address = server.address()
        assert address is not None
        if self.kind == "tcp":
            return {"port": address.port, "host": "127.0.0.1"}
        return {"path": address.address}

    def client(self, server: Server | Plain, listener: Callable[..., object] | None = None, **options: Any) -> Socket:
        """A socket that connects to *server*."""
        socket: Socket = self.keep(Socket(options))
        return socket.connect(self.where(server), listener)

    async def pair(self, server: Server | None = None, **options: Any) -> tuple[Socket, Socket]:
        """A client that is connected, and the server's socket for it."""
        server = server or await self.server()
        welcomed = heard(server, "connection")
        client = self.client(server, **options)
        await client.whenConnected()
        (socket,) = await welcomed
        return client, socket

    async def stranger(self, server: Server) -> tuple[Stranger, Socket]:
        """A client of Twisted's own, and the server's socket for it."""
        welcomed = heard(server, "connection")
        side = self.dial(server)
        await side.happened("made")
        (socket,) = await welcomed
        return side, socket

    def dial(self, server: Server) -> Stranger:
        """A client of Twisted's own that connects."""
        dialler = Dialler()
        self._sides.append(dialler.side)
        where = self.where(server)
        if self.kind == "tcp":
            connector = self.reactor.connectTCP(where["host"], where["port"], dialler)
        else:
            connector = self.reactor.connectUNIX(where["path"], dialler)
        self._connectors.append(connector)
        return dialler.side

    def plain(self) -> Plain:
        """A server of Twisted's own."""
        plain = Plain()
        place = self.place()
        if self.kind == "tcp":
            plain.port = self.reactor.listenTCP(0, plain, interface="127.0.0.1")
            plain.place = {"port": plain.port.getHost().port, "host": "127.0.0.1"}
        else:
            plain.port = self.reactor.listenUNIX(place["path"], plain)
            plain.place = place
        self._plains.append(plain)
        return plain
