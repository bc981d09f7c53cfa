"""What a key binds: said on its field, and what follows from it."""

from pathlib import Path
from typing import Any

import pytest

from openrpt.config.binding import (
    bindings,
    first_change,
    label_settings,
    recorded_changes,
    settings_of,
)
from openrpt.config.keys import Key, described_keys
from openrpt.config.loading import (
    config_keys,
    load_config,
    to_toml,
    validate_config,
    with_overrides,
)
from openrpt.config.sections import Config, StageName
from openrpt.config.toml_files import read_toml
from openrpt.errors import UserError
from openrpt.files import write_text
from openrpt.runs.advice import advised_keys, how_to
from openrpt.runs.run import Run, existing_run, keep_config, open_run, stored_config
from openrpt.runs.signatures import SIGNATURES
from tests.helpers.tiny_model import tiny_config

STAGES: list[StageName] = ["score", "warmup", "train", "pretrain"]


def change(stages: list[StageName], **overrides: Any) -> str | None:
    given = {key.replace("__", "."): value for key, value in overrides.items()}
    return first_change(Config(), load_config(overrides=given), stages)


def test_every_key_says_what_it_binds() -> None:
    assert list(bindings()) == config_keys()
    free = {"device", "threads", "shard_tokens", "time_limit", "eval_every"}
    assert all(not said.what for key, said in bindings().items() if key.split(".")[-1] in free)
    assert all(said.what for said in bindings().values() if said.recorded)


def test_what_binds_scores_binds_what_is_made_from_them() -> None:
    for stage in STAGES:
        assert change([stage], corpus__limit=7) == "corpus.limit"
        assert change([stage], model__threads=7, memory__microbatch_tokens=7) is None
    assert [change([stage], seed=1) for stage in STAGES] == [None, "seed", "seed", "seed"]
    for stage in STAGES:
        bound = stage in ("warmup", "train")
        assert change([stage], warmup__draft_tokens=3) == ("warmup.draft_tokens" if bound else None)
    assert (
        change(["finetune"], corpus__limit=7, warmup__draft_tokens=3, selection__strategy="random")
        is None
    )
    assert change(["finetune"], train__temperature=0.5) == "train.temperature"
    assert change(["train"], questions__limit=3) is None
    assert change(["warmup", "pretrain"], train__group_size=3, reward__length_bonus=1.0) is None
    assert change(["warmup"], optim__adam_beta1=0.5) == "optim.adam_beta1"
    assert change(["warmup"], optim__weight_decay=0.5) is None, "warmup has none"
    assert change([], corpus__limit=7, train__group_size=3) is None


def test_the_end_of_a_cosine_binds() -> None:
    assert change(["pretrain"], pretrain__steps=7) == "pretrain.steps"
    constant = load_config(overrides={"pretrain.schedule": "constant"})
    longer = load_config(overrides={"pretrain.schedule": "constant", "pretrain.steps": 7})
    assert first_change(constant, longer, ["pretrain"]) is None
    assert change(["warmup"], warmup__steps=7) is None
    cosine: dict[str, Any] = {"warmup.schedule": "cosine"}
    configs = [load_config(overrides=cosine | {"warmup.steps": steps}) for steps in (24, 7)]
    assert first_change(*configs, ["warmup"]) == "warmup.steps"


def test_a_rule_binds_a_warmup_that_reads_it() -> None:
    """With given thoughts it imitates the model's own wherever there is none."""
    given: dict[str, Any] = {"warmup.traces": "sums.jsonl"}
    before = load_config(overrides=given)
    now = load_config(overrides=given | {"selection.where": "class:computed"})
    assert first_change(before, now, ["warmup"]) is None
    for stage in ("train", "pretrain"):
        assert first_change(before, now, [stage]) == "selection.where"
    assert change(["warmup"], selection__where="class:computed") == "selection.where"


def test_what_helps_after_a_failed_step_may_change_and_is_recorded() -> None:
    given = {"optim.max_grad_norm": 0.5, "train.learning_rate": 1e-6, "warmup.learning_rate": 1e-6}
    config = load_config(overrides=given)
    assert first_change(Config(), config, STAGES) is None
    before = Config().model_dump(mode="json")
    assert recorded_changes(before, config, "train") == {
        "optim.max_grad_norm": {"before": 1.0, "now": 0.5},
        "train.learning_rate": {"before": 2e-5, "now": 1e-6},
    }, "another stage's learning rate is none of its own"
    assert recorded_changes(before, config, "pretrain").keys() == {"optim.max_grad_norm"}


