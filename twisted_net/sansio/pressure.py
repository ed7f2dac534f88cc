"""
Named pauses: who wants a flow of bytes to stand still, and why.

A connection may have to be silent for several reasons at once: its user asked for it, its rate is used up, nobody
reads, the peer it is forwarded to is slow. Each reason is an *owner* with a name of its own (``"user"``, ``"rate"``,
``"reader"``, ``"peer"``), and the flow runs exactly while no owner holds it.

It is a set and not a counter: ``pause(); pause(); resume()`` of one owner must flow again, as it does in Node, and no
owner can let a flow go that another one holds. And because owners have names, a status page can say why a connection
stands still.

Owners are few and most connections have none, so the set is kept as a sorted tuple: the empty one is shared by all
connections, and one owner costs one small allocation.
"""

from __future__ import annotations

from collections.abc import Callable


class Pressure:
    """
    The owners of one flow's pause.

    :param stop: called when the first owner pauses. The flow stands still from then on.
    :param go: called when the last owner resumes.

    Both are called after the books are right, so they may call :meth:`pause` and :meth:`resume` themselves (bytes that
    ``go`` delivers often do), and what they raise reaches the caller without harm to the books.
    """

    __slots__ = ("_go", "_owners", "_stop")

    def __init__(self, stop: Callable[[], object], go: Callable[[], object]) -> None:
        self._stop = stop
        self._go = go
        self._owners: tuple[str, ...] = ()

    def pause(self, owner: str) -> bool:
        """
        Hold the flow in the name of ``owner``; once is enough.

        :returns: whether this stopped the flow (``stop`` was called). False: it stood still already.
        """
        owners = self._owners
        if owners:
            if owner not in owners:
                self._owners = tuple(sorted((*owners, owner)))
            return False
        self._owners = (owner,)
        self._stop()
        return True

    def resume(self, owner: str) -> bool:
        """
        Let go of the flow in the name of ``owner``; one that does not hold it changes nothing.

        :returns: whether this let the flow go (``go`` was called, which may have led to a new pause since). False: it
            was not held by ``owner``, or is held by others still.
        """
        owners = self._owners
        if owner not in owners:
            return False
        if len(owners) > 1:
            self._owners = tuple([name for name in owners if name != owner])
            return False
        self._owners = ()
        self._go()
        return True

    @property
    def paused(self) -> bool:
        """Whether anybody holds the flow."""
        return bool(self._owners)

    @property
    def owners(self) -> tuple[str, ...]:
        """Who holds the flow, sorted by name."""
        return self._owners
