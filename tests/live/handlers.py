"""Handlers for ``net serve``, with curl in mind: a Site of twisted.web, and HTTP written by hand on a Socket.

Both answer ``GET /hello`` and ``GET /big`` (20 MB), and ``POST /digest`` with what was sent, in short.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from typing import Any

from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from twisted_net.net import Socket

BIG = random.Random(1).randbytes(20_000_000)
"""No two stretches of it are alike: one that is lost or doubled is seen."""

MOST = 64 * 1024
"""Bytes of a request's head; more are refused."""


def digest(data: bytes) -> bytes:
    """What ``POST /digest`` answers."""
    return f"{len(data)} {hashlib.sha256(data).hexdigest()}\n".encode()


# twisted.web's


class Answer(Resource):
    """Answers the same to everybody."""

    isLeaf = True

    def __init__(self, content: bytes) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._content = content

    def render_GET(self, request: Request) -> bytes:
        return self._content


class Digest(Resource):
    """Answers what was sent, in short."""

    isLeaf = True

    def render_POST(self, request: Request) -> bytes:
        assert request.content is not None
        return digest(request.content.read())


class Piecemeal(Resource):
    """20 MB by a pull producer, as twisted.web serves files."""

    isLeaf = True

    def render_GET(self, request: Request) -> int:
        pieces = iter(range(0, len(BIG), 65536))

        class Producer:
            def resumeProducing(self) -> None:
                start = next(pieces, None)
                if start is None:
                    request.unregisterProducer()
                    request.finish()
                else:
                    request.write(BIG[start : start + 65536])

            def stopProducing(self) -> None:
                """Nobody wants the rest."""

        request.setHeader(b"content-length", str(len(BIG)).encode())
        request.registerProducer(Producer(), False)
        return NOT_DONE_YET


def _site() -> Site:
    root = Resource()
    root.putChild(b"hello", Answer(b"hello\n"))
    root.putChild(b"big", Answer(BIG))
    root.putChild(b"piecemeal", Piecemeal())  # type: ignore[no-untyped-call]
    root.putChild(b"digest", Digest())  # type: ignore[no-untyped-call]
    return Site(root)


site = _site()


# By hand


def web(socket: Socket) -> None:
    """HTTP/1.1 (RFC 9112) as far as curl needs it: requests with a Content-Length, one after the other."""
    unread = bytearray()

    def received(data: bytes) -> None:
        unread.extend(data)
        while (length := _answered(unread, socket.write)) is not None:
            del unread[:length]
        if len(unread) > MOST and b"\r\n\r\n" not in unread:
            socket.end(b"HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\n\r\n")

    socket.on("data", received)
    socket.on("error", lambda error: None)


def _answered(unread: bytearray, write: Callable[[bytes], Any]) -> int | None:
    """Answer the first request in *unread*; returns how long it was, or None when it is not all there."""
    end = unread.find(b"\r\n\r\n")
    if end < 0:
        return None
    first, *fields = bytes(unread[:end]).decode("latin-1").split("\r\n")
    headers = {name.strip().lower(): value.strip() for name, _, value in (field.partition(":") for field in fields)}
    length = end + 4 + int(headers.get("content-length", "0"))
    if headers.get("expect") == "100-continue" and len(unread) == end + 4:
        write(b"HTTP/1.1 100 Continue\r\n\r\n")
    if len(unread) < length:
        return None
    method, path, _ = first.split(" ")
    answers: dict[tuple[str, str], Callable[[], bytes]] = {
        ("GET", "/hello"): lambda: b"hello\n",
        ("GET", "/big"): lambda: BIG,
        ("POST", "/digest"): lambda: digest(bytes(unread[end + 4 : length])),
    }
    answer = answers.get((method, path))
    body = b"not here\n" if answer is None else answer()
    status = "404 Not Found" if answer is None else "200 OK"
    write(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    return length
