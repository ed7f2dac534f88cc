"""Options of datagram sockets and groups: what the kernel has afterwards, and what is refused."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from conditions import needsIPv6

from twisted_net.errors import AddressError, NetError, OptionError
from twisted_net.testing.network import MemoryNetwork
from twisted_net.wire.casting import DatagramOptions, joinGroup, leaveGroup, refusing

INET, INET6, UNIX = socket.AF_INET, socket.AF_INET6, socket.AF_UNIX
IP, IPV6, SOCKET = socket.IPPROTO_IP, socket.IPPROTO_IPV6, socket.SOL_SOCKET

GROUP, GROUP6 = "239.255.7.7", "ff02::7777"


@pytest.fixture(params=["loopback", "memory"])
def make(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Makes datagram sockets: of the kernel, and in memory."""
    if request.param == "memory":
        with MemoryNetwork() as network:
            yield lambda family: network.reactor.makeSocket(family, socket.SOCK_DGRAM)
    else:
        yield lambda family: socket.socket(family, socket.SOCK_DGRAM)


@pytest.mark.parametrize(
    ("family", "options", "level", "option", "value"),
    [
        (INET, {"broadcast": True}, SOCKET, socket.SO_BROADCAST, 1),
        (INET, {"ttl": 0}, IP, socket.IP_MULTICAST_TTL, 0),
        (INET, {"ttl": 255}, IP, socket.IP_MULTICAST_TTL, 255),
        (INET, {"loop": False}, IP, socket.IP_MULTICAST_LOOP, 0),
        (INET, {"unicastTtl": 7}, IP, socket.IP_TTL, 7),
        (INET, {"receiveBuffer": 5000}, SOCKET, socket.SO_RCVBUF, 10_000),
        (INET, {"sendBuffer": 5000}, SOCKET, socket.SO_SNDBUF, 10_000),
        pytest.param(INET6, {"ttl": 3}, IPV6, socket.IPV6_MULTICAST_HOPS, 3, marks=needsIPv6),
        pytest.param(INET6, {"loop": False}, IPV6, socket.IPV6_MULTICAST_LOOP, 0, marks=needsIPv6),
        pytest.param(INET6, {"unicastTtl": 7}, IPV6, socket.IPV6_UNICAST_HOPS, 7, marks=needsIPv6),
        pytest.param(INET6, {"interface": "lo"}, IPV6, socket.IPV6_MULTICAST_IF, 1, marks=needsIPv6),
    ],
)
def test_later(make: Any, family: int, options: dict[str, Any], level: int, option: int, value: int) -> None:
    with make(family) as skt:
        DatagramOptions().apply(skt)
        DatagramOptions(**options).prepare(skt)
        assert skt.getsockopt(level, option) != value
        DatagramOptions(**options).apply(skt)
        assert skt.getsockopt(level, option) == value


@pytest.mark.parametrize(
    ("family", "options", "level", "option", "value"),
    [
        (INET, {"reusePort": True}, SOCKET, socket.SO_REUSEPORT, 1),
        (INET, {"reuseAddress": True}, SOCKET, socket.SO_REUSEADDR, 1),
        pytest.param(INET6, {"ipv6Only": True}, IPV6, socket.IPV6_V6ONLY, 1, marks=needsIPv6),
    ],
)
def test_early(make: Any, family: int, options: dict[str, Any], level: int, option: int, value: int) -> None:
    with make(family) as skt:
        DatagramOptions(**options).apply(skt)
        assert skt.getsockopt(level, option) == 0
        DatagramOptions(**options).prepare(skt)
        assert skt.getsockopt(level, option) == value


def test_whereGroupsLeave(make: Any) -> None:
    with make(INET) as skt:
        DatagramOptions(interface="127.0.0.1").apply(skt)
        assert skt.getsockopt(IP, socket.IP_MULTICAST_IF, 4) == socket.inet_aton("127.0.0.1")


@pytest.mark.parametrize(
    "options",
    [
        {"reusePort": 1},
        {"ipv6Only": "yes"},
        {"broadcast": 0},
        {"ttl": -1},
        {"ttl": 256},
        {"ttl": True},
        {"ttl": 1.0},
        {"unicastTtl": 0},
        {"receiveBuffer": 0},
        {"sendBuffer": 2**30},
        {"interface": ""},
        {"interface": "l\0"},
        {"interface": 1},
        {"loops": True},
    ],
)
def test_noOptions(options: dict[str, Any]) -> None:
    [name] = options
    with pytest.raises(OptionError, match=name):
        DatagramOptions.named(options)


def test_byName() -> None:
    options = DatagramOptions.named({"ttl": 3, "broadcast": False})
    assert options == DatagramOptions(ttl=3, broadcast=False)
    assert options.given() == {"broadcast": False, "ttl": 3}


