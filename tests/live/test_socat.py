"""socat (Debian package socat): every kind of socket that Linux has, abstract names included, as either side."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import pytest_twisted
from launched import talk
from scenes import Journal, patient
from strangers import Stranger, apart, ask, digest, ifIPv6, needs, patterned, service
from turning import PATIENCE, until

from twisted_net import net, udp

pytestmark = [pytest.mark.live, needs("socat")]

# -t: seconds that socat waits for the other direction after one has ended; it never needs them when all is well.
SOCAT = ("socat", "-t", "30")

# Abstract names belong to the whole machine.
NAME = f"twisted-net-{os.getpid()}"


@pytest.mark.parametrize(
    ("place", "theirs"),
    [
        ("127.0.0.1:0", "TCP4:{}"),
        *ifIPv6(("[::1]:0", "TCP6:{}")),
        ("{folder}/echo.sock", "UNIX-CONNECT:{folder}/echo.sock"),
        (f"unix:@{NAME}", f"ABSTRACT-CONNECT:{NAME}"),
    ],
)
def test_echo(tmp_path: Path, place: str, theirs: str) -> None:
    """The end of its input does not cost socat the answer, however long that is."""
    with service(tmp_path, "echo", "--listen", place.format(folder=tmp_path)) as program:
        where = theirs.format(program.address(), folder=tmp_path)
        assert ask(*SOCAT, "-", where, given=b"hello") == b"hello"
        program.wait(r"closed \(ended\): 5 bytes in, 5 bytes out")
        assert digest(ask(*SOCAT, "-", where, given=patterned())) == digest(patterned())
        program.wait(r"closed \(ended\): 20000000 bytes in, 20000000 bytes out")
        program.signal(signal.SIGTERM)
        ended = program.end()
    assert (ended.code, ended.err) == (0, "")
    assert list(tmp_path.iterdir()) == []


def test_oneThatNeverReads(tmp_path: Path) -> None:
    """It only sends (-u): when nothing fits in between any more, the echo stops reading, and the idle limit ends it."""
    with service(tmp_path, "echo", "--listen", "127.0.0.1:0", "--timeout-idle", "500ms") as program:
        address = program.address()
        ask("socat", "-u", "-", f"TCP4:{address}", given=patterned(50_000_000), status=1)
        closed = program.wait(r"closed \(ETIMEDOUT\): (\d+) bytes in, (\d+) bytes out")
        assert int(closed[2]) <= int(closed[1]) < 50_000_000
        assert talk(address, b"hello") == b"hello"


@pytest.mark.parametrize("kind", ["tcp4", *ifIPv6("tcp6"), "unix", "abstract"])
@pytest_twisted.ensureDeferred
async def test_asServer(tmp_path: Path, kind: str) -> None:
    """Our socket sends 20 MB to a ``cat`` behind socat, half-closes, and hears everything back."""
    place = {
        "tcp4": "TCP4-LISTEN:0,bind=127.0.0.1",
        "tcp6": "TCP6-LISTEN:0,bind=[::1]",
        "unix": f"UNIX-LISTEN:{tmp_path}/cat.sock",
        "abstract": f"ABSTRACT-LISTEN:{NAME}-{kind}",
    }[kind]
    with Stranger(*SOCAT, "-d", "-d", place, "EXEC:cat") as server:
        told = server.says(r"listening on AF=\d+ (.*)$", server.stderr)[1]
        ours = {"unix": f"{tmp_path}/cat.sock", "abstract": f"unix:@{NAME}-{kind}"}
        client = net.connect(ours.get(kind, told))
        journal = Journal(client, without=("drain", "finish"))
        client.end(patterned())
        assert await patient(client.whenClosed()) is False
        assert digest(journal.data) == digest(patterned())
        assert journal.events == ["connect", "ready", "data", "end", "close"]
        assert (await apart(server.end))[0] == 0


# Datagrams


@pytest.mark.parametrize(
    ("place", "theirs"),
    [
        ("127.0.0.1:0", "UDP4:{}"),
        *ifIPv6(("[::1]:0", "UDP6:{}")),
        ("unix:{folder}/ours", "UNIX-SENDTO:{folder}/ours,bind={folder}/theirs"),
        (f"unix:@{NAME}-dgram", f"ABSTRACT-SENDTO:{NAME}-dgram,bind={NAME}-theirs"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_datagrams(tmp_path: Path, place: str, theirs: str) -> None:
    """socat makes one datagram of each piece that it reads, and we send each back."""
    async with await udp.bind(place.format(folder=tmp_path)) as server:
        where = theirs.format(server.address, folder=tmp_path)
        with Stranger("socat", "-b", "65000", "-t", "30", "-", where) as client:
            for size in (1, 1000, 60_000):
                client.stdin.write(patterned(size))
                packet = await server.recvFrom()
                assert digest(packet.data) == digest(patterned(size))
                await server.sendTo(packet.data, packet.address)
                back = await apart(os.read, client.stdout.fileno(), 65_536)
                while len(back) < size:
                    back += await apart(os.read, client.stdout.fileno(), 65_536)
                assert digest(back) == digest(patterned(size))
    assert sorted(path.name for path in tmp_path.iterdir()) in ([], ["theirs"])
    (tmp_path / "theirs").unlink(missing_ok=True)


@pytest_twisted.ensureDeferred
async def test_theirDatagrams(tmp_path: Path) -> None:
    """A ``cat`` behind socat answers each datagram: to the name that a connected socket of ours has by itself."""
    theirs = tmp_path / "theirs"
    with Stranger(*SOCAT, f"UNIX-RECVFROM:{theirs},fork", "EXEC:cat"):
        await until(theirs.exists)
        async with await udp.connect(f"unix:{theirs}") as client:
            client.setTimeout(PATIENCE)
            for data in (b"hello", patterned(5000), b"x"):
                await client.send(data)
                assert await client.recv() == data
    theirs.unlink(missing_ok=True)
