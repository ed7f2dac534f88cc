"""
Who gets to hear a datagram: options of datagram sockets, and groups.

A datagram goes to one receiver, to everybody on the local network (broadcast, IPv4 alone), or to the members of a group
(multicast). The last two are a matter of options of the sending socket, and of a membership of the receiving one; both
exist twice, for IPv4 and for IPv6, with other numbers and other forms (ip(7), ipv6(7)). Here each of them has one name.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any, Final

from twisted_net.address import isIP, isIPv4
from twisted_net.errors import AddressError, NetError, OptionError, forErrno
from twisted_net.wire.reasons import translate

__all__ = ["DatagramOptions", "joinGroup", "leaveGroup", "refusing"]


@contextmanager
def refusing(where: object, syscall: str) -> Iterator[None]:
    """What the system refuses within is raised as one of our errors."""
    try:
        yield
    except NetError:
        raise
    except OSError as error:
        refusal = translate(error, address=where, syscall=syscall)
        assert refusal is not None, "an OSError is no clean end"
        raise refusal from error


@dataclass(frozen=True, slots=True)
class DatagramOptions:
    """
    Options of a datagram socket; None leaves what the system has.

    :raises OptionError: a value is of the wrong type, or out of range.
    """

    reusePort: bool | None = None
    """Several sockets may bind the port (SO_REUSEPORT, socket(7)): the system spreads senders over them."""

    reuseAddress: bool | None = None
    """Several sockets may bind the port (SO_REUSEADDR): all of them hear its groups, one of them the rest."""

    ipv6Only: bool | None = None
    """A socket of ``"[::]"`` does not hear IPv4; without it, it does."""

    broadcast: bool | None = None
    """Sending to a broadcast address is allowed."""

    ttl: int | None = None
    """How many networks a datagram to a group may cross, 0 to 255; 0 stays on this machine. The system has 1."""

    loop: bool | None = None
    """Groups that this machine is a member of hear what it sends itself. The system has True."""

    interface: str | None = None
    """Where datagrams to groups leave: the name of an interface, or its IPv4 address."""

    unicastTtl: int | None = None
    """How many routers any other datagram may cross, 1 to 255."""

    receiveBuffer: int | None = None
    """Bytes that the kernel keeps until they are read (SO_RCVBUF); it takes twice of it, and no more than
    ``net.core.rmem_max``."""

    sendBuffer: int | None = None
    """Bytes that the kernel keeps until they are sent (SO_SNDBUF). On a UNIX socket it bounds the longest datagram."""

    def __post_init__(self) -> None:
        for name, value in self.given().items():
            _CHECKS[name](name, value)

    @classmethod
    def named(cls, options: Mapping[str, Any]) -> DatagramOptions:
        """
        Options by name.

        :raises OptionError: a name is none of these, or as above.
        """
        known = [field.name for field in fields(cls)]
        for name in options:
            if name not in known:
                raise OptionError(f"there is no option {name!r}; there are {', '.join(known)}")
        return cls(**options)

    def given(self) -> dict[str, Any]:
        """Those that are set, by name."""
        return {field.name: value for field in fields(self) if (value := getattr(self, field.name)) is not None}

    def prepare(self, skt: Any) -> None:
        """Set on *skt* what has to be set before it is bound.

        :raises NetError: the system refuses.
        """
        self._set(skt, EARLY)

    def apply(self, skt: Any) -> None:
        """Set on *skt* everything else; to be called at any time.

        :raises OptionError: there is something that sockets of this kind do not have.
        :raises NetError: the system refuses.
        """
        self._set(skt, _LATE)
        if self.interface is not None:
            with refusing(f"interface={self.interface!r}", "setsockopt"):
                skt.setsockopt(*_interfaceOption(skt.family, self.interface))

    def _set(self, skt: Any, numbers: Mapping[str, _Numbers]) -> None:
        for name, value in self.given().items():
            if name not in numbers:
                continue
            if skt.family not in numbers[name]:
                raise _foreign(name, value, skt.family)
            with refusing(f"{name}={value!r}", "setsockopt"):
                skt.setsockopt(*numbers[name][skt.family], int(value))


def joinGroup(skt: Any, group: str, interface: str | None = None) -> None:
    """
    Hear what is sent to *group* at the port that *skt* is bound to.

    :param group: an IP address of the socket's version: ``"239.1.2.3"``, ``"ff02::1234"``.
    :param interface: where it is to be heard: as in :class:`DatagramOptions`. None: where the system's routes point to.
    :raises AddressError: *group* is none.
    :raises NetError: the system refuses: ``EADDRINUSE`` for a member, ``ENODEV`` when no interface leads there.
    """
    _change(skt, "join", _JOIN, group, interface)


def leaveGroup(skt: Any, group: str, interface: str | None = None) -> None:
    """
    Hear it no more; closing leaves every group.

    :raises NetError: as :func:`joinGroup`; ``EADDRNOTAVAIL`` for who is no member.
    """
    _change(skt, "leave", _LEAVE, group, interface)


def _change(skt: Any, verb: str, numbers: _Numbers, group: str, interface: str | None) -> None:
    version = 6 if skt.family == socket.AF_INET6 else 4
    if skt.family not in numbers or isIP(group) != version or not ipaddress.ip_address(group).is_multicast:
        raise AddressError(
            f"{verb}: {group!r} is no group that {_KINDS[skt.family]} sockets know; give an address from 224.0.0.0 to "
            "239.255.255.255 for IPv4, or one that begins with ff for IPv6",
            address=group,
        )
    if version == 4:
        membership = socket.inet_aton(group) + _interface4(interface)
    else:
        membership = socket.inet_pton(socket.AF_INET6, group) + struct.pack("i", _interface6(interface))
    try:
        skt.setsockopt(*numbers[skt.family], membership)
    except OSError as error:
        number = error.errno or 0
        what = _GROUP_SENTENCES.get(number, f"{os.strerror(number)}; see ip(7) and ipv6(7)")
        raise forErrno(number, f"{verb} {group}: {what}", address=group, syscall=verb) from error


def _interfaceOption(family: int, interface: str) -> tuple[int, int, Any]:
    """Level, number and value for `DatagramOptions.interface`."""
    if family == socket.AF_INET:
        value = socket.inet_aton(interface) if isIPv4(interface) else bytes(4) + _interface4(interface)
        return socket.IPPROTO_IP, socket.IP_MULTICAST_IF, value
    if family == socket.AF_INET6:
        return socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, _interface6(interface)
    raise _foreign("interface", interface, family)


def _foreign(name: str, value: object, family: int) -> OptionError:
    return OptionError(f"{name} is {value!r}; {_KINDS[family]} sockets have no such option; leave it out")


def _interface4(interface: str | None) -> bytes:
    """The end of an ``ip_mreqn``: the interface's address, or its number."""
    if interface is None:
        return bytes(8)
    if isIPv4(interface):
        return socket.inet_aton(interface) + bytes(4)
    return struct.pack("4si", bytes(4), _interface6(interface))


