"""The three ways of grading, on worked sums: against transformers, and by hand."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from openrpt.data.scored import load_scored
from openrpt.data.spans import same_span
from openrpt.data.work import document_bytes, evaluation_work
from openrpt.engine.engine import bind
from openrpt.engine.loading import load_model
from openrpt.engine.model import Model
from openrpt.evaluation.next_token.evaluate import evaluate_policy
from openrpt.evaluation.next_token.results import SIDES, EvaluationResult
from openrpt.evaluation.next_token.stage import evaluate_model
from openrpt.evaluation.records import read_evaluation
from openrpt.rl.rewards.matching import first_token_match
from openrpt.runs.run import Run
from openrpt.stages.warmup.warmup import warmup
from tests.engine.test_span_decoding import generated_by_transformers
from tests.helpers.tiny_model import tiny_run


def sums(path: Path) -> None:
    """Documents of sums with their results, in which only the numbers are not known by heart."""
    texts = []
    for start in range(12):
        numbers = [(start * 7 + i * 5) % 30 + 5 for i in range(4)]
        lines = [f"So {n} + {start} = {n + start} dogs." for n in numbers]
        texts.append(json.dumps({"text": "\n".join(lines), "kind": str(start % 2)}))
    path.write_text("\n".join(texts) + "\n", encoding="utf-8")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("sums")
    sums(folder / "corpus.jsonl")
    run = tiny_run(
        folder,
        corpus__heldout_fraction=0.4,
        corpus__kind="kind",
        prompt__window=48,
        evaluate__min_entropy=0.0,
        evaluate__positions=60,
        evaluate__positions_per_document=30,
        warmup__ntp_weight=1.0,
        warmup__answer_sharpness=1.0,
        warmup__steps=80,
    )
    warmup(run)
    return run


@pytest.fixture(scope="module")
def policy(run: Run) -> Model:
    return load_model(run.config.model, path=str(run.start))


@pytest.fixture(scope="module")
def result(run: Run, policy: Model) -> EvaluationResult:
    return evaluate_policy(bind("tree", policy), load_scored(run.scored), run.config)


def test_standard_prediction_is_graded_by_greedy_generation(
    run: Run, policy: Model, result: EvaluationResult
) -> None:
    layout = policy.layout(run.config.prompt)
    settings = run.config.evaluate
    works = evaluation_work(
        load_scored(run.scored),
        run.config,
        split="heldout",
        positions=settings.positions,
        positions_per_document=settings.positions_per_document,
        min_entropy=0.0,
    )
    row, longest = 0, 0
    for work in works:
        ids = work.document.token_ids.tolist()
        tokens = document_bytes(policy.tokenizer, work.document)
        for position in work.positions:
            prefix = ids[position.window_start : position.index]
            greedy = generated_by_transformers(policy, prefix, layout.delimiter_ids)
            said = b"".join(policy.table.bytes[i] for i in greedy)
            truth = b"".join(tokens[position.index :])
            assert result.columns["span_ntp"][row] == same_span(said, truth), (said, truth)
            is_token = policy.table.bytes[greedy[0]] == tokens[position.index]
            assert result.columns["first_token_ntp"][row] == is_token
            longest = max(longest, same_span(said, truth) and len(said))
            row += 1
    assert row == result.num_positions == 60
    assert longest > 2  # some span of several tokens was right
    spans, tokens_right = result.columns["span_ntp"], result.columns["ntp"]
    assert 0.2 < spans.mean() < tokens_right.mean() < 1.0


def test_boxes_are_graded_by_what_they_say(run: Run, policy: Model) -> None:
    label, result = evaluate_model(run, "warmup", run.config)
    rows = pq.read_table(run.path / "evaluation" / "rollouts" / f"{label}.parquet").to_pylist()
    corpus = load_scored(run.scored)
    for i, row in enumerate(rows):
        document = corpus.document(row["document_id"])
        tokens = document_bytes(policy.tokenizer, document)[row["position"] :]
        prediction = row["prediction"] or b""
        assert result.columns["span"][i] == same_span(prediction, b"".join(tokens))
        # Where the tokens that the policy wrote end, in bytes of the box.
        written = [policy.table.bytes[token] for token in row["token_ids"]]
        box = b"".join(written).rfind(b"\\boxed{") + len(b"\\boxed{")
        ends = {*(np.cumsum([len(piece) for piece in written]) - box), len(prediction)}
        first = prediction.startswith(tokens[0]) and len(tokens[0]) in ends
        assert result.columns["first_token"][i] == (first or row["exact"])
    assert len(rows) == result.num_positions
    shares = [result.estimate(name).value for name in ("span", "reasoning", "first_token")]
    assert 0.2 < shares[0] < shares[1] <= shares[2] < 1


def test_a_box_that_goes_on_within_a_token_has_not_said_the_first_one() -> None:
    """` there` begins with the bytes of ` the`, and is another word."""
    assert first_token_match([b" there"], [b" the", b" end"]) == 0.0
    assert first_token_match([b" the", b"re"], [b" the", b" end"]) == 1.0


def test_the_value_of_a_thought_is_recorded_by_class(run: Run) -> None:
    label, result = evaluate_model(run, "warmup", run.config)
    value = read_evaluation(run.evaluation)["evaluations"][label]["thought_value"]
    assert value.keys() == SIDES.keys()
    columns = result.columns
    computed = columns["computed"]
    # The results of the sums, at their first digit or the space before it.
    assert 0 < computed.sum() < 20
    assert set(columns["token_class"][computed]) <= {"number", "whitespace"}
    for name, standard in SIDES.items():
        for part, inside in (("computed", computed), ("kind: 1", columns["document_kind"] == "1")):
            difference = columns[name][inside] - columns[standard][inside]
            assert value[name][part]["value"] == pytest.approx(difference.mean())
            assert value[name][part]["n"] == inside.sum()
    assert np.isfinite(value["span"]["all"]["low"])
