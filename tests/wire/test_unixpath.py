"""The file of a UNIX socket: who gets it, with which permissions, and who may remove it."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from conditions import folderOfNobody, noDescriptors, unprivileged
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from twisted_net.address import UnixTarget
from twisted_net.errors import NetError
from twisted_net.wire.unixpath import LOCK_PATIENCE, LOCK_STEP, SocketFile, bind

STARTERS = 4
ROUNDS = 25

STARTER = """
import sys, time
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted_net.address import UnixTarget
from twisted_net.wire.unixpath import LOCK_STEP, bind

kept = []
print("ready", flush=True)
for line in sys.stdin:
    clock, results = Clock(), []
    Deferred.fromCoroutine(bind(clock, UnixTarget(line.rstrip()), 5)).addBoth(results.append)
    while not results:
        time.sleep(0.001)
        clock.advance(LOCK_STEP)
    kept.append(results[0])
    print("won" if isinstance(results[0], tuple) else results[0].value.code, flush=True)
"""


@contextmanager
def bound(path: Path | str, mode: int | None = None) -> Iterator[tuple[socket.socket, SocketFile]]:
    """What `bind` makes when it has to wait for nobody; ended in the right order afterwards."""
    skt, file = resultOf(Deferred.fromCoroutine(bind(Clock(), UnixTarget(str(path), mode), 5)))
    assert file is not None
    with skt:
        yield skt, file
        file.remove()


def resultOf(
    deferred: Deferred[tuple[socket.socket, SocketFile | None]],
) -> tuple[socket.socket, SocketFile | None]:
    results: list[tuple[socket.socket, SocketFile | None] | Failure] = []
    deferred.addBoth(results.append)
    assert results, "it has not fired"
    [result] = results
    if isinstance(result, Failure):
        result.raiseException()
    assert isinstance(result, tuple)
    return result


def refused(path: Path | str, mode: int | None = None) -> NetError:
    with pytest.raises(NetError) as caught, bound(path, mode):
        pass
    error = caught.value
    assert str(error).startswith(f"listen {UnixTarget(str(path), mode)}: ")
    assert "; " in str(error)
    assert error.syscall == "listen"
    return error


def modeOf(path: Path | str) -> int:
    return stat.S_IMODE(os.lstat(path).st_mode)


def makeStale(path: Path | str, kind: int = socket.SOCK_STREAM, mode: int = 0o755) -> int:
    """Leave a socket file whose socket is gone; return its inode."""
    with socket.socket(socket.AF_UNIX, kind) as skt:
        skt.bind(str(path))
    os.chmod(path, mode)
    return os.lstat(path).st_ino


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


# Binding


def test_aFreePath(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with bound(path) as (skt, _):
        assert skt.getsockname() == str(path)
        assert not skt.getblocking()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            skt.accept()[0].close()
    assert os.listdir(tmp_path) == []


def test_aNameInTheCurrentFolder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with bound("s"):
        assert os.listdir(tmp_path) == ["s"]


def test_anAbstractName() -> None:
    target = UnixTarget(f"\0unixpath{os.getpid()}")
    skt, file = resultOf(Deferred.fromCoroutine(bind(Clock(), target, 5)))
    with skt:
        assert file is None
        assert skt.getsockname() == os.fsencode(target.path)
        error = refused(target.path)
    assert (error.code, error.address) == ("EADDRINUSE", target)


@pytest.mark.parametrize("mask", [0, 0o022, 0o777])
@pytest.mark.parametrize("mode", [0, 0o600, 0o660, 0o666, 0o777])
def test_modeAsAskedFor(tmp_path: Path, mode: int, mask: int) -> None:
    with umask(mask), bound(tmp_path / "s", mode) as (_, file):
        assert modeOf(tmp_path / "s") == mode
    assert file.mode in (mode, mode & ~mask)


@pytest.mark.parametrize("mask", [0, 0o027])
def test_withoutAModeTheUmaskDecides(tmp_path: Path, mask: int) -> None:
    with umask(mask), bound(tmp_path / "s"):
        assert modeOf(tmp_path / "s") == 0o777 & ~mask


def test_neverMorePermissionsThanAskedFor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changes = []
    change = os.chmod

    def recorded(path: str, mode: int) -> None:
        changes.append((modeOf(path), mode))
        change(path, mode)

    monkeypatch.setattr(os, "chmod", recorded)
    with umask(0), bound(tmp_path / "open", 0o640):
        assert modeOf(tmp_path / "open") == 0o640
    assert changes == []
    with umask(0o077), bound(tmp_path / "closed", 0o640):
        assert modeOf(tmp_path / "closed") == 0o640
    assert changes == [(0o600, 0o640)]


def test_aFileThatCannotBeFinishedIsRemoved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str, mode: int) -> None:
        raise PermissionError(errno.EPERM, "no")

    monkeypatch.setattr(os, "chmod", refuse)
    with umask(0o077):
        assert refused(tmp_path / "s", 0o666).code == "EPERM"
    assert os.listdir(tmp_path) == []


# What is there already


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_aStaleFileIsReplaced(tmp_path: Path, kind: int) -> None:
    path = tmp_path / "s"
    makeStale(path, kind)
    with bound(path, 0o600), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        assert modeOf(path) == 0o600


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET])
def test_aLiveOneStays(tmp_path: Path, kind: int) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX, kind) as living:
        living.bind(str(path))
        if kind != socket.SOCK_DGRAM:
            living.listen()
        before = os.lstat(path)
        error = refused(path)
        assert os.lstat(path).st_ino == before.st_ino
    path.unlink()
    assert (error.code, error.fault) == ("EADDRINUSE", "user")
    assert "another server lives there" in str(error)


def test_aLiveOneWithAFullQueueStays(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with ExitStack() as stack:
        living = stack.enter_context(socket.socket(socket.AF_UNIX))
        living.bind(str(path))
        living.listen(0)
        answer = 0
        while answer == 0:
            client = stack.enter_context(socket.socket(socket.AF_UNIX))
            client.setblocking(False)
            answer = client.connect_ex(str(path))
        assert answer == errno.EAGAIN
        assert refused(path).code == "EADDRINUSE"
        assert path.exists()
    path.unlink()


def test_oursStaysToo(tmp_path: Path) -> None:
    with bound(tmp_path / "s") as (skt, _):
        assert refused(tmp_path / "s").code == "EADDRINUSE"
        skt.accept()[0].close()


@pytest.mark.parametrize("kind", ["a regular file", "a folder", "a pipe", "a symbolic link"])
def test_whatIsNoSocketIsNeverRemoved(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "s"
    if kind == "a regular file":
        path.write_text("precious")
    elif kind == "a folder":
        path.mkdir()
    elif kind == "a pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(tmp_path / "nowhere")
    before = os.lstat(path)
    error = refused(path)
    assert os.lstat(path) == before
    assert error.code == "EADDRINUSE"
    assert f"the path is {kind} and no socket, so it is not removed" in str(error)


def test_norIsALinkToASocket(tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.symlink_to(tmp_path / "stale")
    makeStale(tmp_path / "stale")
    assert "a symbolic link" in str(refused(path))
    assert path.is_symlink()
    (tmp_path / "stale").unlink()


def test_norADevice() -> None:
    assert "the path is a device and no socket" in str(refused("/dev/null"))


# Rights and folders


def test_noFolder(tmp_path: Path) -> None:
    error = refused(tmp_path / "none" / "s")
    assert error.code == "ENOENT"
    assert f"the folder {str(tmp_path / 'none')!r} cannot be opened" in str(error)
    assert "make it" in str(error)


def test_aFolderThatIsNone(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert refused(tmp_path / "file" / "s").code == "ENOTDIR"


def test_aFolderThatMayNotBeRead() -> None:
    with folderOfNobody(0o300) as folder, unprivileged():
        error = refused(folder / "s")
    assert error.code == "EACCES"
    assert "the right to read and write it" in str(error)


def test_aFolderThatMayNotBeWritten() -> None:
    with folderOfNobody(0o500) as folder, unprivileged():
        error = refused(folder / "s")
    assert error.code == "EACCES"
    assert "it cannot be bound" in str(error)


def test_aStaleFileThatMayNotBeRemoved() -> None:
    with folderOfNobody(0o700) as folder:
        makeStale(folder / "s", mode=0o777)
        folder.chmod(0o500)
        with unprivileged():
            error = refused(folder / "s")
        assert (folder / "s").exists()
    assert error.code == "EACCES"
    assert "cannot be removed" in str(error)


def test_aServerThatMayNotBeAsked() -> None:
    with folderOfNobody(0o700) as folder:
        path = folder / "s"
        with unprivileged():
            makeStale(path, mode=0)
            error = refused(path)
        assert path.exists()
    assert error.code == "EACCES"
    assert "cannot be told" in str(error)


def test_noDescriptorForTheLock(tmp_path: Path) -> None:
    with noDescriptors():
        assert refused(tmp_path / "s").code == "EMFILE"


# The lock


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield
    finally:
        os.close(descriptor)


def test_waitsForTheLock(tmp_path: Path) -> None:
    clock = Clock()
    with locked(tmp_path):
        waiting = Deferred.fromCoroutine(bind(clock, UnixTarget(str(tmp_path / "s")), 5))
        clock.pump([LOCK_STEP] * 10)
        assert not waiting.called
        assert os.listdir(tmp_path) == []
    clock.advance(LOCK_STEP)
    skt, file = resultOf(waiting)
    assert file is not None
    file.remove()
    skt.close()
    with locked(tmp_path):
        assert clock.getDelayedCalls() == []


def test_doesNotWaitForEver(tmp_path: Path) -> None:
    clock = Clock()
    with locked(tmp_path):
        waiting = Deferred.fromCoroutine(bind(clock, UnixTarget(str(tmp_path / "s")), 5))
        clock.pump([LOCK_STEP] * int(LOCK_PATIENCE / LOCK_STEP + 2))
        with pytest.raises(NetError, match=r"has been locked by another program for 5 seconds") as caught:
            resultOf(waiting)
    assert caught.value.code == "EBUSY"
    assert clock.getDelayedCalls() == []


def test_cancelledWhileItWaits(tmp_path: Path) -> None:
    clock = Clock()
    before = os.listdir("/proc/self/fd")
    with locked(tmp_path):
        waiting = Deferred.fromCoroutine(bind(clock, UnixTarget(str(tmp_path / "s")), 5))
        waiting.addErrback(lambda reason: None)
        waiting.cancel()
        assert clock.getDelayedCalls() == []
    assert os.listdir("/proc/self/fd") == before
    assert os.listdir(tmp_path) == []


def test_ofAllWhoStartAtOnceOneWins(tmp_path: Path) -> None:
    starters = [
        subprocess.Popen([sys.executable, "-c", STARTER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(STARTERS)
    ]
    try:
        for starter in starters:
            assert starter.stdout is not None
            assert starter.stdout.readline() == "ready\n"
        for number in range(ROUNDS):
            path = tmp_path / str(number)
            makeStale(path)
            for starter in starters:
                assert starter.stdin is not None
                starter.stdin.write(f"{path}\n")
                starter.stdin.flush()
            answers = [starter.stdout.readline().strip() for starter in starters if starter.stdout is not None]
            assert sorted(answers) == ["EADDRINUSE"] * (STARTERS - 1) + ["won"]
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(path))
            path.unlink()
    finally:
        for starter in starters:
            starter.communicate()


# Removing


def test_aNewerOnesFileStays(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with bound(path) as (_, older):
        path.unlink()
        with bound(path):
            older.remove()
            assert path.exists()
    assert not path.exists()


def test_aFileThatIsGoneIsNoFault(tmp_path: Path) -> None:
    with bound(tmp_path / "s") as (_, file):
        (tmp_path / "s").unlink()
        file.remove()


def test_askedAboutOnce(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with bound(path) as (_, file):
        os.link(path, tmp_path / "again")
        file.remove()
        # The same inode, as a later file may have it when this socket is closed.
        os.rename(tmp_path / "again", path)
        file.remove()
        assert path.exists()
        path.unlink()


def test_fromAnotherFolder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with bound("s") as (_, file):
        monkeypatch.chdir("/")
        file.remove()
        assert os.listdir(tmp_path) == []


def test_withoutTheRightToItStays() -> None:
    with folderOfNobody(0o700) as folder, bound(folder / "s") as (_, file):
        folder.chmod(0o500)
        with unprivileged():
            file.remove()
        assert (folder / "s").exists()
        folder.chmod(0o700)
        (folder / "s").unlink()


@pytest.mark.parametrize("mode", [None, 0o600])
def test_aDatagramSocket(tmp_path: Path, mode: int | None) -> None:
    """It hears as soon as it is bound, replaces what is stale, and respects who lives."""
    path = tmp_path / "s"
    makeStale(path, socket.SOCK_DGRAM)
    skt, file = resultOf(Deferred.fromCoroutine(bind(Clock(), UnixTarget(str(path), mode), None)))
    assert file is not None
    with skt, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        assert skt.type == socket.SOCK_DGRAM
        assert mode in (None, file.mode)
        sender.sendto(b"hello", str(path))
        assert skt.recv(10) == b"hello"
        with pytest.raises(NetError, match="another server lives there"):
            resultOf(Deferred.fromCoroutine(bind(Clock(), UnixTarget(str(path)), None)))
        file.remove()
    assert not path.exists()
