"""
From the options of a command to a service that listens.

When are the places bound?
==========================
In ``makeService``, before anything else happens. It is the only moment at which a mistake can still be told properly:
stderr is the terminal's, the log has not begun, no pidfile is written, the daemon has not forked, and ``SystemExit``
means what it says. Later, an exception in ``privilegedStartService`` of a daemon is cut at 100 bytes and surrounded by
"An error has occurred"; ``SystemExit`` there leaves the parent waiting for ever and the pidfile behind; and a failure
once the reactor runs cannot reach the parent at all, which has reported success. Privileges are still there too, for
ports below 1024, and so is the environment of systemd's sockets, which is bound to the process that was started
(sd_listen_fds(3)).

The price is paid here. What ``twistd`` will do to the process only after that (``--rundir``, ``--umask``) is done
around the binding; ``--chroot`` and the file of a UNIX socket exclude each other. Names are looked up by waiting for
the answer (:mod:`~twisted_net.service.lookup`). Between binding and the start connections wait in the kernel's backlog;
descriptors and timers survive the fork, on every reactor. If ``twistd`` fails in between (no permission for
``--chroot`` or for the pidfile), what was bound is given back at exit.

What cannot be settled at once is settled later: ``--retry-bind``, and endpoints that take their time. When one of these
fails, the sentence goes to the log and, as long as there is one, to stderr; the others are drained; the exit status is
1 (:mod:`~twisted_net.service.ending`).
"""

from __future__ import annotations

import atexit
import contextlib
import os
import stat
from collections.abc import Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from twisted.application.service import Service
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import AdoptedStreamServerEndpoint, serverFromString
from twisted.python.failure import Failure

from twisted_net import net
from twisted_net.address import Address, EndpointTarget, Target, UnixTarget
from twisted_net.errors import AddressError, NetError
from twisted_net.sansio.backoff import Backoff
from twisted_net.service.deferreds import interpreted
from twisted_net.service.ending import Ending
from twisted_net.service.journal import Journal, useJson
from twisted_net.service.loading import theirTraceback
from twisted_net.service.lookup import blockingLookup
from twisted_net.service.options import UNIXGRAM, Choices, DatagramTarget, ServiceOptions, fail, rootOf
from twisted_net.streams import Listener, Stream
from twisted_net.wire import datagram
from twisted_net.wire.casting import DatagramOptions
from twisted_net.wire.datagram import DatagramPort
from twisted_net.wire.factory import SocketFactory
from twisted_net.wire.listen import listen, listenRetrying
from twisted_net.wire.waiting import loopOf

__all__ = ["Launch", "Serving", "beginCoroutine", "forCoroutine", "forHandler", "launch"]

#: The first delay and the longest between attempts to bind, seconds: a restart of the program that has the address is
#: a matter of a second, and whoever waits for it looks at the log.
RETRY_FIRST: Final = 0.25
RETRY_LONGEST: Final = 5.0

#: Turns of the reactor that giving back what was bound may take; each port needs one.
TURNS: Final = 100

#: What twistd sets for a daemon unless it is told otherwise.
DAEMON_UMASK: Final = 0o077


class Place:
    """One place to listen."""

    __slots__ = ("port", "starting", "target")

    def __init__(self, target: Target | DatagramTarget) -> None:
        self.target = target
        #: The port, once it listens.
        self.port: Any = None
        #: While it is not settled whether it will.
        self.starting: Deferred[Any] | None = None

    @property
    def address(self) -> object:
        """Where it listens."""
        if not isinstance(self.target, DatagramTarget):
            return Address.fromTwisted(self.port.getHost())
        address = str(self.port.address)
        return f"udp:{address}" if self.port.address.port else UNIXGRAM + address.removeprefix("unix:")


def _nothing() -> None:
    """There is nothing to begin."""


