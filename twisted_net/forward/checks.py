"""
The active check: is somebody accepting connections there?

Each target is connected to every `Check.interval` seconds, and what comes about is closed at once, in good order. The
targets take turns within an interval, so that many of them make no burst. What results mean is for
:mod:`~twisted_net.sansio.health`. An attempt that failed for want of descriptors here proves nothing, and counts as
none.

Datagrams have no check: nothing answers to having been sent one but the service itself, in its own words.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from twisted_net.errors import OptionError
from twisted_net.forward.session import LOCAL_CODES
from twisted_net.forward.targets import Pool, Target
from twisted_net.wire.dial import dial
from twisted_net.wire.once import Once
from twisted_net.wire.protocol import UNCLAIMED, SocketProtocol
from twisted_net.wire.reasons import translate

__all__ = ["Check", "Checks"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """
    How targets are checked.

    :raises OptionError: a value is out of range.
    """

    interval: float = 2.0
    """Seconds from one check of a target to the next one."""

    timeout: float = 1.0
    """Seconds within which a connection has to stand."""

    rise: int = 2
    """Good checks in a row that bring a target up."""

    fall: int = 3
    """Bad checks in a row that take it down."""

    def __post_init__(self) -> None:
        for name in ("interval", "timeout"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < inf:
                raise OptionError(f"{name} of a check is {value!r}; it must be seconds, finite and more than 0")
        for name in ("rise", "fall"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise OptionError(f"{name} of a check is {value!r}; it must be a whole number, 1 or more")


class Checks:
    """
    Checks the targets of a pool, from `start` to `stop`.

    :param pool: is told of results.
    :param check: how.
    :param reactor: the reactor.
    """

    def __init__(self, pool: Pool, check: Check, reactor: Any) -> None:
        self._pool = pool
        self._check = check
        self._reactor = reactor
        self._calls: dict[Target, IDelayedCall] = {}
        self._running: dict[Target, Deferred[Any]] = {}

    def start(self) -> None:
        """Begin; the first target is checked in the next turn. Harmless when it has begun."""
        if self._calls or self._running:
            return
        for index, target in enumerate(self._pool.targets):
            delay = index * self._check.interval / len(self._pool.targets)
            self._calls[target] = self._reactor.callLater(delay, self._begin, target)

    def stop(self) -> None:
        """Check no more. Harmless when it has not begun."""
        calls, self._calls = self._calls, {}
        running, self._running = self._running, {}
        for call in calls.values():
            call.cancel()
        for dialling in running.values():
            dialling.cancel()

    def _begin(self, target: Target) -> None:
        self._calls[target] = self._reactor.callLater(self._check.interval, self._begin, target)
        if target in self._running:  # a timeout that is longer than the interval
            return
        protocol = SocketProtocol(UNCLAIMED, self._reactor)
        where: Any = target.where
        dialling = dial(self._reactor, Once(protocol), where, timeout=self._check.timeout)
        self._running[target] = dialling
        dialling.addCallbacks(lambda made: protocol.close(), lambda failure: failure)
        dialling.addBoth(self._ended, target)

    def _ended(self, result: object, target: Target) -> None:
        if self._running.pop(target, None) is None:  # stopped
            return
        error = None
        if isinstance(result, Failure):
            error = translate(result, address=target.where, syscall="connect")
            assert error is not None, "what did not come about has not ended in good order"
            if error.code in LOCAL_CODES:
                return
        self._pool.checked(target, error)
