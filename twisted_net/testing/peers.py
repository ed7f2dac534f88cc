"""Scripts that read like one: peers that a test drives by verbs, and that keep everything they hear.

::

    peers = Peers(reactor)
    port = await peers.listens(TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1"))
    client = await peers.connects(TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port))
    server = await peers.accepts()
    client.sends(b"hello")
    client.ends()
    await server.hears(b"hello")
    await server.hears("end")
    server.sends(b"goodbye")
    server.closes()
    await client.hears(b"goodbye")
    await client.hears("end")
    await peers.closes()

Theory
======
A script's line is a claim about what comes *next*.  So it fails at the moment at which it can no longer come true
(other bytes have come, the connection is gone) and not when some time has run out; and the failure shows the peer's
whole story, because what went wrong is usually some lines above.

*Bytes are a stream*: a claim about bytes does not care how they were cut.  *Every byte is asked for*: the claims of
which nothing may be left over (``"end"``, ``"close"``, ``"reset"``, `Peer.hearsNothing`) fail when there are bytes that
no line has asked for.  The words, on the other hand, may be left unasked.

*A script never runs inside a transport's call.*  Whether a line has come true is decided at the event itself, but the
next line runs in a turn of its own: what it does to the connection is what a program's later turn would do.  Who wants
to act inside of an event says so: `Peer.reacts`.

Time is the reactor's, so that on a network in memory patience costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from operator import methodcaller
from typing import Any, Final, Literal

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.interfaces import (
    IAddress,
    IHalfCloseableProtocol,
    IHandshakeListener,
    IListeningPort,
    IStreamClientEndpoint,
    IStreamServerEndpoint,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from zope.interface import alsoProvides

from twisted_net.errors import ClosedError, OptionError

Word = Literal["made", "handshake", "end", "writeEnd", "close", "reset", "abort", "gone"]
"""What a peer can hear besides bytes.

