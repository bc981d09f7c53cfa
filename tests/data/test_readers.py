"""Readers: compressed files, values that are no text, marks, pipes, broken and doubled columns."""

import gzip
import json
import math
import os
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from openrpt.config.corpus import CorpusConfig, ScoreConfig
from openrpt.config.sections import Config
from openrpt.data.corpus_counts import CorpusCounts
from openrpt.data.corpus_size import expected_bytes, expected_tokens
from openrpt.data.documents import read_corpus
from openrpt.data.field_values import text_of
from openrpt.data.made_corpora import made_records
from openrpt.data.readers import read_fields
from openrpt.errors import UserError
from tests.helpers.tiny import byte_level_tokenizer


def read(path: Path | str, **options: Any) -> tuple[list[str], CorpusCounts]:
    counts = CorpusCounts()
    documents = read_corpus(CorpusConfig(path=str(path), **options), counts)
    return [document.text for document in documents], counts


def error_of(path: Path | str, **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        read(path, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Values


def test_text_of_a_value() -> None:
    assert [text_of(value) for value in ("", " a", 3, -2.5, 10**30)] == [
        "",
        " a",
        "3",
        "-2.5",
        "1" + "0" * 30,
    ]
    floats = [0.25, 18.0, 1e-7, 2e-5, 1e22, -1e-20, 123456.789]
    assert [text_of(value) for value in floats] == [
        "0.25",
        "18.0",
        "0.0000001",
        "0.00002",
        "1" + "0" * 22,
        "-0." + "0" * 19 + "1",
        "123456.789",
    ]
    decimals = [Decimal("1.50"), Decimal("1E+3"), Decimal("-0.00000012")]  # of parquet
    assert [text_of(value) for value in decimals] == ["1.50", "1000", "-0.00000012"]
    others = [None, True, [], {}, b"a", Decimal("NaN"), math.nan, math.inf, -math.inf]
    assert [text_of(value) for value in others] == [None] * len(others)


def test_json_numbers_keep_the_digits_that_were_written(tmp_path: Path) -> None:
    written = ["1e22", "0.0000001", "1E5", "2.50", "-0.0", "18.0", "1e999", "12345678901234567890"]
    path = tmp_path / "c.jsonl"
    path.write_text("".join(f'{{"text": {number}, "k": {number}}}\n' for number in written))
    assert read(path)[0] == written
    (first, *_) = (fields["text"] for _, fields in read_fields(str(path)))
    assert first == 1e22 and str(first) == "1e22"
    documents = read_corpus(CorpusConfig(path=str(path), kind="k", key="k"), CorpusCounts())
    assert [(d.kind, d.key) for d in documents] == [(number, number) for number in written]


@pytest.mark.parametrize("kind", [pa.float16(), pa.float32(), pa.float64()], ids=str)
def test_numbers_of_parquet_have_the_digits_of_their_width(tmp_path: Path, kind: Any) -> None:
    numbers = np.array([0.1, 2.5, math.nan], kind.to_pandas_dtype())
    path = tmp_path / "c.parquet"
    parquet.write_table(pa.table({"text": pa.array(numbers, kind)}), path)
    assert read(path)[0] == ["0.1", "2.5"]


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary()], ids=str)
def test_bytes_in_utf8_are_text(tmp_path: Path, kind: Any) -> None:
    rows = pa.array(["naïve".encode(), b"\xff\xfe", None], kind)
    parquet.write_table(pa.table({"text": rows}), tmp_path / "c.parquet")
    texts, counts = read(tmp_path / "c.parquet")
    assert texts == ["naïve"]
    assert counts.skipped[0] == "c.parquet:2: field 'text' is not text but bytes"


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity"])
@pytest.mark.parametrize("ending", [".jsonl", ".parquet"])
def test_what_is_no_number_is_no_text(tmp_path: Path, value: str, ending: str) -> None:
    path, number = tmp_path / f"c{ending}", float(value)
    rows = [{"text": "a", "n": number, "s": "one"}, {"text": "b", "n": 2.5, "s": "two"}]
    if ending == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        assert value in path.read_text()
    else:
        parquet.write_table(pa.Table.from_pylist(rows), path)
    name = value.removeprefix("-")
    for options in ({"template": "{n}"}, {"template": "{s} {n}"}, {"key": "n"}):
        texts, counts = read(path, **options)
        assert (len(texts), counts.skipped_not_text) == (1, 1)
        assert counts.skipped == [f"c{ending}:1: field 'n' is not text but {name}"]
    documents = read_corpus(CorpusConfig(path=str(path), kind="n"), CorpusCounts())
    assert [document.kind for document in documents] == ["", "2.5"]