@dataclass(frozen=True, slots=True)
class Serving:
    """What serves the connections of all places, whatever kind of handler stands behind it."""

    factory: SocketFactory
    """Admits and knows them."""
    begin: Callable[[], object] = _nothing
    """Called once, after a daemon has forked and before it gives up privileges. May raise: then nothing is served."""
    finish: Callable[[float], Deferred[None]] | None = None
    """Given the seconds of grace when the service stops; fires when what runs besides the connections has ended too."""
    receive: Callable[[DatagramPort], object] | None = None
    """Given each port for datagrams as soon as it is bound, to begin to receive there; None: there can be none."""
    closesPorts: bool = False
    """Whether `finish` closes the ports for datagrams, when what came by them is done with; else that is done first."""
    record: Callable[[Journal], object] | None = None
    """Given the journal, when it wants a line for each connection; None: the factory says what there is to say."""


class Launch(Service):
    """
    Listens on several places, and drains their connections when it is stopped.

    :param serving: what serves them.
    :param choices: where to listen, how long to try, how long connections have to finish.
    :param reactor: the reactor.
    :param journal: told what happens.
    :param ending: how the process ends.
    :param whole: what is being run, for messages: ``"net echo"``.
    """

    def __init__(
        self,
        serving: Serving,
        choices: Choices,
        reactor: Any,
        journal: Journal,
        ending: Ending,
        whole: str = "net",
    ) -> None:
        #: The engine's factory behind all places.
        self.factory = serving.factory
        #: What serves the connections.
        self.serving = serving
        #: The places, in the order in which they were given.
        self.places = [Place(target) for target in choices.listen]
        #: Called with the parent when there is one: the application, under ``twistd``.
        self.joined: Callable[[object], None] = lambda parent: None
        #: Whether the process will be a daemon's.
        self.daemon = False
        self._choices = choices
        self._reactor = reactor
        self._journal = journal
        self._whole = whole
        self._ending = ending
        self._begun = False

    def setServiceParent(self, parent: Any) -> None:
        """Become a part of *parent*."""
        super().setServiceParent(parent)  # type: ignore[no-untyped-call]
        self.joined(parent)

    # Binding

    def bind(self, root: Mapping[str, Any] | None = None) -> None:
        """
        Begin to listen on every place.

        :param root: the options of ``twistd``, whose surroundings (folder, umask) hold for the files of UNIX sockets.
        :raises NetError: a place cannot be had; nothing is left behind.
        """
        root = root or {}
        self.daemon = "nodaemon" in root and not root["nodaemon"]
        atexit.register(self.release)
        try:
            with surroundings(root, self.daemon), blockingLookup(self._reactor):
                for place in self.places:
                    self._bind(place)
        except NetError:
            self.release()
            raise

    def _bind(self, place: Place) -> None:
        backlog = self._choices.backlog
        if isinstance(place.target, DatagramTarget):
            starting: Deferred[Any] = Deferred.fromCoroutine(
                datagram.bind(self._reactor, place.target.target, DatagramOptions())
            )
            self._awaitPort(place, starting)
            return
        where = self._where(place.target)
        if self._choices.retryBind is None:
            starting = listen(self._reactor, self.factory, where, backlog=backlog)
        else:
            rule = Backoff(
                initial=RETRY_FIRST, maximum=RETRY_LONGEST, jitter=0.0, total=self._choices.retryBind
            )
            starting = listenRetrying(
                self._reactor,
                self.factory,
                where,
                rule,
                onRetry=lambda error, attempt, delay: self._journal.retry(place.target, error, attempt, delay),
                backlog=backlog,
            )
        self._awaitPort(place, starting)

    def _awaitPort(self, place: Place, starting: Deferred[Any]) -> None:
        outcome: list[Any] = []
        starting.addBoth(outcome.append)
        if not outcome:
            place.starting = starting
            starting.addCallback(lambda none: self._settled(place, outcome[0]))
        elif isinstance(outcome[0], Failure):
            outcome[0].raiseException()
        else:
            self._bound(place, outcome[0])

    def _where(self, target: Target) -> Target | int:
        """What to listen on: for a socket of systemd's its descriptor, since an endpoint would remove its file."""
        if not isinstance(target, EndpointTarget) or not target.description.startswith("systemd:"):
            return target
        try:
            endpoint = serverFromString(self._reactor, target.description)
            assert isinstance(endpoint, AdoptedStreamServerEndpoint)
            descriptor: int = endpoint.fileno
        except Exception as error:
            raise AddressError(
                f"listen {target}: systemd has handed over no such socket; let its .socket unit start this service, "
                "and compare domain and index or name with it"
            ) from error
        return descriptor

    def _bound(self, place: Place, port: Any) -> None:
        place.port = port
        if isinstance(port, DatagramPort):
            assert self.serving.receive is not None, "its command has refused places for datagrams"
            self.serving.receive(port)
        else:
            self.factory.adopt(port)
        if self.running:
            self._journal.listening(place.address, self._reactor)

    def _settled(self, place: Place, outcome: Any) -> None:
        place.starting = None
        if not isinstance(outcome, Failure):
            self._bound(place, outcome)
        elif self._begun:
            assert isinstance(outcome.value, NetError), "as listen() promises"
            self._fail(self.sentence(outcome.value))

    def _fail(self, sentence: str, theirs: str = "") -> None:
        """End the program, which runs already."""
        sentence = f"{self._whole}: {sentence}"
        self._journal.failed(sentence)
        self._ending.fail(theirs + sentence)

    def sentence(self, error: NetError) -> str:
        """What to say when a place cannot be had."""
        if error.code == "ERR_INTERNAL":
            return f"listen {error.address}: {error.__cause__!r}; correct the address, or the endpoint's own code"
        if error.code != "EADDRINUSE" or _isOtherFile(error.address) or error.syscall == "bind":
            return error.strerror
        if self._choices.retryBind is None:
            return f"{error.strerror}, or wait for it with --retry-bind 30s"
        return f"{error.strerror} (tried again for {self._choices.retryBind:g} s)"

    def release(self) -> None:
        """Give back what was bound: at once, unless the reactor runs, which then sees to it."""
        atexit.unregister(self.release)
        left = self._stopPlaces()
        turns = 0
        while not left.called and turns < TURNS and not self._reactor.running:
            turns += 1
            self._reactor.iterate(0.01)

    # IService

    def privilegedStartService(self) -> None:
        """The daemon has forked; privileges are still there."""
        super().privilegedStartService()  # type: ignore[no-untyped-call]
        self._begin()

    def startService(self) -> None:
        """Say where it listens, and go on with what could not be settled when it was bound."""
        super().startService()  # type: ignore[no-untyped-call]
        self._ending.watch()
        self._reactor.callWhenRunning(self._ending.watch)
        if not self._begun:
            # twist knows no privileged start, and its log begins only with the reactor.
            self._reactor.callWhenRunning(self._begin)
        for place in self.places:
            if place.port is not None:
                self._journal.listening(place.address, self._reactor)

    def _begin(self) -> None:
        try:
            self.serving.begin()
        except Exception as error:
            # A daemon's parent waits: twistd tells it, removes the pidfile and ends, and all that was said is in the
            # log. In the foreground twistd would show its own frames before theirs.
            if self.daemon:
                raise
            self._journal.handlerFailed(Failure(error))
            sentence = "the handler fails to start: its own error stands above; correct it there"
            self._reactor.callWhenRunning(self._fail, sentence, theirTraceback(error))
        self._begun = True
        atexit.unregister(self.release)

    def stopService(self) -> Deferred[None]:
        """Accept nobody any more; fires when every connection has ended, or was aborted after the grace time."""
        super().stopService()  # type: ignore[no-untyped-call]
        self._begun = False
        grace = self._choices.grace
        self._journal.stopping(self._ending.reason, len(self.factory), grace)
        ports = self._stopPlaces(leaveDatagrams=self.serving.closesPorts)
        waiting = [ports, self.factory.drain(grace)]
        if self.serving.finish is not None:
            waiting.append(self.serving.finish(grace))
        done: Deferred[None] = gatherResults(waiting)  # type: ignore[assignment]
        done.addCallback(lambda results: self._journal.stopped())
        return done

    def _stopPlaces(self, leaveDatagrams: bool = False) -> Deferred[Any]:
        waiting = []
        for place in self.places:
            starting, port = place.starting, place.port
            place.starting = place.port = None
            if starting is not None:
                starting.cancel()
            if isinstance(port, DatagramPort):
                if not leaveDatagrams:
                    port.close()
            elif port is not None:
                self.factory.disown(port)
                stopped = port.stopListening()
                stopped.addErrback(self._notClosed, place)
                waiting.append(stopped)
        return gatherResults(waiting)

    def _notClosed(self, failure: Failure, place: Place) -> None:
        self._journal.notClosed(place.target, failure.getErrorMessage())


