"""Every kept rollout on disk.

A row a rollout, in parquet files: one a step of training, one a development evaluation, one a
model that was evaluated. It is enough to see why a rollout was rewarded: the end of
its prefix, its thought and prediction as bytes, and the true continuation token by token.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from openrpt.data.tokens import TokenTable, bytes_of
from openrpt.errors import UserError
from openrpt.files import numbered
from openrpt.parquet import not_readable, read_table, reading_errors, write_table
from openrpt.types import Group, Rollout

STORED_CONTINUATION = 12
STORED_PREFIX = 48
_MOST_RANGES = 12
"""Most ranges of steps that a message names."""


_TERMS = pa.list_(pa.struct([("name", pa.string()), ("value", pa.float32())]))
SCHEMA = pa.schema(
    [
        ("step", pa.int64()),
        ("policy_version", pa.int64()),
        ("document_id", pa.string()),
        ("position", pa.int64()),
        ("rollout", pa.int64()),
        ("entropy", pa.float32()),
        ("prefix_end", pa.binary()),
        ("continuation", pa.list_(pa.binary())),
        ("ntp_prediction", pa.binary()),
        ("ntp_top", pa.list_(pa.binary())),
        ("ntp_top_logprobs", pa.list_(pa.float32())),
        ("candidates", pa.list_(pa.binary())),
        ("candidate_logprobs", pa.list_(pa.float32())),
        ("thought", pa.binary()),
        ("prediction", pa.binary()),
        ("reward", pa.float32()),
        ("exact", pa.bool_()),
        ("reward_terms", _TERMS),
        ("advantage", pa.float32()),
        ("finish_reason", pa.string()),
        ("token_ids", pa.list_(pa.int32())),
        ("tokens", pa.list_(pa.binary())),
        ("sampler_logprobs", pa.list_(pa.float32())),
        ("loss_mask", pa.list_(pa.bool_())),
    ]
)


def rollout_rows(
    step: int | None,
    groups: Sequence[Group],
    advantages: Sequence[Sequence[float]],
    continuations: Sequence[Sequence[bytes]],
    table: TokenTable,
    *,
    policy_version: int | None = None,
) -> list[dict]:
    """Returns rows of the rollout file; continuations are the true tokens after each position.
    `step`, and `policy_version`, the steps behind the weights that drew them: None for a model that
    is evaluated."""
    rows = []
    for group, group_advantages, continuation in zip(
        groups, advantages, continuations, strict=True
    ):
        shared = {"step": step, "policy_version": policy_version}
        shared |= _position_columns(group, continuation, table)
        for r, (rollout, advantage) in enumerate(
            zip(group.rollouts, group_advantages, strict=True)
        ):
            own = {"rollout": r, "advantage": advantage} | _rollout_columns(rollout, table)
            rows.append(shared | own)
    return rows


def _position_columns(
    group: Group, continuation: Sequence[bytes], table: TokenTable
) -> dict[str, Any]:
    """Returns what the rollouts at a position share: the text around it, and what was probable
    there."""
    position = group.prompt.position
    return {
        "document_id": position.document_id,
        "position": position.index,
        "entropy": position.entropy,
        "prefix_end": b"".join(table.bytes[i] for i in group.prompt.prefix_ids[-STORED_PREFIX:]),
        "continuation": list(continuation[:STORED_CONTINUATION]),
        "ntp_prediction": table.bytes[group.ntp_token_id],
        "ntp_top": [table.bytes[i] for i, _ in group.ntp_top],
        "ntp_top_logprobs": [logprob for _, logprob in group.ntp_top],
        "candidates": [table.bytes[i] for i in group.candidate_ids],
        "candidate_logprobs": list(group.candidate_logprobs),
    }


def _rollout_columns(rollout: Rollout, table: TokenTable) -> dict[str, Any]:
    completion = rollout.completion
    return {
        "thought": rollout.thought,
        "prediction": rollout.prediction,
        "reward": rollout.reward,
        "exact": rollout.exact,
        "reward_terms": [{"name": name, "value": value} for name, value in rollout.terms.items()],
        "finish_reason": completion.finish_reason,
        "token_ids": list(completion.token_ids),
        # A special token has none, not even where the thought shows its delimiter.
        "tokens": [bytes_of(table, i) for i in completion.token_ids],
        "sampler_logprobs": list(completion.sampler_logprobs),
        "loss_mask": list(completion.loss_mask),
    }


def evaluated_table(
    groups: Sequence[Group], tokens: Sequence[bytes], table: TokenTable
) -> pa.Table:
    """Returns groups of one document under evaluation as SCHEMA's columns: without step and
    advantage. `tokens`: the document's."""
    rows = rollout_rows(
        None,
        groups,
        [[math.nan] * len(group.rollouts) for group in groups],
        [tokens[group.prompt.position.index :] for group in groups],
        table,
    )
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def with_step(rollouts: pa.Table, step: int) -> pa.Table:
    """Returns the rows of an evaluation that followed a step of training, with that step."""
    column = pa.array([step] * rollouts.num_rows, pa.int64())
    return rollouts.set_column(rollouts.column_names.index("step"), "step", column)


