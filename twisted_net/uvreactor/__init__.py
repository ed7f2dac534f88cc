"""
A Twisted reactor on uvloop, for every Twisted program.

::

    twistd --reactor=uvloop -n web --path .
    trial --reactor=uvloop package

or, before anything imports ``twisted.internet.reactor``::

    from twisted_net import uvreactor

    uvreactor.install()

It needs the extra ``uvloop`` (``pip install twisted-net[uvloop]``) and nothing of the rest of this package. Connections
over TCP, UNIX sockets and TLS, made or accepted, are uvloop's own transports with the manners of Twisted's; datagrams,
processes, threads, timers and standard input and output are those of Twisted's asyncio reactor. asyncio's code can run
on the same loop.
"""

from __future__ import annotations

from typing import Any

__all__ = ["install"]


def install(eventloop: Any = None) -> None:
    """
    Make a reactor on uvloop the global one.

    :param eventloop: a loop of uvloop's to run on; a new one unless it is given.
    :raises ImportError: uvloop is not installed.
    :raises twisted.internet.error.ReactorAlreadyInstalledError: there is a reactor already; call this before anything
        imports ``twisted.internet.reactor``.
    """
    try:
        from twisted_net.uvreactor import reactor
    except ImportError as missing:
        if missing.name != "uvloop":
            raise
        raise ImportError("uvloop is not installed: pip install 'twisted-net[uvloop]'", name="uvloop") from None
    reactor.install(eventloop)
