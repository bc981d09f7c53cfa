"""The examples of docs/api.md run, print what they say, and do what the page says of them."""

import re
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForCausalLM

from openrpt.data.scored import load_scored
from openrpt.rl.rewards.configured import make_terms
from tests.helpers.tiny_model import tiny_run

_PAGE = (Path(__file__).parents[1] / "docs" / "api.md").read_text(encoding="utf-8")
_SECTIONS = _PAGE.partition("## Examples\n")[2].partition("<!-- names -->")[0].split("\n### ")[1:]
EXAMPLES = {
    section.splitlines()[0]: re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    for section in _SECTIONS
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the examples run: a scored run and its model."""
    path = tmp_path_factory.mktemp("examples")
    run = tiny_run(path, run=str(path / "runs" / "maths"))
    shutil.copytree(path / "model", run.start)
    return path


def ran(title: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The names that an example leaves; a block that begins with a file's name is that file."""
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    names: dict[str, Any] = {}
    for block in EXAMPLES[title]:
        if file := re.match(r"# (\w+\.py)\n", block):
            (folder / file[1]).write_text(block, encoding="utf-8")
        else:
            exec(compile(block, title, "exec"), names)
    return names


@pytest.mark.parametrize("title", EXAMPLES)
def test_an_example_prints_what_it_says(
    title: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran(title, folder, monkeypatch)
    said = re.findall(r"^print\(.*\)  # (.*)$", "\n".join(EXAMPLES[title]), re.MULTILINE)
    assert capsys.readouterr().out.splitlines() == said


def test_the_table_has_the_hard_tokens(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ran("Scores as a table", folder, monkeypatch)
    (row,) = names["found"].to_pylist()  # the run's documents are all in one split
    assert row["split"] == "train" and 0 < row["entropy_count"] < names["scores"].num_rows


def test_a_prompt_and_what_follows_are_the_text(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran("Prompts as parquet", folder, monkeypatch)
    rows = pq.read_table(folder / "prompts.parquet").to_pylist()
    corpus = load_scored(folder / "runs" / "maths" / "scored")
    assert len({row["document"] for row in rows}) == len(corpus.ids("train"))
    for row in rows:
        document = corpus.document(row["document"])
        assert document.entropy[row["position"]] > 0.5
        begin = row["prompt"] + b"".join(row["following"])
        assert row["following"] and document.text.encode().startswith(begin)
        assert len(row["prompt"]) == document.byte_offsets[row["position"]]


def test_a_step_makes_what_did_better_more_probable(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    names = ran("One step of training, in a notebook", folder, monkeypatch)
    before = AutoModelForCausalLM.from_pretrained(folder / "runs" / "maths" / "warmup")
    rewards, drawn, mask = torch.tensor(names["rewards"]), names["drawn"], names["mask"]
    assert rewards.max() > rewards.min()

    def probable(model: Any) -> torch.Tensor:
        logits = model(names["whole"]).logits[:, names["prompt"].shape[1] - 1 : -1]
        logprobs = logits.log_softmax(-1).gather(-1, drawn[..., None])[..., 0]
        return (logprobs * mask).sum(1)

    with torch.no_grad():
        gain = probable(names["model"]) - probable(before)
    assert gain[rewards.argmax()] > 0 and (gain * (rewards - rewards.mean())).sum() > 0


def test_the_reward_of_ones_own_is_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = ran("A reward of your own", folder, monkeypatch)["config"]
    assert "my_rewards:shares_first_byte" in make_terms(config)
