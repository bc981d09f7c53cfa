"""Where a stage outgrows one machine: the same, on a Ray cluster (docs/ray.md).

from openrpt import load_config
from openrpt.integrations import ray

ray.train(load_config("run.toml"), workers=4, address="auto")
"""

from typing import TYPE_CHECKING

from openrpt.integrations.ray.cluster import Cluster
from openrpt.progress import SILENT, Progress

if TYPE_CHECKING:
    from openrpt.config.sections import Config
    from openrpt.data.score_summary import ScoreSummary
    from openrpt.stages.stage import Summary


def score(
    config: "Config",
    *,
    address: str = "",
    workers: int = 0,
    cpus: int = 1,
    gpus: float = 0.0,
    progress: Progress = SILENT,
) -> "ScoreSummary":
    """Scores a corpus into the run folder, as `openrpt score --scale ray` (`Cluster` says what the
    other arguments are). Raises UserError."""
    from openrpt.integrations.ray.scoring import scoring_on
    from openrpt.runs.run import open_run
    from openrpt.stages.score.score import check_input, score_run

    cluster = Cluster(address=address, workers=workers, cpus=cpus, gpus=gpus)
    run = open_run(config, check_input=check_input)
    with run.at_work():
        return score_run(run, progress, score=scoring_on(cluster))


def train(
    config: "Config",
    *,
    address: str = "",
    workers: int = 0,
    cpus: int = 1,
    gpus: float = 0.0,
    progress: Progress = SILENT,
) -> "Summary":
    """Trains in the run folder, as `openrpt train --scale ray` (`Cluster` says what the other
    arguments are). Raises UserError."""
    from openrpt.integrations.ray.training import train_on
    from openrpt.runs.run import open_run
    from openrpt.stages.train import check_input

    cluster = Cluster(address=address, workers=workers, cpus=cpus, gpus=gpus)
    return train_on(cluster, open_run(config, check_input=check_input), progress)
