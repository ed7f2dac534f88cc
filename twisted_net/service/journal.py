"""
The log of a service: what it says, and in which form.

Everything goes through Twisted's logger. An event of ours has its facts under the key ``net``: a mapping whose
``"event"`` names what happened, with plain values besides. The text form is made of the message; the JSON form is one
object per line with the facts in it, so that nobody has to take a message apart:

========== ===========================================================================================================
``event``  besides ``time``, ``level``, ``system`` and ``message``
========== ===========================================================================================================
reactor    ``reactor``: which one runs, as ``twistd --help-reactors`` names it; ``why`` (null when it is uvloop's, and
           nobody named one)
listening  ``address`` (with the real port), ``reactor``
retry      ``address``, ``error``, ``attempt``, ``delay`` (seconds until the next)
connected  ``peer``, ``local``
closed     ``peer``, ``bytesIn``, ``bytesOut``, ``seconds``, ``reason`` (``"ended"`` or an error's code), ``error``
           (its text, or null); of ``net forward`` also ``target`` (null when none served the peer)
target     ``target``, ``state`` (``"up"``, ``"suspended"``, ``"down"``), ``error`` (why, or null)
faults     ``upstream``, ``downstream``: the faults that were asked for; ``seed``: what repeats them
stopping   ``reason``, ``connections``, ``grace`` (seconds)
stopped    nothing
failed     ``error``: why the program ends with an exit status other than 0
log        whatever else is logged, by Twisted or by a handler; ``traceback`` where there is one
========== ===========================================================================================================

How JSON reaches the log differs by program. ``twistd`` asks the application for an ``ILogObserver``; we hand it one
that writes where twistd's own would have written. ``twist`` keeps a factory of observers among its options. Either way
nothing else is on the stream, lines of Twisted's and what a handler prints included; only a ``--logger`` of the
operator's own comes before ours, and gets the events as they are.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import IO, Any, Final

from twisted.logger import (
    FileLogObserver,
    FilteringLogObserver,
    ILogObserver,
    LogEvent,
    Logger,
    LogLevelFilterPredicate,
    formatEvent,
    textFileLogObserver,
)
from twisted.python import usage
from twisted.python.components import Componentized
from twisted.python.failure import Failure
from twisted.python.logfile import LogFile

from twisted_net.errors import NetError
from twisted_net.forward import Ended as Forwarded
from twisted_net.service.options import program, rootOf
from twisted_net.service.reactors import Choice
from twisted_net.wire.factory import Ended

__all__ = ["Journal", "jsonLine", "useJson", "useStderr"]

#: Where twistd logs when it is a daemon and nobody says where.
DEFAULT_FILE: Final = "twistd.log"


# As attributes of a class they would be named after the class.
_log: Final = Logger("twisted_net.service")
_access: Final = Logger("twisted_net.access")


class Journal:
    """
    What a service says in the log.

    :param name: the service's name, such as ``"echo"``.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def reactor(self, choice: Choice | None) -> None:
        """The reactor has been chosen; not by us when *choice* is None, and then there is nothing to say."""
        if choice is None:
            return
        facts = {"event": "reactor", "reactor": choice.name, "why": choice.why or None}
        say = _log.warn if choice.broken else _log.info
        say("reactor: {net[reactor]}{why}", why=f" ({choice.why})" if choice.why else "", net=facts)

    def connected(self, peer: object, local: object) -> None:
        """A connection stands that was asked for."""
        facts = {"event": "connected", "peer": str(peer), "local": str(local)}
        _log.info("{name}: connected to {net[peer]} from {net[local]}", name=self._name, net=facts)

    def listening(self, address: object, reactor: object) -> None:
        """It listens."""
        facts = {"event": "listening", "address": str(address), "reactor": type(reactor).__name__}
        _log.info("{name} is listening on {net[address]} ({net[reactor]})", name=self._name, net=facts)

    def misspelt(self, sentence: str) -> None:
        """Something was meant for an option, and is none."""
        _log.warn("{sentence}", sentence=sentence)

    def retry(self, address: object, error: NetError, attempt: int, delay: float) -> None:
        """An address is in use; it is tried again in *delay* seconds."""
        facts = {
            "event": "retry",
            "address": str(address),
            "error": str(error),
            "attempt": attempt,
            "delay": round(delay, 3),
        }
        _log.warn(
            "{net[address]} is in use (attempt {net[attempt]}); trying again in {net[delay]:.1f} s", net=facts
        )

    def closed(self, ended: Ended) -> None:
        """A connection has ended: the access log."""
        facts = {
            "event": "closed",
            "peer": str(ended.peer),
            **_account(ended.bytesRead, ended.bytesWritten, ended.seconds, ended.error),
        }
        _access.info("{net[peer]} " + _ACCOUNT, why=_why(ended.error), net=facts)

    def forwarded(self, ended: Forwarded) -> None:
        """A client and its target are gone: the access log of a forwarder."""
        facts = {
            "event": "closed",
            "peer": str(ended.client),
            "target": ended.target,
            **_account(ended.bytesIn, ended.bytesOut, ended.seconds, ended.error),
        }
        whom = ended.target or "nobody"
        _access.info("{net[peer]} -> {whom} " + _ACCOUNT, whom=whom, why=_why(ended.error), net=facts)

    def stopping(self, reason: str, connections: int, grace: float) -> None:
        """Nobody is accepted any more."""
        facts = {"event": "stopping", "reason": reason, "connections": connections, "grace": grace}
        _log.info(
            "{name} is stopping ({net[reason]}); open connections: {net[connections]}, for {net[grace]:g} s at most",
            name=self._name,
            net=facts,
        )

    def stopped(self) -> None:
        """Every connection has ended and every port is closed."""
        _log.info("{name} has stopped", name=self._name, net={"event": "stopped"})

    def stoppingAlready(self, reason: str) -> None:
        """One more signal came while connections finish."""
        _log.info("{name} is stopping already ({reason}); only SIGKILL is faster", name=self._name, reason=reason)

    def notClosed(self, address: object, error: str) -> None:
        """A port could not be closed in order."""
        _log.error("closing {address} failed: {error}", address=address, error=error)

    def handlerFailed(self, failure: Failure) -> None:
        """The operator's own factory raised as it was started."""
        _log.failure("the handler fails to start", failure=failure)

    def crashed(self, failure: Failure) -> None:
        """Something of ours has raised what it should not."""
        _log.failure("{name} failed", failure=failure, name=self._name)

    def failed(self, sentence: str) -> None:
        """The program will end with an exit status other than 0."""
        _log.critical("{net[error]}", net={"event": "failed", "error": sentence})


