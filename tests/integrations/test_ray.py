"""On a real Ray cluster of two nodes, a CPU each: what is made there is what one process makes."""

import json
import os
import random
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from openrpt.config.sections import Config
from openrpt.data.scored import shard_paths
from openrpt.errors import UserError
from openrpt.integrations.ray import scoring as on_ray
from openrpt.integrations.ray import training
from openrpt.integrations.ray.cluster import Cluster, connected
from openrpt.runs.run import Run
from openrpt.stages.score.folder import COST, ScoreFolder, read_cost
from openrpt.stages.score.score import score_corpus
from openrpt.stages.train import train
from tests.helpers.ray_nodes import ray_nodes, workers_named
from tests.helpers.tiny_model import LETTERS, copied_run, tiny_config, tiny_run

pytest.importorskip("ray")

pytestmark = [
    pytest.mark.slow,
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
    return {path.name: path.read_bytes() for path in paths if path.name != COST}


def test_scores_are_those_of_one_process_though_actors_are_killed(nodes, config, tmp_path):
    summary = score_corpus(config, tmp_path / "alone")
    assert summary.shards >= 10 and summary.skipped_short == 1
    killed: list[int] = []
    seen: list[int] = []

    def progress(tokens: int, text: str) -> None:
        seen.append(tokens)
        if not killed:
            assert len(list((tmp_path / "shared").glob("documents-*"))) < summary.shards
            for process in workers_named("MapWorker"):
                process.kill()
                killed.append(process.pid)

    found = on_ray.score_corpus(TWO, config, tmp_path / "shared", progress)
    assert killed and found == summary
    assert seen == sorted(seen) and seen[-1] == summary.num_tokens
    assert files_of(tmp_path / "shared") == files_of(tmp_path / "alone")
    alone, shared = (read_cost(tmp_path / name) for name in ("alone", "shared"))
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
    with pytest.raises(UserError, match=r"--scale\.workers 3: .* room for 2 .*\(2 nodes with 1"):
        many(Cluster(workers=3)).__enter__()
    with pytest.raises(UserError, match=r"room for 0 workers of 2 CPUs"):
        many(Cluster(cpus=2)).__enter__()
    with many(Cluster()) as workers:
        assert workers == 2


class Killing:
    """A progress that kills a worker after a step."""

    def __init__(self, after: int) -> None:
        self.after, self.killed, self.said = after, 0, [""]

    def begin(self, task: str, total: float, unit: str = "") -> None:
        pass

    def update(self, completed: float, note: str = "") -> None:
        if completed >= self.after and not self.killed:
            workers = workers_named("RayTrainWorker")
            assert len(workers) == 2
            self.killed = workers[-1].pid
            workers[-1].kill()

    def say(self, line: str) -> None:
        self.said.append(line)


def rows_of(run: Run) -> list[dict[str, Any]]:
    """What a run's steps measured, without what hangs on the clock and on the machine."""
    free = ("time/", "memory/", "energy/", "seconds", "speed/", "limit/", "host")
    rows = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    return [{k: v for k, v in row.items() if not k.startswith(free)} for row in rows]


def test_a_killed_worker_changes_nothing_of_a_training(nodes, tmp_path):
    settings: dict[str, Any] = {
        "train__steps": 4,
        "checkpoints__every": 2,
        "model__dtype": "float64",  # the order in which gradients are added is no matter
        "reward__terms": {"random": 1.0},  # an untrained model is never right
    }
    alone = tiny_run(tmp_path, **settings)
    shared = copied_run(alone, "shared", **settings)
    assert train(alone).steps == 4
    progress = Killing(after=3)
    assert training.train_on(TWO, shared, progress).steps == 4
    assert progress.killed and "a worker was lost" in " ".join(progress.said)
    assert not (shared.path / ".ray").exists()
    expected, found = rows_of(alone), rows_of(shared)
    assert [row["step"] for row in found] == [1, 2, 3, 4]
    for one, other in zip(expected, found, strict=True):
        assert one == pytest.approx(other, rel=1e-9, abs=1e-12)
