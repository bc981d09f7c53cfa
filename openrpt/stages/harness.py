"""The loop that every training stage runs in: resuming, steps, limits, checkpoints, a clean stop.

A stage gives what one step does (`openrpt.stages.stage`); this gives the rest. Ctrl-C, SIGTERM and
SIGHUP let the step end, save and stop; an evaluation is left at once, and made up for by the next
start. A step that fails leaves the state of the step before it, which is saved.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from openrpt.config.binding import recorded_changes
from openrpt.config.sections import STAGES, StageName
from openrpt.engine.checkpoint_record import read_record
from openrpt.engine.cpu import KeptMemory
from openrpt.files import remove_folder
from openrpt.progress import Progress
from openrpt.rl.nonfinite import SKIPPED, finite_only, require_few_skipped
from openrpt.runs.checkpoints import latest_checkpoint, step_folder
from openrpt.runs.journal import Journal, open_journal
from openrpt.runs.metrics import truncate_metrics
from openrpt.runs.rollouts import forget_rollouts
from openrpt.runs.run import Run, next_name
from openrpt.runs.works import forget_works
from openrpt.stages.alike import require_alike
from openrpt.stages.saver import Saver, save_policy
from openrpt.stages.stage import Stage
from openrpt.stopping import Interrupted, StopFlag, stop_on_signals

_BEST = "development/reasoning_accuracy"
"""The metric whose greatest value so far marks the policy in `best`, beside the checkpoints."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """The outcome of a stage."""

    steps: int
    seconds: float
    """Time spent in steps, over all starts."""
    checkpoint: Path
    """The folder of the model that it made."""


def run_stage(stage: Stage, progress: Progress) -> Summary:
    """Runs an opened stage from where it stands until one of its limits.

    What an earlier start recorded of later steps is forgotten first. Another step begins only where
    the longest so far, those before a restart included, would end in time. Ends with a checkpoint,
    and with the model where the stage leaves it. Raises Interrupted after Ctrl-C, SIGTERM or
    SIGHUP, UserError where a step fails or too many are left out; what is whole is saved then.

    Of several processes (`stage.workers`) all take the same steps, and the first writes.
    """
    workers = stage.workers
    require_alike(stage)
    workers.first(lambda: _forget_later_steps(stage))
    state, limits = stage.state, stage.limits
    timed = limits.seconds < math.inf
    total, done = (limits.seconds, state.seconds) if timed else (limits.steps, state.step)
    progress.begin(state.stage, total, "s" if timed else "steps")
    if state.step and done < total:
        progress.update(done, f"after step {state.step}")
    journal = open_journal(
        stage.run.metrics,
        stage=state.stage,
        step=state.step,
        steps=limits.steps,
        seconds=limits.seconds,
        changed=_changes(stage),
        progress=progress,
        writes=workers.rank == 0,
    )
    saver, memory = Saver(stage=stage, step=state.step), KeptMemory()
    with stop_on_signals(progress.say) as stop, journal as records:
        longest = longest_step(records.rows)
        if state.step >= limits.steps or state.seconds + longest >= limits.seconds:
            progress.say(_nothing_left(stage))
        if records.unevaluated:
            _make_up(stage, saver, records, progress, stop)
        while _goes_on(stage, saver, longest, stop):
            began = state.seconds
            metrics = _one_step(stage, saver, records, progress, stop)
            longest = max(longest, state.seconds - began)
            with saver.after():
                is_due = workers.gather(saver.is_due)[0]
            if is_due:
                saver.now()
            said = "left out" if metrics.get(SKIPPED) else stage.describe(metrics)
            progress.update(state.seconds if timed else state.step, f"step {state.step} · {said}")
            memory.step_ended()
        saver.now()
        if signum := max(workers.gather(stop.signum)):
            raise Interrupted(
                f"stopped in {state.stage} after step {state.step}; the same command goes on",
                exit_code=128 + signum,
            )
    return Summary(steps=state.step, seconds=state.seconds, checkpoint=_leave(stage, saver))


def _goes_on(stage: Stage, saver: Saver, longest: float, stop: StopFlag) -> bool:
    """Returns whether another step is taken. All processes decide alike: by the first one's clock,
    and by a signal that has come to any of them. `longest`: seconds of the longest step so far."""
    state, limits = stage.state, stage.limits
    with saver.after():
        each = stage.workers.gather((state.seconds, longest, stop.requested))
    state.seconds, longest, _ = each[0]
    in_time = state.seconds + longest < limits.seconds
    return state.step < limits.steps and in_time and not any(asked for *_, asked in each)


def _nothing_left(stage: Stage) -> str:
    """Returns why no step is taken, and what to type for more of them or for a new beginning."""
    name, run, limits, steps = stage.state.stage, stage.run, stage.limits, stage.state.step
    section = "train" if name == "finetune" else name
    if not steps:
        return f"{run.path}: no step of {name} fits into {section}.steps and {section}.time_limit"
    settings, more = getattr(stage.config, section), ""
    if steps >= limits.steps == settings.steps:
        more = f"--{section}.steps {2 * steps}"
    elif limits.seconds == settings.time_limit * 60:
        more = f"--{section}.time_limit {2 * settings.time_limit:g}"
    on = f"; to go on: openrpt {name} --run {run.path} {more}" if more else ""
    return f"{done_before(run, name)}{on}"


def done_before(run: Run, stage: StageName) -> str:
    """Says that a stage has nothing left to do, and what to type to do it again."""
    again = f"openrpt {stage} --from {run.path} --run {next_name(run.path)}"
    return f"{run.path}: {stage} was done before, and nothing now; to do it again: {again}"


def _make_up(
    stage: Stage, saver: Saver, records: Journal, progress: Progress, stop: StopFlag
) -> None:
    """Makes the evaluation of the last step, which failed or was left."""
    started = time.perf_counter()
    with saver.after():
        metrics = _evaluate(stage, progress, stop)
        if metrics is None:
            return
        if stage.limits.count_evaluations:
            stage.state.seconds += time.perf_counter() - started
        saver.now(again=True)  # before the row says that it is made: the state has the best so far
        records.amend(metrics)


def _one_step(
    stage: Stage, saver: Saver, records: Journal, progress: Progress, stop: StopFlag
) -> dict[str, Any]:
    """Takes a step, evaluates where that is due, and records both; returns the metrics."""
    state, started = stage.state, time.perf_counter()
    with saver.whole():
        metrics = stage.step(store=stage.workers.rank == 0)
    if metrics.get(SKIPPED):
        metrics = finite_only(metrics)
    stepped = time.perf_counter()
    evaluated, failure = _attempt(stage, progress, stop)
    metrics |= evaluated or {}
    ended = time.perf_counter() if stage.limits.count_evaluations else stepped
    state.seconds += ended - started
    records.record(state.step, metrics, seconds=state.seconds, evaluated=evaluated is not None)
    with saver.after():
        if failure is not None:
            raise failure
        records.tell(state.step, metrics)
        require_few_skipped(records.rows, stage.config.optim)
    return metrics


def _attempt(
    stage: Stage, progress: Progress, stop: StopFlag
) -> tuple[dict[str, float] | None, Exception | None]:
    """Evaluates; returns the metrics, or what is raised: the row of a whole step is to be written
    in either case."""
    try:
        return _evaluate(stage, progress, stop), None
    except Exception as error:  # raised again, once the row is written
        return None, error


def _evaluate(stage: Stage, progress: Progress, stop: StopFlag) -> dict[str, float] | None:
    """Evaluates where that is due after a step, and keeps the best policy so far; None where a
    signal asks for a stop before it is done."""
    state = stage.state
    if not stage.eval_every or state.step % stage.eval_every:
        return {}
    done = state.seconds if stage.limits.seconds < math.inf else state.step - 1
    progress.update(done, f"evaluating after step {state.step}")
    with stage.engine.model.reading():
        if stage.engine.model.divided is None:
            metrics = stage.workers.first(lambda: stop.cut_short(stage.evaluate))
        else:  # the other processes take part in its passes
            metrics = stage.workers.first(stage.evaluate)
    if metrics is None:
        return None
    accuracy = metrics.get(_BEST, -1.0)
    if accuracy > state.best_accuracy:
        best = replace(state, best_step=state.step, best_accuracy=accuracy)
        save_policy(stage, stage.run.checkpoints_of(state.stage) / "best", best)
        state.best_step, state.best_accuracy = best.best_step, best.best_accuracy
    return metrics


def _changes(stage: Stage) -> dict[str, dict[str, Any]]:
    """Returns the settings that hold from the next step on, as `recorded_changes` gives them."""
    last = latest_checkpoint(stage.run.checkpoints_of(stage.state.stage))
    if last is None:
        return {}
    return recorded_changes(read_record(last).config, stage.config, stage.state.stage)


def _forget_later_steps(stage: Stage) -> None:
    """Deletes what is recorded of steps after the checkpoint, since they are about to be run
    again."""
    run, state = stage.run, stage.state
    truncate_metrics(run.metrics, state.stage, state.step)
    if STAGES[state.stage].rollouts:
        forget_works(run.path, state.stage, state.step)
        forget_rollouts(run.path, state.step)


def _leave(stage: Stage, saver: Saver) -> Path:
    """Puts the model where the stage leaves it, and says where it is."""
    facts, run = STAGES[stage.state.stage], stage.run
    if not facts.leaves:
        return step_folder(saver.checkpoints, stage.state.step)
    folder = run.path / facts.leaves
    save_policy(stage, folder, stage.state)
    if saver.writes:
        remove_folder(saver.checkpoints)
    return folder


def longest_step(rows: Sequence[dict[str, Any]]) -> float:
    """Returns seconds, among the steps that a stage's rows have one after another; 0 if there is
    none."""
    pairs = pairwise([{"step": 0, "seconds": 0.0}, *rows])
    each = [b["seconds"] - a["seconds"] for a, b in pairs if b["step"] == a["step"] + 1]
    return max(each, default=0.0)
