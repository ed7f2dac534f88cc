"""``net forward``: its options, its mistakes, its log, its end."""

from __future__ import annotations

import inspect
import json
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from launched import PATIENCE, TWIST, TWISTD, Ended, Running, connect, daemon, drained, fate, gone, run, talk
from twisted.internet.threads import deferToThread
from twisted.logger import formatEvent, globalLogPublisher

from twisted_net import service
from twisted_net.address import Address, EndpointTarget, TcpTarget, UdpTarget, UnixTarget
from twisted_net.forward import Check, Forwarder
from twisted_net.forward.forwarder import DEFAULT_LIMITS
from twisted_net.net import createServer
from twisted_net.sansio.faults import Faults, Latency, Loss, Slicer
from twisted_net.service import forward
from twisted_net.service.launch import Launch
from twisted_net.wire import dial
from twisted_net.wire.limits import Limits

HERE = ("--listen", "127.0.0.1:0")
FOREGROUND = ("-n", "--pidfile=")
PROGRAMS = pytest.mark.parametrize(
    "program", [(*TWISTD, *FOREGROUND), (*TWIST, "--log-format=text")], ids=["twistd", "twist"]
)


@pytest.fixture(autouse=True)
def _noVariables(monkeypatch: pytest.MonkeyPatch) -> None:
    for one in forward.Options.everySetting():
        monkeypatch.delenv(one.variable, raising=False)


@pytest.fixture
def reactor() -> Any:
    from twisted.internet import reactor

    return reactor


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What each Forwarder was made with."""
    found: list[dict[str, Any]] = []

    class Watched(Forwarder):
        def __init__(self, targets: Any, **options: Any) -> None:
            found.append({"targets": targets, **options})
            super().__init__(targets, **options)

    monkeypatch.setattr(forward, "Forwarder", Watched)
    return found


def built(reactor: Any, *words: str) -> Forwarder:
    """The forwarder that a command line asks for; it listens nowhere."""
    options = forward.Options()
    options.parseOptions(words)
    return options.build(options.choices, reactor)


# From options to a forwarder


def test_defaults(reactor: Any, made: list[dict[str, Any]]) -> None:
    """They are the library's own."""
    forwarder = built(reactor, "--target", "127.0.0.1:80")
    theirs = inspect.signature(Forwarder.__init__).parameters
    (options,) = made
    (target,) = options.pop("targets")
    assert (target.where, target.weight, target.backup) == (TcpTarget("127.0.0.1", 80), 1, False)
    assert options.pop("reactor") is reactor
    assert options.pop("backups") == ()
    assert options.pop("limits") == DEFAULT_LIMITS == Limits(halfOpenTimeout=3600.0)
    assert options == {name: theirs[name].default for name in options}
    assert {"hook", "journal", "changed"} == set(theirs) - set(options) - {
        "self",
        "targets",
        "reactor",
        "backups",
        "limits",
    }
    assert forwarder.splices is not None


