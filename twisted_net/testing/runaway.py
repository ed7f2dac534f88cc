"""What cannot go on, and what was left behind: the errors of a network in memory, and their reports."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.base import DelayedCall
from twisted.python.reflect import fullyQualifiedName, safe_repr

from twisted_net.testing.kernel.stream import StreamSocket

if TYPE_CHECKING:
    from twisted_net.testing.network import MemoryNetwork

#: Steps of a runaway network that are watched to learn who schedules what.
_WATCHED: Final = 200

#: Lines of a report on each thing, and frames of each creator.
_LINES: Final = 12
_FRAMES: Final = 3


class StalledError(AssertionError):
    """Nothing will ever happen any more, and what is waited for has not come."""


class RunawayError(AssertionError):
    """It goes on and on: a livelock, or timers without an end. The text says what was scheduled, and by whom."""


class LeakError(AssertionError):
    """Sockets or timers were left behind. The text names each."""


def leaksOf(network: MemoryNetwork) -> list[str]:
    """A line for each socket that is open, and each timer, on hosts that are not dead."""
    lines = []
    for host in network.living():
        lines += [f"{host.name}: {_socket(skt)}" for skt in host.sockets()]
        lines += [f"{host.name}: timer {_call(call, network.now)}" for call in host.reactor.getDelayedCalls()]
    return lines


def _socket(skt: Any) -> str:
    if not isinstance(skt, StreamSocket):
        return f"datagram socket {skt.label}"
    if skt.isListening:
        return f"listening socket {skt.label}"
    return f"connection {skt.label} to {'nobody' if skt.peer is None else skt.peer.label}"


def _call(call: DelayedCall, now: float) -> str:
    return f"{_function(call.func)} in {call.getTime() - now:g} s"


def _function(function: Any) -> str:
    try:
        return str(fullyQualifiedName(function))
    except AttributeError:
        return str(safe_repr(function))


def report(network: MemoryNetwork, what: str) -> str:
    """*what* has happened, what is scheduled, and what ran in the next steps, by whom it was scheduled.

    The network is run on for that.
    """
    ran = _watch(network)
    lines = [f"{what}.", "What is scheduled:"]
    lines += [f"  {line}" for line in leaksOf(network)[:_LINES]] or ["  nothing"]
    lines += [f"What ran in the next {_WATCHED} steps:"]
    for (name, creator), count in ran.most_common(_LINES):
        lines.append(f"  {count} times {name}{creator}")
    return "\n".join([*lines, network.story()])


def _watch(network: MemoryNetwork) -> Counter[tuple[str, str]]:
    ran: Counter[tuple[str, str]] = Counter()
    before = DelayedCall.debug
    DelayedCall.debug = True
    try:
        for _ in range(_WATCHED):
            at = network._next()
            if at is None:
                break
            for host in network.living():
                for call in host.reactor.getDelayedCalls():
                    if call.getTime() <= at:
                        ran[_function(call.func), _creator(call)] += 1
                for skt in host.ready:
                    ran[f"{skt.label} is ready", ""] += 1
            network.step(at)
    finally:
        DelayedCall.debug = before
    return ran


def _creator(call: Any) -> str:
    if not call.creator:
        return ""
    frames = [line for line in call.creator if "twisted_net/testing/" not in line]
    return ", scheduled by:\n" + "".join(frames[-_FRAMES:]).rstrip()
