"""Weights that are divided among processes give the gradients, metrics and rollouts of whole ones,
whatever the number of passes of each process."""

import os
import pickle
import signal
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.tensor import DTensor

from openrpt.engine.divided import divide
from openrpt.engine.engine import bind
from openrpt.engine.lora import add_lora
from openrpt.engine.model import Model
from openrpt.files import write_text
from openrpt.rl import roll_call
from openrpt.rl.batch import Weighted, opening_length
from openrpt.rl.launched import launched_workers
from openrpt.rl.process_group import LostProcess
from openrpt.rl.update import update_policy
from openrpt.rl.workers import Workers
from openrpt.types import Group, Rollout
from tests.helpers.byte_policy import policy_of
from tests.helpers.processes import await_files, in_processes
from tests.helpers.updates import assert_equal, batch_of, config_of, gradients, layout_of

PLAIN: dict[str, Any] = {"train__kl_weight": 0.0}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "head shared": ("llama", PLAIN | {"memory__microbatch_tokens": 13}),
    "head of its own": ("qwen3", PLAIN | {"memory__microbatch_tokens": 1}),
    "biases, places": ("gpt2", PLAIN),
    "windows, clipped": ("gemma3", PLAIN | {"optim__max_grad_norm": 0.1}),
    "one token each": ("llama", PLAIN),
    "text alone": ("llama", PLAIN | {"train__entropy_weight": 0}),
    "no text, one flat": ("llama", PLAIN | {"train__ntp_weight": 0.0, "train__entropy_weight": 0}),
    "nothing": ("llama", PLAIN | {"train__ntp_weight": 0.0, "train__entropy_weight": 0}),
}
FLAT = {"text alone": (0, 1), "no text, one flat": (1,), "nothing": (0, 1)}
"""The documents of a case whose advantages are all 0."""

ADAPTED = ("llama", "gpt2")
"""Families with adapters: matrices of linear modules, and of Conv1D."""


def case_of(name: str) -> tuple[str, Any, list[Weighted]]:
    family, settings = CASES[name]
    config = config_of(**settings)
    batch = batch_of(policy_of(family), config)
    for number in FLAT.get(name, ()):
        zeros = torch.zeros_like(batch[number].advantages)
        batch[number] = replace(batch[number], advantages=zeros)
    if name == "one token each":  # of the first document: no completion of it is run
        batch[0] = replace(batch[0], groups=tuple(map(cut, batch[0].groups)))
    return family, config, batch


def cut(group: Group) -> Group:
    """The group with completions that end behind the first token that was drawn."""
    end = opening_length(group) + 1

    def shorter(rollout: Rollout) -> Rollout:
        own = rollout.completion
        parts = {
            name: getattr(own, name)[:end]
            for name in ("token_ids", "sampler_logprobs", "loss_mask")
        }
        return replace(rollout, completion=replace(own, **parts))

    return replace(group, rollouts=tuple(map(shorter, group.rollouts)))


def updated(
    policy: Model, workers: Workers, batch: list[Weighted], config: Any, draws: int = 0
) -> Any:
    """Whole gradients by name, metrics, the elements that the process keeps, and what is drawn so
    often before the update."""
    engine = bind("tree", policy)
    divide(policy, workers)
    with policy.reading():
        before = [drawn(policy) for _ in range(draws)]
    optimizer = torch.optim.SGD(policy.parameters(), lr=0.0)
    metrics = update_policy(
        engine, optimizer, batch, config, layout_of(policy, config), workers=workers
    )
    grads = {n: p.grad for n, p in policy.trained().items() if p.grad is not None}
    whole = {n: g.full_tensor() if isinstance(g, DTensor) else g for n, g in grads.items()}
    return whole, metrics, sum(part.numel() for part in policy.own_values().values()), before


def mixed_policy() -> Model:
    policy = policy_of(dtype=torch.float32)
    policy.compute_dtype = torch.bfloat16
    return policy


def adapted_policy(family: str = "llama") -> Model:
    """A policy with adapters of rank 4, none of which is 0."""
    policy, numbers = policy_of(family), torch.Generator().manual_seed(0)
    policy.network = add_lora(policy.network, rank=4, alpha=8).eval()
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.normal_(0.0, 0.1, generator=numbers)
    return policy


def drawn(policy: Model) -> tuple[list[Any], list[float]]:
    """The tokens of all completions, and their log-probabilities."""
    batch = batch_of(policy, config_of(**PLAIN))
    every = [r.completion for one in batch for group in one.groups for r in group.rollouts]
    logprobs = [logprob for one in every for logprob in one.sampler_logprobs]
    return [one.token_ids for one in every], logprobs


