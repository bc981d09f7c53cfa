"""A guard against regressions that does not depend on the machine: FLOPs, tokens through the model,
logits and kernel calls of a tiny generation, update, scoring and evaluation. A number that falls is
to be lowered here."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from openrpt.costs.flops import count_scoring, model_shape
from openrpt.data.evaluation_work import evaluation_work
from openrpt.engine.generation import SPAN_TOKENS
from openrpt.engine.scorer import score_ids
from openrpt.evaluation.next_token.evaluate import evaluate_policy
from openrpt.rl.answers import expected_rewards
from openrpt.rl.batch import Graded, Weighted, weighted_batch
from openrpt.rl.cost import count_expected, count_generation, count_update
from openrpt.rl.update import update_policy
from openrpt.stages.train import Trainer
from tests.helpers.counting import calls, completion, corpus_of, counted, generate, live, trainer_of

UPDATE_FLOPS = 1_277_542_400
"""As torch counts them: four positions of one document, half of them without a gradient,
four rollouts of 12 tokens each, of which two are the same."""
GENERATION_RATIO = 1.02
"""Run ÷ needed: masked keys and rows that have ended are all that is computed in vain."""
UPDATE_RATIO = 1.02
"""The same of the update: attention's scores are computed again backward."""
EXACT_RATIO = 1.2
"""The same where right answers of several lengths are padded to the longest."""
UPDATE_KERNELS = 10_000
"""Most kernels of the same update, the optimizer's included."""
DECODE_KERNELS = 1_000
"""A token, whatever the number of rollouts: two layers, the head, and the choice of tokens."""
SCORING_KERNELS = 1_000
"""A window: two layers, the head, and what is read of its logits."""


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    folder: Path = tmp_path_factory.mktemp("counts")
    return trainer_of(folder)


def fixed(graded: Graded) -> Graded:
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


def update_of(trainer: Trainer, graded: Weighted) -> Callable[[], object]:
    return lambda: update_policy(
        trainer.engine,
        trainer.optimizer,
        [graded],
        trainer.config,
        trainer.layout,
    )


def test_update(trainer: Trainer) -> None:
    graded = live(fixed(generate(trainer)))
    measured = counted(update_of(trainer, graded))
    text = trainer.config.train.ntp_weight > 0
    ledger = count_update(trainer.engine.model, [graded], trainer.config, trainer.layout, text=text)
    needed = ledger.shared.train(model_shape(trainer.engine.model))
    assert measured <= UPDATE_FLOPS
    assert measured <= UPDATE_RATIO * needed
    found = calls(trainer.engine.model, update_of(trainer, graded))
    # Run once, and looked up once more for the gradient of their embeddings.
    assert found.tokens == 2 * ledger.shared.tokens
    assert found.logits == ledger.shared.logits  # none is computed again backward
    assert found.kernels <= UPDATE_KERNELS


def test_generation(trainer: Trainer) -> None:
    """What is drawn decides how much is needed, so the ratio is what stays."""
    kept: list[Graded] = []
    measured = counted(lambda: kept.append(generate(trainer)))
    needed = count_generation(kept, trainer.layout).shared.forward(
        model_shape(trainer.engine.model)
    )
    assert needed <= measured <= GENERATION_RATIO * needed


def with_budget(trainer: Trainer, tokens: int) -> Trainer:
    prompt = trainer.config.prompt.model_copy(update={"prediction_budget": tokens})
    return replace(trainer, config=trainer.config.model_copy(update={"prompt": prompt}))


def test_decoding(trainer: Trainer) -> None:
    kept: dict[int, Graded] = {}

    def drawn(tokens: int) -> None:
        kept[tokens] = generate(with_budget(trainer, tokens))

    short, long = (calls(trainer.engine.model, lambda n=n: drawn(n)) for n in (4, 16))
    for tokens, found in ((4, short), (16, long)):
        needed = count_generation([kept[tokens]], trainer.layout).shared
        assert found.tokens == needed.tokens
        assert found.logits == needed.logits
    assert (long.kernels - short.kernels) / 12 <= DECODE_KERNELS


def test_scoring(trainer: Trainer) -> None:
    ids = [(7 * i) % 97 + 5 for i in range(60)]
    needed = count_scoring(60, head=0, window=32, min_context=4)
    found = calls(
        trainer.engine.model, lambda: score_ids(trainer.engine, ids, window=32, min_context=4)
    )
    assert found.tokens == needed.tokens
    assert found.logits == needed.logits
    assert found.kernels <= 3 * SCORING_KERNELS  # three windows


def test_an_evaluation_runs_a_window_once(trainer: Trainer) -> None:
    """All its positions share the text: what a position adds is its tail, its completions, and
    standard prediction on to its span's end."""
    config, corpus, layout = trainer.config, corpus_of(trainer), trainer.layout
    samples, per_document = 2, 8
    settings = config.evaluate.model_copy(
        update={"positions_per_document": per_document, "min_entropy": 0.0, "samples": samples}
    )
    config = config.model_copy(update={"evaluate": settings})
    works = evaluation_work(
        corpus,
        config,
        split="train",
        positions=40,
        positions_per_document=per_document,
        min_entropy=0.0,
    )

    def evaluate() -> None:
        evaluate_policy(trainer.engine, corpus, config, split="train", positions=40)

    found = calls(trainer.engine.model, evaluate)
    text = sum(len(work.prefix_ids(layout, whole=False)) for work in works)
    alone = sum(sum(work.prefix_lengths(layout)) for work in works)
    seed = layout.seed(range(config.prompt.candidates))
    opening = len(layout.tail_ids) + len(seed) + len(layout.close_ids)
    position = opening + samples * (config.prompt.prediction_budget - 1) + SPAN_TOKENS - 1
    assert found.tokens <= text + position * sum(len(work.positions) for work in works)
    assert text < 0.65 * alone  # three positions a window, of tiny documents


def test_an_update_with_exact_answers(tmp_path: Path) -> None:
    """The thoughts without their answers, and each distinct thought with the right ones."""
    trainer = trainer_of(
        tmp_path,
        prompt__think_budget=3,
        reward__terms={"expected": 1.0},
        train__algorithm="dr_grpo",
        train__answer_gradient="exact",
    )
    kept = generate(trainer)
    batch = weighted_batch([kept], trainer.config, trainer.layout)
    measured = counted(update_of(trainer, batch[0]))
    policy, config, layout = trainer.engine.model, trainer.config, trainer.layout
    ledger = count_update(policy, batch, config, layout, text=config.train.ntp_weight > 0)
    needed = ledger.shared.train(model_shape(policy))
    assert needed <= measured <= EXACT_RATIO * needed
    found = calls(policy, update_of(trainer, batch[0]))
    assert found.logits == ledger.shared.logits
    read = count_expected(policy, [kept], config, layout).shared
    answers = calls(
        policy, lambda: expected_rewards(trainer.engine, kept.groups, kept.work, layout, config)
    )
    assert answers.logits == read.logits
    assert read.tokens <= answers.tokens <= EXACT_RATIO * read.tokens
