"""A warmup from given thoughts: what is imitated where, what is learned of it, what is refused."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from openrpt.data.positions import Window, windows
from openrpt.data.scored import load_scored
from openrpt.data.trace_places import PlacedTrace, TraceCounts, place_traces
from openrpt.data.traces import read_traces
from openrpt.data.work import Work, work_at
from openrpt.engine.decoding import Sampling
from openrpt.engine.engine import open_engine
from openrpt.runs.metrics import read_metrics
from openrpt.runs.run import Run
from openrpt.seeding import keys_of
from openrpt.stages.traces import calculator_traces
from openrpt.stages.train import train
from openrpt.stages.warmup.cost import StepCost
from openrpt.stages.warmup.imitations import Imitation
from openrpt.stages.warmup.warmup import Warmup, warmup
from tests.helpers.tiny_model import copied_run, tiny_run

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
        pairs = [(rng.randint(1, 3), rng.randint(1, 3)) for _ in range(8)]
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
    tokenizer = open_engine(run.config.model).model.tokenizer
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
    engine = open_engine(run.config.model, path=str(path))
    layout, prompt = engine.model.layout(run.config.prompt), run.config.prompt
    corpus, right, count = load_scored(run.scored), 0, 0
    for document_id, traces in placed(run, "heldout").items():
        document = corpus.document(document_id)
        window: Window = windows(
            document.num_tokens, window=prompt.window, min_context=prompt.min_context
        )[0]
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
    run = copied(scored, "learned", warmup__steps=150)
    before = reward(run, "learned-before"), heldout_thoughts(run, Path(run.config.model.path))
    warmup(run)
    after = reward(run, "learned-after"), heldout_thoughts(run, run.start)
    assert before[1] == 0 and after[1] > 0.5
    assert after[0] > before[0] + 0.3
