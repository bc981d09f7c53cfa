"""A stage with nothing left to do: how it is seen, and what to type for more or to begin anew."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from openrpt.config.as_typed import as_option
from openrpt.config.binding import differing_settings
from openrpt.config.sections import Config, StageName
from openrpt.engine.checkpoint_record import read_record
from openrpt.progress import Progress
from openrpt.runs.checkpoints import latest_checkpoint, require_own, step_folder
from openrpt.runs.journal import is_unevaluated, rows_of
from openrpt.runs.run import Run, next_name, stored_config
from openrpt.stages.stage import Limits, Summary


def finished(
    run: Run, stage: StageName, config: Config, limits: Limits, progress: Progress
) -> Summary | None:
    """Returns the outcome of a stage to which its limits leave no step, and says so; None where a
    step is left, or an evaluation to make up for. Only reads.

    `config`: as the stage reads it. Raises UserError for damaged records, and for a checkpoint that
    was made with another value of a binding key.
    """
    folder = run.checkpoints_of(stage)
    last, step, seconds = latest_checkpoint(folder), 0, 0.0
    if last is not None:
        record = read_record(last)
        if record.state.stage != stage:  # which is refused where it is opened
            return None
        require_own(record, last, config, stage=stage)
        step, seconds = record.state.step, record.state.seconds
    rows = [row for row in rows_of(run, stage) if row["step"] <= step]
    fits = step < limits.steps and seconds + longest_step(rows) < limits.seconds
    if fits or is_unevaluated(rows):
        return None
    progress.say(_nothing_left(run, stage, limits, step))
    return Summary(steps=step, seconds=seconds, checkpoint=step_folder(folder, step))


def _nothing_left(run: Run, stage: StageName, limits: Limits, steps: int) -> str:
    """Returns why no step is taken, and what to type for more of them or for a new beginning."""
    section = "train" if stage == "finetune" else stage
    if not steps:
        return f"{run.path}: no step of {stage} fits into {section}.steps and {section}.time_limit"
    settings, more = getattr(run.config, section), ""
    if steps >= limits.steps == settings.steps:
        more = f"--{section}.steps {2 * steps}"
    elif limits.seconds == settings.time_limit * 60:
        more = f"--{section}.time_limit {2 * settings.time_limit:g}"
    on = f"; to go on: openrpt {stage} --run {run.path} {more}" if more else ""
    return f"{done_before(run, stage)}{on}"


def done_before(run: Run, stage: StageName) -> str:
    """Says that a stage has nothing left to do, and what to type to do it again: with what the
    run's configuration has otherwise than its folder."""
    again = f"openrpt {stage} --from {run.path} --run {next_name(run.path)}"
    typed = differing_settings([stored_config(run.path), run.config])
    options = "".join(f" {as_option(key, now)}" for key, (_, now) in typed.items())
    return f"{run.path}: {stage} was done before, and nothing now; to do it again: {again}{options}"


def longest_step(rows: Sequence[dict[str, Any]]) -> float:
    """Returns seconds, among the steps that a stage's rows have one after another; 0 if there is
    none."""
    pairs = pairwise([{"step": 0, "seconds": 0.0}, *rows])
    each = [b["seconds"] - a["seconds"] for a, b in pairs if b["step"] == a["step"] + 1]
    return max(each, default=0.0)
