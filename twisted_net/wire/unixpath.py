r"""
A UNIX socket's file: taken by exactly one server, and given back by that one.

The file of a UNIX socket outlives its server, and while it is there nobody can bind the path again (unix(7)). So
starting a server is four steps (look, ask, remove, bind) where TCP has one, and every gap between two of them belongs
to somebody else as well:

1. *Look.* What is no socket stays, whatever it is: a file, a folder, a symbolic link (also one to a socket).
2. *Ask.* A connection to the path tells whether a server lives there. Refused means that nobody does: the file is
   stale. Accepted means alive, and so does ``EAGAIN``: its queue is full. Any other answer is no proof of death.
3. *Remove* the stale file, and
4. *bind and listen*. Between these two calls the new server refuses connections, just as a dead one does.

Two starters that run these steps at once would remove each other's file, each of them in good faith. So the steps run
under a lock (flock(2)) on the *folder's* own descriptor: no lock file is left behind, and the kernel gives the lock up
when its owner dies. Nobody holds it for longer than the steps, which do not wait for anything; who finds it taken tries
again in a moment, with a timer. Two servers of one process exclude each other in the same way.

*Permissions.* bind(2) makes the file with the permissions of the socket less the umask, so these are set on the socket
before: the file never has more of them than were asked for. What the umask took away is added before listen(2), that
is, before anybody can connect. The umask itself is not touched, it belongs to the whole process and all its threads.

*Removing it at the end.* The file is ours as long as device and inode are those that were bound. That comparison
holds only while the socket is open, for the socket keeps its inode in use: afterwards another file may get the same
number. So the file is removed before the socket is closed, and asked about once. No lock is needed there: as long as
the socket is open, no other starter takes the file for stale.

What cannot be guarded against: programs that remove a socket's file without asking. They win.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from twisted_net.address import UnixTarget
from twisted_net.errors import NetError, forErrno

__all__ = ["SocketFile", "bind"]

#: Seconds between two attempts to get the folder's lock.
LOCK_STEP: Final = 0.01

#: Seconds. Whoever keeps the lock for longer is no starting server.
LOCK_PATIENCE: Final = 5.0

# What connecting to the path says when a server lives there. EPROTOTYPE: it has another type of socket.
_ALIVE: Final = (0, errno.EAGAIN, errno.EPROTOTYPE)


class SocketFile:
    """The file of a socket that is open, known by device and inode."""

    __slots__ = ("_identity", "_path", "mode")

    def __init__(self, path: str) -> None:
        found = os.lstat(path)
        self._identity = (found.st_dev, found.st_ino)
        # A daemon changes its folder after it has bound.
        self._path: str | None = os.path.abspath(path)
        #: Its permissions, 0 to 0o777.
        self.mode = stat.S_IMODE(found.st_mode)

    def remove(self) -> None:
        """
        Remove the file if it is still this one; silent when it is not, when it cannot be removed, and when asked again.

        To be called before the socket is closed. A file that cannot be removed, for example because the process has
        given up the right to, is stale afterwards: the next server replaces it.
        """
        path, self._path = self._path, None
        if path is None:
            return
        with suppress(OSError):
            found = os.lstat(path)
            if (found.st_dev, found.st_ino) == self._identity:
                os.unlink(path)


async def bind(
    reactor: IReactorTime, target: UnixTarget, backlog: int | None
) -> tuple[socket.socket, SocketFile | None]:
    """
    Return a non-blocking socket that listens at ``target``, and its file, which an abstract name has not.

    :param backlog: how many connections may wait; None makes a datagram socket, which hears as soon as it is bound.

    The socket's owner calls :meth:`SocketFile.remove` and then closes the socket.

    :raises NetError: ``EADDRINUSE`` when a server lives there or the path is something else than a socket; ``ENOENT``
        without its folder; ``EBUSY`` when the folder's lock is not to be had; what the system says in other cases.
    """
    if target.path.startswith("\0"):
        return _listen(target, backlog)  # no file, and nothing that could be stale: the kernel guards the name
    folder = os.path.dirname(target.path) or "."
    try:
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise _refusal(error, target, f"the folder {folder!r} cannot be opened", _FOLDER_REMEDIES) from error
    try:
        await _acquire(reactor, lock, target, folder)
        _makeWay(target)
        return _listen(target, backlog)
    finally:
        os.close(lock)  # which gives the lock up


async def _acquire(reactor: IReactorTime, lock: int, target: UnixTarget, folder: str) -> None:
    """Get the folder's lock, without making the reactor wait."""
    patience = reactor.seconds() + LOCK_PATIENCE
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError as error:
            if reactor.seconds() >= patience:
                raise NetError(
                    f"listen {target}: the folder {folder!r} has been locked by another program for "
                    f"{LOCK_PATIENCE:g} seconds; end that program (lslocks(8) names it), or choose another folder",
                    code="EBUSY",
                    address=target,
                    syscall="listen",
                ) from error
        await deferLater(reactor, LOCK_STEP)


