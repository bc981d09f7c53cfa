"""The recipes of the package: each is a configuration, and the paper's is the paper's."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from openrpt.cli.main import cli
from openrpt.config.loading import finetune_config, flatten, load_config
from openrpt.config.recipes import config_path, is_config, recipe_names
from openrpt.config.reinforcement import TrainConfig
from openrpt.errors import UserError

PAPER = {
    "train.steps": 1000,
    "train.group_size": 8,
    "train.temperature": 0.8,
    "train.algorithm": "grpo",
    "train.updates_per_batch": 1,
    "train.learning_rate": 1e-6,
    "train.dynamic_sampling_from": 500,
    "train.kl_weight": 0.0,
    "train.entropy_weight": 0.0,
    "train.ntp_weight": 0.0,
    "prompt.template": "v0",
    "prompt.window": 4096,
    "prompt.candidates": 0,
    "optim.max_grad_norm": 0.2,
    "optim.adam_beta1": 0.9,
    "optim.adam_beta2": 0.999,
    "optim.weight_decay": 0.01,
    "reward.terms": {"prefix": 1.0},
    "warmup.steps": 0,
}
"""arXiv 2506.08007, Section 3.3 and Table 5; the prompt's shape from Appendix D."""
SCALED = {"paper-1.5b", "paper-7b", "paper-135m"}
CHANGED = {
    "paper-1.5b": {"train.steps", "train.dynamic_sampling_from", "prompt.window"},
    "paper-7b": {
        "train.steps",
        "train.dynamic_sampling_from",
        "train.learning_rate",
        "prompt.window",
    },
    "paper-135m": {
        "train.steps",
        "train.dynamic_sampling_from",
        "train.learning_rate",
        "prompt.template",
        "prompt.window",
        "warmup.steps",
    },
}


def values(name: str) -> dict:
    return flatten(load_config(f"recipe:{name}").model_dump(mode="json"))


@pytest.mark.parametrize("name", recipe_names())
def test_each_recipe_is_a_configuration_with_a_run_of_its_own(name: str) -> None:
    others = [load_config(f"recipe:{other}").run for other in recipe_names() if other != name]
    assert load_config(f"recipe:{name}").run not in others


def test_the_papers_recipe_is_the_papers() -> None:
    found = values("paper")
    assert {key: found[key] for key in PAPER} == PAPER
    assert found["train.prompts_per_step"] == 256
    assert found["prompt.think_budget"] + found["prompt.prediction_budget"] == 8192
    assert found["score.model"] not in ("", found["model.path"]), "a scorer of its own"
    assert round(found["corpus.heldout_fraction"] * 4428) in range(195, 206)


@pytest.mark.parametrize("name", sorted(SCALED))
def test_what_a_scaled_recipe_changes_of_the_paper_is_known(name: str) -> None:
    found = values(name)
    assert {key for key in PAPER if found[key] != PAPER[key]} == CHANGED[name]
    assert 2 * found["train.dynamic_sampling_from"] == found["train.steps"]


def test_prompts_of_a_step_say_its_documents() -> None:
    def train(**given: int) -> TrainConfig:
        return TrainConfig.model_validate(given)

    assert train(documents_per_step=3, positions_per_document=5).documents == 3
    given = train(prompts_per_step=256, positions_per_document=4, documents_per_step=3)
    assert given.documents == 64, "in place of documents_per_step"
    with pytest.raises(UserError, match=r"prompts_per_step = 256 is no multiple of .* = 3: a doc"):
        load_config("recipe:paper", {"train.positions_per_document": 3})
    assert finetune_config(load_config("recipe:paper")).train.documents == 16


def test_an_unknown_recipe_lists_those_that_there_are() -> None:
    with pytest.raises(
        UserError, match="recipe:dmo: no such recipe; there are demo, finetune, gsm8k, pa"
    ):
        config_path("recipe:dmo")


def test_a_recipe_is_no_corpus_and_no_model() -> None:
    assert is_config("recipe:demo") and is_config("a.toml")
    assert not is_config("recipe") and not is_config("champ")


@pytest.mark.parametrize("command", ["score", "train", "evaluate", "estimate", "sweep"])
def test_commands_take_a_recipe_where_they_take_a_file(command: str, tmp_path: Path) -> None:
    run = str(tmp_path / "run")
    given = [command, "recipe:paper", "--run", run, "--print-config"]
    made = CliRunner().invoke(cli, given, catch_exceptions=False)
    assert made.exit_code == 0, made.output
    assert "steps = 1000\n" in made.output and "R1-Distill-Qwen-14B" in made.output
    assert list(tmp_path.iterdir()) == []
