"""Files of traces: written, read, refused; and their places in scored documents."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from openrpt.config.prompt import PromptConfig
from openrpt.data.scored import ScoredCorpus, load_scored
from openrpt.data.tokens import token_table
from openrpt.data.trace_places import PlacedTrace, TraceCounts, place_traces
from openrpt.data.traces import GivenTrace, read_traces, write_traces
from openrpt.errors import UserError
from openrpt.stages.traces.calculator import calculator_traces
from tests.helpers.tiny import byte_level_tokenizer
from tests.helpers.tiny_model import tiny_config, tiny_run

TRACES = [
    GivenTrace(key="a", byte_offset=12, thought="\n1 + 1 = 2", prediction="2", kind="+"),
    GivenTrace(key="", position=3, thought="", prediction=" é}\u2028", source="me"),
    GivenTrace(key="b", document_id="0" * 16, byte_offset=0, thought="x", prediction="y"),
]


@pytest.mark.parametrize("name", ["t.jsonl", "t.parquet"])
def test_what_is_written_is_read(tmp_path: Path, name: str) -> None:
    write_traces(tmp_path / name, TRACES)
    found = list(read_traces(tmp_path / name))
    assert [trace for _, trace in found] == TRACES
    assert [source for source, _ in found] == [f"{name}:{n}" for n in (1, 2, 3)]
    with pytest.raises(UserError, match="is there already"):
        write_traces(tmp_path / name, TRACES)


def test_a_file_is_whole_or_not_there(tmp_path: Path) -> None:
    def failing():
        yield TRACES[0]
        raise UserError("a corpus that breaks off")

    with pytest.raises(UserError, match="breaks off"):
        write_traces(tmp_path / "t.jsonl", failing())
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UserError, match=r"traces are \.jsonl or \.parquet"):
        write_traces(tmp_path / "t.txt", TRACES)


def test_a_table_of_another_program(tmp_path: Path) -> None:
    """Offsets are floats where a column had nulls, and NaN stands for null."""
    rows = {"key": ["a", "b"], "thought": ["t", "u"], "prediction": ["1", "2"]}
    rows |= {"byte_offset": [4.0, float("nan")], "position": [None, 7]}
    pq.write_table(pa.table(rows), tmp_path / "t.parquet")
    found = [
        (trace.byte_offset, trace.position) for _, trace in read_traces(tmp_path / "t.parquet")
    ]
    assert found == [(4, None), (None, 7)]


GOOD: dict[str, Any] = {"key": "a", "byte_offset": 1, "thought": "t", "prediction": "p"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"key": None}, "field 'key' is not text but null"),
        ({"thought": 3}, "field 'thought' is not text but int"),
        ({"prediction": ""}, "field 'prediction' is empty"),
        ({"position": 3}, "either a byte_offset or a position"),
        ({"byte_offset": None}, "either a byte_offset or a position"),
        ({"byte_offset": -1}, "field 'byte_offset' is -1, no place"),
        ({"byte_offset": 1.5}, "no place in a document"),
        ({"byte_offset": True}, "no place in a document"),
        ({"byte_offset": "3"}, "no place in a document"),
        ({"thought": "\ud800"}, "half a surrogate pair"),
    ],
)
def test_what_is_no_trace(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text(f"{json.dumps(GOOD)}\n{json.dumps(GOOD | change)}\n", encoding="utf-8")
    with pytest.raises(UserError, match=message) as caught:
        list(read_traces(path))
    assert str(caught.value).startswith("t.jsonl:2: ") and "\n" not in str(caught.value)


def test_a_field_that_is_missing(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"key": "a"}\n', encoding="utf-8")
    with pytest.raises(UserError, match=r"t\.jsonl:1: field 'thought' is missing"):
        list(read_traces(tmp_path / "t.jsonl"))


# Places


TOKENIZER = byte_level_tokenizer()


@pytest.fixture(scope="module")
def corpus_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("traces") / "sums.jsonl"
    texts = [
        f"Day {n}: Tom had {n} * 12 = {n * 12} pens and sold {n} for $2 each, {n} x $2 = ${n * 2}."
        for n in range(11, 31)
    ]
    rows = [{"text": text, "id": f"p{n}"} for n, text in enumerate(texts)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def corpus(corpus_path: Path) -> ScoredCorpus:
    return load_scored(tiny_run(corpus_path.parent, **options_of(corpus_path)).scored)


def options_of(path: Path) -> dict[str, Any]:
    return {"corpus__path": str(path), "corpus__key": "id"}


PROMPT = PromptConfig(min_context=2, think_budget=40, prediction_budget=20)


def placed(
    traces: list[GivenTrace], corpus: ScoredCorpus, prompt: PromptConfig = PROMPT
) -> tuple[dict[str, list[PlacedTrace]], TraceCounts]:
    counts = TraceCounts()
    numbered = [(f"t.jsonl:{n}", trace) for n, trace in enumerate(traces, start=1)]
    return place_traces(numbered, corpus, TOKENIZER, prompt, counts), counts


def test_the_calculators_traces_have_their_places(
    tmp_path: Path, corpus_path: Path, corpus: ScoredCorpus
) -> None:
    summary = calculator_traces(
        tiny_config(corpus_path.parent, **options_of(corpus_path)), tmp_path / "t.jsonl"
    )
    assert summary.kinds == {"*": 2 * summary.documents} and summary.most == 2
    traces = [trace for _, trace in read_traces(tmp_path / "t.jsonl")]
    found, counts = placed(traces, corpus)
    assert counts.placed == len(traces) == summary.traces and counts.left_out() == ""
    assert found.keys() == set(corpus.ids("train"))
    for document_id, of_document in found.items():
        document = corpus.document(document_id)
        text = document.text.encode()
        for one in of_document:
            start = int(document.byte_offsets[one.index])
            prediction = b"".join(token_table(TOKENIZER).bytes[i] for i in one.prediction_ids)
            assert text.startswith(prediction, start)
            thought = b"".join(token_table(TOKENIZER).bytes[i] for i in one.thought_ids).decode()
            assert thought.startswith("\n") and thought.endswith(prediction.decode().strip(" $"))
    # The rule for positions and the traces mean the same tokens.
    from openrpt.data.token_classes import computed_tokens

    for document_id, of_document in found.items():
        document = corpus.document(document_id)
        assert [one.index for one in of_document] == computed_tokens(
            document.text, document.byte_offsets
        )


def test_a_position_is_as_good_as_an_offset(corpus: ScoredCorpus) -> None:
    document = corpus.document(corpus.ids("train")[0])
    at = document.text.index("pens")
    by_offset = GivenTrace(key=document.key, byte_offset=at, thought="t", prediction="pens")
    found, _ = placed([by_offset], corpus)
    ((one,),) = found.values()
    by_position = GivenTrace(key=document.key, position=one.index, thought="t", prediction="pens")
    again, counts = placed([by_position, by_offset], corpus)
    assert again == found and counts.repeated == 1


def test_what_has_no_place_is_counted(corpus: ScoredCorpus) -> None:
    document = corpus.document(corpus.ids("train")[0])

    def trace(**changes: Any) -> GivenTrace:
        at = document.text.index("pens")
        values = {"key": document.key, "byte_offset": at, "thought": "t", "prediction": "pens"}
        return GivenTrace(**(values | changes))

    traces = [
        trace(),
        trace(key="elsewhere"),
        trace(document_id="0" * 16),
        trace(byte_offset=0, prediction="Day"),
        trace(thought="t" * 99),
    ]
    _, counts = placed(traces, corpus)
    assert (counts.placed, counts.no_document, counts.too_early, counts.too_long) == (1, 2, 1, 1)
    with pytest.raises(UserError, match=r"no trace has a place .*: 1 of documents that were not"):
        placed([trace(key="elsewhere")], corpus)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prediction": "cats"}, "'cats' is not what document .* says at byte .*: 'pens'"),
        ({"thought": "so </think> it"}, "would end the thought there"),
        ({"byte_offset": None, "position": 9999}, "position 9999 is beyond the"),
    ],
)
def test_what_can_not_be_is_refused_by_line(
    changes: dict[str, Any], message: str, corpus: ScoredCorpus
) -> None:
    document = corpus.document(corpus.ids("train")[0])
    at = document.text.index("pens")
    values = {"key": document.key, "byte_offset": at, "thought": "t", "prediction": "pens"}
    with pytest.raises(UserError, match=message) as caught:
        placed([GivenTrace(**(values | changes))], corpus)
    assert str(caught.value).startswith("t.jsonl:1: ")


def test_a_corpus_without_arithmetic(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("There is nothing to be computed here.", encoding="utf-8")
    with pytest.raises(UserError, match="no computed number, such as"):
        config = tiny_config(tmp_path, corpus__path=str(path))
        calculator_traces(config, tmp_path / "t.jsonl")
    assert not (tmp_path / "t.jsonl").exists()
