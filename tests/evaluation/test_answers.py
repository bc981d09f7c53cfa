"""Final answers: how they are read out of a completion, and when they are right."""

import pytest

from openrpt.config.loading import load_config
from openrpt.data.questions import Question
from openrpt.errors import UserError
from openrpt.evaluation.questions.checks import (
    MathChecker,
    check_kind,
    checker_of,
    extract_answer,
    normalised,
)
from tests.helpers.math_pairs import RIGHT, WRONG


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
    with MathChecker(seconds=60.0) as checker:  # however busy the machine
        yield checker


@pytest.mark.parametrize(("answer", "truth"), RIGHT)
def test_the_same_by_meaning(check, answer, truth):
    assert check(answer, truth)


@pytest.mark.parametrize(("answer", "truth"), WRONG)
def test_not_the_same(check, answer, truth, capfd):
    assert not check(answer, truth)
    assert capfd.readouterr() == ("", "")


STRANGE = [
    "",
    "\\",
    "\\text{",
    "\0\n",
    "\ud800",
    "‹",
    "›5‹",
    "_",
    "1_",
    "10_{x}",
    "|",
    "%",
    "0^0",
    "1/0",
    "\\frac{0}{0}",
    "\\infty-\\infty",
    "1e99999999",
    "{" * 3000,
    "(" * 99 + ")" * 99,
    "9" * 5000,
    "1." + "3" * 5000,
    "x" * 500,
    "1," * 300,
    "\\pm" * 50,
]


def test_nothing_breaks_the_worker(check):
    """Whatever an answer is, it gets a verdict; no process is lost, which would cost seconds."""
    before = check.given_up
    for answer in STRANGE:
        for truth in ("1/2", r"\text{word}", "(1,2)", r"5\text{ cm}", r"50\%", "x=2", "3.14159265"):
            assert not check(answer, truth)
        assert not check("1/2", answer)
    assert check.given_up == before and check("0.5", "1/2")


def test_an_answer_that_never_ends_is_wrong_and_the_next_is_checked():
    pytest.importorskip("math_verify")
    with MathChecker(seconds=1.0) as check:
        assert not check("9^{9^{9^{9}}}", "7")
        assert not check("9^{9^{9^{9}}}", "7")  # known: not asked again
        assert check.given_up == 1
        check.seconds = 60.0  # the next process
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
    for said, truth in [
        ("18", "18.0"),
        ("+18.", "18"),
        ("0.0000001", "1e-07"),
        ("1e22", "1" + "0" * 22),
    ]:
        assert reward("exact", said.encode(), truth) == 1.0
    for said, truth in [
        ("18.1", "18.0"),
        ("1e-7", "1e-8"),
        ("A", "a"),
        ("nan", "inf"),
        ("1,8", "18"),
    ]:
        assert reward("exact", said.encode(), truth) == 0.0
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


def test_not_a_number_is_near_to_nothing():
    pytest.importorskip("reasoning_gym")
    config = load_config(overrides={"questions.path": "reasoning-gym:complex_arithmetic"})
    check = checker_of(config, None)
    asked = question(
        "2.0 - 1.0i",
        task="complex_arithmetic",
        entry={"answer": "2.0 - 1.0i", "metadata": {"result": [2, -1]}},
    )
    assert check(asked, b"2 - 1i") == 1.0
    assert [check(asked, said) for said in (b"nan", b"NaN + 1i", b"nan+nanj")] == [0.0] * 3
