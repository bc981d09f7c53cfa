"""Terms of the reward over a document's groups, their sum, and training on it."""

import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from openrpt.config.loading import load_config
from openrpt.config.rewards import REWARDS
from openrpt.config.sections import Config
from openrpt.data.positions import ScoredDocument, Window
from openrpt.data.prompts import Layout, build_layout
from openrpt.data.tokens import encode_document
from openrpt.data.work import Work
from openrpt.engine.average import MovingAverage
from openrpt.engine.checkpoint_record import TrainerState
from openrpt.engine.decoding import Sampling
from openrpt.engine.engine import bind
from openrpt.engine.model import Model
from openrpt.engine.tree.attention import NAME
from openrpt.errors import UserError
from openrpt.rl.batch import Graded
from openrpt.rl.collect import batch_metrics, remember_pass_rates
from openrpt.rl.grading import grade, grade_groups
from openrpt.rl.rewards.configured import make_terms
from openrpt.rl.rewards.information_gain import thought_ids, thought_logprobs
from openrpt.rl.rewards.reward import reward_groups, reward_metrics
from openrpt.rl.rewards.term import RewardContext
from openrpt.rl.rewards.terms import TERMS
from openrpt.runs.rollouts import read_rollouts, rollout_rows, write_rollouts
from openrpt.runs.run import Run
from openrpt.seeding import keys_of
from openrpt.stages.train import train
from openrpt.types import Completion, Group, Position, Prompt
from tests.helpers.byte_policy import policy_of
from tests.helpers.run_files import rollouts_of, rows_of, weights_of
from tests.helpers.tiny_model import tiny_run
from tests.helpers.updates import work_of

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # peft
TEXT = "We think about what comes next, then we say it: the next token of the text. So it is."
LOGPROB = math.log(0.5)


@pytest.fixture(scope="module")
def policy() -> Model:
    return policy_of("gpt2")


def config_of(**values: Any) -> Config:
    return load_config(overrides={k.replace("__", "."): v for k, v in values.items()})


def layout_of(policy: Model, config: Config) -> Layout:
    return build_layout(policy.tokenizer, config.prompt)


def context_of(
    policy: Model,
    config: Config,
    work: Work,
    token_bytes: list[bytes],
    kind: str = "tree",
) -> RewardContext:
    return RewardContext(
        config=config,
        step=3,
        work=work,
        token_bytes=token_bytes,
        engine=bind(kind, policy),
        layout=layout_of(policy, config),
        baseline=None,
    )


# ---- terms on completions written by hand -------------------------------------------------------


def text_work(policy: Model, *places: int) -> tuple[Work, list[bytes]]:
    """TEXT as a document, with positions at these tokens; its tokens' bytes."""
    ids, pieces = encode_document(policy.tokenizer, TEXT)
    scores = np.ones(len(ids), np.float32)
    document = ScoredDocument(
        document_id="d",
        key="",
        split="train",
        source="",
        text=TEXT,
        token_ids=np.array(ids),
        byte_offsets=np.cumsum([0, *map(len, pieces)])[:-1],
        negative_log_likelihood=scores,
        entropy=scores,
        entropy_top16=scores,
        ntp_token_id=np.zeros(len(ids), np.int64),
        ntp_correct=np.zeros(len(ids), bool),
    )
    positions = tuple(Position(document_id="d", index=i, entropy=0.7) for i in places)
    window = Window(start=0, end=len(ids), first=1)
    return Work(document=document, window=window, positions=positions), pieces


def written(policy: Model, text: bytes, logprob: float = LOGPROB) -> Completion:
    ids = tuple(policy.tokenizer(text.decode())["input_ids"])
    return Completion(
        token_ids=ids,
        sampler_logprobs=(logprob,) * len(ids),
        loss_mask=(True,) * len(ids),
        finish_reason="stop",
    )


def boxed(prediction: bytes) -> bytes:
    return b"hm, or so</think>\n\\boxed{" + prediction + b"}"


