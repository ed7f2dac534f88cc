"""A pipe: what `Socket.pipe` sets up between two, and takes away again.

The bytes and the pressure are a :class:`~twisted_net.wire.relay.Relay`'s.  What a pipe adds are the listeners that feed
it, so that whoever else listens to 'data' hears the same bytes, and the end: a pipe lasts until one of the two has
closed, and then nothing of it is left on either.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted_net.sansio.emitter import Emitter
from twisted_net.wire.protocol import SocketProtocol
from twisted_net.wire.relay import Relay


class Pipe:
    """Carries what *source* says into *destination*, until one of them has closed.

    :param source: says 'data', 'end' and 'close'.
    :param protocol: its connection, which is paused while the destination wants no more.
    :param destination: has ``write(data)``; where it is an emitter, its 'drain' and 'close' are heard.
    :param end: pass the end of *source* on, as ``destination.end()``.
    """

    __slots__ = ("_heard", "_relay")

    def __init__(self, source: Emitter, protocol: SocketProtocol, destination: Any, end: bool) -> None:
        self._relay = Relay(protocol, destination.write)
        self._heard: list[tuple[Any, str, Callable[..., object]]] = [
            (source, "data", self._relay.receive),
            (source, "close", self._over),
        ]
        if end:
            self._heard.append((source, "end", destination.end))
        if hasattr(destination, "on"):
            self._heard.append((destination, "drain", self._relay.drained))
            if destination is not source:
                self._heard.append((destination, "close", self._over))
        for emitter, event, listener in self._heard:
            emitter.on(event, listener)

    def _over(self, *args: object) -> None:
        for emitter, event, listener in self._heard:
            emitter.off(event, listener)
        self._relay.drained()
