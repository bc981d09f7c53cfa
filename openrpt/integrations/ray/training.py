"""Reinforcement on a Ray cluster: Ray Train's `TorchTrainer` around the loop of `openrpt train`.

Ray Train starts the workers, brings them together in a process group and starts all of them again
where one is lost. Steps and checkpoints are our own: the workers go on from the last checkpoint in
the run folder, which all nodes share, and what was recorded after it is forgotten.
"""

import _thread
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from openrpt.engine.cpu import use_cpu
from openrpt.errors import SaidElsewhere, UserError
from openrpt.files import remove_folder
from openrpt.integrations.ray.cluster import Cluster, connected
from openrpt.integrations.ray.desk import Desk, Told
from openrpt.progress import SILENT, Progress
from openrpt.rl.process_group import LostProcess, launched_workers
from openrpt.runs.run import Run
from openrpt.stages.harness import Summary
from openrpt.stages.train import train
from openrpt.stopping import Interrupted

FAILURES = 5
"""How often the workers are started again."""
_OWN = ".ray"
"""Ray Train's own folder in a run, gone when it ends."""
_LISTEN_SECONDS = 0.5
_ROOM_SECONDS = 60.0
"""Seconds that a lost node has to come back, before a run that needs it ends."""


@dataclass(kw_only=True, slots=True)
class _Outcome:
    """What became of the training, as far as was heard."""

    summary: Summary | None = None
    failed: str = ""
    """What the user is to mend; empty where nothing."""
    lost: str = ""
    """Why there is no going on in this cluster."""
    heard: threading.Event = field(default_factory=threading.Event)
    """Set once all is heard."""


def train_on(cluster: Cluster, run: Run, progress: Progress = SILENT) -> Summary:
    """Trains as `openrpt.stages.train.train`, whose results it has, on a cluster.

    Workers that are lost are started again, FAILURES times. Raises UserError as the stage, for what
    the cluster lacks, and where workers are lost again and again; Interrupted at Ctrl-C. What the
    last checkpoint holds is kept in any case.
    """
    with connected(cluster, run.path) as workers:
        import ray
        from ray.train import TrainingFailedError

        here = ray.get_runtime_context().get_node_id()
        beside: Any = ray.remote(num_cpus=0, label_selector={"ray.io/node-id": here})(Desk)
        desk = beside.remote()
        trainer = _trainer(cluster, workers, run, desk)
        progress.begin(f"start {workers} workers", 0)
        outcome = _Outcome()
        try:
            with _heard(outcome, desk, progress, cluster, workers), _own_handler():
                trainer.fit()
        except TrainingFailedError as error:
            if not outcome.failed:
                raise _reason(error) from error
        finally:
            remove_folder(run.path / _OWN)
    if said := outcome.failed or outcome.lost:
        raise UserError(said)
    if outcome.summary is None:
        raise Interrupted("stopped; the same command goes on from the last checkpoint")
    return outcome.summary


def _trainer(cluster: Cluster, workers: int, run: Run, desk: Any) -> Any:
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
            failure_config=FailureConfig(max_failures=FAILURES),
        ),
    )


def _work(settings: dict[str, Any]) -> None:
    """The whole of a training, in one of Ray Train's workers."""
    import ray.train

    desk, config, rank = (
        settings["desk"],
        settings["config"],
        ray.train.get_context().get_world_rank(),
    )
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
        ray.get(desk.tell.remote("done", summary))


def _has_ended(desk: Any, rank: int) -> bool:
    """Returns whether an earlier start has met what no new one helps against."""
    import ray

    starts, failed = ray.get(desk.start.remote())
    if rank == 0 and not failed and starts > ray.train.get_context().get_world_size():
        desk.tell.remote("say", "a worker was lost: all go on from the last checkpoint")
    return bool(failed)


@contextmanager
def _heard(
    outcome: _Outcome, desk: Any, progress: Progress, cluster: Cluster, workers: int
) -> Iterator[None]:
    """Listens to the workers meanwhile, and looks whether there is room for them."""
    ended = threading.Event()

    def listen() -> None:
        import ray

        without = 0.0
        while True:
            last = ended.wait(_LISTEN_SECONDS)
            for what, values in ray.get(desk.take.remote()):
                _hear(outcome, progress, what, values)
            if last:
                return
            room = cluster.room()
            without = without + _LISTEN_SECONDS if room < workers else 0.0
            if without > _ROOM_SECONDS and not outcome.lost:
                outcome.lost = (
                    f"a node of the Ray cluster was lost: there is room for {room} workers of"
                    f" {cluster.worker}, not for {workers}; the same command with"
                    f" --workers {max(room, 1)} goes on from the last checkpoint"
                )
                _thread.interrupt_main()

    listener = threading.Thread(target=listen, name="listen to the workers", daemon=True)
    listener.start()
    try:
        yield
    finally:
        ended.set()
        listener.join()


def _hear(outcome: _Outcome, progress: Progress, what: str, values: tuple[Any, ...]) -> None:
    if what == "done":
        (outcome.summary,) = values
    elif what == "failed":
        outcome.failed = outcome.failed or values[0]
    elif what == "begin":
        progress.begin(*values)
    elif what == "update":
        progress.update(*values)
    else:
        progress.say(*values)


@contextmanager
def _own_handler() -> Iterator[None]:
    """Gives Ctrl-C back what it did before: Ray Train lets it end the training, for ever."""
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, before)


def _reason(error: Exception) -> Exception:
    """Returns what the user is told where the workers were started again as often as they may; an
    error of ours as it is."""
    from ray.exceptions import RayError
    from ray.train import WorkerGroupError

    failures = error.worker_failures if isinstance(error, WorkerGroupError) else {}
    known = [one for one in failures.values() if isinstance(one, RayError | UserError)]
    if not known or len(known) < len(failures):
        return error
    said = " ".join(str(known[0]).split())[:300]
    return UserError(
        f"workers were lost {FAILURES + 1} times, the last time: {said}; see to their memory"
        " (--memory.microbatch_tokens, --workers), the same command goes on from the last checkpoint"
    )
