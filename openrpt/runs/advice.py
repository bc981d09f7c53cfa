"""Advice that names keys, as commands: in the folder that got it where the keys may change there,
else of a run that begins from it."""

import re

from openrpt.config.binding import bindings, settings_of
from openrpt.config.sections import STAGES, StageName
from openrpt.runs.run import Run, first_reader, next_name


def advised_keys(text: str) -> list[str]:
    """Returns the keys of the configuration that a text names."""
    return [key for key in bindings() if re.search(rf"(?<![\w.]){re.escape(key)}(?![\w.])", text)]


def how_to(run: Run, text: str, *, stage: StageName) -> list[str]:
    """Returns the commands that follow a text's advice on a stage, a line each: `V` stands for the
    value."""
    here = [f"--{key} V" for key in advised_keys(text) if _may_change(run, key, stage)]
    lines = [f"in this run: openrpt {stage} --run {run.path} {' '.join(here)}"] if here else []
    for key in advised_keys(text):
        if not _may_change(run, key, stage):
            begin = f"openrpt {first_reader(key)} --from {run.path} --run {next_name(run.path)}"
            lines.append(f"in another that begins from it: {begin} --{key} V")
    return lines


def _may_change(run: Run, key: str, stage: StageName) -> bool:
    """Returns whether a run whose `stage` has begun goes on with another value of a key, and that
    does something."""
    section, leaves = key.partition(".")[0], STAGES[stage].leaves
    own = ("train", "finetune") if stage == "finetune" else (stage,)
    if section in STAGES and section not in own:  # another stage's, which has been
        return False
    if leaves and (run.path / leaves).is_dir():  # done: it is not opened again
        return False
    standing = run.standing() | {stage}
    bound = any(key in settings_of(one, run.config) for one in standing)
    return bindings()[key].recorded or not bound
