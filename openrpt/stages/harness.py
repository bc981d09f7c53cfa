"""The loop that every training stage runs in: resuming, steps, limits, checkpoints, a clean stop.

A stage gives what one step does (`openrpt.stages.stage`); this gives the rest. Ctrl-C, SIGTERM and
SIGHUP let the step end, save and stop; an evaluation is left at once, and made up for by the next
start. A step that fails leaves the state of the step before it, which is saved.
"""

import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from openrpt.config.binding import recorded_changes
from openrpt.config.sections import STAGES
from openrpt.engine.checkpoint_record import read_record
from openrpt.engine.cpu import KeptMemory
from openrpt.files import remove_folder
from openrpt.progress import Progress
from openrpt.rl.nonfinite import SKIPPED, finite_only, require_few_skipped
from openrpt.runs.checkpoints import latest_checkpoint, step_folder
from openrpt.runs.journal import Journal, open_journal
from openrpt.runs.metrics import truncate_metrics
from openrpt.runs.reading import setting_changes
from openrpt.runs.rollouts import forget_rollouts
from openrpt.runs.run import keep_config
from openrpt.runs.works import forget_works
from openrpt.stages.alike import require_alike
from openrpt.stages.finished import finished, longest_step
from openrpt.stages.saver import Saver, save_policy
from openrpt.stages.stage import Stage, Summary
from openrpt.stopping import Interrupted, StopFlag, stop_on_signals

_BEST = "development/reasoning_accuracy"
"""The metric whose greatest value so far marks the policy in `best`, beside the checkpoints."""


def run_stage(stage: Stage, progress: Progress) -> Summary:
    """Runs an opened stage from where it stands until one of its limits.

    What an earlier start recorded of later steps is forgotten first. Another step begins only where
    the longest so far, those before a restart included, would end in time. Ends with a checkpoint,
    and with the model where the stage leaves it. Raises Interrupted after Ctrl-C, SIGTERM or
    SIGHUP, UserError where a step fails or too many are left out; what is whole is saved then.

    Of several processes (`stage.workers`) all take the same steps, and the first writes.
    """
    workers, state, limits = stage.workers, stage.state, stage.limits
    require_alike(stage)
    workers.first(lambda: _forget_later_steps(stage))
    done = finished(stage.run, state.stage, stage.config, limits, progress)
    if done is not None:
        return replace(done, checkpoint=_leave(stage, writes=workers.rank == 0))
    changed = _changes(stage)
    row = {"stage": state.stage, "step": state.step + 1, "changed": changed}
    for line in setting_changes([row]):
        progress.say(line)
    workers.first(lambda: keep_config(stage.run))
    timed = limits.seconds < math.inf
    total, past = (limits.seconds, state.seconds) if timed else (limits.steps, state.step)
    progress.begin(state.stage, total, "s" if timed else "steps")
    if state.step and past < total:
        progress.update(past, f"after step {state.step}")
    journal = open_journal(
        stage.run,
        stage=state.stage,
        step=state.step,
        steps=limits.steps,
        seconds=limits.seconds,
        changed=changed,
        progress=progress,
        writes=workers.rank == 0,
    )
    saver, memory = Saver(stage=stage, step=state.step), KeptMemory()
    with stop_on_signals(progress.say) as stop, journal as records:
        longest = longest_step(records.rows)
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
    made = _leave(stage, writes=saver.writes)
    return Summary(steps=state.step, seconds=state.seconds, checkpoint=made)


def _goes_on(stage: Stage, saver: Saver, longest: float, stop: StopFlag) -> bool:
    """Returns whether another step is taken. All processes decide alike: by the first one's clock,
    and by a signal that has come to any of them. `longest`: seconds of the longest step so far."""
    state, limits = stage.state, stage.limits
    with saver.after():
        each = stage.workers.gather((state.seconds, longest, stop.requested))
    state.seconds, longest, _ = each[0]
    in_time = state.seconds + longest < limits.seconds
    return state.step < limits.steps and in_time and not any(asked for *_, asked in each)


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


def _leave(stage: Stage, *, writes: bool) -> Path:
    """Puts the model, where there is one, where the stage leaves it, and says where it is.
    `writes`: whether this process does that, of those that share the stage."""
    state, run = stage.state, stage.run
    facts, checkpoints = STAGES[state.stage], run.checkpoints_of(state.stage)
    if not facts.leaves:
        return step_folder(checkpoints, state.step)
    folder = run.path / facts.leaves
    if state.step:
        save_policy(stage, folder, state)
        if writes:
            remove_folder(checkpoints)
    return folder
