"""FLOPs against PyTorch's own counter, on tiny models and the passes that the stages really run.

torch counts what is run, OpenRPT what is needed. Texts are short beside the layers' widths, so that
masked keys stay far below the tolerance; logits that the update computes twice are taken off.
"""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from openrpt.config.model import ModelConfig
from openrpt.costs.flops import (
    Ledger,
    count_alone,
    count_completions,
    count_scoring,
    count_tree,
    generation_ledger,
    model_shape,
)
from openrpt.costs.meters import CountingEngine
from openrpt.engine.branches import Branch, Passage
from openrpt.engine.engine import bind
from openrpt.engine.loading import load_model
from openrpt.engine.scorer import score_ids
from openrpt.engine.tree.gradients import accumulate_gradients
from openrpt.engine.tree.levels import branch_states
from openrpt.evaluation.next_token.evaluate import evaluate_policy
from openrpt.evaluation.records import read_evaluation, record
from openrpt.rl.batch import Graded
from openrpt.rl.cost import count_generation, count_update, step_cost
from openrpt.rl.update import update_policy
from openrpt.runs.spent import scoring_cost
from openrpt.stages.traces.calculator import calculator_traces
from openrpt.stages.train import Trainer
from openrpt.stages.warmup.warmup import open_warmup
from tests.helpers.counting import WIDE, completion, corpus_of, counted, generate, live, trainer_of
from tests.helpers.tiny_model import tiny_model_folder, tiny_run


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    return trainer_of(tmp_path_factory.mktemp("compute"))


@pytest.mark.parametrize("temperature", [1.0, 0.02])
def test_generation(trainer: Trainer, temperature: float) -> None:
    """At a low temperature rollouts draw alike, and what they share is run once."""
    settings = trainer.config.train.model_copy(update={"temperature": temperature})
    config = trainer.config.model_copy(update={"train": settings})
    ledger = Ledger()
    engine = CountingEngine(engine=trainer.engine, ledger=ledger)
    counting = replace(trainer, config=config, engine=engine)
    kept: list[Graded] = []
    measured = counted(lambda: kept.append(generate(counting)))
    cost = step_cost(trainer.engine.model, kept, [], config, trainer.layout)
    assert cost["flops/generate"] == pytest.approx(measured, rel=0.02)
    assert ledger.shared.forward(model_shape(trainer.engine.model)) == cost["flops/generate"]
    assert ledger == count_generation(kept, trainer.layout)
    rollouts = [r.completion.token_ids for g in kept[0].groups for r in g.rollouts]
    assert (len(set(rollouts)) < len(rollouts)) == (temperature < 1)
    vllm = config.model_copy(
        update={"engine": config.engine.model_copy(update={"sampler": "vllm"})}
    )
    apart = step_cost(trainer.engine.model, kept, [], vllm, trainer.layout)
    more = apart["tokens/generate"] - cost["tokens/generate"]
    assert more >= len(kept[0].work.prefix_ids(trainer.layout, whole=False))
    assert apart["flops/generate"] > cost["flops/generate"]


@pytest.mark.parametrize(("ntp_weight", "repeat"), [(0.5, False), (0.5, True), (0.0, True)])
def test_update(trainer: Trainer, ntp_weight: float, repeat: bool) -> None:
    graded = live(generate(trainer), repeat=repeat)
    settings = trainer.config.train.model_copy(update={"ntp_weight": ntp_weight})
    config = trainer.config.model_copy(update={"train": settings})
    metrics: dict[str, float] = {}

    def update() -> None:
        metrics.update(
            update_policy(
                trainer.engine,
                trainer.optimizer,
                [graded],
                config,
                trainer.layout,
            )
        )

    measured = counted(update)
    if not ntp_weight:
        # Nothing reads the prefix's last states, so its last layer but for keys and values has no
        # backward; the formula counts it: one layer of how many there are (docs/costs.md).
        prefix = len(graded.work.prefix_ids(trainer.layout, whole=False))
        last = 256 * 256 * 2 + 256 * 1024 * 3
        measured += 4 * last * prefix
    cost = step_cost(trainer.engine.model, [graded], [graded], config, trainer.layout)
    assert cost["flops/update"] == pytest.approx(measured, rel=0.02)


