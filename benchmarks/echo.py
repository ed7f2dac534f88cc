"""What a message costs: servers of ours beside Twisted's, asyncio's, uvloop's, trio's, Node's, and one in C.

::

    python benchmarks/echo.py                          # prints tables
    python benchmarks/echo.py --json FILE              # and writes the figures
    python benchmarks/echo.py --only eight,tls         # some of the workloads
    python benchmarks/echo.py --peers net.Socket,Node  # some of the servers: their names, or parts of them
    python benchmarks/echo.py --smoke                  # only sees that everything works

The servers are those of ``servers.py``, each a process of its own on one core; the load comes from ``load.c`` (for
pages from wrk) on another one, so that neither takes the other's time. A run measures every server once, one after the
other; then comes the next run: what else the machine does meets all of them alike. The figure is the server's own CPU
time, in the kernel and outside, for each unit (message, connection, datagram, page), the median of the runs, with the
lowest and the highest; beside it units per second of the wall clock, which depend much more on what else runs. ``idle``
is no CPU time: bytes of memory for each connection, as ``idle.py`` measures them.

All of it takes half an hour. What is not installed is named, with what to do about it. The exit status is 1 when a
server that is there fails.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import compiler
import figures
import idle
import servers

RUNS = 5
SECONDS = 3.0
WARM_UP = 0.5
LIBSSL = ("-DTLS", "-lssl", "-lcrypto")


class Sample(NamedTuple):
    cost: float
    """Microseconds of CPU for each unit; for memory, bytes."""
    rate: float | None
    """Units per second of the wall clock."""


class Span(NamedTuple):
    """How long and how hard to measure."""

    warmUp: float
    seconds: float
    most: int
    """No more connections than this."""

    @property
    def patience(self) -> float:
        """Seconds that a program may take for it."""
        return self.warmUp + self.seconds + servers.PATIENCE


Measure = Callable[[servers.Server, Span], Sample]


def load(mode: str, connections: int, size: int) -> Measure:
    """What ``load.c`` does in *mode*."""

    def measure(server: servers.Server, span: Span) -> Sample:
        program = compiler.program("load", *(LIBSSL if mode == "tls" else ()))
        clients = min(connections, span.most)
        numbers = (server.pid, server.port, clients, size, span.warmUp, span.seconds)
        output = run([program, mode, *map(str, numbers)], span.patience)
        units, seconds, cpu = map(float, output.split())
        return sample(units, seconds, cpu)

    return measure


def wrk(server: servers.Server, span: Span) -> Sample:
    """Pages for 50 connections. It takes whole seconds."""
    command = ["wrk", "-t1", f"-c{min(50, span.most)}", f"-d{max(1, round(span.seconds))}s"]
    command.append(f"http://127.0.0.1:{server.port}/")
    if span.warmUp >= WARM_UP:
        run([*command, "-d1s"], span.patience)
    before = server.cpu()
    output = run(command, span.patience)
    cpu = server.cpu() - before
    found = re.search(r"(\d+) requests in ([\d.]+)s", output)
    if found is None or "Non-2xx" in output or "Socket errors" in output:
        raise RuntimeError(f"wrk: {output}")
    return sample(float(found[1]), float(found[2]), cpu)


def memory(server: servers.Server, span: Span) -> Sample:
    return Sample(idle.measure(server, min(idle.CONNECTIONS, servers.moreDescriptors() - 200, span.most)), None)


def run(command: list[str], patience: float) -> str:
    """What it prints; all of it.

    :param patience: seconds that it may take.
    :raises RuntimeError: it fails, or does not end.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=patience)
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(str(error)) from error
    if done.returncode:
        raise RuntimeError(done.stderr.strip() or f"{command[0]} has ended with status {done.returncode}")
    return done.stdout


def sample(units: float, seconds: float, cpu: float) -> Sample:
    if not units:
        raise RuntimeError(f"nothing was answered in {seconds} s")
    return Sample(cpu / units * 1e6, units / seconds)


