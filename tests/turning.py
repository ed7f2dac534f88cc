"""Letting the reactor work: for what is due "on a later turn", and for what comes when it comes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.task import deferLater

PATIENCE = 20.0
"""Seconds after which a test that waits for something has failed."""


async def turns(count: int = 1) -> None:
    """Let the reactor go round *count* times."""
    from twisted.internet import reactor

    for _ in range(count):
        await deferLater(reactor, 0, lambda: None)


async def until(condition: Callable[[], Any]) -> None:
    """Let the reactor work until *condition* holds."""
    from twisted.internet import reactor as globalReactor

    reactor: Any = globalReactor
    latest = reactor.seconds() + PATIENCE
    while not condition():
        assert reactor.seconds() < latest, "it has not come true"
        await turns()
