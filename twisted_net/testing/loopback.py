"""
The loopback interface behind the same calls as a network in memory, so that one test body runs on both.

What a real network cannot do on demand (time that jumps, faults, hosts that die) raises `MemoryOnlyError`, which says
so. Every host is this machine, and all of them share the one reactor there is.
"""

from __future__ import annotations

import os
import sys
import tempfile
from typing import Any, Final, NoReturn, Self

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from twisted_net.testing.network import begun
from twisted_net.testing.runaway import LeakError

__all__ = ["LoopbackHost", "LoopbackNetwork", "MemoryOnlyError"]

#: Seconds of real time that `LoopbackNetwork.run` allows unless it is told otherwise.
PATIENCE: Final = 60.0

#: How often, and how many seconds each time, what a test has begun is waited for at the end: a FIN takes a turn or two.
_SETTLING_TURNS: Final = 100
_SETTLING_TURN: Final = 0.01


class MemoryOnlyError(Exception):
    """Only a network in memory can do that."""


class LoopbackHost:
    """This machine, by whatever name.

    :ivar name: that name.
    :ivar address: ``127.0.0.1``.
    :ivar reactor: the reactor.
    """

    address = "127.0.0.1"
    addresses = ("127.0.0.1",)

    def __init__(self, name: str, reactor: Any) -> None:
        self.name = name
        self.reactor = reactor


class LoopbackNetwork:
    """
    Real sockets on 127.0.0.1, with the interface of :class:`~twisted_net.testing.network.MemoryNetwork` as far as it
    goes.

    :param reactor: the reactor; default: the global one, which is installed when none is.
    """

    #: Whether time jumps and faults can be made.
    inMemory = False

    def __init__(self, reactor: Any = None) -> None:
        if reactor is None:
            from twisted.internet import reactor
        self.reactor: Any = reactor
        self.hosts: dict[str, LoopbackHost] = {}
        self._before = self._held()
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._paths = 0
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, where: object) -> None:
        if kind is None:
            self.close()
        else:
            self.shut()

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
        """Begin *what* (as :meth:`run` takes it) in a reactor that runs, or will; fires with what it gives."""
        beginning: Deferred[Any] = Deferred()
        # The timer first: what begins now may be over at once, or look at what is scheduled.
        ending = beginning.addCallback(lambda nothing: begun(what)).addTimeout(timeout, self.reactor)
        beginning.callback(None)
        return ending

    def run(self, what: Any, *, timeout: float = PATIENCE) -> Any:
        """
        Run the reactor until *what* has come about.

        :param what: a coroutine function or a coroutine, a Deferred, or a function, which may return one of these.
        :param timeout: real seconds that it may take.
        :returns: what it gives.
        :raises RuntimeError: the reactor runs already, and this is called from within it: there, await instead.
        """
        return _block(self.reactor, lambda: self.begin(what, timeout=timeout))

    def leaks(self) -> list[str]:
        """What the reactor holds and did not hold when this was made."""
        return [text for key, text in self._held().items() if key not in self._before]

    def _held(self) -> dict[int, str]:
        held = {id(call): f"timer {call}" for call in self.reactor.getDelayedCalls()}
        held |= {id(one): f"reader {one!r}" for one in self.reactor.getReaders()}
        held |= {id(one): f"writer {one!r}" for one in self.reactor.getWriters()}
        return held

    def close(self) -> None:
        """
        End it. Closing twice is harmless.

        :raises LeakError: something was left open or scheduled; the text says what.
        """
        if not self._closed:
            _block(self.reactor, self.ended)

    def ended(self) -> Deferred[None]:
        """As :meth:`close`, in a Deferred: for who is in the running reactor."""
        return Deferred.fromCoroutine(self._end())

    async def _end(self) -> None:
        try:
            for _ in range(_SETTLING_TURNS):
                leaks = self.leaks()
                if not leaks:
                    return
                await self.sleep(_SETTLING_TURN)
        finally:
            self.shut()
        raise LeakError("left behind:\n" + "\n".join(f"  {leak}" for leak in leaks))

    def shut(self) -> None:
        """End it, whatever is left open."""
        self._closed = True
        if self._folder is not None:
            self._folder.cleanup()

    def story(self) -> str:
        """Nothing: a real network keeps no trace."""
        return ""

    # -- what only memory can

    def _refuse(self, what: str) -> NoReturn:
        raise MemoryOnlyError(
            f"{what} is not possible on the loopback interface; run this test on a network in memory alone "
            '(pytest: @pytest.mark.network("memory"))'
        )

    def advance(self, seconds: float) -> NoReturn:
        """:raises MemoryOnlyError: always."""
        self._refuse(f"advance({seconds!r})")

    def settle(self) -> NoReturn:
        """:raises MemoryOnlyError: always."""
        self._refuse("settle()")

    def link(self, one: object, other: object) -> NoReturn:
        """:raises MemoryOnlyError: always."""
        self._refuse("link()")

    def partition(self, *groups: object) -> NoReturn:
        """:raises MemoryOnlyError: always."""
        self._refuse("partition()")

    def heal(self) -> NoReturn:
        """:raises MemoryOnlyError: always."""
        self._refuse("heal()")


def _block(reactor: Any, begin: Any) -> Any:
    """Run *reactor* until the Deferred that *begin* returns has fired."""
    if reactor.running:
        return _blockWithin(begin)
    results: list[Any] = []

    def end(result: Any) -> None:
        results.append(result)
        reactor.crash()

    reactor.callWhenRunning(lambda: begin().addBoth(end))
    reactor.run(installSignalHandlers=False)
    if isinstance(results[0], Failure):
        results[0].raiseException()
    return results[0]


def _blockWithin(begin: Any) -> Any:
    """A reactor that runs in a greenlet of pytest-twisted's can be waited for from another one, and only from there."""
    plugin: Any = sys.modules.get("pytest_twisted")
    try:
        if plugin is not None:
            return plugin.blockon(begin())
    except AssertionError as error:
        if "blockon cannot be called" not in str(error):
            raise
    raise RuntimeError("run() was called within the running reactor: make the test `async def`, and await instead")