class Workload(NamedTuple):
    scene: str
    unit: str
    measure: Measure
    needs: tuple[str, ...] = ("gcc", "libc6-dev")
    against: str = "twisted Protocol on epoll"
    alone: bool = False
    """Whether it wants a server that has done nothing yet."""
    without: tuple[str, ...] = ()
    """Servers that another benchmark measures."""

    def peers(self) -> list[str]:
        """Who can do it, the one that the others are compared with first."""
        able = [name for name, peer in servers.PEERS.items() if self.scene in peer.scenes and name not in self.without]
        return sorted(able, key=lambda name: name != self.against)


WORKLOADS = {
    "64 B x 50": Workload("echo", "message", load("tcp", 50, 64)),
    "1 KiB x 1000": Workload("echo", "message", load("tcp", 1000, 1024)),
    "64 KiB x 10": Workload("echo", "message", load("tcp", 10, 65536)),
    "accept": Workload("echo", "connection", load("accept", 50, 1)),
    "eight": Workload("eight", "message", load("tcp", 50, 64)),
    "tls": Workload(
        "tls",
        "message",
        load("tls", 50, 64),
        ("gcc", "libc6-dev", "libssl-dev", "openssl", "pyopenssl", "service-identity"),
    ),
    "udp": Workload(
        "udp",
        "datagram",
        load("udp", 16, 64),
        against="twisted DatagramProtocol on epoll",
        without=tuple(name for name in servers.DATAGRAMS if name.endswith(" on asyncioreactor")),
    ),
    "page": Workload("page", "page", wrk, ("wrk",), "twisted.web on epoll"),
    "idle": Workload("echo", "connection", memory, (), alone=True),
}


def certificate(folder: str) -> str:
    """A PEM file with a new key and its certificate."""
    path = str(Path(folder, "server.pem"))
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", path]
    made = ["openssl", "req", "-x509", *key, "-out", path, "-days", "2", "-subj", "/CN=localhost"]
    subprocess.run(made, check=True, capture_output=True)
    return path


class Group(NamedTuple):
    """Workloads that are measured on the same servers."""

    scene: str
    workloads: list[str]
    peers: list[str]


def groups(workloads: Iterable[str], peers: Iterable[str]) -> list[Group]:
    found: dict[tuple[str, str | None], Group] = {}
    for name in workloads:
        workload = WORKLOADS[name]
        able = [peer for peer in workload.peers() if peer in peers]
        key = (workload.scene, name if workload.alone else None)
        if able:
            found.setdefault(key, Group(workload.scene, [], able)).workloads.append(name)
    return list(found.values())


class Bench:
    """Runs, and what they have given."""

    def __init__(self, span: Span, *, ahead: bool) -> None:
        self._span = span
        self._ahead = ahead
        self._cores = sorted(os.sched_getaffinity(0))
        self.samples: dict[str, dict[str, list[Sample]]] = {}
        self.failed: list[str] = []

    def round(self, group: Group, pem: str | None) -> None:
        """One run of every server that has not failed."""
        begun = {peer: servers.start(peer, group.scene, pem) for peer in group.peers if self._ahead}
        try:
            for peer in list(group.peers):
                try:
                    with begun.get(peer) or servers.start(peer, group.scene, pem) as server:
                        self._visit(group, server)
                except (RuntimeError, OSError) as error:
                    print(f"{peer}, {', '.join(group.workloads)}: FAILED: {error}", flush=True)
                    self.failed.append(peer)
                    group.peers.remove(peer)
                    for workload in group.workloads:
                        self.samples.get(workload, {}).pop(peer, None)
        finally:
            for server in begun.values():
                server.stop()

    def _visit(self, group: Group, server: servers.Server) -> None:
        server.pin(self._cores[-1])
        for workload in group.workloads:
            given = WORKLOADS[workload].measure(server, self._span)
            self.samples.setdefault(workload, {}).setdefault(server.name, []).append(given)

    def table(self, workload: str) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
        """Print what a workload has given; its figures and ratios."""
        unit, against = WORKLOADS[workload].unit, WORKLOADS[workload].against
        rows: dict[str, dict[str, float]] = {}
        for peer, samples in self.samples.get(workload, {}).items():
            costs = [cost for cost, _ in samples]
            rates = [rate for _, rate in samples if rate is not None]
            key = f"{'us of CPU' if rates else 'bytes'} per {unit}"
            rows[peer] = {key: round(statistics.median(costs), 2)}
            rows[peer] |= {"lowest": round(min(costs), 2), "highest": round(max(costs), 2)}
            if rates:
                rows[peer][f"{unit}s per second"] = round(statistics.median(rates))
        medians = {peer: next(iter(row.values())) for peer, row in rows.items()}
        ratios = figures.ratios(medians, against) if medians.get(against) else {}
        told = f", and of that of {against}" if ratios else ""
        for peer, row in rows.items():
            key, *_, last = row
            if peer == next(iter(rows)):
                print(f"\n{workload}: {key}, lowest to highest{', per second' if 'us' in key else ''}{told}")
            rate = f" {row[last]:9,}/s" if last != "highest" else ""
            ratio = f" {ratios[peer]:6.2f}" if ratios else ""
            spread = f"{row['lowest']:8.1f} to {row['highest']:8.1f}"
            print(f"{peer:{figures.WIDTH}} {row[key]:8.1f}   {spread} {rate}{ratio}")
        sys.stdout.flush()
        return rows, ratios


