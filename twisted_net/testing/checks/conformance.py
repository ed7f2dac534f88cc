"""What a check is: cases, each a sentence and a coroutine, and what they say of a subject.

A case is an ``async def`` that takes a `Subject`; its docstring is one sentence, the rule with its source.  It is
registered by the check of its file::

    checkStream = Check("stream")

    @checkStream.case("reset")
    async def anAbortReachesThePeerAsReset(subject: Subject) -> None:
        \"""What ``abortConnection`` ends, the peer sees as reset (RFC 9293, 3.5.2).\"""

The words are the features that a subject must have for this case (see `FEATURES`).  A subject that lacks one is not
judged by it, and `Verdict.leftOut` says so.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from twisted_net.errors import OptionError
from twisted_net.testing.checks.subject import Subject, featuresOf

Scene = Callable[[Subject], Awaitable[None]]


class ConformanceError(AssertionError):
    """A subject does not keep rules that it should; its text lists each with the cause."""

    def __init__(self, subject: Subject, failures: Iterable[tuple[Case, BaseException]]) -> None:
        #: Each case that failed, with its exception.
        self.failures: Final = tuple(failures)
        lines = [f"{subject} does not keep {len(self.failures)} of the rules:"]
        for case, error in self.failures:
            lines += [f"- {case}: {case.sentence}", f"  {type(error).__name__}: {_indented(str(error))}"]
        super().__init__("\n".join(lines))


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a check has found no fault with."""

    kept: tuple[Case, ...]
    """Cases that were run."""
    leftOut: tuple[Case, ...]
    """Cases that need features which the subject does not claim."""


class Case:
    """One rule and the scene that tries it.  ``await case(subject)`` plays it; ``str(case)`` is its name.

    :ivar sentence: the rule, with its source.
    :ivar needs: the features without which it does not apply.
    """

    def __init__(self, check: str, needs: frozenset[str], scene: Scene) -> None:
        self.name = f"{check}.{scene.__name__}"
        self.sentence = " ".join((scene.__doc__ or "").split())
        self.needs = needs
        self._scene = scene

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"<case {self.name}>"

    def applies(self, subject: Subject) -> bool:
        """Whether *subject* has the features that this needs."""
        return self.needs <= subject.features

    async def __call__(self, subject: Subject) -> None:
        """Play the scene; raises whatever it raises, an ``AssertionError`` where the rule is broken.

        :raises OptionError: when it does not apply.
        """
        if not self.applies(subject):
            missing = ", ".join(sorted(self.needs - subject.features))
            raise OptionError(f"{self} cannot be played on {subject}, which lacks {missing}: ask case.applies(subject)")
        await self._scene(subject)


class Check(Collection[Case]):
    """Some cases that belong together: a collection, and callable with a subject.

    :param name: of the check, and first part of its cases' names.
    :param needs: features that all of its cases need.
    """

    def __init__(self, name: str, *needs: str) -> None:
        self.name = name
        self._needs = featuresOf(needs)
        self._cases: list[Case] = []

    def __iter__(self) -> Iterator[Case]:
        return iter(self._cases)

    def __contains__(self, case: object) -> bool:
        return case in self._cases

    def __len__(self) -> int:
        return len(self._cases)

    def case(self, *needs: str) -> Callable[[Scene], Case]:
        """Decorate a coroutine function: it becomes a case of this check that needs these features too."""

        def register(scene: Scene) -> Case:
            case = Case(self.name, self._needs | featuresOf(needs), scene)
            self._cases.append(case)
            return case

        return register

    async def __call__(self, subject: Subject) -> Verdict:
        """Play all cases that apply, one after the other.

        :raises ConformanceError: naming every case that failed.
        """
        kept, leftOut, failures = [], [], []
        for case in self:
            if not case.applies(subject):
                leftOut.append(case)
                continue
            try:
                await case(subject)
            except Exception as error:
                failures.append((case, error))
            else:
                kept.append(case)
        if failures:
            raise ConformanceError(subject, failures)
        return Verdict(tuple(kept), tuple(leftOut))


def _indented(text: str) -> str:
    return text.replace("\n", "\n  ")
