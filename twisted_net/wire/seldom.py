"""
A warning that comes seldom, however often its reason does: a flood of connections must not become a flood of log lines.

The first line is written at once, for an operator wants to know *now*. What comes within the second after a line is
counted, and told in one more line when that second is over; so the counts of all lines add up to what has happened,
and the last line of a flood is as true as the first. (Without that timer the rest of a flood would be told with the
next one, perhaps days later.) After a second in which nothing came there is no timer.
"""

from __future__ import annotations

from typing import Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

__all__ = ["Seldom"]

#: Seconds between two lines.
PAUSE: Final = 1.0


class Seldom:
    """
    One kind of warning, of which at most one line a second is written.

    :param text: of the line, as Twisted's loggers format it; ``{count}`` is how often it came since the last line.
    """

    __slots__ = ("_call", "_log", "_reactor", "_text", "_unsaid", "_values")

    def __init__(self, log: Logger, reactor: IReactorTime, text: str) -> None:
        self._log = log
        self._reactor = reactor
        self._text = text
        self._unsaid = 0
        self._values: dict[str, object] = {}
        self._call: IDelayedCall | None = None

    def warn(self, **values: object) -> None:
        """It came once more.

        :param values: for the text; a line that tells of several has those of the last.
        """
        self._unsaid += 1
        self._values = values
        if self._call is None:
            self._begin()

    def _say(self) -> None:
        if self._unsaid:
            self._log.warn(self._text, count=self._unsaid, **self._values)
            self._unsaid = 0

    def _begin(self) -> None:
        self._call = self._reactor.callLater(PAUSE, self._secondIsOver)
        self._say()

    def _secondIsOver(self) -> None:
        self._call = None
        if self._unsaid:
            self._begin()

    def stop(self) -> None:
        """Say now what is unsaid, and leave no timer.  Harmless at any time."""
        call, self._call = self._call, None
        if call is not None:
            call.cancel()
        self._say()
