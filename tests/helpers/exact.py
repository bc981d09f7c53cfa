"""A batch that is trained on by the answer's exact gradient."""

from dataclasses import replace

from openrpt.config.sections import Config
from openrpt.data.prompts import build_layout
from openrpt.engine.engine import bind
from openrpt.engine.model import Model
from openrpt.rl.answers import expected_rewards
from openrpt.rl.batch import Graded, Weighted, weighted_batch
from tests.helpers.updates import batch_of, config_of


def exact_batch(policy: Model, config: Config) -> list[Weighted]:
    """`batch_of`, rewarded by `expected`."""
    layout = build_layout(policy.tokenizer, config.prompt)
    graded = []
    for whole in batch_of(policy, config):
        values = expected_rewards(bind("tree", policy), whole.groups, whole.work, layout, config)
        groups = tuple(
            replace(
                group,
                rollouts=tuple(
                    replace(rollout, reward=value, terms={"expected": value})
                    for rollout, value in zip(group.rollouts, own, strict=True)
                ),
            )
            for group, own in zip(whole.groups, values, strict=True)
        )
        graded.append(Graded(work=whole.work, groups=groups))
    return weighted_batch(graded, config, layout)


def exact_config(**values) -> Config:
    settings = {
        "train__answer_gradient": "exact",
        "train__algorithm": "dr_grpo",
        "train__kl_weight": 0.0,
        "train__entropy_weight": 0.0,
        "reward__terms": {"expected": 1.0},
    }
    return config_of(**(settings | values))
