"""
Connect: to a host by all of its addresses, to a UNIX socket, or by any of Twisted's endpoints.

A name is looked up, its addresses are put in order (IPv6 and IPv4 in turn, IPv6 first: RFC 8305, section 4), and then
they race: :mod:`~twisted_net.wire.race` has the rules, and a UNIX socket runs there alone. An endpoint connects in its
own way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import zip_longest
from typing import Any, Literal, TypeAlias

from twisted.internet.defer import Deferred, fail, maybeDeferred
from twisted.internet.endpoints import clientFromString
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.python.failure import Failure

from twisted_net.address import Address, EndpointTarget, Target, TcpTarget, UnixTarget, checkPort, isIP
from twisted_net.errors import AddressError, NetError, OptionError, TimedOutError
from twisted_net.wire.lookup import lookup
from twisted_net.wire.options import SocketOptions
from twisted_net.wire.race import Race, notConnected

__all__ = ["clientEndpoint", "dial", "interleave"]

OnLookup: TypeAlias = Callable[[NetError | None, str, int, str], object]


def dial(
    reactor: Any,
    factory: IProtocolFactory,
    where: Target | IStreamClientEndpoint,
    *,
    timeout: float | None = None,
    family: Literal[0, 4, 6] = 0,
    localAddress: tuple[str, int] | None = None,
    options: SocketOptions | None = None,
    onLookup: OnLookup | None = None,
) -> Deferred[IProtocol]:
    """
    Connect to ``where``, with ``factory`` building the protocol.

    :param reactor: provides ``IReactorTCP``, ``IReactorUNIX`` and ``IReactorTime``, and for host names
        ``IReactorPluggableNameResolver``.
    :param factory: its ``doStart`` is called once, and ``doStop`` once, when connecting has failed or the connection is
        over; ``buildProtocol`` once, when there is a connection.
    :param where: host ``""`` is ``"localhost"``.
    :param timeout: seconds for the whole attempt, the look-up included; ``None`` leaves it to the system, which gives
        an address about two minutes (tcp(7), ``tcp_syn_retries``).
    :param family: 4 or 6 uses addresses of that version alone. TCP only.
    :param localAddress: an IP address (``""``: any) and a port (0: any) to connect from. TCP only.
    :param options: set before connecting (an endpoint's: after it). SO_REUSEADDR is set in any case (LUV-7).
    :param onLookup: called for each address that a name has, as Node's 'lookup': ``(None, address, 4 or 6, host)``;
        ``(error, "", 0, host)`` when it has none.
    :returns: fires with exactly what ``buildProtocol`` returned, once its ``makeConnection`` has returned. Cancelling
        it ends every attempt and fails it with code ``ECANCELED``.

        Fails with :class:`~twisted_net.errors.AddressError` or :class:`~twisted_net.errors.OptionError` for arguments
        that cannot be used, with :class:`~twisted_net.errors.TimedOutError`, and otherwise with
        :class:`~twisted_net.errors.NetError`: ``ENOTFOUND`` for a name without addresses; when every address has
        failed, the error that tells most, whose ``address`` is the one it is about and whose notes (``__notes__``)
        name the others; ``ERR_INTERNAL`` for an exception of the factory or the protocol, whose connection is aborted.
    """
    try:
        _checkTimeout(timeout)
    except OptionError as error:
        return fail(error)
    dialling = Deferred.fromCoroutine(_dial(reactor, factory, where, family, localAddress, options, onLookup))
    if timeout is not None:
        dialling.addTimeout(timeout, reactor, lambda result, seconds: _timedOut(result, seconds, where))
    return dialling


async def _dial(
    reactor: Any,
    factory: IProtocolFactory,
    where: Any,
    family: Literal[0, 4, 6],
    localAddress: tuple[str, int] | None,
    options: SocketOptions | None,
    onLookup: OnLookup | None,
) -> IProtocol:
    try:
        if localAddress is not None:
            localAddress, family = _checkLocal(localAddress, where, family)
        if isinstance(where, TcpTarget):
            addresses = await _addresses(reactor, where, family, onLookup)
        elif isinstance(where, UnixTarget):
            addresses = [Address(where.path, None, "unix")]
        else:
            return await _dialEndpoint(reactor, factory, where, options)
        return await Race(reactor, factory, addresses, localAddress, options).run()
    except NetError:
        raise
    except Exception as error:
        raise notConnected(error, where) from error


# Where to


async def _addresses(
    reactor: Any, target: TcpTarget, family: Literal[0, 4, 6], onLookup: OnLookup | None
) -> list[Address]:
    host = target.host or "localhost"
    port = checkPort(target.port, lowest=1)
    version = isIP(host)
    if version:
        if family not in (0, version):
            raise AddressError(
                f"connect {target}: it is an IPv{version} address where IPv{family} was asked for; "
                "use another address, or leave family and localAddress out",
                address=target,
            )
        return [_address(host, port)]
    tell: OnLookup = _nobody if onLookup is None else onLookup
    try:
        hosts = await lookup(reactor, host, port, family)
    except NetError as error:
        tell(error, "", 0, host)
        raise
    for found in hosts:
        tell(None, found, isIP(found), host)
    return [_address(found, port) for found in interleave(hosts)]


def interleave(hosts: Iterable[str]) -> list[str]:
    """Return IP addresses with the two families in turn, IPv6 first; within each the order stays (RFC 8305, 4)."""
    families: dict[int, list[str]] = {6: [], 4: []}
    for host in hosts:
        families[isIP(host)].append(host)
    return [host for pair in zip_longest(*families.values()) for host in pair if host is not None]


def _address(host: str, port: int) -> Address:
    return Address(host, port, "IPv6" if isIP(host) == 6 else "IPv4")


def _nobody(*news: object) -> None:
    """Nobody wants to hear of look-ups."""


# Endpoints


async def _dialEndpoint(
    reactor: Any, factory: IProtocolFactory, where: Any, options: SocketOptions | None
) -> IProtocol:
    endpoint = clientEndpoint(reactor, where) if isinstance(where, EndpointTarget) else where
    if not IStreamClientEndpoint.providedBy(endpoint):
        raise AddressError(
            f"{where!r} is nothing to connect to; give a TcpTarget, a UnixTarget, or an endpoint or its text",
            address=where,
        )
    protocol: IProtocol = await maybeDeferred(endpoint.connect, factory)
    if options is not None:
        options.apply(getattr(protocol, "transport", None))
    return protocol


def clientEndpoint(reactor: Any, target: EndpointTarget) -> IStreamClientEndpoint:
    """
    Return the endpoint that a text describes.

    :raises AddressError: it describes none that can be connected to.
    """
    try:
        endpoint: IStreamClientEndpoint = clientFromString(reactor, target.description)
    except Exception as error:
        # Each kind of endpoint reads its own arguments, and raises what it happens to.
        why = " ".join(str(error).split()) or type(error).__name__
        raise AddressError(
            f"{target.description!r} is no endpoint to connect to: {why}; "
            'correct it, or write "host:port" or "/path" for a plain one',
            address=target,
        ) from error
    return endpoint


# Arguments and errors


def _checkTimeout(timeout: object) -> None:
    if timeout is None:
        return
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 < timeout < float("inf"):
        raise OptionError(f"timeout is {timeout!r}; it counts seconds, finite and more than 0, or is None for no limit")


def _checkLocal(
    localAddress: tuple[str, int], where: object, family: Literal[0, 4, 6]
) -> tuple[tuple[str, int], Literal[0, 4, 6]]:
    """Return the address to bind, and the family that is left to choose from."""
    host, port = localAddress
    version = isIP(host)
    if not isinstance(where, TcpTarget):
        raise AddressError(f"localAddress {host!r} is given for {where}; leave it out: only TCP has one", address=where)
    if not version and host not in ("", "*"):
        raise AddressError(f'localAddress {host!r} is no IP address; give one of this machine, or "" for any')
    if family and version and family != version:
        raise AddressError(f"localAddress {host!r} is no IPv{family} address, as family asks for; leave one out")
    return (host if version else "", checkPort(port)), version or family


def _timedOut(result: Any, seconds: float, where: object) -> Any:
    if not isinstance(result, Failure):
        return result  # an endpoint that was cancelled too late
    raise TimedOutError(
        f"connect {where}: no connection within {seconds:g} seconds; look at the peer and the network, or allow more",
        address=where,
        syscall="connect",
    )
