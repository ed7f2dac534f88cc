"""What a forwarded byte, message and connection cost: ours beside HAProxy, nginx, socat, and Twisted's portforward.

::

    python benchmarks/forward.py                        # prints tables
    python benchmarks/forward.py --json FILE            # and writes the figures
    python benchmarks/forward.py --only bulk,accept     # some of the workloads
    python benchmarks/forward.py --peers HAProxy,nginx  # some of the forwarders: their names, or parts of them
    python benchmarks/forward.py --smoke                # only sees that everything works

Each forwarder is a program of its own on one core; the load and the target of its connections, both in C, share another
one. A run measures every forwarder once, one after the other; then comes the next run: what else the machine does meets
all of them alike. The figure is the forwarder's own CPU time, in the kernel and outside, all of its threads and
processes together, for each unit, the median of the runs, with the lowest and the highest; beside it the units per
second of the wall clock, which depend much more on what else runs.

=============  ==========================================================================================
``bulk``       one connection, on which the target sends 2 GB (``bulk.c``)
``bulk x 8``   the same bytes on eight connections
``ping-pong``  50 clients; each sends 64 bytes, waits for them to come back, and goes on (``load.c``)
``accept``     50 clients; each connects, has one byte echoed, resets the connection, and goes on (``load.c``)
=============  ==========================================================================================

The CPU of ``ping-pong`` holds what the 50 connections cost to set up, a small part of it. Everybody's sockets have the
sizes that the kernel gives them, and no forwarder writes an access log. What a peer is told beyond its defaults is
printed, with the version of each.

All of it takes eight minutes. What is not installed is named, with what to do about it. The exit status is 1 when a
forwarder that is there fails.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import compiler
import echo
import figures
import servers

RUNS = 5
SECONDS = 3.0
GIGABYTES = 2.0
GB = 1_000_000_000
AGAINST = "HAProxy"
C = ("gcc", "libc6-dev")

TWISTD = (sys.executable, "-c", "import sys; sys.argv[0] = 'twistd'; from twisted.scripts.twistd import run; run()")
LISTENING = re.compile(r"is listening on \S+:(\d+)")
TICKS = os.sysconf("SC_CLK_TCK")


# -- the forwarders


class Place(NamedTuple):
    """Where one forwarder lives."""

    folder: Path
    port: int
    """On 127.0.0.1: it is to listen there, unless it says itself where it listens."""
    target: int
    """The target's port, on 127.0.0.1."""


class Peer(NamedTuple):
    """A forwarder that can be started."""

    command: Callable[[Place], list[str]]
    needs: tuple[str, ...] = ()
    """Packages and programs: see `figures.present`."""
    says: bool = False
    """Whether it takes a free port, and says which."""
    told: str = ""
    """What it is told beyond its defaults."""


def ours(reactor: str, *words: str) -> Callable[[Place], list[str]]:
    def command(place: Place) -> list[str]:
        where = ["--listen", "127.0.0.1:0", "--target", f"127.0.0.1:{place.target}"]
        twistd = [*TWISTD, f"--reactor={reactor}", "-n", "--pidfile="]
        return [*twistd, "net", "forward", *where, "--no-access-log", *words]

    return command


def portforward(reactor: str) -> Callable[[Place], list[str]]:
    script = str(Path(__file__).with_name("portforward.py"))
    return lambda place: [sys.executable, script, reactor, str(place.target)]


PIPESIZE = ("tune.pipesize 1048576",)
SPLICE = ("option splice-request", "option splice-response")


def haproxy(globally: Iterable[str] = (), options: Iterable[str] = ()) -> Callable[[Place], list[str]]:
    def command(place: Place) -> list[str]:
        timeouts = [f"timeout {what} 1m" for what in ("connect", "client", "server")]
        lines = ["global", "nbthread 1", "maxconn 1000", *globally]
        lines += ["defaults", "mode tcp", *timeouts, *options]
        lines += ["listen forwarder", f"bind 127.0.0.1:{place.port}", f"server target 127.0.0.1:{place.target}"]
        configuration = place.folder / "haproxy.cfg"
        configuration.write_text("\n".join(lines) + "\n")
        return ["haproxy", "-db", "-f", str(configuration)]

    return command