def test_everything(reactor: Any, made: list[dict[str, Any]]) -> None:
    forwarder = built(
        reactor,
        *("--listen", "127.0.0.1:0", "--listen", "udp:127.0.0.1:0"),
        *("--target", "10.0.0.1:80;weight=3", "--target=/run/x.sock", "--target", "udp:[::1]:53; weight=2"),
        *("--backup", "tls:example.org:443", "--backup", "[::1]:80", "--balance", "least-connections"),
        *("--retries", "0", "--timeout-connect", "250ms", "--on-failure", "close", "--max-fails", "5"),
        *("--fail-timeout", "1m", "--check", "tcp", "--check-interval", "3s", "--check-timeout", "500ms"),
        *("--check-rise", "4", "--check-fall", "6", "--shutdown-sessions"),
        *("--timeout-flow", "5s", "--responses", "0", "--limit-flows", "7"),
        *("--faults", "latency:delay=100ms,jitter=20ms", "--faults-upstream", "slicer:size=100; loss:probability=5%"),
        *("--faults-downstream", "loss", "--seed", "0", "--no-splice"),
        *("--limit-connections", "9", "--timeout-idle", "5m", "--timeout-half-open", "10s"),
    )
    (options,) = made
    options.pop("targets")
    options.pop("reactor")
    options.pop("backups")
    both = Latency(0.1, 0.02)
    assert options == {
        "balance": "least-connections",
        "retries": 0,
        "timeoutConnect": 0.25,
        "limits": Limits(connections=9, idleTimeout=300.0, halfOpenTimeout=10.0),
        "onFailure": "close",
        "maxFails": 5,
        "failTimeout": 60.0,
        "check": Check(interval=3.0, timeout=0.5, rise=4, fall=6),
        "shutdownSessions": True,
        "faultsUpstream": Faults(both, Slicer(100), Loss(probability=0.05)),
        "faultsDownstream": Faults(both, Loss()),
        "seed": 0,
        "splice": False,
        "timeoutFlow": 5.0,
        "responses": 0,
        "limitFlows": 7,
    }
    assert [(target.where, target.weight, target.backup) for target in forwarder.targets] == [
        (TcpTarget("10.0.0.1", 80), 3, False),
        (UnixTarget("/run/x.sock"), 1, False),
        (UdpTarget("::1", 53), 2, False),
        (EndpointTarget("tls:example.org:443"), 1, True),
        (TcpTarget("::1", 80), 1, True),
    ]
    assert (forwarder.seed, forwarder.splices) == (0, None)


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        (["--max-fails", "none"], "maxFails", None),
        (["--timeout-connect", "none"], "timeoutConnect", None),
        (["--check", "none", "--check-fall", "9"], "check", None),
        (["--responses", "none"], "responses", None),
        (["--faults", " ; "], "faultsUpstream", Faults()),
        (["--timeout-half-open", "0"], "limits", Limits()),
        (["--timeout-half-open", "none"], "limits", Limits()),
    ],
)
def test_switchedOff(words: list[str], name: str, value: object, reactor: Any, made: list[dict[str, Any]]) -> None:
    built(reactor, "--target", ":80", *words)
    assert made[0][name] == value


