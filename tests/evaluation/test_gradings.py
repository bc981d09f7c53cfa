"""The three ways of grading, on worked sums: against transformers, and by hand."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from openrpt.config.loading import with_overrides
from openrpt.data.evaluation_work import evaluation_work
from openrpt.data.scored import load_scored
from openrpt.data.spans import same_span
from openrpt.data.token_classes import computed_tokens
from openrpt.data.work import document_bytes
from openrpt.engine.engine import bind
from openrpt.engine.loading import load_model
from openrpt.engine.model import Model
from openrpt.errors import UserError
from openrpt.evaluation.next_token.evaluate import evaluate_policy
from openrpt.evaluation.next_token.results import SIDES, EvaluationResult
from openrpt.evaluation.next_token.stage import evaluate_model, evaluate_templates
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


def test_standard_prediction_reads_no_instructions(
    run: Run, policy: Model, result: EvaluationResult
) -> None:
    """Behind instructions, too, it is decoded over the text alone."""
    template = {"prompt.template": "chat", "prompt.chat_template": "off"}
    config = with_overrides(run.config, template)
    other = evaluate_policy(bind("tree", policy), load_scored(run.scored), config)
    for name in SIDES.values():
        assert (other.columns[name] == result.columns[name]).all()
    assert (other.columns["span"] != result.columns["span"]).any()


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


# ---- positions by rule --------------------------------------------------------------------------


def test_positions_by_rule(run: Run) -> None:
    """All computed numbers of the split, and no other position, whatever document comes first."""
    corpus = load_scored(run.scored)

    def positions(where: str, count: int, min_entropy: float = 0.0) -> dict[str, list[int]]:
        works = evaluation_work(
            corpus,
            run.config,
            split="heldout",
            positions=count,
            positions_per_document=200,
            min_entropy=min_entropy,
            where=where,
        )
        found: dict[str, list[int]] = {}
        for work in works:
            found.setdefault(work.document.document_id, []).extend(p.index for p in work.positions)
        return {name: sorted(found[name]) for name in sorted(found)}

    expected = {}
    for name in sorted(corpus.ids("heldout")):
        document = corpus.document(name)
        known = computed_tokens(document.text, document.byte_offsets)
        assert len(known) == 4  # one a line
        expected[name] = [i for i in known if i >= run.config.prompt.min_context]
    assert positions("class:computed", 1000) == expected
    everywhere = positions("", 1000)
    assert all(set(expected[name]) < set(everywhere[name]) for name in expected)
    # Where few are asked for they are as many, and each of another document.
    assert [len(found) for found in positions("class:computed", 2).values()] == [1, 1]
    # The rule narrows what the entropy leaves: by hand.
    entropies = {name: corpus.document(name).entropy for name in expected}
    middle = float(np.median([entropies[n][i] for n, own in expected.items() for i in own]))
    narrowed = {
        name: [i for i in own if entropies[name][i] > middle] for name, own in expected.items()
    }
    found = positions("class:computed", 1000, middle)
    assert found == {name: own for name, own in narrowed.items() if own}
    with pytest.raises(UserError, match="passes the rule 'before:xyz'"):
        positions("before:xyz", 10)


def test_extra_positions_stand_apart(run: Run) -> None:
    """A second result under a label of its own; the first is the same to the bit without it."""
    alone_label, alone = evaluate_model(run, "warmup", run.config)
    extra = with_overrides(
        run.config, {"evaluate.extra_where": "class:computed", "evaluate.extra_positions": 12}
    )
    both = dict(evaluate_templates(run, "warmup", extra))
    assert list(both) == [alone_label, f"{alone_label}-where=class_computed"]
    first, second = both.values()
    for name, values in alone.columns.items():
        assert np.array_equal(values, first.columns[name], equal_nan=values.dtype.kind == "f")
    assert second.num_positions == 12 and second.columns["computed"].all()
    entries = read_evaluation(run.evaluation)["evaluations"]
    assert [entries[label]["where"] for label in both] == ["", "class:computed"]
    assert entries[alone_label]["summary"]["ntp"]["all"]["n"] == 60
    # The same as asked for alone, and taken from there.
    narrow = {"evaluate.where": "class:computed", "evaluate.positions": 12}
    label, only = evaluate_model(run, "warmup", with_overrides(run.config, narrow))
    assert label != alone_label and only.mark == second.mark
    assert (only.columns["position"] == second.columns["position"]).all()
    # Without such a position it is said before anything is measured.
    nowhere = with_overrides(run.config, {"evaluate.extra_where": "before:xyz"})
    with pytest.raises(UserError, match="before:xyz"):
        evaluate_templates(run, "start", nowhere)
    assert "start" not in read_evaluation(run.evaluation)["evaluations"]
