"""What a thought costs, and what a step says of the thoughts in it."""

from dataclasses import replace

import pytest

from openrpt.data.prompts import Layout, build_layout
from openrpt.data.work import document_bytes
from openrpt.engine.engine import bind
from openrpt.engine.model import Model
from openrpt.rl.batch import Graded
from openrpt.rl.grading import grade
from openrpt.rl.rewards.configured import make_terms
from openrpt.rl.rewards.reward import reward_groups
from openrpt.rl.rewards.term import RewardContext
from openrpt.rl.thinking import thought_metrics
from openrpt.types import Completion, Group, Prompt
from tests.helpers.enumeration import language_config, language_work, tiny_speaker

BUDGET = 3


@pytest.fixture(scope="module")
def policy() -> Model:
    return tiny_speaker()


def rollouts_of(policy: Model, layout: Layout) -> list[Completion]:
    """At once, right; one token, wrong; the whole budget, right; stopped in the thought."""
    end, box, close = layout.thought_end_ids, layout.answer_start_ids, layout.close_ids
    stop = tuple(policy.stop_ids)
    said = [
        ((*end, *box, 0, 2, *stop), 0),
        ((1, *end, *box, 1, 2, *stop), 0),
        ((1, 1, 1, *close, 0, 2, *stop), len(close)),
        ((1, 1, *stop), 0),
    ]
    return [
        Completion(
            token_ids=ids,
            sampler_logprobs=(0.0,) * len(ids),
            loss_mask=tuple(not BUDGET <= i < BUDGET + forced for i in range(len(ids))),
            finish_reason="stop",
        )
        for ids, forced in said
    ]


def rewarded(policy: Model, **values) -> tuple[list[Group], Graded, Layout]:
    config = language_config(
        prompt__think_budget=BUDGET,
        prompt__prediction_budget=3,
        reward__terms={"prefix": 1.0},
        train__answer_gradient="sampled",
        **values,
    )
    layout, work = build_layout(policy.tokenizer, config.prompt), language_work(policy)
    pieces = document_bytes(policy.tokenizer, work.document)
    (position,) = work.positions
    rollouts = tuple(
        grade(completion, pieces[position.index :], layout, policy.table)
        for completion in rollouts_of(policy, layout)
    )
    prompt = Prompt(position=position, head_ids=(), prefix_ids=(), tail_ids=())
    context = RewardContext(
        config=config,
        step=1,
        work=work,
        token_bytes=pieces,
        engine=bind("tree", policy),
        layout=layout,
        baseline=None,
    )
    group = Group(prompt=prompt, rollouts=rollouts, ntp_token_id=0)
    groups = reward_groups([group], make_terms(config), context)
    return groups, Graded(work=work, groups=tuple(groups)), layout


def test_a_thought_costs_by_the_token_up_to_a_limit(policy: Model) -> None:
    (free,), _, _ = rewarded(policy)
    assert free.rewards == (1.0, 0.0, 1.0, 0.0)
    (costly,), _, _ = rewarded(policy, reward__thought_cost=0.04)
    assert costly.rewards == pytest.approx((1.0, -0.04, 0.9, -0.08))
    assert [r.exact for r in costly.rollouts] == [r.exact for r in free.rollouts]
    assert [r.terms for r in costly.rollouts] == [r.terms for r in free.rollouts]
    (little,), _, _ = rewarded(policy, reward__thought_cost=5.0, reward__thought_cost_limit=0.01)
    assert little.rewards == pytest.approx((1.0, -0.01, 0.99, -0.01))


def test_thoughts_are_counted_by_what_follows_the_position(policy: Model) -> None:
    groups, graded, layout = rewarded(policy)
    prompt = language_config(prompt__think_budget=BUDGET).prompt
    found = thought_metrics([graded], layout, policy.table, prompt)
    alone = {
        "thought/share": 3 / 4,
        "thought/tokens": 2.0,
        "thought/reward_with": 1 / 3,
        "thought/reward_without": 1.0,
    }
    assert found == alone | {f"{key}/inside_a_word": value for key, value in alone.items()}
    silent = replace(groups[0], rollouts=groups[0].rollouts[:1])
    found = thought_metrics([replace(graded, groups=(silent,))], layout, policy.table, prompt)
    assert set(found) == {
        f"thought/{key}{kind}"
        for key in ("share", "reward_without")
        for kind in ("", "/inside_a_word")
    }
    closed = language_config(prompt__think_budget=0).prompt
    assert thought_metrics([graded], layout, policy.table, closed) == {}
