"""
A reactor in memory in the place of the global ones, for as long as it is wanted.

Much code takes the reactor from ``twisted.internet.reactor`` when it runs, not as it is imported: TLS to aggregate
small writes, ``task.cooperate``, ``protocols.portforward``, ``policies``. `InPlace` puts another reactor there, and a
cooperator of its own for it, and puts back what was there before.
"""

from __future__ import annotations

import sys
from typing import Any

import twisted.internet
from twisted.internet import task

_NAME = "twisted.internet.reactor"
_internet: Any = twisted.internet


class InPlace:
    """A context in which *reactor* is ``twisted.internet.reactor``; contexts may be nested.

    Where none was installed before, none is afterwards.
    """

    __slots__ = ("_before", "_cooperators", "_reactor")

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._cooperators: dict[Any, task.Cooperator] = {}
        self._before: tuple[Any, Any, Any] = (None, None, None)

    def __enter__(self) -> Any:
        self._before = (sys.modules.get(_NAME), vars(_internet).get("reactor"), task._theCooperator)
        self.show(self._reactor)
        return self._reactor

    def show(self, reactor: Any) -> None:
        """Let *reactor* be the global one from now on, within the context."""
        cooperator = self._cooperators.get(reactor)
        if cooperator is None:
            cooperator = self._cooperators[reactor] = task.Cooperator(scheduler=lambda call: reactor.callLater(0, call))
        sys.modules[_NAME] = _internet.reactor = reactor
        task._theCooperator = cooperator

    def __exit__(self, *failure: object) -> None:
        module, attribute, task._theCooperator = self._before
        if module is None:
            del sys.modules[_NAME]
        else:
            sys.modules[_NAME] = module
        if attribute is None:
            del _internet.reactor
        else:
            _internet.reactor = attribute