``made`` (it is connected), ``handshake`` (TLS is ready), ``end`` (the other side has half-closed), ``writeEnd`` (this
side has), and one of three ways in which it is over: ``close`` (in good order), ``abort`` (this side's own), ``reset``
(everything else; `Peer.reason` says what).  ``gone`` is any of these three.
"""

WORDS: Final = ("made", "handshake", "end", "writeEnd", "close", "reset", "abort", "gone")

PATIENCE: Final = 10.0
"""Seconds of the reactor's time after which a line that has not come true has failed: far above what a loaded machine
needs for anything, far below what a person waits."""

RECEIVED_LIMIT: Final = 64 * 1024 * 1024
"""Bytes that a peer keeps; one that is sent more aborts its connection."""

WAITING_LIMIT: Final = 1024
"""Connections that wait for `Peers.accepts`; those beyond are closed at once."""

_SHOWN_BYTES = 32
_SHOWN_EVENTS = 24
_LOSSES = ("close", "reset", "abort")


class HeardError(AssertionError):
    """A line of a script has not come true, and shows what happened instead."""


# pytest then shows the script's line, and not the frames of this file; a defect in here is shown whole.
__tracebackhide__ = methodcaller("errisinstance", HeardError)


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened to a peer, or that it did: ``name`` is a `Word` or ``"data"``, or one of its verbs."""

    name: str
    data: bytes = b""
    """What came with ``"data"``, or went with ``"sends"``."""

    def __repr__(self) -> str:
        return f"{self.name} {_shown(self.data)}" if self.name in ("data", "sends") else self.name


class Peer(Protocol):
    """One end of a connection, driven by a script.  Works on every transport and reactor of Twisted's.

    :param reactor: provides ``IReactorTime``.
    :param name: for its failures.
    :param patience: seconds after which a line that has not come true fails.
    :param halfClose: provide ``IHalfCloseableProtocol``; a peer without it hears ``close`` where others hear ``end``.
    """

    transport: Any

    def __init__(self, reactor: Any, name: str = "peer", *, patience: float = PATIENCE, halfClose: bool = True) -> None:
        if not patience > 0:
            raise OptionError(f"patience={patience!r}: it is a number of seconds above 0")
        self.name = name
        self.patience = patience
        #: Everything that happened, its own verbs included, in order.
        self.story: list[Event] = []
        #: Why the connection is gone; None while it is not.
        self.reason: Failure | None = None
        self._reactor = reactor
        self._received = bytearray()
        self._asked = 0
        self._reactions: dict[str, Callable[[], object]] = {}
        self._waiters: list[Deferred[bool]] = []
        self._arrival: Callable[[Peer], object] | None = None
        if halfClose:
            alsoProvides(self, IHalfCloseableProtocol)

    # -- what it has heard

    @property
    def received(self) -> bytes:
        """All bytes so far, asked for or not."""
        return bytes(self._received)

    @property
    def events(self) -> tuple[Event, ...]:
        """What it has heard, in order: words, and ``"data"`` for each segment."""
        return tuple(event for event in self.story if event.name == "data" or event.name in WORDS)

    @property
    def gone(self) -> bool:
        """Whether it was connected, and is no more."""
        return self.reason is not None

    def count(self, name: str) -> int:
        """How often an event of that name has happened."""
        return sum(event.name == name for event in self.story)

    # -- what it does

    def sends(self, data: bytes) -> None:
        """Write; nothing happens when the connection has ended, as on every transport."""
        self._does("sends", data).write(data)

    def ends(self) -> None:
        """Half-close: FIN after everything that was written; it goes on hearing."""
        self._does("ends").loseWriteConnection()

    def closes(self) -> None:
        """Close both ways after everything that was written."""
        self._does("closes").loseConnection()

    def aborts(self) -> None:
        """Drop everything, with RST where there is such a thing."""
        self._does("aborts").abortConnection()

    def pauses(self) -> None:
        """Hear nothing until `resumes`."""
        self._does("pauses").pauseProducing()

    def resumes(self) -> None:
        """Hear again."""
        self._does("resumes").resumeProducing()

    def reacts(self, name: str, action: Callable[[], object]) -> None:
        """Call *action* inside of every event of that name, as a protocol's own code would be; it may raise."""
        if name != "data" and name not in WORDS[:-1]:
            raise OptionError(f"reacts({name!r}): there is no such event; one of {', '.join(('data', *WORDS[:-1]))}")
        self._reactions[name] = action

    # -- what it claims

    async def hears(self, expected: bytes | Word) -> None:
        """Wait until exactly these bytes have come next, or until what the word says has happened (see `Word`).

        :raises HeardError: as soon as it cannot come true any more, and after ``patience`` seconds otherwise.
        """
        if isinstance(expected, bytes):
            await self._until(self._bytesComing(expected), _shown(expected))
        elif expected in WORDS:
            await self._until(lambda: self._wordCame(expected), repr(expected))
        else:
            raise OptionError(f"hears({expected!r}): give it bytes, or one of {', '.join(WORDS)}")

    async def hearsAll(self) -> bytes:
        """The bytes from here on until the other side has ended in good order."""

        def come() -> bool:
            if self.count("reset") or self.count("abort"):
                raise self._failed("everything up to the end")
            return self._hasEnded()

        await self._until(come, "everything up to the end")
        rest = bytes(self._received[self._asked :])
        self._asked = len(self._received)
        return rest

    async def hearsNothing(self, seconds: float) -> None:
        """Wait that long, during which nothing comes: no byte, no end, no loss.

        :raises HeardError: at the moment at which something comes, or at once when there are bytes that no line has
            asked for.
        """
        wanted = f"nothing for {seconds:g} seconds"
        before = self._signals()
        until = self._reactor.seconds() + seconds
        try:
            while True:
                if self._unasked() or self._signals() != before:
                    raise self._failed(wanted)
                if not await self._happens(until - self._reactor.seconds()):
                    break
        except Exception:
            await self._turn()
            raise
        await self._turn()

    def _bytesComing(self, expected: bytes) -> Callable[[], bool]:
        begin, checked = self._asked, 0

        def come() -> bool:
            nonlocal checked
            fresh = self._received[begin + checked : begin + len(expected)]
            if fresh != expected[checked : checked + len(fresh)]:
                raise self._failed(f"{_shown(expected)} next", _difference(expected, bytes(self._received[begin:])))
            checked += len(fresh)
            if checked < len(expected) and self._hasEnded():
                raise self._failed(f"{_shown(expected)} next", f"only {checked} of these {len(expected)} bytes came")
            if checked == len(expected):
                self._asked = begin + checked
                return True
            return False

        return come

    def _wordCame(self, word: Word) -> bool:
        came = self.gone if word == "gone" else self.count(word) > 0
        if word in ("end", "close", "reset") and self._unasked():
            raise self._failed(repr(word), f"{_shown(self._unasked())} came, and no line has asked for it")
        if self.gone and not came:
            raise self._failed(repr(word))
        return came

    def _hasEnded(self) -> bool:
        return self.gone or self.count("end") > 0

    def _unasked(self) -> bytes:
        return bytes(self._received[self._asked :])

    def _signals(self) -> int:
        return sum(self.count(name) for name in ("end", *_LOSSES))

    async def _until(self, come: Callable[[], bool], wanted: str) -> None:
        if come():
            return
        until = self._reactor.seconds() + self.patience
        try:
            while not come():
                if not await self._happens(until - self._reactor.seconds()):
                    raise self._failed(wanted, f"it has not come for {self.patience:g} seconds")
        except Exception:
            await self._turn()
            raise
        await self._turn()

    async def _happens(self, seconds: float) -> bool:
        """Whether something happens within *seconds*."""
        waiter: Deferred[bool] = Deferred()
        self._waiters.append(waiter)
        try:
            return await waiter.addTimeout(max(seconds, 0), self._reactor, lambda result, delay: False)
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)

    def _turn(self) -> Deferred[None]:
        """The script goes on in a turn of its own."""
        return deferLater(self._reactor, 0, lambda: None)

    def _failed(self, wanted: str, because: str = "") -> HeardError:
        return HeardError(
            f"{self.name} was to hear {wanted}{f'; {because}' if because else ''}.\nIts story:\n{self.tells()}"
        )

    def tells(self) -> str:
        """Its story as text, one event a line (the last 24); with the reason of the end."""
        lines = [f"  {event!r}" for event in self.story[-_SHOWN_EVENTS:]]
        if len(self.story) > _SHOWN_EVENTS:
            lines.insert(0, f"  ... {len(self.story) - _SHOWN_EVENTS} events before")
        if self.reason is not None:
            lines.append(f"  ({type(self.reason.value).__name__}: {self.reason.getErrorMessage()})")
        return "\n".join(lines) or "  nothing has happened"

    # -- IProtocol, IHalfCloseableProtocol, IHandshakeListener

    def connectionMade(self) -> None:
        # Not before: the wrapper of a client endpoint takes over only one of the interfaces that it finds.
        alsoProvides(self, IHandshakeListener)
        self._note(Event("made"))
        if self._arrival is not None:
            self._arrival(self)

    def handshakeCompleted(self) -> None:
        self._note(Event("handshake"))

    def dataReceived(self, data: bytes) -> None:
        if len(self._received) + len(data) > RECEIVED_LIMIT:
            self.aborts()
            return
        self._received += data
        self._note(Event("data", data))

    def readConnectionLost(self) -> None:
        self._note(Event("end"))

    def writeConnectionLost(self) -> None:
        self._note(Event("writeEnd"))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.reason = reason
        self._note(Event(_wayOf(reason)))

    def _does(self, verb: str, data: bytes = b"") -> Any:
        """Write the verb down; returns the transport to do it with."""
        if self.transport is None:
            raise ClosedError(f"{self.name} {verb} before it is connected: await {self.name}.hears('made') first")
        self.story.append(Event(verb, data))
        return self.transport

    def _note(self, event: Event) -> None:
        self.story.append(event)
        waiters, self._waiters = self._waiters, []
        try:
            reaction = self._reactions.get(event.name)
            if reaction is not None:
                reaction()
        finally:
            for waiter in waiters:
                waiter.callback(True)


