"""On a real Ray cluster of two nodes, a CPU each: what is made there is what one process makes."""

import os
import random
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from openrpt.cli.main import cli
from openrpt.config.sections import Config
from openrpt.data.scored_shards import shard_paths
from openrpt.errors import UserError
from openrpt.evaluation.next_token.stage import evaluate_templates, open_evaluated
from openrpt.integrations.ray import sampler, training
from openrpt.integrations.ray import scoring as on_ray
from openrpt.integrations.ray.cluster import Cluster, connected
from openrpt.integrations.ray.desk import Desk
from openrpt.integrations.ray.pool import Pool
from openrpt.runs.spent import SCORING_COST, scoring_cost
from openrpt.stages.score.folder import ScoreFolder
from openrpt.stages.score.score import score_corpus
from openrpt.stages.train import train
from openrpt.stages.warmup.warmup import warmup
from tests.helpers.ray_nodes import DiesOnce, ray_nodes
from tests.helpers.run_files import rows_of
from tests.helpers.tiny_model import LETTERS, copied_run, tiny_config, tiny_model_folder, tiny_run

pytest.importorskip("ray")

pytestmark = [
    # Ray's own: it copies its settings, the deprecated ones, too, and leaves sockets to be closed.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
]
TWO = Cluster(workers=2)


@pytest.fixture(scope="module")
def nodes() -> Iterator[str]:
    """Two nodes on this machine, to which this process is connected."""
    with ray_nodes() as address:
        yield address


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """A corpus of a dozen shards."""
    folder, rng = tmp_path_factory.mktemp("ray"), random.Random(0)
    texts = ["".join(rng.choices(LETTERS, k=rng.randrange(30, 120))) for _ in range(160)]
    (folder / "corpus.txt").write_text("\n\n".join([*texts, "short"]) + "\n")
    return tiny_config(
        folder,
        corpus__path=str(folder / "corpus.txt"),
        corpus__separator="\n\n",
        corpus__heldout_fraction=0.2,
        score__shard_tokens=1000,
    )


def files_of(folder: Path) -> dict[str, bytes]:
    """All but what scoring took."""
    paths = sorted(folder.iterdir())
    return {path.name: path.read_bytes() for path in paths if path.name != SCORING_COST}


def test_scores_are_those_of_one_process_though_an_actor_is_killed(
    nodes, config, tmp_path, monkeypatch
):
    summary = score_corpus(config, tmp_path / "alone")
    assert summary.shards >= 10 and summary.skipped_short == 1
    (tmp_path / "notes").mkdir()
    actors = DiesOnce(shard=4, notes=tmp_path / "notes")
    monkeypatch.setattr(on_ray, "_opened", actors)
    seen: list[int] = []
    found = on_ray.score_corpus(
        TWO, config, tmp_path / "shared", lambda tokens, text: seen.append(tokens)
    )
    assert len(actors.killed()) == 1 and len(actors.opened() - actors.killed()) in (1, 2)
    assert found == summary
    assert seen == sorted(seen) and seen[-1] == summary.num_tokens
    made, expected = files_of(tmp_path / "shared"), files_of(tmp_path / "alone")
    assert list(made) == list(expected)
    assert [name for name in made if made[name] != expected[name]] == []
    alone, shared = (scoring_cost(tmp_path / name) for name in ("alone", "shared"))
    # What a killed actor had done and not told is not counted, and nothing twice.
    assert 0 < shared["tokens"] <= alone["tokens"]


def test_shards_that_stand_are_left_wherever_they_stand(config, tmp_path):
    """Without a cluster: the documents pass says what is left to do."""
    path = tmp_path / "scored"
    summary = score_corpus(config, path)
    folder = ScoreFolder.of(config, path)
    about = folder.about(on_ray._encoder(config).fingerprint)
    gap, other = 3, 5
    shard_paths(path, gap)[1].unlink()
    for old, new in zip(shard_paths(path, 1), shard_paths(path, other), strict=True):
        shutil.copy(old, new)  # whole, and not the one that is expected there
    *found, ended = on_ray._documents(config, folder, about)
    left = [one.summary.shards - 1 for one in found if isinstance(one, on_ray.Shard)]
    assert left == [gap, other]
    assert ended.summary == summary


def test_a_folder_that_a_node_does_not_see_is_refused(nodes, tmp_path):
    """A path that is another one in each process stands in for a disk of one's own."""
    (tmp_path / "run").mkdir()
    descriptor = os.open(tmp_path / "run", os.O_RDONLY)
    own = Path(f"/proc/self/fd/{descriptor}")
    with pytest.raises(UserError, match=r"node \S+ does not see this folder.*\(--run\)"):
        connected(TWO, own).__enter__()
    os.close(descriptor)
    with connected(TWO, tmp_path / "run") as workers:
        assert workers == 2
    assert not list((tmp_path / "run").iterdir())


def test_more_workers_than_there_is_room_for_are_refused(nodes, tmp_path):
    many = partial(connected, shared=tmp_path)
    with pytest.raises(UserError, match=r"--workers 3: .* room for 2 .*\(2 nodes with 1"):
        many(Cluster(workers=3)).__enter__()
    with pytest.raises(UserError, match=r"room for 0 workers of 2 CPUs"):
        many(Cluster(cpus=2)).__enter__()
    with many(Cluster()) as workers:
        assert workers == 2


