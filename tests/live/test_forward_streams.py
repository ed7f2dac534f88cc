"""``net forward`` between netcats and socats: ends of one direction, every kind of socket, both ways at once."""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from launched import PATIENCE, connect, drained, environment
from outsiders import BULK, HOST, forwarding, sha256, write
from strangers import Stranger, ask, digest, ifIPv6, needs, patterned

pytestmark = [pytest.mark.live, needs("nc", "socat")]

# Abstract names belong to the whole machine.
NAME = f"twisted-net-forward-{os.getpid()}"

# -t: seconds that socat waits for the other direction after one has ended; it never needs them when all is well.
SOCAT = ("socat", "-t", "30")


@contextlib.contextmanager
def serving(place: str, command: str) -> Iterator[str]:
    """socat, which runs *command* for each client at a place of its kind; yields where, in its own words."""
    with Stranger(*SOCAT, "-d", "-d", f"{place},fork", command) as server:
        yield server.says(r"listening on AF=\d+ (.*)$", server.stderr)[1]


def atTCP(command: str) -> contextlib.AbstractContextManager[str]:
    """The same on a free port."""
    return serving(f"TCP4-LISTEN:0,bind={HOST}", command)


@pytest.mark.parametrize("words", [(), ("--no-splice",)], ids=["splice", "no splice"])
def test_answersAfterTheEnd(tmp_path: Path, words: tuple[str, ...]) -> None:
    """``printf hello | nc -N``: what is answered only when the input has ended arrives, and all of it."""
    rows = b"".join(b"%09d\n" % number for number in range(2_000_000))
    with atTCP("EXEC:tac") as target, forwarding(tmp_path, "--target", target, *words) as forward:
        nc = ("nc", "-N", HOST, forward.port)
        assert ask(*nc, given=b"hello") == b"hello"
        assert ask(*nc, given=b"one\ntwo\n") == b"two\none\n"
        assert ask(*nc) == b""
        forward.program.wait(rf"-> {target} closed \(ended\): 8 bytes in, 8 bytes out")
        expected = b"".join(b"%09d\n" % number for number in reversed(range(2_000_000)))
        assert digest(ask(*nc, given=rows)) == digest(expected)
        forward.program.wait(r"closed \(ended\): 20000000 bytes in, 20000000 bytes out")


def test_answersBeforeTheEnd(tmp_path: Path) -> None:
    """A netcat that has said all it has to say (-N) goes on listening, and hears what the client sends after that."""
    with Stranger("nc", "-v", "-N", "-l", HOST, "0") as server, ThreadPoolExecutor(1) as pool:
        target = f"{HOST}:{server.says('Listening on', server.stderr).string.split()[-1]}"
        with forwarding(tmp_path, "--target", target) as forward:
            with connect(forward.address) as client:
                server.stdin.write(b"ready")
                server.stdin.close()
                assert drained(client) == b"ready"
                heard = pool.submit(server.stdout.read)
                client.sendall(patterned())
            assert digest(heard.result(PATIENCE)) == digest(patterned())
            forward.program.wait(r"closed \(ended\): 20000000 bytes in, 5 bytes out")