def test_half_a_surrogate_pair_is_no_kind(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    path.write_text('{"text": "a", "k": "\\ud83d"}\n{"text": "b", "k": "fine"}\n')
    texts, counts = read(path, kind="k")
    assert (texts, counts.skipped_invalid_utf8) == (["b"], 1)


# Files


def test_compressed_files_are_read_and_others_are_counted(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "one plain"}\n')
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(b'{"text": "two gz"}\n'))
    (tmp_path / "c.TXT.GZ").write_bytes(gzip.compress(b"three\r\n"))
    for name in ["d.csv", "e.MD", "f.csv", "g.jsonl.zst", "h", "i.parquet.gz", ".hidden.csv"]:
        (tmp_path / name).write_text("something")
    (tmp_path / "j.txt").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "k.jsonl")
    (tmp_path / "folder.txt").mkdir()
    (tmp_path / "linked").symlink_to(tmp_path / "folder.txt")
    texts, counts = read(tmp_path, strict=True)
    assert texts == ["one plain", "two gz", "three\r\n"]
    assert counts.files_left_out == 9
    assert sorted(counts.endings_left_out) == [
        ".csv",
        ".jsonl.zst",
        ".md",
        ".parquet.gz",
        "broken link",
        "linked folder",
        "no ending",
        "pipe or device",
    ]
    assert [fields["text"] for _, fields in read_fields(str(tmp_path))] == texts
    assert read(tmp_path / "b.jsonl.gz")[0] == ["two gz"]


def test_damaged_and_foreign_gz_files_are_refused(tmp_path: Path) -> None:
    lines = "".join(f'{{"text": "line {n * 7919}"}}\n' for n in range(5000)).encode()
    path, packed = tmp_path / "c.jsonl.gz", gzip.compress(lines)
    path.write_bytes(packed[:-2000])
    assert error_of(path).startswith(f"{path}: cannot be read: ")
    path.write_bytes(packed[:900] + b"\xff" * 900 + packed[1800:])
    assert error_of(path).startswith(f"{path}: cannot be read: ")
    path.write_bytes(b"plain text")
    assert error_of(path).startswith(f"{path}: cannot be read: Not a gzipped file")
    path.write_bytes(gzip.compress('{"text": "a"}'.encode("utf-16-le")))
    assert f"zcat {path} | iconv -f UTF-16LE -t UTF-8 > NEW.jsonl" in error_of(path)


def test_folder_of_other_files_says_what_is_there(tmp_path: Path) -> None:
    for name in ["a.csv", "b.md"]:
        (tmp_path / name).write_text("something")
    assert error_of(tmp_path).endswith(".jsonl.gz file; there are: .csv, .md")
    assert "unknown kind of file" in error_of(tmp_path / "a.csv")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_folder_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one")
    (tmp_path / "closed").mkdir(mode=0)
    assert error_of(tmp_path) == f"{tmp_path / 'closed'}: cannot be read: Permission denied"


def test_pipe_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "c.jsonl")
    assert "c.jsonl: a pipe or device; a corpus is read more than once" in error_of(
        tmp_path / "c.jsonl"
    )
    assert "/dev/null: a pipe or device" in error_of("/dev/null")
    reader, writer = os.pipe()
    assert "a pipe or device" in error_of(f"/dev/fd/{reader}")
    os.close(reader)
    os.close(writer)


def test_guess_of_the_bytes_counts_what_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x" * 4000)
    (tmp_path / "b.csv").write_text("x" * 400_000)
    config = Config(corpus=CorpusConfig(path=str(tmp_path)), score=ScoreConfig())
    assert round(expected_bytes(config)) == 4000
    (tmp_path / "c.txt.gz").write_bytes(b"\0" * 4000)
    assert round(expected_bytes(config)) == 16_000


