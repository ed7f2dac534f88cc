"""
The loopback interface behind the same calls as a network in memory, so that one test body runs on both.

What a real network cannot do on demand (time that jumps, faults, hosts that die) raises `MemoryOnlyError`, which says
so. Every host is this machine, and all of them share the one reactor there is.

Theory
======
A reactor can be started again after ``crash()``, not after ``stop()``. So each `LoopbackNetwork.run` starts it, and
crashes it when the result is there; nothing that it holds is lost by that. Where pytest-twisted is, the reactor belongs
to a greenlet of its own, and is waited for from the test's greenlet.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final, NoReturn, Self

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.main import CONNECTION_LOST
from twisted.internet.task import deferLater
from twisted.python import log
from twisted.python.failure import Failure

from twisted_net.testing.host import Host
from twisted_net.testing.network import MemoryNetwork, begun
from twisted_net.testing.runaway import LeakError, RunawayError

__all__ = ["LoopbackHost", "LoopbackNetwork", "MemoryOnlyError"]

#: Seconds of real time that `LoopbackNetwork.run` allows unless it is told otherwise.
PATIENCE: Final = 60.0

#: How often, and how many seconds each time, what a test has begun is waited for at the end: a FIN takes a turn or two.
_SETTLING_TURNS: Final = 100
_SETTLING_TURN: Final = 0.01

#: The same where nobody asks for leaks: what was aborted is told so a turn later.
_SHUTTING_TURNS: Final = 3


#: What networks and hosts in memory keep as attributes of each object, and a real one cannot have.
_OF_NETWORKS: Final = ("choices", "names", "trace")
_OF_HOSTS: Final = ("credentials", "dead", "descriptorLimit", "frozen", "ports")

_WITHIN: Final = "run() was called within the running reactor: make the test `async def`, and await instead"
_STOPPED: Final = (
    "the reactor was stopped, and cannot be started again: no test can follow on the loopback interface; "
    "what a test runs must not call reactor.stop()"
)


class MemoryOnlyError(AttributeError):
    """Only a network in memory can do that. (``hasattr`` tells beforehand; so does ``network.inMemory``.)"""


class LoopbackHost:
    """This machine, by whatever name.

    :ivar name: that name.
    :ivar address: ``127.0.0.1``.
    :ivar reactor: the reactor.

    :raises MemoryOnlyError: for what only a :class:`~twisted_net.testing.host.Host` can do, such as ``die()``.
    """

    address = "127.0.0.1"
    addresses = ("127.0.0.1",)

    def __init__(self, name: str, reactor: Any) -> None:
        self.name = name
        self.reactor = reactor

    def __getattr__(self, name: str) -> NoReturn:
        _refuse(self, name, Host, _OF_HOSTS)


class LoopbackNetwork:
    """
    Real sockets on 127.0.0.1, with the interface of :class:`~twisted_net.testing.network.MemoryNetwork` as far as it
    goes.

    :param reactor: the reactor; default: the global one, which is installed when none is.
    :raises MemoryOnlyError: for what only that can do, such as ``advance(60)`` or ``partition()``.
    """

    #: Whether time jumps and faults can be made.
    inMemory = False

    def __init__(self, reactor: Any = None) -> None:
        if reactor is None:
            from twisted.internet import reactor
        self.reactor: Any = reactor
        self.hosts: dict[str, LoopbackHost] = {}
        # The things themselves: the identity of one that has gone may become another one's.
        self._before = self._held()
        self._timers: list[IDelayedCall] = []
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._paths = 0
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, where: object) -> None:
        if kind is None:
            self.close()
        else:
            self.shut()  # what a test leaves behind that has failed says nothing more

    def host(self, name: str, *addresses: str) -> LoopbackHost:
        """This machine. *addresses* are for networks in memory, and mean nothing here."""
        return self.hosts.setdefault(name, LoopbackHost(name, self.reactor))

    def path(self) -> str:
        """A path for a UNIX socket, in a folder that is removed at the end."""
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="tn")
        self._paths += 1
        return os.path.join(self._folder.name, f"{self._paths}.sock")

    @property
    def now(self) -> float:
        """The reactor's time, in seconds."""
        return self.seconds()

    def seconds(self) -> float:
        """The reactor's time, in seconds."""
        seconds: float = self.reactor.seconds()
        return seconds

    def sleep(self, seconds: float) -> Deferred[None]:
        """Fires after that many real seconds."""
        return deferLater(self.reactor, seconds, lambda: None)

    def begin(self, what: Any, *, timeout: float = PATIENCE) -> Deferred[Any]:
        """Begin *what*, as :meth:`run` takes it, in a reactor that runs or will; fires with what it gives."""
        # The timer first: what begins now may look at what is scheduled, or be over at once.
        result: Deferred[Any]
        timer = self.reactor.callLater(timeout, lambda: result.cancel())
        self._timers.append(timer)
        try:
            result = begun(what)
        except BaseException:
            self._timers.remove(timer)
            timer.cancel()
            raise

        def ended(outcome: Any) -> Any:
            self._timers.remove(timer)
            if timer.active():
                timer.cancel()
                return outcome
            raise RunawayError(
                f"it has taken {timeout:g} s of real time, and has not come about; open or scheduled:"
                f"{_listed(self.leaks() or ['nothing'])}"
            )

        return result.addBoth(ended)

    def run(self, what: Any, *, timeout: float = PATIENCE) -> Any:
        """
        Run the reactor until *what* has come about.

        :param what: a coroutine function or a coroutine, a Deferred, or a function, which may return one of these.
        :param timeout: real seconds that it may take.
        :returns: what it gives.
        :raises RunawayError: it takes longer; it has been cancelled then.
        :raises RuntimeError: this is called from within the running reactor (there, await instead), or something has
            stopped the reactor.
        """
        return _block(self.reactor, lambda: self.begin(what, timeout=timeout))

    def leaks(self) -> list[str]:
        """
        What the reactor holds and did not hold when this was made: a line for each timer, reader and writer.

        A connection whose protocol has paused it is neither, and is not seen.
        """
        return [f"{kind} {one}" for kind, one in self._fresh()]

    def _fresh(self) -> list[tuple[str, Any]]:
        return [held for key, held in self._held().items() if key not in self._before and held[1] not in self._timers]

    def _held(self) -> dict[int, tuple[str, Any]]:
        reactor = self.reactor
        wakers = reactor._internalReaders  # some of them are made when it runs for the first time
        held: dict[int, tuple[str, Any]] = {id(one): ("writer", one) for one in reactor.getWriters()}
        held |= {id(one): ("reader", one) for one in reactor.getReaders() if one not in wakers}
        held |= {id(one): ("timer", one) for one in reactor.getDelayedCalls() if not _isTrials(one)}
        return held

    def close(self) -> None:
        """
        End it, after what has been begun (a FIN on its way) had a second to end. Closing twice is harmless.

        :raises LeakError: something was left open or scheduled; the text says what. It is ended all the same.
        :raises RuntimeError: as :meth:`run`.
        """
        self._close(_SETTLING_TURNS)

    def shut(self) -> None:
        """As :meth:`close`, whatever is left open, and at once."""
        with suppress(LeakError):
            self._close(_SHUTTING_TURNS)

    def _close(self, turns: int) -> None:
        if not self._closed:
            _block(self.reactor, lambda: Deferred.fromCoroutine(self._end(turns)))

    def ended(self) -> Deferred[None]:
        """As :meth:`close`, in a Deferred: for who is in the running reactor."""
        return Deferred.fromCoroutine(self._end(_SETTLING_TURNS))

    async def _end(self, turns: int) -> None:
        while (fresh := self._fresh()) and turns:
            turns -= 1
            await self.sleep(_SETTLING_TURN)
        self._closed = True
        leaks = self.leaks()
        for _, one in fresh:
            if IDelayedCall.providedBy(one):
                one.cancel()
            else:
                self._disconnect(one)
        if self._folder is not None:
            self._folder.cleanup()
        if leaks:
            raise LeakError(f"left behind:{_listed(leaks)}")

    def _disconnect(self, one: Any) -> None:
        """As the reactor does at its own end."""
        self.reactor.removeReader(one)
        self.reactor.removeWriter(one)
        log.callWithLogger(one, one.connectionLost, Failure(CONNECTION_LOST))

    def story(self) -> str:
        """Nothing: a real network keeps no trace."""
        return ""

    def __getattr__(self, name: str) -> NoReturn:
        _refuse(self, name, MemoryNetwork, _OF_NETWORKS)


