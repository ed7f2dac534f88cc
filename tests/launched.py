"""twistd and twist as programs of their own, always bounded in time and never left behind.

:func:`run` is for a command that ends by itself; :class:`Running` for one in the foreground that serves; :func:`daemon`
for one that has forked away.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import twisted_net.errors

#: Seconds after which anything here has failed, on however busy a machine.
PATIENCE = 60.0

#: Where the package that is tested was found: the tree, or an environment's site-packages.
HOME = Path(twisted_net.errors.__file__).parent.parent

TWISTD = (sys.executable, "-c", "import sys; sys.argv[0] = 'twistd'; from twisted.scripts.twistd import run; run()")
TWIST = (sys.executable, "-m", "twisted")

LISTENING = re.compile(r"is listening on (\S+)")


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a program: ours, without what would choose options for it."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TWISTED_NET_")}
    kept["PYTHONPATH"] = os.pathsep.join(filter(None, [str(HOME), kept.get("PYTHONPATH")]))
    kept["COLUMNS"] = "80"
    return {**kept, **(more or {})}


@dataclass(frozen=True)
class Ended:
    """A program that has ended."""

    code: int
    out: str
    err: str


def run(
    program: Sequence[str], *words: str, folder: Path, env: Mapping[str, str] | None = None, umask: int = -1
) -> Ended:
    """Run a program to its end; when it forks a daemon, to the end of the program that was started."""
    # Files, not pipes: a daemon that keeps one open must not keep us waiting.
    with (folder / "stdout").open("w+") as out, (folder / "stderr").open("w+") as err:
        code = subprocess.run(
            [*program, *words],
            cwd=folder,
            env=environment(env),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            timeout=PATIENCE,
            umask=umask,
            check=False,
        ).returncode
        out.seek(0)
        err.seek(0)
        ended = Ended(code, out.read(), err.read())
    (folder / "stdout").unlink()
    (folder / "stderr").unlink()
    return ended


class Running:
    """A program in the foreground; as a context manager it is killed at the end if it still runs."""

    def __init__(
        self,
        program: Sequence[str],
        *words: str,
        folder: Path,
        env: Mapping[str, str] | None = None,
        fds: Sequence[int] = (),
    ) -> None:
        self.lines: list[str] = []
        self._buffer = b""
        self._process = subprocess.Popen(
            [*program, *words],
            cwd=folder,
            env=environment(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=fds,
        )

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate(timeout=PATIENCE)

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait(self, pattern: str) -> re.Match[str]:
        """The first line of its stdout, from where the last wait ended, that has *pattern*."""
        assert self._process.stdout is not None
        until = time.monotonic() + PATIENCE
        while True:
            while b"\n" in self._buffer:
                line, _, self._buffer = self._buffer.partition(b"\n")
                self.lines.append(line.decode())
                if match := re.search(pattern, self.lines[-1]):
                    return match
            left = until - time.monotonic()
            ready, _, _ = select.select([self._process.stdout], [], [], max(left, 0))
            data = os.read(self._process.stdout.fileno(), 65536) if ready else b""
            if not data:
                said = self._process.communicate(timeout=PATIENCE)[1] if ready else b"(it is silent)"
                raise AssertionError(f"no line with {pattern!r} in {self.lines}; stderr: {said.decode()}")
            self._buffer += data

    def address(self) -> str:
        """Where it says next that it listens."""
        return self.wait(LISTENING.pattern)[1]

    def signal(self, number: int = signal.SIGTERM) -> None:
        self._process.send_signal(number)

    def end(self) -> Ended:
        """Wait until it has ended."""
        out, err = self._process.communicate(timeout=PATIENCE)
        self.lines += (self._buffer + out).decode().splitlines()
        return Ended(self._process.returncode, "\n".join(self.lines), err.decode())


@contextlib.contextmanager
def daemon(pidfile: Path) -> Iterator[int]:
    """The daemon that wrote *pidfile*; killed at the end if it still runs."""
    pid = int(pidfile.read_text())
    try:
        yield pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            gone(pid)


def gone(pid: int) -> None:
    """Wait until a process that is no child of ours has ended."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        ready, _, _ = select.select([descriptor], [], [], PATIENCE)
        assert ready, f"process {pid} still runs"
    finally:
        os.close(descriptor)


def talk(address: str, data: bytes, *, end: bool = True) -> bytes:
    """Connect to *address*, send, half-close (``end``), and return everything that comes back until the end."""
    with connect(address) as client:
        client.sendall(data)
        if end:
            client.shutdown(socket.SHUT_WR)
        return drained(client)


def drained(client: socket.socket) -> bytes:
    """Everything that comes until the peer's end."""
    found = b""
    while chunk := client.recv(65536):
        found += chunk
    return found


def connect(address: str) -> socket.socket:
    """A client, connected to an address as the log has it."""
    if address.startswith("unix:"):
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(PATIENCE)
        path = address.removeprefix("unix:")
        client.connect(f"\0{path[1:]}" if path.startswith("@") else path)
        return client
    host, _, port = address.rpartition(":")
    return socket.create_connection((host.strip("[]"), int(port)), PATIENCE)


def fate(address: str) -> str:
    """What becomes of a client that says nothing: ``reset``, which may come before it is connected, or ``ended``."""
    try:
        with connect(address) as client:
            return repr(data) if (data := client.recv(1)) else "ended"
    except ConnectionResetError:
        return "reset"
