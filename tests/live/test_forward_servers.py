"""``net forward`` in front of servers as they are run everywhere: Redis, PostgreSQL, nginx, iperf3, a name server.

Their own clients and benchmarks talk to them directly and through the forwarder, and have to see the same. What they
measure is printed (``pytest -s``) and judged by nobody: two cores that other work shares are no scales.
"""

from __future__ import annotations

import csv
import json
import re
import signal
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from outsiders import (
    BULK,
    HOST,
    INITDB,
    NGINX,
    PGBENCH,
    POSTGRES,
    PSQL,
    Server,
    forwarding,
    iperf,
    names,
    nginx,
    postgres,
    redis,
    sha256,
    write,
)
from programs import until
from strangers import Stranger, ask, digest, lines, needs, patterned

pytestmark = pytest.mark.live

needsRedis = needs("redis-server", "redis-cli", "redis-benchmark")
needsPostgres = needs(INITDB, POSTGRES, PGBENCH, PSQL)
needsNginx = needs(NGINX, "curl", "wrk")


def told(what: str, direct: object, forwarded: object) -> None:
    """What a benchmark has measured, for whoever wants to see it."""
    print(f"{what}: {direct} directly, {forwarded} through the forwarder")


# Redis


@pytest.fixture(scope="module")
def redisServer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


SCRIPT = b"""FLUSHALL
SET name value
APPEND name s
GET name
INCR count
NOSUCH command
LPUSH list a b c
LRANGE list 0 -1
MULTI
INCR count
INCR count
EXEC
EVAL "return redis.call('GET', KEYS[1])" 1 count
"""


@needsRedis
@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_redisCommands(tmp_path: Path, redisServer: Server, kind: str) -> None:
    """The same commands, the same answers: clients and servers on TCP and on UNIX sockets, in all four ways."""
    target = redisServer.address if kind == "tcp" else str(redisServer.log.with_name("redis.sock"))
    expected = ask("redis-cli", "-p", str(redisServer.port), given=SCRIPT)
    assert expected.endswith(b"\n3\n")
    places = (f"{HOST}:0", f"{tmp_path}/forward.sock")
    with forwarding(tmp_path, "--target", target, listen=places) as forward:
        for where in (("-p", forward.port), ("-s", f"{tmp_path}/forward.sock")):
            assert ask("redis-cli", *where, given=SCRIPT) == expected
            assert ask("redis-cli", *where, "-x", "SET", "big", given=patterned()) == b"OK\n"
            assert digest(ask("redis-cli", *where, "GET", "big")[:-1]) == digest(patterned())
    assert list(tmp_path.iterdir()) == []


@needsRedis
@pytest.mark.parametrize(
    "words",
    [
        ("-n", "5000", "-c", "50", "-t", "ping,set,get,lpush,lrange_100"),
        ("-n", "20000", "-c", "20", "-P", "16", "-d", "1000", "-t", "set,get"),
        ("-n", "500", "-c", "20", "-k", "0", "-t", "ping_mbulk"),
    ],
    ids=["one at a time", "pipelined", "a connection for each"],
)
def test_redisBenchmark(tmp_path: Path, redisServer: Server, words: tuple[str, ...]) -> None:
    def measured(port: object) -> dict[str, str]:
        rows = list(csv.reader(lines(ask("redis-benchmark", "-p", str(port), "--csv", *words))))
        return {row[0]: row[1] for row in rows[1:]}

    direct = measured(redisServer.port)
    with forwarding(tmp_path, "--target", redisServer.address, "--no-access-log") as forward:
        forwarded = measured(forward.port)
    assert forwarded.keys() == direct.keys()
    for name, rate in direct.items():
        told(f"redis-benchmark {name}, requests/s", rate, forwarded[name])


@needsRedis
def test_redisPipe(tmp_path: Path, redisServer: Server) -> None:
    """100,000 commands in one go, answered while they are sent."""
    commands = b"".join(
        b"*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$5\r\nvalue\r\n" % (len(key), key)
        for key in (b"key:%d" % number for number in range(100_000))
    )
    with forwarding(tmp_path, "--target", redisServer.address) as forward:
        said = ask("redis-cli", "-p", forward.port, "--pipe", given=commands)
        assert b"errors: 0, replies: 100000" in said
        closed = forward.program.wait(rf"-> {redisServer.address} closed \(ended\): (\d+) bytes in, (\d+) bytes out")
        assert int(closed[1]) >= len(commands)
        assert int(closed[2]) >= 100_000 * len(b"+OK\r\n")


# PostgreSQL


@pytest.fixture(scope="module")
def postgresServer() -> Iterator[Server]:
    with postgres() as server:
        yield server


