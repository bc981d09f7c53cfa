"""A graded batch, its gradients through the update, and the same by plain autograd."""

import numpy as np
import torch

from openrpt.config.loading import load_config
from openrpt.config.sections import Config
from openrpt.data.positions import ScoredDocument, Window
from openrpt.data.prompts import Layout, build_layout
from openrpt.data.work import Work
from openrpt.engine.decoding import Sampling
from openrpt.engine.engine import bind
from openrpt.engine.loading import freeze
from openrpt.engine.model import Model
from openrpt.engine.tree.attention import NAME
from openrpt.rl.batch import Graded, Weighted, step_totals, weighted_batch
from openrpt.rl.losses import LossInputs, policy_loss
from openrpt.rl.update import loss_config_for, update_policy
from openrpt.seeding import keys_of
from openrpt.types import Group, Position, Prompt, Rollout
from tests.helpers.byte_policy import policy_of

TOKENS = 30
NORM = 1e9  # never clipped


def config_of(**values) -> Config:
    settings = {
        "prompt.candidates": 2,
        "prompt.think_budget": 2,
        "prompt.prediction_budget": 3,
        "train.group_size": 3,
        "train.ntp_weight": 0.7,
        "train.kl_weight": 0.3,
        "train.entropy_weight": 0.2,
        "train.temperature": 0.8,
        "optim.max_grad_norm": NORM,
    }
    return load_config(overrides=settings | {k.replace("__", "."): v for k, v in values.items()})


def layout_of(policy: Model, config: Config) -> Layout:
    return build_layout(policy.tokenizer, config.prompt)


def work_of(seed: int) -> Work:
    rng = np.random.default_rng(seed)
    scores = np.ones(TOKENS, np.float32)
    document = ScoredDocument(
        document_id=f"d{seed}",
        key="",
        split="train",
        source="",
        text="",
        token_ids=rng.integers(2, 390, TOKENS),
        byte_offsets=np.arange(TOKENS),
        negative_log_likelihood=scores,
        entropy=scores,
        entropy_top16=scores,
        ntp_token_id=np.zeros(TOKENS, np.int64),
        ntp_correct=np.zeros(TOKENS, bool),
    )
    positions = tuple(
        Position(document_id=document.document_id, index=i, window_start=2) for i in (6, 15, 16)
    )
    window = Window(start=2, end=24, first=6)
    return Work(document=document, window=window, positions=positions)


def batch_of(policy: Model, config: Config, *, flat: tuple[int, ...] = (1,)) -> list[Weighted]:
    """Two documents of three positions each, sampled from the policy; rewards by rule. The
    positions in `flat` get the same reward throughout."""
    layout, graded = layout_of(policy, config), []
    for seed in (0, 1):
        work = work_of(seed)
        keys = [keys_of(config.train.group_size, seed, p.index) for p in work.positions]
        sampling = Sampling.of(config.prompt, temperature=config.train.temperature)
        groups = []
        request = work.request(layout, keys)
        (found,) = bind("tree", policy).generate_each([request], layout, sampling)
        for n, (outcome, position) in enumerate(zip(found, work.positions, strict=True)):
            rewards = [float((r + n) % 3 == 0 and n not in flat) for r in range(9)]
            rollouts = tuple(
                Rollout(
                    completion=c, thought=b"", prediction=None, exact=reward == 1, reward=reward
                )
                for c, reward in zip(outcome.completions, rewards, strict=False)
            )
            prompt = Prompt(position=position, head_ids=(), prefix_ids=(), tail_ids=())
            groups.append(Group(prompt=prompt, rollouts=rollouts, ntp_token_id=0))
        graded.append(Graded(work=work, groups=tuple(groups)))
    return weighted_batch(graded, config, layout)


def gradients(policy: Model, kind: str, batch, config: Config, reference=None):
    """(gradients by name, metrics) of one update, whose learning rate is 0."""
    policy.attention = NAME if kind == "tree" else "sdpa"
    if reference is not None:
        reference.attention = policy.attention
        reference = bind(kind, reference)
    optimizer = torch.optim.SGD(policy.parameters(), lr=0.0)
    metrics = update_policy(
        bind(kind, policy),
        optimizer,
        batch,
        config,
        layout_of(policy, config),
        reference=reference,
    )
    policy.network.set_attn_implementation(NAME)
    found = {n: p.grad.clone() for n, p in policy.network.named_parameters() if p.grad is not None}
    return found, metrics


def assert_equal(found: dict, expected: dict, tolerance: float = 1e-8) -> None:
    assert found.keys() == expected.keys()
    scale = max(gradient.abs().max() for gradient in expected.values())
    for name, gradient in expected.items():
        size = gradient.abs().max().clamp_min(1e-3 * scale)
        assert (found[name] - gradient).abs().max() / size <= tolerance, name


def reference_of(family: str) -> Model:
    reference = freeze(policy_of(family))
    with torch.no_grad():
        for parameter in reference.network.parameters():
            parameter.mul_(0.9)
    return reference


def by_hand(policy: Model, batch, config: Config, layout: Layout, reference: Model):
    """The step's loss from whole sequences through transformers' own logits and autograd."""
    total = torch.zeros((), dtype=torch.float64)
    totals = step_totals(batch, config, layout)
    train = config.train
    loss_config = loss_config_for(config)
    ntp_tokens = sum(24 - 2 - (not layout.head_ids) for _ in batch)
    for graded in batch:
        ids = graded.work.document.token_ids.tolist()
        text = [*layout.head_ids, *ids[2:24]]
        logp = policy.network(torch.tensor([text])).logits[0].log_softmax(-1)
        for t in range(max(len(layout.head_ids), 1), len(text)):
            total = total - train.ntp_weight * logp[t - 1, text[t]] / ntp_tokens
        for p, group in enumerate(graded.groups):
            prompt = [*layout.head_ids, *ids[2 : group.prompt.position.index], *layout.tail_ids]
            for r, rollout in enumerate(group.rollouts):
                completion = rollout.completion
                own = torch.tensor([prompt + list(completion.token_ids)])
                steps = slice(len(prompt) - 1, -1)
                logits = policy.network(own).logits[0, steps] / train.temperature
                with torch.no_grad():
                    other = reference.network(own).logits[0, steps] / train.temperature
                logp = logits.log_softmax(-1)
                at = (torch.arange(len(logp)), own[0, len(prompt) :])
                sampler = torch.tensor(completion.sampler_logprobs, dtype=torch.float64)
                corrected = config.importance_correction != "off"
                old = logp[at].detach() if corrected else sampler
                given = LossInputs(
                    trainer_logprobs=logp[at][None],
                    old_logprobs=old[None],
                    sampler_logprobs=sampler[None],
                    reference_logprobs=other.log_softmax(-1)[at][None],
                    entropies=-(logp.exp() * logp).sum(-1)[None],
                    advantages=graded.advantages[p, r][None],
                    loss_mask=torch.tensor(completion.loss_mask)[None],
                )
                total = total + policy_loss(given, loss_config, totals).loss
    return total
