"""
Fixtures for pytest: networks that fail a test which leaves something open. Found by pytest when the package is
installed.

``memoryNetwork``
    a :class:`~twisted_net.testing.network.MemoryNetwork`.
``memoryClock``
    a clock that jumps (``IReactorTime``, and ``advance(seconds)``): the reactor of its host ``localhost``.
``network``
    what the test is marked for: ``@pytest.mark.network("memory", "loopback")`` runs it on both. Without a mark, what
    the option ``--network`` says: memory, unless it is given.
``socketPair``
    client and server of a connection on the test's network: two :class:`~twisted_net.testing.peers.Peer`\\ s.
``netServer``
    ``served = await netServer(what)`` serves a protocol class, a factory, or a function of a socket, there; see
    :meth:`Scene.serve <twisted_net.testing.scene.Scene.serve>`.

A test that uses one of them may be ``async def``: it is run by the network. This works with pytest-twisted, whose own
tests (those marked by it) are left to it, and without.

Options: ``--network=memory|loopback``; ``--network-seed=N`` leaves to chance what a real network does, by that seed,
and ``--network-seed=random`` by a new one each time. A test that fails shows its seed and what happened on its
network.
"""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable, Coroutine, Generator, Iterator
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from twisted_net.testing.loopback import LoopbackNetwork
    from twisted_net.testing.network import MemoryNetwork
    from twisted_net.testing.peers import Peer
    from twisted_net.testing.scene import Scene, Served

GROUNDS: Final = ("memory", "loopback")
_NETWORK: Final = pytest.StashKey[Any]()
_FAILED: Final = pytest.StashKey[bool]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("network", "networks of twisted_net.testing")
    group.addoption(
        "--network",
        choices=GROUNDS,
        default=GROUNDS[0],
        help="where tests run that are marked for no network: in memory (the default), or on the loopback interface",
    )
    group.addoption(
        "--network-seed",
        metavar="N|random",
        type=_seed,
        default=None,
        help="leave to chance what a real network does: order, segments, delays; by this seed (default: nothing is)",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        'network(*grounds, transport="tcp", leaks=None): run on each of these networks ("memory", "loopback"), with '
        'scenes on that transport ("tcp", "unix"); leaks="why" lets the test leave sockets and timers behind',
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    marker = metafunc.definition.get_closest_marker("network")
    if marker is None:
        return
    for ground in marker.args:
        if ground not in GROUNDS:
            raise pytest.UsageError(f"{metafunc.definition.nodeid}: network({ground!r}): one of {', '.join(GROUNDS)}")
    if "network" in metafunc.fixturenames and marker.args:
        metafunc.parametrize("network", marker.args, indirect=True)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run ``async def`` tests that use a network on it, and others outside of the reactor that they may run."""
    network = pyfuncitem.stash.get(_NETWORK, None)
    if network is None or hasattr(pyfuncitem.obj, "_pytest_twisted_mark"):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    if inspect.iscoroutinefunction(pyfuncitem.obj):
        network.run(lambda: pyfuncitem.obj(**arguments))
    else:
        pyfuncitem.obj(**arguments)
    return True


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show what happened on the network of a test that has failed."""
    report = yield
    network = item.stash.get(_NETWORK, None)
    if network is not None and report.when == "call" and report.failed:
        item.stash[_FAILED] = True
        story = network.story()
        if story:
            report.sections.append(("network", story))
    return report


@pytest.fixture
def network(request: pytest.FixtureRequest) -> Iterator[MemoryNetwork | LoopbackNetwork]:
    """The network that the test is marked for; it must leave nothing open there."""
    ground = getattr(request, "param", None) or request.config.getoption("--network")
    if "memoryNetwork" in request.fixturenames or ground == "memory":
        yield request.getfixturevalue("memoryNetwork")
        return
    from twisted_net.testing.loopback import LoopbackNetwork

    made = LoopbackNetwork()
    yield from _kept(request, made)


@pytest.fixture
def memoryNetwork(request: pytest.FixtureRequest) -> Iterator[MemoryNetwork]:
    """A network in memory; the test must leave nothing open there."""
    from twisted_net.testing.network import MemoryNetwork

    seed = request.config.getoption("--network-seed")
    yield from _kept(request, MemoryNetwork(random.randrange(2**32) if seed == "random" else seed))


def _kept(request: pytest.FixtureRequest, network: Any) -> Iterator[Any]:
    request.node.stash[_NETWORK] = network
    yield network
    del request.node.stash[_NETWORK]
    if _option(request, "leaks") is not None or request.node.stash.get(_FAILED, False):
        network.shut()  # what a failed test leaves behind says nothing more
    else:
        network.close()


@pytest.fixture
def memoryClock(memoryNetwork: MemoryNetwork) -> Any:
    """A clock that jumps: ``IReactorTime``, and ``advance(seconds)``."""
    return memoryNetwork.reactor


@pytest.fixture
def _scene(request: pytest.FixtureRequest, network: Any) -> Iterator[Scene]:
    from twisted_net.testing.scene import Scene

    scene = Scene(network, _option(request, "transport") or "tcp")
    yield scene
    network.run(scene.closes)


@pytest.fixture
def socketPair(_scene: Scene, network: Any) -> tuple[Peer, Peer]:
    """Client and server of a connection that stands."""
    pair: tuple[Peer, Peer] = network.run(_scene.pair)
    return pair


@pytest.fixture
def netServer(_scene: Scene) -> Callable[[Any], Coroutine[Any, Any, Served]]:
    """``await netServer(what)`` serves a protocol class, a factory, or a function of a socket."""
    return _scene.serve


def _option(request: pytest.FixtureRequest, name: str) -> Any:
    marker = request.node.get_closest_marker("network")
    return None if marker is None else marker.kwargs.get(name)


def _seed(text: str) -> int | str:
    return text if text == "random" else int(text)
