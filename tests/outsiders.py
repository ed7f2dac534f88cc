"""Servers that nobody here wrote, and the forwarder between them and their clients: each with a port of its own.

A server is a program in the foreground that was told a free port; :func:`started` tries the next one when somebody else
was quicker, and returns when it is this very process that listens there (``/proc`` says so: connecting would already be
a conversation). :func:`forwarding` is ``net forward`` as a program, watched from outside: what it holds of descriptors
and memory, and how much it works, is read from ``/proc``.

How much is transferred where it shall be much says the variable ``TWISTED_NET_TESTS_BULK``: ``1GB``, ``200MB`` ...
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import resource
import shutil
import signal
import socket
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from conditions import NOBODY, folderOfNobody
from drivers import reactorName
from launched import PATIENCE, TWISTD, Running, environment
from programs import until
from strangers import patterned

from twisted_net.service.units import parseSize

BULK = parseSize(os.environ.get("TWISTED_NET_TESTS_BULK", "200MB"))
"""Bytes of a transfer that shall be large."""

HOST = "127.0.0.1"

#: Ports that a server is given one after the other, until it has one.
ATTEMPTS = 10


def installed(name: str, *folders: str) -> str:
    """The path of a program that may stand where ``PATH`` does not lead; its name when it is nowhere."""
    found = sorted(str(path) for folder in folders for path in Path("/").glob(f"{folder.lstrip('/')}/{name}"))
    return found[-1] if found else shutil.which(name) or name


NGINX = installed("nginx", "/usr/sbin")
# Debian has no PostgreSQL on PATH but its clients, and those are scripts that look for a version by themselves.
INITDB, POSTGRES, PGBENCH, PSQL, PG_ISREADY = (
    installed(name, "/usr/lib/postgresql/*/bin") for name in ("initdb", "postgres", "pgbench", "psql", "pg_isready")
)


class Server:
    """A server that runs. As a context manager it is killed at the end if it still does."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self._process = process
        self.port = port
        #: Where it listens: host and port.
        self.address = f"{HOST}:{port}"
        #: What it has said.
        self.log = log

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *exc: object) -> None:
        self.kill()

    @property
    def runs(self) -> bool:
        return self._process.poll() is None

    @property
    def listens(self) -> bool:
        """Whether it listens on its port, this process and no other."""
        return bool(_listeners(self.port) & set(_links(self._process.pid)))

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(PATIENCE)


def _listeners(port: int) -> set[str]:
    """The sockets that listen on a TCP port of IPv4, as links of ``/proc`` name them: proc(5), /proc/net/tcp."""
    found = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
            found.add(f"socket:[{fields[9]}]")
    return found


def _links(pid: int) -> list[str]:
    """What the descriptors of a process are."""
    found = []
    with contextlib.suppress(FileNotFoundError):  # it has ended
        for path in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # it was closed meanwhile
                found.append(os.readlink(path))
    return found


def freePort() -> int:
    """A port of TCP that nobody has at this moment."""
    with socket.socket() as skt:
        skt.bind((HOST, 0))
        port: int = skt.getsockname()[1]
        return port


def _owner(user: int | None) -> dict[str, Any]:
    """Arguments for subprocess: whose process it is to be, where that can be chosen."""
    return {} if user is None or os.geteuid() != 0 else {"user": user, "group": user, "extra_groups": []}


def started(words: Callable[[int], Sequence[str]], log: Path, *, user: int | None = None, port: int = 0) -> Server:
    """
    Start a server and wait until it listens.

    :param words: given a port, returns the command line.
    :param log: a file for what it says.
    :param user: whose process it is to be, where this one is root's.
    :param port: the one that it had before; 0 takes a free one.
    """
    for _ in range(ATTEMPTS):
        chosen = port or freePort()
        with log.open("ab") as file:
            process = subprocess.Popen(
                words(chosen),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env=environment(),
                cwd=log.parent,
                **_owner(user),
            )
        server = Server(process, chosen, log)
        with contextlib.ExitStack() as stack:
            stack.enter_context(server)
            until(lambda server=server: server.listens or not server.runs)  # type: ignore[misc]
            if server.listens:
                stack.pop_all()
                return server
    raise AssertionError(f"{words(0)[0]} does not listen: {log.read_text()[-2000:]}")