def test_what_saved_tokens(trainer: Trainer) -> None:
    """One of two groups has equal rollouts and one is flat: those that the update leaves out are
    counted by hand, and all that is saved adds up to what is not run."""
    whole = live(generate(trainer), repeat=True)
    first, second = whole.groups[:2]
    flat = replace(second, rollouts=tuple(replace(r, reward=1.0) for r in second.rollouts))
    work = replace(whole.work, positions=whole.work.positions[:2])
    graded = replace(
        whole,
        work=work,
        groups=(first, flat),
        advantages=torch.stack([whole.advantages[0], torch.zeros_like(whole.advantages[1])]),
    )
    settings = trainer.config.train.model_copy(update={"ntp_weight": 0.0})
    config = trainer.config.model_copy(update={"train": settings})
    cost = step_cost(trainer.engine.model, [graded], [graded], config, trainer.layout)
    before = [n + len(trainer.layout.tail_ids) - 1 for n in work.prefix_lengths(trainer.layout)]
    ids = [[r.completion.token_ids for r in group.rollouts] for group in graded.groups]
    alone = [[n + len(one) for one in group] for n, group in zip(before, ids, strict=True)]
    distinct = sum(before[0] + len(one) for one in set(ids[0]))
    assert distinct < sum(alone[0])
    assert cost["tokens/saved_by_merging"] == sum(alone[0]) - distinct
    assert cost["tokens/saved_by_skipping"] == sum(alone[1])
    saved = sum(value for key, value in cost.items() if key.startswith("tokens/saved_by_"))
    run = cost["tokens/generate"] + cost["tokens/update"]
    assert saved + run == 2 * sum(map(sum, alone))  # generation and update


def test_update_without_sharing(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, engine__trainer="flat")
    graded = live(generate(trainer))
    metrics: dict[str, float] = {}

    def update() -> None:
        found = update_policy(
            trainer.engine,
            trainer.optimizer,
            [graded],
            trainer.config,
            trainer.layout,
        )
        metrics.update(found)

    shape = model_shape(trainer.engine.model)
    measured = counted(update) - 2 * shape.head_weights * metrics["tokens/trained_run"]
    text = trainer.config.train.ntp_weight > 0
    ledger = count_update(trainer.engine.model, [graded], trainer.config, trainer.layout, text=text)
    assert ledger.alone.train(shape) == pytest.approx(measured, rel=0.02)
    assert ledger.shared.train(shape) < 0.6 * ledger.alone.train(shape)
    cost = step_cost(trainer.engine.model, [graded], [graded], trainer.config, trainer.layout)
    assert cost["flops/update"] == ledger.shared.train(shape)  # needed, whatever ran it


def test_attention_to_the_last_key(trainer: Trainer) -> None:
    """Where no key is masked, ours and torch's are the same number, forward and backward."""
    policy, prefix = trainer.engine.model, tuple(range(10, 40))
    branch = Branch(prefix_length=30, tail_ids=(5,), completions=((6, 7),) * 3)
    shape = model_shape(policy)
    above = counted(lambda: branch_states(policy, prefix, [branch]))
    above -= counted(lambda: branch_states(policy, prefix, []))
    count = count_tree(30, [branch], 0)
    of_prefix = count_tree(30, [], 0)
    assert count.forward(shape) - of_prefix.forward(shape) == above

    def passage(branches: list[Branch]) -> Passage:
        return Passage(
            prefix_ids=prefix,
            branches=branches,
            prefix_loss=lambda hidden: hidden.sum(),
            completion_loss=lambda rows, hidden: hidden.sum(),
        )

    both = counted(lambda: accumulate_gradients(policy, [passage([branch])]))
    both -= counted(lambda: accumulate_gradients(policy, [passage([])]))
    scores = 2 * shape.attention_width * shape.layers * (count.pairs - of_prefix.pairs)
    both -= scores  # computed anew backward, so that they need not be kept
    assert count.train(shape) - of_prefix.train(shape) == both
    trainer.optimizer.zero_grad()


