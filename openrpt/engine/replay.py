"""Completions whose tokens something else has drawn, by the same rules as the decoder's own."""

from collections.abc import Sequence

import torch

from openrpt.engine.course import Course, Rules
from openrpt.engine.decoded import Decoded, Said, Step, collect
from openrpt.engine.drawn import Drawn


def replay(drawn: Sequence[Drawn], rules: Rules, said: Said) -> list[Decoded]:
    """Returns the rollouts that these tokens make: the close is put where it is forced, and what
    was drawn behind a rollout's end is left out.

    Raises ValueError where a rollout's tokens end before it does.
    """
    none = torch.zeros(len(drawn), dtype=torch.long)
    course = Course.begin(rules, keys=none, row_of=none)
    steps: list[Step] = []
    taken = [0] * len(drawn)
    while len(course.alive):
        ids, logprobs = [], []
        for rollout, free in zip(course.alive.tolist(), course.free.tolist(), strict=True):
            own, place = drawn[rollout], taken[rollout]
            if free and place == len(own.token_ids):
                raise ValueError(f"rollout {rollout} has no more than {place} drawn tokens")
            ids.append(own.token_ids[place] if free else 0)
            logprobs.append(own.logprobs[place] if free else 0.0)
            taken[rollout] += free
        new = course.next_ids(torch.tensor(ids))  # [B]
        after = course.after(new, reached=said.reached(course, new))
        steps.append(
            Step(
                rows=course.alive,
                ids=new,
                logprobs=torch.tensor(logprobs, dtype=torch.float64),
                free=course.free,
                near=torch.zeros_like(course.free),
                stopped=after.stopped,
            )
        )
        course = after.going_on()
    return collect(steps, len(drawn))
