"""
Descriptors that are nobody's transport: ports, datagrams, pipes, terminals, sockets that are connecting.

They are watched by an epoll of our own (a kqueue elsewhere), which uvloop watches in turn: one descriptor is readable
in another when anything is ready in it (epoll(7)). Watching each of them by the loop's ``add_reader`` would do for
most, but not for all. libuv's uv_poll takes an error on a descriptor, such as ICMP's "port unreachable" on a UDP
socket, for its end, and never looks at it again; it sets O_NONBLOCK, which standard input shares with the shell that
we were started from; and a descriptor that was closed behind its back makes it call abort(3).
"""

from __future__ import annotations

import selectors
from collections.abc import Callable
from typing import Any, Final

__all__ = ["Watcher"]

READ: Final = selectors.EVENT_READ
WRITE: Final = selectors.EVENT_WRITE


class Watcher:
    """
    Looks for what is readable and writable.

    :param loop: uvloop's.
    :param serve: called with a reader or writer, and whether it is to read.
    """

    def __init__(self, loop: Any, serve: Callable[[Any, bool], object]) -> None:
        self._serve = serve
        self._selector = selectors.DefaultSelector()
        #: Readers and writers, with their descriptors: ``fileno`` may be forgotten by the time they are removed.
        self.watched: dict[int, dict[Any, int]] = {READ: {}, WRITE: {}}
        loop.add_reader(self._selector.fileno(), self._look)

    def watch(self, one: Any, event: int) -> None:
        """
        Have ``one`` served whenever ``event`` has happened.

        :raises PermissionError: the kind of file cannot be watched: it is always ready (epoll_ctl(2)).
        """
        if one in self.watched[event]:
            return
        descriptor = one.fileno()
        known = self._selector.get_map().get(descriptor)
        others: dict[int, Any] = {}
        if known is not None:
            # It may be of a descriptor that was closed meanwhile, without a word to us, and the number given out again.
            others = {kind: other for kind, other in known.data.items() if other.fileno() == descriptor}
            self._selector.unregister(descriptor)
        self._selector.register(descriptor, event | sum(others), {**others, event: one})
        self.watched[event][one] = descriptor

    def forget(self, one: Any, event: int) -> None:
        """Watch it no more; harmless when it is not watched."""
        descriptor = self.watched[event].pop(one, -1)
        if descriptor == -1:
            return
        key = self._selector.get_map().get(descriptor)
        if key is None or key.data.get(event) is not one:
            return
        rest = {other: kept for other, kept in key.data.items() if other != event}
        if rest:
            self._selector.modify(descriptor, key.events & ~event, rest)
        else:
            self._selector.unregister(descriptor)

    def _look(self) -> None:
        for key, happened in self._selector.select(0):
            for event in (READ, WRITE):
                one = key.data.get(event) if happened & event else None
                if one is not None and one in self.watched[event]:
                    self._serve(one, event == READ)
