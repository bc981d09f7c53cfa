"""The expected reward of a thought and its gradient: against all completions, enumerated, and
against autograd on whole sequences."""

import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from openrpt.config.sections import Config
from openrpt.data.prompts import Budget, Layout, build_layout
from openrpt.data.work import Work
from openrpt.engine.engine import bind
from openrpt.errors import UserError
from openrpt.rl.answers import expected_rewards, right_answers
from openrpt.rl.batch import Graded, Weighted, weighted_batch
from openrpt.rl.grading import grade
from openrpt.rl.rewards.configured import make_terms
from openrpt.rl.thoughts import read_thought
from openrpt.types import Completion, Group, Prompt
from tests.helpers.byte_policy import policy_of
from tests.helpers.enumeration import every_completion, language_config, language_work, tiny_speaker
from tests.helpers.exact import exact_batch, exact_config
from tests.helpers.updates import assert_equal, gradients

Key = tuple[tuple[int, ...], bool]


class World:
    """All completions of one position by their thoughts, and what the real grader says of them."""

    def __init__(self, config: Config, *, joined: bool = False) -> None:
        self.config, self.policy = config, tiny_speaker(joined=joined)
        self.work: Work = language_work(self.policy)
        self.layout: Layout = build_layout(self.policy.tokenizer, config.prompt)
        (position,) = self.work.positions
        next_ids = self.work.document.token_ids[position.index :].tolist()
        pieces = [self.policy.table.bytes[i] for i in next_ids]
        answers = right_answers(next_ids, self.policy, self.layout, config)
        self.one: dict[Key, Completion] = {}
        self.of_thought: dict[Key, Tensor] = defaultdict(lambda: torch.zeros(()).double())
        self.right, self.counted = self.of_thought.copy(), self.of_thought.copy()
        for completion, logprob in every_completion(self.policy, self.work, self.layout, config):
            thought = read_thought(completion, self.layout, think_budget=config.prompt.think_budget)
            key = (thought.ids, thought.has_answer)
            self.one.setdefault(key, completion)
            self.of_thought[key] = self.of_thought[key] + logprob.exp()
            if grade(completion, pieces, self.layout, self.policy.table).exact:
                self.right[key] = self.right[key] + logprob.exp()
            said = completion.token_ids[len(thought.ids) + len(thought.box_ids) :]
            ends = {a.ids + tuple(self.policy.stop_ids) * a.stops for a in answers}
            opened = completion.token_ids[len(thought.ids) :][: len(thought.box_ids)]
            if thought.has_answer and said in ends and opened == thought.box_ids:
                self.counted[key] = self.counted[key] + logprob.exp()

    def group(self, keys: list[Key]) -> Group:
        (position,) = self.work.positions
        rollouts = [grade(self.one[k], [b"a"], self.layout, self.policy.table) for k in keys]
        prompt = Prompt(position=position, head_ids=(), prefix_ids=(), tail_ids=())
        return Group(prompt=prompt, rollouts=tuple(rollouts), ntp_token_id=0)

    def values(self, keys: list[Key], kind: str = "tree") -> list[float]:
        self.policy.attention = "eager" if kind == "flat" else self.policy.attention
        engine = bind(kind, self.policy)
        (found,) = expected_rewards(engine, [self.group(keys)], self.work, self.layout, self.config)
        return found

    def batch(self, keys: list[Key], values: dict[Key, float]) -> list[Weighted]:
        """A group of these thoughts, with what the configuration's one term rewards them."""
        (term,) = self.config.reward.terms
        group, floor = self.group(keys), self.config.reward.expected_floor
        rewards = [values[k] for k in keys]
        if term == "log_expected":
            rewards = [math.log(floor + value) for value in rewards]
        rollouts = tuple(
            replace(rollout, reward=reward, terms={term: reward})
            for rollout, reward in zip(group.rollouts, rewards, strict=True)
        )
        graded = Graded(work=self.work, groups=(replace(group, rollouts=rollouts),))
        return weighted_batch([graded], self.config, self.layout)

    def gradient_of(self, objective: Tensor) -> dict[str, Tensor]:
        self.policy.network.zero_grad()
        objective.backward(retain_graph=True)
        return {n: p.grad.clone() for n, p in self.policy.network.named_parameters()}