def _isOtherFile(where: object) -> bool:
    """Whether *where* is taken by something that is no socket, for which nobody needs to wait."""
    if not isinstance(where, UnixTarget) or not os.path.lexists(where.path):
        return False
    return not stat.S_ISSOCK(os.lstat(where.path).st_mode)


@contextlib.contextmanager
def surroundings(root: Mapping[str, Any], daemon: bool) -> Iterator[None]:
    """The folder and the umask that ``twistd`` will set for the process, as its options say."""
    folder = root.get("rundir") or "."
    umask = root.get("umask")
    if umask is None and daemon:
        umask = DAEMON_UMASK
    before = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
    mask = None
    try:
        try:
            os.chdir(folder)
        except OSError as error:
            raise NetError(
                f"twistd's --rundir {folder}: {error.strerror}; make the folder, or name another", code="ENOENT"
            ) from error
        if umask is not None:
            mask = os.umask(umask)
        yield
    finally:
        if mask is not None:
            os.umask(mask)
        os.fchdir(before)
        os.close(before)


def forHandler(handler: Callable[[net.Socket], object], choices: Choices, reactor: Any) -> Serving:
    """Hand every connection to *handler* as a Socket."""
    server = net.Server(handler, limits=choices.limits, allowHalfOpen=choices.halfOpen, reactor=reactor)
    return Serving(server.factory)


