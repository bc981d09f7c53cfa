"""What TRL's trainer is handed, without TRL: positions, rollouts and rewards, against our own."""

import random
import subprocess
import sys
from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from openrpt.config.loading import to_toml, with_overrides
from openrpt.data.request import Request
from openrpt.data.training_work import take_work
from openrpt.data.work import document_bytes
from openrpt.engine.decoding import Sampling
from openrpt.engine.engine import bind
from openrpt.errors import UserError
from openrpt.integrations.trl import TrlTask, open_task
from openrpt.rl.grading import CONTINUATION_TOKENS, grade
from openrpt.runs.scores import scores_of
from openrpt.seeding import key_of
from openrpt.types import Completion
from tests.helpers.tiny_model import copied_run, tiny_run

GROUP = 3
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> TrlTask:
    return open_task(tiny_run(tmp_path_factory.mktemp("trl")).path)


def trainer_of(task: TrlTask, **values: Any) -> Any:
    """What `rollout` asks of a trainer."""
    facts: dict[str, Any] = {
        "args": SimpleNamespace(bf16=False),
        "state": SimpleNamespace(global_step=3),
        "accelerator": SimpleNamespace(process_index=0, unwrap_model=lambda model: model),
        "model": task.model,
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": 0,
        "min_p": None,
        "repetition_penalty": 1.0,
        "use_vllm": False,
        "is_fsdp_enabled": False,
    }
    return SimpleNamespace(**(facts | values))


def rows_of(task: TrlTask, count: int) -> list[dict[str, Any]]:
    pytest.importorskip("datasets")
    return list(islice(task.dataset, count))


def test_the_dataset_has_the_positions_of_train_in_their_order(task: TrlTask) -> None:
    config, corpus = task.run.config, scores_of(task.run)
    each = take_work(
        corpus,
        config,
        cursor=0,
        count=config.train.positions_per_document,
        purpose="positions",
    )
    works = [work for _, work in islice(each, 5)]
    rows = iter(rows_of(task, sum(len(work.positions) for work in works)))
    for work in works:
        text = work.document.text.encode()
        pieces = document_bytes(task.tokenizer, work.document)
        for position in work.positions:
            row, index = next(rows), position.index
            prefix = work.document.token_ids[work.window.start : index].tolist()
            layout = task.layout
            assert row["prompt"] == {
                "ids": [*layout.head_ids, *prefix, *layout.tail_ids],
                "document_id": position.document_id,
                "position": index,
            }
            assert row["continuation"] == pieces[index : index + CONTINUATION_TOKENS]
            joined = b"".join(row["continuation"])
            assert text[work.document.byte_offsets[index] :].startswith(joined)


@pytest.mark.parametrize("kind", ["tree", "flat"])
def test_a_rollout_is_the_engines_one_for_each_prompt(task: TrlTask, kind: str) -> None:
    """Each position asked alone, with the same keys, says the same; forced tokens are masked."""
    config = task.run.config
    settings = with_overrides(config, {"engine.trainer": kind})
    task = replace(task, run=replace(task.run, config=settings))
    asked = [row["prompt"] for row in rows_of(task, 6)]
    prompts = [prompt for prompt in asked for _ in range(GROUP)]
    trainer = trainer_of(task)
    task.model.train()
    task.policy.attention = "eager"
    made = task.rollout(prompts, trainer)
    assert task.model.training and task.policy.attention == "eager"
    assert made["prompt_ids"] == [prompt["ids"] for prompt in prompts]
    sampling = Sampling.of(config.prompt, temperature=1.0)
    tail, forced = len(task.layout.tail_ids), 0
    task.model.eval()
    for place, prompt in enumerate(prompts):
        name = (0, 4, prompt["document_id"], prompt["position"], place % GROUP)
        request = Request.at_end(prompt["ids"][:-tail], [key_of(*name)])
        ((found,),) = bind("flat", task.policy).generate_each([request], task.layout, sampling)
        (expected,) = found.completions
        assert made["completion_ids"][place] == list(expected.token_ids)
        assert made["env_mask"][place] == [int(drawn) for drawn in expected.loss_mask]
        assert made["logprobs"][place] == pytest.approx(expected.sampler_logprobs, abs=1e-4)
        forced += made["env_mask"][place].count(0)
    close = list(task.layout.close_ids)
    assert forced >= len(prompts) * (len(close) + config.prompt.candidates)
    assert task.rollout(prompts, trainer) == made
    later = trainer_of(task, state=SimpleNamespace(global_step=4))
    assert task.rollout(prompts, later)["completion_ids"] != made["completion_ids"]


def test_rewards_are_those_of_our_own_grading(task: TrlTask) -> None:
    """Completions that are right, wrong, cut short, boxed twice, and not UTF-8."""
    draw, table, layout = random.Random(0), task.policy.table, task.layout
    rows = rows_of(task, 40)
    tokens = [i for i, piece in enumerate(table.bytes) if piece]
    ends = [*layout.answer_end_ids, task.tokenizer.eos_token_id]
    right = 0
    for row in rows:
        text = [task.tokenizer.get_vocab()[p.decode()] for p in row["continuation"][:3]]
        cases = []
        for _ in range(25):
            said = draw.choice([text[: draw.randint(1, 3)], draw.choices(tokens, k=2)])
            ids = [*draw.choices(tokens, k=2), *layout.close_ids, *said]
            ids += draw.choice([ends, ends, [], [*layout.close_ids, *said]])
            cases.append(ids)
        found = task.prefix_match(cases, [row["continuation"]] * len(cases), prompts=None)
        for ids, reward in zip(cases, found, strict=True):
            whole = Completion(
                token_ids=tuple(ids), sampler_logprobs=(), loss_mask=(), finish_reason="stop"
            )
            assert reward == grade(whole, row["continuation"], layout, table).reward
        right += sum(found)
    assert 100 < right < 900


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"top_p": 0.9}, "GRPOConfig(top_p=0.9)"),
        ({"top_k": 20}, "GRPOConfig(top_k=20)"),
        ({"use_vllm": True}, "use_vllm"),
        ({"is_fsdp_enabled": True}, "sharded"),
        ({"model": object()}, "another model"),
    ],
)
def test_a_trainer_that_would_draw_otherwise_is_refused(
    task: TrlTask, values: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError) as error:
        task.rollout(
            [{"ids": [1, 2, 3], "document_id": "d", "position": 3}], trainer_of(task, **values)
        )
    assert words in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("reward__terms", {"prefix": 1.0, "span": 0.5}, "reward_funcs"),
        ("reward__thought_cost", 0.01, "reward_funcs"),
        ("selection__curriculum", 1, "selection.curriculum"),
    ],
)
def test_settings_that_trl_cannot_follow_are_refused(
    task: TrlTask, key: str, value: Any, words: str
) -> None:
    run = copied_run(task.run, f"other-{key}", **{key: value})
    (run.path / "config.toml").write_text(to_toml(run.config))
    with pytest.raises(UserError, match=words):
        open_task(run.path)


def test_what_is_no_scored_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a run folder"):
        open_task(tmp_path)


def test_a_process_that_only_hands_over_ids_has_no_engine_in_it() -> None:
    """What the benchmarks' peer imports leaves TRL's process as it is."""
    code = (
        "import sys; from openrpt.integrations.trl import unforced_rollout;"
        "sys.exit(any(m.startswith('openrpt.engine') or m == 'torch' for m in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