def test_a_label_names_what_an_evaluation_reads() -> None:
    named = label_settings(Config())
    assert {"seed", "prompt.template", "evaluate.samples", "model.dtype"} <= named.keys()
    others = {"train.steps", "pretrain.learning_rate", "memory.generation_rollouts", "run"}
    assert not named.keys() & (others | {"evaluate.controls", "model.threads"})


def test_scores_depend_on_the_corpus_the_window_and_the_model() -> None:
    found = settings_of("score", Config())
    assert {"prompt.window", "prompt.min_context", "model.path", "model.dtype"} <= found.keys()
    assert {key.split(".")[0] for key in found} == {"model", "corpus", "score", "prompt"}
    assert "score.shard_tokens" not in found


def begin_scores(run: Run) -> None:
    """Leaves what shows that scoring has begun."""
    run.scored.mkdir()
    write_text(run.scored / "scored.json", "{}")


def test_advice_of_a_warning_can_be_followed_in_the_folder_that_got_it(tmp_path: Path) -> None:
    run = open_run(tiny_config(tmp_path), min_free_bytes=0)
    begin_scores(run)
    run.start.mkdir()
    (run.checkpoints / "step-000001").mkdir(parents=True)
    named = {name: advised_keys(signature.helps) for name, signature in SIGNATURES.items()}
    assert named["no_reward"] == ["selection.min_entropy", "warmup.steps", "train.group_size"]
    other = tmp_path / "run-2"
    for key in {key for keys in named.values() for key in keys}:
        (command,) = how_to(run, f"another {key}", stage="train")
        if "begins from it" in command:
            assert f" --from {run.path} --run {other} --{key} VALUE" in command
        else:
            anew = f": openrpt train --run {run.path} --{key} VALUE"
            assert command.startswith(f"in this run (now {key} ") and command.endswith(anew)
            value = key_of(key).default
            value = "pass_rate" if key == "selection.strategy" else 3 if value == "auto" else value
            changed = {key: value // 2 if isinstance(value, int) else value}
            changed = {key: value / 2} if isinstance(value, float) else changed
            assert first_change(run.config, with_overrides(run.config, changed), ["train"]) is None
    here = how_to(run, SIGNATURES["no_reward"].helps, stage="train")
    assert here == [
        "in this run (now selection.min_entropy 0.5, train.group_size 4):"
        f" openrpt train --run {run.path} --selection.min_entropy VALUE --train.group_size VALUE",
        f"in another that begins from it (now warmup.steps 50): openrpt warmup --from {run.path}"
        f" --run {other} --warmup.steps VALUE",
    ]


def key_of(name: str) -> Key:
    return next(key for key in described_keys() if key.name == name)


WARMUP = {"warmup.text_kl_weight": 0.5, "prompt.candidates": 2}
TRAIN = {"train.group_size": 3, "reward.length_bonus": 0.25, "selection.min_entropy": 0.25}


def reopened(run: Run, overrides: dict[str, Any]) -> Config:
    """What the folder holds once a stage works in the run that was opened with these values."""
    values = run.config.model_dump(mode="json")
    for key, value in overrides.items():
        section, _, name = key.rpartition(".")
        values[section][name] = value
    keep_config(open_run(validate_config(values, source="command line"), min_free_bytes=0))
    return validate_config(read_toml(run.path / "config.toml"), source="")


def test_a_key_binds_once_a_stage_has_read_it(tmp_path: Path) -> None:
    run = open_run(tiny_config(tmp_path), min_free_bytes=0)
    begin_scores(run)
    stored = reopened(run, WARMUP | TRAIN)
    assert (stored.warmup.text_kl_weight, stored.train.group_size) == (0.5, 3)
    with pytest.raises(UserError, match=r"belongs to a run with prompt\.window = 32, not 40"):
        reopened(run, {"prompt.window": 40})

    run.start.mkdir()
    stored = reopened(Run(path=run.path, config=stored), {"train.group_size": 4})
    assert stored.train.group_size == 4
    with pytest.raises(UserError, match=r"with warmup\.text_kl_weight = 0\.5, not 0\.75") as error:
        reopened(Run(path=run.path, config=stored), {"warmup.text_kl_weight": 0.75})
    assert "\n" not in str(error.value)

    (run.checkpoints / "step-000001").mkdir(parents=True)
    before = (run.path / "config.toml").read_text(encoding="utf-8")
    for key, value in {"train.temperature": 0.5, "reward.length_bonus": 1.0}.items():
        with pytest.raises(UserError, match=key):
            reopened(Run(path=run.path, config=stored), {key: value})
    assert (run.path / "config.toml").read_text(encoding="utf-8") == before
    assert reopened(Run(path=run.path, config=stored), {"train.steps": 99}).train.steps == 99


def test_a_recorded_evaluation_keeps_the_runs_prompt(tmp_path: Path) -> None:
    """Its label names what differs from the run's configuration, which so must stay."""
    run = open_run(tiny_config(tmp_path), min_free_bytes=0)
    begin_scores(run)
    write_text(run.evaluation, "{}")
    with pytest.raises(UserError, match=r"prompt\.candidates"):
        reopened(run, {"prompt.candidates": 2})
    stored = reopened(run, {"evaluate.positions": 5, "warmup.text_kl_weight": 0.5})
    assert stored.evaluate.positions == 5


def test_a_question_answered_before_binds_a_finetune(tmp_path: Path) -> None:
    run = open_run(tiny_config(tmp_path), min_free_bytes=0)
    assert reopened(run, {"finetune.think_budget": 7}).finetune.think_budget == 7
    write_text(run.path / "finetune.json", "{}")
    with pytest.raises(UserError, match=r"finetune\.think_budget"):
        reopened(run, {"finetune.think_budget": 9})


def test_a_file_that_was_edited_is_taken_as_it_is(tmp_path: Path) -> None:
    run = open_run(tiny_config(tmp_path), min_free_bytes=0)
    begin_scores(run)
    text = to_toml(run.config).replace("group_size = 4", "group_size = 2")
    write_text(run.path / "config.toml", text)
    config = validate_config(read_toml(run.path / "config.toml"), source="")
    assert open_run(config, min_free_bytes=0).config.train.group_size == 2


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("train.max_grad_norm", "'optim.max_grad_norm'"),
        ("model.gradient_checkpointing", "'memory.gradient_checkpointing'"),
        ("train.microbatch_tokens", "'memory.microbatch_tokens' or 'pretrain.microbatch_tokens'"),
        ("train.checkpoint_every", "'checkpoints.every'"),
        ("train.checkpoints_kept", "'checkpoints.kept'"),
        ("train.lerning_rate", "'train.learning_rate'"),
    ],
)
def test_a_key_that_stands_elsewhere_is_found_there(tmp_path: Path, old: str, new: str) -> None:
    section, _, key = old.partition(".")
    write_text(tmp_path / "old.toml", f"[{section}]\n{key} = 1\n")
    with pytest.raises(UserError) as error:
        load_config(tmp_path / "old.toml")
    assert str(error.value) == f"{tmp_path}/old.toml: unknown key '{old}'; nearest: {new}"


