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

A test that uses one of them may be ``async def``: it is run by the network, and so are hypothesis' examples of one.
This works with pytest-twisted, whose own tests (those marked by it) are left to it, and without.

Options: ``--network=memory|loopback``; ``--network-seed=N`` leaves to chance what a real network does, by that seed,
and ``--network-seed=random`` by a new one each time. A test that fails shows its seed and what happened on its
network.
"""

from __future__ import annotations

import argparse
import inspect
import random
from collections.abc import Callable, Collection, Coroutine, Generator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from twisted_net.testing.loopback import LoopbackNetwork
    from twisted_net.testing.network import MemoryNetwork
    from twisted_net.testing.peers import Peer
    from twisted_net.testing.scene import Scene, Served

GROUNDS: Final = ("memory", "loopback")

_MARK_OPTIONS: Final = ("transport", "leaks")

#: The network of the test that runs, and whether it has raised something (a skip is no failure, but no end either).
_NETWORK: Final = pytest.StashKey[Any]()
_RAISED: Final = pytest.StashKey[bool]()


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
    """Run a test once on each network that it is marked for."""
    marker = metafunc.definition.get_closest_marker("network")
    if marker is not None and marker.args and "network" in metafunc.fixturenames:
        metafunc.parametrize("network", marker.args, indirect=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Look at what the marks say, before any test runs."""
    for item in items:
        marker = item.get_closest_marker("network")
        complaint = None if marker is None else _complaint(marker, getattr(item, "fixturenames", ()))
        if complaint is not None:
            raise pytest.UsageError(f"{item.nodeid}: {complaint}")


def _complaint(marker: pytest.Mark, fixtures: Collection[str]) -> str | None:
    for ground in marker.args:
        if ground not in GROUNDS:
            return f"network({ground!r}): there is no such network; one of {', '.join(map(repr, GROUNDS))}"
        if ground != "memory" and "memoryNetwork" in fixtures:
            return (
                f"network({ground!r}): the test, or a fixture of its, uses memoryNetwork, which is always in memory; "
                "use network instead"
            )
    for name, value in marker.kwargs.items():
        if name not in _MARK_OPTIONS:
            return f"network({name}={value!r}): there is no such option; one of {', '.join(_MARK_OPTIONS)}"
    reason = marker.kwargs.get("leaks", "none is left")
    if not (isinstance(reason, str) and reason):
        return f'network(leaks={reason!r}): say why the test may leave something behind: leaks="the reason"'
    return None


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run ``async def`` tests that use a network on it, and others outside of the reactor that they may run."""
    network = pyfuncitem.stash.get(_NETWORK, None)
    test = pyfuncitem.obj
    if network is None or hasattr(test, "_pytest_twisted_mark"):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    if inspect.iscoroutinefunction(test):
        network.run(lambda: test(**arguments))
        return True
    with _examplesOn(network, test):
        result = test(**arguments)
    if result is not None:
        pytest.fail(
            f"{pyfuncitem.name} has returned {result!r}, and nobody waits for it: make the test `async def`, and await",
            pytrace=False,
        )
    return True


@contextmanager
def _examplesOn(network: Any, test: Any) -> Iterator[None]:
    """Let hypothesis, when *test* is its, run the examples of an ``async def`` test on *network*."""
    handle = getattr(test, "hypothesis", None)
    if handle is None or not inspect.iscoroutinefunction(handle.inner_test):
        yield
        return
    example = handle.inner_test
    handle.inner_test = lambda *args, **kwargs: network.run(lambda: example(*args, **kwargs))
    try:
        yield
    finally:
        handle.inner_test = example


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show what happened on the network of a test that has failed."""
    report = yield
    network = item.stash.get(_NETWORK, None)
    if network is not None and call.excinfo is not None:
        item.stash[_RAISED] = True
        if report.failed and network.inMemory:
            report.sections.append((_title(network.choices.seed), network.story()))
    return report


def _title(seed: int | None) -> str:
    return "network" if seed is None else f"network: the same again with --network-seed={seed}"


@pytest.fixture
def network(request: pytest.FixtureRequest) -> Iterator[MemoryNetwork | LoopbackNetwork]:
    """The network that the test is marked for; it must leave nothing open there."""
    ground = getattr(request, "param", None) or request.config.getoption("--network")
    if "memoryNetwork" in request.fixturenames or ground == "memory":
        yield request.getfixturevalue("memoryNetwork")
        return
    from twisted_net.testing.loopback import LoopbackNetwork

    yield from _kept(request, LoopbackNetwork())


@pytest.fixture
def memoryNetwork(request: pytest.FixtureRequest) -> Iterator[MemoryNetwork]:
    """A network in memory; the test must leave nothing open there."""
    from twisted_net.testing.network import MemoryNetwork

    seed = request.config.getoption("--network-seed")
    yield from _kept(request, MemoryNetwork(random.randrange(2**32) if seed == "random" else seed))


def _kept(request: pytest.FixtureRequest, network: Any) -> Iterator[Any]:
    stash = request.node.stash
    stash[_NETWORK], stash[_RAISED] = network, False
    yield network
    del stash[_NETWORK]
    if stash[_RAISED] or _option(request, "leaks") is not None:
        network.shut()  # what a test leaves behind that did not come to its end says nothing more
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
    network.run(scene.ends)


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
    if text == "random":
        return text
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no seed; give a whole number, or random") from None