@pytest.mark.parametrize("path", ["lab:scan?documents=3000", "bills?documents=300"])
def test_a_made_corpus_is_as_long_as_its_documents(path: str) -> None:
    config = Config(corpus=CorpusConfig(path=path), score=ScoreConfig())
    texts = [record["text"] for _, record in made_records(config.corpus)]
    true = sum(len(text.encode()) for text in texts)
    assert expected_bytes(config) == pytest.approx(true, rel=0.1)
    few = config.model_copy(update={"corpus": config.corpus.model_copy(update={"limit": 30})})
    assert expected_bytes(few) == pytest.approx(30 * true / len(texts), rel=0.1)
    tokens = expected_tokens(config, byte_level_tokenizer())
    assert 0.5 * true < tokens <= 1.1 * true


def test_guess_of_the_tokens_is_by_those_of_the_first_documents(tmp_path: Path) -> None:
    """A tokenizer of bytes finds four times the tokens of one with words."""
    text = "".join(f"{n} and {n} are {2 * n}, as everybody knows\n\n" for n in range(400))
    (tmp_path / "sums.txt").write_text(text)
    config = Config(corpus=CorpusConfig(path=str(tmp_path / "sums.txt")), score=ScoreConfig())
    tokenizer = byte_level_tokenizer()
    true = len(tokenizer(text)["input_ids"])
    assert true > len(text) / 3
    assert expected_tokens(config, tokenizer) == pytest.approx(true, rel=0.05)


# Lines


def test_marks_of_joined_files_are_no_text(tmp_path: Path) -> None:
    mark = b"\xef\xbb\xbf"
    jsonl, txt = tmp_path / "c.jsonl", tmp_path / "c.txt"
    jsonl.write_bytes(mark + b'{"text": "a"}\r\n' + mark + b'{"text": "b\xef\xbb\xbf"}\r\n' + mark)
    assert read(jsonl)[0] == ["a", "b\ufeff"]
    jsonl.write_bytes(b'{"text": "a"}' + mark + b'{"text": "b"}\n')
    assert "c.jsonl:1: broken JSON" in error_of(jsonl)
    assert "a byte order mark (BOM) stands in the line" in error_of(jsonl)
    txt.write_bytes(mark + b"one\r\n===\r\n" + mark + b"two\n===\n" + mark)
    assert read(txt, separator="\n===\n")[0] == ["one", "two"]
    txt.write_bytes(mark + b"one\r\n" + mark + b"two\n" + mark)
    assert read(txt)[0] == ["one\r\ntwo\n"]


@pytest.mark.parametrize("separator", ["\n\n", "\r\n\r\n"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_separator_stands_for_both_line_breaks(tmp_path: Path, separator: str, end: str) -> None:
    (tmp_path / "c.txt").write_bytes("one a\n\ntwo\nb\n\nthree c\n".replace("\n", end).encode())
    assert read(tmp_path / "c.txt", separator=separator)[0] == [
        "one a",
        f"two{end}b",
        f"three c{end}",
    ]


# Tables


def test_doubled_columns_are_named(tmp_path: Path) -> None:
    columns = [pa.array(["a one"]), pa.array(["b two"]), pa.array(["c three"])]
    table = pa.Table.from_arrays(columns, names=["text", "text", "other"])
    parquet.write_table(table, tmp_path / "c.parquet")
    assert error_of(tmp_path / "c.parquet").endswith(
        "c.parquet: 2 columns are called 'text'; rename"
    )
    assert read(tmp_path / "c.parquet", template="{other}")[0] == ["c three"]
    with pytest.raises(UserError, match="2 columns are called 'text'"):
        list(read_fields(str(tmp_path / "c.parquet")))


def test_what_datasets_raises_is_one_line(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    path = tmp_path / "n.jsonl"
    first = '{"text": "%s", "meta": null}\n' % ("x " * 500)
    path.write_text(first * 12000 + '{"text": "last", "meta": "a string"}\n')
    try:
        number = sum(1 for _ in read_fields(f"datasets:json:{path}"))
    except UserError as error:
        assert str(error).startswith(f"datasets:json:{path}: cannot be loaded: ")
        assert "\n" not in str(error)
    else:
        assert number == 12001
    path.write_text('{"text": "a"}\nno JSON\n')
    assert "cannot be loaded" in error_of(f"datasets:json:{path}")
    assert "cannot be loaded" in error_of(f"datasets:parquet:{path}")
