"""Training through the real stage functions on a run folder: it learns, and it resumes."""

import json
import os
import signal
import sys
from dataclasses import replace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from openrpt.config.loading import validate_config
from openrpt.engine.loading import load_model
from openrpt.errors import UserError
from openrpt.progress import SILENT
from openrpt.runs.rollouts import read_rollouts, rollout_path
from openrpt.runs.run import Run
from openrpt.stages.train import open_train, train
from openrpt.stages.warmup.warmup import warmup
from tests.helpers.processes import in_processes
from tests.helpers.run_files import rollouts_of, rows_of, weights_of
from tests.helpers.tiny_model import copied_run, tiny_model_folder, tiny_run

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # peft


@pytest.fixture(scope="module")
def warm(tmp_path_factory) -> Run:
    """A run after warmup: the policy picks one of three candidates, mostly wrongly."""
    run = tiny_run(tmp_path_factory.mktemp("train"), corpus__development_fraction=0.2)
    warmup(run)
    return run


def run_of(warm: Run, name: str, **overrides: Any) -> Run:
    return copied_run(warm, name, **{"corpus__development_fraction": 0.2} | overrides)


def assert_same_run(a: Run, b: Run, step: int) -> None:
    assert rows_of(a) == rows_of(b)
    assert [row["step"] for row in rows_of(a)] == list(range(1, step + 1))
    assert rollouts_of(a) == rollouts_of(b)
    assert len(rollouts_of(a)) == step
    assert weights_of(a, step) == weights_of(b, step)
    assert weights_of(a, step).keys() == {"model.safetensors", "state.safetensors"}


@pytest.mark.parametrize("template", ["minimal", "v0"])
def test_standard_prediction_is_that_of_the_plain_text(template, tmp_path):
    """Instructions before the text are no part of what standard prediction reads."""
    tiny_model_folder(tmp_path / "model", max_position_embeddings=256)
    settings = {"prompt__template": template, "prompt__chat_template": "off"}
    run = tiny_run(tmp_path, **settings)
    trainer = open_train(run)
    assert trainer.layout.has_instructions == (template == "v0")
    trainer.state.step = 1
    _, generated = trainer.collector.collect(trainer.state)
    model = load_model(run.config.model, trained=True, trainer="flat")
    masked = model.masked_ids()
    for graded in generated:
        ids = graded.work.document.token_ids.tolist()
        for group in graded.groups:
            position = group.prompt.position
            plain = [*trainer.layout.plain_head_ids, *ids[position.window_start : position.index]]
            with torch.no_grad():
                logits = model.network(torch.tensor([plain])).logits[0, -1]
            assert group.ntp_token_id == int(logits.masked_fill(masked, -torch.inf).argmax())


def test_reward_rises_from_chance_to_above_0_9(warm):
    """By reinforcement alone: without the next-token loss."""
    run = run_of(
        warm,
        "learns",
        train__steps=160,
        train__ntp_weight=0.0,
        train__documents_per_step=1,  # each costs as much as many more rollouts
        train__positions_per_document=8,
        train__group_size=16,
        train__learning_rate=1.5e-3,
        checkpoints__every=1000,
    )
    train(run)
    rewards = [row["reward/mean"] for row in rows_of(run)]
    means = [sum(rewards[step : step + 20]) / 20 for step in range(0, 160, 20)]
    assert means[0] < 0.35  # a third of what is among three candidates
    assert max(means) > 0.9 and means[-1] > 0.8
    closed = [row["completion/closed_fraction"] for row in rows_of(run)]
    assert sum(closed[-20:]) / 20 > 0.95
    assert all(abs(row["policy/ratio"] - 1) < 1e-5 for row in rows_of(run) if "policy/ratio" in row)


EVERYTHING: dict[str, Any] = {
    "train__steps": 6,
    "checkpoints__every": 2,
    "train__eval_every": 3,
    "train__eval_positions": 12,
    "train__dynamic_sampling_from": 2,
    "train__kl_weight": 0.05,
    "train__entropy_weight": 0.01,
    "train__updates_per_batch": 2,
    "train__learning_rate": 1e-3,
    "selection__strategy": "pass_rate",
    "selection__pass_rate_low": 0.001,
    "selection__pass_rate_high": 0.9,
    "prompt__think_budget": 2,
}


