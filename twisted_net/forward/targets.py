"""
Whom to forward to: the targets, which of them are up, and which one is next.

A `Pool` has two tiers. Backups are chosen from only while no other target is up. Within a tier a balance chooses
(:mod:`~twisted_net.sansio.balance`), from those that are up (:mod:`~twisted_net.sansio.health`) and were not tried for
this client already. A target is out for one of two reasons, and they do not mix: it failed its *checks*, which is
knowledge; or it is *suspended*, since connections to it have failed, which is a guess. When nobody is left, those that
are merely suspended are tried all the same: a guess must not turn away a client that nobody else would serve.

Streams and datagrams never share a target: a pool has one of the two kinds.

What changes is told once, when it changes: to the log, and to whoever gave `Pool` a callable.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, Final, Literal, TypeAlias

from twisted.logger import Logger

from twisted_net.address import EndpointTarget, TcpTarget, UdpTarget, UnixTarget, parseTarget
from twisted_net.errors import AddressError, NetError, OptionError
from twisted_net.sansio.balance import Balance
from twisted_net.sansio.counters import Counters
from twisted_net.sansio.health import Health

__all__ = ["Pool", "State", "Target", "Where", "readTarget"]

Where: TypeAlias = TcpTarget | UnixTarget | EndpointTarget | UdpTarget
"""Where a target is."""

State: TypeAlias = Literal["up", "suspended", "down"]
"""Whether a target is chosen: ``"suspended"`` after connections to it have failed, ``"down"`` when checks have."""

#: A weight is a small number; a larger one is a mistake, and would make a round of the balance a long one.
HEAVIEST: Final = 1000

_COUNTED: Final = ("sessions", "failures", "bytesTo", "bytesFrom")


def readTarget(text: str) -> tuple[Where, int]:
    """
    Return where a target is, and its weight: ``"127.0.0.1:80"``, ``"/run/x.sock;weight=3"``, ``"udp:[::1]:53"``.

    :raises AddressError: the address is none that can be forwarded to.
    :raises OptionError: what follows the ``;`` is no weight.
    """
    place, semicolon, rest = text.partition(";")
    weight = 1
    if semicolon:
        name, _, value = (part.strip() for part in rest.partition("="))
        if name != "weight" or not (value.isascii() and value.isdigit() and 1 <= len(value) <= 4):
            raise OptionError(
                f"{text!r}: {rest!r} is no weight; write ADDRESS;weight=3, with a whole number, 1 to {HEAVIEST}"
            )
        weight = int(value)
    where = parseTarget(place.strip())
    if isinstance(where, TcpTarget | UdpTarget) and where.port == 0:
        raise AddressError(f"{text!r} has port 0, which nobody can connect to; name the target's port", address=where)
    return where, _checkWeight(weight)


def _checkWeight(weight: object) -> int:
    if isinstance(weight, bool) or not isinstance(weight, int) or not 1 <= weight <= HEAVIEST:
        raise OptionError(f"weight is {weight!r}; it must be a whole number, 1 to {HEAVIEST}")
    return weight


class Target:
    """
    One target, and what is known of it.

    :param where: its address; or a text, as :func:`readTarget` takes it.
    :param weight: how much more of the clients it gets than one of weight 1; overrides the text's.
    :param backup: it is used only while no other target is up.
    :raises AddressError: it is no address.
    :raises OptionError: the weight is out of range, or the address of a socket's file has a mode.
    """

    def __init__(self, where: Where | str, *, weight: int | None = None, backup: bool = False) -> None:
        written = 1
        if isinstance(where, str):
            where, written = readTarget(where)
        if not isinstance(where, TcpTarget | UnixTarget | EndpointTarget | UdpTarget):
            raise AddressError(
                f'{where!r} is no target; give a text such as "127.0.0.1:80" or "/run/x.sock;weight=3"', address=where
            )
        if isinstance(where, UnixTarget) and where.mode is not None:
            raise OptionError(f"the target {where} has a mode, which only who listens can set; leave it out")
        #: Its address.
        self.where: Where = where
        #: What it is called in logs and counts: its address.
        self.name = str(where)
        #: How much it gets.
        self.weight = written if weight is None else _checkWeight(weight)
        #: Whether it is used only while no other is up.
        self.backup = backup
        #: The sessions (for datagrams: flows) that it serves now.
        self.sessions: set[Any] = set()
        #: ``sessions``: connections that came about; ``failures``: those that did not; ``bytesTo`` and ``bytesFrom``
        #: the target, added as sessions end.
        self.counters = Counters(*_COUNTED)
        self._health = Health()
        self._now: Callable[[], float] = lambda: 0.0

    def watchedBy(self, health: Health, now: Callable[[], float]) -> None:
        """From now on *health* knows whether it is up, by the clock *now*."""
        self._health = health
        self._now = now

    def __repr__(self) -> str:
        return f"<Target {self.name}{';weight=' + str(self.weight) if self.weight != 1 else ''} {self.state}>"

    @property
    def isDatagram(self) -> bool:
        """Whether it takes datagrams."""
        return isinstance(self.where, UdpTarget)

    @property
    def load(self) -> int:
        """How many sessions or flows it serves now."""
        return len(self.sessions)

    @property
    def health(self) -> Health:
        """What is known of it."""
        return self._health

    @property
    def isUp(self) -> bool:
        """Whether it is chosen."""
        return self._health.isUp(self._now())

    @property
    def state(self) -> State:
        """Whether it is chosen, and if not, why."""
        if not self._health.passesChecks:
            return "down"
        return "suspended" if self._health.suspended(self._now()) else "up"

    def snapshot(self) -> dict[str, Any]:
        """Everything that is counted of it, its state, and its sessions: for a status page."""
        counted = self.counters.snapshot()
        counted["bytesTo"] += sum(session.bytesIn for session in self.sessions)
        counted["bytesFrom"] += sum(session.bytesOut for session in self.sessions)
        return {
            "target": self.name,
            "weight": self.weight,
            "backup": self.backup,
            "state": self.state,
            "load": self.load,
            **counted,
        }


class Pool:
    """
    Some targets, all for streams or all for datagrams.

    :param targets: in the order in which they were given.
    :param balance: chooses among those that are up.
    :param now: the clock.
    :param health: makes what knows whether a target is up.
    :param changed: called with a target whose state has changed, and with its new state; or None.
    """

    _log = Logger()

    def __init__(
        self,
        targets: Sequence[Target],
        balance: Balance,
        now: Callable[[], float],
        health: Callable[[], Health] = Health,
        changed: Callable[[Target, State], object] | None = None,
    ) -> None:
        names = [target.name for target in targets]
        for target in targets:
            if names.count(target.name) > 1:
                raise OptionError(f"the target {target.name} is given twice; leave one out, or give it a weight")
        self.targets = tuple(targets)
        self._tiers = (
            [target for target in targets if not target.backup],
            [target for target in targets if target.backup],
        )
        self._balance = balance
        self._now = now
        self._changed = changed
        self._told: dict[Target, State] = dict.fromkeys(targets, "up")
        for target in targets:
            target.watchedBy(health(), now)

    def pick(self, key: bytes, tried: Collection[Target] = ()) -> Target | None:
        """
        Return the target for the next client.

        :param key: who the client is, for a balance that wants to know.
        :param tried: targets that this client was refused by; they are left out.
        :returns: None when nobody is left.
        """
        now = self._now()
        for tier in self._tiers:
            up = [target for target in tier if target.health.isUp(now) and target not in tried]
            if up:
                return up[0] if len(up) == 1 else self._balance.pick(up, key)
        for tier in self._tiers:
            perhaps = [target for target in tier if target.health.passesChecks and target not in tried]
            if perhaps:
                return self._balance.pick(perhaps, key)
        return None

    def entered(self, target: Target, session: object) -> None:
        """*session* is on its way to *target*, or served by it: it counts as load."""
        target.sessions.add(session)

    def left(self, target: Target, session: object) -> None:
        """It no longer is. Harmless when it was not."""
        target.sessions.discard(session)

    def succeeded(self, target: Target) -> None:
        """A connection has come about."""
        target.counters.add("sessions")
        target.health.succeeded(self._now())
        self._tell(target)

    def failed(self, target: Target, error: NetError) -> None:
        """One has not."""
        target.counters.add("failures")
        target.health.failed(self._now())
        self._tell(target, error)

    def checked(self, target: Target, error: NetError | None) -> None:
        """An active check has come to its end; with None in good order."""
        target.health.checked(error is None, self._now())
        self._tell(target, error)

    def _tell(self, target: Target, error: NetError | None = None) -> None:
        state = target.state
        before, self._told[target] = self._told[target], state
        if state == before:
            return
        told = None if error is None or state == "up" else error.strerror
        facts = {"event": "target", "target": target.name, "state": state, "error": told}
        why = "" if told is None else f": {told}"
        if state == "up":
            self._log.info("target {net[target]} is up", net=facts)
        else:
            self._log.warn("target {net[target]} is {net[state]}{why}", why=why, net=facts)
        if self._changed is not None:
            self._changed(target, state)
