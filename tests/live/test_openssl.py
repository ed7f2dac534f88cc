"""OpenSSL's own client (Debian package openssl), and socat's TLS, against ``--listen ssl:...``."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from certificates import selfSigned
from launched import Running
from strangers import Stranger, ask, digest, needs, patterned, service

pytestmark = [pytest.mark.live, pytest.mark.tls, needs("openssl", "socat")]

ENDPOINT = "ssl:0:interface=127.0.0.1:privateKey=key.pem:certKey=cert.pem"


@contextmanager
def echoing(folder: Path, *words: str) -> Iterator[tuple[Running, str]]:
    """``net echo`` behind TLS, and its address; in the end it stops well."""
    signed = selfSigned()
    (folder / "cert.pem").write_bytes(signed.certificate)
    (folder / "key.pem").write_bytes(signed.key)
    with service(folder, "echo", "--listen", ENDPOINT, *words) as program:
        yield program, program.address()
        program.signal(signal.SIGTERM)
        ended = program.end()
    assert (ended.code, ended.err) == (0, "")
    assert "Traceback" not in ended.out


def client(folder: Path, address: str, *words: str) -> tuple[str, ...]:
    """The command line of a client that trusts this certificate alone, and says nothing but what it receives."""
    trust = ("-CAfile", str(folder / "cert.pem"), "-verify_return_error", "-verify_hostname", "localhost")
    return ("openssl", "s_client", "-connect", address, "-quiet", "-no_ign_eof", *trust, *words)


@pytest.mark.parametrize("words", [("-tls1_2",), ("-tls1_3",), ("-tls1_3", "-alpn", "h2,http/1.1")])
def test_conversation(tmp_path: Path, words: tuple[str, ...]) -> None:
    with echoing(tmp_path) as (program, address):
        with Stranger(*client(tmp_path, address, *words)) as person:
            for line in (b"one\n", b"two\n"):
                person.stdin.write(line)
                assert person.stdout.readline() == line
            assert person.end()[0] == 0
        program.wait(r"closed \(ended\): 8 bytes in, 8 bytes out")


def test_much(tmp_path: Path) -> None:
    """20 MB through s_client, which reads and writes in turns."""
    with echoing(tmp_path, "--rate-read", "100MB/s") as (program, address):
        with Stranger(*client(tmp_path, address, "-nocommands")) as stream:
            sender = threading.Thread(target=writeAll, args=(stream, patterned()))
            sender.start()
            found = bytearray()
            while len(found) < len(patterned()) and (data := stream.stdout.read(1 << 20)):
                found += data
            sender.join()
            assert digest(bytes(found)) == digest(patterned())
            assert stream.end()[0] == 0
        program.wait(r"closed \(ended\): 20000000 bytes in, 20000000 bytes out")


def writeAll(stream: Stranger, data: bytes) -> None:
    """As much at a time as its pipe takes."""
    left = memoryview(data)
    while left:
        left = left[stream.stdin.write(left) :]


def test_aStrangerToTls(tmp_path: Path) -> None:
    """One who speaks no TLS is told so, by an alert; the next is served."""
    with echoing(tmp_path) as (program, address):
        assert ask("socat", "-t", "30", "-", f"TCP4:{address}", given=b"GET / HTTP/1.0\r\n\r\n")[:1] in (b"", b"\x15")
        program.wait(r"closed \(ERR_TLS\): 0 bytes in, 0 bytes out")
        with Stranger(*client(tmp_path, address)) as person:
            person.stdin.write(b"hello\n")
            assert person.stdout.readline() == b"hello\n"


def test_aCertificateThatIsNotBelieved(tmp_path: Path) -> None:
    """The client breaks the handshake off, and the log says whose fault that was."""
    with echoing(tmp_path) as (program, address):
        (tmp_path / "cert.pem").write_bytes(selfSigned(number=2).certificate)
        with Stranger(*client(tmp_path, address)) as person:
            status, out, err = person.end()
        assert (status, out) == (1, b"")
        assert b"self-signed certificate" in err
        program.wait(r"closed \(ERR_TLS\w*\): 0 bytes in, 0 bytes out")


def test_socat(tmp_path: Path) -> None:
    """socat over TLS, a line and its answer."""
    with echoing(tmp_path) as (program, address):
        where = f"OPENSSL:{address},cafile={tmp_path}/cert.pem,commonname=localhost"
        with Stranger("socat", "-", where) as person:
            person.stdin.write(b"hello\n")
            assert person.stdout.readline() == b"hello\n"
            assert person.end()[0] == 0
        program.wait(r"closed \(ended\): 6 bytes in, 6 bytes out")