@pytest.mark.parametrize(
    ("family", "options", "kind"),
    [
        (UNIX, {"broadcast": True}, "UNIX"),
        (UNIX, {"reusePort": True}, "UNIX"),
        (UNIX, {"interface": "lo"}, "UNIX"),
        (INET, {"ipv6Only": True}, "IPv4"),
    ],
)
def test_notForThisKind(family: int, options: dict[str, Any], kind: str) -> None:
    chosen = DatagramOptions(**options)

    def setAll(skt: socket.socket) -> None:
        chosen.prepare(skt)
        chosen.apply(skt)

    with socket.socket(family, socket.SOCK_DGRAM) as skt, pytest.raises(OptionError, match=f"{kind} sockets have no"):
        setAll(skt)


def test_noInterface() -> None:
    with socket.socket(INET, socket.SOCK_DGRAM) as skt:
        with pytest.raises(NetError, match="interface 'nowhere0' is none of this machine") as caught:
            DatagramOptions(interface="nowhere0").apply(skt)
        assert (caught.value.code, caught.value.fault) == ("ENODEV", "user")
        with pytest.raises(NetError, match=r"setsockopt interface='192.0.2.77'") as caught:
            DatagramOptions(interface="192.0.2.77").apply(skt)
        assert caught.value.code == "EADDRNOTAVAIL"


def test_refusedOptions() -> None:
    skt = socket.socket(INET, socket.SOCK_DGRAM)
    skt.close()
    with pytest.raises(NetError, match="setsockopt ttl=3") as caught:
        DatagramOptions(ttl=3).apply(skt)
    assert caught.value.code == "EBADF"
    own = OptionError("own")
    with pytest.raises(OptionError) as kept, refusing("x", "y"):
        raise own
    assert kept.value is own


def memberships(family: int, group: str) -> bool:
    """Whether this machine hears *group* on its loopback interface (/proc/net/igmp, igmp6)."""
    if family == INET:
        with open("/proc/net/igmp") as table:
            return socket.inet_aton(group)[::-1].hex().upper() in table.read()
    with open("/proc/net/igmp6") as table:
        return socket.inet_pton(INET6, group).hex() in table.read()


@contextmanager
def bound(family: int) -> Iterator[socket.socket]:
    with socket.socket(family, socket.SOCK_DGRAM) as skt:
        skt.bind(("", 0))
        yield skt


@pytest.mark.parametrize(
    ("family", "group", "interface"),
    [
        (INET, GROUP, "127.0.0.1"),
        (INET, GROUP, "lo"),
        pytest.param(INET6, GROUP6, "lo", marks=needsIPv6),
    ],
)
def test_groups(family: int, group: str, interface: str) -> None:
    with bound(family) as skt:
        joinGroup(skt, group, interface)
        assert memberships(family, group)
        with pytest.raises(NetError, match="is a member already") as caught:
            joinGroup(skt, group, interface)
        assert caught.value.code == "EADDRINUSE"
        leaveGroup(skt, group, interface)
        assert not memberships(family, group)
        with pytest.raises(NetError, match="is no member") as caught:
            leaveGroup(skt, group, interface)
        assert (caught.value.code, caught.value.address, caught.value.syscall) == ("EADDRNOTAVAIL", group, "leave")


def test_groupsInMemory() -> None:
    """Where no interface is named, the routes decide; here, all of them lead to the network."""
    with MemoryNetwork() as network:
        for family, group in ((INET, GROUP), (INET6, GROUP6)):
            with network.reactor.makeSocket(family, socket.SOCK_DGRAM) as skt:
                joinGroup(skt, group)
                assert skt.isMember(group)
                leaveGroup(skt, group)
                assert not skt.isMember(group)


@pytest.mark.parametrize(
    ("family", "group"),
    [
        (INET, "127.0.0.1"),
        (INET, GROUP6),
        (INET6, GROUP),
        (INET6, "::1"),
        (INET, "group.test"),
        (UNIX, GROUP),
    ],
)
def test_noGroups(family: int, group: str) -> None:
    with MemoryNetwork() as network:
        make = socket.socket if family == UNIX else network.reactor.makeSocket
        message = f"join: '{group}' is no group that"
        with make(family, socket.SOCK_DGRAM) as skt, pytest.raises(AddressError, match=message):
            joinGroup(skt, group)


def test_refusedGroups() -> None:
    """What the kernel says and this file has no sentence for."""
    skt = socket.socket(INET, socket.SOCK_DGRAM)
    skt.close()
    with pytest.raises(NetError, match=r"join 239\.255\.7\.7: Bad file descriptor; see ip\(7\)") as caught:
        joinGroup(skt, GROUP)
    assert caught.value.errno == errno.EBADF