# The servers


def redis(folder: Path, port: int = 0) -> Server:
    """redis-server, on TCP and on the UNIX socket ``redis.sock`` in *folder*; it keeps nothing."""

    def words(chosen: int) -> Sequence[str]:
        place = ("--port", str(chosen), "--bind", HOST, "--unixsocket", f"{folder}/redis.sock")
        return ("redis-server", *place, "--save", "", "--appendonly", "no", "--dir", str(folder))

    return started(words, folder / "redis.log", port=port)


def nginx(folder: Path) -> Server:
    """nginx, on TCP and on the UNIX socket ``nginx.sock``: the files in ``www``, where ``/up/`` takes those of PUT."""
    (folder / "www" / "up").mkdir(parents=True)
    kept = "".join(
        f"{name}_temp_path {folder}/{name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )

    def words(chosen: int) -> Sequence[str]:
        (folder / "nginx.conf").write_text(
            f"""
            daemon off; master_process off; pid {folder}/nginx.pid;
            events {{ worker_connections 2048; }}
            http {{
                access_log off; keepalive_requests 10000000; client_max_body_size 0; {kept}
                default_type application/octet-stream;
                server {{
                    listen {HOST}:{chosen}; listen unix:{folder}/nginx.sock; root {folder}/www;
                    location /up/ {{ dav_methods PUT; }}
                }}
            }}
            """
        )
        (folder / "nginx.sock").unlink(missing_ok=True)
        return (NGINX, "-e", "stderr", "-p", str(folder), "-c", str(folder / "nginx.conf"))

    return started(words, folder / "nginx.log")


def iperf(folder: Path) -> Server:
    """iperf3, for one client after the other."""
    return started(lambda port: ("iperf3", "-s", "-B", HOST, "-p", str(port)), folder / "iperf.log")


@contextlib.contextmanager
def postgres() -> Iterator[Server]:
    """PostgreSQL with an empty database ``postgres``, whose owner ``tester`` needs no password."""
    user = NOBODY  # it refuses to be root's
    with folderOfNobody(0o700) as folder:
        data = folder / "data"
        made = subprocess.run(
            (INITDB, "-D", data, "-U", "tester", "--auth=trust", "--no-sync", "--locale=C", "--encoding=UTF8"),
            env=environment(),
            cwd="/",
            capture_output=True,
            timeout=PATIENCE,
            check=False,
            **_owner(user),
        )
        assert made.returncode == 0, made.stderr.decode()

        def words(chosen: int) -> Sequence[str]:
            place = ("-h", HOST, "-p", str(chosen), "-k", str(folder))
            return (POSTGRES, "-D", str(data), *place, "-c", "fsync=off", "-c", "shared_buffers=32MB")

        log = folder / "postgres.log"
        with started(words, log, user=user) as server:
            asked = (PG_ISREADY, "-q", "-h", HOST, "-p", str(server.port))
            until(lambda: subprocess.run(asked, env=environment(), check=False).returncode == 0)
            yield server
            server.signal(signal.SIGINT)  # its "fast shutdown": the other processes end with it
            until(lambda: not server.runs)


@contextlib.contextmanager
def names(folder: Path, *lines: str) -> Iterator[tuple[int, int]]:
    """Twisted's own name server, with *lines* of /etc/hosts: its ports of UDP and of TCP."""
    (folder / "hosts").write_text("".join(f"{line}\n" for line in lines))
    words = ("-n", "--pidfile=", "dns", "-i", HOST, "-p", "0", f"--hosts-file={folder}/hosts")
    with Running(TWISTD, *words, folder=folder) as program:
        tcp = int(program.wait(r"DNSServerFactory starting on (\d+)")[1])
        yield int(program.wait(r"DNSDatagramProtocol starting on (\d+)")[1]), tcp


# The forwarder


class Forwarding:
    """``net forward`` as it runs, seen from outside."""

    def __init__(self, program: Running, addresses: Sequence[str]) -> None:
        self.program = program
        #: Where it listens, in the order in which that was said.
        self.addresses = addresses
        self.address = addresses[0]

    @property
    def port(self) -> str:
        """The number of its first place's port, for a command line."""
        return self.address.rpartition(":")[2]

    def held(self) -> Counter[str]:
        """How many descriptors of each kind it holds: ``socket``, ``pipe``, or a path."""
        kinds = Counter(link.partition(":[")[0] for link in _links(self.program.pid))
        del kinds["/dev/null"]  # libuv opens it once, with its first stream
        return kinds

    @property
    def runs(self) -> bool:
        """
        Whether its reactor does, and will open nothing more of its own. Signals are the last that it sees to before it
        begins, SIGCHLD among them; and when it has begun it waits for something to happen.
        """
        caught = int(self._status("SigCgt"), 16) >> (signal.SIGCHLD - 1) & 1
        return bool(caught) and self._status("State").startswith("S")

    def memory(self) -> int:
        """Bytes that it has in memory."""
        return int(self._status("VmRSS").removesuffix("kB")) * 1024

    def _status(self, name: str) -> str:
        """A line of proc(5), /proc/pid/status."""
        for line in Path(f"/proc/{self.program.pid}/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return line.partition(":")[2].strip()
        raise AssertionError("it has ended")

    def worked(self) -> float:
        """Seconds that it has computed: proc(5), /proc/pid/stat, utime and stime."""
        fields = Path(f"/proc/{self.program.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def settle(self, held: Counter[str]) -> None:
        """Wait until it holds what it held then."""
        try:
            until(lambda: self.held() == held, 20)
        except AssertionError:
            raise AssertionError(f"it held {dict(held)}, and holds {dict(self.held())}") from None


@contextlib.contextmanager
def forwarding(
    folder: Path, *words: str, listen: Sequence[str] = (f"{HOST}:0",), descriptors: int | None = None
) -> Iterator[Forwarding]:
    """
    ``net forward`` in the foreground, in *folder*, on the reactor that this run of the tests is for.

    In the end it holds no more descriptors than it did before the first client came, it stops with exit status 0 on
    SIGTERM (unless the test has sent that already), and has complained about nothing.

    :param words: its options, besides where to listen.
    :param listen: the places.
    :param descriptors: how many it may have open; None leaves that as it is.
    """
    limit = () if descriptors is None else ("prlimit", f"--nofile={descriptors}:{descriptors}")
    places = [word for place in listen for word in ("--listen", place)]
    net = (*limit, *TWISTD, "--reactor", reactorName(), "-n", "--pidfile=", "net")
    with Running(net, "forward", *places, *words, folder=folder) as program:
        forward = Forwarding(program, [program.address() for _ in listen])
        until(lambda: forward.runs)
        before = forward.held()
        yield forward
        if not any("is stopping" in line for line in program.lines):
            forward.settle(before)
            program.signal(signal.SIGTERM)
        ended = program.end()
    assert (ended.code, ended.err) == (0, "")
    assert "Traceback" not in ended.out


def needsDescriptors(count: int) -> pytest.MarkDecorator:
    """The mark of tests that are skipped where no process may have that many descriptors."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    short = hard != resource.RLIM_INFINITY and hard < count
    return pytest.mark.skipif(short, reason=f"a process may have {hard} descriptors (ulimit -Hn), this needs {count}")


# What is transferred


def numbered(size: int, seed: int = 0) -> Iterator[bytes]:
    """That many bytes, a piece at a time: blocks of noise, each with its number, so that no two are alike."""
    noise = patterned(1_000_000 + seed)
    for number in range(-(-size // 1_000_000)):
        piece = b"%015d\n" % number + noise[16:1_000_000]
        yield piece[: min(1_000_000, size - number * 1_000_000)]


def write(path: Path, size: int, seed: int = 0) -> str:
    """Make a file of that many bytes (see :func:`numbered`); returns its SHA-256."""
    summed = hashlib.sha256()
    with path.open("wb") as file:
        for piece in numbered(size, seed):
            summed.update(piece)
            file.write(piece)
    return summed.hexdigest()


def sha256(path: Path) -> str:
    """Of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
