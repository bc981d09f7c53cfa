"""A warmup from given thoughts: what is imitated where, what is learned of it, what is refused."""

import json
import os
import random
import signal
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from openrpt.data.positions import windows
from openrpt.data.scored import load_scored
from openrpt.data.trace_places import PlacedTrace, TraceCounts, place_traces
from openrpt.data.traces import read_traces
from openrpt.data.work import Work, work_at
from openrpt.engine.checkpoint_record import read_record
from openrpt.engine.decoding import Sampling
from openrpt.engine.engine import open_engine
from openrpt.errors import UserError
from openrpt.evaluation.next_token.compare import compare
from openrpt.evaluation.next_token.recorded import find_evaluated
from openrpt.evaluation.next_token.stage import evaluate_model
from openrpt.evaluation.records import read_evaluation
from openrpt.report.page import render
from openrpt.runs.metrics import read_metrics
from openrpt.runs.run import Run
from openrpt.seeding import keys_of
from openrpt.stages.traces.calculator import calculator_traces
from openrpt.stages.train import train
from openrpt.stages.warmup.cost import StepCost
from openrpt.stages.warmup.imitations import Imitation
from openrpt.stages.warmup.warmup import Warmup, check_input, open_warmup, warmup
from openrpt.stopping import Interrupted
from tests.helpers.tiny_model import copied_run, tiny_model_folder, tiny_run

SETTINGS: dict[str, Any] = {
    "corpus__key": "id",
    "corpus__heldout_fraction": 0.25,
    "prompt__candidates": 0,
    "prompt__think_budget": 20,
    "prompt__prediction_budget": 4,
    "selection__strategy": "random",
    "warmup__ntp_weight": 0.0,
    "warmup__tail_steps": 0,
}
COMPUTED = {"selection__where": "class:computed"}


