"""Lifecycle: what holds for every state and every input, and along every walk from one to the next."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twisted_net.sansio.lifecycle import Input, LifecycleError, State, step

FROM_OUTSIDE = {Input.PEER_END, Input.LOST, Input.DROP}
EVERY = [(state, happened) for state in State for happened in Input]
INPUTS = st.lists(st.sampled_from(list(Input)), max_size=30)


def after(*inputs: Input, state: State = State.IDLE) -> State:
    for happened in inputs:
        state = step(state, happened)
    return state


def possible(state: State, happened: Input) -> bool:
    try:
        step(state, happened)
    except LifecycleError:
        return False
    return True


def walk(inputs: list[Input]) -> list[tuple[State, Input, State]]:
    """The steps that are possible, from a new connection on."""
    state, steps = State.IDLE, []
    for happened in inputs:
        if possible(state, happened):
            steps.append((state, happened, step(state, happened)))
            state = steps[-1][2]
    return steps


@pytest.mark.parametrize(
    ("inputs", "state", "readyState"),
    [
        ((), State.IDLE, "closed"),
        ((Input.DIAL,), State.DIALLING, "opening"),
        ((Input.DIAL, Input.END), State.DIALLING_TO_END, "opening"),
        ((Input.DIAL, Input.FAILED), State.CLOSED, "closed"),
        ((Input.DIAL, Input.END, Input.FAILED), State.CLOSED, "closed"),
        ((Input.DIAL, Input.DROP), State.DROPPED, "closed"),
        ((Input.DIAL, Input.DROP, Input.MADE), State.DROPPED, "closed"),
        ((Input.DIAL, Input.DROP, Input.FAILED), State.CLOSED, "closed"),
        ((Input.DIAL, Input.END, Input.MADE), State.ENDING, "readOnly"),
        ((Input.DIAL, Input.MADE), State.OPEN, "open"),
        ((Input.MADE,), State.OPEN, "open"),
        ((Input.FAILED,), State.CLOSED, "closed"),
        ((Input.MADE, Input.END), State.ENDING, "readOnly"),
        ((Input.MADE, Input.END, Input.END_SENT), State.READ_ONLY, "readOnly"),
        ((Input.MADE, Input.END, Input.END_SENT, Input.PEER_END), State.ENDED, "closed"),
        ((Input.MADE, Input.END, Input.PEER_END), State.LAST_WORDS, "closed"),
        ((Input.MADE, Input.END, Input.PEER_END, Input.END_SENT), State.ENDED, "closed"),
        ((Input.MADE, Input.PEER_END), State.WRITE_ONLY, "writeOnly"),
        ((Input.MADE, Input.PEER_END, Input.END), State.LAST_WORDS, "closed"),
        ((Input.MADE, Input.PEER_END, Input.END, Input.END_SENT), State.ENDED, "closed"),
        ((Input.MADE, Input.PEER_END, Input.END, Input.END_SENT, Input.LOST), State.CLOSED, "closed"),
        ((Input.MADE, Input.END, Input.DROP, Input.END_SENT), State.DROPPED, "closed"),
        ((Input.MADE, Input.DROP, Input.LOST, Input.DIAL), State.DIALLING, "opening"),
    ],
)
def test_roads(inputs: tuple[Input, ...], state: State, readyState: str) -> None:
    assert after(*inputs) is state
    assert state.readyState == readyState


@pytest.mark.parametrize(("state", "happened"), EVERY)
def test_everyInputInEveryState(state: State, happened: Input) -> None:
    if not possible(state, happened):
        # Only our own code can be wrong, and the text says what it did.
        assert happened not in FROM_OUTSIDE
        with pytest.raises(LifecycleError, match=f"{happened.value}.*{state.label}"):
            step(state, happened)
        return
    following = step(state, happened)
    if happened is Input.LOST:
        assert following is State.CLOSED
    elif happened is Input.DROP:
        assert following is (state if state in (State.IDLE, State.CLOSED) else State.DROPPED)
    elif happened is Input.PEER_END:
        assert following.canWrite is state.canWrite
        assert not following.canRead
    elif happened is Input.END:
        assert state.canWrite
        assert not following.canWrite
        assert following.canRead is state.canRead
    elif happened is Input.END_SENT:
        assert not following.canWrite
        assert following.canRead is state.canRead


@pytest.mark.parametrize("state", list(State))
def test_endIsPossibleExactlyWhileWritingIs(state: State) -> None:
    assert possible(state, Input.END) is state.canWrite


@pytest.mark.parametrize("state", list(State))
def test_readyStateSaysWhatTheBitsSay(state: State) -> None:
    if state.readyState == "opening":
        assert not state.canRead
    else:
        assert (
            state.readyState
            == {
                (True, True): "open",
                (True, False): "readOnly",
                (False, True): "writeOnly",
                (False, False): "closed",
            }[state.canRead, state.canWrite]
        )


def test_statesAndInputsHaveNamesOfTheirOwn() -> None:
    assert len({state.label for state in State}) == len(State)
    assert len({happened.value for happened in Input}) == len(Input)


def test_everyStateIsReached() -> None:
    reached, edge = {State.IDLE}, [State.IDLE]
    while edge:
        state = edge.pop()
        for happened in Input:
            if possible(state, happened) and step(state, happened) not in reached:
                edge.append(step(state, happened))
                reached.add(edge[-1])
    assert reached == set(State)


@given(INPUTS)
def test_whatIsOverStaysOver(inputs: list[Input]) -> None:
    readable = writable = True
    for state, happened, following in walk(inputs):
        if happened is Input.DIAL:
            readable = writable = True
        readable = readable and not (state.canRead and not following.canRead)
        writable = writable and not (state.canWrite and not following.canWrite)
        assert readable or not following.canRead
        assert writable or not following.canWrite


@given(INPUTS)
def test_afterADropOnlyTheTransportIsWaitedFor(inputs: list[Input]) -> None:
    for state, happened, following in walk(inputs):
        if state is State.DROPPED:
            assert following is (State.CLOSED if happened in (Input.LOST, Input.FAILED) else State.DROPPED)


@given(INPUTS)
def test_nothingButDialLeavesClosed(inputs: list[Input]) -> None:
    for state, happened, following in walk(inputs):
        if state is State.CLOSED and following is not State.CLOSED:
            assert happened is Input.DIAL
            assert following is State.DIALLING


@given(INPUTS, st.permutations([Input.PEER_END, Input.LOST, Input.DROP]))
def test_theOutsideWorldNeedsNoPermission(inputs: list[Input], others: list[Input]) -> None:
    state = ([State.IDLE] + [following for _, _, following in walk(inputs)])[-1]
    assert not after(*others, state=state).canRead


@given(st.permutations([Input.END, Input.END_SENT, Input.PEER_END]))
def test_bothEndsInEveryOrder(order: list[Input]) -> None:
    if order.index(Input.END) > order.index(Input.END_SENT):
        order.remove(Input.END_SENT)
        order.append(Input.END_SENT)
    assert after(Input.MADE, *order) is State.ENDED
