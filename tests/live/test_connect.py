"""``twistd net connect`` and programs that nobody here wrote at the other end: netcat and socat; and netcat against a
coroutine of ours."""

from __future__ import annotations

import subprocess
from pathlib import Path
from textwrap import dedent

import pytest
from drivers import reactorName
from launched import PATIENCE, TWIST, TWISTD
from programs import until
from strangers import Stranger, ask, digest, needs, patterned, service

pytestmark = [pytest.mark.live, needs("nc", "socat")]

SHOUT = """
    async def shout(stream):
        async for chunk in stream:
            await stream.write(chunk.upper())
"""


def connect(address: str) -> list[str]:
    """The command line of ours, on the reactor that this run of the tests is for."""
    return [*TWISTD, "--reactor", reactorName(), "net", "connect", address]


def test_netcatListens() -> None:
    """A conversation with ``nc -l``, which leaves when our sending ends."""
    with Stranger("nc", "-v", "-N", "-l", "127.0.0.1", "0") as server:
        port = int(server.says(r"Listening on \S+ (\d+)", server.stderr)[1])
        ours = subprocess.Popen(
            connect(f"127.0.0.1:{port}"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        with ours:
            assert ours.stdin is not None
            assert ours.stdout is not None
            ours.stdin.write(b"hello\n")
            ours.stdin.flush()
            assert server.stdout.readline() == b"hello\n"
            server.stdin.write(b"good day\n")
            assert ours.stdout.readline() == b"good day\n"
            assert ours.communicate(b"bye\n", timeout=PATIENCE) == (b"", b"")
            assert ours.returncode == 0
            assert server.end()[:2] == (0, b"bye\n")


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_socatEchoes(tmp_path: Path, kind: str) -> None:
    """20 MB through a ``cat`` behind socat, and back; the file of the socket goes with socat."""
    place = {"tcp": "TCP4-LISTEN:0,bind=127.0.0.1", "unix": f"UNIX-LISTEN:{tmp_path}/cat.sock"}[kind]
    with Stranger("socat", "-t", "30", "-d", "-d", place, "EXEC:cat") as server:
        told = server.says(r"listening on AF=\d+ (.*)$", server.stderr)[1]
        address = told if kind == "tcp" else f"{tmp_path}/cat.sock"
        assert digest(ask(*connect(address), given=patterned())) == digest(patterned())
        assert server.end()[0] == 0


def test_betweenSocats(tmp_path: Path) -> None:
    """socat starts ours with a socket as stdin and stdout."""
    with Stranger("socat", "-t", "30", "-d", "-d", "TCP4-LISTEN:0,bind=127.0.0.1", "EXEC:cat") as server:
        address = server.says(r"listening on AF=\d+ (.*)$", server.stderr)[1]
        program = tmp_path / "ours"
        program.write_text("#!/bin/sh\nexec " + " ".join([*TWIST, "net", "connect", address]) + "\n")
        program.chmod(0o700)
        assert digest(ask("socat", "-t", "30", "-", f"EXEC:{program}", given=patterned())) == digest(patterned())
    program.unlink()


def test_socatEchoesDatagrams(tmp_path: Path) -> None:
    path = tmp_path / "cat.sock"
    with Stranger("socat", f"UNIX-RECVFROM:{path}", "EXEC:cat"):
        until(path.exists)
        *ours, where = connect(f"unixgram:{path}")
        assert ask(*ours, "--timeout-idle", "1s", where, given=b"hello\n") == b"hello\n"
    path.unlink(missing_ok=True)


def test_netcatAsksForDatagrams(tmp_path: Path) -> None:
    with service(tmp_path, "echo", "--listen", "udp:127.0.0.1:0") as program:
        host, _, port = program.address().removeprefix("udp:").rpartition(":")
        with Stranger("nc", "-u", host, port) as client:
            for data in (b"one\n", b"two\n"):
                client.stdin.write(data)
                assert client.stdout.readline() == data


def test_netcatAsksACoroutine(tmp_path: Path) -> None:
    """The end of netcat's sending does not cost it the answer."""
    (tmp_path / "shouting.py").write_text(dedent(SHOUT))
    with service(tmp_path, "serve", "--listen", "127.0.0.1:0", "shouting:shout") as program:
        host, _, port = program.address().rpartition(":")
        assert ask("nc", "-N", host, port, given=b"hello") == b"HELLO"
        program.wait(r"closed \(ended\): 5 bytes in, 5 bytes out")
        data = patterned()
        assert digest(ask("nc", "-N", host, port, given=data)) == digest(data.upper())
