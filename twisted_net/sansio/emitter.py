"""
Named events and those who listen to them, in the manner of Node's ``EventEmitter``.

**What is promised.** Listeners run in the order in which they were registered (a prepended one runs first). The list
is frozen while an event runs: who is added or removed by a listener is heard, or no longer heard, from the *next*
event on. The same listener may be registered several times and then runs as often; :meth:`Emitter.off` takes away
one, the newest. A listener registered with :meth:`Emitter.once` is gone before it runs, hence runs once even if it
emits its own event.

**A listener that raises** does not rob the others of the event. Node lets the exception fly at once, and whether the
second listener hears an event then depends on the first. Here all of them run; what failed goes to
:meth:`Emitter.listenerFailed`, which raises unless a subclass knows better.

**An 'error' that nobody listens to** is never lost: :meth:`Emitter.errorUnheard` logs it. (Node ends the process.)

**How it is kept.** There may be tens of thousands of emitters, most of them idle and few with more than one listener
per event, and events come as often as segments do. So the table is created with the first listener and dropped with
the last one, and an event with a single plain listener holds that callable itself; several, and those that run only
once, sit in an immutable tuple. Changing listeners builds a new tuple, which is what freezes the list for a running
event without copying anything when events come. Nothing in the table refers back to the emitter, so that an emitter
that goes away leaves no cycle to the garbage collector.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Self, TypeAlias, TypeVar, final, overload

from twisted_net.errors import NetError

Listener: TypeAlias = Callable[..., object]
_L = TypeVar("_L", bound=Listener)

_log = logging.getLogger("twisted_net")


class _Once:
    """A listener that hears one event, with the mark that it has heard it (events may nest)."""

    __slots__ = ("listener", "spent")

    def __init__(self, listener: Listener) -> None:
        self.listener = listener
        self.spent = False


@final
class _Several(tuple[Listener | _Once, ...]):
    """What an event holds unless it is one plain listener. A type of its own, because a user's callable may be any."""

    __slots__ = ()


