"""A guard against regressions that does not depend on the machine: the FLOPs of the matrix products
of one tiny update and one tiny generation. A number that falls is to be lowered here."""

from dataclasses import replace
from pathlib import Path

import pytest
from counting import completion, counted, generate, live, trainer_of

from openrpt.compute import count_generation, count_update, model_shape
from openrpt.train import Trainer
from openrpt.update import GradedWork, update_policy

UPDATE_FLOPS = 1_277_542_400
"""As torch counts them: four positions of one document, half of them without a gradient,
four rollouts of 12 tokens each, of which two are the same."""
GENERATION_RATIO = 1.02
"""Run ÷ needed: masked keys and rows that have ended are all that is computed in vain."""
UPDATE_RATIO = 1.02
"""The same of the update: the head's logits and attention's scores are computed again backward."""


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    folder: Path = tmp_path_factory.mktemp("counts")
    return trainer_of(folder)


def fixed(graded: GradedWork) -> GradedWork:
    """With rollouts of 12 known tokens in place of what was drawn; two of a group are the same."""

    def rows(shift: int) -> tuple[int, ...]:
        return tuple(20 + (shift + 3 * i) % 50 for i in range(12))

    groups = []
    for number, group in enumerate(graded.groups):
        shifts = [number, number, number + 1, number + 2]
        rollouts = tuple(
            replace(rollout, completion=completion(*rows(shift)))
            for rollout, shift in zip(group.rollouts, shifts, strict=True)
        )
        groups.append(replace(group, rollouts=rollouts))
    return replace(graded, groups=tuple(groups))


def test_update(trainer: Trainer) -> None:
    graded = live(fixed(generate(trainer)))

    def update() -> None:
        update_policy(
            trainer.policy,
            trainer.engine,
            trainer.optimizer,
            [graded],
            trainer.config,
            trainer.layout,
        )

    measured = counted(update)
    text = trainer.config.train.ntp_weight > 0
    ledger = count_update([graded], trainer.config, trainer.layout, text=text)
    needed = ledger.shared.train(model_shape(trainer.policy))
    assert measured <= UPDATE_FLOPS
    assert measured <= UPDATE_RATIO * needed


def test_generation(trainer: Trainer) -> None:
    """What is drawn decides how much is needed, so the ratio is what stays."""
    kept: list[GradedWork] = []
    measured = counted(lambda: kept.append(generate(trainer)))
    needed = count_generation(kept, trainer.layout).shared.forward(model_shape(trainer.policy))
    assert needed <= measured <= GENERATION_RATIO * needed
