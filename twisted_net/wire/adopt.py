"""A descriptor of a connected socket that exists already becomes a connection of ours.

The descriptor may come from a parent process, from SCM_RIGHTS, or from code that connects by itself.  It is taken over:
Twisted works on a duplicate, and the one handed in is closed, so that closing the connection really closes it.
"""

from __future__ import annotations

import os
from typing import Any

from twisted.internet.interfaces import IProtocolFactory

from twisted_net.wire import inherit


def adoptConnection(reactor: Any, factory: IProtocolFactory, fd: int) -> None:
    """Make a connection of *fd*: *factory* builds its protocol before this returns.

    After an error *fd* is open as before, and still the caller's.

    :param reactor: provides ``IReactorSocket``.
    :raises NetError: *fd* is no connected stream socket; the codes are those of
        :func:`~twisted_net.wire.inherit.connected`.
    """
    with inherit.connected(fd) as skt:
        reactor.adoptStreamConnection(skt.fileno(), skt.family, factory)
    os.close(fd)