def group_of(policy: Model, context: RewardContext, n: int, texts: list[bytes]) -> Group:
    position = context.work.positions[n]
    continuation = context.token_bytes[position.index :]
    return Group(
        prompt=Prompt(position=position, head_ids=(), prefix_ids=(1,), tail_ids=()),
        rollouts=tuple(
            grade(written(policy, text), continuation, context.layout, policy.table)
            for text in texts
        ),
        ntp_token_id=0,
    )


@pytest.fixture(scope="module")
def written_groups(policy: Model) -> tuple[list[Group], RewardContext]:
    """A group with hits and one without. Predictions: right by one token, right by two, the first
    token only, wrong, none; then wrong, the same again, none."""
    work, pieces = text_work(policy, 6, 10)
    context = context_of(policy, config_of(), work, pieces)
    one, two = pieces[6], pieces[6] + pieces[7]
    first = [boxed(one), boxed(two), boxed(one + b"ZZ"), boxed(b"QQ"), b"hm, or so</think> none"]
    second = [boxed(b"QQ"), boxed(b"QQ"), b"no end of it"]
    return [group_of(policy, context, n, texts) for n, texts in enumerate([first, second])], context


def test_the_names_are_those_that_the_configuration_knows() -> None:
    assert {*TERMS, "segment"} == set(REWARDS)


def test_prefix_and_first_token(written_groups) -> None:
    groups, context = written_groups
    assert TERMS["prefix"](groups, context) == [[1, 1, 0, 0, 0], [0, 0, 0]]
    assert TERMS["first_token"](groups, context) == [[1, 1, 1, 0, 0], [0, 0, 0]]


def test_a_span_is_right_as_a_whole(policy: Model) -> None:
    text = "He sold 48/2=24 clips."
    _, pieces = encode_document(policy.tokenizer, text)
    index = next(i for i in range(len(pieces)) if b"".join(pieces[:i]).endswith(b"="))
    work, _ = text_work(policy, index)
    context = context_of(policy, config_of(), work, pieces)
    boxes = [boxed(box) for box in (b"24", b"24 clips", b"24.5", b"2", b"24,", b"")]
    group = group_of(policy, context, 0, [*boxes, b"no end of it"])
    assert TERMS["span"]([group], context) == [[1, 1, 0, 0, 1, 0, 0]]


def test_dense_is_the_samplers_probability_of_the_tokens_in_the_box(policy, written_groups) -> None:
    groups, context = written_groups
    (hit, missed) = TERMS["dense"](groups, context)
    # Independent of how the tokens are found: those that the box's text takes when encoded alone
    # differ, so count what carries a byte of the prediction by rendering growing completions.
    wrong = groups[0].rollouts[3]
    ids = wrong.completion.token_ids
    rendered = [policy.table.bytes[i] for i in ids]
    carriers = sum(b"Q" in piece for piece in rendered)
    assert carriers >= 1
    assert hit[:2] == [1.0, 1.0] and hit[4] == 0.0
    assert hit[3] == pytest.approx(0.5**carriers) and 0 < hit[2] < 1
    assert missed == [hit[3], hit[3], 0.0]
    assert TERMS["conditional_dense"](groups, context) == [hit, [0.0, 0.0, 0.0]]


def test_equal_completions_earn_the_same_to_the_bit(written_groups) -> None:
    groups, context = written_groups
    group = groups[1]
    first, second = group.rollouts[:2]
    noisy = tuple(value + 1e-12 for value in second.completion.sampler_logprobs)
    second = replace(second, completion=replace(second.completion, sampler_logprobs=noisy))
    (values,) = TERMS["dense"]([replace(group, rollouts=(first, second))], context)
    assert values[0] == values[1]


def test_length_weighted_reads_its_bonus(policy, written_groups) -> None:
    groups, context = written_groups
    context = replace(context, config=config_of(reward__length_bonus=0.8))
    assert TERMS["length_weighted"](groups, context) == [[1.0, 1.4, 0, 0, 0], [0, 0, 0]]


