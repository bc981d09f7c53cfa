import subprocess
import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from openrpt.rl.completions import extract_prediction, split_thought
from tests.helpers.examples import BOX


@pytest.mark.parametrize(("completion", "prediction"), BOX)
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