def _interface6(interface: str | None) -> int:
    """The number of an interface; 0 is any."""
    if interface is None:
        return 0
    try:
        return socket.if_nametoindex(interface)
    except OSError as error:
        raise NetError(
            f"interface {interface!r} is none of this machine; name one (ip(8) lists them), or give its IPv4 address "
            "on an IPv4 socket",
            code="ENODEV",
            fault="user",
            address=interface,
        ) from error


def _checkFlag(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise OptionError(f"{name} is {value!r}; it must be True or False, or None for the system's choice")


def _checkNumber(lowest: int, highest: int) -> Callable[[str, object], None]:
    def check(name: str, value: object) -> None:
        if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= highest:
            raise OptionError(f"{name} is {value!r}; it must be a whole number from {lowest} to {highest}")

    return check


def _checkText(name: str, value: object) -> None:
    if not isinstance(value, str) or not value or "\0" in value:
        raise OptionError(f"{name} is {value!r}; give the name of an interface, or its IPv4 address")


#: An int of C, as setsockopt(2) takes it; the kernel doubles it.
_LARGEST_BUFFER: Final = 2**30 - 1

_CHECKS: Final[dict[str, Callable[[str, object], None]]] = {
    "reusePort": _checkFlag,
    "reuseAddress": _checkFlag,
    "ipv6Only": _checkFlag,
    "broadcast": _checkFlag,
    "ttl": _checkNumber(0, 255),
    "loop": _checkFlag,
    "interface": _checkText,
    "unicastTtl": _checkNumber(1, 255),
    "receiveBuffer": _checkNumber(1, _LARGEST_BUFFER),
    "sendBuffer": _checkNumber(1, _LARGEST_BUFFER),
}

_Numbers = dict[int, tuple[int, int]]
"""Level and number of an option, for each family that has it."""


def _everywhere(option: int, *families: int) -> _Numbers:
    return dict.fromkeys(families, (socket.SOL_SOCKET, option))


def _both(option4: int, option6: int) -> _Numbers:
    return {socket.AF_INET: (socket.IPPROTO_IP, option4), socket.AF_INET6: (socket.IPPROTO_IPV6, option6)}


_INTERNET: Final = (socket.AF_INET, socket.AF_INET6)

# What has to be set before the socket is bound.
EARLY: Final[dict[str, _Numbers]] = {
    "reusePort": _everywhere(socket.SO_REUSEPORT, *_INTERNET),
    "reuseAddress": _everywhere(socket.SO_REUSEADDR, *_INTERNET),
    "ipv6Only": {socket.AF_INET6: (socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)},
}

_LATE: Final[dict[str, _Numbers]] = {
    "broadcast": _everywhere(socket.SO_BROADCAST, *_INTERNET),
    "ttl": _both(socket.IP_MULTICAST_TTL, socket.IPV6_MULTICAST_HOPS),
    "loop": _both(socket.IP_MULTICAST_LOOP, socket.IPV6_MULTICAST_LOOP),
    "unicastTtl": _both(socket.IP_TTL, socket.IPV6_UNICAST_HOPS),
    "receiveBuffer": _everywhere(socket.SO_RCVBUF, *_INTERNET, socket.AF_UNIX),
    "sendBuffer": _everywhere(socket.SO_SNDBUF, *_INTERNET, socket.AF_UNIX),
}

_JOIN: Final = _both(socket.IP_ADD_MEMBERSHIP, socket.IPV6_JOIN_GROUP)
_LEAVE: Final = _both(socket.IP_DROP_MEMBERSHIP, socket.IPV6_LEAVE_GROUP)

_KINDS: Final[dict[int, str]] = {socket.AF_INET: "IPv4", socket.AF_INET6: "IPv6", socket.AF_UNIX: "UNIX"}

_GROUP_SENTENCES: Final = {
    errno.EADDRINUSE: "this socket is a member already; join a group once on each interface",
    errno.EADDRNOTAVAIL: "this socket is no member; leave what was joined, on the same interface",
    errno.ENODEV: "no interface leads there; name one with interface=",
    errno.ENOBUFS: "this socket is a member of too many groups; use another one (net.ipv4.igmp_max_memberships)",
}
