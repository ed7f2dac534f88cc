"""
Datagrams, forwarded: one flow for each client, with a socket of its own towards its target.

Nothing says where a conversation of datagrams begins or ends, so a *flow* is made up for it. It begins with a datagram
from a place (on a listening port) that has none, and ends like this::

    (none) --- a datagram, a target picked ---> opening ---> living ---> over
                  |                                |            silent     nothing came or went for `timeout` seconds
                  +-- no room, no target up -------+            complete   the target has sent all that was awaited
                             turned away                        failed     the target's port is closed, says ICMP
                                                                gone       the client's port is closed, says ICMP
                                                                gaveWay    it was silent, and a new client came
                                                                closed     the listening port, or the forwarder

Its socket is connected to the target. So what comes there is the target's answer and nobody else's, the kernel finds
the client for us, and ICMP's answers to this client's datagrams reach this client's flow.

*A table that is full* must not be a way to shut everybody out: whoever can forge senders fills any table. So the flow
that was silent longest gives way, if it was for a second (`QUIET`). While all of them are busy the newcomer is turned
away instead, or everybody would lose his flow before the answer comes. The same is done when descriptors run out, and
a few of them are left to the rest of the process (`RESERVE`).

*Silence* costs a datagram one assignment and one move to the end of an ordered dict. The flows stand in the order of
their last datagrams, so there is one timer, for the first of them.

*ICMP.* A closed port is the only end that UDP can tell, and both are passed on as far as a program can:

- Of a target: it has failed, as one that refuses a connection, and the flow is over; the client's next datagram begins
  another one, perhaps to another target. The client itself is told nothing: a UDP socket cannot send ICMP. (The kernel
  may tell of it when the next datagram is sent, and then does not send that one. It goes to another target at once.)
- Of a client, where the system tells (`DatagramPort.tellRefused`): its flow is over and the socket towards the target
  closed. So the kernel answers the target's next datagram with port unreachable, as the client's would without us.

*Responses.* ``responses`` is nginx's ``proxy_responses``: how many datagrams the target answers to each one of the
client's. When as many have come as that makes for all that the client has sent, the flow is over. Counting per datagram
and not per flow is what a resolver needs that asks for A and AAAA in one breath, from one port. With 0 nothing is
awaited, and a flow is over when its datagrams are sent.

*Draining.* When the forwarder stops no flow begins any more. Those whose every datagram has been answered are over at
once, the others when they are, or have been silent for `LAST_SILENCE`: nothing says of a datagram that was not answered
whether it ever will be.

*What is not passed on* is dropped and counted, as routers do: when a socket has no room, when a datagram is too long
for the way, and the newest ones when `HELD` of them wait while a target's name is looked up.

*Under faults* both directions go by roads that lose, delay and repeat (:mod:`~twisted_net.forward.faulty`). A datagram
counts as awaited from when it came, and as answered when the answer has come out of the road; so nothing under way is
cut off by ``responses``, and what is lost keeps its flow until it has been silent.

Rejected: one socket for all flows of a target, which could not tell whose answer it is; SO_REUSEPORT with a connected
socket for each client, which the kernel begins to use before it is connected, so that datagrams of others get lost in
it; a target that does not answer as a failure, since syslog's never does.
"""

from __future__ import annotations

import socket
from collections import OrderedDict
from collections.abc import Callable, Mapping
from math import inf
from typing import Any, Final, Literal, TypeAlias

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_net.address import Address, UdpTarget
from twisted_net.errors import AbortedError, ClosedError, LimitError, NetError, OptionError, RefusedError, TimedOutError
from twisted_net.forward.faulty import GRAIN, FaultyDatagrams, chanceOf
from twisted_net.forward.hooks import Direction
from twisted_net.forward.session import LOCAL_CODES, Ended
from twisted_net.forward.targets import Pool, Target
from twisted_net.sansio.counters import Counters
from twisted_net.sansio.faults import Faults
from twisted_net.wire.casting import DatagramOptions
from twisted_net.wire.datagram import DatagramPort, connect
from twisted_net.wire.destination import RawPlace, addressOf
from twisted_net.wire.limits import peerKey
from twisted_net.wire.reasons import translate
from twisted_net.wire.seldom import Seldom

