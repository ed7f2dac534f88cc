"""How the manual is built: ``tox -e docs``. Nothing here needs the network."""

from __future__ import annotations

import builtins
import sys
from configparser import ConfigParser
from importlib import import_module
from inspect import cleandoc
from pathlib import Path
from textwrap import indent

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from zope.interface.interface import InterfaceClass, Method

_setup = ConfigParser()
_setup.read(Path(__file__).parent.parent / "setup.cfg")

project = "twisted_net"
author = "the twisted_net authors"
copyright = author
release = version = _setup["metadata"]["version"]

extensions = ["sphinx.ext.autodoc", "sphinx.ext.doctest"]
exclude_patterns = ["_build"]
html_theme = "alabaster"
html_show_sphinx = False

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_mock_imports = ["pytest", "uvloop"]  # the pages of what needs them have words of ours alone
python_use_unqualified_type_names = True

# Examples that need a reactor call ``run(main)``: what twisted.internet.task.react does, without ending the process.
doctest_global_setup = """
from twisted.internet import reactor
from twisted.internet.defer import Deferred

def run(main):
    if not reactor.running:
        reactor.startRunning(installSignalHandlers=False)
    ended = []
    example = Deferred.fromCoroutine(main())
    example.addTimeout(20, reactor)
    example.addBoth(ended.append)
    while not ended:
        reactor.iterate(0.1)
    if ended[0] is not None:
        ended[0].raiseException()
    left = [call for call in reactor.getDelayedCalls() if call.active()]
    assert not left, f"the example leaves {left} behind"
"""

# Every reference must lead somewhere, except to what others document (an inventory of theirs would have to be fetched),
# to interfaces of zope's where autodoc takes them for values, and to private names, type variables and the names that
# only a type checker imports in signatures.
_foreign = {"twisted", "zope", "OpenSSL", *sys.stdlib_module_names}
nitpick_ignore_regex = [
    ("py:.*", rf"({'|'.join(sorted(_foreign))})(\..*)?"),
    ("py:.*", r".*<InterfaceClass .*"),
    ("py:.*", r"twisted_net\.(.*\.)?(_\w+|[A-Z])"),
    ("py:.*", r"Lane|IProtocolFactory|GuardedSocket|Stream\._\w+"),
    ("py:.*", rf"({'|'.join(sorted(name for name in dir(builtins) if name.isidentifier()))})([.[].*)?"),
]


class Interface(SphinxDirective):
    """``.. zopeinterface:: module.Name``: an interface with its methods, which autodoc passes over as plain values."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        module, _, name = self.arguments[0].rpartition(".")
        interface: InterfaceClass = getattr(import_module(module), name)
        parts = [cleandoc(interface.getDoc())]
        for member, described in interface.namesAndDescriptions():
            method = isinstance(described, Method)
            head = f"method:: {member}{described.getSignatureString()}" if method else f"attribute:: {member}"
            parts.append(f".. py:{head}\n\n{indent(cleandoc(described.getDoc()), '   ')}")
        text = f".. py:class:: {name}\n   :module: {module}\n\n" + indent("\n\n".join(parts), "   ")
        return self.parse_text_to_nodes(text)


def setup(app: Sphinx) -> None:
    app.add_directive("zopeinterface", Interface)