def rollout_folder(run: Path, *, development: bool = False) -> Path:
    """Returns the folder of the steps' files: of training, or of the evaluations on the development
    split."""
    return run / "rollouts" / "development" if development else run / "rollouts"


def rollout_path(run: Path, step: int, *, development: bool = False) -> Path:
    """Returns the file of a step's rollouts."""
    return rollout_folder(run, development=development) / f"step-{step:06d}.parquet"


def evaluated_path(run: Path, label: str) -> Path:
    """Returns the file of an evaluated model's rollouts."""
    return run / "evaluation" / "rollouts" / f"{label}.parquet"


def stored_steps(folder: Path) -> list[int]:
    """Returns the steps that have a file of rollouts in a folder, in order."""
    return list(numbered(folder, ".parquet"))


def forget_rollouts(run: Path, last_step: int) -> None:
    """Removes those of the steps after `last_step`, which are about to be run again."""
    for development in (False, True):
        for step in stored_steps(rollout_folder(run, development=development)):
            if step > last_step:
                rollout_path(run, step, development=development).unlink()


def write_rollouts(run: Path, step: int, rows: list[dict]) -> Path:
    """Writes the rollouts of a step of training in one step: a file under its name is whole."""
    path = rollout_path(run, step)
    write_rollout_table(path, pa.Table.from_pylist(rows, schema=SCHEMA))
    return path


def write_rollout_table(path: Path, rollouts: pa.Table) -> None:
    """Writes columns as in SCHEMA, in one step."""
    write_table(path, rollouts, compression="zstd")


def read_rollouts(run: Path, step: int | None = None, *, development: bool = False) -> pa.Table:
    """Returns the rollouts of a step (default: the last stored), of training or of the evaluation
    on the development split that followed it. Raises UserError if there are none, and says which
    are."""
    steps = stored_steps(rollout_folder(run, development=development))
    kind = "development rollouts" if development else "rollouts"
    if not steps:
        helps = "train.eval_every makes them" if development else "was `openrpt train` run there?"
        raise UserError(f"{run}: no {kind} are stored; {helps}")
    if step is not None and step not in steps:
        raise UserError(f"{run}: no {kind} of step {step}; stored are {_step_ranges(steps)}")
    return _read_rollout_table(
        rollout_path(run, steps[-1] if step is None else step, development=development)
    )


def read_evaluated(run: Path, label: str) -> pa.Table:
    """Returns the rollouts of a model's evaluation. Raises UserError if there are none, and says
    which are."""
    path = evaluated_path(run, label)
    if not path.is_file():
        stored = sorted(one.stem for one in path.parent.glob("*.parquet"))
        which = f"stored are those of {', '.join(stored)}" if stored else "none are stored"
        raise UserError(
            f"{run}: no rollouts of an evaluation '{label}'; {which}; `openrpt evaluate` with the"
            " mode 'reasoning' stores them"
        )
    return _read_rollout_table(path)


def _step_ranges(steps: Sequence[int]) -> str:
    """Returns steps as ranges, in words.

    >>> _step_ranges([7])
    'step 7'
    """
    runs: list[list[int]] = []
    for step in steps:
        if runs and step == runs[-1][-1] + 1:
            runs[-1].append(step)
        else:
            runs.append([step])
    parts = [f"{run[0]} to {run[-1]}" if len(run) > 1 else str(run[0]) for run in runs]
    if len(parts) > _MOST_RANGES:
        parts = [*parts[: _MOST_RANGES - 1], "…", parts[-1]]
    word = "steps" if len(steps) > 1 else "step"
    return f"{word} {', '.join(parts)}"


def _read_rollout_table(path: Path) -> pa.Table:
    """Returns the rows of a file. Raises UserError for one that is not readable."""
    try:
        table = read_table(path)
    except reading_errors() as error:
        raise UserError(not_readable(path, error)) from None
    if "exact" not in table.column_names:  # stored when prefix match was the only reward
        table = table.append_column("exact", pc.greater(table["reward"], 0))
        table = table.append_column("reward_terms", pa.array([[]] * len(table), _TERMS))
    return table