def test_the_expected_reward_is_the_enumerated_one_where_spellings_are_unique() -> None:
    """With a budget of one token and the box's end nothing else is right."""
    world = World(language_config())
    keys = list(world.one)
    assert len(keys) == 7  # five tokens, the thought's own end, a stop
    for kind in ("flat", "tree"):
        for key, value in zip(keys, world.values(keys, kind), strict=True):
            share = world.right[key] / world.of_thought[key]
            assert value == pytest.approx(share.item(), rel=1e-12, abs=1e-15)
            assert (value > 0) == key[1]  # the stop leaves no answer


@pytest.mark.parametrize("joined", [False, True])
def test_it_is_a_lower_bound_where_other_answers_are_right(joined: bool) -> None:
    """Other tokens of the same bytes, and what goes on behind the box's end."""
    world = World(language_config(prompt__prediction_budget=3), joined=joined)
    keys = list(world.one)
    for key, value in zip(keys, world.values(keys), strict=True):
        counted = world.counted[key] / world.of_thought[key]
        assert value == pytest.approx(counted.item(), rel=1e-12, abs=1e-15)
        assert value < (world.right[key] / world.of_thought[key]).item() or not key[1]


@pytest.mark.parametrize("term", ["expected", "log_expected"])
def test_the_gradient_is_the_enumerated_objectives(term: str) -> None:
    """The update's gradient, in the mean over all pairs of thoughts: −∇J over the constant length.

    J = E over thoughts of the term; `rloo`, since it is unbiased.
    """
    config = language_config(reward__terms={term: 1.0})
    world = World(config)
    keys = list(world.one)
    worth: Callable[[Tensor], Tensor] = lambda v: v  # noqa: E731
    if term == "log_expected":
        worth = lambda v: torch.log(config.reward.expected_floor + v)  # noqa: E731
    shares = {k: world.right[k] / world.of_thought[k] for k in keys}
    objective = torch.stack([world.of_thought[k] * worth(shares[k]) for k in keys]).sum()
    expected = world.gradient_of(objective)
    likely = {k: world.of_thought[k].item() for k in keys}
    values = dict(zip(keys, world.values(keys), strict=True))
    found = {name: torch.zeros_like(value) for name, value in expected.items()}
    for one in keys:
        for other in keys:
            batch = world.batch([one, other], values)
            own, _ = gradients(world.policy, "tree", batch, config)
            for name, gradient in own.items():
                found[name] += likely[one] * likely[other] * gradient
    length = Budget.of(config.prompt).trained(world.layout)
    assert_equal({n: -g * length for n, g in found.items()}, expected, tolerance=1e-9)


def test_maxrl_without_a_thought_follows_the_logarithm() -> None:
    """One thought, so the answer's gradient is ∇V / V, whatever the group's size."""
    config = language_config(prompt__think_budget=0, train__algorithm="maxrl")
    policy = tiny_speaker()
    work, layout = language_work(policy), build_layout(policy.tokenizer, config.prompt)
    ids = [*work.prefix_ids(layout, whole=False), *layout.tail_ids, *layout.close_ids]
    policy.attention = "eager"
    said = [*ids, 0, *layout.answer_end_ids]
    logits = policy.network(torch.tensor([said])).logits[0] / config.train.temperature
    logprobs = logits.log_softmax(-1)
    log_value = sum(logprobs[len(ids) - 1 + t, token] for t, token in enumerate(said[len(ids) :]))
    log_value.backward()
    expected = {n: p.grad.clone() for n, p in policy.network.named_parameters()}
    completion = Completion(
        token_ids=(*layout.close_ids, 1, 1),
        sampler_logprobs=(0.0,) * 4,
        loss_mask=(False, False, True, True),
        finish_reason="length",
    )
    rollout = grade(completion, [b"a"], layout, policy.table)
    prompt = Prompt(position=work.positions[0], head_ids=(), prefix_ids=(), tail_ids=())
    group = Group(prompt=prompt, rollouts=(rollout,) * 3, ntp_token_id=0)
    ((value, *_),) = expected_rewards(bind("flat", policy), [group], work, layout, config)
    assert value == pytest.approx(math.exp(log_value.item()), rel=1e-12)
    worth = replace(rollout, reward=value, terms={"expected": value})
    graded = Graded(work=work, groups=(replace(group, rollouts=(worth,) * 3),))
    batch = weighted_batch([graded], config, layout)
    found, _ = gradients(policy, "tree", batch, config)
    length = Budget.of(config.prompt).trained(layout)
    assert_equal({n: -g * length for n, g in found.items()}, expected, tolerance=1e-9)