class Killer(type(SILENT)):  # type: ignore[misc]
    """Kills its own process once step 5 is done."""

    def update(self, completed: float, note: str = "") -> None:
        if completed >= 5:
            os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_a_killed_run_resumes_to_the_same_bits(warm):
    """With pass-rate selection, dynamic sampling, KL, several updates and evaluations."""
    whole, killed = run_of(warm, "whole", **EVERYTHING), run_of(warm, "killed", **EVERYTHING)
    train(whole)
    (ended,) = in_processes(1, lambda rank: train(killed, progress=Killer()))
    assert ended.code == -signal.SIGKILL, ended
    assert [row["step"] for row in rows_of(killed)] == [1, 2, 3, 4, 5]
    assert sorted(path.name for path in killed.checkpoints.glob("step-*")) == [
        "step-000002",
        "step-000004",
    ]
    # What a kill at a worse moment leaves behind: a torn line, halves of files and folders, the
    # rollouts of a step and of an evaluation that no checkpoint knows.
    later = rollout_path(killed.path, 99, development=True)
    later.write_bytes(rollout_path(killed.path, 3, development=True).read_bytes())
    with killed.metrics.open("a") as file:
        file.write('{"stage": "train", "step": 6, "rewa')
    (killed.path / "rollouts" / "step-000006.partial").write_bytes(b"half")
    (killed.checkpoints / "step-000006.partial").mkdir()
    (killed.checkpoints / "step-000006.partial" / "model.safetensors").write_bytes(b"half")
    train(killed)
    assert_same_run(whole, killed, 6)
    assert not later.exists()
    for step in (3, 6):
        read = [read_rollouts(run.path, step, development=True) for run in (whole, killed)]
        both = [table.drop(["advantage"]) for table in read]  # NaN is not equal to itself
        assert both[0].equals(both[1]) and both[0].num_rows == 12
        assert both[0]["step"].unique().to_pylist() == [step]
    assert not list(killed.checkpoints.glob("*.partial"))
    assert [path.name for path in sorted(whole.checkpoints.iterdir())] == [
        path.name for path in sorted(killed.checkpoints.iterdir())
    ]
    best = [run.checkpoints / "best" / "model.safetensors" for run in (whole, killed)]
    assert best[0].read_bytes() == best[1].read_bytes()
    states = [
        json.loads((run.checkpoints / "step-000006" / "checkpoint.json").read_text())["state"]
        for run in (whole, killed)
    ]
    assert states[0] | {"seconds": 0} == states[1] | {"seconds": 0}
    assert states[0]["pass_rates"]
    # The metrics were those of a run that learns, evaluates and selects.
    last = rows_of(whole)[-1]
    assert last["optim/grad_norm"] > 0 and last["development/positions"] == 12


def test_a_finished_run_is_left_alone(warm):
    run = run_of(warm, "finished", train__steps=1)
    train(run)
    before = weights_of(run, 1)
    assert train(run).steps == 1
    assert weights_of(run, 1) == before and len(rows_of(run)) == 1


def test_a_configuration_that_was_edited_between_restarts_is_refused(warm):
    """In config.toml, by hand: what the checkpoint was made with counts."""
    run = run_of(warm, "edited", train__steps=1)
    train(run)
    for section, key, value in (("train", "algorithm", "rloo"), ("prompt", "window", 40)):
        changed = getattr(run.config, section).model_copy(update={key: value})
        edited = run.config.model_copy(update={section: changed})
        was = rf"made with {section}\.{key} = .*, not '?{value}"
        with pytest.raises(UserError, match=was) as e:
            train(replace(run, config=edited))
        assert f"put the old value back into {run.path}/config.toml" in str(e.value)


def test_a_truncated_checkpoint_is_named_and_nothing_is_lost(warm):
    run = run_of(warm, "cut", train__steps=2, checkpoints__every=1)
    train(run)
    weights = run.checkpoints / "step-000002" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    longer = run.config.model_copy(
        update={"train": run.config.train.model_copy(update={"steps": 3})}
    )
    with pytest.raises(UserError, match="the checkpoint is truncated"):
        train(replace(run, config=longer))
    assert len(rows_of(run)) == 2


