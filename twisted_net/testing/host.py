"""A computer in memory: names and addresses, one reactor, and what a kernel keeps for one program."""

from __future__ import annotations

import errno
import socket
import struct
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from twisted_net.errors import OptionError
from twisted_net.testing.kernel.datagram import MemoryUdpSocket
from twisted_net.testing.kernel.link import Road
from twisted_net.testing.kernel.ports import Ports, address, isLoopback
from twisted_net.testing.kernel.sockets import Place, Socket, failure
from twisted_net.testing.kernel.stream import StreamSocket

if TYPE_CHECKING:
    from twisted_net.testing.network import MemoryNetwork
    from twisted_net.testing.reactor import MemoryReactor

#: Descriptors that a program may have: the usual RLIMIT_NOFILE of a service.
DESCRIPTORS: Final = 65_536

#: The first number of a descriptor. None of this process' descriptors has such a number, so that whatever takes one for
#: the other fails (``EBADF``) and hits nobody.
FIRST_DESCRIPTOR: Final = 1_000_000_000

_CALLS: Final = ("accept", "bind", "connect", "listen", "socket")


class Host:
    """
    One host of a :class:`~twisted_net.testing.network.MemoryNetwork`, which makes it.

    :ivar name: what it is called, on the network and in traces.
    :ivar addresses: its IP addresses, loopback not included.
    :ivar reactor: the reactor of the one program that runs on it.
    :ivar credentials: process, user and group, as SO_PEERCRED shows them to whoever is connected by a UNIX socket
        (``struct.pack("3i", pid, uid, gid)``).
    :ivar descriptorLimit: how many sockets may be open, as RLIMIT_NOFILE.
    :ivar ready: sockets that the reactor has to serve.
    """

    reactor: MemoryReactor

    def __init__(self, network: MemoryNetwork, name: str, addresses: tuple[str, ...], number: int) -> None:
        self.network = network
        self.name = name
        self.addresses = addresses
        self.credentials = struct.pack("3i", number + 1, 1000, 1000)
        self.descriptorLimit = DESCRIPTORS
        self.ready: deque[Socket] = deque()
        self.ports = Ports(self)
        #: The road of its UNIX sockets: what is sent there is there, whatever is left to chance elsewhere.
        self.inside = Road(self, self, calm=True)
        #: Switched off without a word: see :meth:`die`.
        self.dead = False
        #: The program does not run: see :meth:`freeze`.
        self.frozen = False
        self._descriptors: dict[int, Socket | None] = {}
        self._nextDescriptor = FIRST_DESCRIPTOR
        self._failures: dict[str, deque[int]] = {}

    def __repr__(self) -> str:
        return f"<Host {self.name} {' '.join(self.addresses)}>"

    # -- addresses

    @property
    def address(self) -> str:
        """Its first address."""
        return self.addresses[0]

    def has(self, text: str) -> bool:
        """Whether the IP address *text* is one of this host's."""
        return isLoopback(text) or text in self.addresses

    def addressOf(self, family: int) -> str:
        """Its address of *family*.

        :raises OSError: ``EADDRNOTAVAIL`` when it has none.
        """
        for text in self.addresses:
            if (":" in text) == (family == socket.AF_INET6):
                return text
        raise failure(errno.EADDRNOTAVAIL)

    def labelOf(self, place: Place) -> str:
        """What a socket of this host at *place* is called in traces."""
        if isinstance(place, tuple):
            return f"{self.name}:{place[1]}"
        return f"{self.name}:{place.decode() if isinstance(place, bytes) else place}".replace("\0", "@")

    # -- descriptors

    def socket(self, family: int, kind: int) -> Socket:
        """A socket of this host's.

        :raises OSError: ``EMFILE`` when too many are open; ``EAFNOSUPPORT``.
        """
        self.maybeFail("socket")
        return StreamSocket(self, family) if kind == socket.SOCK_STREAM else MemoryUdpSocket(self, family)

    def openDescriptor(self, skt: Socket | None) -> int:
        """Give *skt* a number; None is no socket, but takes one all the same.

        :raises OSError: ``EMFILE`` when there is none left.
        """
        if len(self._descriptors) >= self.descriptorLimit:
            raise failure(errno.EMFILE)
        self._nextDescriptor += 1
        self._descriptors[self._nextDescriptor] = skt
        return self._nextDescriptor

    def closeDescriptor(self, number: int) -> None:
        """Take the number back."""
        self._descriptors.pop(number, None)

    def descriptorsLeft(self) -> int:
        """How many more sockets can be opened."""
        return self.descriptorLimit - len(self._descriptors)

    def hasDescriptor(self, number: int) -> bool:
        """Whether *number* is one of this host's, open or not."""
        return FIRST_DESCRIPTOR < number <= self._nextDescriptor

    def descriptor(self, number: int) -> Socket:
        """The open socket of that number.

        :raises OSError: ``EBADF`` when there is none.
        """
        skt = self._descriptors.get(number)
        if skt is None:
            raise failure(errno.EBADF)
        return skt

    def sockets(self) -> list[Socket]:
        """Every open socket, in the order in which they were opened."""
        return [skt for skt in self._descriptors.values() if skt is not None]

    def streams(self) -> Iterator[StreamSocket]:
        """Those of them that are streams."""
        return (skt for skt in self.sockets() if isinstance(skt, StreamSocket))

    # -- breaking it

    def failing(self, call: str, code: str, times: int = 1) -> None:
        """
        Let the next calls of the program's fail.

        :param call: ``"accept"``, ``"bind"``, ``"connect"``, ``"listen"`` or ``"socket"``; ``"bind:80"`` for that port.
        :param code: the errno's name, such as ``"EMFILE"`` or ``"EADDRINUSE"``.
        :param times: how many calls.
        :raises OptionError: for another call, or a name that no errno has.
        """
        if call.partition(":")[0] not in _CALLS:
            raise OptionError(f"call is {call!r}; it must be one of {', '.join(_CALLS)}")
        number = getattr(errno, code, None)
        if number is None:
            raise OptionError(f'code is {code!r}; it must be the name of an errno, such as "EMFILE"')
        self._failures.setdefault(call, deque()).extend([number] * times)

    def maybeFail(self, call: str) -> None:
        """Raise what :meth:`failing` has asked for."""
        waiting = self._failures.get(call)
        if waiting:
            raise failure(waiting.popleft())

    def freeze(self) -> None:
        """Stop the program, as SIGSTOP does: its kernel goes on to acknowledge what comes, and nobody reads it."""
        self.frozen = True

    def thaw(self) -> None:
        """Take :meth:`freeze` back: timers that are overdue run at once."""
        self.frozen = False

    def die(self) -> None:
        """Switch it off, and cut its links: nobody is told anything, by anybody, ever."""
        self.network.isolate(self)
        self.switchOff()

    def switchOff(self) -> None:
        """Its program ends where it stands, and all its sockets are gone."""
        self.dead = True
        for skt in self.sockets():
            skt.vanish()
        self._descriptors.clear()
        self.ready.clear()


def canonicalAddresses(addresses: tuple[str, ...]) -> tuple[str, ...]:
    """The addresses in the one way to write them.

    :raises OptionError: for what is no IP address.
    """
    try:
        return tuple(address(socket.AF_INET6 if ":" in text else socket.AF_INET, text) for text in addresses)
    except OSError as error:
        raise OptionError(f"addresses are {addresses!r}; each must be an IP address, such as '10.0.0.7'") from error
