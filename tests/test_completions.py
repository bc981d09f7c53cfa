import subprocess
import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from openrpt.rl.completions import extract_prediction, split_thought


@pytest.mark.parametrize(
    ("completion", "prediction"),
    [
        (rb"</think>\boxed{ the}", b" the"),
        (rb"</think>\boxed{\frac{1}{2}}", rb"\frac{1}{2}"),
        (rb"</think>\boxed{{}", b"{"),
        (rb"</think>\boxed{}}", b"}"),
        (rb"</think>\boxed{\}}", rb"\}"),
        (rb"</think>\boxed{x} is it.", b"x"),
        (rb"</think> \(\boxed{ n}\)", b" n"),
        (rb"\boxed{a}</think>\boxed{b}", b"b"),
        # whitespace: kept inside the box, removed after it
        (b"</think>\\boxed{ the \n}", b" the \n"),
        (b"</think>\\boxed{ the} \r\n\t\v\f", b" the"),
        (b"</think>\\boxed{\xc2\xa0}\xc2\xa0", b"\xc2\xa0"),  # not ASCII: the brace balances
        # the last box after the last delimiter
        (rb"</think>\boxed{a} or rather \boxed{b}", b"b"),
        (rb"</think>\boxed{a}</think>\boxed{b}", b"b"),
        # braces are counted raw where the box does not end the completion
        (rb"</think>\boxed{a{b}c} done", b"a{b}c"),
        (rb"</think>\boxed{\} done", b"\\"),
        (rb"</think>\boxed{x}, not {y}", b"x}, not {y"),  # ends with a brace: to the letter
        # no prediction
        (rb"\boxed{a}", None),
        (rb"\boxed{a}</think>", None),
        (rb"\boxed{a}</think> a", None),
        (rb"</think>\boxed{a}</think>", None),
        (rb"</think>\boxed{ the", None),
        (rb"</think>\boxed{{a} b", None),
        (rb"</think>\boxed{}", None),
        (rb"</think>\boxed{} done", None),
        (rb"</think>\boxed{", None),
        (rb"</think>boxed{a}", None),
        (b"", None),
    ],
)
def test_the_box(completion: bytes, prediction: bytes | None) -> None:
    assert extract_prediction(completion) == prediction


@given(st.binary(min_size=1).filter(lambda p: b"\\boxed{" not in p and b"</think>" not in p))
@example(b"{")
@example(b"}")
@example(b"\\")
@example(b"}{ ")
@example(b"\xf0\x9f")
def test_any_bytes_can_be_predicted(prediction: bytes) -> None:
    assert extract_prediction(b"</think>\\boxed{" + prediction + b"}") == prediction
    assert extract_prediction(b"</think>\\boxed{" + prediction + b"} \n") == prediction


def test_thought_is_all_before_the_last_delimiter() -> None:
    assert split_thought(b"a</think>b</think>\\boxed{c}") == b"a</think>b"
    assert split_thought(b"</think>\\boxed{c}") == b""
    assert split_thought(b"still thinking") == b"still thinking"


def test_another_delimiter() -> None:
    completion = b"a</think>b[/THINK]\\boxed{c}"
    assert extract_prediction(completion, thought_end=b"[/THINK]") == b"c"
    assert split_thought(completion, thought_end=b"[/THINK]") == b"a</think>b"
    assert extract_prediction(b"</think>\\boxed{c}", thought_end=b"[/THINK]") is None


def test_reading_and_rewarding_need_no_torch() -> None:
    code = (
        "import sys, openrpt.rl.completions, openrpt.rl.rewards.matching; "
        "sys.exit(bool({'torch', 'transformers', 'tokenizers'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
