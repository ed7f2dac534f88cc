"""The options that every command has."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.application.twist._options import TwistOptions
from twisted.python.usage import Options as UsageOptions
from twisted.scripts._twistd_unix import ServerOptions

from twisted_net import service
from twisted_net.address import EndpointTarget, TcpTarget, UnixTarget
from twisted_net.errors import AddressError, OptionError
from twisted_net.service import connect, discard, echo, forward, serve
from twisted_net.service.options import (
    SETTINGS,
    CommandOptions,
    DatagramTarget,
    ServiceOptions,
    Setting,
    program,
    readAddress,
    rootOf,
)
from twisted_net.wire.limits import Limits
from twisted_net.wire.listen import BACKLOG

EVERY = serve.Options.everySetting()
COMMANDS: list[type[CommandOptions]] = [
    connect.Options,
    discard.Options,
    echo.Options,
    forward.Options,
    serve.Options,
]


@pytest.fixture(autouse=True)
def _noVariables(monkeypatch: pytest.MonkeyPatch) -> None:
    for one in EVERY:
        monkeypatch.delenv(one.variable, raising=False)
    monkeypatch.setenv("COLUMNS", "80")


def parsed(*words: str) -> ServiceOptions:
    """The options of ``net echo`` with these words behind it."""
    options = echo.Options()
    options.parseOptions(words)
    return options


def refused(*words: str, options: UsageOptions | None = None) -> str:
    """What is said on stderr."""
    with pytest.raises(SystemExit) as caught:
        (echo.Options() if options is None else options).parseOptions(words)
    assert isinstance(caught.value.code, str)
    return caught.value.code


def test_defaults() -> None:
    choices = parsed().choices
    assert choices.listen == (TcpTarget("127.0.0.1", 8124),)
    assert choices.backlog == BACKLOG
    assert choices.retryBind is None
    assert choices.limits == Limits()
    assert choices.halfOpen is False
    assert choices.grace == 30
    assert choices.accessLog is True
    assert choices.logFormat == "text"


def test_everything() -> None:
    choices = parsed(
        *("--listen", ":80", "--listen=unix:/run/x:mode=660", "--listen", "ssl:443:privateKey=k"),
        *("--backlog", "5", "--half-open", "--limit-connections", "1000", "--limit-per-peer", "10"),
        *("--limit-accept-rate", "600/m", "--limit-mode", "wait", "--rate-read", "64KiB/s", "--rate-write", "1MB"),
        *("--rate-read-total", "10MB/s", "--rate-write-total", "20MB/s", "--limit-burst", "1MiB"),
        *("--timeout-idle", "5m", "--timeout-handshake", "10", "--timeout-half-open", "1.5m", "--max-lifetime", "1d"),
        *("--retry-bind", "30s", "--timeout-graceful-shutdown", "0", "--no-access-log", "--log-format", "json"),
    ).choices
    assert choices.listen == (TcpTarget("", 80), UnixTarget("/run/x", 0o660), EndpointTarget("ssl:443:privateKey=k"))
    assert choices.backlog == 5
    assert choices.retryBind == 30
    assert choices.halfOpen is True
    assert choices.grace == 0
    assert choices.accessLog is False
    assert choices.logFormat == "json"
    assert choices.limits == Limits(
        connections=1000,
        perPeer=10,
        acceptRate=10.0,
        mode="wait",
        readRate=65536.0,
        readRateTotal=10e6,
        writeRate=1e6,
        writeRateTotal=20e6,
        burst=2**20,
        idleTimeout=300.0,
        handshakeTimeout=10.0,
        halfOpenTimeout=90.0,
        lifetime=86400.0,
    )


def test_anOptionMayBeShortened() -> None:
    assert parsed("--back=7").choices.backlog == 7


def test_theLastOneCounts() -> None:
    assert parsed("--backlog=7", "--backlog=8").choices.backlog == 8


def test_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in {
        "LISTEN": " :80  unix:@x ",
        "LIMIT_CONNECTIONS": "5",
        "RATE_READ": "1MB/s",
        "HALF_OPEN": "yes",
        "NO_ACCESS_LOG": "0",
        "TIMEOUT_IDLE": "",
        "LOG_FORMAT": "json",
    }.items():
        monkeypatch.setenv(f"TWISTED_NET_{name}", text)
    choices = parsed().choices
    assert choices.listen == (TcpTarget("", 80), UnixTarget("\0x"))
    assert choices.limits == Limits(connections=5, readRate=1e6)
    assert choices.halfOpen is True
    assert choices.accessLog is True
    assert choices.logFormat == "json"
    # The command line wins, and can switch off again.
    other = parsed("--listen", ":81", "--limit-connections", "none", "--rate-read", "2MB", "--log-format=text").choices
    assert other.listen == (TcpTarget("", 81),)
    assert other.limits == Limits(readRate=2e6)
    assert other.logFormat == "text"


@pytest.mark.parametrize("one", [one for one in EVERY if one.read is not str], ids=lambda one: one.name)
def test_aBadVariableIsNamed(one: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert one.variable == "TWISTED_NET_" + one.name.upper().replace("-", "_")
    monkeypatch.setenv(one.variable, "%")
    said = refused("hello:greet", options=serve.Options())
    assert said.startswith(f"net serve: the environment variable {one.variable}: '%' is ")
    assert "\n" not in said


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--listen", "8124"], "--listen: '8124' is no address: a port alone is ambiguous"),
        (["--listen", "udp:127.0.0.1"], "'udp:127.0.0.1' is no address"),
        (["--listen", "unixgram:"], "'unix:' is no address"),
        (["--listen", "udp::80", "--listen", "udp:*:80"], "udp::80 is given twice"),
        (["--listen", "udp::80", "--retry-bind", "5"], "--retry-bind is not for datagrams; leave it out"),
        (["--listen", ":80", "--listen", "*:80"], ":80 is given twice"),
        (["--backlog", "0"], "--backlog: '0' leaves no room"),
        (["--backlog", "many"], "--backlog: 'many' is no whole number"),
        (["--limit-connections", "0"], "none for no limit"),
        (["--limit-mode", "queue"], "--limit-mode: 'queue' is not known; write refuse or wait"),
        (["--timeout-idle", "5x"], "the unit 'x' is unknown"),
        (["--timeout-graceful-shutdown", "none"], "no time in seconds"),
        (["--listen"], "--listen lacks its value; write --listen ADDRESS"),
        (["--half-open=1"], "--half-open takes no value; write --half-open alone"),
        (["--rate"], "--rate is the beginning of several options (--rate-read, "),
        (["--listn", "x"], "there is no option --listn; did you mean --listen?"),
        (["--xyzzy"], "there is no option --xyzzy; 'net echo --help' says which there are"),
        (["-x"], "there is no option -x"),
        (["hello:greet"], "'hello:greet' is one word too many"),
    ],
)
def test_refusal(words: list[str], told: str) -> None:
    said = refused(*words)
    assert said.startswith("net echo: ")
    assert told in said
    assert "\n" not in said


@pytest.mark.parametrize("text", ["udp:127.0.0.1:53", "udp:[::]:0", "unixgram:/run/x:mode=660", "unixgram:@x"])
def test_datagrams(text: str) -> None:
    (target,) = parsed("--listen", text).choices.listen
    assert isinstance(target, DatagramTarget)
    assert str(target) == text
    assert len(parsed("--listen", "udp::0", "--listen", "udp::0").choices.listen) == 2
    assert isinstance(readAddress("127.0.0.1:53"), TcpTarget)


def test_freePortsMayBeAskedForTwice() -> None:
    assert len(parsed("--listen", ":0", "--listen", ":0").choices.listen) == 2


WORDS = ["--listen", ":80", "--half-open", "--", "-", "x", "--help=", "--backlog=3", ""]


@given(words=st.lists(st.sampled_from(WORDS)))
def test_anyWordsAreReadOrRefusedInOneSentence(words: list[str]) -> None:
    options = echo.Options()
    said: object = None
    try:
        options.parseOptions(words)
    except SystemExit as ending:
        said = ending.code
    assert options.choices.listen if said is None else "\n" not in str(said)


def test_misspeltVariables() -> None:
    environment = {
        "TWISTED_NET_LIMT_CONNECTIONS": "5",
        "TWISTED_NET_LIMIT_CONNECTIONS": "5",
        "TWISTED_NET_APP_DIR": "/srv",
        "TWISTED_NET_REACTOR": "poll",
        "TWISTED_NET_REACTER": "poll",
        "TWISTED_NET_LIVE": "required",
        "OTHER_LIMT_CONNECTIONS": "5",
    }
    assert parsed().misspelt(environment) == [
        "the environment variable TWISTED_NET_LIMT_CONNECTIONS is no option; "
        "it may be meant for TWISTED_NET_LIMIT_CONNECTIONS",
        "the environment variable TWISTED_NET_REACTER is no option; it may be meant for TWISTED_NET_REACTOR",
    ]


# Who runs us


def under(root: UsageOptions, command: str = "echo") -> CommandOptions:
    """Options of a command, as the plugin system nests them."""
    net = service.Options()
    net.parent = root
    options: CommandOptions = {"connect": connect.Options, "echo": echo.Options}[command]()
    options.parent = net
    return options


def twistd() -> UsageOptions:
    return ServerOptions()


def test_program() -> None:
    assert program(echo.Options()) == "twistd"
    assert rootOf(echo.Options()) is None
    assert program(under(twistd())) == "twistd"
    assert program(under(TwistOptions())) == "twist"


@pytest.mark.parametrize("words", [["-n"], ["--pidfile="], ["--reactor=epoll"]])
def test_theirOptionsStandBeforeNet(words: Sequence[str]) -> None:
    said = refused(*words, options=under(twistd()))
    assert "is an option of twistd itself; write it before 'net'" in said


def test_syslogKnowsNoJson() -> None:
    root = twistd()
    root["syslog"] = 1
    assert "leave out twistd's --syslog" in refused("--log-format=json", options=under(root))
    under(root).parseOptions([])


def test_errorsOfTwistedsParserAreSentencesToo() -> None:
    class Fussy(echo.Options):
        def opt_backlog(self, text: str) -> None:
            from twisted.python.usage import UsageError

            raise UsageError("not today.")

    assert refused("--backlog=3", options=Fussy()) == "net echo: not today; 'net echo --help' says what there is"


# The commands


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "net: name a command (connect, discard, echo, forward, serve)"),
        (["ecko"], "net: there is no command 'ecko'; did you mean echo?"),
        (["zzz"], "net: there is no command 'zzz'; there are connect, discard, echo, forward, serve"),
        (["--listen", ":80", "echo"], "net: --listen stands before the command"),
        (["-n"], "net: -n stands before the command"),
    ],
)
def test_net(words: list[str], told: str) -> None:
    said = refused(*words, options=service.Options())
    assert said.startswith(told)
    assert "\n" not in said


def test_netAsksTheCommand() -> None:
    options = service.Options()
    options.parseOptions(["echo", "--listen", ":81"])
    assert options.subCommand == "echo"
    sub = options.subOptions
    assert isinstance(sub, echo.Options)
    assert sub.choices.listen == (TcpTarget("", 81),)


def test_completionIsLeftToTwisted() -> None:
    for options in (service.Options(), echo.Options()):
        with pytest.raises(SystemExit) as caught:
            options.parseOptions(["--_shell-completion", "zsh:2"])
        assert caught.value.code == 0


@pytest.mark.parametrize("options", [service.Options, *COMMANDS])
@pytest.mark.parametrize("word", ["--help", "--version"])
def test_asking(options: type[UsageOptions], word: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        options().parseOptions([word])
    assert caught.value.code == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert said.out.startswith("Usage: twistd" if word == "--help" else "twisted_net ")


def test_versionWithoutAnInstallation(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from importlib import metadata

    def version(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", version)
    with pytest.raises(SystemExit):
        echo.Options().parseOptions(["--version"])
    assert capsys.readouterr().out.startswith("twisted_net (not installed: run from its sources), Twisted ")
    monkeypatch.setattr(metadata, "version", lambda name: "1.2")
    with pytest.raises(SystemExit):
        echo.Options().parseOptions(["--version"])
    assert capsys.readouterr().out.startswith("twisted_net 1.2, ")


@pytest.mark.parametrize("kind", COMMANDS)
@pytest.mark.parametrize("width", [40, 80, 132])
def test_helpText(kind: type[CommandOptions], width: int) -> None:
    text = kind().helpText(width)
    for one in kind.everySetting():
        placeholder = f" {one.placeholder}" if one.placeholder else ""
        assert f"\n  --{one.name}{placeholder}  [{one.variable}]\n" in text
        if one.default is not None:
            assert re.search(rf"Default:\s+{re.escape(one.default)}\n", text)
    explained = [line for line in text.partition("Examples:")[0].splitlines() if line.startswith(" " * 6)]
    assert max(map(len, explained)) <= max(width, 40) + 60  # an endpoint text cannot be broken
    assert width < 80 or max(map(len, explained)) <= width


def test_helpTextWithoutExamples() -> None:
    class Bare(ServiceOptions):
        command = "bare"
        purpose = "Be bare."

    assert Bare().helpText(80).endswith("'twistd\n--help-reactors' says which there are.")


def test_helpTextOfReactors() -> None:
    def said(options: CommandOptions) -> str:
        return " ".join(options.helpText(80).split())

    assert "The reactor is uvloop's, where uvloop is installed, unless 'twistd --reactor" in said(echo.Options())
    assert "names another one; 'twist --help' says which there are." in said(under(TwistOptions()))


def test_twistdsOwnErrorsShowTheSame() -> None:
    assert echo.Options().getUsage() == str(echo.Options())
    assert service.Options().getUsage() == str(service.Options())


def test_examplesParse() -> None:
    import shlex

    for kind in COMMANDS:
        for words, _ in kind.examples:
            command, *rest = shlex.split(words)
            assert command == kind.command
            kind().parseOptions(rest)


def test_examplesSayHowTheProgramIsCalled() -> None:
    assert "\n  twistd -n --pidfile= net echo\n" in echo.Options().helpText(80)
    assert "\n  twistd net connect 127.0.0.1:8124\n" in connect.Options().helpText(80)
    assert "\n  twist net connect 127.0.0.1:8124\n" in under(TwistOptions(), "connect").helpText(80)


def test_everySettingIsReadByItsParser() -> None:
    for one in EVERY:
        if one.default is not None:
            one.read(one.default)
        if one.read is not str:
            with pytest.raises((OptionError, AddressError)):
                one.read("%")


def ofForwardAlone() -> list[Setting]:
    """What ``net forward`` does not share with every service, word for word."""
    shared = [one for group in SETTINGS.values() for one in group]
    return [one for one in forward.Options.everySetting() if one not in shared]


@pytest.mark.parametrize(
    ("program", "settings"),
    [
        ("", [*(one for group in SETTINGS.values() for one in group), *serve.HANDLER_SETTINGS]),
        ("forward", ofForwardAlone()),
        ("connect", connect.Options.everySetting()),
    ],
    ids=["services", "forward", "connect"],
)
def test_theManualHasEveryOption(program: str, settings: list[Setting]) -> None:
    page = Path(__file__).parent.parent.parent / "docs" / "manual" / "service.rst"
    first, *others = re.split(r"(?m)^\.\. program:: net ([a-z]+)\n", page.read_text())
    text = {"": first, **dict(zip(others[::2], others[1::2], strict=True))}[program]
    rows = {}
    for match in re.finditer(r"(?ms)^\.\. option:: --([a-z-]+)(?: ([A-Z]+))?\n\n(.*?)(?=^\.\. |^[^ \n]|\Z)", text):
        rows[match[1]] = (match[2] or "", " ".join(match[3].split()))
    assert list(rows) == [one.name for one in settings]
    for one in settings:
        placeholder, body = rows[one.name]
        assert placeholder == one.placeholder
        assert body.startswith(f"``{one.variable}``. ")
        assert f"Default: ``{one.default}``" in body or (one.default is None and "Default: none" in body) or one.flag