def test_alone_is_every_sequence_from_its_first_token() -> None:
    branch = Branch(prefix_length=5, tail_ids=(1, 2), completions=((3, 4, 5), (6,)))
    count = count_alone([branch], 4)
    assert (count.tokens, count.logits) == (9 + 7, 4)
    assert count.pairs == 9 * 10 / 2 + 7 * 8 / 2
    assert count_tree(5, [branch], 4).tokens == 5 + 2 + 2


def test_what_rollouts_have_drawn_alike_is_run_once() -> None:
    """By hand: after the forced 7, two draw 1 and go on to 2 and 3, one draws 4."""
    drawn = [completion(7, 1, 2, forced=1), completion(7, 1, 3, forced=1)]
    drawn += [completion(7, 1, 3, forced=1), completion(7, 4, 5, 6, forced=1)]
    count = count_completions(drawn, before=10)
    assert count.tokens == 4  # 7, 7 1, 7 4, 7 4 5: what is drawn last is not run
    assert count.pairs == 11 + 12 + 12 + 13
    assert count.logits == 4  # after each of the four; none for the 7 itself
    ledger = generation_ledger(10, [(8, drawn), (10, ())], tail_tokens=2, passes=2)
    assert ledger.shared.tokens == 2 * 10 + 2 + 4
    assert ledger.shared.logits == 2 * 2 + 4
    assert ledger.alone.tokens == 3 * (8 + 2 + 2) + (8 + 2 + 3) + 10 + (8 + 10)
    assert ledger.alone.logits == 2 + (3 * 2 + 3) + 2


def test_what_another_sampler_draws_is_run_rollout_by_rollout() -> None:
    """By hand: the prompt with the forced 7 once, then each of the four for itself; the prefix once
    more by the trainer, for standard prediction."""
    drawn = [completion(7, 1, 2, forced=1), completion(7, 1, 3, forced=1)]
    drawn += [completion(7, 1, 3, forced=1), completion(7, 4, 5, 6, forced=1)]
    count = count_completions(drawn, before=10, merged=False)
    assert count.tokens == 1 + 3 * 1 + 2  # 7; 1 thrice; 4 5
    assert count.pairs == 11 + 3 * 12 + 12 + 13
    assert count.logits == 3 * 2 + 3
    ledger = generation_ledger(10, [(8, drawn), (10, ())], tail_tokens=2, elsewhere=True)
    assert ledger.shared.tokens == 2 * 10 + 2 + 6
    assert ledger.shared.logits == 2 + 9
    assert ledger.alone.tokens == 3 * (8 + 2 + 2) + (8 + 2 + 3) + 10 + 8
    assert ledger.alone.logits == 2 + 9


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # peft
def test_lora_trains_its_own_weights_only(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, model__lora_rank=4)
    shape = model_shape(trainer.engine.model)
    plain = trainer.config.model.model_copy(update={"lora_rank": 0})
    whole = model_shape(load_model(plain, trained=True))
    assert (whole.frozen_weights, whole.frozen_head_weights) == (0, 0)
    assert shape.frozen_weights == whole.matrix_weights < shape.matrix_weights
    assert shape.frozen_head_weights == shape.head_weights


def test_position_embeddings_are_no_matrices(tmp_path: Path) -> None:
    folder = tiny_model_folder(tmp_path / "gpt2", family="gpt2")
    config = ModelConfig(path=str(folder), device="cpu", threads=1)
    shape = model_shape(load_model(config, trained=True))
    assert shape.matrix_weights == 2 * 12 * 48 * 48  # two layers of 12 d² weights


EXPERTS = {
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen3_moe": {"num_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 512},
}


