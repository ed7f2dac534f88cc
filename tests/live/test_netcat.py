"""netcat (OpenBSD's, Debian package netcat-openbsd): the client that everybody has, and a small server."""

from __future__ import annotations

import os
import signal
import stat
from pathlib import Path

import pytest
import pytest_twisted
from launched import Running, talk
from scenes import Journal, patient
from strangers import Stranger, apart, ask, digest, ifIPv6, needs, patterned, service
from turning import until

from twisted_net import net

pytestmark = [pytest.mark.live, needs("nc")]


def nc(address: str) -> list[str]:
    """The command line that connects to *address* and ends its sending (-N) when its input ends."""
    if address.startswith("unix:"):
        return ["nc", "-N", "-U", address.removeprefix("unix:")]
    host, _, port = address.rpartition(":")
    return ["nc", "-N", host.strip("[]"), port]


def stop(program: Running, folder: Path) -> None:
    """It ends well, says nothing on stderr and leaves nothing behind."""
    program.signal(signal.SIGTERM)
    ended = program.end()
    assert (ended.code, ended.err) == (0, "")
    assert "Traceback" not in ended.out
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("place", ["127.0.0.1:0", *ifIPv6("[::1]:0"), "{}/echo.sock"])
def test_halfClose(tmp_path: Path, place: str) -> None:
    """``printf hello | nc -N``: the end of its sending does not cost it the answer, however long that is."""
    with service(tmp_path, "echo", "--listen", place.format(tmp_path)) as program:
        address = program.address()
        assert ask(*nc(address), given=b"hello") == b"hello"
        program.wait(r"closed \(ended\): 5 bytes in, 5 bytes out")
        assert digest(ask(*nc(address), given=patterned())) == digest(patterned())
        program.wait(r"closed \(ended\): 20000000 bytes in, 20000000 bytes out")
        assert ask(*nc(address)) == b"", "nothing said, nothing answered"
        stop(program, tmp_path)


@pytest.mark.parametrize("place", [":0", *ifIPv6("[::]:0")])
def test_everyInterface(tmp_path: Path, place: str) -> None:
    """``:0`` is every IPv4 interface; ``[::]:0`` takes IPv4 clients, too."""
    with service(tmp_path, "echo", "--listen", place) as program:
        port = program.address().rpartition(":")[2]
        assert ask(*nc(f"127.0.0.1:{port}"), given=b"four") == b"four"
        program.wait(r"127\.0\.0\.1\S* closed \(ended\)")
        stop(program, tmp_path)


def test_conversation(tmp_path: Path) -> None:
    """As a person types: a line, its answer, the next line."""
    with service(tmp_path, "echo", "--listen", "127.0.0.1:0") as program:
        with Stranger(*nc(program.address())) as person:
            for line in (b"one\n", b"two\n", b"three\n"):
                person.stdin.write(line)
                person.stdin.flush()
                assert person.stdout.readline() == line
            assert person.end() == (0, b"", b"")
        stop(program, tmp_path)


def test_discard(tmp_path: Path) -> None:
    with service(tmp_path, "discard", "--listen", "127.0.0.1:0") as program:
        assert ask(*nc(program.address()), given=patterned()) == b""
        program.wait(r"closed \(ended\): 20000000 bytes in, 0 bytes out")
        stop(program, tmp_path)


def test_modeOfTheFile(tmp_path: Path) -> None:
    path = tmp_path / "echo.sock"
    with service(tmp_path, "echo", "--listen", f"unix:{path}:mode=620") as program:
        program.address()
        found = path.stat()
        assert stat.S_ISSOCK(found.st_mode)
        assert stat.S_IMODE(found.st_mode) == 0o620
        assert ask(*nc(f"unix:{path}"), given=b"hello") == b"hello"
        stop(program, tmp_path)


def test_staleFile(tmp_path: Path) -> None:
    """The file that a killed netcat leaves: nobody answers there, and it is replaced; while it answered, it was not."""
    path = tmp_path / "echo.sock"
    with Stranger("nc", "-v", "-l", "-U", str(path)) as server:
        server.says("Listening", server.stderr)
        with service(tmp_path, "echo", "--listen", str(path)) as program:
            ended = program.end()
        assert ended.code == 1
        assert "another server lives there" in ended.err
        assert path.is_socket()
    assert path.is_socket(), "it was killed"
    with service(tmp_path, "echo", "--listen", str(path)) as program:
        program.address()
        assert ask(*nc(f"unix:{path}"), given=b"hello") == b"hello"
        stop(program, tmp_path)


def test_killed(tmp_path: Path) -> None:
    """``kill -9`` of the service leaves its file, and the next start replaces it."""
    path = tmp_path / "echo.sock"
    with service(tmp_path, "echo", "--listen", str(path)) as program:
        program.address()
        program.signal(signal.SIGKILL)
        assert program.end().code == -signal.SIGKILL
    assert path.is_socket()
    ask(*nc(f"unix:{path}"), status=1)
    with service(tmp_path, "echo", "--listen", str(path)) as program:
        program.address()
        assert ask(*nc(f"unix:{path}"), given=b"hello") == b"hello"
        stop(program, tmp_path)


def test_goneInTheMiddle(tmp_path: Path) -> None:
    """netcat is killed in the middle of its conversation; the next client is served."""
    with service(tmp_path, "echo", "--listen", "127.0.0.1:0") as program:
        address = program.address()
        with Stranger(*nc(address)) as client:
            os.set_blocking(client.stdin.fileno(), False)
            os.write(client.stdin.fileno(), patterned(60_000))
            assert client.stdout.read(1) == patterned(60_000)[:1]
        program.wait(r"closed \((ended|ECONNRESET|EPIPE)\)")
        assert talk(address, b"hello") == b"hello"
        stop(program, tmp_path)


@pytest_twisted.ensureDeferred
async def test_asServer() -> None:
    """Our socket connects to a netcat that listens, and each hears the other out."""
    with Stranger("nc", "-v", "-N", "-l", "127.0.0.1", "0") as server:
        port = int(server.says(r"Listening on \S+ (\d+)", server.stderr)[1])
        client = net.connect(port, "127.0.0.1")
        journal = Journal(client)
        client.write("from us\n")
        server.stdin.write(b"from netcat\n")
        server.stdin.flush()
        assert await apart(server.stdout.readline) == b"from us\n"
        await patient(until(lambda: journal.data == b"from netcat\n"))
        greeting = f"Connection received on localhost {client.localPort}\n"
        client.end()
        await patient(journal.happened("finish"))
        assert await apart(server.end) == (0, b"", greeting.encode())
        await patient(client.whenClosed())
        # netcat spoke without being asked: its line may be here before ours is gone.
        assert "drain" in journal.events[2:4]
        journal.events.remove("drain")
        assert journal.events == ["connect", "ready", "data", "finish", "end", "close"]
        assert journal.args["close"] == [(False,)]