def test_dynamic_sampling_replaces_flat_groups(warm):
    settings: dict[str, Any] = {"train__steps": 1, "train__dynamic_sampling_rounds": 20}
    plain = run_of(warm, "static", **settings)
    dynamic = run_of(warm, "dynamic", train__dynamic_sampling_from=1, **settings)
    train(plain)
    train(dynamic)
    wanted = 2 * 4
    (before,), (after,) = rows_of(plain), rows_of(dynamic)
    assert before["group/flat_fraction"] > 0
    assert before["group/generated"] == before["group/kept"] == wanted == after["group/kept"]
    assert wanted < after["group/generated"] < 20 * wanted

    def groups(run: Run) -> dict[tuple[str, int], list[float]]:
        found: dict[tuple[str, int], list[float]] = {}
        for row in rollouts_of(run)["step-000001.parquet"]:
            found.setdefault((row["document_id"], row["position"]), []).append(row["reward"])
        return found

    kept = groups(dynamic)
    assert len(kept) == wanted
    assert all(len(set(rewards)) > 1 for rewards in kept.values())
    # In keyed order: what was live without it comes first, then the next ones.
    live = [key for key, rewards in groups(plain).items() if len(set(rewards)) > 1]
    assert list(kept)[: len(live)] == live
    settings |= {"train__positions_per_document": 8, "train__dynamic_sampling_from": 1}
    trainer = open_train(run_of(warm, "again", **settings))
    trainer.state.step = 1
    batch, generated = trainer.collector.collect(trainer.state)
    every = [group for graded in generated for group in graded.groups if not group.is_flat]
    assert len(every) > 2 * 8
    assert [group for graded in batch for group in graded.groups] == every[: 2 * 8]


def test_dynamic_sampling_keeps_within_its_budget(warm):
    """Where nothing is live, it stops after its rounds and trains on what there is."""
    run = run_of(
        warm,
        "budget",
        train__steps=1,
        train__group_size=1,  # always flat
        train__dynamic_sampling_from=1,
        train__dynamic_sampling_rounds=3,
    )
    train(run)
    (row,) = rows_of(run)
    assert row["group/generated"] == row["group/kept"] == 3 * 2 * 4


def test_rollouts_do_not_depend_on_chunks(warm):
    """generation_rollouts and microbatch_tokens are about memory, never about results."""
    found = []
    for name, chunk, tokens in (("large", 256, 1024), ("small", 3, 7)):
        run = run_of(
            warm,
            name,
            train__steps=2,
            memory__generation_rollouts=chunk,
            memory__microbatch_tokens=tokens,
        )
        train(run)
        found.append(run)
    for a, b in zip(*(rollouts_of(run).values() for run in found), strict=True):
        assert [row["token_ids"] for row in a] == [row["token_ids"] for row in b]
    one, other = (load_file(run.checkpoints / "step-000002/model.safetensors") for run in found)
    assert all((one[name] - other[name]).abs().max() < 1e-4 for name in one)


def test_lora_training_resumes(warm):
    settings: dict[str, Any] = {
        "model__lora_rank": 4,
        "train__positions_per_document": 2,
        "train__learning_rate": 1e-2,
        "train__kl_weight": 0.1,
    }
    whole = run_of(warm, "lora-whole", train__steps=4, **settings)
    train(whole)
    parts = run_of(warm, "lora-parts", train__steps=2, **settings)
    train(parts)
    longer = parts.config.train.model_copy(update={"steps": 4})
    torch.rand(5)  # what else was drawn must not matter
    resumed = replace(parts, config=parts.config.model_copy(update={"train": longer}))
    train(resumed)
    assert_same_run(whole, resumed, 4)
    start = load_file(warm.start / "model.safetensors")
    merged = load_file(whole.checkpoints / "step-000004/model.safetensors")
    changed = {name for name in start if (start[name] != merged[name]).any()}
    assert changed and not any("embed" in name or "norm" in name for name in changed)


def test_mixed_precision_resumes_to_the_same_bits(tmp_path):
    """The weights of a checkpoint are float32, and a copy of them is what went on would have."""
    tiny_model_folder(tmp_path / "model")
    settings: dict[str, Any] = {
        "model__compute_dtype": "bfloat16",
        "prompt__think_budget": 1,
        "reward__terms": {"random": 1.0},
        "train__positions_per_document": 2,
        "train__kl_weight": 0.1,
        "train__updates_per_batch": 2,
        "train__eval_every": 0,
    }
    base = tiny_run(tmp_path, **settings)
    whole = copied_run(base, "whole", train__steps=4, **settings)
    train(whole)
    parts = copied_run(base, "parts", train__steps=2, **settings)
    train(parts)
    longer = parts.config.train.model_copy(update={"steps": 4})
    resumed = replace(parts, config=parts.config.model_copy(update={"train": longer}))
    train(resumed)
    assert_same_run(whole, resumed, 4)
    weights = load_file(whole.checkpoints / "step-000004/model.safetensors")
    assert {values.dtype for values in weights.values()} == {torch.float32}
    assert any((values != values.bfloat16()).any() for values in weights.values())
    for row in rows_of(whole):
        assert 0 < row["policy/sampler_difference"] < 0.05


