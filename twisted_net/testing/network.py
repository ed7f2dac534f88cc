"""
A network in memory, with a clock that jumps.

::

    network = MemoryNetwork()
    client, server = network.host("client"), network.host("server")
    server.reactor.listenTCP(80, factory)
    ...
    network.run(scenario)           # a coroutine function: runs until it has returned, and gives its result

Theory
======
Each `Host` has one reactor, and runs one program. `MemoryNetwork` is the loop around them all. One step of it is::

    something is due now?   packets that arrive, then one turn of each reactor that has work, in an order by chance
    nothing is?             the time becomes that of the next packet or timer, whichever comes first

so that no time passes while anybody has something to do, and a timeout of half an hour costs as much as one of a
millisecond. When nothing is scheduled at all and what is waited for has not come, it never will: `StalledError`.

*Ends of patience.* What goes on for ever is ended with a report of who had scheduled what: `RunawayError`, after
:data:`TURNS` turns without time passing (a livelock), or after as much virtual time as `run` allows (timers that
go on and on).

*Chance.* Without a seed a network is calm: everything whole, at once, and in order. With one, whatever a real network
leaves to chance is left to chance: which of two ready sockets is served first, where a segment ends, how much a
``send`` takes, how long a packet is under way. The same seed gives the same run, byte by byte.

*The global reactor.* While the network runs, the reactor of the host whose turn it is stands in the place of
``twisted.internet.reactor``, so that code which takes the reactor from there runs unchanged. (Before the first turn
it is that of ``localhost``.)

Rejected: one reactor for all hosts (a program could not tell whose timer it is, and nobody could die alone); a thread
for each host (no order to repeat).
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable
from heapq import heappop, heappush
from typing import Any, Final, Self, TypeVar

from twisted.internet.defer import Deferred, execute, maybeDeferred
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from twisted_net.errors import OptionError
from twisted_net.testing.choices import Choices
from twisted_net.testing.host import Host, canonicalAddresses
from twisted_net.testing.installed import InPlace
from twisted_net.testing.kernel.link import Link, Road
from twisted_net.testing.kernel.ports import isLoopback, unmapped
from twisted_net.testing.kernel.sockets import Place
from twisted_net.testing.names import Names
from twisted_net.testing.reactor import MemoryReactor
from twisted_net.testing.runaway import LeakError, RunawayError, StalledError, leaksOf, report
from twisted_net.testing.trace import Trace

__all__ = ["DAY", "TURNS", "MemoryNetwork"]

T = TypeVar("T")

#: Turns that may follow each other without time passing. Every turn does something, so this is no turn to wait in.
TURNS: Final = 100_000

#: Seconds: how much virtual time `run` allows unless it is told otherwise.
DAY: Final = 86_400.0

#: The host that there is from the beginning.
LOCALHOST: Final = "localhost"


class _Event:
    """Something that the network does at a time."""

    __slots__ = ("args", "function", "isPacket")

    def __init__(self, function: Callable[..., object], args: tuple[object, ...], isPacket: bool) -> None:
        self.function: Callable[..., object] | None = function
        self.args = args
        self.isPacket = isPacket

    def cancel(self) -> None:
        """Do not do it. Harmless when it was done."""
        self.function = None
        self.args = ()


class MemoryNetwork:
    """
    Hosts in memory, links between them, and the time.

    :param seed: what is left to chance is decided by it; None leaves nothing to chance.
    :param choices: the decisions themselves, in place of a seed.
    :raises OptionError: both were given.

    As a context manager it is closed at the end, and fails when something was left open: :meth:`close`.

    :ivar inMemory: True; a :class:`~twisted_net.testing.loopback.LoopbackNetwork` says False.
    :ivar now: the time: seconds since the network was made.
    :ivar hosts: its hosts, by name.
    :ivar names: names that can be looked up beside those of the hosts (:class:`~twisted_net.testing.names.Names`).
    :ivar trace: what has happened (:class:`~twisted_net.testing.trace.Trace`).
    :ivar choices: the decisions (:class:`~twisted_net.testing.choices.Choices`).
    """

    inMemory = True

    def __init__(self, seed: int | None = None, *, choices: Choices | None = None) -> None:
        if seed is not None and choices is not None:
            raise OptionError(f"seed is {seed!r} and choices are given, too; give one of them")
        self.choices = Choices(seed) if choices is None else choices
        self.now = 0.0
        self.hosts: dict[str, Host] = {}
        self.names = Names()
        self.trace = Trace(self)
        self._links: dict[tuple[str, str], Link] = {}
        self._roads: dict[tuple[str, str], Road] = {}
        self._addresses: dict[str, Host] = {}
        self._events: list[tuple[float, int, _Event]] = []
        self._made = 0
        self._packets = 0
        self._paths = 0
        self._place: InPlace | None = None
        self._shown: Host | None = None
        self._due: list[Host] = []
        self._closed = False

    def __repr__(self) -> str:
        return f"<MemoryNetwork seed={self.choices.seed} at {self.now:g} s: {', '.join(self.hosts)}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, where: object) -> None:
        if kind is None:
            self.close()
        else:
            self.shut()
            assert error is not None
            if not isinstance(error, StalledError | RunawayError | LeakError):  # those tell it themselves
                error.add_note(self.story())

    def story(self) -> str:
        """The seed, and the last events: what a failing test should show."""
        seed = "" if self.choices.seed is None else f"The network's seed was {self.choices.seed}.\n"
        lines = str(self.trace).splitlines()
        last = lines[-_LAST:]
        left = f"({len(lines) - len(last)} lines before these)\n" if len(last) < len(lines) else ""
        return f"{seed}What happened on the network:\n{left}" + "\n".join(last)

    # -- hosts and links

    def host(self, name: str, *addresses: str) -> Host:
        """
        The host of that name, made when it is asked for first.

        :param addresses: its IP addresses; without any it has one of IPv4 and one of IPv6.
        :raises OptionError: an address is none, or another host's; or the host is there and has others.
        """
        host = self.hosts.get(name)
        if host is None:
            return self._makeHost(name, canonicalAddresses(addresses))
        if addresses and canonicalAddresses(addresses) != host.addresses:
            raise OptionError(f"addresses are {addresses!r}, but host {name!r} is there with {host.addresses!r}")
        return host

    def _makeHost(self, name: str, addresses: tuple[str, ...]) -> Host:
        number = len(self.hosts)
        if not addresses:
            high, low = divmod(number + 1, 256)
            addresses = (f"10.0.{high}.{low}", f"fd00:0:0:{number + 1:x}::1")
        for text in addresses:
            if isLoopback(text) or text in self._addresses:
                owner = "every host" if isLoopback(text) else f"host {self._addresses[text].name!r}"
                raise OptionError(f"addresses holds {text!r}, which {owner} has already; choose another one")
        host = Host(self, name, addresses, number)
        self.hosts[name] = host
        self._addresses.update(dict.fromkeys(addresses, host))
        host.reactor = MemoryReactor(host)
        return host

    @property
    def reactor(self) -> MemoryReactor:
        """The reactor of the host ``localhost``: all that a test needs whose client and server share one."""
        return self.host(LOCALHOST).reactor

    def link(self, one: Host | str, other: Host | str) -> Link:
        """What joins two hosts, or a host with itself: its loopback interface."""
        here, there = self._named(one), self._named(other)
        key = (here.name, there.name) if here.name <= there.name else (there.name, here.name)
        link = self._links.get(key)
        if link is None:
            link = self._links[key] = Link(self._named(key[0]), self._named(key[1]))
        return link

    def _named(self, host: Host | str) -> Host:
        return self.host(host) if isinstance(host, str) else host

    def road(self, source: Host, target: Host) -> Road:
        """The direction of their link that leads from *source* to *target*."""
        key = (source.name, target.name)
        road = self._roads.get(key)
        if road is None:
            road = self._roads[key] = self.link(source, target).road(target)
        return road

    def path(self) -> str:
        """A path for a UNIX socket that was not given before."""
        self._paths += 1
        return f"/run/{self._paths}.sock"

    def partition(self, *groups: Iterable[Host | str]) -> None:
        """Cut every link between hosts of different *groups*; hosts that are in none form one more."""
        sides = [{self._named(host).name for host in group} for group in groups]
        sides.append(set(self.hosts) - set().union(*sides))
        for place, side in enumerate(sides):
            for other in sides[place + 1 :]:
                for one in sorted(side):
                    for two in sorted(other):
                        self.link(one, two).cut()

    def isolate(self, host: Host) -> None:
        """Cut every link of *host*'s."""
        for other in self.hosts.values():
            self.link(host, other).cut()

    def heal(self) -> None:
        """Heal every link that was cut, but for those of hosts that are dead."""
        for link in list(self._links.values()):
            if not any(host.dead for host in link.hosts):
                link.heal()

    def living(self) -> list[Host]:
        """The hosts that are not dead."""
        return [host for host in self.hosts.values() if not host.dead]

    def hostAt(self, source: Host, text: str) -> Host | None:
        """Who has the IP address *text*, as *source* sees it."""
        plain = unmapped(text)
        if isLoopback(plain) or plain in ("0.0.0.0", "::"):
            return source
        return self._addresses.get(plain)

    def labelOf(self, source: Host, place: Place) -> str:
        """What a socket at *place* is called in traces."""
        host = self.hostAt(source, place[0])
        return f"{place[0]}:{place[1]}" if host is None else host.labelOf(place)

    # -- time

    def seconds(self) -> float:
        """The time: seconds since the network was made."""
        return self.now

    def sleep(self, seconds: float) -> Deferred[None]:
        """Fires after that many seconds of virtual time."""
        return deferLater(self.reactor, seconds, lambda: None)

    def begin(self, what: Any, *, timeout: float = DAY) -> Deferred[Any]:
        """As :meth:`run`, with the result or the failure in a Deferred that has fired."""
        return execute(self.run, what, timeout=timeout)

    def at(self, time: float, function: Callable[..., object], *args: object) -> _Event:
        """Call *function* at *time*, on behalf of no host: kernels and links do so, and a test may.

        :returns: has ``cancel()``.
        """
        return self._schedule(time, _Event(function, args, False))

    def arrival(self, time: float, function: Callable[..., object], *args: object) -> None:
        """As `at`, for something that is under way until then: `settle` and `close` wait for it."""
        self._packets += 1
        self._schedule(time, _Event(function, args, True))

    def _schedule(self, time: float, event: _Event) -> _Event:
        self._made += 1
        heappush(self._events, (max(time, self.now), self._made, event))
        return event

    def run(self, what: Callable[[], Any] | Awaitable[T] | Deferred[T], *, timeout: float = DAY) -> Any:
        """
        Run the network until *what* has come about.

        :param what: a coroutine function or a coroutine, a Deferred, or a function, which may return one of these.
        :param timeout: seconds of virtual time that it may take.
        :returns: what it gives.
        :raises StalledError: nothing is scheduled any more, and it has not come about.
        :raises RunawayError: it takes too long; the report says what goes on.
        """
        results: list[Any] = []
        with self._inPlace():
            self._start()
            begun(what).addBoth(results.append)
            self._runWhile(lambda: not results, self.now + timeout)
        if isinstance(results[0], Failure):
            results[0].raiseException()
        return results[0]

    def runWhile(self, condition: Callable[[], bool], *, timeout: float = DAY) -> None:
        """Run the network as long as *condition* holds. Raises as :meth:`run`."""
        with self._inPlace():
            self._start()
            self._runWhile(condition, self.now + timeout)

    def _runWhile(self, condition: Callable[[], bool], latest: float) -> None:
        turns = 0
        while condition():
            at = self._next()
            if at is None:
                raise StalledError(f"nothing is scheduled, and what is waited for has not come.\n{self.story()}")
            if at > latest:
                raise RunawayError(report(self, f"it has taken until {self.now:g} s of virtual time, and goes on"))
            turns = turns + 1 if at <= self.now else 0
            self._stepOrFail(at, turns)

    def advance(self, seconds: float) -> None:
        """Let *seconds* pass, with everything that is due by then; what is due at that very time included."""
        with self._inPlace():
            self._start()
            until = self.now + seconds
            turns = 0
            while (at := self._next()) is not None and at <= until:
                turns = turns + 1 if at <= self.now else 0
                self._stepOrFail(at, turns)
            self.now = max(self.now, until)

    def settle(self) -> None:
        """Do all that can be done without time passing, and let arrive what is under way."""
        with self._inPlace():
            self._start()
            turns = 0
            while (at := self._next()) is not None and (at <= self.now or self._packets > 0):
                turns = turns + 1 if at <= self.now else 0
                self._stepOrFail(at, turns)

    def _nextEvent(self) -> float | None:
        events = self._events
        while events and events[0][2].function is None:
            heappop(events)
        return events[0][0] if events else None

    def _stepOrFail(self, at: float, turns: int) -> None:
        if turns > TURNS:
            raise RunawayError(report(self, f"{TURNS} turns went by at {self.now:g} s, and no time passes"))
        self.step(at)

    def step(self, at: float) -> None:
        """Go to the time *at*, and do what is due then: packets first, then one turn of each host that has work."""
        if at > self.now:
            self.now = at
        events = self._events
        while events and events[0][0] <= self.now:
            event = heappop(events)[2]
            self._packets -= event.isPacket
            if event.function is not None:
                event.function(*event.args)
        hosts, self._due = self._due, []
        while hosts:
            host = hosts.pop(self.choices.pick("host", len(hosts)) if len(hosts) > 1 else 0)
            if self._place is not None and host is not self._shown:
                self._shown = host
                self._place.show(host.reactor)
            host.reactor.turn()

    def _next(self) -> float | None:
        """When something is due, and who then has work; None when nothing ever is."""
        soonest = self._nextEvent()
        due = []
        for host in self.hosts.values():
            if host.dead or host.frozen:
                continue
            at = host.reactor.nextDeadline()
            if at is None:
                continue
            if at < self.now:  # it was frozen when it should have worked
                at = self.now
            if soonest is None or at < soonest:
                soonest = at
                due = [host]
            elif at == soonest:
                due.append(host)
        self._due = due
        return soonest

    def _start(self) -> None:
        for host in self.hosts.values():
            host.reactor.startOnce()

    def _inPlace(self) -> _Placed:
        return _Placed(self)

    def installed(self, host: Host | str = LOCALHOST) -> InPlace:
        """A context in which a host's reactor is ``twisted.internet.reactor``; :meth:`run` does that by itself."""
        return InPlace(self._named(host).reactor)

    # -- the end

    def leaks(self) -> list[str]:
        """What is open or scheduled: a line for each socket and each timer of hosts that are not dead."""
        return leaksOf(self)

    def close(self) -> None:
        """
        End everything, after what can be done without time passing has been done.

        Closing twice is harmless.

        :raises LeakError: something was open or scheduled; the text says what.
        """
        if self._closed:
            return
        try:
            self.settle()
            leaks = self.leaks()
        finally:
            self.shut()
        if leaks:
            raise LeakError("left behind:\n" + "\n".join(f"  {leak}" for leak in leaks) + f"\n{self.story()}")

    def shut(self) -> None:
        """End everything, whatever is left open."""
        self._closed = True
        for host in self.living():
            host.switchOff()
        self._events.clear()


class _Placed:
    """The reactors of *network* in the global one's place, while it runs; nested runs share the outermost's."""

    __slots__ = ("_network", "_place")

    def __init__(self, network: MemoryNetwork) -> None:
        self._network = network
        self._place: InPlace | None = None

    def __enter__(self) -> None:
        network = self._network
        if network._closed:
            raise StalledError("the network is closed: nothing happens on it any more; make another one")
        if network._place is None:
            self._place = network._place = InPlace(network.reactor)
            self._place.__enter__()

    def __exit__(self, *failure: object) -> None:
        if self._place is not None:
            self._network._place = self._network._shown = None
            self._place.__exit__(*failure)


#: Lines of a trace that a failing test shows.
_LAST: Final = 60


def begun(what: Any) -> Deferred[Any]:
    """Call, or begin to wait for, *what* as :meth:`MemoryNetwork.run` takes it."""
    if callable(what):
        return maybeDeferred(_called, what)
    return _awaited(what)


def _called(function: Callable[[], Any]) -> Any:
    result = function()
    return _awaited(result) if isinstance(result, Deferred) or inspect.isawaitable(result) else result


def _awaited(what: Any) -> Deferred[Any]:
    return what if isinstance(what, Deferred) else Deferred.fromCoroutine(what)