def test_everyKindOfSocket(tmp_path: Path) -> None:
    """Each kind of listener, with each kind of target behind it: they take turns."""
    kinds = {
        "tcp4": (f"TCP4-LISTEN:0,bind={HOST}", f"{HOST}:0", "TCP4:{}"),
        **dict(ifIPv6(("tcp6", ("TCP6-LISTEN:0,bind=[::1]", "[::1]:0", "TCP6:{}")))),
        "unix": (
            f"UNIX-LISTEN:{tmp_path}/target.sock",
            f"{tmp_path}/forward.sock",
            f"UNIX-CONNECT:{tmp_path}/forward.sock",
        ),
        "abstract": (f"ABSTRACT-LISTEN:{NAME}-target", f"unix:@{NAME}-forward", f"ABSTRACT-CONNECT:{NAME}-forward"),
    }
    ours = {"unix": f"{tmp_path}/target.sock", "abstract": f"unix:@{NAME}-target"}
    with contextlib.ExitStack() as stack:
        targets: list[str] = []
        for kind, (theirs, _, _) in kinds.items():
            told = stack.enter_context(serving(theirs, f"SYSTEM:echo {kind}; cat"))
            targets += ("--target", ours.get(kind, told))
        listen = [place for _, place, _ in kinds.values()]
        with forwarding(tmp_path, *targets, listen=listen) as forward:
            for (_, _, words), address in zip(kinds.values(), forward.addresses, strict=True):
                found = []
                for _ in kinds:
                    answer = ask(*SOCAT, "-", words.format(address), given=patterned(300_000))
                    who, _, rest = answer.partition(b"\n")
                    assert digest(rest) == digest(patterned(300_000))
                    found.append(who.decode())
                assert sorted(found) == sorted(kinds)
    assert not (tmp_path / "forward.sock").exists()
    (tmp_path / "target.sock").unlink(missing_ok=True)


@pytest.mark.parametrize("words", [(), ("--no-splice",)], ids=["splice", "no splice"])
def test_bothWaysAtOnce(tmp_path: Path, words: tuple[str, ...]) -> None:
    """
    A socat and a netcat give each other files of :data:`outsiders.BULK` bytes, at the same time; both arrive as they
    are. (A netcat that listens would end with its client, whether it has sent everything or not.)
    """
    sums = [write(tmp_path / name, BULK, seed) for seed, name in enumerate(("theirs", "ours"))]
    with contextlib.ExitStack() as stack:
        theirs, ours, gotOurs, gotTheirs = (
            stack.enter_context((tmp_path / name).open(mode))
            for name, mode in (("theirs", "rb"), ("ours", "rb"), ("gotOurs", "wb"), ("gotTheirs", "wb"))
        )
        server = stack.enter_context(
            subprocess.Popen(
                (*SOCAT, "-d", "-d", f"TCP4-LISTEN:0,bind={HOST}", "-"),
                stdin=theirs,
                stdout=gotOurs,
                stderr=subprocess.PIPE,
                env=environment(),
            )
        )
        stack.callback(server.kill)
        assert server.stderr is not None
        target = server.stderr.readline().split()[-1].decode()
        with forwarding(tmp_path, "--target", target, *words) as forward:
            nc = ("nc", "-N", HOST, forward.port)
            subprocess.run(nc, stdin=ours, stdout=gotTheirs, env=environment(), timeout=PATIENCE, check=True)
            assert server.wait(PATIENCE) == 0
            forward.program.wait(rf"closed \(ended\): {BULK} bytes in, {BULK} bytes out")
    assert [sha256(tmp_path / name) for name in ("gotTheirs", "gotOurs")] == sums
    for path in tmp_path.iterdir():
        path.unlink()  # pytest keeps the folders of its last runs, and these are large


def test_aPersonTypes(tmp_path: Path) -> None:
    """A line, its answer, the next line: nothing waits for more."""
    with (
        atTCP("EXEC:cat") as target,
        forwarding(tmp_path, "--target", target) as forward,
        Stranger("nc", "-N", HOST, forward.port) as person,
    ):
        for number in range(50):
            line = b"line %d\n" % number
            person.stdin.write(line)
            assert person.stdout.readline() == line
        assert person.end() == (0, b"", b"")


def test_throughThreeOfThem(tmp_path: Path) -> None:
    """One forwards to the next, over TCP and UNIX: ends of one direction pass all of them."""
    summed = hashlib.sha256(patterned()).hexdigest()
    with contextlib.ExitStack() as stack:
        address = stack.enter_context(atTCP("EXEC:sha256sum"))
        for number in range(3):
            folder = tmp_path / str(number)
            folder.mkdir()
            place = f"{folder}/forward.sock" if number == 1 else f"{HOST}:0"
            address = stack.enter_context(forwarding(folder, "--target", address, listen=(place,))).address
        assert ask("nc", "-N", *address.split(":"), given=patterned()).split()[0].decode() == summed
