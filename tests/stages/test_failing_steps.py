"""Steps that fail: the steps before them are saved, and the same folder goes on."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from markupsafe import escape
from safetensors.torch import load_file

import openrpt.stages.train
from openrpt.config.loading import load_config
from openrpt.config.sections import StageName
from openrpt.errors import UserError
from openrpt.loaded import load_run
from openrpt.progress import SILENT
from openrpt.report.page import render
from openrpt.runs.checkpoints import latest_checkpoint
from openrpt.runs.journal import read_stage
from openrpt.runs.metrics import read_metrics
from openrpt.runs.rollouts import write_rollouts
from openrpt.runs.run import Run, open_run
from openrpt.runs.scores import scores_of
from openrpt.runs.status import read_status
from openrpt.runs.works import WORKS, recorded_works
from openrpt.stages.finished import longest_step
from openrpt.stages.pretrain.pretrain import pretrain
from openrpt.stages.train import Trainer, train
from openrpt.stages.warmup.warmup import warmup
from tests.helpers.tiny_model import copied_run, tiny_run

STAGES: dict[StageName, Callable[..., Any]] = {
    "train": train,
    "warmup": warmup,
    "pretrain": pretrain,
}
REWARD = """
import time

SEEN, BAD, SECONDS = [], set(), 0.0

def own(prediction, prefix):
    SEEN.append(prefix)
    time.sleep(SECONDS)
    if prefix in BAD:
        raise ValueError("not this one")
    return len(prediction or b"")
