"""A completion as far as its answer begins: what the answer is conditioned on, and what a thought
costs.
"""

from dataclasses import dataclass

from openrpt.data.prompts import Layout
from openrpt.types import Completion


@dataclass(frozen=True, kw_only=True, slots=True)
class Thought:
    """A completion's tokens up to its answer, parted by the sampler's rules (`engine.course`)."""

    ids: tuple[int, ...]
    """The seed, what was drawn, and its end or the forced close."""
    box_ids: tuple[int, ...]
    """The tokens with which the policy then opens the box; empty where the forced close has opened
    it."""
    drawn: int
    """The first so many tokens of the completion are the seed and what was drawn, an end that the
    policy wrote itself included."""
    free_tokens: int
    """Drawn tokens, that end or a stop left out."""
    has_answer: bool
    """Whether an answer can follow; False where the completion stopped inside the thought."""


def read_thought(completion: Completion, layout: Layout, *, think_budget: int) -> Thought:
    """Returns the thought of a completion that was sampled with this budget.

    The close was forced where a token behind the first drawn one is not trained. Else the policy
    has written the thought's end itself, in the ids that the sampler takes for it, or it stopped.
    """
    ids, mask = completion.token_ids, completion.loss_mask
    opening = mask.index(True) if any(mask) else len(ids)
    if think_budget == 0:  # the opening holds the close
        return Thought(ids=ids[:opening], box_ids=(), drawn=opening, free_tokens=0, has_answer=True)
    if False in mask[opening:]:
        forced = mask.index(False, opening)
        return Thought(
            ids=ids[: forced + len(layout.close_ids)],
            box_ids=(),
            drawn=forced,
            free_tokens=forced - opening,
            has_answer=True,
        )
    end = layout.thought_end_ids
    for start in range(opening, len(ids) - len(end) + 1):
        if ids[start : start + len(end)] == end:
            return Thought(
                ids=ids[: start + len(end)],
                box_ids=layout.answer_start_ids,
                drawn=start + len(end),
                free_tokens=start - opening,
                has_answer=True,
            )
    free_tokens = len(ids) - opening - (completion.finish_reason == "stop")
    return Thought(ids=ids, box_ids=(), drawn=len(ids), free_tokens=free_tokens, has_answer=False)