OWN = """
import os, signal

def killed(prediction):
    whole = os.path.isdir("shared/checkpoints/step-000002")
    if os.environ.get("RANK") == "1" and whole and not os.path.exists("killed"):
        open("killed", "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    return len(prediction or b"") % 2
"""
"""A reward that kills its process once, within step 3."""


class Heard:
    """A progress that keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def begin(self, task: str, total: float, unit: str = "") -> None:
        self.lines.append(task)

    def update(self, completed: float, note: str = "") -> None:
        self.lines.append(note)

    def say(self, line: str) -> None:
        self.lines.append(line)


def test_a_worker_killed_within_a_step_changes_nothing(nodes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("rewards_of_workers.py").write_text(OWN)
    tiny_model_folder(tmp_path / "model", family="gpt2", dtype=torch.float64)
    settings: dict[str, Any] = {
        "train__steps": 4,
        "checkpoints__every": 2,
        "model__dtype": "float64",
        "reward__terms": {"random": 1.0, "rewards_of_workers:killed": 1.0},
    }
    alone = tiny_run(tmp_path, **settings)
    shared = copied_run(alone, "shared", **settings)
    assert train(alone).steps == 4
    heard = Heard()
    assert training.train_on(TWO, shared, heard).steps == 4
    assert Path("killed").exists() and not (shared.path / ".ray").exists()
    assert "a worker was lost: all go on from the last checkpoint" in heard.lines
    assert [row["step"] for row in rows_of(shared)] == [1, 2, 3, 4]
    for found, expected in zip(rows_of(shared), rows_of(alone), strict=True):
        assert found.pop("stage") == expected.pop("stage")
        rewards = {k: v for k, v in expected.items() if k.startswith(("reward/", "group/"))}
        assert {name: found[name] for name in rewards} == rewards
        assert found == pytest.approx(expected, rel=1e-10, abs=1e-12)


def test_a_node_that_stays_lost_ends_the_training(nodes, monkeypatch):
    """Two nodes are left of what a training of three workers began on."""
    import ray

    monkeypatch.setattr(training, "_ROOM_SECONDS", 0.2)
    ended = threading.Event()
    fit = threading.Thread(target=ended.wait)
    fit.start()
    desk = ray.remote(num_cpus=0)(Desk).remote()
    try:
        with pytest.raises(UserError, match=r"was lost: .* room for 2 .* not for 3; .* 2 goes on"):
            training._listen(fit, training._Outcome(), desk, Heard(), TWO, 3)
    finally:
        ended.set()
        ray.kill(desk)


@pytest.fixture
def pools(monkeypatch) -> list[int]:
    """The workers of each pool that makes completions."""
    found: list[int] = []

    def pool(**settings: Any) -> Pool:
        found.append(settings["workers"])
        return Pool(**settings)

    monkeypatch.setattr(sampler, "Pool", pool)
    return found


def test_completions_of_an_evaluation_are_those_of_one_process(nodes, tmp_path, pools):
    run = tiny_run(
        tmp_path,
        evaluate__split="train",
        evaluate__samples=2,
        evaluate__positions=32,
        evaluate__positions_per_document=8,
        memory__generation_rollouts=16,
        prompt__think_budget=6,
    )
    shared = copied_run(run, "shared")
    open_model = sampler.opening_on(TWO, shared.path, open_evaluated)
    ((_, expected),) = evaluate_templates(run, "start", run.config)
    ((_, found),) = evaluate_templates(shared, "start", run.config, open_model=open_model)
    assert pools == [2]
    assert found.columns.keys() == expected.columns.keys()
    for name, values in expected.columns.items():
        assert np.array_equal(found.columns[name], values, equal_nan=values.dtype.kind == "f")
    assert found.rollouts is not None and expected.rollouts is not None
    # By their text: pyarrow holds that NaN is not NaN.
    assert repr(found.rollouts.to_pylist()) == repr(expected.rollouts.to_pylist())


def test_traces_of_a_model_are_those_of_one_process(nodes, tmp_path, pools):
    settings: dict[str, Any] = {
        "prompt__candidates": 0,
        "prompt__think_budget": 3,
        "selection__strategy": "random",
        "warmup__target": "truth",
        "warmup__tail_steps": 0,
        "warmup__steps": 20,
    }
    run = tiny_run(tmp_path, **settings)
    warmup(run)
    options = ["--prompt.think_budget", "3", "--samples", "4", "--positions", "40"]
    options += ["--positions-per-document", "4"]
    # One worker: an evaluation's two take the same way, and each costs seconds to begin.
    spread = ["--scale", "ray", "--address", nodes, "--workers", "1"]
    made = {}
    for name, on in (("alone", []), ("shared", spread)):
        out = tmp_path / f"{name}.jsonl"
        found = CliRunner().invoke(
            cli, ["traces", "self", str(run.path), *options, "--out", str(out), *on]
        )
        assert found.exit_code == 0, (found.output, found.exception)
        made[name] = out.read_bytes()
    assert pools == [1]
    assert made["shared"] == made["alone"] and made["alone"].count(b"\n") > 3
