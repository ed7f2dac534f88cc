"""dig (Debian package bind9-dnsutils) asks the small name server of the manual, a program on ``udp``."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from launched import Running
from strangers import ask, ifIPv6, lines, needs

pytestmark = [pytest.mark.live, needs("dig")]

SERVER = Path(__file__).parents[2] / "docs" / "examples" / "udp_dns.py"
NAMES = ("host.test=192.0.2.1", "host.test=192.0.2.2", "host.test=2001:db8::1", "only4.test=192.0.2.3")


@pytest.fixture(params=["127.0.0.1", *ifIPv6("::1")])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, ...]]:
    """dig's words for a server that runs; one try of a few seconds, for what is lost here is lost by us."""
    host = request.param
    where = f"[{host}]:0" if ":" in host else f"{host}:0"
    with Running((sys.executable, "-u", str(SERVER)), where, *NAMES, folder=tmp_path) as program:
        port = program.wait(r"answering on .*:(\d+)$")[1]
        yield ("dig", f"@{host}", "-p", port, "+tries=1", "+time=10")


@pytest.mark.parametrize(
    ("question", "answers"),
    [
        (("host.test",), {"192.0.2.1", "192.0.2.2"}),
        (("HOST.test", "A"), {"192.0.2.1", "192.0.2.2"}),
        (("host.test", "AAAA"), {"2001:db8::1"}),
        (("only4.test", "AAAA"), set()),
        (("host.test", "MX"), set()),
        (("host.test", "+noedns", "+norecurse"), {"192.0.2.1", "192.0.2.2"}),
    ],
)
def test_answers(server: tuple[str, ...], question: tuple[str, ...], answers: set[str]) -> None:
    assert set(lines(ask(*server, "+short", *question))) == answers


@pytest.mark.parametrize(
    ("question", "status"),
    [(("host.test",), "NOERROR"), (("nobody.test",), "NXDOMAIN"), (("host.test", "+opcode=STATUS"), "NOTIMP")],
)
def test_statuses(server: tuple[str, ...], question: tuple[str, ...], status: str) -> None:
    assert f"status: {status}" in ask(*server, *question).decode()


def test_manyAtOnce(server: tuple[str, ...], tmp_path: Path) -> None:
    """A file of 200 questions, and an answer to each."""
    batch = tmp_path / "batch"
    batch.write_text("host.test AAAA\n" * 200)
    assert lines(ask(*server, "+short", "-f", os.fspath(batch))) == ["2001:db8::1"] * 200