@needsPostgres
def test_pgbench(tmp_path: Path, postgresServer: Server) -> None:
    """Its tables are made through the forwarder; then 8 clients, each connected once, or anew for each transaction."""

    def place(port: object) -> tuple[str, ...]:
        return ("-h", HOST, "-p", str(port), "-U", "tester")

    def measured(port: object, *words: str) -> str:
        said = ask(PGBENCH, *place(port), "-n", *words, "postgres").decode()
        clients, transactions = (int(words[words.index(word) + 1]) for word in ("-c", "-t"))
        total = clients * transactions
        assert f"number of transactions actually processed: {total}/{total}" in said
        assert "number of failed transactions: 0 (" in said
        found = re.search(r"tps = ([\d.]+)", said)
        assert found is not None
        return found[1]

    with forwarding(tmp_path, "--target", postgresServer.address, "--no-access-log") as forward:
        ask(PGBENCH, *place(forward.port), "-i", "-s", "1", "-q", "postgres")
        for text in ("-c 8 -j 2 -t 100", "-c 8 -C -t 10", "-c 8 -t 500 -S"):
            words = text.split()
            told(f"pgbench {text}, tps", measured(postgresServer.port, *words), measured(forward.port, *words))


@needsPostgres
def test_copy(tmp_path: Path, postgresServer: Server) -> None:
    """A large result, whole: what psql is sent for ``COPY TO STDOUT``; and the same as input of a ``COPY FROM``."""
    place = ("-X", "-q", "-h", HOST, "-U", "tester", "-d", "postgres", "-v", "ON_ERROR_STOP=1", "-p")
    rows = "COPY (SELECT i, md5(i::text) FROM generate_series(1, 300000) i) TO STDOUT"
    direct = ask(PSQL, *place, str(postgresServer.port), "-c", rows)
    with forwarding(tmp_path, "--target", postgresServer.address) as forward:
        assert digest(ask(PSQL, *place, forward.port, "-c", rows)) == digest(direct)
        ask(PSQL, *place, forward.port, "-c", "CREATE TABLE sent (i int, t text)")
        ask(PSQL, *place, forward.port, "-c", "COPY sent FROM STDIN", given=direct)
        back = ask(PSQL, *place, str(postgresServer.port), "-c", "COPY (SELECT * FROM sent ORDER BY i) TO STDOUT")
        assert digest(back) == digest(direct)


# nginx

CURL = ("curl", "--silent", "--show-error", "--fail", "--max-time", "50", "--noproxy", "*")


@pytest.fixture(scope="module")
def nginxServer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("nginx")
    with nginx(folder) as server:
        (folder / "www" / "small").write_bytes(patterned(1000))
        yield server
    for path in folder.rglob("*"):
        if path.is_file():
            path.unlink()  # pytest keeps the folders of its last runs, and these are large


@pytest.fixture
def big(nginxServer: Server) -> tuple[str, str]:
    """The path and the SHA-256 of a large file that nginx serves."""
    path = nginxServer.log.parent / "www" / "big"
    return "/big", sha256(path) if path.exists() else write(path, BULK)


@needsNginx
@pytest.mark.parametrize(
    "words",
    [("-c", "50", "-d", "2s"), ("-c", "20", "-d", "1s", "-H", "Connection: close")],
    ids=["keep-alive", "a connection for each"],
)
def test_wrk(tmp_path: Path, nginxServer: Server, words: tuple[str, ...]) -> None:
    def measured(port: object) -> str:
        said = ask("wrk", "-t", "2", *words, f"http://{HOST}:{port}/small").decode()
        assert "Socket errors" not in said, said
        assert "Non-2xx" not in said, said
        found = re.search(r"Requests/sec:\s+([\d.]+)", said)
        assert found is not None
        assert float(found[1]) > 0, said
        return found[1]

    with forwarding(tmp_path, "--target", nginxServer.address, "--no-access-log") as forward:
        told(f"wrk {' '.join(words)}, requests/s", measured(nginxServer.port), measured(forward.port))


@needsNginx
@pytest.mark.parametrize("words", [(), ("--no-splice",)], ids=["splice", "no splice"])
def test_largeFiles(tmp_path: Path, nginxServer: Server, big: tuple[str, str], words: tuple[str, ...]) -> None:
    """Downloads and uploads of :data:`BULK` bytes arrive as they are, on one connection that is kept alive."""
    path, summed = big
    stored = nginxServer.log.parent / "www" / "up" / "stored"
    (tmp_path / "small").write_bytes(b"small")
    with forwarding(tmp_path, "--target", nginxServer.address, *words) as forward:
        url = f"http://{forward.address}"
        source = str(nginxServer.log.parent / "www" / "big")
        more = ("--write-out", "%{num_connects} ", "--output", str(tmp_path / "got"), f"{url}{path}")
        put = ("--write-out", "%{num_connects} %{http_code} ", "--upload-file")
        said = ask(*CURL, *more, "--next", *CURL[1:], *put, source, f"{url}/up/stored")
        assert said == b"1 0 201 "
        closed = forward.program.wait(r"closed \(ended\): (\d+) bytes in, (\d+) bytes out")
        assert min(int(closed[1]), int(closed[2])) > BULK
    assert sha256(tmp_path / "got") == summed
    assert sha256(stored) == summed
    stored.unlink()
    (tmp_path / "got").unlink()


