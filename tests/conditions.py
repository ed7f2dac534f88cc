"""Machines as they are on other days: without descriptors, rights or IPv6, and with names that say anything."""

from __future__ import annotations

import os
import resource
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from twisted.internet._resolver import HostResolution
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IHostResolution, IResolutionReceiver

from twisted_net.address import isIP
from twisted_net.testing.clock import VirtualTime

NOBODY = 65534


def _hasIPv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as skt:
            skt.bind(("::1", 0))
    except OSError:
        return False
    return True


needsIPv6 = pytest.mark.skipif(not _hasIPv6(), reason="this machine has no IPv6 loopback address")


@contextmanager
def noDescriptors() -> Iterator[None]:
    """Within it nothing can be opened (EMFILE); what is open stays so."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextmanager
def unprivileged() -> Iterator[None]:
    """Within it root's rights are gone, so that permissions count; others have none to lose."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@contextmanager
def folderOfNobody(mode: int) -> Iterator[Path]:
    """A folder with these permissions for whoever is `unprivileged`, under folders that everybody can pass."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    try:
        if os.geteuid() == 0:
            os.chown(folder, NOBODY, NOBODY)
        folder.chmod(mode)
        yield folder
    finally:
        folder.chmod(0o700)
        shutil.rmtree(folder)


class NameService:
    """A resolver that has the same addresses for every name, and gives them when it is told to."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = addresses
        #: Name, port and kinds of address of each question.
        self.questions: list[tuple[str, int, Any]] = []
        self._receivers: list[tuple[IResolutionReceiver, int]] = []

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Any = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        self.questions.append((hostName, portNumber, addressTypes))
        self._receivers.append((resolutionReceiver, portNumber))
        resolution = HostResolution(hostName)
        resolutionReceiver.resolutionBegan(resolution)
        return resolution

    def answer(self) -> None:
        receivers, self._receivers = self._receivers, []
        for receiver, port in receivers:
            for address in self.addresses:
                kind = IPv6Address if isIP(address) == 6 else IPv4Address
                receiver.addressResolved(kind("TCP", address, port))
            receiver.resolutionComplete()


class KnowingNames(NameService):
    """One that answers at once."""

    def resolveHostName(self, *args: Any, **keywords: Any) -> IHostResolution:
        resolution: IHostResolution = super().resolveHostName(*args, **keywords)
        self.answer()
        return resolution


class Elsewhere(VirtualTime):
    """The running reactor with a clock and a name service of the test's own."""

    def __init__(self, names: NameService | None = None) -> None:
        from twisted.internet import reactor

        super().__init__(reactor)
        if names is not None:
            self.nameResolver = names


@contextmanager
def blackHole() -> Iterator[tuple[str, int]]:
    """An address at which connecting neither succeeds nor fails: its queue is full, so that every SYN is dropped."""
    with socket.socket() as hole, socket.socket() as first, socket.socket() as second:
        hole.bind(("127.0.0.1", 0))
        hole.listen(0)
        for client in (first, second):
            client.setblocking(False)
            client.connect_ex(hole.getsockname())
        yield hole.getsockname()


@contextmanager
def deadPort() -> Iterator[tuple[str, int]]:
    """An address at which connecting is refused: bound, so that nobody else gets it, and not listening."""
    with socket.socket() as skt:
        skt.bind(("127.0.0.1", 0))
        yield skt.getsockname()


@contextmanager
def fullQueue(path: str) -> Iterator[socket.socket]:
    """A UNIX server at ``path`` whose queue is full: connecting answers EAGAIN until it accepts."""
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind(path)
        server.listen(0)
        client.connect(path)
        yield server