def test_segment_takes_the_rest_of_the_sentence(policy) -> None:
    work, pieces = text_work(policy, 6)
    rest = b"".join(pieces[6:]).split(b" So")[0]
    texts = [boxed(rest.upper()), boxed(rest[:-2] + b"X."), boxed(pieces[6])]
    for judge, threshold, expected in [
        ("exact", 0.8, [1.0, 0.0, 0.0]),
        ("fuzzy", 0.8, [1.0, 1.0, 0.0]),
    ]:
        config = config_of(
            reward__terms={"segment": 1.0},
            reward__segment_judge=judge,
            reward__segment_threshold=threshold,
        )
        context = context_of(policy, config, work, pieces)
        group = group_of(policy, context, 0, texts)
        assert make_terms(config)["segment"]([group], context) == [expected]


def test_random_is_keyed_and_blind(policy, written_groups) -> None:
    groups, context = written_groups
    many = replace(groups[0], rollouts=groups[0].rollouts[:1] * 400)
    (coins,) = TERMS["random"]([many], context)
    assert set(coins) == {0.0, 1.0} and 160 < sum(coins) < 240
    turned = replace(many, rollouts=groups[0].rollouts[3:4] * 200)
    assert TERMS["random"]([turned], context) == [coins[:200]]
    for other in (
        replace(context, step=4),
        replace(context, config=config_of(seed=1)),
    ):
        assert TERMS["random"]([many], other) != [coins]
    elsewhere = replace(many, prompt=groups[1].prompt)
    assert TERMS["random"]([elsewhere], context) != [coins]
    for probability, value in ((0.0, 0.0), (1.0, 1.0)):
        config = config_of(reward__random_probability=probability)
        assert set(TERMS["random"]([many], replace(context, config=config))[0]) == {value}


def test_flipped_is_the_match_but_where_the_coin_fell(written_groups) -> None:
    groups, context = written_groups
    many = [replace(group, rollouts=group.rollouts * 100) for group in groups]
    exact = [[rollout.exact for rollout in group.rollouts] for group in many]

    def turned(probability: float) -> list[list[bool]]:
        config = config_of(reward__flip_probability=probability)
        found = TERMS["flipped"](many, replace(context, config=config))
        return [
            [value != right for value, right in zip(values, own, strict=True)]
            for values, own in zip(found, exact, strict=True)
        ]

    assert not any(map(any, turned(0.0))) and all(map(all, turned(1.0)))
    for own in turned(0.2):
        assert 0.15 < sum(own) / len(own) < 0.25
    config = config_of(reward__random_probability=0.2)
    coins = TERMS["random"](many, replace(context, config=config))
    assert turned(0.2) == coins  # so whether a match is turned does not depend on it


# ---- the sum ------------------------------------------------------------------------------------


def test_terms_are_summed_by_weight_and_the_exact_match_stays(written_groups) -> None:
    groups, context = written_groups
    terms = {"prefix": 1.0, "dense": -0.25, "random": 0.0}
    config = config_of(reward__terms=terms)
    context = replace(context, config=config)
    found = reward_groups(groups, make_terms(config), context)
    dense = TERMS["dense"](groups, context)
    for group, before, values in zip(found, groups, dense, strict=True):
        for rollout, old, value in zip(group.rollouts, before.rollouts, values, strict=True):
            assert rollout.reward == pytest.approx(old.reward - 0.25 * value)
            assert rollout.exact == old.exact == (old.reward == 1)
            assert rollout.terms.keys() == terms.keys()
            assert rollout.completion == old.completion
    assert not found[0].is_flat and not found[1].is_flat
    assert [group.pass_rate for group in found] == [0.4, 0.0]
    metrics = reward_metrics(found, config.reward)
    assert metrics["reward/exact"] == metrics["reward/prefix"] == 2 / 8
    assert metrics["reward/dense"] == pytest.approx(sum(map(sum, dense)) / 8)
    assert "reward/errors" not in metrics


def test_the_default_is_the_prefix_match_alone(written_groups) -> None:
    groups, context = written_groups
    found = reward_groups(groups, make_terms(context.config), context)
    assert [group.rewards for group in found] == [group.rewards for group in groups]
    assert found[1].is_flat and not found[0].is_flat