def nginx(place: Place) -> list[str]:
    # The port is held for it (see `Forwarder`): that takes reuseport.
    listen = f"listen 127.0.0.1:{place.port} reuseport"
    server = f"server {{ {listen}; proxy_pass 127.0.0.1:{place.target}; proxy_buffer_size 256k; }}"
    lines = [f"load_module {figures.FILES['libnginx-mod-stream']};", "daemon off;", "worker_processes 1;"]
    lines += [f"pid {place.folder}/nginx.pid;", "error_log stderr;", "events { worker_connections 1000; }"]
    lines += [f"stream {{ access_log off; {server} }}"]
    configuration = place.folder / "nginx.conf"
    configuration.write_text("\n".join(lines) + "\n")
    return ["nginx", "-p", str(place.folder), "-e", "stderr", "-c", str(configuration)]


def socat(place: Place) -> list[str]:
    listen = f"TCP4-LISTEN:{place.port},bind=127.0.0.1,reuseaddr,reuseport,backlog={servers.BACKLOG},fork"
    return ["socat", "-b", "262144", listen, f"TCP4:127.0.0.1:{place.target}"]


PEERS: Mapping[str, Peer] = {
    "net forward on uvloop": Peer(ours("uvloop"), ("uvloop",), says=True),
    "net forward on epoll": Peer(ours("epoll"), says=True),
    "net forward without splice, on uvloop": Peer(ours("uvloop", "--no-splice"), ("uvloop",), True, "--no-splice"),
    "HAProxy": Peer(haproxy(), ("haproxy",), told="nbthread 1"),
    "HAProxy tuned": Peer(haproxy(PIPESIZE, SPLICE), ("haproxy",), told="; ".join(("nbthread 1", *PIPESIZE, *SPLICE))),
    "nginx stream": Peer(
        nginx, ("nginx", "libnginx-mod-stream"), told="worker_processes 1; proxy_buffer_size 256k; access_log off"
    ),
    "socat": Peer(socat, ("socat",), told="-b 262144; TCP4-LISTEN:...,fork"),
    "twisted portforward on epoll": Peer(portforward("epoll"), says=True),
    "twisted portforward on uvloop": Peer(portforward("uvloop"), ("uvloop",), says=True),
}


class Forwarder:
    """A forwarder's processes, which start at once. As a context manager it listens in the block, and ends with it.

    :param target: the port that it forwards to.
    :param core: it runs on this one alone; None: on any.
    :raises RuntimeError: on entering: it does not listen.
    """

    def __init__(self, name: str, target: int, core: int | None) -> None:
        self.name = name
        self._peer = PEERS[name]
        self._folder = tempfile.TemporaryDirectory(prefix="benchmarks-")
        # Most of them cannot say which port they took. This one is theirs as long as they run: bound, so that the
        # kernel gives it to nobody else, without listening, so that all connections are theirs.
        self._held = socket.socket()
        self._held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._held.bind(("127.0.0.1", 0))
        self.port: int = self._held.getsockname()[1]
        place = Place(Path(self._folder.name), self.port, target)
        self._log = place.folder / "log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._peer.command(place),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=place.folder,
                start_new_session=True,  # a group that ends as a whole
                preexec_fn=None if core is None else lambda: os.sched_setaffinity(0, {core}),
            )
        self.pid = self._process.pid

    def __enter__(self) -> Self:
        try:
            until = time.monotonic() + servers.PATIENCE
            while not self._listens():
                if self._process.poll() is not None or time.monotonic() > until:
                    raise RuntimeError(f"it does not listen; it says: {self.says()[-1000:].strip() or 'nothing'}")
                time.sleep(0.01)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self.stop()

    def _listens(self) -> bool:
        if self._peer.says:
            found = LISTENING.search(self.says())
            self.port = int(found[1]) if found else self.port
            return found is not None
        with closing(socket.socket()) as client:
            return client.connect_ex(("127.0.0.1", self.port)) == 0

    def says(self) -> str:
        """All that it has written to its standard output and error."""
        return self._log.read_text(errors="replace")

    def cpu(self) -> float:
        """Seconds of CPU that it has used, in the kernel and outside, with those of its children that have ended."""
        while True:
            ended = self._ended()
            try:
                living = sum(time.clock_gettime(~pid << 3 | 2) for pid in family(self.pid))
            except OSError:
                continue  # one ended just now
            if ended == self._ended():
                return living + ended

    def _ended(self) -> float:
        """The seconds of those that it has waited for; the kernel tells them in steps of 10 ms."""
        after = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(after[13]) + int(after[14])) / TICKS

    def stop(self) -> None:
        """End it, if it has not ended: all of its processes, and what it has written."""
        if self._held.fileno() < 0:
            return  # done already: by now the number of its group may be another's
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError, subprocess.TimeoutExpired):
                os.killpg(self.pid, number)
                self._process.wait(5)
        self._process.wait()
        with suppress(ChildProcessError):
            while True:
                os.waitpid(-self.pid, 0)  # those of its children that outlived it: see `adopt`
        self._held.close()
        self._folder.cleanup()


