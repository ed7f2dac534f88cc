"""Flows of datagrams: to be written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from twisted_net.forward.hooks import Direction
from twisted_net.forward.session import Ended
from twisted_net.forward.targets import Pool
from twisted_net.sansio.faults import Faults
from twisted_net.wire.datagram import DatagramPort


class Flows:
    bytesIn = 0
    bytesOut = 0

    def __init__(
        self,
        pool: Pool,
        reactor: Any,
        *,
        timeout: float,
        responses: int | None,
        limit: int,
        faults: Mapping[Direction, Faults],
        seed: int,
        over: Callable[[Ended], object],
    ) -> None:
        pass

    def serve(self, port: DatagramPort) -> None:
        raise NotImplementedError

    def snapshot(self) -> dict[str, Any]:
        return {}

    def close(self) -> None:
        pass
