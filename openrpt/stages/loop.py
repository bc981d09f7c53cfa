"""The loop that every training stage runs in: steps, limits, checkpoints, a clean stop.

A stage gives what one step does and how a checkpoint is saved; this gives the rest. Ctrl-C,
SIGTERM and SIGHUP let the step end, save and stop. A step that fails leaves the state of the step
before it, which is saved.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from openrpt.config.binding import recorded_changes
from openrpt.config.sections import Config
from openrpt.engine.checkpoint_record import TrainerState, read_record
from openrpt.errors import UserError
from openrpt.progress import Progress
from openrpt.rl.nonfinite import SKIPPED, finite_only, require_few_skipped
from openrpt.runs.checkpoints import latest_checkpoint, step_folder
from openrpt.runs.journal import open_journal
from openrpt.stopping import Interrupted, stop_on_signals


@dataclass(kw_only=True)
class Saver:
    """Saves checkpoints when they are due, and what is whole when a step fails."""

    state: TrainerState
    save: Callable[[], None]
    checkpoints: Path
    every: int
    """Steps."""
    seconds: float
    at: float = field(default_factory=time.monotonic)
    step: int
    """The last one that is saved."""

    def if_due(self) -> None:
        late = time.monotonic() - self.at > self.seconds
        if late or self.state.step % self.every == 0:
            self.now()

    def now(self) -> None:
        if self.step != self.state.step:
            self.save()
        self.at, self.step = time.monotonic(), self.state.step

    @contextmanager
    def whole(self, optimizer: torch.optim.Optimizer) -> Iterator[None]:
        """A step runs in it. Where that fails, `state` becomes what it was before, and is saved;
        unless the weights had changed already, which belong to no whole step then."""
        state, before = self.state, replace(self.state)
        updates: list[int] = []
        hook = optimizer.register_step_pre_hook(lambda *_: updates.append(state.step))
        state.step += 1
        try:
            yield
        except Exception as error:  # whatever it is: it goes on once what is whole is saved
            vars(state).update(vars(before))
            kept = self._lost() if updates else self._kept()
            raise _told(error, f"{state.stage}, step {state.step + 1}", kept) from None
        finally:
            hook.remove()

    @contextmanager
    def after(self) -> Iterator[None]:
        """What follows a whole step runs in it; where that fails, the step is saved."""
        try:
            yield
        except Exception as error:  # as above
            where = f"{self.state.stage}, after step {self.state.step}"
            raise _told(error, where, self._kept()) from None

    def _kept(self) -> str:
        """Saves, and says what is saved."""
        try:
            self.now()
        except UserError as error:
            return f"the steps after step {self.step} could not be saved: {error}"
        return f"all up to step {self.step} is saved" if self.step else ""

    def _lost(self) -> str:
        """Where the weights that are in memory belong to no whole step."""
        steps = self.state.step - self.step
        text = "the weights had changed already"
        if steps:
            text += f", so what {steps} step{'s' * (steps > 1)} before it did is lost, too"
        if self.step:
            return (
                f"{text}: the same command goes on from {step_folder(self.checkpoints, self.step)}"
            )
        return f"{text}: the same command begins anew"


def _told(error: Exception, where: str, kept: str) -> Exception:
    """The error with where it happened and what is saved: in a UserError's line, else as a note."""
    kept = f"; {kept}" if kept else ""
    if isinstance(error, UserError):
        return UserError(f"{where}: {error}{kept}")
    error.add_note(f"{where}{kept}")
    return error


def run_steps(
    state: TrainerState,
    *,
    config: Config,
    optimizer: torch.optim.Optimizer,
    steps: int,
    time_limit: float,
    checkpoint_every: int,
    checkpoints: Path,
    metrics_path: Path,
    step: Callable[[], dict[str, Any]],
    evaluate: Callable[[], dict[str, Any]] = dict,
    save: Callable[[], None],
    describe: Callable[[dict[str, Any]], str],
    progress: Progress,
) -> None:
    """Runs `step` until `steps` are done or another one might not end within `time_limit` minutes
    (0 = no limit), judged by the longest so far, those before a restart included.

    `state.step` is the step's number while it runs; `evaluate` adds metrics once its weights are
    there. Ends with a checkpoint in `checkpoints`, where `save` puts them. Raises Interrupted after
    Ctrl-C, SIGTERM or SIGHUP, UserError where a step fails or too many are left out; what is whole
    is saved then.
    """
    limit = time_limit * 60 or float("inf")
    timed = limit < float("inf")
    progress.begin(state.stage, limit if timed else steps, "s" if timed else "steps")
    progress.update(state.seconds if timed else state.step)
    saver = Saver(
        state=state,
        save=save,
        checkpoints=checkpoints,
        every=checkpoint_every,
        seconds=config.checkpoints.minutes * 60,
        step=state.step,
    )
    last = latest_checkpoint(checkpoints)
    journal = open_journal(
        metrics_path,
        stage=state.stage,
        step=state.step,
        steps=steps,
        seconds=limit,
        changed=recorded_changes(read_record(last).config, config, state.stage) if last else {},
        progress=progress,
    )
    with stop_on_signals(progress.say) as stop, journal as records:
        longest = longest_step(records.rows)
        if records.unevaluated:
            started = time.perf_counter()
            with saver.after():
                records.amend(evaluate())
            state.seconds += time.perf_counter() - started  # as in a step: evaluations count
        while state.step < steps and state.seconds + longest < limit and not stop.requested:
            began, started = state.seconds, time.perf_counter()
            with saver.whole(optimizer):
                metrics = step()
            if metrics.get(SKIPPED):
                metrics = finite_only(metrics)
            evaluated, failure = attempt(evaluate)
            metrics |= evaluated
            state.seconds += time.perf_counter() - started
            longest = max(longest, state.seconds - began)
            records.record(state.step, metrics, seconds=state.seconds, evaluated=failure is None)
            with saver.after():
                if failure is not None:
                    raise failure
                records.tell(state.step, metrics)
                require_few_skipped(records.rows, config.optim)
            saver.if_due()
            said = "left out" if metrics.get(SKIPPED) else describe(metrics)
            progress.update(state.seconds if timed else state.step, f"step {state.step} · {said}")
        saver.now()
        if stop.requested:
            raise Interrupted(
                f"stopped in {state.stage} after step {state.step}; the same command goes on",
                exit_code=stop.exit_code,
            )


def attempt(evaluate: Callable[[], dict[str, Any]]) -> tuple[dict[str, Any], Exception | None]:
    """What it gives, or what it raises: the row of a whole step is to be written in either case."""
    try:
        return evaluate(), None
    except Exception as error:  # raised again, once the row is written
        return {}, error


def longest_step(rows: Sequence[dict[str, Any]]) -> float:
    """Seconds, among the steps that a stage's rows have one after another; 0 if there is none."""
    pairs = pairwise([{"step": 0, "seconds": 0.0}, *rows])
    each = [b["seconds"] - a["seconds"] for a, b in pairs if b["step"] == a["step"] + 1]
    return max(each, default=0.0)
