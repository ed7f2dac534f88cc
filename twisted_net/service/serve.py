"""``net serve MODULE:HANDLER``: a handler of the operator's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Final

from twisted.internet.interfaces import IAddress, IProtocol, IProtocolFactory, IProtocolNegotiationFactory
from zope.interface import alsoProvides, implementer

from twisted_net.service.datagrams import forDatagrams
from twisted_net.service.launch import Launch, Serving, forCoroutine, forHandler, launch
from twisted_net.service.loading import LoadError, call, isCoroutineFunction, load, recognise, recogniseReceiver
from twisted_net.service.options import SETTINGS, Choices, DatagramTarget, ServiceOptions, Setting, fail
from twisted_net.service.units import parseFlag
from twisted_net.wire.hosting import host

__all__ = ["HANDLER_SETTINGS", "Options", "Started", "makeService"]

HANDLER_SETTINGS: Final = (
    Setting(
        "app-dir",
        "FOLDER",
        str,
        ".",
        "Where to look for the module first; it is put in front of Python's path. Relative to the folder in which the "
        "command was given, whatever --rundir says.",
    ),
    Setting(
        "factory",
        "",
        parseFlag,
        None,
        "HANDLER is called once, without arguments, and returns the handler: for one that has to be made or "
        "configured.",
    ),
)


class Options(ServiceOptions):
    """The options of ``net serve``."""

    command = "serve"
    purpose = (
        "Serve connections with a handler of yours: HANDLER, an attribute of the module MODULE, dots allowed behind "
        "the colon. It is one of these:\n\na function that takes a Socket (twisted_net.net), called once for each "
        "connection;\n\na coroutine function (async def) that takes a Stream (twisted_net.streams), run once for each "
        "connection;\n\na Twisted Protocol class, or a Factory class or instance, such as a twisted.web "
        "Site.\n\nFor datagrams (--listen udp:...) it is a function that takes (data, address, socket), called for "
        "each of them, or a coroutine function that takes a UdpSocket (twisted_net.udp).\n\nEvery limit, rate, "
        "deadline and the graceful stop hold for all that serve connections."
    )
    arguments = "MODULE:HANDLER"
    examples = (
        ("serve hello:greet", "The function greet of hello.py in this folder, on 127.0.0.1:8124."),
        (
            "serve --app-dir /srv/app --factory --listen unix:/run/app.sock:mode=660 shop:make",
            "What make() of /srv/app/shop.py returns, on a UNIX socket.",
        ),
        ("serve --listen udp::5353 names:answer", "Datagrams: answer(data, address, socket) for each."),
        (
            "serve --listen ssl:8443:privateKey=key.pem:certKey=cert.pem --rate-write 1MB/s shop:site",
            "A Site over TLS, each connection slowed down to 1 MB/s.",
        ),
    )
    settings: ClassVar = {"The handler": HANDLER_SETTINGS, **SETTINGS}

    handler: str = ""
    """What ``MODULE:HANDLER`` is."""

    @property
    def datagrams(self) -> bool:
        """Whether it listens for datagrams, and not for connections."""
        return isinstance(self.chosen["listen"][0], DatagramTarget)

    def postOptions(self) -> None:
        """Read every text that was given, here or in the environment."""
        super().postOptions()
        for target in self.chosen["listen"]:
            if isinstance(target, DatagramTarget) != self.datagrams:
                fail(
                    self.whole,
                    f"{self.chosen['listen'][0]} and {target} need different handlers, for connections and for "
                    "datagrams; serve each by itself",
                )

    def parseArgs(self, *arguments: str) -> None:
        """Exactly one argument: the handler."""
        if not arguments:
            fail(self.whole, "which handler? Write net serve MODULE:HANDLER, such as hello:greet for greet in hello.py")
        self.handler, *rest = arguments
        if rest:
            fail(self.whole, f"{rest[0]!r} is one word too many behind the handler {self.handler!r}; leave it out")


@implementer(IProtocolFactory)
class Started:
    """
    Somebody's factory that is started when the daemon has forked, not when its port is bound.

    Ports are bound before that (:mod:`~twisted_net.service.launch`), and a ``startFactory`` may open what does not
    survive a fork, such as threads.
    """

    def __init__(self, factory: IProtocolFactory) -> None:
        self._factory = factory
        self._begun = False
        self._early = 0

    def doStart(self) -> None:
        """A port begins."""
        if self._begun:
            self._factory.doStart()
        else:
            self._early += 1

    def doStop(self) -> None:
        """A port has stopped."""
        if self._begun:
            self._factory.doStop()
        else:
            self._early -= 1

    def buildProtocol(self, addr: IAddress) -> IProtocol | None:
        """The factory's own."""
        return self._factory.buildProtocol(addr)

    def begin(self) -> None:
        """Start the factory, for each port that has begun already."""
        self._begun = True
        for _ in range(self._early):
            self._factory.doStart()


def makeService(options: Options) -> Launch:
    """
    Return the service; it is bound to its places already.

    :raises SystemExit: the handler or a place cannot be had; with what to show on stderr.
    """
    chosen = options.chosen
    try:
        found = load(options.handler, chosen["app-dir"])
        if chosen["factory"]:
            found = call(found, options.handler)
        text = f"{options.handler}()" if chosen["factory"] else options.handler
        if options.datagrams:
            receiver = recogniseReceiver(found, text)
            return launch(options, lambda choices, reactor: forDatagrams(receiver, choices, reactor))
        handler = recognise(found, text)
    except LoadError as error:
        raise SystemExit(f"{error.theirs}{options.whole}: {error.strerror}") from None
    if not IProtocolFactory.providedBy(handler):
        function: Callable[[Any], Any] = handler
        manner = forCoroutine if isCoroutineFunction(function) else forHandler
        return launch(options, lambda choices, reactor: manner(function, choices, reactor))
    started = Started(handler)

    def build(choices: Choices, reactor: Any) -> Serving:
        hosted = host(started, reactor, limits=choices.limits, allowHalfOpen=choices.halfOpen)
        # TLS asks the factory that it is given for what to answer to ALPN (RFC 7301). Twisted 26 refuses a client that
        # offers something (curl, any browser) when the factory has no answer.
        negotiation = IProtocolNegotiationFactory(handler, None)
        if negotiation is not None and not IProtocolNegotiationFactory.providedBy(hosted):
            alsoProvides(hosted, IProtocolNegotiationFactory)
            hosted.acceptableProtocols = negotiation.acceptableProtocols  # type: ignore[attr-defined]
        return Serving(hosted, started.begin)

    return launch(options, build)
