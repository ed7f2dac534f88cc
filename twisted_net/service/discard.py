"""``net discard``: read everything, answer nothing (RFC 863)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from twisted_net.address import Address
from twisted_net.net import Socket
from twisted_net.service.datagrams import callForEach
from twisted_net.service.launch import Launch, Serving, forHandler, launch
from twisted_net.service.options import Choices, ServiceOptions
from twisted_net.udp import DatagramSocket

__all__ = ["Options", "discard", "discardDatagram", "makeService"]


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


def discardDatagram(data: bytes, address: Address, socket: DatagramSocket) -> None:
    """Discard one datagram."""


def makeService(options: Options) -> Launch:
    """Return the service; it is bound to its places already."""
    return launch(options, _serving)


def _serving(choices: Choices, reactor: Any) -> Serving:
    return replace(forHandler(discard, choices, reactor), receive=callForEach(discardDatagram))