def adopt() -> None:
    """Make what the programs leave behind our children, so that we wait for its end; not everybody's init does."""
    setChildSubreaper = 36
    ctypes.CDLL(None).prctl(setChildSubreaper, 1, 0, 0, 0)


def family(pid: int) -> list[int]:
    """A process, its children, and theirs.

    :raises OSError: one of them has ended just now.
    """
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(each for child in children for each in family(int(child)))]


# -- what they do


class Span(NamedTuple):
    """How long and how hard to measure."""

    warmUp: float
    seconds: float
    most: int
    """No more connections than this."""
    gigabytes: float


class Sample(NamedTuple):
    units: float
    seconds: float
    """Of the wall clock."""
    cpu: float
    """Seconds, too."""


Measure = Callable[[Forwarder, Span], Sample]


def bulk(connections: int) -> Measure:
    def pull(forwarder: Forwarder, size: float) -> float:
        command = [compiler.program("bulk"), "sink", str(forwarder.port), str(connections), str(int(size))]
        return float(echo.run(command, servers.PATIENCE + size / GB * 10))

    def measure(forwarder: Forwarder, span: Span) -> Sample:
        size = span.gigabytes * GB
        pull(forwarder, size * span.warmUp / 10)
        before = forwarder.cpu()
        seconds = pull(forwarder, size)
        return Sample(span.gigabytes, seconds, forwarder.cpu() - before)

    return measure


def load(mode: str, size: int) -> Measure:
    """What ``load.c`` does in *mode* with 50 clients."""

    def exchange(forwarder: Forwarder, span: Span, seconds: float) -> tuple[float, float]:
        numbers = (forwarder.pid, forwarder.port, min(50, span.most), size, 0, seconds)
        command = [compiler.program("load"), mode, *map(str, numbers)]
        units, took, _ = map(float, echo.run(command, servers.PATIENCE + seconds).split())
        return units, took

    def measure(forwarder: Forwarder, span: Span) -> Sample:
        exchange(forwarder, span, span.warmUp)
        before = forwarder.cpu()
        units, took = exchange(forwarder, span, span.seconds)
        return Sample(units, took, forwarder.cpu() - before)

    return measure


class Workload(NamedTuple):
    measure: Measure
    target: tuple[str, str]
    """The C program that connections are forwarded to, and its scene."""
    unit: str
    cost: str
    """What of CPU is told for each unit ..."""
    scale: float
    """... and how many of that a second is."""


SOURCE = ("bulk", "source")
ECHO = ("echo", "echo")
WORKLOADS = {
    "bulk": Workload(bulk(1), SOURCE, "GB", "s", 1),
    "bulk x 8": Workload(bulk(8), SOURCE, "GB", "s", 1),
    "ping-pong": Workload(load("tcp", 64), ECHO, "round trip", "us", 1e6),
    "accept": Workload(load("accept", 1), ECHO, "connection", "us", 1e6),
}


class Bench:
    """Runs, and what they have given."""

    def __init__(self, span: Span, peers: list[str], *, core: int | None, ahead: bool) -> None:
        self._span = span
        self._peers = peers
        self._core = core
        self._ahead = ahead
        self.samples: dict[str, dict[str, list[Sample]]] = {}
        self.failed: list[str] = []

    def round(self, target: tuple[str, str], workloads: list[str]) -> None:
        """One run of every forwarder that has not failed, to a target of its own: 28,000 ports lead to each."""
        with ExitStack() as stack:
            begun: dict[str, Forwarder] = {}
            for peer in self._peers if self._ahead else ():
                begun[peer] = self._begin(peer, target, stack)
                stack.callback(begun[peer].stop)
            for peer in list(self._peers):
                with ExitStack() as own:
                    try:
                        forwarder = own.enter_context(begun.get(peer) or self._begin(peer, target, own))
                        for workload in workloads:
                            given = WORKLOADS[workload].measure(forwarder, self._span)
                            self.samples.setdefault(workload, {}).setdefault(peer, []).append(given)
                    except (RuntimeError, OSError) as error:
                        print(f"{peer}, {', '.join(workloads)}: FAILED: {error}", flush=True)
                        self.failed.append(peer)
                        self._peers.remove(peer)
                        for workload in workloads:
                            self.samples.get(workload, {}).pop(peer, None)

    def _begin(self, peer: str, target: tuple[str, str], stack: ExitStack) -> Forwarder:
        program, scene = target
        served = stack.enter_context(servers.Server(program, [compiler.program(program), scene]))
        return Forwarder(peer, served.port, self._core)

    def table(self, name: str) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
        """Print what a workload has given; its figures and ratios."""
        workload = WORKLOADS[name]
        unit = workload.unit
        key = f"{workload.cost} of CPU per {unit}"
        rows: dict[str, dict[str, float]] = {}
        for peer, samples in self.samples.get(name, {}).items():
            costs = [sample.cpu / sample.units * workload.scale for sample in samples]
            rate = statistics.median(sample.units / sample.seconds for sample in samples)
            rows[peer] = {key: round(statistics.median(costs), 3)}
            rows[peer] |= {"lowest": round(min(costs), 3), "highest": round(max(costs), 3)}
            rows[peer][f"{unit}{'' if unit == 'GB' else 's'} per second"] = round(rate, 2)
        medians = {peer: row[key] for peer, row in rows.items()}
        ratios = figures.ratios(medians, AGAINST) if medians.get(AGAINST) else {}
        told = f", and of that of {AGAINST}" if ratios else ""
        print(f"\n{name}: {key}, lowest to highest, per second{told}")
        places = 2 if unit == "GB" else 1
        for peer, row in rows.items():
            median, low, high, rate = row.values()
            spread = f"{median:8.{places}f}   {low:8.{places}f} to {high:8.{places}f}"
            ratio = f" {ratios[peer]:6.2f}" if ratios else ""
            print(f"{peer:{figures.WIDTH}} {spread} {rate:10,.{places if unit == 'GB' else 0}f}/s{ratio}")
        sys.stdout.flush()
        return rows, ratios


