"""``net discard``: read everything, answer nothing (RFC 863)."""

from __future__ import annotations

from twisted_net.net import Socket
from twisted_net.service.launch import Launch, forHandler, launch
from twisted_net.service.options import ServiceOptions

__all__ = ["Options", "discard", "makeService"]


class Options(ServiceOptions):
    """The options of ``net discard``."""

    command = "discard"
    purpose = (
        "Read what each peer sends and throw it away (RFC 863). How much it was stands in the access log: a place to "
        "measure a network, or to point something at that insists on a server."
    )
    examples = (
        ("discard", "On 127.0.0.1:8124, for this machine alone."),
        (
            "discard --listen '[::]:9' --rate-read 10MB/s --log-format json",
            "Every interface, IPv6 and IPv4, port 9; at most 10 MB/s from each peer; a log for programs.",
        ),
    )


def discard(socket: Socket) -> None:
    """Discard what comes on one connection, and end when the peer does."""
    socket.on("error", lambda error: None)
    socket.on("data", lambda data: None)
    socket.on("end", socket.end)


def makeService(options: Options) -> Launch:
    """Return the service; it is bound to its places already."""
    return launch(options, lambda choices, reactor: forHandler(discard, choices, reactor))