class Emitter:
    """
    An object with events. Events are named by any text; a name nobody emits is no mistake.

    Meant to be inherited from: a subclass says by :meth:`listenersChanged`, :meth:`listenerFailed` and
    :meth:`errorUnheard` what shall happen then.
    """

    __slots__ = ("_listeners",)

    def __init__(self) -> None:
        self._listeners: dict[str, Listener | _Several] | None = None

    # -- listening

    @overload
    def on(self, event: str, listener: None = None) -> Callable[[_L], _L]: ...
    @overload
    def on(self, event: str, listener: Listener) -> Self: ...
    def on(self, event: str, listener: Listener | None = None) -> Self | Callable[[_L], _L]:
        """
        Call ``listener`` with the arguments of every ``event`` from now on, after those that listen already.

        :returns: the emitter, so that calls can be chained. Without a listener: a decorator for one, which leaves
            the function as it is.
        :raises TypeError: when the listener cannot be called, or the event is not a text.
        """
        return self._register(event, listener, once=False, first=False)

    addListener = on

    @overload
    def once(self, event: str, listener: None = None) -> Callable[[_L], _L]: ...
    @overload
    def once(self, event: str, listener: Listener) -> Self: ...
    def once(self, event: str, listener: Listener | None = None) -> Self | Callable[[_L], _L]:
        """As :meth:`on`, for the next ``event`` only."""
        return self._register(event, listener, once=True, first=False)

    @overload
    def prependListener(self, event: str, listener: None = None) -> Callable[[_L], _L]: ...
    @overload
    def prependListener(self, event: str, listener: Listener) -> Self: ...
    def prependListener(self, event: str, listener: Listener | None = None) -> Self | Callable[[_L], _L]:
        """As :meth:`on`, but before those that listen already."""
        return self._register(event, listener, once=False, first=True)

    @overload
    def prependOnceListener(self, event: str, listener: None = None) -> Callable[[_L], _L]: ...
    @overload
    def prependOnceListener(self, event: str, listener: Listener) -> Self: ...
    def prependOnceListener(self, event: str, listener: Listener | None = None) -> Self | Callable[[_L], _L]:
        """As :meth:`once`, but before those that listen already."""
        return self._register(event, listener, once=True, first=True)

    def off(self, event: str, listener: Listener) -> Self:
        """
        Take ``listener`` away, once: the newest of several registrations. One that does not listen is no mistake.

        Listeners are compared with ``==``, so a bound method is found although Python makes a new one each time.
        """
        entries = self._entries(event)
        for index in reversed(range(len(entries))):
            entry = entries[index]
            if (entry.listener if isinstance(entry, _Once) else entry) == listener:
                self._set(event, entries[:index] + entries[index + 1 :])
                break
        return self

    removeListener = off

    def removeAllListeners(self, event: str | None = None) -> Self:
        """Take away all listeners of ``event``, or of every event. An event that is running still reaches them."""
        gone = self.eventNames() if event is None else [event] if self.listenerCount(event) else []
        for name in gone:
            self._set(name, ())
        return self

    # -- asking

    def listenerCount(self, event: str) -> int:
        """How many times ``event`` is listened to."""
        return len(self._entries(event))

    def listeners(self, event: str) -> list[Listener]:
        """Those who listen to ``event``, in the order in which they will run, as they were handed in; a copy."""
        return [entry.listener if isinstance(entry, _Once) else entry for entry in self._entries(event)]

    def soleListener(self, event: str) -> Listener | None:
        """
        Return the listener of ``event`` when it is the only one and listens for good, else ``None``.

        Who emits an event very often may then call it directly, for as long as :meth:`listenersChanged` is silent.
        """
        found = None if self._listeners is None else self._listeners.get(event)
        return None if isinstance(found, _Several) else found

    def eventNames(self) -> list[str]:
        """The events that somebody listens to, in the order in which they were first listened to."""
        return list(self._listeners or ())

    # -- emitting

    def emit(self, event: str, *args: object) -> bool:
        """
        Call every listener of ``event`` with ``args``, now and in order.

        An ``'error'`` that nobody hears goes to :meth:`errorUnheard`.

        :returns: whether somebody listened.
        :raises Exception: what :meth:`listenerFailed` raises, after all listeners ran: by default the exception of the
            listener, or an ``ExceptionGroup`` when several failed. A ``BaseException`` (``KeyboardInterrupt``) flies
            at once.
        """
        listeners = self._listeners
        found = None if listeners is None else listeners.get(event)
        if found is None:
            if event == "error":
                self.errorUnheard(_exceptionOf(args))
            return False
        if type(found) is _Several:
            self._emitToSeveral(event, found, args)
            return True
        try:
            found(*args)
        except Exception as error:
            self.listenerFailed(event, error)
        return True

    def _emitToSeveral(self, event: str, entries: _Several, args: tuple[object, ...]) -> None:
        raised: list[Exception] = []
        for entry in entries:
            if isinstance(entry, _Once):
                if entry.spent:  # a listener before it emitted this event too, and it was heard there
                    continue
                entry.spent = True
                self._forget(event, entry)
                listener = entry.listener
            else:
                listener = entry
            try:
                listener(*args)
            except Exception as error:
                try:
                    self.listenerFailed(event, error)
                except Exception as refused:
                    raised.append(refused)
        if raised:
            try:
                if len(raised) == 1:
                    raise raised[0]
                raise ExceptionGroup(f"{len(raised)} listeners of {event!r} failed", raised)
            finally:
                del raised  # the tracebacks hold this frame: without this, a cycle

    # -- for subclasses

    def listenersChanged(self, event: str) -> None:
        """
        Called after listeners of ``event`` were added or removed, also when :meth:`once` used one up (before it runs).

        The place to bind what depends on there being a listener, instead of asking when bytes come. Does nothing.
        """

    def listenerFailed(self, event: str, error: Exception) -> None:
        """
        Called while ``error``, raised by a listener of ``event``, is being handled; the remaining listeners run next.

        The default raises it again; :meth:`emit` holds back whatever is raised here until all listeners ran.
        """
        try:
            raise error
        finally:
            del error  # its traceback holds this frame: without this, a cycle

    def errorUnheard(self, error: BaseException) -> None:
        """
        Called with the ``error`` of an ``'error'`` event that nobody listens to. Logs it to the logger ``twisted_net``.

        An event that carried no exception arrives as a :class:`~twisted_net.errors.NetError` with Node's code
        ``ERR_UNHANDLED_ERROR``.
        """
        _log.error("%r had an error that nobody listens to; add a listener of 'error': %s", self, error, exc_info=error)

    # -- the table

    def _register(self, event: str, listener: Listener | None, *, once: bool, first: bool) -> Self | Callable[[_L], _L]:
        if not isinstance(event, str):
            raise TypeError(f"an event is named by a text, not by {event!r}; write on('name', listener)")
        if listener is None:

            def decorate(function: _L) -> _L:
                self._add(event, function, once=once, first=first)
                return function

            return decorate
        self._add(event, listener, once=once, first=first)
        return self

    def _add(self, event: str, listener: Listener, *, once: bool, first: bool) -> None:
        if not callable(listener):
            raise TypeError(f"a listener of {event!r} must be callable, {listener!r} is not; hand over a function")
        entry = _Once(listener) if once else listener
        before = self._entries(event)
        self._set(event, (entry, *before) if first else (*before, entry))

    def _forget(self, event: str, once: _Once) -> None:
        """Take away a registration that is used up, unless it was taken away while the event ran."""
        entries = self._entries(event)
        rest = tuple([entry for entry in entries if entry is not once])
        if len(rest) < len(entries):
            self._set(event, rest)

    def _entries(self, event: str) -> tuple[Listener | _Once, ...]:
        found = None if self._listeners is None else self._listeners.get(event)
        if found is None:
            return ()
        return found if isinstance(found, _Several) else (found,)

    def _set(self, event: str, entries: tuple[Listener | _Once, ...]) -> None:
        """The one place where the table changes; keeps it as the module says."""
        listeners = self._listeners
        if listeners is None:
            listeners = self._listeners = {}
        if not entries:
            del listeners[event]
            if not listeners:
                self._listeners = None
        elif len(entries) == 1 and not isinstance(entries[0], _Once):
            listeners[event] = entries[0]
        else:
            listeners[event] = _Several(entries)
        self.listenersChanged(event)


def _exceptionOf(args: tuple[object, ...]) -> BaseException:
    """The exception that an 'error' event carries, or one that says that it carried none."""
    if args and isinstance(args[0], BaseException):
        return args[0]
    return NetError(
        f"an 'error' was emitted with {args!r}; its first argument should be an exception",
        code="ERR_UNHANDLED_ERROR",
        fault="user",
    )
