"""Reinforcement on a Ray cluster: Ray Train's `TorchTrainer` around the loop of `openrpt train`.

Ray Train starts the workers, brings them together in a process group and starts all of them again
where one is lost. Steps and checkpoints are our own: the workers go on from the last checkpoint in
the run folder, which all nodes share, and what was recorded after it is forgotten.
"""

import os
import pickle
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openrpt.errors import SaidElsewhere, UserError
from openrpt.files import remove_folder
from openrpt.integrations.ray.cluster import Cluster, connected
from openrpt.integrations.ray.desk import Desk, Told
from openrpt.progress import SILENT, Progress

if TYPE_CHECKING:
    from openrpt.runs.run import Run
    from openrpt.stages.stage import Summary

_FAILURES = 5
"""How often the workers are started again."""
_OWN = ".ray"
"""Ray Train's own folder in a run, gone when it ends."""
_LISTEN_SECONDS = 0.5
_ROOM_SECONDS = 60.0
"""Seconds that a lost node has to come back, before a run that needs it ends."""


@dataclass(kw_only=True, slots=True)
class _Outcome:
    """What became of the training, as far as was heard."""

    summary: "Summary | None" = None
    failed: str = ""
    """What the user is to mend; empty where nothing."""
    error: Exception | None = None
    """What Ray Train has raised."""


def train_on(cluster: Cluster, run: "Run", progress: Progress = SILENT) -> "Summary":
    """Trains as `openrpt.stages.train.train`, whose results it has, on a cluster.

    Workers that are lost are started again, a few times. Raises UserError as the stage, for what
    the cluster lacks, and where workers are lost again and again. What the last checkpoint holds is
    kept in any case.
    """
    with connected(cluster, run.path) as workers:
        import ray

        here = ray.get_runtime_context().get_node_id()
        beside: Any = ray.remote(num_cpus=0, label_selector={"ray.io/node-id": here})(Desk)
        desk = beside.remote()
        trainer = _trainer(cluster, workers, run, desk)
        progress.begin(f"start {workers} workers", 0)
        outcome = _Outcome()
        # Not in this thread: there Ray Train takes Ctrl-C, and waits for what may never come.
        fit = threading.Thread(target=_fit, args=(trainer, outcome), daemon=True)
        fit.start()
        try:
            _listen(fit, outcome, desk, progress, cluster, workers)
        finally:
            remove_folder(run.path / _OWN)
    if outcome.failed:
        raise UserError(outcome.failed)
    if outcome.error is not None:
        raise _reason(outcome.error) from outcome.error
    assert outcome.summary is not None
    return outcome.summary


def _trainer(cluster: Cluster, workers: int, run: "Run", desk: Any) -> Any:
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    return TorchTrainer(
        _work,
        train_loop_config={
            "config": run.config,
            "path": run.path,
            "where": os.getcwd(),
            "threads": run.config.model.threads or cluster.cpus,
            "desk": desk,
        },
        scaling_config=ScalingConfig(
            num_workers=workers,
            use_gpu=cluster.gpus > 0,
            resources_per_worker=cluster.resources,
        ),
        run_config=RunConfig(
            name=_OWN,
            storage_path=str(run.path.absolute()),
            failure_config=FailureConfig(max_failures=_FAILURES),
        ),
    )


def _work(settings: dict[str, Any]) -> None:
    """The whole of a training, in one of Ray Train's workers."""
    import ray.train

    # Not above: the process that watches over the workers loads this function, and runs no model.
    from openrpt.engine.cpu import use_cpu
    from openrpt.rl.launched import launched_workers
    from openrpt.rl.process_group import LostProcess
    from openrpt.runs.run import Run
    from openrpt.stages.train import train

    desk, config = settings["desk"], settings["config"]
    rank = ray.train.get_context().get_world_rank()
    if _has_ended(desk, rank):
        return
    os.chdir(settings["where"])
    try:
        use_cpu(settings["threads"])
        with launched_workers(config.model.device, minutes=config.parallel.timeout) as workers:
            progress = Told(desk=desk) if rank == 0 else SILENT
            run = Run(path=Path(settings["path"]), config=config)
            summary = train(run, workers=workers, progress=progress)
    except (LostProcess, SaidElsewhere):
        raise  # another worker is lost: all are started again
    except UserError as error:
        ray.get(desk.fail.remote(str(error)))
        raise
    if rank == 0:
        # Pickled twice: the desk, which has no torch, would import it with the stage's own class.
        ray.get(desk.tell.remote("done", pickle.dumps(summary)))


def _has_ended(desk: Any, rank: int) -> bool:
    """Returns whether an earlier start has met what no new one helps against."""
    import ray

    starts, failed = ray.get(desk.start.remote())
    if rank == 0 and not failed and starts > ray.train.get_context().get_world_size():
        desk.tell.remote("say", "a worker was lost: all go on from the last checkpoint")
    return bool(failed)


def _fit(trainer: Any, outcome: _Outcome) -> None:
    from ray.exceptions import RayError
    from ray.train import TrainingFailedError

    try:
        trainer.fit()
    except (TrainingFailedError, RayError) as error:
        outcome.error = error


def _listen(
    fit: threading.Thread,
    outcome: _Outcome,
    desk: Any,
    progress: Progress,
    cluster: Cluster,
    workers: int,
) -> None:
    """Hears the workers until the training has ended. Raises UserError where there has been no room
    for them for _ROOM_SECONDS."""
    import ray

    seen = time.monotonic()
    while True:
        ended = not fit.is_alive()
        for what, values in ray.get(desk.take.remote()):
            _hear(outcome, progress, what, values)
        if ended:
            return
        room, now = cluster.room(), time.monotonic()
        if room >= workers:
            seen = now
        elif now - seen > _ROOM_SECONDS:
            raise UserError(
                f"a node of the Ray cluster was lost: there is room for {room} workers of"
                f" {cluster.worker}, not for {workers}; the same command with --workers"
                f" {max(room, 1)} goes on from the last checkpoint"
            )
        fit.join(_LISTEN_SECONDS)


def _hear(outcome: _Outcome, progress: Progress, what: str, values: tuple[Any, ...]) -> None:
    if what == "done":
        outcome.summary = pickle.loads(values[0])
    elif what == "failed":
        outcome.failed = outcome.failed or values[0]
    elif what == "begin":
        progress.begin(*values)
    elif what == "update":
        progress.update(*values)
    elif what == "end":
        progress.end()
    else:
        progress.say(*values)


def _reason(error: Exception) -> Exception:
    """Returns what the user is told where the workers were started again as often as they may; an
    error of ours as it is."""
    from ray.exceptions import RayError
    from ray.train import WorkerGroupError

    failures = [error]
    if isinstance(error, WorkerGroupError):
        failures = list(error.worker_failures.values())
    if not all(isinstance(one, RayError | UserError) for one in failures):
        return error
    said = " ".join(str(failures[0]).split())[:300]
    return UserError(
        f"workers were lost {_FAILURES + 1} times, the last time: {said}; see to their memory"
        " (--memory.microbatch_tokens, --workers); the same command goes on from the last"
        " checkpoint"
    )
