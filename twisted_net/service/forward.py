"""``net forward``: take connections and datagrams to targets."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from twisted_net.address import UnixTarget
from twisted_net.errors import NetError, OptionError
from twisted_net.forward import Check, Forwarder, Target
from twisted_net.sansio.balance import BALANCES
from twisted_net.sansio.faults import Faults
from twisted_net.service.journal import Journal
from twisted_net.service.launch import Launch, Serving, launch
from twisted_net.service.options import (
    SETTINGS,
    UNIXGRAM,
    Choices,
    DatagramTarget,
    ServiceOptions,
    Setting,
    atLeastOne,
    fail,
    oneOf,
)
from twisted_net.service.units import orNone, parseCount, parseFlag, parseTime

__all__ = ["FORWARD_SETTINGS", "Options", "makeService"]


def _readTarget(text: str) -> Target:
    if text.startswith(UNIXGRAM):
        raise OptionError(f"{text!r}: UNIX datagrams are not forwarded; use UDP, or a UNIX stream socket (unix:/path)")
    return Target(text)


def _readHalfOpen(text: str) -> float | None:
    return orNone(parseTime, positive=False)(text) or None


def _readSeconds(text: str) -> float:
    """A time that is more than none."""
    seconds = parseTime(text)
    if not seconds:
        raise OptionError(f"{text!r} is no time at all; write more than 0, such as 10s")
    return seconds


_readCount: Final = atLeastOne("is too few; write 1 or more")

_FAULTS_EXAMPLE: Final = '"latency:delay=100ms,jitter=20ms; limit_data:bytes=1MB"'

_TARGETS: Final = (
    Setting(
        "target",
        "ADDRESS",
        _readTarget,
        None,
        "Where to forward to; give it once for each target. As --listen: 10.0.0.1:80, [::1]:80, /run/x.sock, "
        "udp:10.0.0.1:53, or any endpoint text of Twisted's to connect to. 10.0.0.1:80;weight=3 (quote it for the "
        "shell) gets three times as much as one without a weight. Connections go to targets of TCP and UNIX, "
        "datagrams to those of UDP.",
        many=True,
    ),
    Setting("backup", "ADDRESS", _readTarget, None, "A target that is used only while no other one is up.", many=True),
    Setting(
        "balance",
        "HOW",
        oneOf(*BALANCES),
        "round-robin",
        "Which target a client gets: round-robin (each in turn), least-connections, or source-hash (the same one for "
        "the same address, IPv6 /64 network or user, as long as it is up). All of them heed weights.",
    ),
    Setting(
        "retries",
        "N",
        parseCount,
        "3",
        "How many other targets are tried for a client when one refuses or does not answer.",
    ),
    Setting("timeout-connect", "TIME", orNone(parseTime), "5s", "For each attempt to connect to a target."),
    Setting(
        "on-failure",
        "HOW",
        oneOf("reset", "close"),
        "reset",
        "How a client learns that no target serves it: reset (TCP RST) or close (FIN, as after an empty answer).",
    ),
)

_HEALTH: Final = (
    Setting(
        "max-fails",
        "N",
        orNone(parseCount),
        "3",
        "Failed connections within --fail-timeout after which a target is left out for as long. When no other is left, "
        "it is tried all the same.",
    ),
    Setting("fail-timeout", "TIME", _readSeconds, "10s", "See --max-fails."),
    Setting(
        "check",
        "KIND",
        oneOf("tcp", "none"),
        "none",
        "tcp connects to each target every now and then, and closes at once; targets of UDP are not checked.",
    ),
    Setting("check-interval", "TIME", _readSeconds, "2s", "From one check of a target to the next."),
    Setting("check-timeout", "TIME", _readSeconds, "1s", "Within which a check has to be connected."),
    Setting("check-rise", "N", _readCount, "2", "Good checks in a row that bring a target up."),
    Setting("check-fall", "N", _readCount, "3", "Bad checks in a row that take it down."),
    Setting("shutdown-sessions", "", parseFlag, None, "Abort the connections to a target that its checks take down."),
)

_DATAGRAMS: Final = (
    Setting(
        "timeout-flow",
        "TIME",
        _readSeconds,
        "30s",
        "Without a datagram in either direction for this long, a client's flow is over: its next datagram may go to "
        "another target.",
    ),
    Setting(
        "responses",
        "N",
        orNone(parseCount, positive=False),
        None,
        "Datagrams that the target answers to each one of the client's; when all of them have come, the flow is over: "
        "1 for DNS, 0 where none is awaited.",
    ),
    Setting(
        "limit-flows",
        "N",
        _readCount,
        "4096",
        "Flows at once; each has a descriptor. When there are as many, the one that was silent longest gives way to a "
        "new one, if it was for a second; else the new client's datagram is dropped.",
    ),
)

_FAULTS: Final = (
    Setting(
        "faults",
        "FAULTS",
        Faults.parse,
        None,
        "Be a bad network, in both directions, for tests: names and values as toxiproxy's toxics have them, such as "
        f"{_FAULTS_EXAMPLE}. Streams: latency, bandwidth, slicer, glue, slow_close, timeout, reset_peer, limit_data, "
        "refuse. Datagrams: latency, bandwidth, loss, duplicate, reorder. Each takes probability=5%.",
    ),
    Setting("faults-upstream", "FAULTS", Faults.parse, None, "The same, only from clients to targets; after --faults."),
    Setting("faults-downstream", "FAULTS", Faults.parse, None, "The same, only from targets to clients."),
    Setting(
        "seed",
        "N",
        parseCount,
        None,
        "What the faults' chance comes from: the same number gives the same faults to the same connections. Without it "
        "the log says which was taken.",
    ),
)

_SPLICE: Final = (
    Setting(
        "no-splice",
        "",
        parseFlag,
        None,
        "Read and write every byte, also where Linux could carry a busy connection by itself (splice).",
    ),
)


def _common() -> dict[str, tuple[Setting, ...]]:
    """The settings of every service, as they are for this one."""
    groups = {}
    for heading, settings in SETTINGS.items():
        kept = [one for one in settings if one.name != "half-open"]
        groups[heading] = tuple(
            replace(
                one,
                read=_readHalfOpen,
                default="1h",
                help="Close a connection of which one side has ended and on which no byte has moved since, for this "
                "long. 0 or none: never.",
            )
            if one.name == "timeout-half-open"
            else one
            for one in kept
        )
    return groups


_listen, *_others = _common().items()

#: The options of ``net forward``, in the order of the help text.
FORWARD_SETTINGS: Final = {
    _listen[0]: _listen[1],
    "Where to forward to": _TARGETS,
    "Which targets are up": _HEALTH,
    **dict(_others[:-1]),
    "Datagrams": _DATAGRAMS,
    "A bad network": _FAULTS,
    "How bytes are carried": _SPLICE,
    **dict(_others[-1:]),
}


class Options(ServiceOptions):
    """The options of ``net forward``."""

    command = "forward"
    purpose = (
        "Take every connection to a target, and every datagram: TCP, UNIX sockets and UDP, in any mixture of the first "
        "two. What one side does the other side sees: bytes in order, half-close, reset, slowness. Several targets "
        "share the clients; those that do not answer are left out."
    )
    examples = (
        ("forward --listen :8080 --target 127.0.0.1:80", "Port 8080 of every IPv4 interface, to a web server here."),
        (
            "forward --listen :5432 --target 10.0.0.1:5432 --backup 10.0.0.2:5432 --check tcp --shutdown-sessions",
            "One database, and another one for when it is down.",
        ),
        (
            "forward --listen udp::53 --target udp:10.0.0.1:53 --target udp:10.0.0.2:53 --responses 1",
            "Two name servers.",
        ),
        (
            "forward --listen :8081 --target 127.0.0.1:80 --faults latency:delay=200ms,jitter=50ms --seed 7",
            "A web server far away.",
        ),
    )
    settings = FORWARD_SETTINGS

    def opt_target(self, address: str) -> None:
        """Where to forward to; give it once for each target."""
        self.listed.setdefault("target", []).append(address)

    def opt_backup(self, address: str) -> None:
        """A target that is used only while no other is up."""
        self.listed.setdefault("backup", []).append(address)

    def postOptions(self) -> None:
        """Read every text that was given, here or in the environment."""
        super().postOptions()
        if not self.chosen["target"]:
            fail(self.whole, "name a target, as in: net forward --listen :8080 --target 127.0.0.1:80")
        for place in self.chosen["listen"]:
            if str(place).startswith(UNIXGRAM):
                fail(self.whole, f"--listen: {place}: UNIX datagrams are not forwarded; use UDP, or a stream socket")

    def build(self, choices: Choices, reactor: Any) -> Forwarder:
        """
        Return the forwarder that was asked for.

        :raises OptionError: the options do not agree with each other.
        """
        value = self.chosen.__getitem__
        both = value("faults") or Faults()
        check = None
        if value("check") == "tcp":
            check = Check(
                interval=value("check-interval"),
                timeout=value("check-timeout"),
                rise=value("check-rise"),
                fall=value("check-fall"),
            )
        forwarder = Forwarder(
            value("target"),
            backups=value("backup"),
            balance=value("balance"),
            retries=value("retries"),
            timeoutConnect=value("timeout-connect"),
            limits=choices.limits,
            onFailure=value("on-failure"),
            maxFails=value("max-fails"),
            failTimeout=value("fail-timeout"),
            check=check,
            shutdownSessions=value("shutdown-sessions"),
            faultsUpstream=Faults(*both, *(value("faults-upstream") or ())),
            faultsDownstream=Faults(*both, *(value("faults-downstream") or ())),
            seed=value("seed"),
            splice=not value("no-splice"),
            timeoutFlow=value("timeout-flow"),
            responses=value("responses"),
            limitFlows=value("limit-flows"),
            reactor=reactor,
        )
        for place in choices.listen:
            where = place.target if isinstance(place, DatagramTarget) else place
            forwarder.checkPlace(where)
            for target in forwarder.targets:
                _refuseItself(where, target)
        return forwarder


def _refuseItself(place: object, target: Target) -> None:
    """A target that is our own place would get every connection again, until no descriptor is left."""
    where = target.where
    own = isinstance(place, UnixTarget) and isinstance(where, UnixTarget) and place.path == where.path
    if own or where == place:
        raise OptionError(f"{target.name} is a place to listen and a target, too; what comes would go round for ever")


def makeService(options: Options) -> Launch:
    """Return the service; it is bound to its places already."""

    def serving(choices: Choices, reactor: Any) -> Serving:
        try:
            forwarder = options.build(choices, reactor)
        except NetError as error:
            fail(options.whole, error.strerror)

        def record(journal: Journal) -> None:
            forwarder.journal = journal.forwarded

        return Serving(
            forwarder.factory, forwarder.start, forwarder.finish, forwarder.receive, closesPorts=True, record=record
        )

    return launch(options, serving)
