"""Final answers: how they are read out of a completion, and when they are right."""

import time

import pytest

from openrpt.answers import MathChecker, check_kind, checker_of, extract_answer, normalised
from openrpt.config import load_config
from openrpt.errors import UserError
from openrpt.questions import Question


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        (rb"hm</think>\boxed{5}", b"5"),
        (rb"\boxed{4}</think> so \boxed{ 5 }.", b"5"),
        (rb"\boxed{4}</think> none", None),  # a thought's box is not the answer
        (rb"1 + 4, so \boxed{5}.", b"5"),  # the turn ended inside the thought
        (rb"</think>\boxed{4} or \boxed{\frac{1}{2}}, as {x}", rb"\frac{1}{2}"),
        (rb"</think>\boxed{\{1,2\}}", rb"\{1,2\}"),
        (rb"</think>\boxed{\left\{x\right.}", rb"\left\{x\right."),
        (rb"</think>\boxed{\boxed{5}}", b"5"),
        (rb"</think>\boxed{5", None),
        (rb"</think>\boxed{ }", None),
        (rb"</think>\boxed{\}", None),
        (b"</think>\\boxed{caf\xc3", None),
        (b"", None),
    ],
)
def test_the_last_box_after_the_thought(completion, answer):
    assert extract_answer(completion) == answer


def test_other_marks_of_an_answer():
    marks = {"opening": b"<answer>", "closing": b"</answer>"}
    assert extract_answer(rb"a</think><answer>{5</answer>\boxed{6}", **marks) == b"{5"
    assert extract_answer(rb"a</think><answer>5", **marks) is None


def test_what_does_not_change_an_answer():
    assert normalised(r" $\text{Paris,  France}.$ ") == "Paris, France"
    assert normalised("1.5") == "1.5" and normalised("A") != normalised("a")


@pytest.fixture(scope="module")
def check():
    pytest.importorskip("math_verify")
    with MathChecker(seconds=3.0) as checker:
        yield checker


EQUAL = [
    ("0.5", "1/2"),
    (r"\frac{1}{2}", "1/2"),
    (r"\dfrac12", "0.5"),
    ("1,234", "1234"),
    ("x = 5", "5"),
    (r"2\sqrt{3}", r"\sqrt{12}"),
    (r"\{2,1\}", r"\{1,2\}"),
    ("(x+1)^2", "x^2+2x+1"),
    (r"\text{blue}", "blue"),
    ("???", "???"),
]
UNEQUAL = [
    ("0.51", "1/2"),
    ("y = 5", "x = 5"),
    ("(2,1)", "(1,2)"),
    ("3 or 4", "3"),
    ("lube", "blue"),  # no product of letters
    (r"\text{lube}", r"\text{blue}"),
    (r"\frac{1}{", "1"),  # unparsable
    ("???", "1"),
    ("1", "???"),
    ("__import__('os').getpid()", "1"),
    ("{" * 3000, "1"),
]


@pytest.mark.parametrize(("answer", "truth"), EQUAL)
def test_the_same_by_meaning(check, answer, truth):
    assert check(answer, truth)


@pytest.mark.parametrize(("answer", "truth"), UNEQUAL)
def test_not_the_same(check, answer, truth, capfd):
    assert not check(answer, truth)
    assert capfd.readouterr() == ("", "")


def test_an_answer_that_never_ends_is_wrong_and_the_next_is_checked(check):
    before, started = check.given_up, time.monotonic()
    assert not check("9^{9^{9^{9}}}", "7")
    assert not check("9^{9^{9^{9}}}", "7")  # known: not asked again
    assert check.given_up == before + 1
    assert time.monotonic() - started < 30
    assert check("0.5", "1/2")


def question(answer: str, **values) -> Question:
    return Question(
        question_id="q", text="?", answer=answer, split="train", source="test", **values
    )


def test_checks_by_configuration(check):
    def reward(kind: str, answer: bytes | None, truth: str) -> float:
        config = load_config(overrides={"answers.check": kind, "questions.path": "questions.jsonl"})
        return checker_of(config, check)(question(truth), answer)

    assert reward("auto", b"0.5", "1/2") == reward("math", b"0.5", "1/2") == 1.0
    assert reward("exact", b"0.5", "1/2") == 0.0 and reward("exact", b" $1/2$ ", "1/2") == 1.0
    assert reward("math", None, "1/2") == 0.0
    assert reward("math", b"\xff", "1/2") == 0.0
    with pytest.raises(UserError, match=r"questions\.jsonl' is none of its tasks"):
        reward("reasoning_gym", b"1", "1")


def test_reasoning_gym_scores_its_own():
    pytest.importorskip("reasoning_gym")
    config = load_config(overrides={"questions.path": "reasoning-gym:chain_sum"})
    assert check_kind(config) == "reasoning_gym"
    asked = question("1000", task="chain_sum", entry={"answer": "1000"})
    check = checker_of(config, None)
    assert check(asked, b"+01,000.0") == 1.0 and check(asked, b"999") == 0.0
    assert 0 < check(asked, b"is 1000") < 1  # partial credit
