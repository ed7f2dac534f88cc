"""Time that a test moves, over sockets that are real.

A test of a 30-minute timeout must not last 30 minutes, and must not sleep at all: what a sleep waits for is sometimes
late.  `VirtualTime` is a reactor in two halves.  Its network is the running reactor's, so that bytes cross real
sockets; its clock stands still until the test calls `VirtualTime.advance`::

    time = VirtualTime(reactor)
    server = net.createServer(handler, limits=Limits(idleTimeout=1800), reactor=time)
    ...
    time.advance(1800)

A call with no delay (``callLater(0, ...)``: "on a later turn") is a turn of the real reactor: it needs no advance.
Twisted's own transports go on using the real clock; hand a `VirtualTime` to what has the timeouts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import Clock
from zope.interface import directlyProvides, providedBy


class VirtualTime:
    """The running reactor with a clock that only a test moves.

    :param reactor: whose network is used; its interfaces are provided here too.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._clock = Clock()
        directlyProvides(self, providedBy(reactor))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def seconds(self) -> float:
        """Seconds since the test began, as far as it has advanced them."""
        return self._clock.seconds()

    def callLater(self, delay: float, callable: Callable[..., object], *args: object, **kw: object) -> IDelayedCall:
        """Call after *delay* seconds of virtual time; without a delay, on the next turn of the real reactor."""
        if delay == 0:
            turn: IDelayedCall = self._reactor.callLater(0, callable, *args, **kw)
            return turn
        return self._clock.callLater(delay, callable, *args, **kw)

    def getDelayedCalls(self) -> Sequence[IDelayedCall]:
        """What is scheduled in virtual time: empty when everything that a test began has been stopped."""
        return self._clock.getDelayedCalls()

    def advance(self, seconds: float) -> None:
        """Let *seconds* pass: everything that is due by then runs, in order, each at its own time."""
        until = self._clock.seconds() + seconds
        while True:
            calls = [call.getTime() for call in self._clock.getDelayedCalls() if call.getTime() <= until]
            if not calls:
                break
            self._clock.advance(max(0.0, min(calls) - self._clock.seconds()))
        self._clock.advance(max(0.0, until - self._clock.seconds()))
