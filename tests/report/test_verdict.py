"""What a report says first, on crafted records."""

from typing import Any

import numpy as np
import pytest

from openrpt.config.prompt import PromptConfig
from openrpt.data.token_classes import TOKEN_CLASSES
from openrpt.evaluation.next_token.results import EvaluationResult, PositionResult
from openrpt.report.verdict import model_sentences, out_of_range, run_verdict

SEEDED = PromptConfig(candidates=3, candidate_source="policy")
UNSEEDED = PromptConfig(candidates=0)


def entry(
    ntp: np.ndarray,
    reasoning: np.ndarray,
    agrees: np.ndarray,
    closed: float = 1.0,
    documents: int = 32,
) -> dict[str, Any]:
    """As evaluation.json has it: right or wrong [n] in both modes, numbers first, then words."""
    n = len(ntp)
    columns: dict[str, np.ndarray] = {
        name: np.zeros(n) for name in PositionResult.__dataclass_fields__
    }
    columns |= {"ntp": ntp, "reasoning": reasoning, "agrees": agrees}
    columns["closed"] = (np.arange(n) < closed * n).astype(float)
    columns["document_id"] = np.array([f"d{i % documents:02}" for i in range(n)])
    columns["document_kind"] = np.array([""] * n)
    columns["entropy"] = np.full(n, 0.7)
    names = (TOKEN_CLASSES[2], TOKEN_CLASSES[0])
    columns["token_class"] = np.array([names[0]] * (n // 4) + [names[1]] * (n - n // 4))
    result = EvaluationResult(columns=columns, has_reasoning=True)
    return {"summary": result.summary(), "thought_value": result.thought_value()}


def share(n: int, right: int) -> np.ndarray:
    """[n] of which `right` are 1, spread over all documents."""
    return (np.random.default_rng(1).permutation(n) < right).astype(float)


def test_a_copy_is_called_a_copy() -> None:
    right = share(640, 300)
    copied = entry(right, right, np.ones(640))
    first, second = model_sentences("The trained policy", copied, SEEDED)
    assert first == (
        "The trained policy copies its first candidate: its prediction differs from standard"
        " prediction at 0 of 640 positions."
    )
    assert second.endswith(": +0.0 [−10.9, +10.9] points, not distinguishable.")
    assert "repeats standard prediction" in model_sentences("It", copied, UNSEEDED)[0]


def test_a_policy_that_goes_its_own_way_is_no_copy() -> None:
    right = share(640, 300)
    said = model_sentences("It", entry(right, right, share(640, 600)), SEEDED)
    assert said[0] == "It's prediction differs from standard prediction at 40 of 640 positions."


@pytest.mark.parametrize(("sign", "word"), [(1, "better"), (-1, "worse")])
def test_the_class_where_thinking_makes_a_difference(sign: int, word: str) -> None:
    ntp = share(640, 320)
    reasoning = ntp.copy()
    reasoning[:160] = 1.0 if sign > 0 else 0.0  # numbers alone
    said = model_sentences("It", entry(ntp, reasoning, share(640, 500)), SEEDED)
    assert f"{word} beyond noise" in said[1]
    assert f"it is {word} at {TOKEN_CLASSES[2].replace('_', ' ')} " in said[2]
    assert "(n 160)" in said[2]
    assert TOKEN_CLASSES[0].replace("_", " ") not in said[2]  # equal there


def test_whole_spans_that_say_otherwise_are_named() -> None:
    ntp = share(640, 400)
    found = entry(ntp, ntp * 0.5, share(640, 500))
    assert "whole span" in model_sentences("It", found, SEEDED)[1]  # all 0: not distinguishable
    found["thought_value"]["span"] = found["thought_value"]["reasoning"]
    assert "whole span" not in model_sentences("It", found, SEEDED)[1]


def test_few_documents_are_no_proof() -> None:
    ntp = np.zeros(64)
    said = model_sentences("It", entry(ntp, share(64, 60), ntp, documents=4), SEEDED)
    assert "only 4 documents: not to be relied on" in said[1]
    assert len(said) == 2  # nor is any class named
    alike = model_sentences("It", entry(ntp, ntp + 1, ntp, documents=4), SEEDED)
    assert "+100.0 [−20.5, +100.0] points, not distinguishable" in alike[1] and len(alike) == 2


def test_lost_form_is_said() -> None:
    right = share(640, 300)
    said = model_sentences("It", entry(right, right, share(640, 500), closed=0.5), SEEDED)
    assert said[-1].startswith("It made no prediction at 320 of 640 positions")
    none = model_sentences("It", entry(right, right, share(640, 0), closed=0.0), SEEDED)
    assert none[0].startswith("It made no prediction at 640 of 640 positions")
    assert not any("differs" in sentence for sentence in none)


def test_what_was_not_evaluated() -> None:
    nothing = run_verdict({}, [], SEEDED)
    assert nothing.said == [
        "Neither the policy after warmup nor the trained one has been evaluated."
    ]
    assert nothing.caveats == []
    start = run_verdict({"start": {}}, [], SEEDED).said
    assert start[0].endswith("has been evaluated; evaluated are: start.")
    plain = {"summary": {"ntp": {}}}
    assert "evaluated without reasoning" in run_verdict({"trained": plain}, [], SEEDED).said[0]


def test_an_evaluation_under_other_settings_is_spoken_of() -> None:
    ntp = share(640, 320)
    one = entry(ntp, ntp, share(640, 500))
    evaluations = {"start-positions=400": one, "warmup-self": one, "warmup-positions=400": one}
    by, said = run_verdict(evaluations, [], SEEDED).said[:2]
    assert by == "By warmup-positions=400:" and said.startswith("The policy after warmup's predic")
    evaluations |= {"trained-positions=400": one, "trained-positions=800": one}
    by, said = run_verdict(evaluations, [], SEEDED).said[:2]
    assert by == "By trained-positions=800:" and said.startswith("The trained policy's prediction")
    evaluations |= {"trained": one}
    assert run_verdict(evaluations, [], SEEDED).said[0].startswith("The trained policy's")


def test_what_is_out_of_its_range() -> None:
    def rows(flat: list[float]) -> list[dict[str, Any]]:
        return [
            {"stage": "train", "step": step, "group/flat_fraction": value, "policy/ratio": 1.0}
            for step, value in enumerate(flat, 1)
        ]

    assert out_of_range(rows([0.5] * 9)) == []
    assert out_of_range(rows([1.0] * 4 + [0.5] * 5)) == []  # it has recovered
    (said,) = out_of_range(rows([0.5] * 3 + [0.95] * 6))
    assert said.startswith("group/flat_fraction is 0.95 over the last 5 steps of train; healthy:")
    assert said.endswith("Outside at 6 of 9.")
