"""From generated ids to graded groups, and every kept rollout on disk.

One parquet file a step, a row a rollout. What stands in it is enough to see why a rollout was
rewarded: the end of its prefix, its thought and prediction as bytes, and the true continuation
token by token.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from openrpt.completions import extract_prediction, split_thought
from openrpt.errors import UserError
from openrpt.files import write_table
from openrpt.prompts import Layout
from openrpt.rewards import prefix_match
from openrpt.tokens import TokenTable, literal_bytes
from openrpt.types import Completion, Group, Position, Prompt, Rollout

if TYPE_CHECKING:  # reading rollouts needs no torch
    from openrpt.generation import Generated

Reward = Callable[[bytes | None, Sequence[bytes]], float]

CONTINUATION_TOKENS = 256
"""A prediction is compared with at most this many tokens: far more than a budget can say."""
STORED_CONTINUATION = 12
STORED_PREFIX = 48


def grade(
    completion: Completion,
    continuation: Sequence[bytes],
    layout: Layout,
    table: TokenTable,
    reward: Reward = prefix_match,
) -> Rollout:
    """Reads thought and prediction out of a completion and rewards it."""
    text = literal_bytes(table, completion.token_ids, layout.literal)
    prediction = extract_prediction(text, thought_end=layout.thought_end)
    return Rollout(
        completion=completion,
        thought=split_thought(text, thought_end=layout.thought_end),
        prediction=prediction,
        reward=reward(prediction, continuation),
    )


def grade_groups(
    generated: Sequence["Generated"],
    positions: Sequence[Position],
    token_ids: Sequence[int],
    token_bytes: Sequence[bytes],
    layout: Layout,
    table: TokenTable,
    reward: Reward = prefix_match,
) -> list[Group]:
    """token_ids and token_bytes are the whole document's; one group a position."""
    groups = []
    for outcome, position in zip(generated, positions, strict=True):
        continuation = token_bytes[position.index : position.index + CONTINUATION_TOKENS]
        prefix = tuple(int(i) for i in token_ids[position.window_start : position.index])
        groups.append(
            Group(
                prompt=Prompt(
                    position=position,
                    head_ids=layout.head_ids,
                    prefix_ids=prefix,
                    tail_ids=layout.tail_ids,
                ),
                rollouts=tuple(
                    grade(completion, continuation, layout, table, reward)
                    for completion in outcome.completions
                ),
                ntp_token_id=outcome.standard_id,
                candidate_ids=outcome.candidate_ids,
                candidate_logprobs=outcome.candidate_logprobs,
            )
        )
    return groups


TERMS = pa.list_(pa.struct([("name", pa.string()), ("value", pa.float32())]))
SCHEMA = pa.schema(
    [
        ("step", pa.int64()),
        ("document_id", pa.string()),
        ("position", pa.int64()),
        ("rollout", pa.int64()),
        ("entropy", pa.float32()),
        ("prefix_end", pa.binary()),
        ("continuation", pa.list_(pa.binary())),
        ("ntp_prediction", pa.binary()),
        ("candidates", pa.list_(pa.binary())),
        ("candidate_logprobs", pa.list_(pa.float32())),
        ("thought", pa.binary()),
        ("prediction", pa.binary()),
        ("reward", pa.float32()),
        ("exact", pa.bool_()),
        ("reward_terms", TERMS),
        ("advantage", pa.float32()),
        ("finish_reason", pa.string()),
        ("token_ids", pa.list_(pa.int32())),
        ("tokens", pa.list_(pa.binary())),
        ("sampler_logprobs", pa.list_(pa.float32())),
        ("loss_mask", pa.list_(pa.bool_())),
    ]
)


def rollout_rows(
    step: int,
    groups: Sequence[Group],
    advantages: Sequence[Sequence[float]],
    continuations: Sequence[Sequence[bytes]],
    table: TokenTable,
) -> list[dict]:
    """Rows of the rollout file; continuations are the true tokens after each position."""
    rows = []
    for group, group_advantages, continuation in zip(
        groups, advantages, continuations, strict=True
    ):
        position = group.prompt.position
        shared = {
            "step": step,
            "document_id": position.document_id,
            "position": position.index,
            "entropy": position.entropy,
            "prefix_end": b"".join(
                table.bytes[i] for i in group.prompt.prefix_ids[-STORED_PREFIX:]
            ),
            "continuation": list(continuation[:STORED_CONTINUATION]),
            "ntp_prediction": table.bytes[group.ntp_token_id],
            "candidates": [table.bytes[i] for i in group.candidate_ids],
            "candidate_logprobs": list(group.candidate_logprobs),
        }
        for r, (rollout, advantage) in enumerate(
            zip(group.rollouts, group_advantages, strict=True)
        ):
            completion = rollout.completion
            own = {
                "rollout": r,
                "thought": rollout.thought,
                "prediction": rollout.prediction,
                "reward": rollout.reward,
                "exact": rollout.exact > 0,
                "reward_terms": [
                    {"name": name, "value": value} for name, value in rollout.terms.items()
                ],
                "advantage": advantage,
                "finish_reason": completion.finish_reason,
                "token_ids": list(completion.token_ids),
                # A special token has none, not even where the thought shows its delimiter.
                "tokens": [literal_bytes(table, (i,), {}) for i in completion.token_ids],
                "sampler_logprobs": list(completion.sampler_logprobs),
                "loss_mask": list(completion.loss_mask),
            }
            rows.append(shared | own)
    return rows


def rollout_path(run: Path, step: int) -> Path:
    return run / "rollouts" / f"step-{step:06d}.parquet"


def write_rollouts(run: Path, step: int, rows: list[dict]) -> Path:
    """Atomic: a file that stands there is whole."""
    path = rollout_path(run, step)
    save_rows(path, rows)
    return path


def save_rows(path: Path, rows: list[dict]) -> None:
    write_table(path, pa.Table.from_pylist(rows, schema=SCHEMA), compression="zstd")


def read_rollouts(run: Path, step: int | None = None) -> pa.Table:
    """The rollouts of a step (default: the last stored). Raises UserError if there are none."""
    stored = sorted((run / "rollouts").glob("step-*.parquet"))
    if not stored:
        raise UserError(f"{run}: no rollouts are stored; was `openrpt train` run there?")
    path = stored[-1] if step is None else rollout_path(run, step)
    if path not in stored:
        last = int(stored[-1].stem.removeprefix("step-"))
        first = int(stored[0].stem.removeprefix("step-"))
        raise UserError(f"{run}: no rollouts of step {step}; stored are steps {first} to {last}")
    return read_rows(path)


def read_rows(path: Path) -> pa.Table:
    """A file of rollouts. Raises UserError where it is not readable."""
    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{path}: not readable ({str(error).splitlines()[0]})") from None
    if "exact" not in table.column_names:  # stored when prefix match was the only reward
        table = table.append_column("exact", pc.greater(table["reward"], 0))
        table = table.append_column("reward_terms", pa.array([[]] * len(table), TERMS))
    return table
