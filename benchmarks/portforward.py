"""Twisted's own forwarder, ``twisted.protocols.portforward``, for ``forward.py`` to measure.

::

    python benchmarks/portforward.py epoll|uvloop PORT

It forwards to *PORT* on 127.0.0.1, and says where it listens in the words of ``twistd``.
"""

from __future__ import annotations

import sys
from typing import Any

import servers


def main() -> None:
    _, name, port = sys.argv
    reactor: Any = servers.install(name)
    from twisted.protocols.portforward import ProxyClientFactory, ProxyFactory

    ProxyClientFactory.noisy = ProxyFactory.noisy = False
    listening = reactor.listenTCP(0, ProxyFactory("127.0.0.1", int(port)), servers.BACKLOG, "127.0.0.1")
    print(f"portforward is listening on 127.0.0.1:{listening.getHost().port}", flush=True)
    reactor.run()


if __name__ == "__main__":
    main()
