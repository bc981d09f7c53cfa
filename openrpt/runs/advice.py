"""Advice that names keys, as commands: in the folder that got it where the keys may change there,
else of a run that begins from it."""

import re
from collections.abc import Sequence

from openrpt.config.binding import bindings, settings_of
from openrpt.config.loading import flatten
from openrpt.config.sections import STAGES, StageName
from openrpt.runs.run import Run, first_reader, next_name


def advised_keys(text: str) -> list[str]:
    """Returns the keys of the configuration that a text names."""
    return [key for key in bindings() if re.search(rf"(?<![\w.]){re.escape(key)}(?![\w.])", text)]


def naming(run: Run, text: str) -> str:
    """Returns a text that speaks of commands, with the run's folder in the place of RUN."""
    return re.sub(r"\bRUN\b", lambda _: str(run.path), text)


def how_to(run: Run, text: str, *, stage: StageName) -> list[str]:
    """Returns the commands that follow a text's advice on a stage, a line each, with `VALUE` for
    what the user is to choose, and the value that it takes the place of."""
    keys = advised_keys(text)
    here = [key for key in keys if _may_change(run, key, stage)]
    lines = []
    if here:
        options = " ".join(f"--{key} VALUE" for key in here)
        lines.append(f"in this run ({_now(run, here)}): openrpt {stage} --run {run.path} {options}")
    for key in keys:
        if key not in here:
            begin = f"openrpt {first_reader(key)} --from {run.path} --run {next_name(run.path)}"
            lines.append(
                f"in another that begins from it ({_now(run, [key])}): {begin} --{key} VALUE"
            )
    return lines


def _now(run: Run, keys: Sequence[str]) -> str:
    """Returns the values that keys have: `now train.group_size 8`."""
    values = flatten(run.config.model_dump(mode="json"))
    return "now " + ", ".join(f"{key} {values[key]}" for key in keys)


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