def chosen(given: str | None, known: Iterable[str], parser: argparse.ArgumentParser) -> list[str]:
    """Those of *known* that are named, or else of which a part is named."""
    if given is None:
        return list(known)
    found: list[str] = []
    for part in given.split(","):
        exact = [name for name in known if name.casefold() == part.strip().casefold()]
        more = exact or [name for name in known if part.strip().casefold() in name.casefold()]
        if not more:
            parser.error(f"there is no {part.strip()!r} among: {', '.join(known)}")
        found += more
    return [name for name in known if name in found]


def main() -> None:
    parser = figures.options(__doc__)
    parser.add_argument("--runs", type=int, help=f"how often each server is measured ({RUNS})")
    parser.add_argument("--seconds", type=float, help=f"for how long each time ({SECONDS:.0f})")
    parser.add_argument("--only", metavar="WORKLOAD[,...]", help=f"of: {', '.join(WORKLOADS)}")
    parser.add_argument("--peers", metavar="NAME[,...]", help=f"of: {', '.join(servers.PEERS)}")
    parser.add_argument("--install", action="store_true", help="first install what pip can")
    options = parser.parse_args()
    workloads = chosen(options.only, WORKLOADS, parser)
    wanted = chosen(options.peers, servers.PEERS, parser)
    peers = {name: servers.PEERS[name].needs for name in wanted if any(name in WORKLOADS[w].peers() for w in workloads)}
    tasks = {name: WORKLOADS[name].needs for name in workloads}
    if options.install:
        figures.install({need for needs in (*peers.values(), *tasks.values()) for need in needs})

    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that all ends in order
    hard = servers.moreDescriptors()
    runs = options.runs or (1 if options.smoke else RUNS)
    seconds = options.seconds or (0.05 if options.smoke else SECONDS)
    span = Span(0.02, seconds, 20) if options.smoke else Span(WARM_UP, seconds, hard)
    bench = Bench(span, ahead=options.smoke)
    cores = sorted(os.sched_getaffinity(0))
    if not options.smoke:
        os.sched_setaffinity(0, cores[:1])
    measured: dict[str, dict[str, dict[str, float]]] = {}
    ratios: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for group in groups(figures.present(tasks), figures.present(peers)):
            pem = certificate(folder) if group.scene == "tls" else None
            for _ in range(runs):
                bench.round(group, pem)
            for workload in group.workloads:
                measured[workload], ratios[workload] = bench.table(workload)
    node = run(["node", "--version"], span.patience).strip() if figures.remedy("node") is None else "not installed"
    about = figures.about(node=node, cores=len(cores), runs=runs, seconds=seconds, smoke=options.smoke)
    figures.write(options.json, about, measured, ratios)
    if bench.failed:
        sys.exit(f"failed: {', '.join(dict.fromkeys(bench.failed))}")


if __name__ == "__main__":
    main()
