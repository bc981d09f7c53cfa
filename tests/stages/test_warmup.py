"""The cold start on a tiny model: the form is learned, seeded and not, and it resumes."""

import math
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from openrpt.data.training_work import take_work
from openrpt.data.work import Work
from openrpt.errors import UserError
from openrpt.runs.metrics import read_metrics
from openrpt.runs.run import Run
from openrpt.runs.status import read_status
from openrpt.stages.train import train
from openrpt.stages.warmup.cost import StepCost
from openrpt.stages.warmup.imitations import Imitation
from openrpt.stages.warmup.loss import plain_states
from openrpt.stages.warmup.warmup import Warmup, open_warmup, warmup
from openrpt.stopping import Interrupted
from tests.helpers.tiny import byte_level_tokenizer, think_tokenizer
from tests.helpers.tiny_model import copied_run, tiny_model_folder, tiny_run

SEEDED: dict[str, Any] = {"warmup__ntp_weight": 0.0, "warmup__answer_sharpness": 0.5}
UNSEEDED: dict[str, Any] = {
    "prompt__candidates": 0,
    "prompt__think_budget": 4,
    "warmup__draft_tokens": 3,
    "warmup__tail_steps": 4,
    "warmup__ntp_weight": 0.0,
}
LEARNS: dict[str, Any] = {
    "warmup__steps": 45,
    "warmup__learning_rate": 6e-3,
    "warmup__documents_per_step": 1,
}
"""Enough for the form, and no more."""
WITHOUT_THOUGHT = UNSEEDED | {"prompt__think_budget": 0}


@pytest.fixture(scope="module")
def scored(tmp_path_factory) -> Run:
    return tiny_run(tmp_path_factory.mktemp("warmup"))


def rows_of(run: Run, stage: str = "warmup") -> list[dict[str, Any]]:
    return [row for row in read_metrics(run.metrics) if row["stage"] == stage]


def closed_fraction(run: Run, name: str, **overrides: Any) -> float:
    """The share of closed thoughts in one training step on the run as it stands."""
    probe = copied_run(run, name, train__steps=1, **overrides)
    train(probe)
    (row,) = rows_of(probe, "train")
    return row["completion/closed_fraction"]


def stage_of(run: Run, step: int = 100) -> Warmup:
    stage = open_warmup(run)
    stage.state.step = step
    return stage


def imitations_of(stage: Warmup, work: Work) -> list[Imitation]:
    return stage.maker(StepCost()).imitations(work, stage.state.step)


@pytest.mark.parametrize(
    "settings", [SEEDED, UNSEEDED, WITHOUT_THOUGHT], ids=["seeded", "unseeded", "no-thought"]
)
@pytest.mark.parametrize("target", ["self", "truth"])
def test_the_form_is_learned(scored, settings, target, request):
    settings = settings | LEARNS | {"warmup__target": target}
    name = request.node.callspec.id
    run = copied_run(scored, name, **settings)
    before = closed_fraction(run, name + "-before", **settings)
    warmup(run)
    after = closed_fraction(run, name + "-after", **settings)
    rows = rows_of(run)
    imitated = [row for row in rows if row.get("loss/imitation") is not None]
    # Without candidates the first steps learn what follows the tail alone.
    assert len(imitated) == len(rows) - (0 if "prompt__candidates" not in settings else 4)
    losses = [row["loss/imitation"] for row in imitated]
    assert sum(losses[-5:]) < 0.6 * sum(losses[:5])
    assert before < 0.2 and after > 0.8
    card = (run.start / "README.md").read_text()
    label = "(form only)" if target == "self" else "(supervised: it saw the true tokens)"
    assert f"warmup: {target} target {label}" in card
    assert not run.checkpoints_of("warmup").exists()
    assert (rows_of(run)[-1]["loss/text_kl"] or 0) > 0


def test_the_text_kl_keeps_the_language(scored):
    """Without it the model drifts further from the frozen one on plain text."""
    drift = []
    for weight in (1.0, 1e-6):
        settings = SEEDED | {"warmup__steps": 20, "warmup__documents_per_step": 1}
        run = copied_run(scored, f"kl-{weight}", warmup__text_kl_weight=weight, **settings)
        warmup(run)
        drift.append(rows_of(run)[-1]["loss/text_kl"])
    assert drift[0] < 0.5 * drift[1]