def _refuse(one: object, name: str, inMemory: type, attributes: Sequence[str]) -> NoReturn:
    """Say why *one* has no *name*: because only its like *inMemory* can have it, or because nobody has."""
    if name in attributes or (hasattr(inMemory, name) and not name.startswith("_")):
        raise MemoryOnlyError(
            f"{name} is not possible on the loopback interface; run this test in memory alone "
            '(pytest: @pytest.mark.network("memory"); trial: ground = "memory")'
        )
    raise AttributeError(f"{type(one).__name__} has no attribute {name!r}")


def _isTrials(call: Any) -> bool:
    """Whether *call* is trial's own: its timeout of the test that runs, or of its clean-up."""
    return str(getattr(call.func, "__module__", "")).startswith("twisted.trial.")


def _listed(lines: list[str]) -> str:
    return "".join(f"\n  {line}" for line in lines)


def _block(reactor: Any, begin: Callable[[], Deferred[Any]]) -> Any:
    """Run *reactor* until the Deferred that *begin* returns, which is called in it, has fired."""
    plugin: Any = sys.modules.get("pytest_twisted")
    if plugin is not None and plugin._instances.gr_twisted is not None and plugin._instances.reactor is reactor:
        return _blockIn(plugin, reactor, begin)
    if reactor.running:
        raise RuntimeError(_WITHIN)
    results: list[Any] = []

    def end(result: Any) -> None:
        results.append(result)
        reactor.crash()

    reactor.callWhenRunning(lambda: maybeDeferred(begin).addBoth(end))
    with _interruptible(lambda: reactor.callFromThread(end, Failure(KeyboardInterrupt()))):
        reactor.run(installSignalHandlers=False)
    if not results:
        raise RuntimeError(_STOPPED)
    if isinstance(results[0], Failure):
        results[0].raiseException()
    return results[0]


def _blockIn(plugin: Any, reactor: Any, begin: Callable[[], Deferred[Any]]) -> Any:
    """As `_block`, where the reactor is pytest-twisted's."""
    loop = plugin._instances.gr_twisted
    if plugin.greenlet.getcurrent() is loop:
        raise RuntimeError(_WITHIN)
    try:
        return plugin.blockon(deferLater(reactor, 0, begin))
    except AssertionError:
        if loop.dead:
            raise RuntimeError(_STOPPED) from None
        raise


@contextmanager
def _interruptible(interrupt: Callable[[], object]) -> Iterator[None]:
    """
    Let the first Ctrl-C call *interrupt*, and a second one raise KeyboardInterrupt where the program stands.

    A reactor that finds KeyboardInterrupt in its loop logs it, and goes on.
    """
    handler = signal.getsignal(signal.SIGINT)
    if handler is not signal.default_int_handler or threading.current_thread() is not threading.main_thread():
        yield  # somebody else has decided about it
        return

    def interrupted(number: int, frame: object) -> None:
        signal.signal(signal.SIGINT, handler)
        interrupt()

    signal.signal(signal.SIGINT, interrupted)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