__all__ = ["HELD", "LAST_SILENCE", "QUIET", "RESERVE", "TRIES", "Flow", "Flows"]

#: Seconds of silence after which a flow may give way to a new client.
QUIET: Final = 1.0

#: Seconds of silence after which nobody waits any longer for an answer, when the forwarder stops.
LAST_SILENCE: Final = 2.0

#: Datagrams of one client that wait while the name of its target is looked up.
HELD: Final = 16

#: Targets that are tried for a new client, one after the other, when their sockets cannot be opened at all.
TRIES: Final = 4

#: Descriptors that flows leave to everything else in the process, as ``Limits.reserve`` has it for connections.
RESERVE: Final = 8

How: TypeAlias = Literal["silent", "complete", "failed", "gone", "gaveWay", "closed"]
"""How a flow has ended."""

_OPTIONS: Final = DatagramOptions()

#: Errors that tell of one datagram, or of this machine: it is dropped, and the flow goes on.
_DROPPING: Final = LOCAL_CODES | {"EMSGSIZE"}

_FULL_TABLE: Final = "there are {limit} flows (limitFlows)"
_NO_DESCRIPTOR: Final = "descriptors run out (ulimit -n)"


class Flow:
    """
    What passes between one client and its target.

    :ivar client: who it is.
    :ivar target: whom its datagrams go to.
    :ivar bytesIn: bytes that came from the client.
    :ivar bytesOut: bytes that were sent to it.
    :ivar heard: when the last datagram came, from either side.
    :ivar isOver: whether it has ended.
    """

    __slots__ = (
        "_answered",
        "_answers",
        "_asked",
        "_began",
        "_bytesFrom",
        "_bytesTo",
        "_downstream",
        "_error",
        "_flows",
        "_held",
        "_listening",
        "_madeWay",
        "_opening",
        "_place",
        "_port",
        "_sent",
        "_tried",
        "_upstream",
        "bytesIn",
        "bytesOut",
        "heard",
        "isOver",
        "target",
    )

    def __init__(self, flows: Flows, listening: _Listening, place: RawPlace, now: float) -> None:
        self._flows = flows
        self._listening = listening
        self._place = place
        self._began = self.heard = now
        self.bytesIn = self.bytesOut = self._bytesTo = self._bytesFrom = 0
        self.isOver = False
        # Towards the target
        self.target: Target | None = None
        self._tried: list[Target] = []
        self._error: NetError | None = None
        self._madeWay = False  # another flow has ended for this one's descriptor
        self._opening: Deferred[DatagramPort] | None = None
        self._port: DatagramPort | None = None
        self._held: list[bytes] = []
        # Datagrams: taken from the client, done with at the target's socket, done with at the client's
        self._asked = self._sent = self._answers = 0
        self._answered = False
        # Roads with faults
        self._upstream: FaultyDatagrams | None = None
        self._downstream: FaultyDatagrams | None = None

    def __repr__(self) -> str:
        return f"<Flow {self.client} -> {'nobody yet' if self.target is None else self.target.name}>"

    @property
    def client(self) -> Address:
        """Who the client is."""
        return addressOf(self._listening.port.family, self._place)

    def abort(self, error: Exception | None = None) -> None:
        """
        End it now. Harmless when it is over.

        :param error: why; for the log.
        """
        self.end("closed", error or AbortedError("the flow was aborted", fault="user"))

    # -- its target

    def dial(self) -> None:
        """Pick a target, and open a socket to it: at once, unless a name has to be looked up."""
        if self.isOver:  # by who was told that another one is
            return
        flows = self._flows
        target = None
        if len(self._tried) < TRIES:
            target = flows.pool.pick(_keyOf(self._listening.port.family, self._place), self._tried)
        if target is None:
            self._turnAway(self._error or RefusedError("no target is up; look at why they were taken out above"))
            return
        self._tried.append(target)
        self.target = target
        flows.pool.entered(target, self)
        assert isinstance(target.where, UdpTarget), "a pool has one kind"
        self._opening = Deferred.fromCoroutine(connect(flows.reactor, target.where, _OPTIONS))
        self._opening.addCallbacks(self._opened, self._notOpened)

    def _opened(self, port: DatagramPort) -> None:
        self._opening = None
        flows = self._flows
        if port.descriptorsLeft() < RESERVE and not flows.makeWay(self, _NO_DESCRIPTOR):
            self._turnAway(LimitError(_NO_DESCRIPTOR))
        port.receive = self._answeredWith
        port.start(self)
        if self.isOver:
            port.close()
            return
        self._port = port
        number = flows.begun()
        self._upstream = self._road(number, "upstream", self._toTarget)
        self._downstream = self._road(number, "downstream", self._toClient)
        while self._held and not self.isOver:
            self._send(self._held.pop(0))

    def _road(self, number: int, direction: Direction, deliver: Callable[[bytes], object]) -> FaultyDatagrams | None:
        flows = self._flows
        faults = flows.faults[direction]
        if not faults:
            return None
        return FaultyDatagrams(flows.reactor, faults, chanceOf(flows.seed, number, direction), deliver)

    def _notOpened(self, failure: Failure) -> None:
        self._opening = None
        if self.isOver:
            return
        target, self.target = self.target, None
        assert target is not None
        pool = self._flows.pool
        pool.left(target, self)
        error = translate(failure, address=target.where, syscall="connect")
        assert error is not None, "what did not come about has not ended in good order"
        if error.code not in LOCAL_CODES:
            pool.failed(target, error)
            self._error = error
            self.dial()
        elif error.code in ("EMFILE", "ENFILE") and not self._madeWay and self._flows.makeWay(self, _NO_DESCRIPTOR):
            self._madeWay = True
            self._tried.pop()
            self.dial()
        else:
            self._turnAway(error)

    # -- datagrams

    def ask(self, data: bytes) -> None:
        """A datagram has come from the client."""
        self._flows.touch(self)
        if self._port is not None:
            self.bytesIn += len(data)
            self._asked += 1
            self._send(data)
        elif len(self._held) < HELD:
            self.bytesIn += len(data)
            self._asked += 1
            self._held.append(data)
        else:
            self._flows.counters.add("dropped")

    def _send(self, data: bytes) -> None:
        if self._upstream is None:
            self._toTarget(data)
        else:
            self._upstream.send(data)

    def _toTarget(self, data: bytes) -> None:
        assert self._port is not None, "a flow that is over sends nothing"
        try:
            sent = self._port.send(data)
        except NetError as error:
            if error.code not in _DROPPING:
                self._notSent(data, error)
                return
            sent = None
        self._sent += 1
        if sent is None:
            self._flows.counters.add("dropped")
        else:
            self._bytesTo += sent
        self._endIfComplete()

    def _notSent(self, data: bytes, error: NetError) -> None:
        """The target has failed. If that is about an earlier datagram, the others go to another target at once."""
        again: list[bytes] = []
        if self._sent:
            again = [data, *self._held]
            self.bytesIn -= sum(map(len, again))
        else:
            self._flows.counters.add("dropped", 1 + len(self._held))
        self._held = []
        self.failed(error)
        for one in again:
            self._listening.receive(one, self._place)

    def _answeredWith(self, data: bytes, place: RawPlace) -> None:
        """A datagram has come from the target."""
        flows = self._flows
        flows.touch(self)
        self._bytesFrom += len(data)
        if not self._answered:
            self._answered = True
            assert self.target is not None
            flows.pool.succeeded(self.target)
        if self._downstream is None:
            self._toClient(data)
        else:
            self._downstream.send(data)

    def _toClient(self, data: bytes) -> None:
        try:
            sent = self._listening.port.send(data, self._place)
        except NetError:
            sent = None
        self._answers += 1
        if sent is None:
            self._flows.counters.add("dropped")
        else:
            self.bytesOut += sent
        self._endIfComplete()

    def _endIfComplete(self) -> None:
        responses = self._flows.responses
        if responses is not None and self._sent >= self._asked and self._answers >= responses * self._asked:
            self.end("complete")
        elif self._flows.draining:
            self.endIfAnswered()

    def endIfAnswered(self) -> None:
        """If nothing that the client has sent waits for an answer, it is over."""
        if self._sent >= self._asked and self._answers >= self._asked:
            self.end("closed")

    # DatagramUser, of the socket towards the target

    def failed(self, error: NetError) -> None:
        """ICMP has answered: nobody is there, or a datagram was too long for the way."""
        if error.code in _DROPPING:
            self._flows.counters.add("dropped")
            return
        assert self.target is not None
        self._flows.pool.failed(self.target, error)
        self.end("failed", error)

    def ended(self, error: NetError | None) -> None:
        """The socket is closed: by this flow's end, or the reactor's."""
        self.end("closed", error)

    # -- the end

    def end(self, how: How, error: Exception | None = None) -> None:
        """It is over. Harmless when it was."""
        if self.isOver:
            return
        target = self.target
        if self._port is None or target is None:
            self._turnAway(error or TimedOutError("the name of its target was not found in time (timeoutFlow)"))
            return
        self._release(target)
        flows = self._flows
        flows.counters.add(how)
        if not self._answered:
            if how == "complete":
                flows.pool.succeeded(target)
            elif how != "failed":
                # It may be of a kind that answers nothing: that it was sent says nothing of the target's health.
                target.counters.add("sessions")
        target.counters.add("bytesTo", self._bytesTo)
        target.counters.add("bytesFrom", self._bytesFrom)
        flows.over(
            Ended(
                client=self.client,
                target=target.name,
                bytesIn=self.bytesIn,
                bytesOut=self.bytesOut,
                seconds=flows.now() - self._began,
                error=error,
            )
        )

    def _turnAway(self, error: Exception) -> None:
        """It has not come about: nobody is told but the log."""
        self._release(self.target)
        self._flows.turnAway(self.client, error, len(self._held))

    def _release(self, target: Target | None) -> None:
        self.isOver = True
        self._flows.forget(self)
        self._listening.flows.pop(self._place, None)
        for road in (self._upstream, self._downstream):
            if road is not None:
                road.stop()
        self._upstream = self._downstream = None
        opening, self._opening = self._opening, None
        if opening is not None:
            opening.cancel()
        port, self._port = self._port, None
        if port is not None:
            port.close()
        if target is not None:
            self._flows.pool.left(target, self)