def test_pass_rates_are_of_exact_matches_whatever_is_trained_on(written_groups) -> None:
    groups, context = written_groups
    config = config_of(reward__terms={"dense": 1.0})
    found = reward_groups(groups, make_terms(config), replace(context, config=config))
    graded = Graded(work=context.work, groups=tuple(found))
    state = TrainerState(stage="train")
    remember_pass_rates(state, [graded])
    assert state.pass_rates == {"d": {"6": 0.4, "10": 0.0}}
    metrics = batch_metrics([graded], [graded])
    assert metrics["pass_rate/easy"] == 2 / 8
    assert metrics["reward/mean"] > 2 / 8


def test_stored_rollouts_keep_the_reward_and_the_match_apart(policy, written_groups, tmp_path):
    groups, context = written_groups
    config = config_of(reward__terms={"dense": 2.0})
    found = reward_groups(groups, make_terms(config), replace(context, config=config))
    advantages = [[0.0] * len(group.rollouts) for group in found]
    rows = rollout_rows(1, found, advantages, [context.token_bytes] * 2, policy.table)
    write_rollouts(tmp_path, 1, rows)
    table = read_rollouts(tmp_path)
    rollouts = [rollout for group in found for rollout in group.rollouts]
    assert table["exact"].to_pylist() == [rollout.exact for rollout in rollouts]
    assert table["reward"].to_pylist() == pytest.approx([r.reward for r in rollouts])
    for terms, rollout in zip(table["reward_terms"].to_pylist(), rollouts, strict=True):
        assert [term["name"] for term in terms] == ["dense"]
        assert terms[0]["value"] == pytest.approx(rollout.terms["dense"])
    # What was stored before there were terms: a reward was an exact match.
    import pyarrow.parquet as pq

    old = table.drop_columns(["exact", "reward_terms"])
    pq.write_table(old, tmp_path / "rollouts" / "step-000001.parquet")
    again = read_rollouts(tmp_path)
    assert again["exact"].to_pylist() == [reward > 0 for reward in old["reward"].to_pylist()]
    assert again["reward_terms"].to_pylist() == [[]] * len(old)