def test_a_run_with_a_key_of_an_older_version_is_refused(tmp_path: Path) -> None:
    run = open_run(tiny_config(tmp_path), min_free_bytes=0)
    stored = run.path / "config.toml"
    text = stored.read_text(encoding="utf-8").replace("[model]\n", '[model]\ngenerator = "flat"\n')
    write_text(stored, text)
    with pytest.raises(UserError) as error:
        stored_config(run.path)
    line = f"{stored}: unknown key 'model.generator'; it is called 'engine.trainer' now: change"
    assert str(error.value).startswith(f"{line} that in the file")


def test_a_run_of_another_version_is_refused_by_its_name(tmp_path: Path) -> None:
    run = open_run(tiny_config(tmp_path), min_free_bytes=0)
    text = (run.path / "config.toml").read_text(encoding="utf-8")
    write_text(run.path / "config.toml", text.replace("[train]", "[train]\nmax_grad_norm = 1.0"))
    write_text(run.path / "environment.json", '{"openrpt": "0.0.9"}')
    for opened in (lambda: open_run(run.config, min_free_bytes=0), lambda: existing_run(run.path)):
        with pytest.raises(UserError) as error:
            opened()
        assert "nearest: 'optim.max_grad_norm'; the run was made by OpenRPT 0.0.9, this is" in str(
            error.value
        )
        assert "\n" not in str(error.value)