def sums(path: Path) -> Path:
    """Documents of small sums, in an order of their own each."""
    rng, rows = random.Random(0), []
    for number in range(32):
        pairs = [(rng.randint(1, 2), rng.randint(1, 2)) for _ in range(8)]
        text = " ".join(f"{a}+{b} = {a + b};" for a, b in pairs)
        rows.append(json.dumps({"id": f"s{number}", "text": text}) + "\n")
    path.write_text("".join(rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("given")
    sums(folder / "corpus.jsonl")
    run = tiny_run(folder, **SETTINGS)
    for split in ("train", "heldout"):
        calculator_traces(run.config, folder / f"{split}.jsonl", splits=(split,))
    return run


def copied(scored: Run, name: str, **changes: Any) -> Run:
    given = {"warmup__traces": str(scored.path.parent / "train.jsonl")}
    return copied_run(scored, name, **(SETTINGS | given | changes))


def rows_of(run: Run, stage: str = "warmup") -> list[dict[str, Any]]:
    return [row for row in read_metrics(run.metrics) if row["stage"] == stage]


def placed(run: Run, split: str) -> dict[str, list[PlacedTrace]]:
    tokenizer = open_engine(run.config).model.tokenizer
    traces = read_traces(run.path.parent / f"{split}.jsonl")
    corpus = load_scored(run.scored)
    return place_traces(traces, corpus, tokenizer, run.config.prompt, TraceCounts())


def first_work(stage: Warmup) -> Work:
    stage.state.step = 1
    (work, *_) = stage._take(tail_only=False)
    return work


def imitations_of(stage: Warmup, work: Work) -> list[Imitation]:
    return stage.maker(StepCost()).imitations(work, stage.state.step)


def heldout_thoughts(run: Run, path: Path) -> float:
    """Share of sampled rollouts whose thought is, to the token, the calculator's."""
    engine = open_engine(run.config, path=str(path))
    layout, prompt = engine.model.layout(run.config.prompt), run.config.prompt
    corpus, right, count = load_scored(run.scored), 0, 0
    for document_id, traces in placed(run, "heldout").items():
        document = corpus.document(document_id)
        window = windows(document.num_tokens, window=prompt.window, min_context=prompt.min_context)[
            0
        ]
        there = [t for t in traces if window.first <= t.index < window.end]
        work = work_at(document, window, [t.index for t in there])
        request = work.request(layout, [keys_of(2, 1, t.index) for t in there])
        sampling = Sampling.of(prompt, temperature=1.0)
        (outcomes,) = engine.generate_each([request], layout, sampling)
        for outcome, trace in zip(outcomes, there, strict=True):
            expected = trace.thought_ids + layout.thought_end_ids
            for completion in outcome.completions:
                right += completion.token_ids[: len(expected)] == expected
                count += 1
    return right / count


def reward(run: Run, name: str) -> float:
    probe = copied(run, name, train__steps=1, **COMPUTED)
    train(probe)
    (row,) = rows_of(probe, "train")
    return row["reward/mean"]


def test_thoughts_are_learned(scored: Run) -> None:
    run = copied(scored, "learned", warmup__steps=80, warmup__learning_rate=5e-3)
    before = reward(run, "learned-before"), heldout_thoughts(run, Path(run.config.model.path))
    warmup(run)
    after = reward(run, "learned-after"), heldout_thoughts(run, run.start)
    assert before[1] == 0 and after[1] > 0.5
    assert after[0] > before[0] + 0.3


class CtrlC:
    """Interrupts, as a user does, once this many steps are done; keeps what is said."""

    def __init__(self, step: int) -> None:
        self.step = step
        self.said: list[str] = []

    def begin(self, task: str, total: float, unit: str = "") -> None: ...

    def say(self, line: str) -> None:
        self.said.append(line)

    def update(self, completed: float, note: str = "") -> None:
        if completed == self.step:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.skipif(os.name == "nt", reason="signals")
@pytest.mark.usefixtures("heard")
def test_an_interrupted_warmup_goes_on_to_the_same_bits(scored: Run) -> None:
    here = scored.path.parent / "here.jsonl"
    here.write_bytes(Path(copied(scored, "unused").config.warmup.traces).read_bytes())
    settings = {"warmup__steps": 4, "warmup__traces": str(here)}
    whole, parts = (copied(scored, name, **settings) for name in ("whole", "parts"))
    warmup(whole)
    ctrl_c = CtrlC(2)
    with pytest.raises(Interrupted):
        warmup(parts, progress=ctrl_c)
    documents, used = len(load_scored(parts.scored).ids("train")), placed(parts, "train")
    assert ctrl_c.said[0].startswith(
        f"given thoughts: {sum(map(len, used.values()))} by calculator, in {len(used)} of"
        f" {documents} training documents"
    )
    given = here.read_bytes()
    here.write_bytes(given.replace(b'"calculator"', b'"me"', 1))
    with pytest.raises(UserError, match=r"here\.jsonl': not the file that the warmup in .* began"):
        open_warmup(parts)
    here.write_bytes(given)
    state = open_warmup(parts).state
    assert (state.step, state.trace_sources, len(state.traces)) == (2, ["calculator"], 64)
    warmup(parts)
    weights = [(run.start / "model.safetensors").read_bytes() for run in (whole, parts)]
    assert weights[0] == weights[1]
    losses = [[row["loss/trace"] for row in rows_of(run)] for run in (whole, parts)]
    assert losses[0] == losses[1]


SEEDED = {"prompt__candidates": 2}


@pytest.mark.parametrize("seeded", [SEEDED, {}], ids=["seeded", "unseeded"])
def test_what_is_imitated_where(scored: Run, seeded: dict[str, Any]) -> None:
    """A trace's position has its thought and prediction, each other the answer that it had; seeded,
    without a thought behind the candidates."""
    name = "imitated-seeded" if seeded else "imitated"
    stage = open_warmup(copied(scored, name, **seeded))
    plain = open_warmup(copied(scored, name + "-plain", **seeded, warmup__traces=""))
    work, layout = first_work(stage), stage.layout
    plain.state.step = stage.state.step
    traces = stage.given.at(work, 1)
    assert 0 < sum(trace is not None for trace in traces) < len(traces)
    stop = stage.engine.model.tokenizer.eos_token_id
    found, before = imitations_of(stage, work), imitations_of(plain, work)
    for one, old, trace in zip(found, before, traces, strict=True):
        assert one.is_given == (trace is not None) and not old.is_given
        close = layout.thought_end_ids + layout.answer_start_ids
        form = (*layout.answer_end_ids, stop)
        if trace is None and seeded:
            answered = old.token_ids[-len(form) - 1 :]
            assert (one.opening, one.token_ids) == (old.opening, close + answered)
            continue
        if trace is None:
            assert one == old
            continue
        if not seeded:
            assert one.opening == old.opening
        parts = (trace.thought_ids, close, trace.prediction_ids, form)
        assert one.token_ids == tuple(chain(*parts))
        assert one.targets == tuple(((token,), (1.0,)) for token in one.token_ids)
        weights = [[w] * len(ids) for w, ids in zip((1.0, 0.5, 1.0, 0.5), parts, strict=True)]
        assert one.weights == tuple(chain(*weights))
        place = work.document.token_ids[trace.index :][: len(trace.prediction_ids)]
        assert tuple(place.tolist()) == trace.prediction_ids


def test_half_of_the_seeds_before_given_thoughts_are_wrong(scored: Run) -> None:
    """So that the box is learned from the thought: see docs/decisions.md."""
    stage = open_warmup(copied(scored, "wrong-seeds", **SEEDED, warmup__trace_share=1.0))
    maker, work = stage.maker(StepCost()), first_work(stage)
    bytes_of, text = stage.engine.model.table.bytes, work.document.text.encode()
    traces = stage.given.at(work, 1)
    generated = maker._generate(work, 1, traces)
    kept = total = 0
    for outcome, trace in zip(generated, traces, strict=True):
        if trace is None:
            continue
        truth, other = trace.prediction_ids[0], outcome.candidate_ids[0]
        outcome = replace(outcome, candidate_ids=(truth, other))
        for step in range(30):
            seed = maker._seed_of_trace(outcome, work, trace, step)
            total += 1
            if seed == outcome.candidate_ids:
                kept += 1
                continue
            start = int(work.document.byte_offsets[trace.index])
            assert len(set(seed)) == 2 and seed[0] == other
            assert not any(text[start:].startswith(bytes_of[i]) for i in seed)
    assert total >= 60 and abs(kept / total - 0.5) < 0.2
    openings = [one.opening for one in imitations_of(stage, work) if one.is_given]
    assert openings == [
        stage.layout.seed(maker._seed_of_trace(outcome, work, trace, 1))
        for outcome, trace in zip(generated, traces, strict=True)
        if trace is not None
    ]


def test_a_close_that_is_forced_is_not_trained(scored: Run) -> None:
    """Where the thought fills the budget; one in between could not end, and is left out."""
    traces = placed(copied(scored, "sizes"), "train")
    sizes = {len(one.thought_ids) for found in traces.values() for one in found}
    size = max(sizes)
    stage = open_warmup(copied(scored, "forced", prompt__think_budget=size))
    used = [one for found in stage.given.by_document.values() for one in found]
    assert {len(one.thought_ids) for one in used} == {size}
    works = [first_work(stage) for _ in range(8)]
    given = [one for work in works for one in imitations_of(stage, work) if one.is_given]
    close, end = stage.layout.close_ids, len(stage.layout.thought_end_ids)
    assert given and min(sizes) + end > size + 1
    for one in given:
        assert one.token_ids[size : size + len(close)] == close
        assert one.weights[: size + len(close)] == (1.0,) * size + (0.0,) * len(close)
    for budget in (min(sizes) - 1, size + 1):
        with pytest.raises(UserError, match=rf"the longest thought takes {size + end} tokens with"):
            open_warmup(copied(scored, f"budget-{budget}", prompt__think_budget=budget))


def test_the_share_of_a_steps_positions(scored: Run) -> None:
    for share, fewest in ((0.0, 0), (0.25, 2), (1.0, 1)):
        stage = open_warmup(copied(scored, f"share-{share}", warmup__trace_share=share))
        other = open_warmup(copied(scored, f"share-{share}-again", warmup__trace_share=share))
        for stage_ in (stage, other):
            stage_.state.step = 1
        works = stage._take(tail_only=False)
        again = other._take(tail_only=False)
        assert [work.positions for work in works] == [work.positions for work in again]
        for work in works:
            traces = stage.given.at(work, 1)
            drawn = sum(trace is not None for trace in traces)
            window = work.window
            there = {
                trace.index
                for trace in stage.given.by_document[work.document.document_id]
                if window.first <= trace.index < window.end
            }
            indices = [position.index for position in work.positions]
            assert indices == sorted(set(indices)) and len(indices) <= 8
            assert drawn >= min(fewest, len(there))
            if share == 1.0:
                assert there <= set(indices) or drawn == 8
            assert all(window.first <= index < window.end for index in indices)


def test_the_tail_is_not_drawn_to_the_text_where_a_thought_begins(scored: Run) -> None:
    stage = open_warmup(copied(scored, "tails"))
    work = first_work(stage)
    loss = stage.loss([work])
    loss.accumulate([work], [imitations_of(stage, work)])
    own = [trace is None for trace in stage.given.at(work, 1)]
    assert 0 < sum(own) < len(own)
    rest = work_at(
        work.document,
        work.window,
        [p.index for p, mine in zip(work.positions, own, strict=True) if mine],
    )
    expected = stage.loss([rest])
    expected.accumulate([rest], [imitations_of(stage, rest)])
    for name in ("loss/tail_kl", "loss/imitation", "loss/text_kl"):
        assert loss.terms()[name] == pytest.approx(expected.terms()[name], rel=1e-5)
    assert loss.terms()["trace/share"] == 1 - sum(own) / len(own)


def test_traces_that_can_not_be_used(scored: Run) -> None:
    folder = scored.path.parent
    run = copied(scored, "heldout-only", warmup__traces=str(folder / "heldout.jsonl"))
    with pytest.raises(UserError, match="are of documents that are not trained on"):
        open_warmup(run)
    run = copied(scored, "absent", warmup__traces=str(folder / "absent.jsonl"))
    with pytest.raises(UserError, match=r"warmup\.traces = '.*absent.jsonl': can't be read \(No"):
        check_input(run)
    both = folder / "both.jsonl"
    both.write_bytes(b"".join((folder / f"{n}.jsonl").read_bytes() for n in ("train", "heldout")))
    stage = open_warmup(copied(scored, "both", warmup__traces=str(both)))
    heldout = sum(map(len, placed(scored, "heldout").values()))
    assert f"{heldout} of documents that are not trained on" in stage.given.summary
    assert stage.given.by_document.keys() <= set(stage.corpus.ids("train"))


@pytest.mark.parametrize("seeded", [SEEDED, {}], ids=["seeded", "unseeded"])
def test_flat_and_tree_learn_alike(tmp_path: Path, seeded: dict[str, Any]) -> None:
    tiny_model_folder(tmp_path / "model", family="gpt2", dtype=torch.float64)
    sums(tmp_path / "corpus.jsonl")
    settings = SETTINGS | seeded | {"model__dtype": "float64", "warmup__ntp_weight": 0.3}
    settings |= {"warmup__steps": 3, "warmup__positions_per_document": 4}
    base = tiny_run(tmp_path, **settings)
    calculator_traces(base.config, tmp_path / "train.jsonl")
    found = []
    for kind in ("tree", "flat"):
        run = copied(base, kind, **settings, engine__trainer=kind)
        warmup(run)
        assert all(row["loss/trace"] > 0 for row in rows_of(run))
        found.append(load_file(run.start / "model.safetensors"))
    for name, values in found[0].items():
        assert (values - found[1][name]).abs().max() < 1e-8, name


def test_the_tail_alone_uses_none(scored: Run) -> None:
    run = copied(scored, "tail-steps", warmup__tail_steps=1, warmup__steps=2)
    warmup(run)
    first, second = rows_of(run)
    assert first["trace/share"] == 0 and "loss/trace" not in first
    plain = copied(scored, "tail-plain", warmup__tail_steps=1, warmup__steps=1, warmup__traces="")
    warmup(plain)
    assert rows_of(plain)[0]["loss/tail_kl"] == first["loss/tail_kl"]
    assert second["trace/share"] >= 0.25 and second["loss/trace"] > 0


def test_what_comes_of_it_is_labelled(scored: Run) -> None:
    run = copied(scored, "labelled", warmup__steps=1, train__steps=1, evaluate__positions=8)
    warmup(run)
    train(run)
    seen = "given thoughts (train.jsonl, by calculator)"
    for folder in (run.start, run.checkpoints / "step-000001"):
        assert f"self target (supervised: it saw {seen})" in (folder / "README.md").read_text()
        assert read_record(folder).state.trace_sources == ["calculator"]
    evaluate_model(run, "start", run.config)
    evaluate_model(run, "trained", run.config)
    entries = read_evaluation(run.evaluation)["evaluations"]
    assert [entry["supervision"] for entry in entries.values()] == ["", seen]
    notes = compare(find_evaluated([str(run.path)])).notes
    assert notes == [f"trained comes of a supervised warmup: it saw {seen}"]
    page = render(run)
    assert f"after a supervised warmup: it saw {seen}" in page
    assert f"target the model itself (supervised: it saw {seen})" in page


def test_positions_without_a_thought_are_anywhere(scored: Run) -> None:
    """The rule says where reinforcement thinks; a warmup's other positions are no part of it."""
    stage = open_warmup(copied(scored, "ruled", selection__where="before:= "))
    stage.state.cursor = 0
    works = stage._take(tail_only=False)
    placed_at = [stage.given.at(work, 1) for work in works]
    without = [
        work.document.text.encode()[: int(work.document.byte_offsets[position.index])]
        for work, traces in zip(works, placed_at, strict=True)
        for position, trace in zip(work.positions, traces, strict=True)
        if trace is None
    ]
    assert without and not all(text.endswith(b"= ") for text in without)
