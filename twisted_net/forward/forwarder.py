"""
Forwarder: listens, and joins who comes with a target.

What stands here holds the others together: the engine's factory admits clients and counts them, a
:class:`~twisted_net.forward.session.Session` takes each to a target of the pool, and
:class:`~twisted_net.forward.flows.Flows` does the same for datagrams. There is one of each, for all places that one
forwarder listens on; so its limits, its balance and its counts are those of the service and not of a place.

What one connection may hold, at most: the engine's objects; one segment that its target does not take yet (as much as
one read gives: 64 KiB, or 256,000 bytes on uvloop) and one that the client does not; for each direction that the kernel
carries, a pipe of 1 MiB of its memory; under faults, what is under way (4 MiB in each direction). Everything else waits
in the kernel's socket buffers, where the peers' windows close on it.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, Literal

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IDelayedCall, IStreamServerEndpoint
from twisted.logger import Logger

from twisted_net.address import EndpointTarget, UdpTarget, parseTarget
from twisted_net.address import Target as Place
from twisted_net.errors import AbortedError, ClosedError, NetError, OptionError, ResetError
from twisted_net.forward.checks import Check, Checks
from twisted_net.forward.faulty import chanceOf, faultyWay
from twisted_net.forward.flows import Flows
from twisted_net.forward.hooks import Direction, Hook, Observed
from twisted_net.forward.session import Ended, Session
from twisted_net.forward.targets import Pool, State, Target, Where
from twisted_net.sansio.balance import balanceOf
from twisted_net.sansio.counters import Counters
from twisted_net.sansio.faults import Faults, Refusals
from twisted_net.sansio.health import Health
from twisted_net.wire import datagram
from twisted_net.wire.casting import DatagramOptions
from twisted_net.wire.clocks import limitOf
from twisted_net.wire.datagram import DatagramPort
from twisted_net.wire.dial import clientEndpoint
from twisted_net.wire.factory import SocketFactory
from twisted_net.wire.limits import Limits
from twisted_net.wire.listen import BACKLOG, ListeningPort, listen
from twisted_net.wire.outlet import Batch
from twisted_net.wire.protocol import SocketProtocol
from twisted_net.wire.relay import Carrier, Straight, Way
from twisted_net.wire.splice import Splices

__all__ = ["HALF_OPEN", "NO_FAULTS", "Forwarder"]

HALF_OPEN: Final = 3600.0
"""Seconds without a byte for which a forwarded connection may stay half-open unless said otherwise: long for any
answer, and short for a leak."""

DEFAULT_LIMITS: Final = Limits(halfOpenTimeout=HALF_OPEN)

NO_FAULTS: Final = Faults()

_MOST_SEED: Final = 2**32


class Forwarder:
    """
    A forwarder and load balancer for TCP, UNIX sockets and UDP.

    ``await forwarder.listen("127.0.0.1:8080")`` begins; it listens on as many places as you like. Who comes by TCP or
    by a UNIX socket is taken to a target of those two kinds, a datagram to one of UDP.

    :param targets: whom to forward to: texts such as ``"10.0.0.1:80"``, ``"/run/x.sock;weight=3"``, ``"udp:[::1]:53"``,
        addresses, or :class:`~twisted_net.forward.Target` s.
    :param backups: more of them, used only while none of the others is up.
    :param balance: ``"round-robin"``, ``"least-connections"``, or ``"source-hash"``, by which a client (its IPv4
        address, its IPv6 /64 network, its user) keeps its target as long as that is up.
    :param retries: how many other targets a client is offered when one refuses or does not answer.
    :param timeoutConnect: seconds for each attempt to connect to a target; None leaves it to the system.
    :param limits: of clients: who may enter, how fast, for how long (seconds). By default only half-open connections
        are limited, to an hour without a byte.
    :param onFailure: how a client learns that nobody serves it: ``"reset"`` (RST), or ``"close"`` (FIN).
    :param maxFails: failed connections within `failTimeout` that suspend a target for `failTimeout`; None: never.
    :param failTimeout: seconds.
    :param check: how targets are checked besides, by connecting; None: not at all.
    :param shutdownSessions: abort the sessions of a target that its checks take down.
    :param hook: called with each session, returns what hears of it.
    :param faultsUpstream: what becomes of bytes on their way to targets: a bad network, for tests.
    :param faultsDownstream: what becomes of bytes on their way to clients.
    :param seed: where the faults' chance comes from, a whole number: the same one gives the same faults. None takes
        one, which `seed` tells.
    :param splice: have the kernel carry busy directions by itself (Linux).
    :param journal: called with an :class:`~twisted_net.forward.Ended` for each session and flow that is over.
    :param changed: called with a target whose state has changed, and the state.
    :param timeoutFlow: seconds without a datagram after which a client's flow is over.
    :param responses: answers that each of a client's datagrams has; when all have come the flow is over, too. 0 awaits
        none; None any number.
    :param limitFlows: flows at once. When there are as many, the one that was silent longest gives way to a new one,
        if it was for a second; otherwise the new client's datagram is dropped.
    :param reactor: a Twisted reactor; None takes the one that is installed.
    :raises AddressError: a target is none.
    :raises OptionError: any other value cannot be used.
    """

    _log = Logger()

    def __init__(
        self,
        targets: Sequence[Where | str | Target],
        *,
        backups: Sequence[Where | str | Target] = (),
        balance: str = "round-robin",
        retries: int = 3,
        timeoutConnect: float | None = 5.0,
        limits: Limits = DEFAULT_LIMITS,
        onFailure: Literal["reset", "close"] = "reset",
        maxFails: int | None = 3,
        failTimeout: float = 10.0,
        check: Check | None = None,
        shutdownSessions: bool = False,
        hook: Callable[[Session], Hook] | None = None,
        faultsUpstream: Faults = NO_FAULTS,
        faultsDownstream: Faults = NO_FAULTS,
        seed: int | None = None,
        splice: bool = True,
        journal: Callable[[Ended], object] | None = None,
        changed: Callable[[Target, State], object] | None = None,
        timeoutFlow: float = 30.0,
        responses: int | None = None,
        limitFlows: int = 4096,
        reactor: Any = None,
    ) -> None:
        if reactor is None:
            from twisted.internet import reactor
        if onFailure not in ("reset", "close"):
            raise OptionError(f'onFailure is {onFailure!r}; it must be "reset" or "close"')
        if isinstance(retries, bool) or not isinstance(retries, int) or retries < 0:
            raise OptionError(f"retries is {retries!r}; it must be a whole number, 0 or more")
        if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int)):
            raise OptionError(f"seed is {seed!r}; it must be a whole number, or None for any")
        self.reactor: Any = reactor
        self.retries = retries
        self.timeoutConnect = limitOf("timeoutConnect", timeoutConnect)
        self.onFailure: Literal["reset", "close"] = onFailure
        #: What the faults' chance comes from: give it to another forwarder, and it does the same.
        self.seed: int = secrets.randbelow(_MOST_SEED) if seed is None else seed
        #: Directions that the kernel carries; None when it is not asked to.
        self.splices = Splices() if splice else None
        #: What leaves at the end of a turn, where the reactor (`ITurningReactor`) has one.
        self.batch = Batch(reactor.soon) if hasattr(reactor, "soon") else None
        #: Called with an `Ended` for each session and flow that is over; may be set later.
        self.journal = journal
        self._hook = hook
        self._faults: dict[Direction, Faults] = {"upstream": faultsUpstream, "downstream": faultsDownstream}
        self._refusals = [
            Refusals(faults, chanceOf(self.seed, -1, direction)) for direction, faults in self._faults.items()
        ]
        self._shutdownSessions = shutdownSessions
        self._changed = changed
        self._sessions: dict[Session, None] = {}
        self._number = 0
        self._totals = Counters("sessions", "failed", "bytesIn", "bytesOut")
        self._ports: list[Any] = []
        self._drained: list[Deferred[None]] = []
        self._late: IDelayedCall | None = None
        self._started = False
        self._closed = False

        everybody = [_asTarget(one, False) for one in targets] + [_asTarget(one, True) for one in backups]
        for one in everybody:
            if isinstance(one.where, EndpointTarget):
                clientEndpoint(reactor, one.where)  # a mistake of now, and not of every connection later
        if not everybody:
            raise OptionError("there is no target; give one, such as 127.0.0.1:80")
        rise, fall = (2, 3) if check is None else (check.rise, check.fall)
        makeHealth = partial(Health, maxFails=maxFails, failTimeout=failTimeout, rise=rise, fall=fall)
        pools = [
            Pool(
                [one for one in everybody if one.isDatagram is isDatagram],
                balanceOf(balance),
                reactor.seconds,
                makeHealth,
                self._targetChanged,
            )
            for isDatagram in (False, True)
        ]
        #: Whom streams are forwarded to.
        self.pool = pools[0]
        #: All targets, in the order in which they were given.
        self.targets: tuple[Target, ...] = tuple(everybody)
        self._checks = None if check is None else Checks(self.pool, check, reactor)
        #: The engine's factory: admission, the table of clients, counters.
        self.factory = SocketFactory(self._welcome, reactor, limits=limits)
        #: The flows of datagrams.
        self.flows = Flows(
            pools[1],
            reactor,
            timeout=timeoutFlow,
            responses=responses,
            limit=limitFlows,
            faults=self._faults,
            seed=self.seed,
            over=self._flowOver,
        )

    def __repr__(self) -> str:
        return f"<Forwarder to {', '.join(target.name for target in self.targets)}>"

    # -- listening

    def listen(
        self, where: str | Place | IStreamServerEndpoint | int, *, backlog: int = BACKLOG
    ) -> Deferred[ListeningPort | DatagramPort]:
        """
        Listen on one more place.

        :param where: as :func:`twisted_net.streams.listen`; ``"udp:host:port"`` receives datagrams.
        :param backlog: connections that the kernel keeps until they are accepted.
        :returns: fires with the port; its ``getHost()`` (a datagram port's ``address``) tells where it is.
        :raises OptionError: no target is of its kind.
        :raises ClosedError: the forwarder is closed.
        """
        if self._closed:
            raise ClosedError("listen: this forwarder is closed; make another one")
        if isinstance(where, str):
            where = parseTarget(where)
        self.checkPlace(where)
        if isinstance(where, UdpTarget):
            binding = Deferred.fromCoroutine(datagram.bind(self.reactor, where, DatagramOptions()))
            return binding.addCallback(self._receives)
        return Deferred.fromCoroutine(self._accept(where, backlog))

    def checkPlace(self, where: object) -> None:
        """
        See to it that who comes to *where* can be forwarded.

        :raises OptionError: no target is of its kind.
        """
        isDatagram = isinstance(where, UdpTarget)
        if not any(target.isDatagram is isDatagram for target in self.targets):
            kind, example = ("UDP", "udp:127.0.0.1:53") if isDatagram else ("TCP or UNIX", "127.0.0.1:80")
            raise OptionError(f"no target takes what comes to {where}; name a {kind} target, such as {example}")

    async def _accept(self, where: Place | IStreamServerEndpoint | int, backlog: int) -> ListeningPort:
        port = await listen(self.reactor, self.factory, where, backlog=backlog)
        if self._closed:
            await port.stopListening()
            raise ClosedError("listen: this forwarder was closed meanwhile; make another one")
        self._ports.append(port)
        self.factory.adopt(port)
        self.start()
        return port

    def _receives(self, port: DatagramPort) -> DatagramPort:
        self.receive(port)
        self.start()
        return port

    def receive(self, port: DatagramPort) -> None:
        """Forward what comes to *port*, which is bound and has not begun; it is closed with the forwarder."""
        self.flows.serve(port)

    def start(self) -> None:
        """Begin to check targets, and say which faults there are. `listen` does it; harmless when it was done."""
        if self._started:
            return
        self._started = True
        if self._checks is not None:
            self._checks.start()
        if any(self._faults.values()):
            facts: dict[str, Any] = {"event": "faults", "seed": self.seed}
            facts.update({name: str(one) for name, one in self._faults.items()})
            self._log.info(
                "faults upstream: {net[upstream]!r}, downstream: {net[downstream]!r}; the seed that repeats them is "
                "{net[seed]}",
                net=facts,
            )

    # -- sessions

    def _welcome(self, protocol: SocketProtocol) -> Session:
        session = Session(self, protocol, self._number, self._hook)
        self._number += 1
        self._sessions[session] = None
        return session

    @property
    def sessions(self) -> tuple[Session, ...]:
        """Those that are not over."""
        return tuple(self._sessions)

    # Plan, as sessions know it

    def refuses(self) -> NetError | None:
        """Whether a fault refuses the next client."""
        refused = [refusals.next() for refusals in self._refusals]  # each counts each attempt
        if any(refused):
            return ResetError("refused by a fault that was asked for (refuse)")
        return None

    def ways(self, session: Session) -> tuple[Way | None, Way | None]:
        """Carriers of their own for directions with faults, or with a hook."""
        return self._way(session, "upstream"), self._way(session, "downstream")

    def _way(self, session: Session, direction: Direction) -> Way | None:
        faults = self._faults[direction]
        way: Way | None = None
        if faults:
            way = faultyWay(faults, chanceOf(self.seed, session.number, direction))
        hook = session.hook
        if hook is None or not hook.seesData:
            return way
        make, show = way or Straight, partial(session.tell, "data", hook.data, direction)

        def observed(source: SocketProtocol, sink: SocketProtocol) -> Carrier:
            return Observed(make(source, sink), show)

        return observed

    def over(self, session: Session, ended: Ended) -> None:
        """A session is over; told by it."""
        del self._sessions[session]
        self._totals.add("sessions" if ended.target is not None else "failed")
        self._totals.add("bytesIn", ended.bytesIn)
        self._totals.add("bytesOut", ended.bytesOut)
        self._record(ended)
        self._settle()

    def _flowOver(self, ended: Ended) -> None:
        self._totals.add("bytesIn", ended.bytesIn)
        self._totals.add("bytesOut", ended.bytesOut)
        self._record(ended)

    def _record(self, ended: Ended) -> None:
        if self.journal is not None:
            try:
                self.journal(ended)
            except Exception:
                self._log.failure("the journal of sessions raised")

    def _targetChanged(self, target: Target, state: State) -> None:
        if state == "down" and self._shutdownSessions:
            # Who is still on the way to it will be offered another one.
            for session in [one for one in target.sessions if one.isConnected]:
                session.abort(AbortedError(f"the target {target.name} is down by its checks", fault="peer"))
        if self._changed is not None:
            try:
                self._changed(target, state)
            except Exception:
                self._log.failure("who is told of targets' states raised")

    # -- seeing

    def snapshot(self) -> dict[str, Any]:
        """
        Everything that is counted, for a status page.

        ``accepted``, ``refused``, ``waited``, ``left``, ``exhausted``: of clients, by the engine's factory;
        ``sessions``: living ones; ``served`` and ``failed``: those that are over, with and without a target;
        ``bytesIn``, ``bytesOut``: from and to clients, living ones included; ``splicing`` and ``spliced``: directions
        that the kernel carries now, and how often one went over to it; ``flows``: see
        :meth:`~twisted_net.forward.flows.Flows.snapshot`; ``limits``: how often each was met; ``targets``: a mapping
        for each (:meth:`~twisted_net.forward.Target.snapshot`).
        """
        factory = self.factory.counters
        living = self._sessions
        return {
            **{name: factory[name] for name in ("accepted", "refused", "waited", "left", "exhausted")},
            "sessions": len(living),
            "served": self._totals["sessions"],
            "failed": self._totals["failed"],
            "bytesIn": self._totals["bytesIn"] + self.flows.bytesIn + sum(one.bytesIn for one in living),
            "bytesOut": self._totals["bytesOut"] + self.flows.bytesOut + sum(one.bytesOut for one in living),
            "splicing": 0 if self.splices is None else self.splices.living,
            "spliced": 0 if self.splices is None else self.splices.total,
            "flows": self.flows.snapshot(),
            "limits": self.factory.limited.snapshot(),
            "targets": [target.snapshot() for target in self.targets],
        }

    # -- the end

    def finish(self, grace: float | None = None) -> Deferred[None]:
        """
        Stop checking, admit nobody any more, and wait for the sessions and flows that there are; ports for connections
        are somebody else's business.

        :param grace: seconds, after which those that are left are aborted; None waits for ever. When it is called
            again, the earliest end of a grace counts.
        :returns: fires when none is left, and the ports for datagrams are closed.
        """
        self._closed = True
        if self._checks is not None:
            self._checks.stop()
        self.factory.stop()
        done: Deferred[None] = Deferred()
        self._drained.append(done)
        if grace is not None:
            self._abortIn(grace)
        self.flows.drain().addCallback(lambda none: self._settle())
        return done

    def _abortIn(self, grace: float) -> None:
        late = self._late
        if late is not None:
            if late.getTime() <= self.reactor.seconds() + grace:
                return
            late.cancel()
        self._late = self.reactor.callLater(grace, self._abortAll)

    def close(self, grace: float | None = 0.0) -> Deferred[None]:
        """
        Accept nobody any more, and end.

        :param grace: seconds that sessions have to finish, then they are aborted; None waits for them for ever.
        :returns: fires when everything is over, and every port is closed.
        """
        ports, self._ports = self._ports, []
        waiting: list[Deferred[Any]] = [self.finish(grace)]
        for port in ports:
            self.factory.disown(port)
            waiting.append(port.stopListening())
        return gatherResults(waiting).addCallback(lambda results: None)

    def _abortAll(self) -> None:
        self._late = None
        self.flows.close()
        for session in self.sessions:
            session.abort(AbortedError("the forwarder is shutting down and its grace time is over", fault="user"))

    def _settle(self) -> None:
        """If nothing is left, say so to whoever waits for that."""
        if self._sessions or not self.flows.isClosed:
            return
        late, self._late = self._late, None
        if late is not None:
            late.cancel()
        waiting, self._drained = self._drained, []
        for done in waiting:
            done.callback(None)


def _asTarget(one: Where | str | Target, backup: bool) -> Target:
    if isinstance(one, Target):
        if backup:
            one.backup = True
        return one
    return Target(one, backup=backup)
