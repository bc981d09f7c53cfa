"""What a run will take: by hand, against what stages then really took, and its prices."""

import json
import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from openrpt.cli.main import main
from openrpt.config.sections import Config
from openrpt.costs.estimate import _too_little, estimate, require_memory
from openrpt.costs.plan import WorkPlan
from openrpt.costs.planned import PlannedStage
from openrpt.costs.run_estimate import RunEstimate
from openrpt.costs.speed import spread_positions
from openrpt.data.corpus_size import corpus_size, split_tokens
from openrpt.data.prompts import build_layout
from openrpt.engine.loading import load_model, outline
from openrpt.errors import UserError
from openrpt.runs.metrics import read_metrics
from openrpt.runs.run import Run
from openrpt.runs.spent import scoring_cost
from openrpt.stages.train import train
from tests.helpers.tiny_model import tiny_config, tiny_model_folder, tiny_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return tiny_run(tmp_path_factory.mktemp("estimate"), train__steps=3, prompt__think_budget=6)


def plan_of(run: Run) -> WorkPlan:
    policy = outline(run.config)
    layout = build_layout(policy.tokenizer, run.config.prompt, policy.bos_ids)
    corpus = corpus_size(run.config, policy.tokenizer)
    return WorkPlan(config=run.config, policy=policy, layout=layout, corpus=corpus)


def test_an_outline_has_the_models_shapes_and_no_memory(run: Run) -> None:
    policy = outline(run.config)
    real = load_model(run.config.model, trained=True)
    assert [p.shape for p in policy.parameters()] == [p.shape for p in real.parameters()]
    assert all(p.is_meta for p in policy.parameters())


def test_scoring_takes_what_was_estimated(run: Run) -> None:
    plan = plan_of(run)
    assert plan.corpus.known
    took = scoring_cost(run.scored)
    assert plan.score().tokens == pytest.approx(took["tokens"], rel=0.03)
    assert plan.score().flops == pytest.approx(took["flops"], rel=0.03)


def test_another_sampler_runs_the_prefix_for_itself(run: Run) -> None:
    """vLLM shares no keys with the trainer's engine, which still reads the candidates."""
    plan = plan_of(run)
    engine = run.config.engine.model_copy(update={"sampler": "vllm"})
    apart = replace(plan, config=run.config.model_copy(update={"engine": engine}))
    train = run.config.train
    prefix = plan.each.branches(train.positions_per_document, 1)[-1].prefix_length
    more = apart.train().tokens - plan.train().tokens
    assert more == pytest.approx(train.steps * train.documents * prefix)
    assert apart.warmup().tokens == plan.warmup().tokens


def test_a_training_step_by_hand(run: Run) -> None:
    """Every rollout uses its budget and none is like another."""
    plan, config = plan_of(run), run.config
    layout, train = plan.layout, config.train
    head, tail = len(layout.head_ids), len(layout.tail_ids)
    opening = len(layout.seed((0,) * config.prompt.candidates))
    own = config.prompt.think_budget + len(layout.close_ids) + config.prompt.prediction_budget
    rollouts = train.positions_per_document * train.group_size
    window = head + plan.window
    seeded = config.prompt.candidates and config.prompt.candidate_source == "start"
    a_document = window + train.positions_per_document * (tail + opening) + rollouts * (own - 1)
    documents = train.steps * train.documents_per_step
    expected = documents * (2 * a_document + (window if seeded else 0))
    assert plan.train().tokens == expected


def test_training_takes_no_more_than_was_estimated(run: Run) -> None:
    planned = plan_of(run).train()
    train(run)
    rows = read_metrics(run.metrics)
    took = sum(row["flops/generate"] + row["flops/update"] for row in rows)
    assert 0.2 * planned.flops < took < 1.05 * planned.flops


def test_positions_are_spread() -> None:
    assert spread_positions(3, 4, 32) == [4, 18, 32]
    assert spread_positions(1, 4, 32) == [32]
    assert spread_positions(9, 30, 32) == [30, 31, 32]


