"""What was generated at a work, as JSON holds it: with it a stopped evaluation goes on."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from openrpt.engine.generation import Generated
from openrpt.types import Completion


def outcome_rows(generated: Sequence[Generated]) -> list[dict[str, Any]]:
    """Returns the outcomes [P] as JSON objects; floats come back as they were, to the bit."""
    return [asdict(outcome) for outcome in generated]


def outcomes_of(rows: Sequence[dict[str, Any]]) -> list[Generated]:
    """Returns the outcomes [P] of `outcome_rows`, read back from JSON."""
    return [
        Generated(
            **row
            | {
                "standard_ids": tuple(row["standard_ids"]),
                "standard_top": tuple(
                    (token, -math.inf if logprob is None else logprob)  # JSON has no infinity
                    for token, logprob in row["standard_top"]
                ),
                "candidate_ids": tuple(row["candidate_ids"]),
                "candidate_logprobs": tuple(row["candidate_logprobs"]),
                "completions": tuple(_completion(one) for one in row["completions"]),
            }
        )
        for row in rows
    ]


def _completion(row: dict[str, Any]) -> Completion:
    return Completion(
        token_ids=tuple(row["token_ids"]),
        sampler_logprobs=tuple(row["sampler_logprobs"]),
        loss_mask=tuple(row["loss_mask"]),
        finish_reason=row["finish_reason"],
    )
