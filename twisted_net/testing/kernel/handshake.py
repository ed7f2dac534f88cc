"""
TCP's three-way handshake, from the client's side (RFC 9293, 3.5).

The server's program can accept when the answer has been acknowledged, too, and so never meets a client that has heard
nothing. SYN and its answer are sent again after 1, 3, 7, 15, 31 and 63 seconds when nothing comes back (a full
backlog, a host that is gone), and after 127 the attempt has failed with ``ETIMEDOUT`` (tcp(7), tcp_syn_retries).
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from twisted_net.testing.host import Host
    from twisted_net.testing.kernel.stream import StreamSocket

#: Seconds after the first SYN at which it is sent again, and at which that is given up (tcp(7): tcp_syn_retries is 6).
SYN_RETRIES: Final = (1.0, 3.0, 7.0, 15.0, 31.0, 63.0)
SYN_TIMEOUT: Final = 127.0


class Handshake:
    """TCP's three-way handshake, from the client's side."""

    __slots__ = ("_begun", "_client", "_server", "_timer")

    def __init__(self, client: StreamSocket) -> None:
        self._client: StreamSocket | None = client
        self._server: StreamSocket | None = None
        self._timer: Any = None
        self._begun = client.host.network.now

    def begin(self) -> None:
        client = self._client
        assert client is not None
        network = client.host.network
        network.trace.note(client.label, network.labelOf(client.host, client.remote), "connect", None)
        self._synchronise(0)

    def _synchronise(self, attempt: int) -> None:
        """Send SYN."""
        client = self._client
        assert client is not None
        network = client.host.network
        if attempt > len(SYN_RETRIES):
            self._end(errno.ETIMEDOUT)
            return
        host = network.hostAt(client.host, client.remote[0])
        if host is None:
            self._end(errno.EHOSTUNREACH)
            return
        network.road(client.host, host).control(self._arrive, host)
        if self._client is not None:
            at = SYN_RETRIES[attempt] if attempt < len(SYN_RETRIES) else SYN_TIMEOUT
            self._timer = network.at(self._begun + at, self._synchronise, attempt + 1)

    def _arrive(self, host: Host) -> None:
        """SYN has come to *host*."""
        client = self._client
        if client is None or host.dead:
            return
        road, back = host.network.road(client.host, host), host.network.road(host, client.host)
        if self._server is None:
            listener = host.ports.listener(client.remote)
            if listener is None or road.refuses():
                back.control(self._refused)
                return
            if listener.isFull():
                return  # dropped, as Linux does; it will be sent again
            self._server = listener.answer(client, back, road)
        back.control(self._established)

    def _established(self) -> None:
        """SYN-ACK has come."""
        client = self._client
        if client is not None:
            assert client.outward is not None
            self._forget()
            client.established()
            client.outward.road.acknowledge(client.outward)

    def _refused(self) -> None:
        """RST has come instead."""
        if self._client is not None:
            self._client.host.network.trace.note(
                self._client.host.network.labelOf(self._client.host, self._client.remote),
                self._client.label,
                "refuse",
                None,
            )
        self._end(errno.ECONNREFUSED)

    def _end(self, number: int) -> None:
        client = self._client
        if client is not None:
            self._forget()
            client.fail(number)

    def giveUp(self) -> None:
        """The client closes: nobody waits for an answer any more; what the server has made of it is reset."""
        client = self._client
        assert client is not None
        self._forget()
        if self._server is not None and client.outward is not None:
            client.outward.reset()

    def _forget(self) -> None:
        self._client = None
        if self._timer is not None:
            self._timer.cancel()