def test_on_a_named_gpu(run: Run) -> None:
    """989 TFLOP/s in bfloat16, a quarter of it reached; 3.6 an hour is 0.001 a second."""
    values: dict[str, Any] = {"price_per_hour": 3.6, "currency": "EUR", "watts": 500.0}
    config = run.config.model_copy(
        update={
            "cost": run.config.cost.model_copy(update=values),
            "model": run.config.model.model_copy(update={"dtype": "bfloat16"}),
        }
    )
    found = estimate(config, gpu="h100-sxm")
    for stage in found.stages:
        assert stage.seconds == pytest.approx(stage.flops / (0.25 * 989e12))
        assert stage.joules == pytest.approx(500 * stage.seconds)
        assert stage.money == pytest.approx(0.001 * stage.seconds)
    total = found.as_dict()["total"]
    assert total["seconds"] == pytest.approx(sum(stage.seconds for stage in found.stages))
    assert total["memory_bytes"] == max(stage.memory_bytes for stage in found.stages)
    assert found.warnings == []


def test_a_time_limit_cuts_a_stage() -> None:
    stage = PlannedStage(stage="train", tokens=100.0, seconds=8.0, flops_by_phase={"update": 10.0})
    stage.cut(0.25)
    assert (stage.tokens, stage.seconds, stage.flops) == (25.0, 2.0, 2.5)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"train__algorithm": "grpo"}, False),
        ({"train__algorithm": "dapo"}, True),
        ({"train__algorithm": "dapo", "train__dynamic_sampling_from": "never"}, False),
        ({"train__dynamic_sampling_from": 3}, True),
    ],
)
def test_rounds_of_dynamic_sampling_are_left_out_and_said(
    run: Run, settings: dict[str, Any], said: bool
) -> None:
    config = tiny_config(run.path.parent, run=str(run.path), **settings)
    found = estimate(config).assumptions
    assert ("dynamic sampling adds no round" in found) == said