#: What the access log says of a connection, after whose it was.
_ACCOUNT: Final = (
    "closed ({net[reason]}): {net[bytesIn]} bytes in, {net[bytesOut]} bytes out, {net[seconds]:.3f} s{why}"
)


def _account(bytesIn: int, bytesOut: int, seconds: float, error: Exception | None) -> dict[str, Any]:
    failure = error.code if isinstance(error, NetError) else type(error).__name__
    return {
        "bytesIn": bytesIn,
        "bytesOut": bytesOut,
        "seconds": round(seconds, 6),
        "reason": "ended" if error is None else failure,
        "error": None if error is None else str(error),
    }


def _why(error: Exception | None) -> str:
    return "" if error is None else f": {getattr(error, 'strerror', None) or error}"


def jsonLine(event: LogEvent) -> str:
    """Return the line for an event of Twisted's logger: one JSON object in ASCII, and a newline."""
    facts = event.get("net")
    own = dict(facts) if isinstance(facts, Mapping) and "event" in facts else {"event": "log"}
    level = event.get("log_level")
    record: dict[str, Any] = {
        "time": datetime.fromtimestamp(event.get("log_time", 0), UTC).isoformat(timespec="microseconds"),
        "level": getattr(level, "name", "info"),
        "system": event.get("log_namespace", event.get("log_system", "-")),
        **own,
        "message": formatEvent(event),
    }
    failure = event.get("log_failure")
    if isinstance(failure, Failure):
        record["traceback"] = failure.getTraceback()
    return json.dumps(record, default=str) + "\n"


def _observer(file: IO[Any]) -> FileLogObserver:
    return FileLogObserver(file, jsonLine)


def useStderr(options: usage.Options, level: Any) -> Callable[[object], None]:
    """
    Have the log written to stderr, and not to stdout, by the program whose options these are a part of; unless the
    operator has said where to write it.

    :param level: one of ``twisted.logger.LogLevel``; what is less than it is left out.
    :returns: to be called with the application (what the service's parent is), once there is one.
    """
    root = rootOf(options)
    if root is None:
        return lambda application: None
    if program(options) == "twist":
        if root["logFile"] is sys.stdout:
            root.update(logFile=_stderr(), logLevel=level, fileLogObserverFactory=textFileLogObserver)
        return lambda application: None
    if root.get("logger") or root.get("logfile") or root.get("syslog"):
        return lambda application: None
    observer = FilteringLogObserver(textFileLogObserver(_stderr()), [LogLevelFilterPredicate(level)])
    return lambda application: _observeWith(application, observer)


def _stderr() -> IO[Any]:
    """Where stderr leads; nowhere when it is closed."""
    return sys.stderr or open(os.devnull, "w")  # as long as the log


def useJson(options: usage.Options, reactor: Any) -> Callable[[object], None]:
    """
    Have the log written as JSON by the program whose options these are a part of.

    :param reactor: in whose thread the file is rotated on SIGUSR1, as twistd does with its own.
    :returns: to be called with the application (what the service's parent is), once there is one.
    """
    root = rootOf(options)
    if root is not None and program(options) == "twist":
        root["fileLogObserverFactory"] = _observer
    elif root is not None:
        return lambda application: _setObserver(application, root, reactor)
    return lambda application: None


def _setObserver(application: object, root: Mapping[str, Any], reactor: Any) -> None:
    if isinstance(application, Componentized) and not root.get("logger"):
        _observeWith(application, _observer(_openLog(root, reactor)))


def _observeWith(application: object, observer: object) -> None:
    """Have ``twistd`` take *observer* for its log."""
    if isinstance(application, Componentized):
        application.setComponent(ILogObserver, observer)


def _openLog(root: Mapping[str, Any], reactor: Any) -> IO[Any]:
    """Where twistd's own observer would write: twistd(1), ``--logfile`` and ``--nodaemon``."""
    name = root.get("logfile") or ("-" if root.get("nodaemon") else DEFAULT_FILE)
    if name == "-":
        if not root.get("nodaemon"):
            raise SystemExit("net: a daemon has no stdout to log to; name a file with --logfile, or leave out '-'")
        return sys.stdout
    file: Any = LogFile.fromFullPath(name)
    if not signal.getsignal(signal.SIGUSR1):
        signal.signal(signal.SIGUSR1, lambda number, frame: reactor.callFromThread(file.rotate))
    opened: IO[Any] = file
    return opened
