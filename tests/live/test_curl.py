"""curl against ``net serve``: a Site of twisted.web, which knows nothing of us, and HTTP by hand on a Socket."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from certificates import selfSigned
from launched import Running
from live import handlers
from strangers import Stranger, ask, digest, lines, needs, service

pytestmark = [pytest.mark.live, needs("curl")]

CURL = ("curl", "--silent", "--show-error", "--fail", "--max-time", "50", "--noproxy", "*")

HANDLERS = ["handlers:site", "handlers:web"]

# In force, and never met by a peer that behaves: the handler must not notice any of it.
LIMITS = (
    *("--rate-read", "10MB/s", "--timeout-idle", "2s", "--limit-connections", "10", "--limit-per-peer", "5"),
    *("--timeout-handshake", "30s", "--timeout-half-open", "30s", "--max-lifetime", "5m"),
)


class Places:
    """Where a service listens: curl's words for a URL there, by kind of place."""

    def __init__(self, folder: Path, encrypted: bool) -> None:
        (folder / "run").mkdir()
        self.listen = ["--listen", "127.0.0.1:0", "--listen", f"{folder}/run/web.sock"]
        self._folder = folder
        self._encrypted = encrypted
        if encrypted:
            signed = selfSigned()
            (folder / "cert.pem").write_bytes(signed.certificate)
            (folder / "key.pem").write_bytes(signed.key)
            self.listen += ["--listen", "ssl:0:interface=127.0.0.1:privateKey=key.pem:certKey=cert.pem"]

    def learn(self, program: Running) -> None:
        """Where it listens, from its log."""
        self._addresses = [program.address() for _ in self.listen[1::2]]

    def url(self, kind: str, path: str) -> list[str]:
        if kind == "unix":
            return ["--unix-socket", f"{self._folder}/run/web.sock", f"http://localhost{path}"]
        if kind == "tls":
            # Trusted alone, and checked: -k would let anything pass.
            port = self._addresses[2].rpartition(":")[2]
            ca = f"{self._folder}/cert.pem"
            return ["--cacert", ca, "--resolve", f"localhost:{port}:127.0.0.1", f"https://localhost:{port}{path}"]
        return [f"http://{self._addresses[0]}{path}"]


@contextmanager
def serving(
    folder: Path, handler: str, *words: str, encrypted: bool = False
) -> Iterator[tuple[Running, Places]]:
    """The service; in the end it stops well, and has complained about nothing."""
    places = Places(folder, encrypted)
    app = str(Path(__file__).parent)
    with service(folder, "serve", "--app-dir", app, *places.listen, *words, handler) as program:
        places.learn(program)
        yield program, places
        if not any("is stopping" in line for line in program.lines):
            program.signal(signal.SIGTERM)
        ended = program.end()
    assert (ended.code, ended.err) == (0, "")
    assert "Traceback" not in ended.out
    assert list((folder / "run").iterdir()) == []


KINDS = ["tcp", "unix", pytest.param("tls", marks=pytest.mark.tls)]


@pytest.mark.parametrize("words", [(), LIMITS], ids=["plain", "limited"])
@pytest.mark.parametrize("handler", HANDLERS)
@pytest.mark.parametrize("kind", KINDS)
def test_askingAndSending(
    tmp_path: Path, handler: str, words: tuple[str, ...], kind: str
) -> None:
    upload = handlers.BIG[:10_000_000]
    (tmp_path / "upload").write_bytes(upload)
    with serving(tmp_path, handler, *words, encrypted=kind == "tls") as (program, places):
        assert ask(*CURL, *places.url(kind, "/hello")) == b"hello\n"
        program.wait(r"closed \(ended\)")
        assert digest(ask(*CURL, *places.url(kind, "/big"))) == digest(handlers.BIG)
        sent = ask(*CURL, "--data-binary", f"@{tmp_path}/upload", *places.url(kind, "/digest"))
        assert sent == handlers.digest(upload)
        # One connection for three requests.
        told = ["--write-out", "%{http_code} %{num_connects} %{local_port}\\n"]
        again = [*places.url(kind, "/hello"), "--next", *CURL[1:], *told, *places.url(kind, "/hello")]
        first, status, second, last = lines(ask(*CURL, *told, *again))
        assert (first, second) == ("hello", "hello")
        port = status.split()[2]
        assert (status, last) == (f"200 1 {port}", f"200 0 {port}")
        ask("curl", "--silent", "--fail", *places.url(kind, "/nowhere"), status=22)


@pytest.mark.tls
@pytest.mark.parametrize("path", ["/big", "/piecemeal"])
def test_slowly(tmp_path: Path, path: str) -> None:
    """20 MB to readers that take their time, over TCP, UNIX and TLS at once, with limits in force."""
    with serving(tmp_path, "handlers:site", *LIMITS, encrypted=True) as (program, places):
        found: dict[str, str] = {}
        took: dict[str, float] = {}

        def download(kind: str) -> None:
            began = time.monotonic()
            found[kind] = digest(ask(*CURL, "--limit-rate", "5M", *places.url(kind, path)))
            took[kind] = time.monotonic() - began

        readers = [threading.Thread(target=download, args=(kind,)) for kind in ("tcp", "unix", "tls")]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()
        for _ in readers:
            closed = program.wait(r"closed \((\w+)\): \d+ bytes in, (\d+) bytes out, ")
            assert closed[1] == "ended"
            assert int(closed[2]) > 20_000_000
    # Asked of the readers: when the server has done its part depends on how much the kernel holds for them. So does
    # when curl has, which takes what lies there in one go: two to four seconds, where it needs a tenth unbridled.
    assert min(took.values()) > 1, "no slow reader"
    assert found == dict.fromkeys(("tcp", "unix", "tls"), digest(handlers.BIG))


@pytest.mark.parametrize("handler", HANDLERS)
def test_stopped(tmp_path: Path, handler: str) -> None:
    """SIGTERM in the middle of a download: nobody new is let in, and curl gets all of it."""
    with serving(tmp_path, handler) as (program, places):
        with Stranger(*CURL, *places.url("tcp", "/big")) as reader:
            begun = reader.stdout.read(1_000_000)
            program.signal(signal.SIGTERM)
            program.wait(r"is stopping \(SIGTERM\); open connections: 1")
            program.wait("Port .* Closed")
            ask(*CURL, *places.url("tcp", "/hello"), status=7)
            status, rest, err = reader.end()
        assert (status, err) == (0, b"")
        assert digest(begun + rest) == digest(handlers.BIG)