"""
SETTINGS: dict[str, Any] = {
    "train__steps": 4,
    "train__schedule_steps": 0,
    "train__learning_rate": 1e-3,
    "warmup__steps": 4,
    "pretrain__steps": 4,
    "pretrain__schedule": "constant",
    "pretrain__tokens_per_step": 100,
    "pretrain__sequence_length": 40,
    "pretrain__eval_every": 0,
}


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return tiny_run(tmp_path_factory.mktemp("failing"))


def run_of(scored: Run, name: str, **overrides: Any) -> Run:
    return copied_run(scored, name, **SETTINGS | overrides)


def with_settings(run: Run, section: str, **values: Any) -> Run:
    """Without the checks of a configuration that is read."""
    changed = getattr(run.config, section).model_copy(update=values)
    return replace(run, config=run.config.model_copy(update={section: changed}))


def rows_of(run: Run, stage: str = "train") -> list[dict[str, Any]]:
    return [row for row in read_metrics(run.metrics) if row["stage"] == stage]


def saved(run: Run, stage: StageName = "train") -> str:
    last = latest_checkpoint(run.checkpoints_of(stage))
    return last.name if last else ""


def weights_of(run: Run, step: int) -> dict[str, torch.Tensor]:
    return load_file(run.checkpoints / f"step-{step:06d}" / "model.safetensors")


def error_of(call: Callable[[], object]) -> str:
    with pytest.raises(UserError) as error:
        call()
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A user's module with a reward."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    (tmp_path / "mine.py").write_text(REWARD)
    sys.path.insert(0, str(tmp_path))
    import mine  # type: ignore[import-not-found]

    return mine


def break_gradients(monkeypatch: pytest.MonkeyPatch, calls: set[int]) -> None:
    """The gradient of these updates, numbered from 1, has a NaN."""
    clip, done = torch.nn.utils.clip_grad_norm_, []

    def spoiled(parameters: list[torch.nn.Parameter], norm: float) -> torch.Tensor:
        done.append(1)
        if len(done) in calls:
            next(p.grad for p in parameters if p.grad is not None).view(-1)[0] = float("nan")
        return clip(parameters, norm)

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", spoiled)


def test_a_failing_reward_keeps_the_steps_before_it(scored: Run, mine: Any) -> None:
    """And with the advised setting the same folder ends as a run that always had it."""
    terms = {"reward__terms": {"mine:own": 0.1, "prefix": 1.0}}
    plain = run_of(scored, "plain", **terms)
    train(plain)
    a_step = 2 * 4 * 4
    mine.BAD = {mine.SEEN[2 * a_step]}
    assert not mine.BAD & set(mine.SEEN[: 2 * a_step])
    whole = run_of(scored, "zero", reward__on_error="zero", **terms)
    train(whole)
    run = run_of(scored, "stops", **terms)
    said = error_of(lambda: train(run))
    assert said.startswith(
        "train, step 3: 'mine:own' raised ValueError (not this one) for document"
    )
    assert "rollout 0; mend it, or count such rollouts as 0 with --reward.on_error zero" in said
    assert said.endswith("; all up to step 2 is saved")
    assert [row["step"] for row in rows_of(run)] == [1, 2] and saved(run) == "step-000002"
    stage = read_stage(run.path)
    assert stage is not None and stage.state == "stopped"

    again = with_settings(run, "reward", on_error="zero")
    train(again)
    for name, values in weights_of(whole, 4).items():
        assert (values == weights_of(run, 4)[name]).all(), name
    assert rows_of(run)[2]["reward/errors"] == rows_of(whole)[2]["reward/errors"] > 0
    change = {"reward.on_error": {"before": "stop", "now": "zero"}}
    assert [row.get("changed") for row in rows_of(run)] == [None, None, change, None]
    text = "train: reward.on_error = 'zero' from step 3 on (before: 'stop')"
    assert text in read_status(run.path).notes and str(escape(text)) in render(run)
    assert "changed" not in load_run(run.path).metrics().column_names


def test_what_messages_advise_may_change(scored: Run) -> None:
    for key, value in {
        "train.learning_rate": 1e-6,
        "warmup.learning_rate": 1e-6,
        "pretrain.learning_rate": 1e-6,
        "optim.on_nonfinite": "skip",
        "optim.nonfinite_limit": 6,
        "reward.on_error": "zero",
    }.items():
        config = load_config(scored.path / "config.toml", overrides={key: value})
        open_run(config, min_free_bytes=0)


@pytest.mark.parametrize("stage", STAGES)
def test_a_gradient_that_is_not_finite(
    scored: Run, monkeypatch: pytest.MonkeyPatch, stage: StageName
) -> None:
    """At step 3 only: two steps are saved; or it is left out, said and counted."""
    run = run_of(scored, f"nan-{stage}")
    break_gradients(monkeypatch, {3})
    said = error_of(lambda: STAGES[stage](run))
    assert said.startswith(f"{stage}, step 3: the gradient's norm is nan (documents ")
    assert (
        f"--optim.on_nonfinite skip, which leaves such updates out, or give a lower --{stage}"
        in said
    )
    assert said.endswith("; all up to step 2 is saved")
    assert len(rows_of(run, stage)) == 2 and saved(run, stage) == "step-000002"
    before = load_file(run.path / f"{saved_in(stage)}/step-000002/model.safetensors")

    run = with_settings(run, "optim", on_nonfinite="skip")
    break_gradients(monkeypatch, {1})
    seen: list[str] = []

    class Heard(type(SILENT)):  # type: ignore[misc]
        def say(self, line: str) -> None:
            seen.append(line)

    shorter = with_settings(run, stage, steps=3)
    if stage == "warmup":
        shorter = run
    STAGES[stage](shorter, progress=Heard())
    rows = rows_of(run, stage)
    assert rows[2]["optim/skipped"] == 1 and "optim/grad_norm" not in rows[2]
    assert rows[2]["changed"] == {"optim.on_nonfinite": {"before": "stop", "now": "skip"}}
    (warning,) = rows[2]["warnings"]
    assert warning["name"] == "skipped_update" and "the gradient's norm is nan" in warning["seen"]
    changed, warned, advised = seen
    assert changed == f"{stage}: optim.on_nonfinite = 'skip' from step 3 on (before: 'stop')"
    assert warned.startswith("warning: skipped_update (step 3): ")
    lower = f": openrpt {stage} --run {run.path} --{stage}.learning_rate VALUE"
    assert advised.startswith("  in this run (now ") and advised.endswith(lower)
    if stage == "warmup":
        assert [row.get("optim/skipped") for row in rows] == [None, None, 1, 0]
    else:
        after = load_file(run.path / f"{saved_in(stage)}/step-000003/model.safetensors")
        assert all((after[name] == values).all() for name, values in before.items())
        STAGES[stage](run)
        assert [row.get("optim/skipped") for row in rows_of(run, stage)] == [None, None, 1, 0]


def saved_in(stage: str) -> str:
    return "checkpoints" if stage == "train" else f"{stage}-checkpoints"


def test_too_many_in_a_row_stop_the_stage(scored: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_of(scored, "row", optim__on_nonfinite="skip", train__steps=9)
    break_gradients(monkeypatch, {2, 4, 5, 6})
    said = error_of(lambda: train(run))
    assert said.startswith("train, after step 6: the last 3 updates were left out")
    assert said.endswith("--optim.nonfinite_limit 6; all up to step 6 is saved")
    assert saved(run) == "step-000006" and len(rows_of(run)) == 6
    train(run)
    assert len(rows_of(run)) == 9


def test_a_second_update_of_a_batch_leaves_no_whole_step(
    scored: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"train__updates_per_batch": 2, "checkpoints__every": 2}
    run = run_of(scored, "second", **settings)
    break_gradients(monkeypatch, {8})
    said = error_of(lambda: train(run))
    assert said.startswith("train, step 4: ")
    assert "; the weights had changed already, so what 1 step before it did is lost, too" in said
    assert said.endswith("/checkpoints/step-000002") and saved(run) == "step-000002"
    run = with_settings(run, "optim", on_nonfinite="skip")
    break_gradients(monkeypatch, {4})
    train(run)
    assert [row.get("optim/skipped") for row in rows_of(run)] == [None, None, 0, 1]


def test_weights_that_a_step_has_spoiled_are_not_saved(scored: Run) -> None:
    run = run_of(scored, "spoiled", train__steps=2)
    train(run)
    wild = with_settings(run, "train", learning_rate=1e38, steps=4)
    said = error_of(lambda: train(wild))
    assert said.startswith(
        "train, step 3: train.learning_rate is too high (1e+38 here): the policy"
    )
    assert " in the weights (" in said and said.endswith(
        "goes on from " + str(run.checkpoints / "step-000002")
    )
    assert saved(run) == "step-000002"
    train(with_settings(run, "train", steps=3))
    assert saved(run) == "step-000003"


def test_an_evaluation_that_fails_leaves_its_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where what fails is a bug: its traceback says what is saved."""
    settings = {"corpus__development_fraction": 0.3, "train__steps": 4, "train__eval_every": 2}
    run = tiny_run(tmp_path, **settings)
    whole = copied_run(run, "whole", **settings)

    def fail(error: Exception) -> Callable[..., dict[str, float]]:
        def evaluation(trainer: Any) -> dict[str, float]:
            raise error

        return evaluation

    monkeypatch.setattr(Trainer, "evaluate", fail(UserError("no room")))
    assert error_of(lambda: train(run)) == "train, after step 2: no room; all up to step 2 is saved"
    assert saved(run) == "step-000002" and len(rows_of(run)) == 2
    monkeypatch.setattr(Trainer, "evaluate", fail(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError) as error:
        train(run)
    assert error.value.__notes__ == ["train, after step 2; all up to step 2 is saved"]
    monkeypatch.undo()
    train(run)
    # The evaluation is made up for, so that all is as where none failed: the best policy, too.
    train(whole)
    assert [row["step"] for row in rows_of(run)] == [1, 2, 3, 4]
    accuracy = "development/reasoning_accuracy"
    assert [accuracy in row for row in rows_of(run)] == [False, True, False, True]
    assert [r.get(accuracy) for r in rows_of(run)] == [r.get(accuracy) for r in rows_of(whole)]
    assert not any("unevaluated" in row for row in rows_of(run))
    best = [one.checkpoints / "best" / "model.safetensors" for one in (run, whole)]
    assert best[0].read_bytes() == best[1].read_bytes()


def test_rollouts_are_stored_before_the_weights_change(
    scored: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So a disk that refuses them costs no step."""
    run = run_of(scored, "unstored")

    def refuse(folder: Path, step: int, rows: list[dict[str, Any]]) -> Path:
        if step == 3:
            raise UserError("no room")
        return write_rollouts(folder, step, rows)

    monkeypatch.setattr(openrpt.stages.train, "write_rollouts", refuse)
    said = error_of(lambda: train(run))
    assert said == "train, step 3: no room; all up to step 2 is saved"
    assert saved(run) == "step-000002" and len(rows_of(run)) == 2


def test_the_state_of_a_failed_step_is_undone(scored: Run, mine: Any) -> None:
    """Cursor and pass rates too, so that the step is run again as it was."""
    terms = {"reward__terms": {"mine:own": 0.1}, "train__steps": 2}
    whole = run_of(scored, "undone-whole", **terms)
    train(whole)
    mine.BAD = {mine.SEEN[2 * 4 * 4]}
    run = run_of(scored, "undone", **terms)
    error_of(lambda: train(run))
    states = [
        json.loads((r.checkpoints / f"step-00000{step}/checkpoint.json").read_text())["state"]
        for r, step in ((run, 1), (whole, 2))
    ]
    assert states[0]["cursor"] == 2 and states[1]["cursor"] == 4
    assert len(states[0]["pass_rates"]) == 2 < len(states[1]["pass_rates"])


def test_a_time_limit_holds_after_a_restart(scored: Run, mine: Any) -> None:
    mine.SECONDS = 0.02
    settings = {"reward__terms": {"mine:own": 0.1}, "train__steps": 99}
    run = run_of(scored, "limit", train__time_limit=1 / 60, **settings)
    train(run)
    rows = rows_of(run)
    assert rows and 1 - longest_step(rows) <= rows[-1]["seconds"]
    train(run)
    assert rows_of(run) == rows


def test_the_longest_step_is_read_from_the_rows() -> None:
    def row(step: int, seconds: float) -> dict[str, Any]:
        return {"step": step, "seconds": seconds}

    assert longest_step([]) == 0
    assert longest_step([row(1, 2.0), row(2, 5.0), row(3, 6.0)]) == 3
    assert longest_step([row(7, 90.0), row(8, 91.0)]) == 1  # the rows before were lost


@pytest.mark.parametrize("section", ["train", "warmup", "pretrain"])
@pytest.mark.parametrize("rate", ["1e300", "inf", "nan", "0", "-1", "1.5"])
def test_absurd_learning_rates_are_refused(section: str, rate: str) -> None:
    with pytest.raises(UserError, match=rf"{section}\.learning_rate = .*input should be"):
        load_config(overrides={f"{section}.learning_rate": rate})


@pytest.mark.parametrize("key", ["optim.weight_decay", "train.ntp_weight", "warmup.text_kl_weight"])
def test_absurd_weights_are_refused(key: str) -> None:
    with pytest.raises(UserError, match="input should be less than or equal to 1"):
        load_config(overrides={key: 1e300})


@pytest.mark.parametrize("key", ["optim.weight_decay", "evaluate.temperature", "answers.timeout"])
def test_numbers_are_finite(key: str) -> None:
    with pytest.raises(UserError, match="input should be a finite number"):
        load_config(overrides={key: "inf"})


def test_works_are_kept_as_metrics_are(scored: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over a step that failed and is run again, a line that was cut off, and a damaged one."""
    plain = run_of(scored, "works-plain")
    train(plain)
    run = run_of(scored, "works")
    with monkeypatch.context() as patch:
        break_gradients(patch, {3})
        error_of(lambda: train(run))
    path = run.path / WORKS
    assert [row["step"] for row in read_metrics(path)] == [1, 2, 3]
    with path.open("a") as file:
        file.write('{"stage": "train", "step": 4, "cur')
    train(run)
    assert path.read_text() == (plain.path / WORKS).read_text()

    lines = path.read_text().splitlines()
    path.write_text(
        "\n".join([lines[0], lines[1].replace('"cursor": ', '"cursor": 1'), *lines[2:]])
    )
    longer = with_settings(run, "train", steps=run.config.train.steps + 1)
    said = error_of(lambda: train(longer))
    assert "works.jsonl:2: damaged" in said and "delete that line" in said
    path.write_text("\n".join([lines[0], *lines[2:]]) + "\n")  # as the message says
    train(longer)


BAD_WORKS: list[dict[str, Any]] = [
    {"works": None},
    {"works": [{}]},
    {"cursor": None},
    {"window": {"start": 0}},
    {"window": {"start": 0, "end": 10**6, "first": 1}},
    {"window": {"start": -3, "end": 20, "first": 1}},
    {"positions": [10**6]},
    {"positions": ["x"]},
    {"positions": [-1]},
    {"document_id": 5},
]


@pytest.mark.parametrize("change", BAD_WORKS, ids=str)
def test_works_that_no_step_wrote_are_one_line(scored: Run, change: dict[str, Any]) -> None:
    corpus = scores_of(scored)
    document = corpus.ids("train")[0]
    work = {"document_id": document, "window": {"start": 0, "end": 20, "first": 4}}
    row = {"cursor": 1, "works": [work | {"positions": [5, 6]}]}
    inner = {key: value for key, value in change.items() if key in ("window", "positions")}
    inner |= {key: value for key, value in change.items() if key == "document_id"}
    row |= {key: value for key, value in change.items() if key not in inner}
    if inner:
        row["works"] = [work | {"positions": [5, 6]} | inner]
    path = scored.path / WORKS
    path.write_text(json.dumps({"stage": "train", "step": 1} | row) + "\n")
    with pytest.raises(UserError) as error:
        recorded_works(scored.path, "train", corpus)
    path.unlink()
    assert "\n" not in str(error.value)
