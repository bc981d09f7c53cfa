"""The thoughts that a start samples: how many are worked ones, and how many answers are right.

They are those of reinforcement's first step, before any update.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict

from openrpt.data.scored import load_scored
from openrpt.data.worlds.world import World
from openrpt.runs.rollouts import read_rollouts
from openrpt.runs.run import Run


class SampledCounts(BaseModel):
    """Counts of rollouts at one seed, at depths that thoughts were shown for."""

    model_config = ConfigDict(frozen=True)

    seed: int
    rollouts: int
    worked: int
    """The ones whose thought is the worked one, to the character."""
    right: int
    """The ones whose answer is right."""
    worked_right: int
    """The ones with both."""


def sampled_at(seed: int, run: Run, world: World) -> SampledCounts:
    """Counts the first step of a reinforcement run. Raises UserError where that is not stored."""
    corpus, rows = load_scored(run.scored), read_rollouts(run.path, step=1).to_pylist()
    documents = [corpus.document(name) for name in {row["document_id"] for row in rows}]
    states = {
        one.document_id: world.solved(one.text[: world.width]).states
        for one in documents
        if int(one.kind) <= world.shown
    }
    return counted(seed, rows, states)


def counted(
    seed: int, rows: Sequence[Mapping[str, Any]], states: Mapping[str, str]
) -> SampledCounts:
    """Counts the rollouts of the documents whose worked thought is in `states`; the rows are those
    of `openrpt.runs.rollouts`."""
    found = [
        (row["thought"] == states[row["document_id"]].encode(), row["exact"])
        for row in rows
        if row["document_id"] in states
    ]
    return SampledCounts(
        seed=seed,
        rollouts=len(found),
        worked=sum(worked for worked, _ in found),
        right=sum(right for _, right in found),
        worked_right=sum(worked and right for worked, right in found),
    )
