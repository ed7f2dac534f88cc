"""What a test leaves behind in this process: taken before, taken after, and compared.

Everything is read from where it really stands: descriptors and children from ``/proc``, timers and readers from the
reactor, socket files from the folders that the test could write to. A thing counts as left behind when it is there
afterwards and was not there before, so that one leak is reported once, by the test that made it.
"""

from __future__ import annotations

import gc
import os
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from twisted.internet.interfaces import IDelayedCall, IReadDescriptor, IWriteDescriptor


class Reactor(Protocol):
    """The part of a reactor that tells what it is holding."""

    def getDelayedCalls(self) -> Iterable[IDelayedCall]: ...

    def getReaders(self) -> Iterable[IReadDescriptor]: ...

    def getWriters(self) -> Iterable[IWriteDescriptor]: ...


@dataclass(frozen=True, slots=True)
class Holdings:
    """What this process holds at one moment.

    The reactor's things are kept themselves, next to their description, so that no later object can take the identity
    of one that has gone.
    """

    descriptors: frozenset[tuple[int, str]]
    children: frozenset[int]
    reactor: dict[int, tuple[str, object]]
    sockets: frozenset[Path]

    def since(self, before: Holdings) -> list[str]:
        """What is here and was not there *before*: one readable line each."""
        lines = [f"descriptor {number}: {target}" for number, target in sorted(self.descriptors - before.descriptors)]
        lines += [f"child process {number}: {_command(number)}" for number in sorted(self.children - before.children)]
        lines += [text for key, (text, _) in self.reactor.items() if key not in before.reactor]
        lines += [f"socket file {path}" for path in sorted(self.sockets - before.sockets)]
        return lines


def take(reactor: Reactor, folders: Iterable[Path] = ()) -> Holdings:
    """Look at this process, at *reactor*, and at the socket files in *folders*."""
    held: dict[int, tuple[str, object]] = {}
    for call in reactor.getDelayedCalls():
        held[id(call)] = (f"delayed call: {call}", call)
    for reader in reactor.getReaders():
        held[id(reader)] = (f"reader: {reader!r}", reader)
    for writer in reactor.getWriters():
        held.setdefault(id(writer), (f"writer: {writer!r}", writer))
    return Holdings(_descriptors(), _children(), held, _sockets(folders))


def leftovers(
    reactor: Reactor, before: Holdings, folders: Iterable[Path], turn: Callable[[], object], *, turns: int
) -> list[str]:
    """What is still there after at most *turns* calls of *turn*, which lets the reactor work a little.

    Closing takes a few turns (a FIN has to be read, a process to be reaped), so only what does not go away counts.
    """
    found = take(reactor, folders).since(before)
    for _ in range(turns):
        if not found:
            break
        turn()
        gc.collect()
        found = take(reactor, folders).since(before)
    return found


def _descriptors() -> frozenset[tuple[int, str]]:
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            found.add((int(name), os.readlink(f"/proc/self/fd/{name}")))
        except FileNotFoundError:  # the descriptor that read the folder
            continue
    return frozenset(found)


def _children() -> frozenset[int]:
    found: set[int] = set()
    for thread in os.listdir("/proc/self/task"):
        try:
            found.update(map(int, Path(f"/proc/self/task/{thread}/children").read_text().split()))
        except FileNotFoundError:  # the thread has ended, or the kernel keeps no such list (CONFIG_PROC_CHILDREN)
            continue
    return frozenset(found)


def _command(process: int) -> str:
    try:
        return Path(f"/proc/{process}/cmdline").read_text().replace("\0", " ").strip() or "ended, and not waited for"
    except FileNotFoundError:
        return "gone"


def _sockets(folders: Iterable[Path]) -> frozenset[Path]:
    found = set()
    for top in folders:
        for folder, _, names in os.walk(top):
            for name in names:
                path = Path(folder, name)
                try:
                    if stat.S_ISSOCK(path.lstat().st_mode):
                        found.add(path)
                except FileNotFoundError:
                    continue
    return frozenset(found)