def test_divided_weights_give_the_same_update(tmp_path: Path) -> None:
    """By 3 processes, of which one has no document. In float64 to the order of sums; in mixed
    precision to that in float32: what is rounded is rounded alike."""
    cases = {name: case_of(name) for name in CASES}
    expected = {
        name: gradients(policy_of(family), "tree", batch, config)
        for name, (family, config, batch) in cases.items()
    }
    _, *shared = cases["head shared"]
    mixed = gradients(mixed_policy(), "tree", shared[1], shared[0])

    def work(rank: int) -> None:
        with launched_workers("cpu", minutes=5) as workers:
            found: dict[str, Any] = {
                name: updated(policy_of(family), workers, batch, config)
                for name, (family, config, batch) in cases.items()
            }
            found["mixed"] = updated(mixed_policy(), workers, shared[1], shared[0])
            # Before a step each generates as often as it likes, and only then.
            family, config, batch = cases["text alone"]
            found["text alone"] = updated(policy_of(family), workers, batch, config, draws=rank)
            (tmp_path / str(rank)).write_bytes(pickle.dumps(found))

    ended = in_processes(3, work)
    assert [one.code for one in ended] == [0, 0, 0], ended
    each = [pickle.loads((tmp_path / str(rank)).read_bytes()) for rank in range(3)]
    ids, logprobs = drawn(policy_of())
    for found in each:
        for name, (whole, metrics) in expected.items():
            assert_equal(found[name][0], whole, tolerance=1e-11) if whole else None
            assert found[name][0].keys() == whole.keys()
            assert found[name][1] == pytest.approx(metrics, rel=1e-12, abs=1e-14), name
        assert_equal(found["mixed"][0], mixed[0], tolerance=1e-5)
        for own_ids, own_logprobs in found["text alone"][3]:
            assert own_ids == ids
            assert own_logprobs == pytest.approx(logprobs, rel=1e-12)
    for name, (family, *_) in cases.items():
        parameters = policy_of(family).parameters()
        vectors = sum(p.numel() for p in parameters if p.ndim == 1)
        matrices = sum(p.numel() for p in parameters if p.ndim > 1)
        kept = [found[name][2] for found in each]
        assert sum(kept) == matrices + 3 * vectors
        assert max(kept) < 1.03 * matrices / 3 + vectors  # the rows of some are no multiple of 3


def test_adapters_of_divided_weights_have_the_same_gradient(tmp_path: Path) -> None:
    """By 3 processes, of which one has no document and one no row of half of the adapters. The
    frozen weights are divided, too, and have none."""
    _, config, batch = case_of("head shared")
    expected = {one: gradients(adapted_policy(one), "tree", batch, config) for one in ADAPTED}

    def work(rank: int) -> None:
        with launched_workers("cpu", minutes=1) as workers:
            found = {}
            for family in ADAPTED:
                policy = adapted_policy(family)
                found[family] = updated(policy, workers, batch, config)
                frozen = [p for p in policy.network.parameters() if not p.requires_grad]
                assert all(isinstance(p, DTensor) for p in frozen if p.ndim > 1)
                assert all(p.grad is None for p in frozen)
            (tmp_path / str(rank)).write_bytes(pickle.dumps(found))

    ended = in_processes(3, work)
    assert [one.code for one in ended] == [0, 0, 0], ended
    for rank in range(3):
        found = pickle.loads((tmp_path / str(rank)).read_bytes())
        for family, (whole, metrics) in expected.items():
            assert all("lora" in name for name in whole)
            assert_equal(found[family][0], whole, tolerance=1e-11)
            assert found[family][1] == pytest.approx(metrics, rel=1e-12, abs=1e-14)


def test_no_process_has_more_than_a_layer_to_generate(tmp_path: Path) -> None:
    """By 3 processes, of which one generates twice as much as another and one nothing, with
    meetings on the way: what whole weights draw, and at the peak a process' own part, one layer,
    the embeddings and the head."""
    expected = {family: drawn(policy_of(family)) for family in ADAPTED}

    def work(rank: int) -> None:
        with launched_workers("cpu", minutes=1) as workers:
            for family, known in expected.items():
                found, held = read_by_layer(policy_of(family), workers)
                assert found == [known] * 3
                assert held.before == held.behind < held.most <= held.before + held.allowed
            (tmp_path / str(rank)).touch()

    ended = in_processes(3, work)
    assert [one.code for one in ended] == [0, 0, 0], ended
    assert len(list(tmp_path.iterdir())) == 3


