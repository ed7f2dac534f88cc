"""
Which of several: who is to serve the next connection.

A :class:`Balance` is asked with those that may be chosen *now*: the caller has left out who is down, who was tried
already, who is only a reserve. So the candidates change from call to call, and a rule has to be fair all the same. What
it knows of a :class:`Candidate` is a name, a weight and how many it serves.

**Round-robin** is nginx's "smooth" manner (``ngx_http_upstream_round_robin.c``). Each candidate has a credit. At every
pick it gains its weight; who then has most is picked, and pays the sum of all weights. What holds while the candidates
stay the same, whose weights add up to *W*:

- in any *W* picks in a row each is picked exactly ``weight`` times: for weights 5, 1 and 1 it is ``a a b a c a a`` and
  not ``a a a a a b c``;
- nobody is ever a whole pick ahead of its share. (The sum of all credits stays the same, so the most is at least the
  average, and whoever pays *W* keeps more than the average less *W*.)

They do not stay the same, and here we differ from nginx. Who goes takes its credit along, most often a debt, since a
target is dropped because it failed, which is just after it was picked. Without it the others' average rises, and who
comes with 0 later would have to wait until all of them have fallen to that. So a newcomer gets the average: it owes
nothing and is owed nothing. Who comes back after others came and went, or with another weight, may find itself as far
behind. Nobody ever falls *nW* behind the first of *n* candidates that stay the same, so whoever is further behind is
brought up to that, and is served again soon. Credits are kept by weak reference: a candidate that is forgotten
elsewhere is forgotten here.

**Least connections** takes the one with the least ``(load + 1) / weight``: where the new connection would find the most
room. Who is tied takes turns, in round-robin manner. While nobody serves anything all take turns: there is nothing to
compare, and by the formula the heaviest would get every single one of a sequence of short connections.

**Source hash** is weighted rendezvous hashing (D. Thaler and C. Ravishankar, "Using Name-Based Mappings to Increase Hit
Rates", 1998; with weights: J. Resch, "New Hashing Algorithms for Data Storage", 2015). From the candidate's name and
the client's key comes a number *h* between 0 and 1, and the largest ``-weight / ln(h)`` wins. These numbers are
independent of who else is there. So a client moves only when its target goes, or to a target that comes or becomes
heavier; and the choice is the same in every process, after every restart, in whatever order the targets are written.

Rejected: a cursor over a list, which serves the one behind a dead target twice and has no good answer to weights;
nginx's ``load / weight`` for least connections, by which with two connections at a time a target of weight 1 next to
one of weight 10 gets half of them; a ring with virtual nodes, which needs some hundred points a target for what
rendezvous does exactly; Python's ``hash``, which is another one in each process.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from math import log
from typing import ClassVar, Final, Protocol, TypeVar
from weakref import WeakKeyDictionary

from twisted_net.errors import OptionError


class Candidate(Protocol):
    """
    What is chosen from. Hashable, compared by identity, and open to weak references (a class with ``__slots__`` has
    ``"__weakref__"`` among them).
    """

    @property
    def name(self) -> str:
        """Unique among the candidates; what the source hash goes by."""

    @property
    def weight(self) -> int:
        """Its share; 1 or more. May change."""

    @property
    def load(self) -> int:
        """How many it serves now; 0 or more."""


C = TypeVar("C", bound=Candidate)


class Balance(ABC):
    """A rule by which one of several is picked. It has a memory: use one for each group of candidates."""

    __slots__ = ()

    #: What it is called in options, see :func:`balanceOf`.
    name: ClassVar[str]

    @abstractmethod
    def pick(self, candidates: Sequence[C], key: bytes) -> C:
        """
        Return the one of *candidates* that is next.

        :param candidates: at least one; may be others at each call.
        :param key: whom it is for, such as the client's address without its port. Only a source hash looks at it.
        """


class RoundRobin(Balance):
    """In turn, each as often as its weight says, and spread."""

    __slots__ = ("_credits",)

    name = "round-robin"

    def __init__(self) -> None:
        self._credits: WeakKeyDictionary[Candidate, int] = WeakKeyDictionary()

    def pick(self, candidates: Sequence[C], key: bytes) -> C:
        credits = self._credits
        total = sum(candidate.weight for candidate in candidates)
        known = [credits[candidate] for candidate in candidates if candidate in credits]
        average = sum(known) // len(known) if known else 0
        lowest = max(known, default=0) - len(candidates) * total
        for candidate in candidates:
            credits[candidate] = max(lowest, credits.get(candidate, average)) + candidate.weight
        chosen = max(candidates, key=credits.__getitem__)  # of equals the first
        credits[chosen] -= total
        return chosen


class LeastConnections(Balance):
    """Where there is most room: the least load for its weight. Equals take turns."""

    __slots__ = ("_turns",)

    name = "least-connections"

    def __init__(self) -> None:
        self._turns = RoundRobin()

    def pick(self, candidates: Sequence[C], key: bytes) -> C:
        if any(candidate.load for candidate in candidates):
            # Equal fractions are equal floats: the division of two integers is rounded once.
            loads = [(candidate.load + 1) / candidate.weight for candidate in candidates]
            least = min(loads)
            candidates = [candidate for candidate, load in zip(candidates, loads, strict=True) if load == least]
        return self._turns.pick(candidates, key)


class SourceHash(Balance):
    """The same for the same key, as long as it is there."""

    __slots__ = ()

    name = "source-hash"

    def pick(self, candidates: Sequence[C], key: bytes) -> C:
        # The name decides between equals, so that the order never does.
        return max(candidates, key=lambda candidate: (_score(candidate, key), candidate.name))


def _score(candidate: Candidate, key: bytes) -> float:
    # Every str has such bytes, also the name of a path that is no text. The length tells where the key begins.
    name = candidate.name.encode("utf-8", "surrogatepass")
    digest = blake2b(len(name).to_bytes(8, "big") + name + key, digest_size=8).digest()
    # The middle of one of 2**52 equal parts: a double still tells the last of them from 1.
    share = ((int.from_bytes(digest, "big") >> 12) + 0.5) / 2**52
    return -candidate.weight / log(share)


#: All rules, by their names.
BALANCES: Final[Mapping[str, type[Balance]]] = {
    balance.name: balance for balance in (RoundRobin, LeastConnections, SourceHash)
}


def balanceOf(name: str) -> Balance:
    """
    Return a new balance by its name.

    :param name: ``"round-robin"``, ``"least-connections"`` or ``"source-hash"``.
    :raises OptionError: when it is none of these.
    """
    balance = BALANCES.get(name)
    if balance is None:
        raise OptionError(f"balance is {name!r}; it must be one of {', '.join(BALANCES)}")
    return balance()