OWN = """
def distance(prediction, continuation, thought, prefix):
    assert isinstance(continuation, list) and prefix.startswith(b"We think about what")
    if prediction is None:
        raise LookupError("no box")
    return float("nan") if prediction == b"QQ" else len(thought)
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "own_rewards", raising=False)
    (tmp_path / "own_rewards.py").write_text(OWN)
    return "own_rewards:distance"


def test_a_users_reward_is_summed_and_its_failures_are_named(own: str, written_groups) -> None:
    groups, context = written_groups
    stopping = config_of(reward__terms={"prefix": 1.0, own: 0.5})
    terms = make_terms(stopping)
    sound = [replace(groups[0], rollouts=groups[0].rollouts[:3])]
    (found,) = reward_groups(sound, terms, replace(context, config=stopping))
    assert found.rewards == (1 + 4.5, 1 + 4.5, 4.5)  # "hm, or so" has 9 bytes
    with pytest.raises(
        UserError, match=r"raised LookupError \(no box\) for document d, position 6, r"
    ):
        reward_groups(groups, terms, replace(context, config=stopping))
    none = [replace(groups[0], rollouts=groups[0].rollouts[:4])]
    where = "is nan for document d, position 6, rollout 3; mend it, or count"
    with pytest.raises(UserError, match=where):
        reward_groups(none, terms, replace(context, config=stopping))
    counting = config_of(reward__terms={"prefix": 1.0, own: 0.5}, reward__on_error="zero")
    found_all = reward_groups(groups, make_terms(counting), replace(context, config=counting))
    assert [group.rewards for group in found_all] == [(5.5, 5.5, 4.5, 0.0, 0.0), (0.0, 0.0, 0.0)]
    metrics = reward_metrics(found_all, counting.reward)
    assert metrics["reward/errors"] == 5.0
    assert metrics[f"reward/{own}"] == 9.0


@pytest.mark.parametrize(("value", "weight"), [("1e300", 1.0), ("-1e9", 1e9), ("2.0", -1e15)])
def test_a_reward_whose_square_overflows_is_refused(
    own: str, written_groups, tmp_path: Path, value: str, weight: float
) -> None:
    (tmp_path / "own_rewards.py").write_text(f"def distance(thought):\n    return {value}\n")
    groups, context = written_groups
    stopping = config_of(reward__terms={"prefix": 1.0, own: weight})
    words = (
        r"is -?[0-9.e+]+, with its weight beyond ±1e\+15, for document d, position 6, rollout 0;"
    )
    with pytest.raises(UserError, match=words):
        reward_groups(groups, make_terms(stopping), replace(context, config=stopping))
    counting = config_of(reward__terms={"prefix": 1.0, own: weight}, reward__on_error="zero")
    (found, *_) = reward_groups(groups, make_terms(counting), replace(context, config=counting))
    assert max(found.rewards) == 1.0


def test_a_users_judge(own: str, policy, tmp_path: Path) -> None:
    (tmp_path / "own_rewards.py").write_text(
        "def starts(prediction, segment):\n    return segment.startswith(prediction.strip())\n"
    )
    work, pieces = text_work(policy, 6)
    config = config_of(reward__terms={"segment": 1.0}, reward__segment_judge="own_rewards:starts")
    context = context_of(policy, config, work, pieces)
    group = group_of(policy, context, 0, [boxed(pieces[6]), boxed(b"QQ")])
    assert make_terms(config)["segment"]([group], context) == [[1.0, 0.0]]


def test_what_can_not_be_is_said_at_the_start() -> None:
    with pytest.raises(UserError, match=r"reward\.terms: 'absent:f' can't be imported"):
        make_terms(config_of(reward__terms={"absent:f": 1.0}))
    with pytest.raises(UserError, match=r"reward\.information_tokens = 9 is more than"):
        make_terms(config_of(reward__terms={"information_gain": 1.0}, reward__information_tokens=9))
    alone = {"reward__terms": {"information_gain": 1.0, "prefix": 0.0}}
    with pytest.raises(UserError, match="information_gain rewards the thought alone"):
        make_terms(config_of(**alone))
    assert make_terms(config_of(**alone, prompt__think_budget=8))
    assert make_terms(config_of(reward__terms={"information_gain": 1.0, "prefix": 0.5}))
    with pytest.raises(UserError, match=r"unknown reward 'densely'; nearest: 'dense', or package"):
        config_of(reward__terms={"densely": 1.0})


# ---- information gain ---------------------------------------------------------------------------


def sampled(policy: Model, config: Config, work: Work) -> tuple[list[Group], RewardContext]:
    layout, tokens = layout_of(policy, config), work.document.token_ids.tolist()
    request = work.request(layout, [keys_of(3, p.index) for p in work.positions])
    sampling = Sampling(temperature=1.0, think_budget=2, prediction_budget=3, candidates=2)
    (generated,) = bind("tree", policy).generate_each([request], layout, sampling)
    pieces = [policy.table.bytes[i] for i in tokens]
    groups = grade_groups(generated, work.positions, tokens, pieces, layout, policy.table)
    return groups, context_of(policy, config, work, pieces)


@torch.no_grad()
def plain_forward(policy: Model, ids: list[int], target: list[int]) -> float:
    """Σ log p(target | ids) by transformers alone."""
    policy.network.set_attn_implementation("eager")
    logits = policy.network(torch.tensor([ids + target])).logits[0, len(ids) - 1 : -1]
    policy.network.set_attn_implementation(NAME)
    chosen = logits.log_softmax(-1)[torch.arange(len(target)), torch.tensor(target)]
    return float(chosen.sum())


@pytest.mark.parametrize("template", ["minimal", "v6"])
@pytest.mark.parametrize("count", [1, 3])
def test_information_gain_equals_plain_forward_passes(policy, template: str, count: int) -> None:
    """The policy after each thought, and the moving average on the plain text before it."""
    config = config_of(
        prompt__template=template,
        prompt__chat_template="off",
        prompt__think_budget=2,
        prompt__prediction_budget=3,
        reward__terms={"information_gain": 1.0},
        reward__information_tokens=count,
    )
    work = work_of(0)
    groups, context = sampled(policy, config, work)
    baseline = MovingAverage.of(policy, 0.5)
    other = policy_of("gpt2")
    with torch.no_grad():
        for parameter in other.network.parameters():
            parameter.mul_(1.1)
    baseline.update(other)
    context = replace(context, baseline=bind("tree", baseline.policy))
    values = TERMS["information_gain"](groups, context)
    layout, tokens = context.layout, work.document.token_ids.tolist()
    close = list(layout.close_ids)
    for group, position, found in zip(groups, work.positions, values, strict=True):
        target = tokens[position.index : position.index + count]
        text = tokens[position.window_start : position.index]
        without = plain_forward(baseline.policy, text, target)
        for rollout, value in zip(group.rollouts, found, strict=True):
            ids = list(rollout.completion.token_ids)
            end = next(i for i in range(len(ids)) if ids[i : i + len(close)] == close)
            prompt = [*layout.head_ids, *text, *layout.tail_ids, *ids[:end], *close]
            assert value == pytest.approx(plain_forward(policy, prompt, target) - without, abs=1e-6)
    assert len({value for found in values for value in found}) > len(values)


def test_flat_and_tree_gain_alike(policy) -> None:
    config = config_of(prompt__think_budget=2, prompt__prediction_budget=3)
    groups, context = sampled(policy, config, work_of(1))
    average = MovingAverage.of(policy, 0.9).policy
    found = {}
    for kind, attention in (("tree", NAME), ("flat", "sdpa")):
        policy.attention = average.attention = attention
        engines = {"engine": bind(kind, policy), "baseline": bind(kind, average)}
        found[kind] = TERMS["information_gain"](groups, replace(context, **engines))
    tree, flat = found["tree"], found["flat"]
    policy.network.set_attn_implementation(NAME)
    for one, another in zip(tree, flat, strict=True):
        assert one == pytest.approx(another, abs=1e-6)


def test_equal_thoughts_gain_the_same_to_the_bit(policy, written_groups) -> None:
    """And what was predicted after them does not matter, nor how the thought was closed."""
    _, context = written_groups
    texts = [boxed(b"QQ"), boxed(b" the"), b"hm, or so", b"other</think>\n\\boxed{QQ}"]
    work, _ = text_work(policy, 6)
    group = group_of(policy, context, 0, texts)
    shared = (context.engine, context.layout, work, [group], [(40, 41)])
    ((one, two, open_end, other),) = thought_logprobs(*shared)
    assert one == two == open_end != other


def test_the_thoughts_tokens_leave_its_close_and_a_stop_token_out(policy, written_groups) -> None:
    _, context = written_groups
    layout = context.layout

    def ids_of(text: bytes, extra: tuple[int, ...] = ()) -> tuple[int, ...]:
        completion = written(policy, text)
        completion = replace(completion, token_ids=completion.token_ids + extra)
        rollout = grade(completion, [b" a"], layout, policy.table)
        return thought_ids(policy, layout, rollout)

    encoded = tuple(policy.tokenizer("hm, or so")["input_ids"])
    stop = (policy.tokenizer.eos_token_id,)
    assert ids_of(b"hm, or so") == ids_of(b"hm, or so", stop) == encoded
    assert ids_of(boxed(b"QQ"), stop) == encoded
    assert ids_of(b"</think>\n\\boxed{a}") == ()
    # Where a token holds the thought's end and the close's beginning, it is the close's.
    rollout = grade(written(policy, b"x the"), [b" a"], layout, policy.table)
    assert policy.table.bytes[rollout.completion.token_ids[-1]] == b" the"
    cut = replace(rollout, thought=b"x th")
    assert thought_ids(policy, layout, cut) == rollout.completion.token_ids[:-1]


# ---- the moving average -------------------------------------------------------------------------


def test_the_average_starts_at_the_policy_and_follows_it() -> None:
    policy, target = policy_of("gpt2"), 2.0
    average, reference = MovingAverage.of(policy, 0.75), averaged_by_torch(policy, 0.75)
    before = {name: p.detach().clone() for name, p in policy.network.named_parameters()}
    with torch.no_grad():
        for parameter in policy.network.parameters():
            parameter.fill_(target)
    for _ in range(2):
        average.update(policy)
        reference.update_parameters(policy.network)
    of_torch = dict(reference.module.named_parameters())
    for name, own in average.policy.network.named_parameters():
        expected = 0.75**2 * before[name] + (1 - 0.75**2) * target
        assert (own - expected).abs().max() < 1e-12, name
        assert torch.equal(own, of_torch[name]), name
        assert not own.requires_grad


def averaged_by_torch(policy: Model, decay: float) -> AveragedModel:
    reference = AveragedModel(policy.network, multi_avg_fn=get_ema_multi_avg_fn(decay))
    reference.update_parameters(policy.network)  # its first update is the start
    return reference


def test_small_changes_add_up_in_bfloat16() -> None:
    policy = policy_of("gpt2", dtype=torch.bfloat16)
    with torch.no_grad():
        for parameter in policy.network.parameters():
            parameter.fill_(1.0)
    average, reference = MovingAverage.of(policy, 0.999), averaged_by_torch(policy, 0.999)
    with torch.no_grad():
        for parameter in policy.network.parameters():
            parameter.fill_(2.0)
    for _ in range(1000):  # each moves it by less than bfloat16 resolves
        average.update(policy)
    reference.update_parameters(policy.network)
    assert all((p == 1).all() for p in reference.module.parameters())  # torch's never moves
    weights = next(iter(average.weights.values()))
    assert weights.dtype == torch.float32
    assert float(weights.flatten()[0]) == pytest.approx(2 - 0.999**1000, abs=1e-4)
    own = next(iter(average.policy.network.parameters()))
    assert own.dtype == torch.bfloat16 and float(own.flatten()[0]) == pytest.approx(1.63, abs=0.01)


# ---- training -----------------------------------------------------------------------------------

GAIN: dict[str, Any] = {
    "reward__terms": {"information_gain": 1.0, "random": 0.25, "prefix": 1.0},
    "reward__baseline_decay": 0.9,
    "reward__information_tokens": 2,
    "prompt__think_budget": 2,
    "train__learning_rate": 1e-2,
    "train__algorithm": "dr_grpo",
}


@pytest.mark.parametrize("rank", [0, 2])
def test_a_run_with_a_baseline_resumes_to_the_same_bits(tmp_path: Path, rank: int) -> None:
    settings = GAIN | {"model__lora_rank": rank}
    runs = []
    for name, stops in (("whole", (4,)), ("parts", (2, 4))):
        (tmp_path / name).mkdir()
        run = tiny_run(tmp_path / name, **settings)
        for steps in stops:
            section = run.config.train.model_copy(update={"steps": steps})
            train(Run(path=run.path, config=run.config.model_copy(update={"train": section})))
        runs.append(run)
    whole, parts = runs
    assert rows_of(whole) == rows_of(parts)
    assert rollouts_of(whole) == rollouts_of(parts)
    files = weights_of(whole, 4)
    assert files == weights_of(parts, 4)
    assert files.keys() == {"model.safetensors", "state.safetensors", "baseline.safetensors"}
    trained = load_file(whole.checkpoints / "step-000004" / "model.safetensors")
    baseline = load_file(whole.checkpoints / "step-000004" / "baseline.safetensors")
    if rank:
        assert all("lora" in name for name in baseline)
    else:
        assert baseline.keys() == trained.keys()
        assert any((trained[name] != baseline[name]).any() for name in trained)
    last = rows_of(whole)[-1]
    assert {"reward/information_gain", "reward/random", "reward/prefix", "reward/exact"} <= set(
        last
    )
    mixed = last["reward/information_gain"] + 0.25 * last["reward/random"] + last["reward/prefix"]
    assert last["reward/mean"] == pytest.approx(mixed)


def test_no_baseline_is_kept_where_no_reward_reads_it(tmp_path: Path) -> None:
    run = tiny_run(tmp_path, train__steps=1, reward__terms={"random": 1.0})
    train(run)
    assert weights_of(run, 1).keys() == {"model.safetensors", "state.safetensors"}
    assert "1 · random" in (run.checkpoints / "step-000001" / "README.md").read_text()
    (row,) = rows_of(run)
    assert row["reward/mean"] == row["reward/random"] and row["reward/exact"] == 0.0
    assert row["group/flat_fraction"] < 1
