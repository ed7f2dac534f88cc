"""Installing: for programs, which have one reactor each."""

from __future__ import annotations

import pytest
from uvreactor.uvworld import ran


def test_install() -> None:
    program = """
        print(type(reactor).__name__, type(reactor._asyncioEventloop).__module__)
        import asyncio
        async def main():
            assert asyncio.get_running_loop() is reactor._asyncioEventloop
            await asyncio.sleep(0)
            print("asyncio's code runs, too")
            reactor.stop()
        reactor.callWhenRunning(lambda: asyncio.ensure_future(main(), loop=reactor._asyncioEventloop))
        reactor.run()
        assert asyncio.get_event_loop_policy().get_event_loop() is reactor._asyncioEventloop
    """
    assert ran(program) == "UvloopReactor uvloop\nasyncio's code runs, too\n"


def test_onALoopThatIsGiven() -> None:
    program = """
        import asyncio, uvloop
        from twisted_net import uvreactor
        loop = uvloop.new_event_loop()
        uvreactor.install(loop)
        from twisted.internet import reactor
        assert reactor._asyncioEventloop is loop
        reactor.callLater(0, reactor.stop)
        reactor.run()
        print("done")
    """
    assert ran(program, installed=False) == "done\n"


def test_byItsName() -> None:
    program = """
        from twisted.application.reactors import getReactorTypes, installReactor
        installReactor("uvloop")
        from twisted.internet import reactor
        print(type(reactor).__name__, [one.moduleName for one in getReactorTypes() if one.shortName == "uvloop"])
    """
    assert ran(program, installed=False) == "UvloopReactor ['twisted_net.uvreactor']\n"


def test_withoutUvloop() -> None:
    program = """
        import sys
        sys.modules["uvloop"] = None
        from twisted_net import uvreactor
        try:
            uvreactor.install()
        except ImportError as error:
            print(error.name, error, error.__cause__, error.__suppress_context__, sep=", ")
        assert "twisted.internet.reactor" not in sys.modules
        from twisted.internet import reactor
        print(type(reactor).__name__)
    """
    said, reactor = ran(program, installed=False).splitlines()
    assert said == "uvloop, uvloop is not installed: pip install 'twisted-net[uvloop]', None, True"
    assert reactor != "UvloopReactor"


@pytest.mark.parametrize("missing", ["twisted.internet.asyncioreactor", "twisted_net.uvreactor.stream"])
def test_withoutSomethingElse(missing: str) -> None:
    program = f"""
        import sys
        sys.modules["{missing}"] = None
        from twisted_net import uvreactor
        try:
            uvreactor.install()
        except ImportError as error:
            print(error.name)
    """
    assert ran(program, installed=False) == f"{missing}\n"


def test_thereIsOneAlready() -> None:
    program = """
        from twisted.internet import reactor, error
        from twisted_net import uvreactor
        try:
            uvreactor.install()
        except error.ReactorAlreadyInstalledError as caught:
            print("there is one")
        from twisted.internet import reactor as after
        assert after is reactor
    """
    assert ran(program, installed=False) == "there is one\n"


def test_nothingIsInstalledByAnImport() -> None:
    program = """
        import sys
        from twisted_net import uvreactor
        assert "uvloop" not in sys.modules
        import twisted_net.uvreactor.reactor
        assert "twisted.internet.reactor" not in sys.modules
        print("nothing")
    """
    assert ran(program, installed=False) == "nothing\n"