@pytest.mark.parametrize("family", EXPERTS)
def test_a_token_meets_the_experts_that_are_chosen_for_it(tmp_path: Path, family: str) -> None:
    folder = tiny_model_folder(tmp_path / "m", family=family, **WIDE, **EXPERTS[family])
    settings = ModelConfig(path=str(folder), device="cpu", threads=1)
    engine = bind("flat", load_model(settings, trained=True, trainer="flat"))
    engine.model.network.set_experts_implementation("eager")  # torch counts no grouped products
    ids = [(7 * i) % 97 + 5 for i in range(60)]
    measured = counted(lambda: score_ids(engine, ids, window=60, min_context=4))
    count = count_scoring(60, head=0, window=60, min_context=4)
    assert count.forward(model_shape(engine.model)) == pytest.approx(measured, rel=0.02)


def test_scoring(trainer: Trainer) -> None:
    ids = [(7 * i) % 97 + 5 for i in range(60)]
    measured = counted(lambda: score_ids(trainer.engine, ids, window=32, min_context=4))
    count = count_scoring(60, head=0, window=32, min_context=4)
    assert count.forward(model_shape(trainer.engine.model)) == pytest.approx(measured, rel=0.02)
    cost = scoring_cost(trainer.run.scored)
    assert cost["flops"] > 0 and cost["seconds"] > 0 and cost["energy_measured"] in (True, False)


@pytest.mark.parametrize("candidates", [3, 0])
def test_a_warmup_of_given_thoughts(tmp_path: Path, candidates: int) -> None:
    """At positions with sums alone, whose imitations are padded to one length by few
    tokens."""
    tiny_model_folder(tmp_path / "model", **WIDE)
    texts = [" ".join(f"{n}+{m} = {n + m};" for m in range(1, 6)) for n in range(1, 5)]
    rows = [json.dumps({"text": text}) + "\n" for text in texts]
    (tmp_path / "corpus.jsonl").write_text("".join(rows))
    path = str(tmp_path / "traces.jsonl")
    settings = {"prompt__candidates": candidates, "prompt__think_budget": 24}
    settings |= {"selection__strategy": "random", "warmup__positions_per_document": 4}
    run = tiny_run(tmp_path, **settings, warmup__traces=path, warmup__trace_share=1.0)
    calculator_traces(run.config, Path(path))
    stage = open_warmup(run)
    stage.state.step = stage.config.warmup.tail_steps
    assert stage.meter.rate > 0  # measured here, so that its products are not counted
    found: dict[str, float] = {}
    measured = counted(lambda: found.update(stage.step()))
    assert found["trace/share"] == 1
    assert found["flops/generate"] + found["flops/update"] == pytest.approx(measured, rel=0.03)


@pytest.mark.parametrize("candidates", [3, 0])
def test_warmup(tmp_path: Path, candidates: int) -> None:
    tiny_model_folder(tmp_path / "model", **WIDE)
    stage = open_warmup(tiny_run(tmp_path, prompt__candidates=candidates, warmup__tail_steps=0))
    assert stage.meter.rate > 0  # measured here, so that its products are not counted
    found: dict[str, float] = {}
    measured = counted(lambda: found.update(stage.step()))
    assert found["flops/generate"] + found["flops/update"] == pytest.approx(measured, rel=0.02)
    assert found["sharing/flops_alone"] > 1.5 * (found["flops/generate"] + found["flops/update"])


def test_an_evaluation_says_what_it_took(trainer: Trainer) -> None:
    config = trainer.config.model_copy(
        update={"cost": trainer.config.cost.model_copy(update={"price_per_hour": 3.6})}
    )
    kept = []

    def evaluate() -> None:
        kept.append(
            evaluate_policy(
                trainer.engine,
                corpus_of(trainer),
                config,
                split="development",
                positions=8,
            )
        )

    measured = counted(evaluate)
    (result,) = kept
    record(trainer.run, "tiny", result, model="tiny", split="development")
    cost = read_evaluation(trainer.run.evaluation)["evaluations"]["tiny"]["evaluation_cost"]
    assert cost["flops"] == pytest.approx(measured, rel=0.02)
    assert cost["flops_alone"] > cost["flops"]
    assert cost["money"] == pytest.approx(cost["seconds"] * 0.001)
    assert cost["currency"] == "USD" and cost["joules"] > 0