def test_without_a_kl_the_frozen_model_is_not_run(scored):
    """Seeded, no other term compares with it; unseeded, the tails' distillation does."""
    settings = {"warmup__text_kl_weight": 0.0, "warmup__ntp_weight": 1.0, "warmup__steps": 1}
    for name, more, runs in (("seeded", SEEDED, False), ("unseeded", UNSEEDED, True)):
        run = copied_run(scored, f"no-kl-{name}", **more | settings)
        stage = stage_of(run)
        _, work = next(take_work(stage.corpus, run.config, cursor=0, count=2, purpose="t"))
        loss, cost, made = stage.loss([work]), StepCost(), imitations_of(stage, work)
        loss.accumulate([work], [made])
        cost.count(loss, work, made)
        assert (cost.teacher.tokens > 0) == runs
        assert loss.metrics["loss/ntp"] > 0 and "loss/text_kl" not in loss.metrics


def test_a_cosine_ends_at_the_last_step(scored):
    schedule = {"warmup__schedule": "cosine", "warmup__schedule_steps": 0, "warmup__steps": 4}
    run = copied_run(scored, "cosine", **SEEDED | schedule)
    warmup(run)
    peak = run.config.warmup.learning_rate
    expected = [peak * (0.5 + 0.5 * math.cos(math.pi * step / 4)) for step in range(4)]
    assert [row["optim/learning_rate"] for row in rows_of(run)] == pytest.approx(expected)


def test_a_seeded_imitation_copies_one_of_its_candidates(scored):
    run = copied_run(scored, "imitation", **SEEDED)
    stage = stage_of(run)
    _, work = next(take_work(stage.corpus, run.config, cursor=0, count=8, purpose="t"))
    layout, eos = stage.layout, stage.engine.model.tokenizer.eos_token_id
    for imitation in imitations_of(stage, work):
        candidates = imitation.targets[0][0]
        assert imitation.opening == layout.seed(candidates) + layout.close_ids
        assert imitation.token_ids[0] in candidates and len(candidates) == 3
        assert imitation.token_ids[1:] == (*layout.answer_end_ids, eos)
        assert sum(imitation.targets[0][1]) == pytest.approx(1)
        assert imitation.targets[0][1][0] > 0.5  # the sharpness, and its own share
        assert imitation.weights == (1.0, *[0.5] * (len(layout.answer_end_ids) + 1))


def test_a_drafted_imitation_boxes_what_the_frozen_model_says(scored):
    run = copied_run(scored, "draft", **UNSEEDED)
    stage = stage_of(run)
    _, work = next(take_work(stage.corpus, run.config, cursor=0, count=4, purpose="t"))
    layout = stage.layout
    plain = AutoModelForCausalLM.from_pretrained(run.config.model.path)
    for imitation, position in zip(imitations_of(stage, work), work.positions, strict=True):
        ids = work.document.token_ids[position.window_start : position.index].tolist()
        tokens = torch.tensor([ids])
        draft = plain.generate(
            tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=3, do_sample=False
        )[0, len(ids) :].tolist()
        assert imitation.opening == ()
        assert imitation.token_ids[:3] == tuple(draft)
        assert imitation.token_ids[3 : 3 + len(layout.close_ids)] == layout.close_ids
        assert imitation.token_ids[3 + len(layout.close_ids)] == draft[0]
        assert imitation.weights[:3] == (0.1,) * 3 and not any(imitation.weights[3:-3])


def test_without_a_thought_the_close_is_part_of_the_tail(scored):
    """The branch that is distilled ends where the prediction begins, as in a rollout."""
    run = copied_run(scored, "no-thought", **WITHOUT_THOUGHT)
    stage = stage_of(run)
    _, work = next(take_work(stage.corpus, run.config, cursor=0, count=4, purpose="t"))
    layout, eos = stage.layout, stage.engine.model.tokenizer.eos_token_id
    imitations = imitations_of(stage, work)
    for imitation, position in zip(imitations, work.positions, strict=True):
        said = int(work.document.ntp_token_id[position.index])
        assert imitation.opening == layout.close_ids
        assert imitation.token_ids == (said, *layout.answer_end_ids, eos)
    whole, loss = layout.tail_ids + layout.close_ids, stage.loss([work])
    for branch, imitation in zip(loss.branches(work, imitations), imitations, strict=True):
        assert branch.completions == (whole + imitation.token_ids,)
    for branch in loss.branches(work, None):
        (completion,) = branch.completions
        assert completion[:-1] == whole  # the last token is not run


