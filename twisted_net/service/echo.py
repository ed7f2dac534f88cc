"""``net echo``: send everything back (RFC 862)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from twisted_net.address import Address
from twisted_net.net import Socket
from twisted_net.service.datagrams import callForEach
from twisted_net.service.launch import Launch, Serving, forHandler, launch
from twisted_net.service.options import Choices, ServiceOptions
from twisted_net.udp import DatagramSocket

__all__ = ["Options", "echo", "echoDatagram", "makeService"]


class Options(ServiceOptions):
    """The options of ``net echo``."""

    command = "echo"
    purpose = (
        "Send back to each peer what it sends (RFC 862), until it has ended and everything is back. A peer that does "
        "not read its echo is not read from either, so that nothing piles up. Datagrams go back one by one."
    )
    examples = (
        ("echo", "On 127.0.0.1:8124, for this machine alone; talk to it with: nc 127.0.0.1 8124"),
        (
            "echo --listen :8124 --listen unix:/run/echo.sock:mode=660 --limit-connections 1000 --timeout-idle 5m",
            "Every IPv4 interface and a UNIX socket; at most 1000 connections, the silent ones closed after 5 minutes.",
        ),
        ("echo --listen :8124 --listen udp::8124", "Connections and datagrams."),
    )


def echo(socket: Socket) -> None:
    """Echo one connection."""
    # How it ended is in the access log; an error without a listener would be logged a second time.
    socket.on("error", lambda error: None)
    socket.pipe(socket)


def echoDatagram(data: bytes, address: Address, socket: DatagramSocket) -> None:
    """Echo one datagram; one whose sender cannot be answered is lost, as datagrams are."""
    socket.send(data, address, lambda error, count: None)


def makeService(options: Options) -> Launch:
    """Return the service; it is bound to its places already."""
    return launch(options, _serving)


def _serving(choices: Choices, reactor: Any) -> Serving:
    return replace(forHandler(echo, choices, reactor), receive=callForEach(echoDatagram))
