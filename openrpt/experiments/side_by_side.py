"""Jobs side by side, in processes that take one after another.

A job that fails ends the others as SIGTERM does: a training stage saves after its step and stops.
So does Ctrl-C; a second one ends them at once.
"""

import contextlib
import time
import traceback
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Generic, TypeVar

from openrpt.errors import UserError
from openrpt.progress import Progress

_Key = TypeVar("_Key", bound=Hashable)


@dataclass(frozen=True, kw_only=True)
class Job(Generic[_Key]):
    """A piece of work that other jobs may wait for."""

    key: _Key
    title: str
    work: Callable[[Progress], Any]
    """What is done; for other processes it must be importable by name, as a partial of a function
    is."""
    after: tuple[_Key, ...] = ()
    """Keys of the jobs that must have ended before it begins; they stand before it."""


def run_jobs(
    jobs: Sequence[Job[_Key]],
    *,
    workers: int,
    ended: Callable[[_Key, Any], None],
    progress: Progress,
) -> None:
    """Runs all jobs; of those that may begin, the first ones. `ended` gets each one's key and
    result, here.

    With one worker all is done in this process. Raises what a job raises, and UserError for a
    process that ends without a word.
    """
    if workers > 1 and len(jobs) > 1:
        _run_in_processes(jobs, workers, ended, progress)
        return
    for job in jobs:
        ended(job.key, job.work(progress))


@dataclass(kw_only=True, eq=False)
class _Worker(Generic[_Key]):
    """A process, and the job that it is at."""

    process: BaseProcess
    connection: Connection
    job: Job[_Key] | None = None
    begun: float = 0.0
    task: str = ""
    total: float = 0.0
    completed: float = 0.0

    def begin(self, job: Job[_Key]) -> None:
        self.job, self.begun, self.task = job, time.monotonic(), ""
        self.connection.send(job.work)

    @property
    def note(self) -> str:
        if self.job is None or not self.task:
            return ""
        known = self.total and self.completed <= self.total  # beyond it, the total was a guess
        share = f" {self.completed / self.total:.0%}" if known else ""
        return f"{self.job.title}: {self.task}{share}"


def _run_in_processes(
    jobs: Sequence[Job[_Key]],
    workers: int,
    ended: Callable[[_Key, Any], None],
    progress: Progress,
) -> None:
    waiting, done = list(jobs), set[_Key]()
    progress.begin("jobs", len(jobs), f"jobs, {workers} at a time")
    with _started() as crew:
        while len(done) < len(jobs):
            ready = [job for job in waiting if done.issuperset(job.after)]
            idle = [worker for worker in crew if worker.job is None]
            for job in ready[: workers - len(crew) + len(idle)]:
                waiting.remove(job)
                worker = idle.pop() if idle else _start(crew)
                worker.begin(job)
            for worker in _speaking(crew):
                result = _hear(worker, progress)
                if result is None:
                    continue
                assert worker.job is not None
                took = time.monotonic() - worker.begun
                progress.say(f"{worker.job.title}: done in {took:.0f} s")
                ended(worker.job.key, result[0])
                done.add(worker.job.key)
                worker.job = None
            progress.update(len(done), " · ".join(filter(None, (one.note for one in crew))))


def _start(crew: list[_Worker[_Key]]) -> _Worker[_Key]:
    context = get_context("spawn")  # a fork would share torch's threads
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs,), daemon=True)
    process.start()
    theirs.close()  # so that its end is seen here
    worker = _Worker[_Key](process=process, connection=ours)
    crew.append(worker)
    return worker


def _speaking(crew: Sequence[_Worker[_Key]]) -> list[_Worker[_Key]]:
    heard = wait([worker.connection for worker in crew])
    return [worker for worker in crew if worker.connection in heard]


def _hear(worker: _Worker[_Key], progress: Progress) -> tuple[Any] | None:
    """Takes one message; returns the job's result where it is that."""
    try:
        kind, *values = worker.connection.recv()
    except EOFError:
        title = worker.job.title if worker.job else "a process"
        raise UserError(
            f"{title}: its process ended without a word, as one does when memory runs out; the same"
            " command goes on, with fewer --workers in less memory"
        ) from None
    match kind:
        case "begin":
            (worker.task, worker.total), worker.completed = values, 0.0
        case "update":
            worker.completed = values[0]
        case "say":
            progress.say(f"{worker.job.title}: {values[0]}" if worker.job else values[0])
        case "failed":
            raise values[0]
        case "done":
            return (values[0],)
    return None


@contextlib.contextmanager
def _started() -> Iterator[list[_Worker[Any]]]:
    """Gives the list of processes; at its end they are asked to stop, and waited for."""
    crew: list[_Worker[Any]] = []
    try:
        yield crew
    finally:
        for worker in crew:
            worker.process.terminate()
        try:
            _drain(crew)
        except BaseException:  # Ctrl-C once more
            for worker in crew:
                worker.process.kill()
            raise


def _drain(crew: Sequence[_Worker[_Key]]) -> None:
    """Waits until all processes have ended; what they still say is not heard."""
    for worker in crew:
        with contextlib.suppress(EOFError, ConnectionError):
            while True:
                worker.connection.recv()
        worker.process.join()


class _Told:
    """A `Progress` that tells the process that started this one."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def begin(self, task: str, total: float, unit: str = "") -> None:
        """Begins a task."""
        self.connection.send(("begin", task, total))

    def update(self, completed: float, note: str = "") -> None:
        """Says how much of it is done."""
        self.connection.send(("update", completed))

    def say(self, line: str) -> None:
        """Says a line."""
        self.connection.send(("say", line))

    def end(self) -> None:
        """Says nothing: the process that listens sees how all of them are."""


def _serve(connection: Connection) -> None:
    """Does one job after another, until one fails or this process is ended."""
    told = _Told(connection)
    # A broken pipe: the process that asks is gone.
    with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):
        while True:
            try:
                result = connection.recv()(told)
            except EOFError:
                return
            except Exception as error:
                error.add_note(traceback.format_exc())
                connection.send(("failed", error))
                return
            connection.send(("done", result))