def test_flat_and_tree_train_alike(tmp_path):
    """In float64, on a model that keeps it: the same rollouts, metrics and weights."""
    tiny_model_folder(tmp_path / "model", family="gpt2", dtype=torch.float64)
    base = tiny_run(tmp_path, model__dtype="float64")
    runs = []
    for kind in ("tree", "flat"):
        run = copied_run(
            base,
            kind,
            model__dtype="float64",
            engine__trainer=kind,
            prompt__think_budget=1,
            reward__terms={"random": 1.0},
            train__steps=2,
            train__positions_per_document=2,
            train__group_size=3,
            train__kl_weight=0.1,
            train__eval_every=0,
        )
        train(run)
        runs.append(run)
    assert rollouts_of(runs[0]).keys() == rollouts_of(runs[1]).keys()
    for a, b in zip(*(rollouts_of(run).values() for run in runs), strict=True):
        for one, other in zip(a, b, strict=True):
            assert one.pop("sampler_logprobs") == pytest.approx(other.pop("sampler_logprobs"))
            assert one == other
    for one, other in zip(*(rows_of(run) for run in runs), strict=True):
        assert one["group/flat_fraction"] < 1  # rewards differ: there is a gradient of them
        assert one.pop("stage") == other.pop("stage")
        assert one == pytest.approx(other, rel=1e-6, abs=1e-9)
    tree, flat = (load_file(run.checkpoints / "step-000002/model.safetensors") for run in runs)
    for name, values in tree.items():
        assert values.dtype == torch.float64
        assert (values - flat[name]).abs().max() < 1e-7, name


def test_the_learning_rate_warms_up(warm):
    run = run_of(
        warm, "schedule", train__steps=3, train__schedule_steps=2, train__learning_rate=1e-3
    )
    train(run)
    assert [row["optim/learning_rate"] for row in rows_of(run)] == [5e-4, 1e-3, 1e-3]


def test_every_document_is_taken_once_an_epoch(warm):
    run = run_of(warm, "epoch", train__steps=1, train__documents_per_step=3)
    trainer = open_train(run)
    ids = trainer.task.corpus.ids("train")
    assert len(ids) > 6
    taken: list[str] = []
    while len(taken) < 2 * len(ids):
        trainer.state.step += 1
        batch, _ = trainer.collector.collect(trainer.state)
        taken += [graded.work.document.document_id for graded in batch]
        assert trainer.state.cursor == len(taken)
    first, second = taken[: len(ids)], taken[len(ids) : 2 * len(ids)]
    assert sorted(first) == sorted(second) == sorted(ids) and first != second


def test_what_is_collected_depends_on_the_seed_and_the_step_alone(warm):
    """The same step gives the same batch, whatever was generated before it."""
    run = run_of(warm, "keyed", selection__strategy="random")
    batches = []
    for warm_up_first in (False, True):
        trainer = open_train(run)
        if warm_up_first:
            trainer.state.step = 1
            trainer.collector.collect(trainer.state)
        trainer.state.step, trainer.state.cursor = 2, 2
        batch, _ = trainer.collector.collect(trainer.state)
        batches.append([graded.groups for graded in batch])
    assert batches[0] == batches[1]
    other = run.config.model_copy(update={"seed": 1})
    trainer = open_train(replace(run, config=validate_config(other.model_dump(), source="test")))
    trainer.state.step, trainer.state.cursor = 2, 2
    assert [graded.groups for graded in trainer.collector.collect(trainer.state)[0]] != batches[0]


def test_no_position_that_passes_is_an_error(warm):
    run = run_of(warm, "none", selection__min_entropy=50.0)
    with pytest.raises(UserError, match=r"no position passes selection\.strategy = 'entropy'"):
        train(run)


def test_a_prompt_that_does_not_fit_is_refused(warm):
    run = run_of(warm, "long", prompt__think_budget=100)
    with pytest.raises(UserError, match="but the model holds 128; lower"):
        train(run)
