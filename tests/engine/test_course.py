"""The course of a completion against one rollout at a time in plain Python; no model."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from openrpt.engine.course import Course, Rules

Outcome = tuple[list[int], list[bool], bool]
"""Token ids, which of them were drawn, and whether the completion stopped by itself."""

STOP, END, CLOSE = 9, (3, 4), (3, 4, 7)


def rules_of(
    think: int,
    predict: int,
    *,
    close: tuple[int, ...] = CLOSE,
    end: tuple[int, ...] = END,
    stops: tuple[int, ...] = (STOP,),
    box_tokens: int = 1,
) -> Rules:
    return Rules(
        close=torch.tensor(close, dtype=torch.long),
        end=torch.tensor(end),
        stops=torch.tensor(stops, dtype=torch.long),
        think_budget=think,
        prediction_budget=predict,
        box_tokens=box_tokens,
    )


def oracle(rules: Rules, drawn: list[int], said: int | None = None) -> Outcome:
    """One rollout, the draw of token t is drawn[t]; it also stops behind the token `said`, once
    that is said after the thought."""
    close, end, stops = rules.close.tolist(), rules.end.tolist(), rules.stops.tolist()
    ids: list[int] = []
    free: list[bool] = []

    def draw() -> int:
        ids.append(drawn[len(ids)])
        free.append(True)
        return ids[-1]

    room, closed = rules.prediction_budget, rules.think_budget == 0
    while not closed and len(ids) < rules.think_budget:
        if draw() in stops:
            return ids, free, True
        if ids[-len(end) :] == end:
            room, closed = room + rules.box_tokens, True
    if not closed:
        ids += close
        free += [False] * len(close)
    for _ in range(room):
        token = draw()
        if token in stops or token == said:
            return ids, free, True
    return ids, free, False


def outcomes(
    rules: Rules, draws: list[list[int]], *, said: int | None = None, at_once: bool
) -> list[Outcome]:
    """All rollouts together by `Course`; `at_once`: the close as one piece, where it can be."""
    table = torch.tensor(draws)
    count = len(draws)
    found: list[Outcome] = [([], [], False) for _ in draws]
    course = Course.begin(rules, keys=torch.arange(count), row_of=torch.zeros(count).long())
    while len(course.alive):
        ids = course.next_ids(table[course.alive, course.token])
        reached = None if said is None else course.predicting & (ids == said)
        after = course.after(ids, reached=reached)
        columns = (course.alive, ids, course.free, after.stopped)
        for r, token, is_free, stopped in zip(*(c.tolist() for c in columns), strict=True):
            found[r] = ([*found[r][0], token], [*found[r][1], is_free], stopped)
        course = after.going_on()
        assert course.keys.tolist() == course.alive.tolist()  # all are compacted alike
        if at_once and len(course.alive) and course.at_close:
            close = rules.close.tolist()
            for r in course.alive.tolist():
                ids_so_far, mask, _ = found[r]
                found[r] = (ids_so_far + close, mask + [False] * len(close), False)
            course = course.past_close()
    return found


tokens = st.sampled_from([1, 3, 4, 7, STOP])


@st.composite
def cases(draw: st.DrawFn) -> tuple[Rules, list[list[int]], int | None]:
    rules = rules_of(
        draw(st.integers(0, 5)),
        draw(st.integers(1, 3)),
        close=draw(st.sampled_from([(), (4,), CLOSE, (3, STOP)])),
        end=draw(st.sampled_from([(4,), END, (3, 3, 4)])),
        stops=draw(st.sampled_from([(), (STOP,), (STOP, 7)])),
        box_tokens=draw(st.integers(0, 2)),
    )
    length = rules.think_budget + len(rules.close) + rules.prediction_budget + rules.box_tokens
    rows = st.lists(tokens, min_size=length, max_size=length)
    return rules, draw(st.lists(rows, min_size=1, max_size=5)), draw(st.sampled_from([None, 1]))


@settings(max_examples=300, deadline=None)
@given(cases())
def test_the_course_is_that_of_each_rollout_alone(case) -> None:
    rules, draws, said = case
    expected = [oracle(rules, row, said) for row in draws]
    assert outcomes(rules, draws, said=said, at_once=False) == expected
    assert outcomes(rules, draws, said=said, at_once=True) == expected


def test_what_each_way_through_comes_to() -> None:
    """A thought of 3 tokens at most, a prediction of 2; its own end gives one token more."""
    rules = rules_of(3, 2)
    draws = [
        [1, 1, 1, 0, 0, 0, 1, 1],  # budget spent: the close is forced
        [1, 3, 4, 7, 1, 1, 0, 0],  # its own end with the last token of the budget
        [3, 4, 7, 1, STOP, 0, 0, 0],  # its own end, then a stop
        [1, STOP, 0, 0, 0, 0, 0, 0],  # a stop inside the thought
        [1, 1, STOP, 0, 0, 0, 0, 0],  # a stop where the close would be forced
    ]
    free = [True] * 5
    assert outcomes(rules, draws, at_once=True) == [
        ([1, 1, 1, *CLOSE, 1, 1], [True] * 3 + [False] * 3 + [True] * 2, False),
        ([1, 3, 4, 7, 1, 1], [True] * 6, False),
        ([3, 4, 7, 1, STOP], free, True),
        ([1, STOP], free[:2], True),
        ([1, 1, STOP], free[:3], True),
    ]


def test_an_empty_close_forces_nothing() -> None:
    rules = rules_of(2, 2, close=())
    draws = [[1, 1, 7, 7, 0], [3, 4, 7, 1, 1]]  # the second ends its thought itself
    assert outcomes(rules, draws, at_once=True) == [
        ([1, 1, 7, 7], [True] * 4, False),
        ([3, 4, 7, 1, 1], [True] * 5, False),
    ]


def test_a_forced_stop_token_does_not_end_the_completion() -> None:
    rules = rules_of(1, 1, close=(STOP, 7))
    for at_once in (False, True):
        (found,) = outcomes(rules, [[1, 0, 0, 1]], at_once=at_once)
        assert found == ([1, STOP, 7, 1], [True, False, False, True], False)


def test_what_a_rollout_has_said_stays_its_own_when_others_end() -> None:
    draws = [[STOP, 0, 0, 0, 0], [3, 4, 7, 1, 1]]
    assert outcomes(rules_of(3, 2), draws, at_once=True) == [
        ([STOP], [True], True),
        ([3, 4, 7, 1, 1], [True] * 5, False),
    ]
