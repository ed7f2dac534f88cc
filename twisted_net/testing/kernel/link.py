"""
The road between two hosts: latency, faults, partition.

A `Link` joins two hosts (or one with itself: loopback) by two `Road`\\ s, one for each direction. A road on which
nothing is the matter is *clear*: bytes are at the other end before ``send`` has returned, and no event is made for
them. On any other road every delivery is an event of the network's, at its time. What was sent on one lane never
overtakes itself.

*Cut.* On a cut road nothing arrives. TCP repeats itself, so what was under way is held, and comes when the road is
healed; SYN is lost, and sent again by its sender; datagrams and RST are lost. When nothing was acknowledged for 924.6
seconds the sender gives up with ``ETIMEDOUT`` (tcp(7), tcp_retries2), and so does a connection with SO_KEEPALIVE when
its probes were not answered. The other end, which has heard of nothing, hears RST when the road is healed: as soon as
it sends something, be it a probe of SO_KEEPALIVE; without either, never.

*Stalled.* On a stalled road the receiver's window stays shut: connections are made, but no byte and no FIN comes.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from twisted_net.sansio.faults import DatagramFaults, Faults, Latency, Refusals, StreamFaults

if TYPE_CHECKING:
    from twisted_net.testing.host import Host
    from twisted_net.testing.kernel.lane import Lane
    from twisted_net.testing.kernel.stream import StreamSocket

#: Seconds without an acknowledgement after which TCP gives up (tcp(7), tcp_retries2 of 15).
RETRANSMISSION_TIMEOUT: Final = 924.6

#: Of a run with a seed: how much later, in seconds, something may come than it was sent.
WANDER: Final = (0.0, 0.0005, 0.002, 0.01)

NO_FAULTS: Final = Faults()


class Road:
    """One direction of a link.

    :param calm: leave nothing to chance; None: as the network.
    :ivar plain: no fault, no cut and no stall is in force.
    :ivar clear: nothing at all delays, loses or changes what is sent here.
    """

    def __init__(self, source: Host, target: Host, *, calm: bool | None = None) -> None:
        self.source = source
        self.target = target
        self._network = source.network
        self.faults: Faults = NO_FAULTS
        self.isCut = False
        self.stalled = False
        self._cuts = 0
        self._held: list[tuple[Lane, str, bytes]] = []
        #: Lanes that `faults` have begun to befall, in that order.
        self._befallen: WeakKeyDictionary[Lane, None] = WeakKeyDictionary()
        self._site = f"{source.name}>{target.name}"
        self._datagrams: DatagramFaults | None = None
        self._refusals: Refusals | None = None
        self._delay = 0.0
        self._calm = self._network.choices.calm if calm is None else calm
        self._lastDatagram = 0.0
        self.plain = True
        self.clear = self._calm

    # -- its state

    def setFaults(self, faults: Faults) -> None:
        """
        From now on *faults* befall what is sent; connections that stand count their bytes from here. What the faults
        before were still collecting is let go; what else they had planned does not happen any more.
        """
        self.faults = faults
        befallen, self._befallen = list(self._befallen), WeakKeyDictionary()
        self._datagrams = self._refusals = None
        self._delay = sum(fault.delay for fault in faults if isinstance(fault, Latency))
        if faults:
            random = self._network.choices.random("faults " + self._site)
            self._datagrams = DatagramFaults(faults, random)
            self._refusals = Refusals(faults, random)
        self._lookUp()
        for lane in befallen:
            self._letGo(lane)

    def cut(self) -> None:
        """Nothing arrives until :meth:`heal`."""
        if not self.isCut:
            self.isCut = True
            self._cuts += 1
            self._lookUp()
            for skt in self._keptAlive():
                idle, interval, count = (skt.option(socket.IPPROTO_TCP, option) for option in _PROBES)
                self._network.at(self._network.now + idle + interval * count, self._unanswered, skt, self._cuts)

    def heal(self) -> None:
        """What TCP has held back comes now."""
        if self.isCut:
            self.isCut = False
            self._lookUp()
            held, self._held = self._held, []
            for lane, what, data in held:
                lane.overdue = False
                self._deliver(lane, what, data)
            for skt in self._keptAlive():
                if skt.peer is not None and skt.peer.isGone:
                    idle = skt.option(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)
                    self._network.at(self._network.now + idle, self._answered, skt)

    def stall(self, stalled: bool) -> None:
        """Shut the window, or open it again."""
        self.stalled = stalled
        self._lookUp()
        if not stalled:
            for skt in self.source.streams():
                if skt.outward is not None and skt.outward.road is self:
                    skt.outward.pump()
                    skt.wake()

    def _lookUp(self) -> None:
        self.plain = not (self.faults or self.isCut or self.stalled)
        self.clear = self.plain and self._calm

    def refuses(self) -> bool:
        """Whether the next connection is to be refused."""
        return self._refusals is not None and self._refusals.next()

    # -- streams

    def wander(self, lane: Lane, data: bytes) -> None:
        """Bring *data* to the other end of a plain road, on which nothing is under way for *lane*: now, or by chance
        later."""
        delay = self._wander(lane)
        if delay:
            self._send(lane, "data", data, self._network.now + delay)
        else:
            lane.arrive(data)

    def carry(self, lane: Lane, data: bytes) -> None:
        """Bring *data* to the other end."""
        transit = self._transit(lane)
        now = self._network.now
        if transit is None:
            self._send(lane, "data", data, now + self._wander(lane))
        else:
            self._follow(lane, transit, transit.feed(data, now))

    def carryEnd(self, lane: Lane) -> None:
        """Bring the FIN."""
        transit = self._transit(lane)
        now = self._network.now
        if transit is None:
            self._send(lane, "end", b"", now + self._wander(lane))
        else:
            self._follow(lane, transit, transit.end(now))

    def acknowledge(self, lane: Lane) -> None:
        """Bring the ACK that ends the handshake, before everything else of the lane's."""
        self._send(lane, "ack", b"", self._network.now + self._delay)

    def carryReset(self, lane: Lane) -> None:
        """Bring RST, behind what is under way."""
        transit = self._transit(lane)
        now = self._network.now
        if transit is None:
            self._send(lane, "reset", b"", now + self._delay)
        else:
            self._follow(lane, transit, transit.reset(now))
            lane.transit = None

    def _transit(self, lane: Lane) -> StreamFaults | None:
        if lane.transit is None and self.faults:
            random = self._network.choices.random("faults " + lane.site)
            lane.transit = StreamFaults(self.faults, random, self._network.now)
            lane.due = None
            self._befallen[lane] = None
            self._follow(lane, lane.transit, [])
        return lane.transit

    def _letGo(self, lane: Lane) -> None:
        transit, lane.transit = lane.transit, None
        if transit is not None:
            for delivery in transit.reset(self._network.now):
                if delivery.what == "data":
                    self._send(lane, "data", delivery.data, delivery.at)

    def _wander(self, lane: Lane) -> float:
        return 0.0 if self._calm else WANDER[self._network.choices.pick(lane.delaySite, len(WANDER), 4)]

    def _follow(self, lane: Lane, transit: StreamFaults, deliveries: list[Any]) -> None:
        for delivery in deliveries:
            self._send(lane, delivery.what, delivery.data, delivery.at)
        due = transit.due()
        if due is not None and due != lane.due:
            lane.due = due
            self._network.at(due, self._tick, lane, transit)

    def _tick(self, lane: Lane, transit: StreamFaults) -> None:
        if lane.transit is transit:
            lane.due = None
            self._follow(lane, transit, transit.tick(self._network.now))

    def _send(self, lane: Lane, what: str, data: bytes, at: float) -> None:
        lane.lastAt = at = max(at, lane.lastAt)
        lane.flight += len(data)
        if at <= self._network.now and lane.flight == len(data):
            self._deliver(lane, what, data)
        else:
            self._network.arrival(at, self._deliver, lane, what, data)

    def _deliver(self, lane: Lane, what: str, data: bytes) -> None:
        if self.isCut:
            if what != "reset":
                self._hold(lane, what, data)
        elif what == "data":
            lane.flight -= len(data)
            lane.arrive(data)
        elif what == "end":
            lane.arriveEnd()
        elif what == "ack":
            lane.sink.acknowledged()
        else:
            lane.arriveReset()

    def _hold(self, lane: Lane, what: str, data: bytes) -> None:
        self._held.append((lane, what, data))
        if not lane.overdue:
            lane.overdue = True
            self._network.at(self._network.now + RETRANSMISSION_TIMEOUT, self._giveUp, lane)

    def _giveUp(self, lane: Lane) -> None:
        if lane.overdue:
            self._held = [held for held in self._held if held[0] is not lane]
            self._timeOut(lane.source)

    def _keptAlive(self) -> list[StreamSocket]:
        """The connections whose probes this road carries."""
        streams = self.source.streams()
        return [skt for skt in streams if skt.outward and skt.outward.road is self and skt.option(*_KEEPALIVE)]

    def _unanswered(self, skt: StreamSocket, cut: int) -> None:
        if self.isCut and self._cuts == cut:
            self._timeOut(skt)

    def _answered(self, skt: StreamSocket) -> None:
        """A probe has come to a host that knows the connection no more: it answers with RST."""
        if not (self.isCut or skt.closed):
            skt.hearReset()

    @staticmethod
    def _timeOut(skt: StreamSocket) -> None:
        if not skt.closed:
            skt.note(skt.peer, "timeout")
            skt.fail(errno.ETIMEDOUT)

    # -- what is no stream

    def control(self, arrive: Callable[..., object], *args: object) -> None:
        """Bring SYN, or an answer to it; on a cut road it is lost."""
        if self.isCut:
            return
        delay = self._delay
        if not self._calm:
            delay += WANDER[self._network.choices.pick("handshake " + self._site, len(WANDER), 4)]
        if delay:
            self._network.arrival(self._network.now + delay, self._arrive, arrive, args)
        else:
            arrive(*args)

    def datagram(self, data: bytes, arrive: Callable[[bytes], object]) -> None:
        """Bring a datagram, or more than one, or none."""
        if self.isCut:
            return
        now = self._network.now
        if self._datagrams is not None:
            deliveries = self._datagrams.feed(data, now)
        else:
            wander = 0 if self._calm else self._network.choices.pick("datagram " + self._site, len(WANDER), 4)
            at = now + WANDER[wander]
            if self.source is self.target:  # a host's own datagrams do not overtake each other
                at = self._lastDatagram = max(at, self._lastDatagram)
            deliveries = [(at, data)]
        for at, piece in deliveries:
            if at <= now:
                arrive(piece)
            else:
                self._network.arrival(at, self._arrive, arrive, (piece,))

    def _arrive(self, arrive: Callable[..., object], args: tuple[object, ...]) -> None:
        if not self.isCut:
            arrive(*args)


