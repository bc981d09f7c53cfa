"""Completions become rollouts: thought, prediction, reward."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from openrpt.data.prompts import Layout
from openrpt.data.tokens import TokenTable, literal_bytes
from openrpt.rl.completions import extract_prediction, split_thought
from openrpt.rl.rewards.matching import prefix_match
from openrpt.types import Completion, Group, Position, Prompt, Rollout

if TYPE_CHECKING:
    from openrpt.engine.generation import Generated

CONTINUATION_TOKENS = 256
"""A prediction is compared with at most this many tokens: far more than a budget can say."""


def continuation_at(token_bytes: Sequence[bytes], index: int) -> Sequence[bytes]:
    """Returns the true tokens from a position of a document on, as far as a prediction is compared
    with them. `token_bytes`: the whole document's."""
    return token_bytes[index : index + CONTINUATION_TOKENS]


def grade(
    completion: Completion,
    continuation: Sequence[bytes],
    layout: Layout,
    table: TokenTable,
) -> Rollout:
    """Reads thought and prediction out of a completion, and rewards it by the prefix match.

    `continuation`: the bytes of the document's true tokens from the position on.
    """
    text = literal_bytes(table, completion.token_ids, layout.literal)
    prediction = extract_prediction(text, thought_end=layout.thought_end)
    matched = prefix_match(prediction, continuation)
    return Rollout(
        completion=completion,
        thought=split_thought(text, thought_end=layout.thought_end),
        prediction=prediction,
        exact=matched > 0,
        reward=matched,
    )


def grade_groups(
    generated: Sequence["Generated"],
    positions: Sequence[Position],
    token_ids: Sequence[int],
    token_bytes: Sequence[bytes],
    layout: Layout,
    table: TokenTable,
) -> list[Group]:
    """Grades what was generated at a document's positions: one group a position.

    `token_ids` and `token_bytes` are the whole document's.
    """
    groups = []
    for outcome, position in zip(generated, positions, strict=True):
        continuation = continuation_at(token_bytes, position.index)
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
                    grade(completion, continuation, layout, table)
                    for completion in outcome.completions
                ),
                ntp_token_id=outcome.standard_id,
                ntp_top=outcome.standard_top,
                candidate_ids=outcome.candidate_ids,
                candidate_logprobs=outcome.candidate_logprobs,
            )
        )
    return groups
