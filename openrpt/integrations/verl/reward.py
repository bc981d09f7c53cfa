"""The reward inside verl: byte-exact from token ids, or from text for whoever has only that."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from openrpt.data.tokens import TokenTable, token_table, tokenizer_fingerprint
from openrpt.errors import UserError
from openrpt.integrations.verl.completing import Form
from openrpt.integrations.verl.rows import continuation_of
from openrpt.rl.completions import extract_prediction
from openrpt.rl.grading import grade
from openrpt.rl.rewards.matching import matched_tokens
from openrpt.rl.thoughts import read_thought
from openrpt.types import Completion, Rollout


@lru_cache(maxsize=8)
def checked_table(tokenizer: Any, fingerprint: str) -> TokenTable:
    """Returns the bytes of a tokenizer's tokens. Raises UserError where it is not the one whose
    fingerprint this is."""
    found = tokenizer_fingerprint(tokenizer)
    if found != fingerprint:
        raise UserError(
            f"the tokenizer of {tokenizer.name_or_path} ({found}) is not the one that the prompts"
            f" were exported with ({fingerprint}): give verl the model of the run, or export again"
        )
    return token_table(tokenizer)


@dataclass(frozen=True, kw_only=True, slots=True)
class Scored:
    """A rollout with its reward in verl, and the numbers that verl records of it."""

    rollout: Rollout
    reward: float
    metrics: dict[str, float]
    """By name; `acc` is the prefix match, whatever else the reward holds. Each rollout has all."""


def score(
    completion: Completion,
    info: Mapping[str, Any],
    form: Form,
    table: TokenTable,
    *,
    overlong_buffer: float | None = None,
) -> Scored:
    """Returns a completion's prefix match (arXiv 2506.08007, Eq. 3), as training here grades it.

    `info`: the row's `extra_info`. `overlong_buffer`: with it, DAPO's penalty for completions that
    do not stop is taken off (`openrpt.rl.advantages.overlong_penalty`).
    """
    layout, continuation = form.layout, continuation_of(info)
    rollout = grade(completion, continuation, layout, table)
    thought = read_thought(completion, layout, think_budget=form.think_budget)
    stopped = completion.finish_reason == "stop"
    reward = rollout.reward
    if overlong_buffer is not None:
        reward += _overlong(completion, form, buffer=overlong_buffer)
    return Scored(
        rollout=rollout,
        reward=reward,
        metrics={
            "acc": float(rollout.exact),
            "matched_tokens": float(matched_tokens(rollout.prediction, continuation)),
            "thought_tokens": float(thought.free_tokens),
            "forced": float(not all(completion.loss_mask)),
            "closed": float(rollout.prediction is not None),
            "stopped": float(stopped),
            "prediction_bytes": float(len(rollout.prediction or b"")),
        },
    )


def _overlong(completion: Completion, form: Form, *, buffer: float) -> float:
    import torch

    from openrpt.rl.advantages import overlong_penalty

    longest = form.longest_trained
    length = completion.num_trained_tokens if completion.finish_reason == "stop" else longest
    return float(overlong_penalty(torch.tensor([length]), longest, buffer=buffer)[0])


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: str,
    extra_info: Mapping[str, Any],
    thought_end: str = "</think>",
) -> dict[str, float]:
    """Returns the prefix match of a decoded response, for `reward.custom_reward_function`.

    For loops other than ours. It is not byte-exact: verl decodes without special tokens, so a
    `</think>` that is one is gone and nothing is right, and a prediction that ends within a
    character was decoded to U+FFFD, so it is wrong where its bytes are right.
    """
    text = solution_str.encode()
    prediction = extract_prediction(text, thought_end=thought_end.encode())
    exact = float(matched_tokens(prediction, continuation_of(extra_info)) > 0)
    return {"score": exact, "acc": exact, "closed": float(prediction is not None)}
