"""Traces of models: what is kept of their thoughts, and what becomes of it."""

import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from openrpt.cli.main import cli
from openrpt.config.examples import Example
from openrpt.config.sections import Config
from openrpt.data.traces import GivenTrace, read_traces
from openrpt.data.work import Work, document_bytes
from openrpt.engine.decoding import Sampling
from openrpt.errors import UserError
from openrpt.http_json import KEY
from openrpt.rl.grading import grade_groups
from openrpt.runs.run import Run
from openrpt.runs.scores import scores_of
from openrpt.seeding import keys_of
from openrpt.stages.traces.sampled import Draw, SampledSummary, _balanced, _works, sampled_traces
from openrpt.stages.traces.server import ServerThinker
from openrpt.stages.traces.thinkers import ModelThinker, Said
from openrpt.stages.warmup.warmup import open_warmup, warmup
from tests.helpers.completions_server import completions_server
from tests.helpers.tiny import sentencepiece_tokenizer
from tests.helpers.tiny_model import copied_run, tiny_model_folder, tiny_run
from tests.stages.test_given_thoughts import SETTINGS, sums

COMPUTED_RULE = "class:computed"
FREE: dict[str, Any] = {
    "prompt__candidates": 0,
    "prompt__think_budget": 3,
    "selection__strategy": "random",
}
DRAW = Draw(samples=4, positions=40, positions_per_document=4)


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run whose policy thinks of the letters to come, and is often right."""
    settings = FREE | {"warmup__target": "truth", "warmup__tail_steps": 0, "warmup__steps": 45}
    settings |= {"warmup__learning_rate": 6e-3, "warmup__documents_per_step": 1}
    run = tiny_run(tmp_path_factory.mktemp("sampled"), **settings)
    warmup(run)
    return run


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Sums, and a model that has learned nothing."""
    folder = tmp_path_factory.mktemp("sums")
    sums(folder / "corpus.jsonl")
    return tiny_run(folder, **SETTINGS)


def thinker_of(run: Run, config: Config) -> ModelThinker:
    return ModelThinker.open("self (warmup)", str(run.start), config, scores_of(run), 1.0)


def made(run: Run, out: Path, *, draw: Draw = DRAW, thinker: Any = None) -> SampledSummary:
    thinker = thinker or thinker_of(run, run.config)
    return sampled_traces(scores_of(run), run.config, thinker, out, draw)


def of_file(path: Path) -> list[GivenTrace]:
    return [trace for _, trace in read_traces(path)]


def graded(run: Run, config: Config, draw: Draw) -> Counter[tuple[str, int, str, str]]:
    """The right rollouts at the same positions by training's own way: document, byte, thought,
    prediction."""
    thinker, corpus = thinker_of(run, config), scores_of(run)
    model = thinker.engine.model
    layout, found = model.layout(config.prompt), Counter()
    for work in _works(corpus, config, draw):
        keys = [
            keys_of(draw.samples, config.seed, "traces", p.document_id, p.index)
            for p in work.positions
        ]
        (generated,) = thinker.engine.generate_each(
            [work.request(layout, keys)], layout, Sampling.of(config.prompt, temperature=1.0)
        )
        pieces = document_bytes(model.tokenizer, work.document)
        ids = work.document.token_ids.tolist()
        groups = grade_groups(generated, work.positions, ids, pieces, layout, model.table)
        for group in groups:
            offset = int(work.document.byte_offsets[group.prompt.position.index])
            for rollout in group.rollouts:
                is_text = rollout.thought.decode(errors="ignore").encode() == rollout.thought
                if rollout.exact and rollout.thought.strip() and is_text:
                    assert rollout.prediction is not None
                    said = rollout.thought.decode(), rollout.prediction.decode()
                    found[(work.document.document_id, offset, *said)] += 1
    return found


def test_what_is_kept_is_what_the_reward_calls_right(learned: Run, tmp_path: Path) -> None:
    summary = made(learned, tmp_path / "own.jsonl")
    right = graded(learned, learned.config, DRAW)
    traces = of_file(tmp_path / "own.jsonl")
    kept = [(t.document_id, t.byte_offset or 0, t.thought, t.prediction) for t in traces]
    assert set(kept) <= set(right)
    assert {one[:3] for one in kept} == {one[:3] for one in right}  # each thought, once a position
    assert len({one[:3] for one in kept}) == len(kept) == summary.traces > 5
    assert summary.positions.total() == 40 and summary.drawn.total() == 160
    assert right.total() <= summary.right.total() < 160
    assert {t.source for t in traces} == {"self (warmup)"}
    assert {t.kind for t in traces} == set(summary.kinds)
    assert not list(tmp_path.glob("*partial*"))
    # They are places in the documents that a warmup takes, and it says whose they are.
    again = copied_run(learned, "again", **FREE, warmup__traces=str(tmp_path / "own.jsonl"))
    shutil.rmtree(again.start)
    stage = open_warmup(again)
    assert stage.given.sources == ["self (warmup)"]
    assert sum(map(len, stage.given.by_document.values())) > len(traces) / 2