@pytest.mark.parametrize(("family", "template"), [("gpt2", "minimal"), ("gemma3", "chat")])
def test_the_tree_gives_the_flat_gradient(family: str, template: str) -> None:
    """With the plain loss in the same pass, whatever the micro-batch."""
    policy = policy_of(family)
    config = exact_config(prompt__template=template)
    batch = exact_batch(policy, config)
    expected, flat_metrics = gradients(policy, "flat", batch, config)
    for tokens in (1, 40):
        config = exact_config(prompt__template=template, memory__microbatch_tokens=tokens)
        found, metrics = gradients(policy, "tree", batch, config)
        assert_equal(found, expected)
        assert metrics == pytest.approx(flat_metrics, rel=1e-8, abs=1e-12)


def test_the_gradient_equals_plain_autograd() -> None:
    config = exact_config(train__ntp_weight=0.0)
    policy = policy_of()
    layout = build_layout(policy.tokenizer, config.prompt)
    batch = exact_batch(policy, config)
    found, metrics = gradients(policy, "tree", batch, config)
    policy.network.zero_grad()
    policy.network.set_attn_implementation("sdpa")
    thoughts, answers = torch.zeros(()).double(), torch.zeros(()).double()
    close, stop = list(layout.close_ids), policy.tokenizer.eos_token_id

    def logprobs_behind(prompt: list[int], ids: list[int]) -> Tensor:
        logits = policy.network(torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1]
        logp = (logits / config.train.temperature).log_softmax(-1)
        return logp[torch.arange(len(ids)), torch.tensor(ids)]

    for weighted in batch:
        text = weighted.work.document.token_ids.tolist()
        for p, group in enumerate(weighted.groups):
            index = group.prompt.position.index
            prompt = [*layout.head_ids, *text[2:index], *layout.tail_ids]
            for r, rollout in enumerate(group.rollouts):
                ids = list(rollout.completion.token_ids)
                end = next(i for i in range(len(ids)) if ids[i : i + len(close)] == close)
                free = torch.tensor(rollout.completion.loss_mask[:end])
                own = logprobs_behind(prompt, ids[:end])[free].sum()
                thoughts = thoughts - weighted.advantages[p, r] * own
                for k in (1, 2):  # the budget of 3 holds two tokens and the box's end
                    answer = [*text[index : index + k], *layout.answer_end_ids]
                    answer += [stop] * (k < 2)
                    logprobs = logprobs_behind([*prompt, *ids[:end], *close], answer)
                    answers = answers - logprobs.sum().exp()
    length = 18 * Budget.of(config.prompt).trained(layout)
    ((thoughts + answers) / length).backward()
    expected = {n: p.grad for n, p in policy.network.named_parameters()}
    assert_equal(found, expected)
    assert metrics["loss/answer"] == pytest.approx(float(answers.detach()) / length, rel=1e-9)


