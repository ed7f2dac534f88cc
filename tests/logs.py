"""Errors in Twisted's log are failures of the test during which they were logged, unless it said it expected them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from twisted.logger import ILogObserver, LogEvent, LogLevel, eventAsText, globalLogPublisher
from twisted.python.failure import Failure
from zope.interface import implementer, provider

_LEVELS = {
    LogLevel.debug: logging.DEBUG,
    LogLevel.info: logging.INFO,
    LogLevel.warn: logging.WARNING,
    LogLevel.error: logging.ERROR,
    LogLevel.critical: logging.CRITICAL,
}


@implementer(ILogObserver)
class LoggedErrors:
    """Keeps what was logged at level error or critical until a test takes it out with :meth:`flush`.

    Everything that is logged is passed on, as text, to the standard library's logger ``twisted``, where pytest finds
    it for its report of a failed test. As text only: an event carries its failure, a failure its frames, and frames
    whatever a test may want to see die.
    """

    def __init__(self) -> None:
        self.events: list[LogEvent] = []
        self._logger = logging.getLogger("twisted")

    def __call__(self, event: LogEvent) -> None:
        level = event.get("log_level", LogLevel.info)
        if level in (LogLevel.error, LogLevel.critical):
            self.events.append(event)
        number = _LEVELS[level]
        if self._logger.isEnabledFor(number):
            self._logger.log(number, "%s", text(event))

    def flush(self, *kinds: type[BaseException] | str) -> list[LogEvent]:
        """Take out and return the events that were expected, oldest first.

        A class takes those whose failure is of that class, a text those whose message or traceback contains it;
        without an argument all are taken.
        """
        taken = [event for event in self.events if not kinds or any(_fits(event, kind) for kind in kinds)]
        self.events = [event for event in self.events if not any(event is one for one in taken)]
        return taken


def text(event: LogEvent) -> str:
    """The event as it would stand in a log file, traceback included, without time and origin."""
    return eventAsText(event, includeTimestamp=False, includeSystem=False)


def _fits(event: LogEvent, kind: type[BaseException] | str) -> bool:
    if isinstance(kind, str):
        return kind in text(event)
    failure: Failure | None = event.get("log_failure")
    return failure is not None and isinstance(failure.value, kind)


@contextmanager
def heard(matters: Callable[[LogEvent], bool]) -> Iterator[list[LogEvent]]:
    """The events in Twisted's log meanwhile that matter."""
    events: list[LogEvent] = []

    @provider(ILogObserver)
    def observe(event: LogEvent) -> None:
        if matters(event):
            events.append(event)

    globalLogPublisher.addObserver(observe)
    try:
        yield events
    finally:
        globalLogPublisher.removeObserver(observe)
