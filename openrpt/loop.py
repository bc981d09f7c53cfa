"""The loop that every training stage runs in: steps, limits, checkpoints, a clean stop.

A stage gives what one step does and how a checkpoint is saved; this gives the rest. Ctrl-C lets
the step end, saves and stops; a second Ctrl-C stops at once (the last checkpoint stands).
"""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from openrpt.checkpoints import TrainerState
from openrpt.journal import open_journal
from openrpt.progress import Progress


class Interrupted(Exception):
    """A stage stopped early, at the user's wish; its last checkpoint is whole."""


class StopFlag:
    """Set by the first Ctrl-C."""

    def __init__(self) -> None:
        self.requested = False


@contextmanager
def stop_on_interrupt(progress: Progress) -> Iterator[StopFlag]:
    flag = StopFlag()
    if threading.current_thread() is not threading.main_thread():
        yield flag  # signals reach the main thread only
        return
    before = signal.getsignal(signal.SIGINT)

    def handle(signum: int, frame: Any) -> None:
        flag.requested = True
        signal.signal(signal.SIGINT, before)
        progress.say("Stopping after this step (Ctrl-C again stops at once) …")

    signal.signal(signal.SIGINT, handle)
    try:
        yield flag
    finally:
        signal.signal(signal.SIGINT, before)


def run_steps(
    state: TrainerState,
    *,
    steps: int,
    time_limit: float,
    checkpoint_every: int,
    checkpoint_minutes: float,
    metrics_path: Path,
    step: Callable[[], dict[str, Any]],
    save: Callable[[], None],
    describe: Callable[[dict[str, Any]], str],
    progress: Progress,
) -> None:
    """Runs `step` until `steps` are done or another one might not end within `time_limit` minutes
    (0 = no limit), judged by the longest so far.

    `state.step` is the step's number while it runs. Ends with a checkpoint. Raises Interrupted
    after Ctrl-C.
    """
    limit = time_limit * 60 or float("inf")
    timed = limit < float("inf")
    progress.begin(state.stage, limit if timed else steps, "s" if timed else "steps")
    progress.update(state.seconds if timed else state.step)
    saved_at, saved_step = time.monotonic(), state.step
    longest = 0.0
    journal = open_journal(
        metrics_path,
        stage=state.stage,
        step=state.step,
        steps=steps,
        seconds=limit,
        progress=progress,
    )
    with stop_on_interrupt(progress) as stop, journal as records:
        while state.step < steps and state.seconds + longest < limit and not stop.requested:
            started = time.perf_counter()
            state.step += 1
            metrics = step()
            seconds = time.perf_counter() - started
            state.seconds += seconds
            longest = max(longest, seconds)
            records.record(state.step, metrics, seconds=state.seconds)
            due = state.step % checkpoint_every == 0
            if due or time.monotonic() - saved_at > checkpoint_minutes * 60:
                save()
                saved_at, saved_step = time.monotonic(), state.step
            progress.update(
                state.seconds if timed else state.step, f"step {state.step} · {describe(metrics)}"
            )
        if saved_step != state.step:
            save()
        if stop.requested:
            raise Interrupted(
                f"stopped in {state.stage} after step {state.step}; the same command goes on"
            )