def test_what_a_thought_is() -> None:
    policy = tiny_speaker()
    layout = build_layout(policy.tokenizer, language_config().prompt)
    end, box, stop = layout.thought_end_ids, layout.answer_start_ids, tuple(policy.stop_ids)

    def read(ids: tuple[int, ...], forced: range = range(0), budget: int = 3):
        completion = Completion(
            token_ids=ids,
            sampler_logprobs=(0.0,) * len(ids),
            loss_mask=tuple(i not in forced for i in range(len(ids))),
            finish_reason="stop",
        )
        return read_thought(completion, layout, think_budget=budget)

    closed = read((0, 1, 0, *layout.close_ids, 0, 2), range(3, 5))
    assert (closed.ids, closed.box_ids) == ((0, 1, 0, *layout.close_ids), ())
    assert (closed.drawn, closed.free_tokens, closed.has_answer) == (3, 3, True)
    own = read((0, *end, *box, 0, 2))
    assert (own.ids, own.box_ids, own.drawn, own.free_tokens) == ((0, *end), box, 2, 1)
    at_once = read((*end, *box, 0, 2))
    assert (at_once.ids, at_once.free_tokens, at_once.has_answer) == (end, 0, True)
    stopped = read((0, *stop))
    assert (stopped.free_tokens, stopped.has_answer) == (1, False)
    seeded = read((1, *layout.close_ids, 0, 2), range(3), budget=0)
    assert (seeded.ids, seeded.drawn, seeded.free_tokens) == ((1, *layout.close_ids), 3, 0)


def test_answers_that_the_grader_would_not_call_right_are_left_out() -> None:
    """A box in the text, and a stop token, which ends the completion where it is drawn."""
    policy, config = tiny_speaker(), language_config(prompt__prediction_budget=6)
    layout = build_layout(policy.tokenizer, config.prompt)
    (box,), (stop,) = layout.answer_start_ids, policy.stop_ids
    end = layout.answer_end_ids

    def ids_of(*next_ids: int) -> list[tuple[int, ...]]:
        return [answer.ids for answer in right_answers(next_ids, policy, layout, config)]

    assert ids_of(0, 1, 0, 1) == [(0, *end), (0, 1, *end), (0, 1, 0, *end)]
    assert ids_of(0, box, 1) == [(0, *end)]
    assert ids_of(0, stop, 0) == [(0, *end)]
    assert ids_of(2, 2) == [(2, 2), (2, 2, 2)]  # lone braces can be predicted


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            {"reward__terms": {"prefix": 1.0}},
            "expected and log_expected alone, and here are prefix",
        ),
        (
            {"train__answer_gradient": "sampled", "prompt__think_budget": 0},
            "expected rewards the thought alone",
        ),
        (
            {"reward__terms": {"log_expected": 1.0}, "train__algorithm": "maxrl"},
            "maxrl needs rewards of at least 0, and reward log_expected goes below",
        ),
        (
            {"reward__thought_cost": 0.1, "train__algorithm": "maxrl"},
            "and reward thought_cost goes below",
        ),
    ],
)
def test_what_does_not_fit_is_said_before_anything_is_loaded(values: dict, said: str) -> None:
    with pytest.raises(UserError, match=said):
        make_terms(language_config(**values))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"train__algorithm": "grpo"}, "algorithm dr_grpo, rloo or maxrl"),
        ({"train__updates_per_batch": 2}, "does not hold with updates_per_batch = 2"),
        ({"train__kl_weight": 0.1}, "does not hold with kl_weight = 0.1"),
        ({"train__entropy_weight": 0.1}, "does not hold with entropy_weight = 0.1"),
        ({"train__importance_correction": "truncate"}, "importance_correction = truncate"),
        ({"train__dynamic_sampling_from": 4}, "dynamic_sampling_from = 4"),
        ({"train__overlong": "mask"}, "overlong = mask"),
    ],
)
def test_what_the_exact_gradient_does_not_hold_with(values: dict, said: str) -> None:
    with pytest.raises(UserError, match=said):
        language_config(**values)
