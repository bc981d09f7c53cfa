"""Prediction at the end of one's own text, what is printed of it, and the generated docs."""

import io
import math
import runpy
from pathlib import Path

import pytest
from rich.console import Console

from openrpt.config.loading import with_overrides
from openrpt.config.sections import Config
from openrpt.engine.engine import Engine, open_engine
from openrpt.errors import UserError
from openrpt.evaluation.next_token.results import EvaluationResult
from openrpt.evaluation.next_token.shown import print_evaluation
from openrpt.rl.rewards.matching import prefix_match
from openrpt.runs.show import group_lines, heading, json_row, visible, visible_tokens
from openrpt.sheets import percent
from openrpt.stages.predict import checkpoint_config, cut_at_end, predict
from tests.helpers.tiny import byte_level_tokenizer, sentencepiece_tokenizer
from tests.helpers.tiny_model import tiny_config


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return tiny_config(tmp_path_factory.mktemp("predict"))


@pytest.fixture(scope="module")
def engine(config: Config) -> Engine:
    return open_engine(config)


# ---- cutting a text -----------------------------------------------------------------------------


@pytest.mark.parametrize("tokenizer", [byte_level_tokenizer(), sentencepiece_tokenizer()])
def test_text_and_continuation_are_one_document_where_a_token_ends(tokenizer: object) -> None:
    cut = cut_at_end(tokenizer, "The sum of two", " even numbers é 数")
    assert cut.note == ""
    assert b"".join(cut.token_bytes[: cut.index]) == b"The sum of two"
    assert b"".join(cut.token_bytes[cut.index :]) == " even numbers é 数".encode()
    whole = cut_at_end(tokenizer, "The sum of two even numbers é 数")
    assert whole.token_ids == cut.token_ids and whole.index == len(whole.token_ids)


@pytest.mark.parametrize("tokenizer", [byte_level_tokenizer(), sentencepiece_tokenizer()])
def test_a_text_that_ends_inside_a_token_is_cut_apart_with_a_note(tokenizer: object) -> None:
    cut = cut_at_end(tokenizer, "The sum of t", "wo even")
    assert "tokenized apart" in cut.note
    assert b"".join(cut.token_bytes[: cut.index]) == b"The sum of t"
    assert b"".join(cut.token_bytes[cut.index :]) == b"wo even"


def test_texts_that_cannot_be_cut() -> None:
    with pytest.raises(UserError, match="the text is empty"):
        cut_at_end(byte_level_tokenizer(), "", "a")
    with pytest.raises(UserError, match="surrogate"):
        cut_at_end(byte_level_tokenizer(), "a\udcff")


# ---- predicting ---------------------------------------------------------------------------------


def test_rollouts_begin_with_the_candidates_and_are_graded(engine: Engine, config: Config) -> None:
    cut = cut_at_end(engine.model.tokenizer, "qzxjkv", "wbf")
    group = predict(engine, cut, config, samples=5)
    assert len(group.rollouts) == 5 and len(group.candidate_ids) == 3
    assert group.prompt.prefix_ids == cut.token_ids[: cut.index]
    first = engine.model.table.bytes[group.candidate_ids[0]]
    for rollout in group.rollouts:
        assert rollout.thought.startswith(first)
        assert rollout.reward == prefix_match(rollout.prediction, cut.token_bytes[cut.index :])
    # Standard prediction is the first candidate: both are the plain text's argmax.
    assert group.ntp_token_id == group.candidate_ids[0]


def test_samples_are_reproducible_and_greedy_is_one(engine: Engine, config: Config) -> None:
    cut = cut_at_end(engine.model.tokenizer, "qzxjkv")
    thinking = with_overrides(config, {"prompt.think_budget": 8})
    once, again = (predict(engine, cut, thinking, samples=4) for _ in range(2))
    assert once == again
    assert len({rollout.completion.token_ids for rollout in once.rollouts}) > 1
    other = predict(engine, cut, with_overrides(thinking, {"seed": 1}), samples=4)
    assert other.rollouts != once.rollouts
    greedy = predict(engine, cut, thinking, samples=3, temperature=0.0)
    assert len({rollout.completion.token_ids for rollout in greedy.rollouts}) == 1
    assert {rollout.reward for rollout in greedy.rollouts} == {0.0}  # nothing to compare with


def test_only_the_last_window_is_read(engine: Engine, config: Config) -> None:
    long, tail = "a b " * 40 + "qzxjkv", "qzxjkv"
    window = len(cut_at_end(engine.model.tokenizer, tail).token_ids)
    short = with_overrides(config, {"prompt.window": max(window, 8)})
    cut = cut_at_end(engine.model.tokenizer, long)
    group = predict(engine, cut, short, samples=1)
    assert group.prompt.prefix_ids == cut.token_ids[-short.prompt.window :]


def test_standard_prediction_sees_no_instructions(engine: Engine, config: Config) -> None:
    cut = cut_at_end(engine.model.tokenizer, "qzxjkv")
    chat = with_overrides(config, {"prompt.template": "chat", "prompt.chat_template": "off"})
    plain = predict(engine, cut, config, samples=1)
    assert predict(engine, cut, chat, samples=1).ntp_token_id == plain.ntp_token_id


def test_flat_gives_the_same(engine: Engine, config: Config) -> None:
    cut = cut_at_end(engine.model.tokenizer, "qzxjkv", "w")
    flat_config = with_overrides(config, {"engine.trainer": "flat"})
    flat_engine = open_engine(flat_config)
    flat = predict(flat_engine, cut, flat_config, temperature=0.0, samples=1)
    tree = predict(engine, cut, config, temperature=0.0, samples=1)
    assert flat.rollouts[0].completion.token_ids == tree.rollouts[0].completion.token_ids