def forCoroutine(handler: Callable[[Stream], Coroutine[Any, Any, object]], choices: Choices, reactor: Any) -> Serving:
    """
    Hand every connection to a coroutine of its own, as a Stream.

    On a reactor that asyncio runs the coroutines are asyncio's tasks, so that asyncio's libraries work in them, and
    Deferreds too (:mod:`~twisted_net.service.deferreds`); elsewhere Twisted runs them. When the service stops they have
    the time of grace, then they are cancelled.
    """
    listener = Listener(reactor, limits=choices.limits)

    def begin() -> None:
        beginCoroutine(reactor, listener.serve(interpreted(handler, reactor)))

    return Serving(listener.factory, begin, lambda grace: Deferred.fromCoroutine(listener.close(grace)))


def beginCoroutine(reactor: Any, coroutine: Coroutine[Any, Any, Any]) -> Deferred[Any]:
    """
    Run *coroutine*: by asyncio, where it runs the reactor, else by Twisted.

    :returns: fires when it has ended; cancelling it cancels the coroutine.
    """
    loop = loopOf(reactor)
    return Deferred.fromCoroutine(coroutine) if loop is None else Deferred.fromFuture(loop.create_task(coroutine))


def launch(options: ServiceOptions, build: Callable[[Choices, Any], Serving]) -> Launch:
    """
    Return the service of a command, bound to its places.

    :param build: makes what serves, for the choices and the reactor.
    :raises SystemExit: a place cannot be had; with the sentence for stderr.
    """
    from twisted.internet import reactor

    choices = options.choices
    root = rootOf(options)
    for target in choices.listen:
        place = target.target if isinstance(target, DatagramTarget) else target
        if root is not None and root.get("chroot") and isinstance(place, UnixTarget) and place.path[:1] != "\0":
            fail(
                options.whole,
                f"{target} would be made outside of twistd's --chroot {root['chroot']}; listen on an abstract name "
                "(unix:@name) or on TCP, or let systemd make the socket (systemd:domain=UNIX:index=0)",
            )
    journal = Journal(options.command)
    journal.reactor(options.reactor)
    for sentence in options.misspelt(os.environ):
        journal.misspelt(sentence)
    serving = build(choices, reactor)
    if choices.accessLog and serving.record is not None:
        serving.record(journal)
    elif choices.accessLog:
        serving.factory.journal = journal.closed
    service = Launch(serving, choices, reactor, journal, Ending(reactor, journal), options.whole)
    if choices.logFormat == "json":
        service.joined = useJson(options, reactor)
    try:
        service.bind(root)
    except NetError as error:
        fail(options.whole, service.sentence(error))
    return service