class Stopping:
    """A thinker that is stopped once it has thought so often, and says how often that was."""

    def __init__(self, thinker: ModelThinker, most: int) -> None:
        self.thinker, self.most, self.thought = thinker, most, 0
        self.name, self.mark = thinker.name, thinker.mark

    def think(self, works: Sequence[Work], samples: int) -> Iterator[Said]:
        for said in self.thinker.think(works, samples):
            if self.thought == self.most:
                raise KeyboardInterrupt
            self.thought += 1
            yield said


def test_a_stopped_maker_goes_on_to_the_same_file(learned: Run, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole.jsonl", tmp_path / "parts.jsonl"
    made(learned, whole)
    thinker = thinker_of(learned, learned.config)
    with pytest.raises(KeyboardInterrupt):
        made(learned, parts, thinker=Stopping(thinker, 3))
    assert not parts.exists() and (tmp_path / "parts.jsonl.partial.jsonl").is_file()
    rest = Stopping(thinker, 100)
    summary = made(learned, parts, thinker=rest)
    assert parts.read_bytes() == whole.read_bytes()
    assert rest.thought == summary.documents - 3
    with pytest.raises(UserError, match="is there already"):
        made(learned, whole)
    # Other draws are not taken from what was kept for these.
    with pytest.raises(KeyboardInterrupt):
        made(learned, tmp_path / "other.jsonl", thinker=Stopping(thinker, 3))
    more = Stopping(thinker, 100)
    fewer = Draw(samples=2, positions=40, positions_per_document=4)
    assert made(learned, tmp_path / "other.jsonl", draw=fewer, thinker=more).documents
    assert more.thought == summary.documents


def test_no_class_outweighs_the_others() -> None:
    sizes = {"word start": 50, "number": 9, "computed": 4, "operator": 1}
    kinds = [kind for kind, size in sizes.items() for _ in range(size)]
    summary, of_document = SampledSummary(documents=8, bytes=1000), []
    for d in range(8):
        own = [(n, kind) for n, kind in enumerate(kinds) if n % 8 == d]
        traces = [
            GivenTrace(key=f"d{d}", byte_offset=n, thought=str(n), prediction="1", kind=kind)
            for n, kind in own
        ]
        of_document.append(traces)
        counts = {"drawn": 4, "right": 1, "traces": [("a", "1")]}
        summary.count([counts | {"class": kind} for _, kind in own])
    kept = _balanced(of_document, seed=0)
    for traces, before in zip(kept, of_document, strict=True):
        summary.add(traces)
        assert traces == [trace for trace in before if trace in traces]
    assert summary.kinds == {"word start": 6, "number": 6, "computed": 4, "operator": 1}
    assert _balanced(of_document, seed=0) == kept != _balanced(of_document, seed=1)
    first, *_, last = summary.sheet().rows
    assert first == ["word start", "50", "200", "25.0%", "100.0%", "6"]
    assert last == ["all", "64", "256", "25.0%", "100.0%", "17"]


def test_a_model_of_another_tokenizer_is_asked_where_both_have_a_boundary(
    scored: Run, tmp_path: Path
) -> None:
    model = tiny_model_folder(tmp_path / "other", tokenizer=sentencepiece_tokenizer("metaspace"))
    config, corpus = scored.config, scores_of(scored)
    thinker = ModelThinker.open("other", str(model), config, corpus, 1.0)
    works = _works(corpus, config, Draw(positions=30))
    asked = 0
    for work, said in zip(works, thinker.think(works, 2), strict=True):
        offsets = {int(work.document.byte_offsets[p.index]) for p in work.positions}
        assert set(said) <= offsets and all(len(texts) == 2 for texts in said.values())
        asked += len(said)
    assert asked > 15
    with pytest.raises(UserError, match=r"none of \d+ rollouts at 30 positions has a thought"):
        sampled_traces(corpus, config, thinker, tmp_path / "none.jsonl", Draw(positions=30))
    assert list(tmp_path.glob("*.jsonl")) == []


EXAMPLE = Example(text="1+1 = ", thought="\n1+1 = 2", prediction="2")


def shown(run: Run) -> Config:
    prompt = run.config.prompt.model_copy(update={"examples": (EXAMPLE,)})
    rule = run.config.selection.model_copy(update={"where": COMPUTED_RULE})
    return run.config.model_copy(update={"prompt": prompt, "selection": rule})


def test_a_server_thinks(scored: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, "a key")
    config, corpus = shown(scored), scores_of(scored)
    with completions_server(busy=1, most_choices=3) as server:
        thinker = ServerThinker.open(server.address + "/", "", config, 0.7)
        draw = Draw(samples=5, positions=20, positions_per_document=4)
        summary = sampled_traces(corpus, config, thinker, tmp_path / "s.jsonl", draw)
    text = {work.document.document_id: work.document.text for work in _works(corpus, config, draw)}
    traces = of_file(tmp_path / "s.jsonl")
    assert {trace.source for trace in traces} == {"adder"}
    places = Counter((trace.document_id, trace.byte_offset) for trace in traces)
    for trace in traces:
        assert trace.byte_offset is not None
        said = text[trace.document_id].encode()[trace.byte_offset :].decode()
        assert said.startswith(trace.prediction) and trace.thought.endswith(trace.prediction)
    # Of five: right, wrong, without an end, right with a text behind it, right without a thought.
    assert summary.drawn == {"computed": 100} and summary.right == {"computed": 60}
    same = {place for place, count in places.items() if count == 1}  # a+a: the same thought twice
    assert len(places) == 20 and set(places.values()) <= {1, 2} and len(same) < 20
    assert {one["n"] for one in server.asked} == {5, 2}
    assert len({one["seed"] for one in server.asked}) == 40
    assert server.keys == ["Bearer a key"]
    body = server.asked[0]
    assert body["prompt"].startswith("1+1 = <think>\n1+1 = 2</think>\n\\boxed{2}\n\n")
    assert body["prompt"].endswith("<think>") and body["stop"] == ["<think>"]
    assert body["temperature"] == 0.7 and body["max_tokens"] == 20 + 4 + 16


def test_servers_that_can_not_be_asked(scored: Run, tmp_path: Path) -> None:
    config, corpus = shown(scored), scores_of(scored)
    with completions_server(models=("small", "large")) as server:
        with pytest.raises(UserError, match=r"which of its models.* one of small, large"):
            ServerThinker.open(server.address, "", config, 1.0)
        with pytest.raises(UserError, match="no model 'huge' there"):
            ServerThinker.open(server.address, "huge", config, 1.0)
        thinker = ServerThinker.open(server.address, "large", config, 1.0)
        server.models = ("small",)
        with pytest.raises(UserError, match=r"/v1/completions: 404 .*no model large"):
            sampled_traces(corpus, config, thinker, tmp_path / "s.jsonl", Draw(positions=4))
        assert not (tmp_path / "s.jsonl").exists()


def test_the_commands(learned: Run, scored: Run, tmp_path: Path) -> None:
    def invoke(*arguments: object) -> Any:
        return CliRunner().invoke(cli, ["traces", *map(str, arguments)])

    rule = ["--selection.where", COMPUTED_RULE, "--positions", 12, "--samples", 3]
    done = invoke("self", learned.path, *rule[2:], "--out", tmp_path / "self.jsonl")
    assert done.exit_code == 0, done.output
    assert "rollouts" in done.stdout and "traces by self (warmup): " in done.stdout
    with completions_server() as server:
        out = tmp_path / "server.jsonl"
        done = invoke("model", server.address, "--run", scored.path, *rule, "--out", out)
    assert done.exit_code == 0, done.output
    assert "traces by adder: " in done.stdout and len(of_file(out)) >= 12
    assert len(server.asked) == 12
    again = invoke("model", server.address, "--run", learned.path, "--out", out)
    assert isinstance(again.exception, UserError) and "is there already" in str(again.exception)
    none = invoke(
        "self", learned.path, "--prompt.think_budget", 0, "--out", tmp_path / "none.jsonl"
    )
    assert "leaves no room for a thought" in str(none.exception)
    absent = invoke("self", tmp_path / "no-run", "--out", tmp_path / "none.jsonl")
    assert "not a run folder" in str(absent.exception)
