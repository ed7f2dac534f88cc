"""
Numbers that are counted under fixed names: bytes, connections, errors.

The names are fixed so that a misspelt one is an error where it is written, and not a second counter that nobody reads.
A rate is the difference of two snapshots over the time between them; that is why nothing here knows of time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NoReturn

from twisted_net.errors import OptionError


class Counters(Mapping[str, int]):
    """
    A mapping from each name to its count, 0 at first; it changes by :meth:`add` alone.

    :param names: the names there are, in the order in which they are shown.
    :raises OptionError: when a name is given twice.
    """

    __slots__ = ("_counts",)

    def __init__(self, *names: str) -> None:
        self._counts = dict.fromkeys(names, 0)
        if len(self._counts) < len(names):
            raise OptionError(f"the names {names!r} hold one twice; each counter needs a name of its own")

    def add(self, name: str, amount: int = 1) -> None:
        """
        Count ``amount`` more. A negative one is for what rises and falls, such as open connections.

        :raises KeyError: when there is no counter of that name.
        """
        try:
            self._counts[name] += amount
        except KeyError:
            self._unknown(name)

    def snapshot(self) -> dict[str, int]:
        """What was counted until now, in the order of the names; a copy."""
        return self._counts.copy()

    def difference(self, earlier: Mapping[str, int]) -> dict[str, int]:
        """
        What was counted since an ``earlier`` snapshot, in the order of the names. A name it lacks counts from 0.

        :raises KeyError: when the snapshot has a name that there is no counter of.
        """
        for name in earlier:
            if name not in self._counts:
                self._unknown(name)
        return {name: count - earlier.get(name, 0) for name, count in self._counts.items()}

    def __getitem__(self, name: str) -> int:
        try:
            return self._counts[name]
        except KeyError:
            self._unknown(name)

    def __contains__(self, name: object) -> bool:
        return name in self._counts

    def __iter__(self) -> Iterator[str]:
        return iter(self._counts)

    def __len__(self) -> int:
        return len(self._counts)

    def __repr__(self) -> str:
        counted = ", ".join(f"{name}={count}" for name, count in self._counts.items())
        return f"<Counters {counted}>"

    def _unknown(self, name: object) -> NoReturn:
        raise KeyError(f"there is no counter {name!r}; there are {', '.join(self._counts) or 'none'}") from None