def test_on_this_machine(tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """Measured; of a run that was never made, so nothing is written."""
    config = tiny_config(run.path.parent, run=str(tmp_path / "new"))
    found = estimate(config)
    assert isinstance(found, RunEstimate) and found.as_dict()["total"]["money"] is None
    assert all(stage.seconds > 0 for stage in found.stages)
    assert any("guessed from the size" in line for line in found.assumptions)
    model, corpus = run.path.parent / "model", run.path.parent / "corpus.jsonl"
    options = ["--model.path", model, "--corpus.path", corpus, "--run", tmp_path / "new"]
    options += ["--prompt.window", "32", "--gpu", "l4"]
    with pytest.raises(SystemExit) as stopped:
        main(["estimate", *map(str, options), "--json"])
    printed = json.loads(capsys.readouterr().out)
    assert not stopped.value.code and len(printed["stages"]) == 4
    assert not (tmp_path / "new").exists()


def on_gpus(config: Config, gpus: int, **values: Any) -> RunEstimate:
    model = config.model.model_copy(update={"dtype": "bfloat16"})
    train = config.train.model_copy(update=values)
    return estimate(
        config.model_copy(update={"model": model, "train": train}), gpu="h100-sxm", gpus=gpus
    )


@pytest.mark.parametrize(("own", "busy"), [(1.0, ""), (0.5, "with 50% of a processor")])
def test_a_busy_machine_is_said(
    run: Run, monkeypatch: pytest.MonkeyPatch, own: float, busy: str
) -> None:
    monkeypatch.setattr(time, "thread_time", lambda: own * time.monotonic())
    (note,) = (one for one in estimate(run.config).assumptions if "measured now" in one)
    assert ("other programs" in note) == bool(busy) and busy in note


def test_gpus_share_out_whole_documents(run: Run) -> None:
    """The busiest of 2 has 3 of 5 documents a step; evaluations run on one."""
    one, two = (on_gpus(run.config, n, documents_per_step=5, eval_every=1) for n in (1, 2))
    alone, shared = ({s.stage: s for s in found.stages} for found in (one, two))
    assert shared["score"].seconds == pytest.approx(alone["score"].seconds / 2)
    assert shared["evaluate"].seconds == alone["evaluate"].seconds
    phases = alone["train"].flops_by_phase
    assert phases == shared["train"].flops_by_phase and phases["evaluate"] > 0
    rate = sum(phases.values()) / alone["train"].seconds
    expected = (3 / 5 * (phases["generate"] + phases["update"]) + phases["evaluate"]) / rate
    assert shared["train"].seconds == pytest.approx(expected)
    assert shared["train"].joules == pytest.approx(2 * 700 * shared["train"].seconds)
    assert two.machine.startswith("2 × h100-sxm") and one.warnings == two.warnings == []
    line = on_gpus(run.config, 8, documents_per_step=5).warnings[-1]
    assert "train has 5 documents a step for 8 GPUs, so that 3 have nothing to do" in line


def test_a_model_that_no_gpu_holds_is_told_what_parting_it_would_leave(run: Run) -> None:
    stage = PlannedStage(stage="train", documents=64, memory_bytes=300e9, state_bytes=256e9)
    assert _too_little(stage, "h200", 141.0, 1) == ["train needs about 300 GB, h200 has 141"]
    (line,) = _too_little(stage, "h200", 141.0, 64)
    assert line.endswith("; with the model in 64 parts about 48 GB each")


def test_a_scorer_of_its_own_is_counted_with_its_own_shapes(run: Run, tmp_path: Path) -> None:
    small = tiny_model_folder(tmp_path / "small", num_hidden_layers=1)
    own = tiny_config(run.path.parent, run=str(tmp_path / "new"))
    other = own.model_copy(update={"score": own.score.model_copy(update={"model": str(small)})})
    found = [{s.stage: s for s in estimate(c, gpu="h100-sxm").stages} for c in (own, other)]
    assert found[1]["score"].flops < 0.8 * found[0]["score"].flops
    assert found[1]["score"].memory_bytes > found[0]["score"].memory_bytes
    assert found[1]["train"].flops == found[0]["train"].flops


def test_a_configuration_of_questions_is_one_of_finetune(run: Run) -> None:
    own = {"think_budget": 4, "answer_budget": 4, "question_tokens": 24, "questions_per_step": 3}
    config = run.config.model_copy(
        update={"finetune": run.config.finetune.model_copy(update=own | {"eval_questions": 5})}
    )
    (stage,), (steps,) = (
        estimate(
            config.model_copy(
                update={"train": config.train.model_copy(update={"eval_every": every})}
            ),
            gpu="h100-sxm",
        ).stages
        for every in (1, 0)
    )
    assert stage.stage == "finetune" and stage.documents == 3
    assert stage.flops_by_phase["evaluate"] > steps.flops_by_phase["evaluate"] > 0
    assert steps.flops_by_phase["update"] == stage.flops_by_phase["update"]


def test_instructions_cost_a_pass_for_standard_prediction(run: Run) -> None:
    plan = plan_of(run)
    assert plan.layout.plain_head_ids == plan.layout.head_ids
    asked = replace(plan, layout=replace(plan.layout, head_ids=(1, 2, 3)))
    branches = asked.each.branches(2, 2)
    more = asked.each.graded(branches).tokens - asked.each.generation(branches).tokens
    assert more == branches[-1].prefix_length
    assert plan.each.graded(branches).tokens == plan.each.generation(branches).tokens


@pytest.mark.parametrize("think", [0, 6])
@pytest.mark.parametrize("gradient", ["sampled", "exact"])
def test_right_answers_take_no_more_than_was_estimated(
    tmp_path: Path, think: int, gradient: str
) -> None:
    if think == 0 and gradient == "sampled":
        pytest.skip("refused: every thought of a position is the same")
    run = tiny_run(
        tmp_path,
        train__steps=2,
        prompt__think_budget=think,
        prompt__prediction_budget=6,
        train__algorithm="dr_grpo",
        train__answer_gradient=gradient,
        train__ntp_weight=0.0,
        reward__terms={"expected": 1.0},
        reward__expected_tokens=3,
    )
    plan = plan_of(run)
    planned = plan.train()
    train(run)
    rows = read_metrics(run.metrics)
    for phase in ("generate", "update"):
        took = sum(row[f"flops/{phase}"] for row in rows)
        assert 0.2 * planned.flops_by_phase[phase] < took, phase
        assert took < 1.05 * planned.flops_by_phase[phase], phase


def test_errors(run: Run, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nearest: 'h100-pcie', 'h100-sxm'"):
        estimate(run.config, gpu="h100")
    with pytest.raises(UserError, match="--gpu"):
        require_memory(1e15, torch.device("cpu"))
    with pytest.raises(UserError, match="float16"):
        model = run.config.model.model_copy(update={"dtype": "float16"})
        estimate(run.config.model_copy(update={"model": model}), gpu="l4")


def test_a_guessed_corpus_has_the_lengths_of_its_first_documents(tmp_path: Path) -> None:
    """A long document is scored in windows that overlap: nearly twice its tokens are run."""
    long = " ".join(f"{n} and one more is {n + 1}." for n in range(4_000))
    texts = [long, *(f"A short one: {n} and {n} are {2 * n}, as is known." for n in range(50))]
    corpus = tmp_path / "mixed.jsonl"
    corpus.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    sizes = {"prompt__window": 64, "prompt__min_context": 4, "score__max_tokens": 0}
    sizes |= {"corpus__heldout_fraction": 0.2, "corpus__development_fraction": 0.1}
    config = tiny_config(tmp_path, corpus__path=str(corpus), **sizes)
    policy = outline(config)
    found = corpus_size(config, policy.tokenizer)
    assert not found.known and len(found.lengths) == 51
    bytes_a_token = sum(len(text.encode()) for text in texts) / sum(found.lengths)
    size = corpus.stat().st_size / bytes_a_token
    shares = {"train": 0.7, "development": 0.1, "heldout": 0.2}
    tokens = {split: n * sum(found.lengths) / 51 for split, n in found.documents_of.items()}
    assert tokens == pytest.approx({split: share * size for split, share in shares.items()})
    limited = tiny_config(tmp_path, corpus__path=str(corpus), **sizes | {"score__max_tokens": 8000})
    tokens = split_tokens(limited, bytes_a_token)
    assert tokens == pytest.approx({"train": 8000, "heldout": 8000, "development": size / 10})
    layout = build_layout(policy.tokenizer, config.prompt, policy.bos_ids)
    plan = WorkPlan(config=config, policy=policy, layout=layout, corpus=found)
    assert 1.8 * found.tokens < plan.score().tokens < 2.1 * found.tokens
    assert plan.window == math.ceil(sum(min(64, length) for length in found.lengths) / 51)


def test_a_corpus_that_cannot_be_seen_is_scored_in_single_windows(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, corpus__path="datasets:someone/texts")
    policy = outline(config)
    layout = build_layout(policy.tokenizer, config.prompt, policy.bos_ids)
    corpus = corpus_size(config, policy.tokenizer)
    plan = WorkPlan(config=config, policy=policy, layout=layout, corpus=corpus)
    assert not corpus.known
    assert plan.score().tokens <= 1.05 * corpus.tokens
    assert (
        "since the size of datasets:someone/texts can't be seen from here" in plan.assumptions()[0]
    )


def test_a_training_without_an_end_says_so_and_what_is_not_run_is_left_out(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def rows_of(*options: str) -> tuple[str, dict[str, str]]:
        with pytest.raises(SystemExit):
            main(["estimate", "--run", str(run.path), "--gpu", "h100-sxm", *options])
        out = capsys.readouterr().out
        rows = [line.strip("│ ").split("│") for line in out.splitlines() if line.startswith("│")]
        return out, {row[0].strip(): row[3].strip() for row in rows}

    out, times = rows_of("--train.steps", "1000000000", "--utilisation", "1e-6")
    assert times["train"] == times["total"] == "no end"
    assert "train has no end: 1,000,000,000 steps of" in out
    assert "--train.time_limit" in out
    _, times = rows_of("--warmup.steps", "0", "--train.steps", "1")
    assert "warmup" not in times and times["train"] == times["total"] == "under 1 s"
    _, times = rows_of("--train.steps", "1000000000", "--train.time_limit", "5")
    assert times["train"] != "no end"
