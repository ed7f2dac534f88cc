"""
Who may enter, how fast, and for how long.

:class:`Limits` says it, as one value that is checked when it is made. Two of the three kinds are enforced with what
stands here: :class:`Admission` counts who is in and answers who may enter, :class:`Meter` turns bytes into seconds of
silence. The third kind, the deadlines, are plain numbers for the clocks of a connection.

Admission is asked per peer, and what *one peer* is, :func:`peerKey` decides. An IPv6 host has a whole /64 to itself
(RFC 4291, 2.5.1), so single addresses would count nothing. An IPv4 client on a dual-stack port comes as
``::ffff:192.0.2.1``; all of IPv4 is in one such /64, so those count as the IPv4 addresses that they are. A peer on a
UNIX socket is the user that it runs as.

Memory is bounded by the connections that are there: a peer's entry leaves with its last connection.
"""

from __future__ import annotations

import socket
from collections.abc import Hashable
from dataclasses import dataclass, fields
from math import inf
from typing import Final, Literal

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress

from twisted_net.errors import OptionError
from twisted_net.sansio.bucket import TokenBucket

__all__ = ["Admission", "Limits", "Meter", "peerKey"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """
    Bounds for the connections of a server; those that concern one connection serve a client too.

    ``None`` is no bound, and everything is unbounded unless said. Counts are whole numbers, rates are bytes (or
    connections) a second, times are seconds.

    :raises OptionError: a value that is of the wrong type or out of range.
    """

    connections: int | None = None
    """Connections at once; 0 admits nobody."""

    perPeer: int | None = None
    """Connections at once from one peer (see ``peerPrefix``); 0 admits nobody."""

    acceptRate: float | None = None
    """New connections a second, with one second's worth at once after a silence."""

    readRate: float | None = None
    """Bytes a second that one connection may send us."""

    readRateTotal: float | None = None
    """Bytes a second that all connections together may send us."""

    writeRate: float | None = None
    """Bytes a second that one connection is sent."""

    writeRateTotal: float | None = None
    """Bytes a second that all connections together are sent."""

    burst: float | None = None
    """Bytes that may pass at once after a silence, for each rate of bytes; default one second's worth."""

    idleTimeout: float | None = None
    """Seconds without a byte in either direction after which a connection is closed."""

    handshakeTimeout: float | None = None
    """Seconds within which the first byte has to come."""

    lifetime: float | None = None
    """Seconds after which a connection is closed, whatever it does."""

    halfOpenTimeout: float | None = None
    """Seconds without a byte for which a connection may stay half-open."""

    peerPrefix: tuple[int, int] = (32, 64)
    """How many leading bits of an IPv4 and of an IPv6 address make one peer."""

    mode: Literal["refuse", "wait"] = "refuse"
    """What becomes of a connection over a limit: closed at once, or unread until there is room."""

    reserve: int = 8
    """Descriptors that are kept free for everything that is no connection of this server."""

    def __post_init__(self) -> None:
        for field in fields(self):
            check = _CHECKS.get(field.name, _checkPositive)
            value = getattr(self, field.name)
            if value is not None or field.default is not None:
                check(field.name, value)


def _checkPositive(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < inf:
        raise OptionError(f"{name} is {value!r}; it must be a finite number more than 0, or None for no limit")


def _checkCount(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise OptionError(f"{name} is {value!r}; it must be a whole number, 0 or more{_ORNONE.get(name, '')}")


def _checkMode(name: str, value: object) -> None:
    if value not in ("refuse", "wait"):
        raise OptionError(f'{name} is {value!r}; it must be "refuse" or "wait"')


def _checkPrefix(name: str, value: object) -> None:
    if isinstance(value, tuple) and len(value) == 2 and all(type(bits) is int for bits in value):
        four, six = value
        if 0 <= four <= 32 and 0 <= six <= 128:
            return
    raise OptionError(f"{name} is {value!r}; it must be two numbers of bits, 0 to 32 and 0 to 128, such as (32, 64)")


_ORNONE: Final = dict.fromkeys(("connections", "perPeer"), ", or None for no limit")

_CHECKS: Final = {
    "connections": _checkCount,
    "perPeer": _checkCount,
    "reserve": _checkCount,
    "mode": _checkMode,
    "peerPrefix": _checkPrefix,
}


# Who may enter

_MAPPED: Final = bytes(10) + b"\xff\xff"


def peerKey(addr: IAddress | None, prefix: tuple[int, int] = (32, 64), uid: int | None = None) -> Hashable:
    """
    Return what a connection from ``addr`` is counted under: the same for two connections of one peer.

    :param prefix: as :attr:`Limits.peerPrefix`.
    :param uid: the user at the other end of a UNIX socket (unix(7): ``SO_PEERCRED``); those whose user is unknown
        count together.
    """
    if isinstance(addr, UNIXAddress):
        return "unix", uid
    if not isinstance(addr, IPv4Address | IPv6Address):
        return "other", str(addr)
    family = socket.AF_INET6 if isinstance(addr, IPv6Address) else socket.AF_INET
    try:
        packed = socket.inet_pton(family, addr.host.partition("%")[0])
    except OSError:  # not every transport that is made in memory has numbers for addresses
        return "other", addr.host
    packed = packed.removeprefix(_MAPPED) if family == socket.AF_INET6 else packed
    size = 8 * len(packed)
    bits = prefix[0] if size == 32 else prefix[1]
    # One number, whose highest bit tells the families apart: there is one for each connection.
    return 1 << size | int.from_bytes(packed) >> (size - bits)


class Admission:
    """
    Who is in, and whether one more may enter.

    :param limits: ``connections``, ``perPeer`` and ``acceptRate`` of it count here. Another may be assigned at any
        time; those who are in stay in.
    :param now: the time, in seconds of the clock that the other calls go by.
    """

    __slots__ = ("_bucket", "_limits", "_peers", "count")

    def __init__(self, limits: Limits, now: float = 0.0) -> None:
        self._limits = limits
        self._bucket = _bucketFor(limits, now)
        self._peers: dict[Hashable, int] = {}
        #: How many are in.
        self.count = 0

    @property
    def limits(self) -> Limits:
        """The limits in force."""
        return self._limits

    @limits.setter
    def limits(self, limits: Limits) -> None:
        if limits.acceptRate != self._limits.acceptRate:
            self._bucket = _bucketFor(limits, 0.0)
        self._limits = limits

    def ask(self, key: Hashable, now: float) -> Literal["connections", "perPeer", "acceptRate"] | None:
        """
        Say whether a connection of the peer ``key`` may enter: ``None``, or the name of the limit that is in its way.

        With ``None`` its share of ``acceptRate`` is taken: :meth:`enter` has to follow.
        """
        limits = self._limits
        if limits.connections is not None and self.count >= limits.connections:
            return "connections"
        if limits.perPeer is not None and self.countOf(key) >= limits.perPeer:
            return "perPeer"
        if self._bucket is not None:
            if self._bucket.wait(1, now) > 0:
                return "acceptRate"
            self._bucket.take(1, now)
        return None

    def enter(self, key: Hashable) -> None:
        """Count one more connection of the peer ``key``."""
        self._peers[key] = self.countOf(key) + 1
        self.count += 1

    def leave(self, key: Hashable) -> None:
        """
        Count one connection of the peer ``key`` less.

        :raises KeyError: none of that peer is in.
        """
        left = self._peers[key] - 1
        self.count -= 1
        if left:
            self._peers[key] = left
        else:
            del self._peers[key]

    def wait(self, now: float) -> float:
        """Return the seconds until ``acceptRate`` allows one more; 0.0 when it does now."""
        return 0.0 if self._bucket is None else self._bucket.wait(1, now)

    def countOf(self, key: Hashable) -> int:
        """Return how many connections of the peer ``key`` are in."""
        return self._peers.get(key, 0)

    @property
    def peers(self) -> int:
        """How many peers are in: the size of the table."""
        return len(self._peers)


def _bucketFor(limits: Limits, now: float) -> TokenBucket | None:
    return None if limits.acceptRate is None else TokenBucket(limits.acceptRate, None, now)


# How fast


class Meter:
    """
    A chain of token buckets that the same bytes go through: a connection's own, and the one that all share.

    :param buckets: ``None`` among them is left out.
    """

    __slots__ = ("_buckets", "rate")

    def __init__(self, *buckets: TokenBucket | None) -> None:
        self._buckets = tuple(bucket for bucket in buckets if bucket is not None)
        #: Tokens a second that the narrowest of them lets through; infinite when there is none.
        self.rate: float = min((bucket.rate for bucket in self._buckets), default=inf)

    def charge(self, amount: float, now: float) -> float:
        """Take ``amount`` from every bucket; return the seconds until the largest debt is paid, or 0.0."""
        debt = 0.0
        for bucket in self._buckets:
            debt = max(debt, bucket.take(amount, now))
        return debt