class Peers:
    """Makes peers for both ends of connections, and ends everything that is still open.

    :param reactor: provides ``IReactorTime``.
    :param patience: of the peers, and of `accepts`.
    """

    def __init__(self, reactor: Any, *, patience: float = PATIENCE) -> None:
        self.patience = patience
        #: Everybody who was ever connected.
        self.all: list[Peer] = []
        self._reactor = reactor
        self._ports: list[IListeningPort] = []
        self._queue: list[Peer] = []
        self._waiters: list[Deferred[Peer]] = []

    def peer(self, name: str = "peer", *, halfClose: bool = True) -> Peer:
        """A peer that is not connected yet: to say how it `reacts`, and to hand it to `connects` or `listens`."""
        return Peer(self._reactor, name, patience=self.patience, halfClose=halfClose)

    async def listens(
        self, endpoint: IStreamServerEndpoint, make: Callable[[], Peer | None] | None = None
    ) -> IListeningPort:
        """Listen; everybody who connects is handed out by `accepts`.

        :param make: returns the peer of the next connection; None closes it.
        """
        build = make if make is not None else lambda: self.peer("server")
        port: IListeningPort = await endpoint.listen(_Doorman(self, build))
        self._ports.append(port)
        return port

    async def accepts(self) -> Peer:
        """The next one who has connected.

        :raises HeardError: when nobody has for ``patience`` seconds.
        """
        if self._queue:
            return self._queue.pop(0)
        waiter: Deferred[Peer] = Deferred()
        self._waiters.append(waiter)

        def late(result: object, seconds: float) -> Peer:
            self._waiters.remove(waiter)
            raise HeardError(f"nobody has connected for {seconds:g} seconds")

        peer = await waiter.addTimeout(self.patience, self._reactor, late)
        await deferLater(self._reactor, 0, lambda: None)
        return peer

    async def connects(self, endpoint: IStreamClientEndpoint, peer: Peer | None = None) -> Peer:
        """Connect, with *peer* or a new one.  Raises what the endpoint raises."""
        client = peer if peer is not None else self.peer("client")
        self.all.append(client)
        await endpoint.connect(_Doorman(None, lambda: client))
        await deferLater(self._reactor, 0, lambda: None)
        return client

    async def closes(self) -> None:
        """Stop listening, abort every connection that is left, and wait until all of it has happened.

        :raises HeardError: when a connection does not end.
        """
        ports, self._ports = self._ports, []
        for port in ports:
            await maybeDeferred(port.stopListening)
        await self.leaves(self.all)
        self._queue.clear()

    async def leaves(self, peers: Iterable[Peer]) -> None:
        """Abort the connections of these that have one, and wait for their end."""
        open = [peer for peer in peers if peer.count("made") and not peer.gone]
        for peer in open:
            peer.aborts()
        for peer in open:
            await peer.hears("gone")

    def _arrived(self, peer: Peer) -> None:
        if self._waiters:
            self._waiters.pop(0).callback(peer)
        else:
            self._queue.append(peer)


