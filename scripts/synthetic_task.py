"""A task and its engine without a model, over a scored corpus."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from openrpt.config.sections import Config
from openrpt.data.scored import ScoredCorpus
from openrpt.data.work import Work
from openrpt.engine.checkpoint_record import TrainerState
from openrpt.seeding import generator
from openrpt.stages.text_task import take_positions
from openrpt.types import Completion, Group, Prompt, Rollout


class Synthetic:
    """Engine and task in one, without a model: rollouts are right as often as the scorer says."""

    baseline = None

    def __init__(self, corpus: ScoredCorpus, config: Config) -> None:
        self.corpus, self.config = corpus, config
        nothing = (False,) * 8
        self.completion = Completion(
            token_ids=(0,) * 8, sampler_logprobs=(0.0,) * 8, loss_mask=nothing, finish_reason="stop"
        )

    def take(self, state: TrainerState) -> Iterator[tuple[int, Work]]:
        """Takes works as `openrpt.stages.text_task.TextTask` does."""
        return take_positions(self.corpus, self.config, state)

    def generate_each(self, requests: Sequence[Any], *_: Any) -> Iterator[list[Any]]:
        """Yields nothing for each request: `grade` makes up what came of it."""
        return iter([[] for _ in requests])

    def grade(self, work: Work, generated: Any, step: int) -> list[Group]:
        """Returns a group a position, from draws that are keyed by step and place."""
        groups = []
        for position in work.positions:
            rng = generator(self.config.seed, step, position.document_id, position.index)
            chance = np.exp(-work.document.negative_log_likelihood[position.index])
            exact = (rng.random(self.config.train.group_size) < chance).tolist()
            rollouts = tuple(
                Rollout(
                    completion=self.completion,
                    thought=b"",
                    prediction=b"",
                    exact=one,
                    reward=float(one),
                )
                for one in exact
            )
            prompt = Prompt(position=position, head_ids=(), prefix_ids=(), tail_ids=())
            groups.append(Group(prompt=prompt, rollouts=rollouts, ntp_token_id=0))
        return groups