def test_a_prompt_that_does_not_fit(engine: Engine, config: Config) -> None:
    cut = cut_at_end(engine.model.tokenizer, "q" * 200)
    with pytest.raises(UserError, match="the model holds 128"):
        predict(engine, cut, with_overrides(config, {"prompt.window": 200}))


def test_what_is_no_checkpoint_has_no_configuration(config: Config) -> None:
    assert checkpoint_config(config.model.path) is None
    assert checkpoint_config("some/hub-id") is None


# ---- what is printed ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (b" the end", " the end"),
        (b"a\nb\tc\r", "a⏎b⇥c␍"),
        (b"\x1b[31m\x00", "⟨U+001B⟩[31m⟨U+0000⟩"),
        ("é数😀".encode(), "é数😀"),
        ("é".encode()[:1], "⟨C3⟩"),
        ("a\u202e\u2028\u200b".encode(), "a⟨U+202E⟩⟨U+2028⟩⟨U+200B⟩"),
        (rb"\neq \boxed{x}", r"\neq \boxed{x}"),
    ],
)
def test_visible(data: bytes, shown: str) -> None:
    assert visible(data) == shown


def test_visible_tokens_show_where_each_ends() -> None:
    assert visible_tokens([b" the", "é".encode()[:1], "é".encode()[1:]]) == "│ the│⟨C3⟩│⟨A9⟩│"
    assert visible_tokens([]) == ""


ROW = {
    "step": 3,
    "document_id": "abc",
    "position": 7,
    "rollout": 0,
    "entropy": float("nan"),
    "prefix_end": b"[bold]x\n",
    "continuation": [b" the", b" end"],
    "ntp_prediction": b" a",
    "candidates": [b" a", b" the"],
    "thought": b" a | the",
    "prediction": b" the end",
    "reward": 1.0,
    "exact": True,
    "reward_terms": [{"name": "prefix", "value": 1.0}],
    "advantage": 1.2,
    "finish_reason": "stop",
}


def test_a_group_is_readable() -> None:
    terms = [{"name": "prefix", "value": 0.0}, {"name": "dense", "value": 0.25}]
    missed = {"prediction": None, "reward": 0.0, "exact": False, "reward_terms": terms}
    other = ROW | missed | {"rollout": 1, "advantage": -0.5}
    likely = {"candidate_logprobs": [math.log(0.5), math.log(0.25)]}
    lines = [heading(ROW), *group_lines([ROW | likely, other])]
    text = "\n".join(line.plain for line in lines)
    for part in (
        "step 3 · document abc · position 7",
        "…[bold]x⏎│",
        "│ the│ end│",
        "│ a│ ✗ wrong",
        "candidates    │ a│ 50%  │ the│ 25%",
        "✓ │ the end│  up to the end of token 2  reward 1  advantage +1.20",
        "✗ no prediction  reward 0 (prefix 0, dense 0.25)  advantage -0.50",
        "thought   a | the",
    ):
        assert part in text


def test_rows_as_json_have_no_bytes_and_no_nan() -> None:
    row = json_row(ROW | {"thought": b"\xff"})
    assert row["entropy"] is None
    assert row["thought"] == "\\xff"
    assert row["continuation"] == [" the", " end"]


def recorded() -> Console:
    return Console(width=100, file=io.StringIO(), record=True)


def test_a_text_of_ones_own_is_not_graded() -> None:
    row = ROW | {"continuation": [], "exact": False, "reward": 0.0, "advantage": math.nan}
    text = "\n".join(line.plain for line in group_lines([row]))
    assert "│ the end│" in text and "thought   a | the" in text
    for absent in ("continuation", "right", "wrong", "reward", "advantage", "✗"):
        assert absent not in text


def test_printed_evaluation() -> None:
    import numpy as np

    columns = {
        "document_id": np.array(["a", "a", "b"]),
        "position": np.array([1, 2, 1]),
        "entropy": np.array([0.6, 1.2, 2.0]),
    }
    for name in ("ntp", "reasoning", "single_token", "any_right", "majority", "closed", "agrees"):
        columns[name] = np.array([1.0, 0.0, 0.0])
    columns["predicted_tokens"] = np.array([2.0, math.nan, math.nan])
    result = EvaluationResult(columns=columns, has_reasoning=True)
    console = recorded()
    print_evaluation(result, "start: accuracy", ["ntp", "reasoning"], 0, console)
    text = console.export_text()
    rows = {line.split("│")[1].strip(): line for line in text.splitlines() if "│" in line}
    assert "33.3 ±" in rows["all"] and "3" in rows["all"].split("│")[2]
    assert "0.0 %" in rows["hard (> 1.5)"]
    assert "–" in rows["band ≤ 0.5"]
    assert "2.00 tokens in the mean" in " ".join(text.split())
    assert "majority" not in text


def test_percent() -> None:
    estimate = {"value": 0.5294, "standard_error": 0.0163, "n": 10, "documents": 2}
    assert percent(estimate) == "52.9 ± 1.6 %"
    assert percent(estimate | {"standard_error": math.nan}) == "52.9 %"
    assert percent(estimate | {"n": 0}) == "–"


# ---- docs/configuration.md ----------------------------------------------------------------------


def test_the_documentation_of_the_configuration_is_up_to_date() -> None:
    root = Path(__file__).parents[2]
    script = runpy.run_path(str(root / "scripts" / "make_config_docs.py"))
    stored = (root / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert stored == script["render"](), "run: python scripts/make_config_docs.py"
