"""
``net connect ADDRESS``: stdin and stdout, joined to a connection.

What goes to stdout is a program's, which has no use for a log: the log goes to stderr, and says nothing unless it is
asked (:func:`~twisted_net.service.journal.useStderr`). What is typed is a user's, who has no use for daemons and
pidfiles: ``twistd`` reads these choices from its options after the command's have been parsed, so that they can be set
then (:meth:`Options.postOptions`).

The two ways end one by one, as with ``nc -N``::

    end of stdin        our side of the connection is ended (FIN), and the peer's answer is waited for
    the peer's end      what came is written out; what stdin still has is sent
    stdout is unread    everything ends, with exit status 0 and without a word
    SIGINT, SIGTERM     the process dies by it, at once

Each way reads its next piece when the last one is with the kernel, so that a slow reader at either end slows down who
writes at the other one, and what is in between stays small.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Coroutine
from typing import Any, ClassVar, Final

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, DeferredList, FirstError, gatherResults, succeed
from twisted.logger import LogLevel
from twisted.python.failure import Failure

from twisted_net import udp
from twisted_net.address import Target
from twisted_net.errors import AddressError, NetError, TimedOutError
from twisted_net.service.ending import Ending
from twisted_net.service.journal import Journal, useStderr
from twisted_net.service.options import CommandOptions, DatagramTarget, Setting, fail, program, readAddress, rootOf
from twisted_net.service.standard import Input, Output, UnreadError
from twisted_net.service.units import orNone, parseFlag, parseTime
from twisted_net.streams import Stream, connect
from twisted_net.streams.dialling import StillConnectingError
from twisted_net.wire.factory import Ended

__all__ = ["Connect", "Options", "converse", "dial", "exchange", "makeService"]

#: Bytes of stdin that become one datagram at most: what nc takes, far below the 65,507 of UDP. What is typed comes by
#: lines.
PIECE: Final = 16_384

CONNECT_SETTINGS: Final = (
    Setting(
        "timeout-connect",
        "TIME",
        orNone(parseTime),
        None,
        "Give up when there is no connection by then, the look-up of a name included: 5s, 500ms. Without it the system "
        "decides, after about two minutes.",
    ),
    Setting(
        "timeout-idle",
        "TIME",
        orNone(parseTime),
        None,
        "Give up when no byte has moved, in either direction, for this long; with datagrams, that is a good end.",
    ),
    Setting(
        "no-half-close",
        "",
        parseFlag,
        None,
        "At the end of stdin leave our side of the connection open, and wait until the peer ends: for servers that "
        "take the end of our sending for the end of everything.",
    ),
    Setting("verbose", "", parseFlag, None, "Tell on stderr what happens."),
)


class Options(CommandOptions):
    """The options of ``net connect``."""

    command = "connect"
    purpose = (
        "Connect to ADDRESS, send it what comes from stdin, and write what it sends to stdout, as nc -N does: at the "
        "end of stdin our side ends, and the answer is waited for. It runs in the foreground and writes no pidfile; "
        "stdout has nothing but the connection's bytes.\n\nADDRESS is TCP (127.0.0.1:8124, localhost:8124, "
        "[::1]:8124), UNIX (/run/x.sock, unix:@name for an abstract name), any client endpoint text of Twisted's "
        "(tls:example.org:443), or one for datagrams (udp:127.0.0.1:53, unixgram:/run/x.sock): each line that is "
        "typed, or piece of at most 16 KiB that is read, is one datagram; they know no end, and --timeout-idle ends "
        "it.\n\nThe exit status is 0 when both sides have ended in good order, or when nobody reads "
        "stdout any more; 1, with one sentence on stderr, when the connection was refused, reset, or given up."
    )
    arguments = "ADDRESS"
    twistd = "twistd"
    examples = (
        ("connect 127.0.0.1:8124", "Talk to a server, line by line; ^D ends."),
        ("connect /run/echo.sock --timeout-connect 5s --timeout-idle 1m", "For scripts: it does not wait for ever."),
        ("connect --timeout-idle 1s udp:127.0.0.1:8124", "Datagrams; the answers, until none comes for a second."),
        ("connect --verbose tls:example.org:443", "Over TLS; what happens is told on stderr."),
    )
    settings: ClassVar = {"The connection": CONNECT_SETTINGS}

    target: Target | DatagramTarget
    """Where to connect to."""

    def parseArgs(self, *arguments: str) -> None:
        """Exactly one argument: the address."""
        if not arguments:
            fail(self.whole, "which address? Write net connect ADDRESS, such as 127.0.0.1:8124 or /run/x.sock")
        address, *rest = arguments
        if rest:
            fail(self.whole, f"{rest[0]!r} is one word too many behind {address!r}; write HOST:PORT in one word")
        try:
            self.target = readAddress(address)
        except AddressError as error:
            fail(self.whole, error.strerror)

    def postOptions(self) -> None:
        """Read every text that was given, and have ``twistd`` stay in the foreground, without a pidfile."""
        super().postOptions()
        root = rootOf(self)
        if root is not None and program(self) == "twistd":
            root["nodaemon"] = True
            root["pidfile"] = ""


async def dial(reactor: Any, target: Target, timeout: float | None) -> Stream:
    """
    A connection to *target*.

    :param timeout: seconds; None leaves it to the system.
    :raises NetError: there is none; nothing goes on.
    """
    try:
        return await connect(target, timeout=timeout, reactor=reactor)
    except StillConnectingError as late:
        late.pending.close()
        raise TimedOutError(
            f"connect {target}: no connection within {timeout:g} s; look at the peer and the network, or allow more "
            "with --timeout-connect",
            address=target,
            syscall="connect",
        ) from None


async def converse(stream: Stream, source: Input, sink: Output, *, halfClose: bool = True) -> None:
    """
    Send what comes from *source* and write to *sink* what the peer sends, until both have ended; the stream is closed
    then, and aborted when something has failed.

    :param halfClose: end our side when *source* has ended.
    :raises NetError: what went wrong first.
    :raises UnreadError: nobody reads what *sink* writes.
    """
    async with stream:
        bothWays = _together(_send(source, stream, halfClose), _receive(stream, sink))
        await _together(bothWays, sink.unread(), oneIsEnough=True)


async def _together(*parts: Coroutine[Any, Any, object], oneIsEnough: bool = False) -> None:
    """
    Run *parts* at once until all have ended, or one when that is enough; those that are left are cancelled.

    :raises Exception: what the first one that failed has raised.
    """
    running = [Deferred.fromCoroutine(part) for part in parts]
    try:
        if oneIsEnough:
            await DeferredList(running, fireOnOneCallback=True, fireOnOneErrback=True, consumeErrors=True)
        else:
            await gatherResults(running, consumeErrors=True)
    except FirstError as first:
        first.subFailure.raiseException()
    finally:
        for one in running:
            one.cancel()


async def _send(source: Input, stream: Stream, halfClose: bool) -> None:
    while data := await source.read():
        await stream.write(data)
    if halfClose:
        await stream.end()


async def _receive(stream: Stream, sink: Output) -> None:
    async for chunk in stream:
        await sink.write(chunk)


# Datagrams


async def exchange(socket: udp.UdpSocket, source: Input, sink: Output, *, idle: float | None = None) -> None:
    """
    Send each piece of *source* as a datagram, and write to *sink* each one that comes; the socket is closed then.

    Datagrams know no end: it ends when none has come or gone for *idle* seconds.

    :param idle: None goes on for ever.
    :raises NetError: what went wrong first; ``ECONNREFUSED`` when nobody is there.
    :raises UnreadError: nobody reads what *sink* writes.
    """
    async with socket:
        socket.setTimeout(idle)
        sending, receiving = _sendDatagrams(source, socket), _receiveDatagrams(socket, sink)
        await _together(sending, receiving, sink.unread(), oneIsEnough=True)


async def _sendDatagrams(source: Input, socket: udp.UdpSocket) -> None:
    while data := await source.read(PIECE):
        await socket.send(data)
    await Deferred()


async def _receiveDatagrams(socket: udp.UdpSocket, sink: Output) -> None:
    while True:
        before = socket.sent
        try:
            data = await socket.recv()
        except TimedOutError:
            if socket.sent == before:
                return
        else:
            await sink.write(data)


class Connect(Service):
    """
    One conversation; the program ends with it.

    :param options: where to, and how.
    :param reactor: the reactor.
    :param journal: told what happens.
    :param ending: how the process ends.
    """

    def __init__(self, options: Options, reactor: Any, journal: Journal, ending: Ending) -> None:
        #: Called with the parent when there is one: the application, under ``twistd``.
        self.joined = useStderr(options, LogLevel.info if options.chosen["verbose"] else LogLevel.warn)
        self._options = options
        self._reactor = reactor
        self._journal = journal
        self._ending = ending
        self._conversation: Deferred[None] = succeed(None)

    def setServiceParent(self, parent: Any) -> None:
        """Become a part of *parent*."""
        super().setServiceParent(parent)  # type: ignore[no-untyped-call]
        self.joined(parent)

    def startService(self) -> None:
        """Connect as soon as the reactor runs."""
        super().startService()  # type: ignore[no-untyped-call]
        self._reactor.callWhenRunning(self._begin)

    def _begin(self) -> None:
        self._ending.leaveToSignals()
        self._conversation = Deferred.fromCoroutine(self._run())
        self._conversation.addCallbacks(lambda none: self._ending.stop("it has ended"), self._failed)

    async def _run(self) -> None:
        source, sink = Input(self._reactor, sys.__stdin__), Output(self._reactor, sys.__stdout__)
        target = self._options.target
        if isinstance(target, DatagramTarget):
            await self._exchange(target, source, sink)
        else:
            await self._converse(target, source, sink)

    async def _exchange(self, target: DatagramTarget, source: Input, sink: Output) -> None:
        socket = await udp.connect(target.target, reactor=self._reactor)
        self._journal.connected(target, socket.address)
        await exchange(socket, source, sink, idle=self._options.chosen["timeout-idle"])

    async def _converse(self, target: Target, source: Input, sink: Output) -> None:
        chosen = self._options.chosen
        stream = await dial(self._reactor, target, chosen["timeout-connect"])
        protocol, peer, since = stream.protocol, stream.address, self._reactor.seconds()
        self._journal.connected(peer, stream.localAddress)
        idle = chosen["timeout-idle"]
        if idle is not None:
            late = TimedOutError(f"{peer}: no byte has moved for {idle:g} s; allow more with --timeout-idle")
            protocol.setRestClock("timeout-idle", idle, lambda: protocol.abort(late))
        try:
            await converse(stream, source, sink, halfClose=not chosen["no-half-close"])
        finally:
            seconds = self._reactor.seconds() - since
            self._journal.closed(Ended(peer, protocol.bytesRead, protocol.bytesWritten, seconds, protocol.error))

    def _failed(self, failure: Failure) -> None:
        """It has not ended in good order."""
        error = failure.value
        if isinstance(error, CancelledError | UnreadError):
            self._ending.stop("nobody listens any more")
        elif isinstance(error, NetError):
            self._ending.fail(f"{self._options.whole}: {error.strerror}")
        else:
            self._journal.crashed(failure)
            self._ending.fail(f"{self._options.whole}: {error!r} in the program itself; please report it")

    def stopService(self) -> Deferred[None]:
        """End the conversation; fires when it is over."""
        super().stopService()  # type: ignore[no-untyped-call]
        self._conversation.cancel()
        return self._conversation


def makeService(options: Options) -> Connect:
    """Return the service; it connects when the reactor runs."""
    from twisted.internet import reactor

    journal = Journal(options.command)
    journal.reactor(options.reactor)
    for sentence in options.misspelt(os.environ):
        journal.misspelt(sentence)
    return Connect(options, reactor, journal, Ending(reactor, journal))