def _makeWay(target: UnixTarget) -> None:
    """Remove a stale socket's file; refuse when the path is anything else."""
    try:
        kind = stat.S_IFMT(os.lstat(target.path).st_mode)
    except FileNotFoundError:
        return
    if kind != stat.S_IFSOCK:
        raise forErrno(
            errno.EADDRINUSE,
            f"listen {target}: the path is {_KINDS.get(kind, 'a device')} and no socket, so it is not removed; "
            "move it away yourself, or choose another path",
            address=target,
            syscall="listen",
        )
    answer = _ask(target)
    if answer in _ALIVE:
        raise forErrno(
            errno.EADDRINUSE,
            f"listen {target}: another server lives there; stop it, or choose another path",
            address=target,
            syscall="listen",
        )
    if answer not in (errno.ECONNREFUSED, errno.ENOENT):
        raise forErrno(
            answer,
            f"listen {target}: whether the server there is alive cannot be told ({os.strerror(answer)}); "
            "remove the file yourself when it is not, or choose another path",
            address=target,
            syscall="listen",
        )
    try:
        Path(target.path).unlink(missing_ok=True)
    except OSError as error:
        raise _refusal(error, target, "the file of a server that is gone cannot be removed", _FILE_REMEDIES) from error


def _ask(target: UnixTarget) -> int:
    """What connecting says, as an errno; it never waits, and who answers sees a connection that ends at once."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as skt:
        skt.setblocking(False)
        return skt.connect_ex(target.path)


def _listen(target: UnixTarget, backlog: int | None) -> tuple[socket.socket, SocketFile | None]:
    file = None
    kind = socket.SOCK_DGRAM if backlog is None else socket.SOCK_STREAM
    try:
        with ExitStack() as undo:
            skt = undo.enter_context(socket.socket(socket.AF_UNIX, kind))
            skt.setblocking(False)
            if target.mode is not None:
                os.fchmod(skt.fileno(), target.mode)
            skt.bind(target.path)
            if not target.path.startswith("\0"):
                file = SocketFile(target.path)
                undo.callback(file.remove)
                if target.mode not in (None, file.mode):
                    os.chmod(target.path, target.mode)
            if backlog is not None:
                skt.listen(backlog)
            undo.pop_all()
    except OSError as error:
        raise _refusal(error, target, "it cannot be bound", _FILE_REMEDIES) from error
    return skt, file


def _refusal(error: OSError, target: UnixTarget, what: str, remedies: dict[int, str]) -> NetError:
    number = error.errno or 0
    remedy = remedies.get(number, "see unix(7) and path_resolution(7)")
    message = f"listen {target}: {what} ({os.strerror(number)}); {remedy}"
    return forErrno(number, message, address=target, syscall="listen")


_KINDS: Final = {
    stat.S_IFREG: "a regular file",
    stat.S_IFDIR: "a folder",
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a pipe",
}

_FOLDER_REMEDIES: Final = {
    errno.EACCES: "give this user the right to read and write it, or choose another folder",
    errno.ENOENT: "make it, or correct the path",
    errno.ENOTDIR: "correct the path",
    errno.EMFILE: "raise the limit of descriptors (ulimit -n)",
}

_FILE_REMEDIES: Final = {
    errno.EACCES: "give this user the right to write its folder, or choose another path",
    errno.EPERM: "give this user the right to write its folder, or choose another path",
    errno.EADDRINUSE: "stop the program that has it, or choose another one",
    errno.EMFILE: "raise the limit of descriptors (ulimit -n)",
}