def test_a_truth_imitation_boxes_the_text(scored):
    run = copied_run(scored, "truth", warmup__target="truth", **SEEDED)
    stage = stage_of(run)
    _, work = next(take_work(stage.corpus, run.config, cursor=0, count=8, purpose="t"))
    for imitation, position in zip(imitations_of(stage, work), work.positions, strict=True):
        truth = int(work.document.token_ids[position.index])
        assert imitation.targets[0] == ((truth,), (1.0,)) and imitation.token_ids[0] == truth


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_plain_states_are_the_frozen_models_own(tmp_path, family):
    """gemma2's soft cap included."""
    options = {"attn_logit_softcapping": 0.5, "head_dim": 16} if family == "gemma2" else {}
    path = tmp_path / "model"
    tiny_model_folder(path, family=family, initializer_range=0.3, **options)
    stage = stage_of(tiny_run(tmp_path, **SEEDED))
    ids = list(range(40, 60))
    model = AutoModelForCausalLM.from_pretrained(path)
    with torch.no_grad():
        expected = model.base_model(torch.tensor([ids])).last_hidden_state[0]
    assert (plain_states(stage.start, [ids], 512)[0] - expected).abs().max() < 1e-4


class Ctrl_C:
    """Interrupts, as a user does, once this many steps are done."""

    def __init__(self, step: int) -> None:
        self.step = step

    def begin(self, task: str, total: float, unit: str = "") -> None: ...

    def say(self, line: str) -> None: ...

    def update(self, completed: float, note: str = "") -> None:
        if completed == self.step:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.skipif(os.name == "nt", reason="signals")
@pytest.mark.usefixtures("heard")
@pytest.mark.parametrize("rank", [0, 4])
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # peft
def test_an_interrupted_warmup_goes_on_to_the_same_bits(scored, rank):
    settings = SEEDED | {"warmup__steps": 5, "prompt__think_budget": 2, "model__lora_rank": rank}
    whole = copied_run(scored, f"whole-{rank}", **settings)
    warmup(whole)
    parts = copied_run(scored, f"parts-{rank}", **settings)
    with pytest.raises(Interrupted, match="stopped in warmup after step 2; the same command"):
        warmup(parts, progress=Ctrl_C(2))
    assert not parts.start.exists() and len(rows_of(parts)) == 2
    stopped = read_status(parts.path)
    assert (stopped.stage, stopped.step, stopped.goal, stopped.state) == ("warmup", 2, 5, "stopped")
    with pytest.raises(UserError, match="its warmup has not ended: openrpt warmup --run"):
        train(parts)  # it would begin from the start model
    warmup(parts)
    assert read_status(parts.path).state == "done"

    def timeless(run: Run) -> list[dict[str, Any]]:
        skipped = ("seconds", "time/", "memory/", "energy/", "efficiency/")
        return [{k: v for k, v in row.items() if not k.startswith(skipped)} for row in rows_of(run)]

    assert timeless(parts) == timeless(whole)
    weights = [(run.start / "model.safetensors").read_bytes() for run in (whole, parts)]
    assert weights[0] == weights[1]
    before = rows_of(whole)
    warmup(whole)  # done already
    assert rows_of(whole) == before


@pytest.mark.parametrize(
    ("tokenizer", "template"),
    [
        (byte_level_tokenizer(chat_template=None), "minimal"),
        (byte_level_tokenizer(chat_template=None), "chat"),
        (byte_level_tokenizer(), "chat"),
        (think_tokenizer(), "chat"),
    ],
    ids=["base", "base with instruction", "chat", "reasoning"],
)
def test_every_kind_of_model_can_start(tmp_path, tokenizer, template):
    tiny_model_folder(tmp_path / "model", tokenizer=tokenizer)
    run = tiny_run(
        tmp_path, prompt__template=template, prompt__window=16, warmup__steps=3, train__steps=1
    )
    warmup(run)
    train(run)
    assert len(rows_of(run)) == 3 and len(rows_of(run, "train")) == 1
    assert Path(run.checkpoints / "step-000001" / "model.safetensors").is_file()


@pytest.mark.parametrize("settings", [SEEDED, UNSEEDED], ids=["seeded", "unseeded"])
def test_flat_and_tree_warm_up_alike(tmp_path, settings):
    tiny_model_folder(tmp_path / "model", family="gpt2", dtype=torch.float64)
    settings = settings | {
        "model__dtype": "float64",
        "prompt__think_budget": 2,
        "warmup__steps": 3,
        "warmup__tail_steps": 1,
        "warmup__ntp_weight": 0.3,
        "warmup__positions_per_document": 3,
    }
    base = tiny_run(tmp_path, **settings)
    found = []
    for kind in ("tree", "flat"):
        run = copied_run(base, kind, **settings, engine__trainer=kind)
        warmup(run)
        found.append(load_file(run.start / "model.safetensors"))
    for name, values in found[0].items():
        assert (values - found[1][name]).abs().max() < 1e-8, name
