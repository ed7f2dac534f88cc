"""
Whom a datagram is for: from what a program says to what a socket is given, and back.

What is plain (an IP address, a path, the address of a datagram that came) has its place at once, and texts and places
that were seen lately are remembered. A name is looked up each time it is used: it may mean another address tomorrow,
and only who asks knows how long an answer is good. Who sends a lot to a name connects to it.
"""

from __future__ import annotations

import os
import socket
from functools import lru_cache
from typing import Any, TypeAlias

from twisted_net.address import Address, TcpTarget, UdpTarget, UnixTarget, isIP, isIPv4, parseTarget
from twisted_net.errors import AddressError
from twisted_net.wire.lookup import lookup
from twisted_net.wire.waiting import outcome

__all__ = ["Destination", "RawPlace", "addressOf", "datagramTarget", "locate", "placeOf", "targetOf"]

#: An address as the socket module has it.
RawPlace: TypeAlias = Any

Destination: TypeAlias = str | Address | UdpTarget | UnixTarget | tuple[str, int]
"""Whom to send to: ``"host:port"``, ``"/path"``, an address that came with a datagram, a target, or (host, port)."""


async def locate(reactor: Any, family: int, destination: Destination) -> RawPlace:
    """
    The place of *destination*, as sockets of *family* are given it. A name is looked up, each time.

    :raises AddressError: it is none, or none for such a socket.
    :raises NetError: the name has no address.
    """
    place = placeOf(family, destination)
    if place is not None:
        return place
    target = targetOf(destination)
    assert isinstance(target, UdpTarget), "every other one has its place"
    hosts = await outcome(reactor, lookup(reactor, target.host, target.port, 4 if family == socket.AF_INET else 0))
    # A socket of IPv6 reaches IPv4 too, but who has both is called by the address of the socket's own kind.
    hosts.sort(key=isIPv4)
    return _internetPlace(family, hosts[0], target.port)


@lru_cache(maxsize=1024)
def _placeOf(family: int, destination: Destination) -> RawPlace:
    target = targetOf(destination)
    if isinstance(target, UnixTarget):
        if family != socket.AF_UNIX:
            raise AddressError(f"{target} is a UNIX address; an internet socket sends to host:port", address=target)
        return target.path
    if family == socket.AF_UNIX:
        raise AddressError(f"{target} is an internet address; a UNIX socket sends to unix:/path", address=target)
    host = target.host or ("127.0.0.1" if family == socket.AF_INET else "::1")
    return _internetPlace(family, host, target.port) if isIP(host) else None


def placeOf(family: int, destination: Destination) -> RawPlace:
    """
    The place of *destination*, as sockets of *family* are given it; None for a name, which has to be looked up.

    :raises AddressError: it is none, or none for such a socket.
    """
    try:
        return _placeOf(family, destination)
    except TypeError:
        raise _noDestination(destination) from None


def _internetPlace(family: int, host: str, port: int) -> RawPlace:
    if not port:
        raise AddressError(f"{host} port 0: nobody can be reached there; give a port from 1 to 65535", address=host)
    if family == socket.AF_INET6 and isIPv4(host):
        host = f"::ffff:{host}"  # RFC 4291, 2.5.5.2
    if family == socket.AF_INET and not isIPv4(host):
        raise AddressError(f"{host} is an IPv6 address, and this socket speaks IPv4; bind one at [::]:0", address=host)
    return host, port


def targetOf(destination: Any) -> UdpTarget | UnixTarget:
    """
    *destination* as a target.

    :raises AddressError: it is none.
    """
    if isinstance(destination, str):
        return datagramTarget(destination)
    if isinstance(destination, UdpTarget | UnixTarget):
        return destination
    if isinstance(destination, Address) and destination.family == "unix":
        if not destination.address:
            raise AddressError("the sender has no name, so nobody can answer it; bind it to a path, or connect it")
        return UnixTarget(destination.address)
    if isinstance(destination, Address) and destination.port is not None:
        return UdpTarget(destination.address, destination.port)
    if isinstance(destination, tuple) and len(destination) == 2:
        return UdpTarget(*destination)
    raise _noDestination(destination)


def datagramTarget(text: str) -> UdpTarget | UnixTarget:
    """
    Where *text* says: ``"host:port"`` and ``"udp:host:port"``, ``"/path"`` and ``"unix:/path"``.

    :raises AddressError: it says nothing of the kind.
    """
    target = parseTarget(text)
    if isinstance(target, TcpTarget):
        return UdpTarget(target.host, target.port)
    if isinstance(target, UdpTarget | UnixTarget):
        return target
    raise AddressError(f"{text!r} is no address of datagrams; write host:port or unix:/path", address=text)


def _noDestination(destination: object) -> AddressError:
    return AddressError(
        f'{destination!r} is nobody to send to; give "host:port", "unix:/path", (host, port), or the address of a '
        "datagram that came",
        address=destination,
    )


@lru_cache(maxsize=1024)
def addressOf(family: int, place: RawPlace) -> Address:
    """*place*, as a socket of *family* tells it, as an address."""
    if family == socket.AF_UNIX:
        return Address(os.fsdecode(place or b""), None, "unix")
    return Address(place[0], place[1], "IPv6" if family == socket.AF_INET6 else "IPv4")