class _Listening:
    """One port that clients send to."""

    def __init__(self, owner: Flows, port: DatagramPort) -> None:
        self.port = port
        #: By the place that the client has.
        self.flows: dict[RawPlace, Flow] = {}
        self._owner = owner

    def receive(self, data: bytes, place: RawPlace) -> None:
        """A datagram has come from a client."""
        flow = self.flows.get(place)
        if flow is None:
            self._owner.newcomer(self, place, data)
        else:
            flow.ask(data)

    def refused(self, place: RawPlace) -> None:
        """A client has closed its port."""
        flow = self.flows.get(place)
        if flow is not None:
            flow.end("gone", RefusedError("the client has closed its port", address=flow.client))

    def failed(self, error: NetError) -> None:
        """The system could not receive, for a reason that is no client's."""
        self._owner.notReceived(self.port.address, error)

    def ended(self, error: NetError | None) -> None:
        """The port is closed, with all that came by it."""
        self._owner.forgetPort(self)
        reason = error or AbortedError("the port that it came by was closed", fault="user")
        for flow in tuple(self.flows.values()):
            flow.end("closed", reason)


class Flows:
    """
    The datagrams of a forwarder.

    :param pool: the targets, which are of UDP.
    :param reactor: a Twisted reactor.
    :param timeout: seconds without a datagram after which a flow is over; finite, more than 0.
    :param responses: datagrams that a target sends for each of a client's; 0 awaits none, None any number.
    :param limit: flows at once, 1 or more.
    :param faults: what becomes of datagrams in each direction.
    :param seed: where the faults' chance comes from.
    :param over: called with what is known of each flow that is over. It must not raise. An error there is a target's
        (``ECONNREFUSED``...), the client's (a `RefusedError` with the client's address), a `LimitError` of a flow that
        has given way, an `AbortedError` at the end of the port; None says that it was silent or complete.
    :raises OptionError: a value is out of range.
    """

    _log = Logger()

    def __init__(
        self,
        pool: Pool,
        reactor: Any,
        *,
        timeout: float,
        responses: int | None,
        limit: int,
        faults: Mapping[Direction, Faults],
        seed: int,
        over: Callable[[Ended], object],
    ) -> None:
        if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 < timeout < inf:
            raise OptionError(f"timeoutFlow is {timeout!r}; it must be seconds, finite and more than 0")
        if responses is not None and (isinstance(responses, bool) or not isinstance(responses, int) or responses < 0):
            raise OptionError(f"responses is {responses!r}; it must be a whole number, 0 or more, or None for any")
        if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
            raise OptionError(f"limitFlows is {limit!r}; it must be a whole number, 1 or more")
        self.pool = pool
        self.reactor = reactor
        self.now: Callable[[], float] = reactor.seconds
        self.responses = responses
        self.faults = faults
        self.seed = seed
        self.over = over
        #: See `snapshot`.
        self.counters = Counters(
            "opened", "silent", "complete", "failed", "gone", "gaveWay", "closed", "turnedAway", "dropped"
        )
        self._timeout = timeout
        self._limit = limit
        # In the order of their last datagrams.
        self._order: OrderedDict[Flow, None] = OrderedDict()
        self._listening: list[_Listening] = []
        self._timer: IDelayedCall | None = None
        self._closed = False
        #: Whether no flow begins any more.
        self.draining = False
        self._drained: list[Deferred[None]] = []
        text = "flows of datagrams: {count} gave way to new clients, for {why}; raise that, or shorten timeoutFlow"
        self._givingWay = Seldom(self._log, reactor, text)
        text = "new clients of datagrams: {count} turned away, the last one {client}: {why}"
        self._turning = Seldom(self._log, reactor, text)
        text = "receiving datagrams at {address}: {count} failures, the last one: {why}"
        self._troubled = Seldom(self._log, reactor, text)

    def __repr__(self) -> str:
        return f"<Flows, {len(self)} living>"

    def __len__(self) -> int:
        return len(self._order)

    def serve(self, port: DatagramPort) -> None:
        """
        Forward what comes to *port*, and answer from there. (Of a port that is bound to every address of this machine
        the system chooses the address that answers come from.)

        It is closed with the others by `close`. Whoever closes it before ends its flows.

        :param port: it is bound and has not begun.
        :raises ClosedError: these flows are closed; the port is, too, then.
        """
        listening = _Listening(self, port)
        port.receive = listening.receive
        port.tellRefused(listening.refused)
        port.start(listening)
        if self._closed:
            port.close()
            raise ClosedError("serve: this forwarder is closed; make another one")
        self._listening.append(listening)

    # -- seeing

    @property
    def bytesIn(self) -> int:
        """Bytes that came from the clients of living flows."""
        return sum(flow.bytesIn for flow in self._order)

    @property
    def bytesOut(self) -> int:
        """Bytes that were sent to the clients of living flows."""
        return sum(flow.bytesOut for flow in self._order)

    def snapshot(self) -> dict[str, int]:
        """
        Everything that is counted.

        ``living``: flows now, those included whose target's name is being looked up. ``opened``: all that came about;
        each of them ends as one of ``silent`` (`timeout`), ``complete`` (`responses`), ``failed`` (by its target),
        ``gone`` (its client's port was closed), ``gaveWay`` (to a new client) and ``closed`` (with its port, or by
        `Flow.abort`). ``turnedAway``: new clients for whom no flow came about. ``dropped``: datagrams that were not
        passed on, in either direction and for any reason but faults that were asked for.
        """
        return {"living": len(self._order), **self.counters.snapshot()}

    # -- the end

    def drain(self) -> Deferred[None]:
        """
        Begin no flow any more.

        :returns: fires when the last one is over, and every port is closed: at once if nobody waits for an answer.
        """
        self.draining = True
        self._timeout = min(self._timeout, LAST_SILENCE)
        done: Deferred[None] = Deferred()
        self._drained.append(done)
        for flow in tuple(self._order):
            flow.endIfAnswered()
        if not self._order:
            self.close()
        else:
            assert self._timer is not None, "as long as there are flows"
            self._timer.cancel()
            self._sweep()
        return done

    @property
    def isClosed(self) -> bool:
        """Whether everything is over."""
        return self._closed

    def close(self) -> None:
        """End every flow and close every port, now. Harmless when it was done."""
        self._closed = self.draining = True
        for listening in tuple(self._listening):
            listening.port.close()
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()
        for seldom in (self._givingWay, self._turning, self._troubled):
            seldom.stop()
        drained, self._drained = self._drained, []
        for done in drained:
            done.callback(None)

    # -- what flows and ports ask

    def newcomer(self, listening: _Listening, place: RawPlace, data: bytes) -> None:
        """A datagram has come from a place that has no flow."""
        if self.draining:
            self.counters.add("turnedAway")
            self.counters.add("dropped")
            return
        if len(self._order) >= self._limit:
            why = _FULL_TABLE.format(limit=self._limit)
            if not self.makeWay(None, why):
                self.turnAway(addressOf(listening.port.family, place), LimitError(why), 1)
                return
        if listening.port.isClosed:  # by who was told of what became of another flow
            return
        flow = Flow(self, listening, place, self.now())
        listening.flows[place] = flow
        self._order[flow] = None
        if self._timer is None:
            self._timer = self.reactor.callLater(self._timeout, self._sweep)
        flow.ask(data)
        flow.dial()

    def begun(self) -> int:
        """One more flow has come about; which one it is, counted from 0."""
        number = self.counters["opened"]
        self.counters.add("opened")
        return number

    def touch(self, flow: Flow) -> None:
        """A datagram of it has come."""
        flow.heard = self.now()
        self._order.move_to_end(flow)

    def forget(self, flow: Flow) -> None:
        """It is over."""
        del self._order[flow]
        if self.draining and not self._order and not self._closed:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self.reactor.callLater(0, self.close)  # not from within a flow's own end

    def forgetPort(self, listening: _Listening) -> None:
        """It is closed."""
        if listening in self._listening:
            self._listening.remove(listening)

    def makeWay(self, newcomer: Flow | None, why: str) -> bool:
        """End the flow that was silent longest, if it was long enough; whether there is one."""
        now = self.now()
        first = self._silentLongest(now)
        if first is None or first is newcomer or now - first.heard < QUIET:
            return False
        self._givingWay.warn(why=why)
        first.end("gaveWay", LimitError(f"it was silent, and has given way to a new client: {why}"))
        return True

    def turnAway(self, client: Address, error: Exception, datagrams: int) -> None:
        """No flow has come about for a new client."""
        self.counters.add("turnedAway")
        self.counters.add("dropped", datagrams)
        self._turning.warn(client=client, why=error)

    def notReceived(self, address: Address, error: NetError) -> None:
        """A port has trouble."""
        self._troubled.warn(address=address, why=error)

    def _silentLongest(self, now: float) -> Flow | None:
        first = next(iter(self._order), None)
        if first is not None and first.heard > now:  # the clock was set back: silence begins anew
            for flow in self._order:
                flow.heard = min(flow.heard, now)
        return first

    def _sweep(self) -> None:
        """Whoever was silent for the whole time is over; then wait for the next one."""
        self._timer = None
        now = self.now()
        while (first := self._silentLongest(now)) is not None:
            left = first.heard + self._timeout - now
            if left > GRAIN:
                self._timer = self.reactor.callLater(left, self._sweep)
                return
            first.end("silent")


def _keyOf(family: int, place: RawPlace) -> bytes:
    """Who a client is, for a balance that wants to know."""
    kind = IPv6Address if family == socket.AF_INET6 else IPv4Address
    return repr(peerKey(kind("UDP", place[0], place[1]))).encode()