class _Doorman(Factory):
    """Builds the peers, and says that they have arrived."""

    noisy = False

    def __init__(self, peers: Peers | None, make: Callable[[], Peer | None]) -> None:
        self._peers = peers
        self._make = make

    def buildProtocol(self, addr: IAddress | None) -> Peer | None:
        if self._peers is not None and len(self._peers._queue) >= WAITING_LIMIT:
            return None
        peer = self._make()
        if peer is not None and self._peers is not None:
            self._peers.all.append(peer)
            peer._arrival = self._peers._arrived
        return peer


def _wayOf(reason: Failure) -> str:
    if reason.check(ConnectionDone):
        return "close"
    return "abort" if reason.check(ConnectionAborted) else "reset"


def _shown(data: bytes) -> str:
    if len(data) <= _SHOWN_BYTES:
        return repr(data)
    return f"{data[:_SHOWN_BYTES]!r}... ({len(data)} bytes)"


def _difference(expected: bytes, heard: bytes) -> str:
    """Where *heard* leaves *expected*; it does within the length of both."""
    place = next(index for index, (wanted, came) in enumerate(zip(expected, heard, strict=False)) if wanted != came)
    if place == 0:
        return f"{_shown(heard)} came"
    return f"after {place} bytes of it {_shown(heard[place:])} came instead of {_shown(expected[place:])}"