def read_by_layer(policy: Model, workers: Workers) -> tuple[list[Any], "Held"]:
    """What a process draws, and the elements that it holds meanwhile."""
    bind("tree", policy)
    sizes = {name: p.numel() for name, p in policy.trained().items() if p.ndim > 1}
    layers = {id(p) for layer in policy.layers for p in layer.parameters()}
    inside = {name: sizes[name] for name in sizes if id(policy.trained()[name]) in layers}
    divide(policy, workers, by_layer=True)
    held = Held(before=elements(policy))
    held.allowed = sum(inside.values()) // len(policy.layers)
    held.allowed += sum(size for name, size in sizes.items() if name not in inside)
    for layer in policy.layers:
        layer.register_forward_pre_hook(lambda *_: held.note(policy))
    with policy.reading():
        found = [drawn(policy) for _ in range(workers.rank)]
        assert workers.gather(workers.rank) == [0, 1, 2]
        found += [drawn(policy) for _ in range(2 - workers.rank)]
        found.append(workers.first(lambda: drawn(policy)))
    held.behind = elements(policy)
    return found, held


@dataclass
class Held:
    """Elements of a policy's weights that this process has."""

    before: int
    most: int = 0
    behind: int = 0
    allowed: int = 0
    """Those that it may have beside what it has at rest."""

    def note(self, policy: Model) -> None:
        self.most = max(self.most, elements(policy))


def elements(policy: Model) -> int:
    own = (p.to_local() if isinstance(p, DTensor) else p for p in policy.network.parameters())
    return sum(one.numel() for one in own)


def test_layers_are_freed_between_passes(tmp_path: Path) -> None:
    """While a pass's loss is computed, embeddings and head are whole, and no layer."""

    def work(rank: int) -> None:
        with launched_workers("cpu", minutes=5) as workers:
            policy = policy_of()
            engine = bind("tree", policy)
            divide(policy, workers)
            assert policy.divided is not None
            with policy.divided.turns():
                for _ in range(2 - rank):
                    (hidden,) = engine.states([[5, 6, 7]])
                    parts = {n: isinstance(p, DTensor) for n, p in policy.trained().items()}
                    policy.backward([hidden.sum()])
                    assert all(parts[n] for n in parts if "proj" in n), parts
                    assert not any(parts[n] for n in parts if "proj" not in n), parts
            if rank == 0:
                return
            with pytest.raises(AssertionError, match="weights that are divided"):
                engine.states([[5, 6, 7]])

    ended = in_processes(2, work)
    assert [one.code for one in ended] == [0, 0], ended


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("killed", "rank 1 of 3 ended without a word while the others waited for it ('pass for"),
        ("frozen", "rank 1 of 3 ended without a word while the others waited for it ('pass for"),
        ("late", "'pass forward' of 3 processes was not done within 0.2 min"),
    ],
)
def test_the_loss_of_one_in_a_pass_ends_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, message: str
) -> None:
    """They wait for it in an exchange of torch's own: of a frozen one until their limit, and one of
    them says meanwhile which it is."""
    monkeypatch.setattr(roll_call, "_BEAT_SECONDS", 0.2)
    if how == "frozen":
        monkeypatch.setattr(roll_call, "FROZEN_SECONDS", 8.0)
    _, config, batch = case_of("head shared")

    def work(rank: int) -> None:
        def lose(*_: Any) -> None:
            if how != "late":
                os.kill(os.getpid(), signal.SIGKILL if how == "killed" else signal.SIGSTOP)
            await_files(tmp_path, "0", "2")  # "late": not there until the others have given up

        # Each exchange before that of the pass has as long, too.
        minutes = {"killed": 5, "frozen": 0.2, "late": 0.2}[how]
        with launched_workers("cpu", minutes=minutes) as workers:
            policy, pids = policy_of(), workers.gather(os.getpid())
            if rank == 1:
                policy.layers[1].register_forward_hook(lose)
            try:
                updated(policy, workers, batch, config)
            except LostProcess as error:
                write_text(tmp_path / str(rank), str(error))
                if rank == 0 and how == "frozen":
                    os.kill(pids[1], signal.SIGKILL)

    ended = in_processes(3, work)
    code = 0 if how == "late" else -signal.SIGKILL
    assert [one.code for one in ended] == [0, code, 0], ended
    warned = "rank 1 of 3: no sign of life for 8 s ('pass forward')"
    # Once one of them has ended, torch may say more on the others.
    assert [warned in ended[rank].err for rank in (0, 2)] == [how == "frozen", False]
    for rank in (0, 2):
        assert message in (tmp_path / str(rank)).read_text()