def versions() -> dict[str, str]:
    """Of the programs among the peers."""
    found = {}
    for program, option in {"haproxy": "-v", "nginx": "-v", "socat": "-V"}.items():
        if figures.remedy(program) is None:
            done = subprocess.run([program, option], capture_output=True, text=True)
            version = re.search(r"(?:version |/)(\d[\w.+~-]*)", done.stdout + done.stderr)
            found[program] = version[1] if version else "unknown"
        else:
            found[program] = "not installed"
    return found


def main() -> None:
    parser = figures.options(__doc__)
    parser.add_argument("--runs", type=int, help=f"how often each forwarder is measured ({RUNS})")
    parser.add_argument("--seconds", type=float, help=f"for how long each time ({SECONDS:.0f}); bulk: see --gigabytes")
    parser.add_argument("--gigabytes", type=float, help=f"how much is moved each time ({GIGABYTES:.0f})")
    parser.add_argument("--only", metavar="WORKLOAD[,...]", help=f"of: {', '.join(WORKLOADS)}")
    parser.add_argument("--peers", metavar="NAME[,...]", help=f"of: {', '.join(PEERS)}")
    options = parser.parse_args()
    workloads = echo.chosen(options.only, WORKLOADS, parser)
    wanted = echo.chosen(options.peers, PEERS, parser)

    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that all ends in order
    adopt()
    servers.moreDescriptors()
    runs = options.runs or (1 if options.smoke else RUNS)
    seconds = options.seconds or (0.05 if options.smoke else SECONDS)
    gigabytes = options.gigabytes or (0.02 if options.smoke else GIGABYTES)
    span = Span(0.02, seconds, 20, gigabytes) if options.smoke else Span(0.5, seconds, 50, gigabytes)
    cores = sorted(os.sched_getaffinity(0))
    if not options.smoke:
        os.sched_setaffinity(0, cores[:1])
    peers = figures.present({name: (*C, *PEERS[name].needs) for name in wanted})
    bench = Bench(span, peers, core=None if options.smoke else cores[-1], ahead=options.smoke)
    settings = {name: PEERS[name].told for name in peers if PEERS[name].told}
    about = figures.about(
        **versions(), cores=len(cores), runs=runs, seconds=seconds, gigabytes=gigabytes, smoke=options.smoke
    )
    for name, told in settings.items():
        print(f"{name:{figures.WIDTH}} is told: {told}")
    measured: dict[str, dict[str, dict[str, float]]] = {}
    ratios: dict[str, dict[str, float]] = {}
    for target in (SOURCE, ECHO):
        same = [name for name in workloads if WORKLOADS[name].target == target]
        for _ in range(runs if same else 0):
            bench.round(target, same)
        for name in same:
            measured[name], ratios[name] = bench.table(name)
    print(f"\n{', '.join(f'{name} {version}' for name, version in versions().items())}")
    figures.write(options.json, {**about, "told": settings}, measured, ratios)
    if bench.failed:
        sys.exit(f"failed: {', '.join(dict.fromkeys(bench.failed))}")


if __name__ == "__main__":
    main()