@needsNginx
def test_slowReaderAndUnix(tmp_path: Path, nginxServer: Server, big: tuple[str, str]) -> None:
    """curl takes what it is allowed (``--limit-rate``), and then nothing is lost: of a UNIX socket, through another."""
    path, _ = big
    count = 30_000_000
    rate = ("--limit-rate", "15M", "--range", f"0-{count - 1}")
    sockets = (str(nginxServer.log.with_name("nginx.sock")), f"{tmp_path}/forward.sock")
    found = [digest(ask(*CURL, "--unix-socket", sockets[0], "--range", rate[-1], f"http://localhost{path}"))]
    with forwarding(tmp_path, "--target", sockets[0], listen=(sockets[1], f"{HOST}:0")) as forward:
        with Stranger(*CURL, *rate, "--unix-socket", sockets[1], f"http://localhost{path}") as reader:
            found.append(digest(ask(*CURL, *rate, f"http://{forward.addresses[1]}{path}")))
            status, rest, err = reader.end()
        assert (status, err) == (0, b"")
        found.append(digest(rest))
    assert found == found[:1] * 3


@needsNginx
def test_stoppedMeanwhile(tmp_path: Path, nginxServer: Server, big: tuple[str, str]) -> None:
    """SIGTERM in the middle of a download: nobody new is let in, curl gets all of it, and the exit status is 0."""
    path, _ = big
    words = (*CURL, "--limit-rate", "20M", "--range", "0-29999999")
    expected = ask(*CURL, "--range", words[-1], f"http://{nginxServer.address}{path}")
    with forwarding(tmp_path, "--target", nginxServer.address) as forward:
        with Stranger(*words, f"http://{forward.address}{path}") as reader:
            begun = reader.stdout.read(1_000_000)
            forward.program.signal(signal.SIGTERM)
            forward.program.wait(r"is stopping \(SIGTERM\)")
            forward.program.wait("Port .* Closed")
            ask(*CURL, f"http://{forward.address}/small", status=7)
            status, rest, err = reader.end()
        assert (status, err) == (0, b"")
        assert digest(begun + rest) == digest(expected)
        forward.program.wait(r"closed \(ended\): \d+ bytes in, 3\d{7} bytes out")


# iperf3


@needs("iperf3")
def test_iperf(tmp_path: Path) -> None:
    """To the server, from the server, and both at the same time, on one connection and on several."""

    def measured(port: object, *words: str) -> str:
        answers: list[dict[str, Any]] = []

        def answered() -> bool:
            said = ask("iperf3", "-c", HOST, "-p", str(port), "-J", "-n", str(BULK), *words)
            answers.append(json.loads(said))
            return "the server is busy" not in answers[-1].get("error", "")  # it has not done with the last client

        until(answered)
        assert "error" not in answers[-1]
        ends = [end for name, end in answers[-1]["end"].items() if name.startswith("sum_received")]
        # When one side has sent enough it is over for both, and what is under way is not counted.
        assert max(end["bytes"] for end in ends) > BULK / 2
        assert min(end["bytes"] for end in ends) > 0
        return "+".join(f"{end['bits_per_second'] / 1e9:.1f}" for end in ends)

    with iperf(tmp_path) as server, forwarding(tmp_path, "--target", server.address) as forward:
        for words in ((), ("-R",), ("--bidir",), ("-P", "4", "-R")):
            told(f"iperf3 {' '.join(words)}, Gbit/s", measured(server.port, *words), measured(forward.port, *words))


# A name server


@needs("dig")
@pytest.mark.parametrize("way", ["+notcp", "+tcp"])
def test_dig(tmp_path: Path, way: str) -> None:
    """Questions and answers over UDP and over TCP, one by one and 200 in a row; and in between what is no question."""
    batch = tmp_path / "batch"
    batch.write_text("host.test\nother.test\n" * 100)

    def dig(port: object, *words: str) -> Sequence[str]:
        return lines(ask("dig", f"@{HOST}", "-p", str(port), "+tries=1", "+time=10", way, *words))

    with names(tmp_path, "192.0.2.1 host.test", "192.0.2.3 other.test") as ports:
        scheme, port = ("udp:", ports[0]) if way == "+notcp" else ("", ports[1])
        words = ("--target", f"{scheme}{HOST}:{port}", "--no-access-log", "--timeout-flow", "500ms")
        with forwarding(tmp_path, *words, listen=(f"{scheme}{HOST}:0",)) as forward:
            assert dig(forward.port, "+short", "host.test") == dig(port, "+short", "host.test") == ["192.0.2.1"]
            assert any("status: NXDOMAIN" in line for line in dig(forward.port, "nobody.test"))
            if way == "+notcp":
                with socket.socket(type=socket.SOCK_DGRAM) as stranger:
                    for noise in (b"", b"\0", patterned(60_000)):
                        stranger.sendto(noise, (HOST, int(forward.port)))
            assert dig(forward.port, "+short", "-f", str(batch)) == ["192.0.2.1", "192.0.2.3"] * 100