def test_variables(reactor: Any, made: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Several targets are separated by blanks; the command line wins."""
    for name, text in {
        "LISTEN": "127.0.0.1:0 udp:127.0.0.1:0",
        "TARGET": " 127.0.0.1:80;weight=2   /run/x.sock\tudp:127.0.0.1:53 ",
        "BACKUP": "127.0.0.1:81",
        "SHUTDOWN_SESSIONS": "yes",
        "NO_SPLICE": "0",
        "FAULTS_DOWNSTREAM": "latency:delay=1; slicer:size=5",
        "TIMEOUT_HALF_OPEN": "0",
        "MAX_FAILS": "none",
    }.items():
        monkeypatch.setenv(f"TWISTED_NET_{name}", text)
    forwarder = built(reactor)
    assert [(target.name, target.weight, target.backup) for target in forwarder.targets] == [
        ("127.0.0.1:80", 2, False),
        ("unix:/run/x.sock", 1, False),
        ("udp:127.0.0.1:53", 1, False),
        ("127.0.0.1:81", 1, True),
    ]
    assert made[0]["shutdownSessions"] is True
    assert made[0]["splice"] is True
    assert made[0]["faultsUpstream"] == Faults()
    assert made[0]["faultsDownstream"] == Faults(Latency(1.0), Slicer(5))
    assert made[0]["limits"] == Limits()
    assert made[0]["maxFails"] is None
    other = built(reactor, "--listen", ":0", "--target", ":82")
    assert [target.name for target in other.targets] == [":82", "127.0.0.1:81"]


# Mistakes


def refused(*words: str) -> str:
    """What is said on stderr; nothing is left behind."""
    options = service.Options()
    said: object = None
    try:
        options.parseOptions(["forward", *words])
        service.makeService(options)
    except SystemExit as ending:
        said = ending.code
    assert isinstance(said, str)
    return said


TO = ("--target", "127.0.0.1:80")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "name a target, as in: net forward --listen :8080 --target 127.0.0.1:80"),
        (["--backup", ":80"], "name a target"),
        (["--target", "8124"], "--target: '8124' is no address: a port alone is ambiguous"),
        (["--target", ""], "--target: '' is no address: it is empty"),
        (["--target", "127.0.0.1:0"], "--target: '127.0.0.1:0' has port 0, which nobody can connect to; name the"),
        (["--target", "udp:127.0.0.1:0"], "--target: 'udp:127.0.0.1:0' has port 0"),
        (["--target", ":80;weight=0"], "--target: weight is 0; it must be a whole number, 1 to 1000"),
        (["--target", ":80;weight=1001"], "--target: weight is 1001; it must be"),
        (["--target", ":80;weight=-1"], "--target: ':80;weight=-1': 'weight=-1' is no weight; write ADDRESS;weight=3"),
        (["--target", ":80;wait=1"], "'wait=1' is no weight"),
        (["--target", ":80;"], "'' is no weight"),
        (["--target", "unixgram:/run/x"], "--target: 'unixgram:/run/x': UNIX datagrams are not forwarded; use UDP, or"),
        (["--target", "tcp:eighty"], "'tcp:eighty' is no endpoint to connect to: "),
        (["--target", "gopher:x:70"], "no endpoint to connect to: Unknown endpoint type: 'gopher'; correct it, or"),
        (["--target", "unix:/x:mode=660"], "has a mode, which only who listens can set; leave it out"),
        ([*TO, "--backup", "gopher:x:70"], "'gopher:x:70' is no endpoint"),
        (["--target", "systemd:domain=INET:index=0"], "is no endpoint to connect to"),
        (["--target", "host name:80"], "is neither an IP address nor a name"),
        ([*TO, *TO], "the target 127.0.0.1:80 is given twice; leave one out, or give it a weight"),
        ([*TO, "--backup", "127.0.0.1:80;weight=2"], "the target 127.0.0.1:80 is given twice"),
        ([*TO, "--backup", "x"], "--backup: 'x' is no address"),
        ([*TO, "--listen", "udp:127.0.0.1:0"], "no target takes what comes to udp:127.0.0.1:0; name a UDP target"),
        (["--target", "udp::53"], "no target takes what comes to 127.0.0.1:0; name a TCP or UNIX target, such as"),
        ([*TO, "--listen", "unixgram:./x"], "--listen: unixgram:./x: UNIX datagrams are not forwarded; use UDP"),
        ([*TO, "--listen", "127.0.0.1:80"], "127.0.0.1:80 is a place to listen and a target, too; what comes would go"),
        (["--listen=unix:./x:mode=600", "--target=./x"], "unix:./x is a place to listen and a target, too"),
        (["--listen", "udp::53", "--target", "udp::53", *TO], "udp::53 is a place to listen and a target, too"),
        ([*TO, "--balance", "fair"], "--balance: 'fair' is not known; write round-robin or least-connections or"),
        ([*TO, "--retries", "-1"], "--retries: '-1' is no whole number"),
        ([*TO, "--timeout-connect", "0"], "--timeout-connect: '0' is 0, which could mean two things"),
        ([*TO, "--timeout-connect", "soon"], "--timeout-connect: 'soon' is no time"),
        ([*TO, "--on-failure", "drop"], "--on-failure: 'drop' is not known; write reset or close"),
        ([*TO, "--max-fails", "0"], "--max-fails: '0' is 0, which could mean two things; write a number above"),
        ([*TO, "--fail-timeout", "0"], "--fail-timeout: '0' is no time at all; write more than 0, such as 10s"),
        ([*TO, "--fail-timeout", "none"], "--fail-timeout: 'none' is no time in seconds"),
        ([*TO, "--check", "http"], "--check: 'http' is not known; write tcp or none"),
        ([*TO, "--check-interval", "0ms"], "--check-interval: '0ms' is no time at all"),
        ([*TO, "--check-timeout", "0"], "--check-timeout: '0' is no time at all"),
        ([*TO, "--check-rise", "0"], "--check-rise: '0' is too few; write 1 or more"),
        ([*TO, "--check-fall", "many"], "--check-fall: 'many' is no whole number"),
        ([*TO, "--shutdown-sessions=1"], "--shutdown-sessions takes no value; write --shutdown-sessions alone"),
        ([*TO, "--timeout-flow", "0"], "--timeout-flow: '0' is no time at all"),
        ([*TO, "--responses", "-1"], "--responses: '-1' is no whole number"),
        ([*TO, "--limit-flows", "0"], "--limit-flows: '0' is too few"),
        ([*TO, "--faults", "latncy:delay=1"], "--faults: 'latncy' is no fault; there are latency, "),
        ([*TO, "--faults-upstream", "latency"], "--faults-upstream: latency lacks delay"),
        ([*TO, "--faults-downstream", "slicer:size=1,variation=2"], "--faults-downstream: variation of slicer is 2"),
        ([*TO, "--seed", "lucky"], "--seed: 'lucky' is no whole number"),
        ([*TO, "--no-splice=yes"], "--no-splice takes no value"),
        ([*TO, "--half-open"], "there is no option --half-open; did you mean --timeout-half-open?"),
        ([*TO, "--timeout-half-open", "x"], "--timeout-half-open: 'x' is no time"),
        ([*TO, "--retry-bind", "5s", "--listen", "udp::0"], "--retry-bind is not for datagrams"),
        ([*TO, "10.0.0.1:80"], "'10.0.0.1:80' is one word too many"),
    ],
    ids=lambda value: " ".join(value) or "nothing" if isinstance(value, list) else "",
)
def test_aMistakeIsOneSentence(words: list[str], told: str) -> None:
    said = refused(*HERE, *words)
    assert said.startswith("net forward: ")
    assert told in said
    assert "\n" not in said


def test_aMistakeInAVariable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWISTED_NET_TARGET", "127.0.0.1:80 127.0.0.1:80;weight=0")
    assert refused() == (
        "net forward: the environment variable TWISTED_NET_TARGET: weight is 0; it must be a whole number, 1 to 1000"
    )


def test_anEndpointsErrorOfManyLines(monkeypatch: pytest.MonkeyPatch) -> None:
    def parse(reactor: object, text: str) -> None:
        raise ValueError("one\n  two" if "many" in text else "")

    monkeypatch.setattr(dial, "clientFromString", parse)
    assert "'odd:many' is no endpoint to connect to: one two; correct it" in refused(*HERE, "--target", "odd:many")
    assert "'odd:none' is no endpoint to connect to: ValueError; correct it" in refused(*HERE, "--target", "odd:none")


@pytest.mark.parametrize("program", [(*TWISTD, *FOREGROUND), TWIST], ids=["twistd", "twist"])
@pytest.mark.parametrize("words", [[], ["--target", "tcp:eighty"], ["--target", ":80", "--listen", "udp::0"]])
def test_aMistakeEndsTheProgram(program: tuple[str, ...], words: list[str], tmp_path: Path) -> None:
    ended = run(program, "net", "forward", *HERE, *words, folder=tmp_path)
    assert (ended.code, ended.out) == (1, "")
    assert ended.err.startswith("net forward: ")
    assert ended.err.count("\n") == 1


# In this process


@pytest.fixture
def events() -> Iterator[list[dict[str, Any]]]:
    """What is logged of connections."""
    found: list[dict[str, Any]] = []

    def collect(event: dict[str, Any]) -> None:
        if event.get("log_namespace") == "twisted_net.access":
            found.append(event)

    observer: Any = collect
    globalLogPublisher.addObserver(observer)
    yield found
    globalLogPublisher.removeObserver(observer)


def launched(*words: str) -> Launch:
    options = service.Options()
    options.parseOptions(["forward", *HERE, *words])
    return service.makeService(options)  # type: ignore[return-value]


@pytest.mark.parametrize("more", [[], ["--no-access-log"]])
@pytest_twisted.ensureDeferred
async def test_aConnection(more: list[str], events: list[dict[str, Any]]) -> None:
    server = createServer(lambda client: client.pipe(client), allowHalfOpen=True).listen(0, "127.0.0.1")
    await server.whenListening()
    address = server.address()
    assert address is not None
    target = str(address)
    own = launched("--target", target, *more)
    own.serving.begin()
    where = str(Address.fromTwisted(own.places[0].port.getHost()))
    data = bytes(range(256)) * 1000
    assert await deferToThread(talk, where, data) == data
    await own.stopService()
    server.close()
    await server.whenClosed()
    if more:
        assert events == []
        return
    (event,) = events
    assert f" -> {target} closed (ended): 256000 bytes in, 256000 bytes out, " in formatEvent(event)
    assert event["net"]["target"] == target


# As a program


class Echo:
    """A server in a thread, at a path: it sends back what it is sent, and ends after the client."""

    def __init__(self, path: Path) -> None:
        self.name = f"unix:{path}"
        self._path = path
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(path))
        self._server.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            client, _ = self._server.accept()
            with client:
                client.settimeout(PATIENCE)
                first = client.recv(65536)
                if first == b"stop":
                    return
                while first:  # a check says nothing
                    client.sendall(first)
                    first = client.recv(65536)

    def close(self) -> None:
        with connect(self.name) as client:
            client.sendall(b"stop")
            self._thread.join(PATIENCE)
        self._server.close()
        self._path.unlink()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[[str], Echo]]:
    """Starts a server at a path; all are closed in the end."""
    with ExitStack() as servers:

        def serve(name: str) -> Echo:
            server = Echo(tmp_path / name)
            servers.callback(server.close)
            return server

        yield serve


def stopped(program: Running) -> str:
    """What it has said when it was stopped."""
    program.signal(signal.SIGTERM)
    ended = program.end()
    assert (ended.code, ended.err) == (0, "")
    assert "Traceback" not in ended.out
    return ended.out


@PROGRAMS
def test_aLineForEachConnection(program: tuple[str, ...], serve: Callable[[str], Echo], tmp_path: Path) -> None:
    serve("echo.sock")
    with Running(program, "net", "forward", *HERE, "--target", "./echo.sock", folder=tmp_path) as forwarder:
        address = forwarder.address()
        assert talk(address, b"hello" * 1000) == b"hello" * 1000
        line = forwarder.wait(r"(\S+) -> (\S+) closed \(ended\): 5000 bytes in, 5000 bytes out, [0-9.]+ s$")
        assert line[1].startswith("127.0.0.1:")
        assert line[2] == "unix:./echo.sock"
        out = stopped(forwarder)
    assert "forward is stopping (SIGTERM); open connections: 0, for 30 s at most" in out
    assert "forward has stopped" in out


@pytest.mark.parametrize(("how", "what"), [("reset", "reset"), ("close", "ended")])
def test_nobodyServesAClient(how: str, what: str, tmp_path: Path) -> None:
    words = (*HERE, "--target", "./nobody", "--on-failure", how, "--max-fails", "2", "--log-format", "json")
    with Running(TWISTD, *FOREGROUND, "net", "forward", *words, folder=tmp_path) as forwarder:
        address = forwarder.wait('"event": "listening", "address": "([^"]+)"')[1]
        for _ in range(2):
            assert fate(address) == what
            forwarder.wait('"event": "closed"')
        log = [json.loads(line) for line in stopped(forwarder).splitlines()]
    closed = [one for one in log if one["event"] == "closed"]
    assert [(one["target"], one["reason"], one["bytesIn"], one["bytesOut"]) for one in closed] == [
        (None, "ENOENT", 0, 0),
        (None, "ENOENT", 0, 0),
    ]
    assert " -> nobody closed (ENOENT): 0 bytes in, 0 bytes out, " in closed[0]["message"]
    (target,) = [one for one in log if one["event"] == "target"]
    assert (target["target"], target["state"], target["level"]) == ("unix:./nobody", "suspended", "warn")
    assert target["error"] in target["message"]


def test_aTargetThatComesBack(serve: Callable[[str], Echo], tmp_path: Path) -> None:
    words = (*HERE, "--target", "./echo.sock", "--max-fails", "1")
    with Running(TWISTD, *FOREGROUND, "net", "forward", *words, folder=tmp_path) as forwarder:
        address = forwarder.address()
        assert fate(address) == "reset"
        forwarder.wait(r"target unix:./echo.sock is suspended: connect unix:./echo.sock: ")
        forwarder.wait(" -> nobody closed")
        serve("echo.sock")
        # It is the only one: a guess turns nobody away.
        assert talk(address, b"hello") == b"hello"
        forwarder.wait(" -> unix:./echo.sock closed")
        stopped(forwarder)


def test_checks(serve: Callable[[str], Echo], tmp_path: Path) -> None:
    """A target is down when checks fail, its sessions are ended if that was asked for, and it comes up again."""
    echo = Echo(tmp_path / "echo.sock")
    words = (*HERE, "--target=./echo.sock", "--backup=./backup.sock", "--check=tcp", "--check-interval=50ms")
    more = ("--check-fall=1", "--check-rise=2", "--check-timeout=20s", "--shutdown-sessions")
    with Running(TWISTD, *FOREGROUND, "net", "forward", *words, *more, folder=tmp_path) as forwarder:
        address = forwarder.address()
        forwarder.wait(r"target unix:./backup.sock is down: ")
        with connect(address) as client:
            client.sendall(b"hello")
            assert client.recv(5) == b"hello"
            client.shutdown(socket.SHUT_WR)
            assert drained(client) == b""
        forwarder.wait(r" -> unix:./echo.sock closed \(ended\): 5 bytes in")
        echo.close()
        forwarder.wait(r"target unix:./echo.sock is down: ")
        serve("backup.sock")
        forwarder.wait(r"target unix:./backup.sock is up")
        assert talk(address, b"hello") == b"hello"
        forwarder.wait(r" -> unix:./backup.sock closed \(ended\): 5 bytes in")
        serve("echo.sock")
        forwarder.wait(r"target unix:./echo.sock is up")
        stopped(forwarder)


def test_sessionsOfATargetThatIsDown(tmp_path: Path) -> None:
    words = (*HERE, "--target=./x.sock", "--shutdown-sessions", "--check=tcp")
    how = ("--check-interval=50ms", "--check-fall=1")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "x.sock"))
        server.listen()
        program = Running(TWISTD, *FOREGROUND, "net", "forward", *words, *how, folder=tmp_path)
        with program as forwarder, connect(forwarder.address()) as client:
            client.sendall(b"?")
            while True:  # checks connect, too
                served, _ = server.accept()
                if served.recv(1):
                    break
                served.close()
            os.unlink(tmp_path / "x.sock")
            server.close()
            with served, pytest.raises(ConnectionResetError):
                client.recv(1)
            forwarder.wait(r"target unix:./x.sock is down: ")
            forwarder.wait(r"x.sock closed \(ECONNABORTED\): 1 bytes in, 0 bytes out, .* is down by its checks")
            stopped(forwarder)


@pytest.mark.parametrize("seed", [[], ["--seed", "7"]])
def test_faults(seed: list[str], serve: Callable[[str], Echo], tmp_path: Path) -> None:
    serve("echo.sock")
    faults = ("--faults", "slicer:size=100", "--faults-downstream", "limit_data:bytes=250")
    words = (*HERE, "--target", "./echo.sock", "--log-format=json", *faults, *seed)
    with Running(TWISTD, *FOREGROUND, "net", "forward", *words, folder=tmp_path) as forwarder:
        address = forwarder.wait('"event": "listening", "address": "([^"]+)"')[1]
        assert talk(address, b"x" * 1000) == b"x" * 250
        log = [json.loads(line) for line in stopped(forwarder).splitlines()]
    (told,) = [one for one in log if one["event"] == "faults"]
    assert (told["upstream"], told["downstream"]) == ("slicer:size=100", "slicer:size=100;limit_data:bytes=250")
    assert told["seed"] == 7 or not seed
    assert told["message"] == (
        "faults upstream: 'slicer:size=100', downstream: 'slicer:size=100;limit_data:bytes=250'; the seed that repeats "
        f"them is {told['seed']}"
    )


def test_withoutFaultsNothingIsSaidOfThem(serve: Callable[[str], Echo], tmp_path: Path) -> None:
    words = (*HERE, "--target", "./echo.sock", "--seed", "7")
    with Running(TWISTD, *FOREGROUND, "net", "forward", *words, folder=tmp_path) as forwarder:
        forwarder.address()
        assert "faults" not in stopped(forwarder)


@PROGRAMS
def test_connectionsFinish(program: tuple[str, ...], serve: Callable[[str], Echo], tmp_path: Path) -> None:
    """SIGTERM: nobody is accepted any more, who is served goes on."""
    serve("echo.sock")
    words = ("--listen", "./front.sock", "--target", "./echo.sock", "--check", "tcp")
    with Running(program, "net", "forward", *words, folder=tmp_path) as forwarder:
        forwarder.address()
        with connect(f"unix:{tmp_path}/front.sock") as client:
            client.sendall(b"one")
            assert client.recv(3) == b"one"
            forwarder.signal(signal.SIGTERM)
            forwarder.wait(r"forward is stopping \(SIGTERM\); open connections: 1, for 30 s at most")
            client.sendall(b"two")
            assert client.recv(3) == b"two"
            assert not (tmp_path / "front.sock").exists()
            client.shutdown(socket.SHUT_WR)
            assert drained(client) == b""
        ended = forwarder.end()
    assert (ended.code, ended.err) == (0, "")
    assert "closed (ended): 6 bytes in, 6 bytes out" in ended.out
    assert "forward has stopped" in ended.out


@PROGRAMS
def test_theGraceIsOver(program: tuple[str, ...], serve: Callable[[str], Echo], tmp_path: Path) -> None:
    serve("echo.sock")
    words = (*HERE, "--target", "./echo.sock", "--timeout-graceful-shutdown", "50ms")
    running = Running(program, "net", "forward", *words, folder=tmp_path)
    with running as forwarder, connect(forwarder.address()) as client:
        client.sendall(b"one")
        assert client.recv(3) == b"one"
        out = stopped(forwarder)
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    assert "closed (ECONNABORTED): 3 bytes in, 3 bytes out" in out
    assert "forward has stopped" in out


def test_aDaemon(serve: Callable[[str], Echo], tmp_path: Path) -> None:
    """It is bound before it forks; checks begin afterwards."""
    serve("echo.sock")
    words = ("net", "forward", "--listen", "./front.sock", "--target", "./echo.sock", "--check=tcp", "--check-rise=1")
    assert run(TWISTD, "--pidfile=net.pid", "--logfile=net.log", *words, folder=tmp_path) == Ended(0, "", "")
    with daemon(tmp_path / "net.pid") as pid:
        assert talk(f"unix:{tmp_path}/front.sock", b"hello") == b"hello"
        os.kill(pid, signal.SIGTERM)
        gone(pid)
    log = (tmp_path / "net.log").read_text()
    assert "-> unix:./echo.sock closed (ended): 5 bytes in, 5 bytes out" in log
    assert "forward has stopped" in log
    assert "Traceback" not in log


@PROGRAMS
def test_datagrams(program: tuple[str, ...], tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.settimeout(PATIENCE)
        server.bind(("127.0.0.1", 0))
        target = f"udp:127.0.0.1:{server.getsockname()[1]}"
        words = ("--listen", "udp:127.0.0.1:0", "--target", target, "--responses", "1")
        with Running(program, "net", "forward", *words, folder=tmp_path) as forwarder:
            host, _, port = forwarder.address().removeprefix("udp:").rpartition(":")
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                client.settimeout(PATIENCE)
                client.sendto(b"hello", (host, int(port)))
                data, flow = server.recvfrom(100)
                server.sendto(data.upper(), flow)
                assert client.recv(100) == b"HELLO"
            forwarder.wait(rf"127\.0\.0\.1:\d+ -> {target} closed \(ended\): 5 bytes in, 5 bytes out, ")
            assert "forward has stopped" in stopped(forwarder)


def test_theLastAnswer(tmp_path: Path) -> None:
    """On SIGTERM a datagram that was passed on still gets its answer."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.settimeout(PATIENCE)
        server.bind(("127.0.0.1", 0))
        words = ("--listen", "udp:127.0.0.1:0", "--target", f"udp:127.0.0.1:{server.getsockname()[1]}")
        with Running((*TWISTD, *FOREGROUND), "net", "forward", *words, folder=tmp_path) as forwarder:
            host, _, port = forwarder.address().removeprefix("udp:").rpartition(":")
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                client.settimeout(PATIENCE)
                client.sendto(b"hello", (host, int(port)))
                data, flow = server.recvfrom(100)
                forwarder.signal(signal.SIGTERM)
                forwarder.wait("forward is stopping")
                server.sendto(data.upper(), flow)
                assert client.recv(100) == b"HELLO"
            ended = forwarder.end()
    assert (ended.code, ended.err) == (0, "")
    assert "forward has stopped" in ended.out
