"""What is uploaded of a run, through huggingface_hub, to a server with the Hub's protocol."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub.constants as hub_constants
import pytest
import torch
from huggingface_hub import ModelCard
from transformers import AutoModelForCausalLM, AutoTokenizer

from openrpt.cli.main import main
from openrpt.config.loading import with_overrides
from openrpt.data.tokens import encode_document
from openrpt.engine.checkpoint_record import RECORD
from openrpt.engine.engine import open_engine
from openrpt.errors import UserError
from openrpt.evaluation.next_token.stage import evaluate_model
from openrpt.report.hub import publication, push
from openrpt.runs.run import Run
from openrpt.stages.warmup.warmup import warmup
from tests.helpers.hub_server import TOKEN, Hub, hub_server
from tests.helpers.tiny_model import tiny_run

REPO = "me/maths-rpt"
# The client itself hands its HTTP library a file in a way that this one has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with an evaluated policy after warmup."""
    folder = tmp_path_factory.mktemp("hub")
    run = tiny_run(folder, warmup__steps=2, corpus__heldout_fraction=0.3)
    warmup(run)
    config = with_overrides(run.config, {"evaluate.positions": 8, "evaluate.min_entropy": 0.0})
    evaluate_model(run, "warmup", config)
    return run


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with hub_server() as server:
        monkeypatch.setattr(hub_constants, "ENDPOINT", server.address)
        monkeypatch.setattr(hub_constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(hub_constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield server


def test_the_repository_is_a_model_that_transformers_loads(
    run: Run, hub: Hub, tmp_path: Path
) -> None:
    """With the weights of the checkpoint, private, without optimizer, record and local paths."""
    found = publication(run.path)
    assert push(found, REPO) == f"{hub.address}/{REPO}"
    repository = hub.repositories[REPO]
    assert repository.private and repository.commits == ["warmup, step 2"]
    assert not {RECORD, "state.safetensors"} & set(repository.files)
    assert found.sizes() == {name: len(data) for name, data in repository.files.items()}
    for name, content in repository.files.items():
        (tmp_path / name).write_bytes(content)
        assert str(run.path.parent).encode() not in content
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    own = AutoModelForCausalLM.from_pretrained(run.start)
    stored = own.state_dict()
    assert all(torch.equal(value, stored[name]) for name, value in loaded.state_dict().items())
    text = "Let x = 2 and y = 3."
    ids = AutoTokenizer.from_pretrained(tmp_path)(text)["input_ids"]
    assert ids == AutoTokenizer.from_pretrained(run.start)(text)["input_ids"]


def test_lm_eval_loads_it_and_finds_our_log_probabilities(
    run: Run, hub: Hub, tmp_path: Path
) -> None:
    """By its own loader and its own scoring, from the uploaded files alone."""
    huggingface = pytest.importorskip("lm_eval.models.huggingface")
    from lm_eval.api.instance import Instance

    push(publication(run.path), REPO)
    for name, content in hub.repositories[REPO].files.items():
        (tmp_path / name).write_bytes(content)
    theirs = huggingface.HFLM(pretrained=str(tmp_path), device="cpu", dtype="float32")
    asked = ("qzxjkvwb", "fgpm")
    request = Instance(
        request_type="loglikelihood", doc={}, arguments=asked, idx=0, metadata=("", 0, 1)
    )
    ((found, _),) = theirs.loglikelihood([request], disable_tqdm=True)
    engine = open_engine(run.config, path=str(run.start))
    ids, _ = encode_document(engine.model.tokenizer, "".join(asked))
    first = len(encode_document(engine.model.tokenizer, asked[0])[0])
    with torch.no_grad():
        (hidden,) = engine.states([ids])
        logprobs = engine.model.head.logits(hidden).log_softmax(-1)
    own = sum(float(logprobs[i - 1, ids[i]]) for i in range(first, len(ids)))
    assert found == pytest.approx(own, abs=1e-3)


def test_the_card_has_data_recipe_results_and_cost(run: Run) -> None:
    card = ModelCard(publication(run.path).card)
    assert card.data.tags == ["openrpt", "reinforcement-pre-training"]
    for part in ("- corpus: corpus.jsonl", "warmup: ", "## Results", "heldout split", "## Cost"):
        assert part in card.text
    (entry,) = json.loads(run.evaluation.read_text())["evaluations"].values()
    assert f"At {entry['positions']} positions of the heldout split" in card.text
    assert "FLOPs" in card.text and "- training: " in card.text


def test_a_run_that_was_moved_keeps_its_results(run: Run, tmp_path: Path) -> None:
    shutil.copytree(run.path, tmp_path / "moved")
    run.path.rename(run.path.with_name("gone"))
    try:
        card = publication(tmp_path / "moved").card
    finally:
        run.path.with_name("gone").rename(run.path)
    assert "## Results" in card and "heldout split" in card


def test_a_card_that_people_have_changed_stays(run: Run) -> None:
    path = run.start / "README.md"
    before = path.read_text()
    path.write_text(before + "\nDo not use it for medicine.\n\n## Results\n\nSee the paper.\n")
    card = publication(run.start).card
    path.write_text(before)
    assert "Do not use it for medicine." in card and card.count("## Results") == 1
    assert "See the paper." in card and "## Cost" in card


def test_nothing_is_overwritten_unasked(run: Run, hub: Hub) -> None:
    found = publication(run.path)
    push(found, REPO, public=True)
    assert not hub.repositories[REPO].private
    with pytest.raises(UserError, match=r"is on the Hub already; .*--update"):
        push(found, REPO)
    assert len(hub.repositories[REPO].commits) == 1
    hub.repositories[REPO].files["notes.txt"] = b"mine"
    push(found, REPO, update=True)
    assert len(hub.repositories[REPO].commits) == 2
    assert hub.repositories[REPO].files["notes.txt"] == b"mine"


def test_what_the_hub_refuses_is_one_line(
    run: Run, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = publication(run.path)

    def refused(repo: str = REPO) -> str:
        with pytest.raises(UserError) as error:
            push(found, repo)
        assert "\n" not in str(error.value)
        return str(error.value)

    assert "is no repository's name" in refused("me/a/b")
    assert "You don't have the rights" in refused("others/model")
    hub.fails = "/commit/main"
    said = refused()
    assert "the disk is full" in said and "--update" in said
    monkeypatch.setenv("HF_TOKEN", "hf_of_nobody")
    assert "hf auth login" in refused("me/other")
    monkeypatch.setattr(hub_constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set" in refused()
    monkeypatch.setattr(hub_constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub_constants, "ENDPOINT", "http://127.0.0.1:9")
    assert "can't be used" in refused()
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(hub_constants, "HF_TOKEN_PATH", str(run.path / "no-token"))
    assert "no token for the Hub" in refused()


def test_only_what_was_trained_here_is_pushed(run: Run, tmp_path: Path) -> None:
    untrained = tiny_run(tmp_path)
    with pytest.raises(UserError, match="nothing is trained yet"):
        publication(untrained.path)
    with pytest.raises(UserError, match="not a checkpoint"):
        publication(tmp_path / "model")
    with pytest.raises(UserError, match="no such folder"):
        publication(tmp_path / "absent")


def test_the_command_shows_what_it_would_send(
    run: Run, hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["push", str(run.path), REPO, "--dry-run"])
    assert stop.value.code == 0
    said = capsys.readouterr().out
    assert "model.safetensors" in said and "## Cost" in said and "nothing was sent" in said
    assert not hub.repositories


def test_the_command_pushes(run: Run) -> None:
    """In a process of its own, told of the server as users of a mirror are."""
    with hub_server() as server:
        variables = {"HF_ENDPOINT": server.address, "HF_TOKEN": TOKEN, "HF_HUB_OFFLINE": "0"}
        command = [sys.executable, "-m", "openrpt", "push", str(run.path), REPO]
        done = subprocess.run(
            command,
            env=os.environ | variables | {"HF_HUB_DISABLE_XET": "1"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert f"files at {server.address}/{REPO}" in done.stdout
        assert "model.safetensors" in server.repositories[REPO].files