class Link:
    """What joins two hosts; for tests to break.

    Made by :meth:`~twisted_net.testing.network.MemoryNetwork.link`.
    """

    def __init__(self, one: Host, other: Host) -> None:
        self.hosts = (one, other)
        self._roads = {other.name: Road(one, other)}
        self._roads.setdefault(one.name, Road(other, one))

    def road(self, target: Host) -> Road:
        """The direction that leads to *target*."""
        return self._roads[target.name]

    def _towards(self, target: Host | str | None) -> list[Road]:
        if target is None:
            return list(self._roads.values())
        name = target if isinstance(target, str) else target.name
        if name not in self._roads:
            raise ValueError(f"this link joins {' and '.join(self._roads)}; {name!r} is at neither end")
        return [self._roads[name]]

    def setFaults(self, *faults: Any, towards: Host | str | None = None) -> None:
        """From now on *faults* (of :mod:`twisted_net.sansio.faults`) befall what is sent; without any, none.

        :param towards: only in the direction that leads to this host.
        """
        chain = faults[0] if len(faults) == 1 and isinstance(faults[0], Faults) else Faults(*faults)
        for road in self._towards(towards):
            road.setFaults(chain)

    def cut(self, towards: Host | str | None = None) -> None:
        """Let nothing through until :meth:`heal`: TCP repeats itself afterwards, datagrams are lost."""
        for road in self._towards(towards):
            road.cut()

    def heal(self, towards: Host | str | None = None) -> None:
        """Take :meth:`cut` back."""
        for road in self._towards(towards):
            road.heal()

    def stall(self, towards: Host | str | None = None, *, stalled: bool = True) -> None:
        """Keep the receiver's window shut for ever, or until it is called with ``stalled=False``."""
        for road in self._towards(towards):
            road.stall(stalled)


_KEEPALIVE: Final = (socket.SOL_SOCKET, socket.SO_KEEPALIVE)
_PROBES: Final = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
