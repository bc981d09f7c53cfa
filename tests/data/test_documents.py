"""Documents: what is read, how it is cut and split, what is refused, what memory it takes."""

import builtins
import hashlib
import io
import json
import random
import re
import tracemalloc
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pyarrow import parquet

from openrpt.config.corpus import CorpusConfig
from openrpt.data import assets
from openrpt.data.corpus_counts import CorpusCounts
from openrpt.data.documents import read_corpus
from openrpt.data.duplicates import open_index
from openrpt.data.splits import split_of_key
from openrpt.data.template import Template
from openrpt.data.text_files import cut_at_separator, cut_blocks
from openrpt.errors import UserError
from openrpt.types import Document


def read(path: Path | str, **options: Any) -> tuple[list[Document], CorpusCounts]:
    counts = CorpusCounts()
    return list(read_corpus(CorpusConfig(path=str(path), **options), counts)), counts


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def words(seed: str, n: int) -> str:
    """`n` words that no other seed gives."""
    return " ".join(f"{seed}{number}" for number in range(n))


def key_on(side: str, *, besides: str = "") -> str:
    """A key whose own hash says `side` at the default shares."""
    keys = (f"key {number}" for number in range(1000))
    return next(k for k in keys if split_of_key(k, CorpusConfig()) == side and k != besides)


def error_of(path: Path | str, **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        read(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


# What is read


def test_a_document_says_what_it_is_and_where_from(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "c.jsonl", [{"id": 7, "q": "One?", "a": 1}])
    (document,), counts = read(path, template="{q} {{{a}}}", key="id")
    digest = hashlib.sha256(b"One? {1}").hexdigest()
    assert document == Document(
        document_id=digest[:16],
        text="One? {1}",
        key="7",
        split=split_of_key("7", CorpusConfig()),
        source="c.jsonl:1",
    )
    line = f"{digest[:16]} {document.split}\n".encode()
    assert counts.corpus_hash() == hashlib.sha256(line).hexdigest()


def test_formats_give_the_same_documents(tmp_path: Path) -> None:
    rows = [{"problem": f"p{n} é", "solution": words(f"s{n}", 20), "n": n} for n in range(600)]
    template = "{problem}\n\n{solution}"
    paths = [write_jsonl(tmp_path / "a.jsonl", rows), tmp_path / "a.parquet"]
    parquet.write_table(pa.Table.from_pylist(rows), paths[1], row_group_size=250)
    (from_jsonl, jsonl_counts), (from_parquet, parquet_counts) = (
        read(path, template=template) for path in paths
    )
    assert [d.source for d in from_parquet[:2]] == ["a.parquet:1", "a.parquet:2"]
    assert [(d.text, d.key, d.split) for d in from_jsonl] == [
        (d.text, d.key, d.split) for d in from_parquet
    ]
    assert len(from_jsonl) == 600
    assert from_jsonl[0].key == "p0 é"
    assert jsonl_counts.corpus_hash() == parquet_counts.corpus_hash()


def test_datasets_names_folders_and_builders(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    file = write_jsonl(tmp_path / "train.jsonl", [{"text": "a b", "x": [1]}, {"text": "c d"}])
    (first, second), _ = read(f"datasets:{tmp_path}")
    assert (first.text, second.text) == ("a b", "c d")
    assert second.source == f"datasets:{tmp_path}:2"
    assert [d.text for d in read(f"datasets:json:{file}:train")[0]] == ["a b", "c d"]
    assert "Available splits" in error_of(f"datasets:{tmp_path}::nosuch")
    assert "'datasets:json:FILE'" in error_of("datasets:json")
    assert "name is missing" in error_of("datasets:")
    assert "field 'q' is missing; there are: text" in error_of(f"datasets:{tmp_path}", key="q")


def test_without_the_datasets_library_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real_import = builtins.__import__

    def without_datasets(name: str, *args: Any) -> Any:
        if name == "datasets":
            raise ImportError(name)
        return real_import(name, *args)

    monkeypatch.setattr(builtins, "__import__", without_datasets)
    assert 'pip install "openrpt[datasets]"' in error_of("datasets:any")


def test_champ_has_its_own_template_and_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_jsonl(tmp_path / "champ.jsonl", [{"id": "1", "problem": "P", "solution": "S"}])
    monkeypatch.setattr(assets, "demo_corpus_jsonl", lambda: file)
    (document,), _ = read("champ")
    assert (document.text, document.key, document.source) == ("P\n\nS", "P", "champ.jsonl:1")
    assert read("champ", template="{solution}", key="id")[0][0].text == "S"


def test_folder_is_recursive_sorted_and_skips_what_is_hidden(tmp_path: Path) -> None:
    for name in ["b/z.txt", "b.txt", "a.TXT", ".git/x.txt", "b/._z.txt", "notes.md"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"text of {name}")
    documents, _ = read(tmp_path)
    assert [d.source for d in documents] == ["a.TXT:1", "b.txt:1", "b/z.txt:1"]
    assert documents[2].key == "b/z.txt:1"


def test_limit(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "c.jsonl", [{"text": f"text {n}"} for n in range(9)])
    assert [d.text for d in read(path, limit=3)[0]] == ["text 0", "text 1", "text 2"]
    assert len(read(path)[0]) == 9


def test_byte_order_mark_and_blank_lines_are_no_text(tmp_path: Path) -> None:
    jsonl, txt = tmp_path / "c.jsonl", tmp_path / "c.txt"
    jsonl.write_bytes(b'\xef\xbb\xbf{"text": "a"}\r\n\n{"text": "b"}')
    txt.write_bytes(b"\xef\xbb\xbfa\r\n")
    assert [(d.text, d.source[-2:]) for d in read(jsonl)[0]] == [("a", ":1"), ("b", ":3")]
    assert read(txt)[0][0].text == "a\r\n"


# Templates


@pytest.mark.parametrize("template", ["{a.b}", "{a[0]}", "{a!r}", "{a:>9}", "{}", "{0}", "{a", "a"])
def test_template_takes_plain_fields_only(template: str) -> None:
    with pytest.raises(UserError, match=re.escape(f"corpus.template = {template!r}")):
        Template(template)


def test_field_that_is_missing(tmp_path: Path) -> None:
    """The message names the key that asks for it, and an example that would do."""
    rows = [{"question": "a", "text": "b"}, {"question": "a", "answer": "b"}]
    path = write_jsonl(tmp_path / "c.jsonl", rows)
    advice = "corpus.template names it: say what makes a text, as in --corpus.template"
    message = "c.jsonl:2: field 'text' is missing; there are: question, answer; " + advice
    found = error_of(path, template="{question} {text}")
    assert found == message + r" '{question}\n\n{answer}'"
    assert error_of(path).startswith(message[:40])  # the template is the default
    parquet.write_table(pa.Table.from_pylist(rows[:1]), tmp_path / "c.parquet")
    message = "c.parquet: field 'problem' is missing; there are: question, text; " + advice
    found = error_of(tmp_path / "c.parquet", template="{question} {problem}")
    assert found == message + r" '{question}\n\n{text}'"
    for key in ("key", "kind", "split", "offsets"):
        found = error_of(tmp_path / "c.parquet", template="{text}", **{key: "x"})
        assert found.endswith(f"; corpus.{key} names it: --corpus.{key} FIELD")


def test_field_that_is_not_text(tmp_path: Path) -> None:
    values = [None, ["a"], {"a": 1}, True, "", " \n", 2.5, 10**20]
    path = write_jsonl(tmp_path / "c.jsonl", [{"text": value} for value in values])
    documents, counts = read(path)
    assert [d.text for d in documents] == ["2.5", str(10**20)]
    assert (counts.skipped_not_text, counts.skipped_empty) == (4, 2)
    assert counts.skipped[1] == "c.jsonl:2: field 'text' is not text but list"
    assert error_of(path, strict=True).startswith("c.jsonl:1: field 'text' is not text")


# The split


def test_split_is_by_key_alone_and_in_the_shares_asked_for() -> None:
    config = CorpusConfig(heldout_fraction=0.3, development_fraction=0.2)
    splits = [split_of_key(f"key {n}", config) for n in range(4000)]
    assert abs(splits.count("heldout") / 4000 - 0.3) < 0.03
    assert abs(splits.count("development") / 4000 - 0.2) < 0.03
    everything = CorpusConfig(heldout_fraction=0, development_fraction=0)
    assert {split_of_key(str(n), everything) for n in range(99)} == {"train"}
    # Pinned: another hash would move every user's held-out documents into training.
    # SHA-256 of "a" begins ca97…, "b" 3e23…, "c" 2e7d…: 0.79, 0.24 and 0.18 of 1.
    known = [split_of_key(key, CorpusConfig()) for key in "abc"]
    assert known == ["train", "development", "heldout"]


def test_split_survives_another_order_of_files_and_lines(tmp_path: Path) -> None:
    rows = [{"text": words(f"w{n}x", 20)} for n in range(200)]
    write_jsonl(tmp_path / "a.jsonl", rows[:90])
    write_jsonl(tmp_path / "b.jsonl", rows[90:])
    first, counts = read(tmp_path)
    again, same_counts = read(tmp_path)
    assert first == again
    assert counts == same_counts
    assert counts.corpus_hash() == same_counts.corpus_hash()
    assert counts.train + counts.development + counts.heldout == counts.documents == 200
    assert min(counts.train, counts.development, counts.heldout) > 0
    random.Random(0).shuffle(rows)
    write_jsonl(tmp_path / "a.jsonl", rows[:30])
    write_jsonl(tmp_path / "b.jsonl", rows[30:])
    other, other_counts = read(tmp_path)
    assert {d.text: d.split for d in other} == {d.text: d.split for d in first}
    assert other_counts.corpus_hash() != counts.corpus_hash()


# Duplicates


def test_exact_duplicates_are_dropped(tmp_path: Path) -> None:
    rows = [{"text": "same text"}, {"text": "other"}, {"text": "same text"}]
    documents, counts = read(write_jsonl(tmp_path / "c.jsonl", rows))
    assert [d.source for d in documents] == ["c.jsonl:1", "c.jsonl:2"]
    assert counts.exact_duplicates == 1


def test_near_duplicates_stand_on_the_side_of_the_first(tmp_path: Path) -> None:
    shared = words("shared", 13)
    loud = shared.upper().replace(" ", " -- ")
    rows = [
        {"key": key_on("train"), "text": f"{words('a', 9)} {shared}"},
        {"key": key_on("heldout"), "text": f"{words('b', 9)}. {loud}!"},  # 13 words: overlaps
        {"key": key_on("heldout") + "!", "text": f"{words('c', 9)} {shared[:-2]}"},  # 12: does not
    ]
    documents, counts = read(write_jsonl(tmp_path / "c.jsonl", rows), key="key")
    assert [d.split for d in documents[:2]] == ["train", "train"]
    assert documents[2].split == split_of_key(documents[2].key, CorpusConfig())
    assert (counts.near_duplicates_moved, counts.near_duplicates_dropped) == (1, 0)


def test_document_that_overlaps_with_two_sides_is_dropped_whole(tmp_path: Path) -> None:
    train, heldout, own = words("t", 15), words("h", 15), words("o", 15)
    rows = [
        {"key": key_on("train"), "text": train},
        {"key": key_on("heldout"), "text": heldout},
        {"key": "third", "text": f"{train} {own} {heldout}"},
        # What only the dropped document had binds nobody.
        {"key": key_on("heldout", besides=key_on("heldout")), "text": own},
    ]
    documents, counts = read(write_jsonl(tmp_path / "c.jsonl", rows), key="key")
    assert [(d.text, d.split) for d in documents] == [
        (train, "train"),
        (heldout, "heldout"),
        (own, "heldout"),
    ]
    assert (counts.near_duplicates_moved, counts.near_duplicates_dropped) == (0, 1)


def test_documents_of_one_key_stay_together_when_one_is_drawn_away(tmp_path: Path) -> None:
    train, key = words("t", 15), key_on("heldout")
    rows = [
        {"key": key_on("train"), "text": train},
        {"key": key, "text": f"{train} and more"},
        {"key": key, "text": words("u", 15)},
    ]
    documents, counts = read(write_jsonl(tmp_path / "c.jsonl", rows), key="key")
    assert [d.split for d in documents] == ["train", "train", "train"]
    assert counts.near_duplicates_moved == 2


def test_blank_key_does_not_throw_documents_together(tmp_path: Path) -> None:
    rows = [{"q": "", "text": words(f"t{n}", 15)} for n in range(40)]
    documents, _ = read(write_jsonl(tmp_path / "c.jsonl", rows), key="q")
    assert len({d.split for d in documents}) > 1


def test_index_is_scratch(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "c.jsonl", [{"text": "a"}, {"text": "b"}])
    index_path = tmp_path / "index.sqlite"
    index_path.write_text("what an interrupted run left")
    documents = read_corpus(CorpusConfig(path=str(path)), CorpusCounts(), index_path=index_path)
    next(documents)
    assert index_path.read_bytes()[:6] in (b"", b"SQLite")
    assert isinstance(documents, Iterator) and len(list(documents)) == 1
    assert not index_path.exists()


def test_full_disk_is_the_users_error(tmp_path: Path) -> None:
    with open_index(tmp_path / "index.sqlite") as index:
        index.database.execute("PRAGMA max_page_count = 8")
        with pytest.raises(UserError, match=r"index\.sqlite: .*disk is full"):
            index.place(words("w", 20_000), "key", "train")
    with pytest.raises(UserError, match="cannot be written"), open_index(tmp_path / "no" / "i"):
        pass


# Text files

TEXTS = st.lists(
    st.sampled_from(["a", "word ", "\n", "\r\n", "\n\n", "\r", " ", "é", "漢字", "🙂", "x" * 90])
).map("".join)


@given(text=TEXTS, block_characters=st.integers(100, 150))
@example(text="x" * 124 + "\r\n" + "x" * 124, block_characters=100)
def test_blocks_joined_are_the_file(text: str, block_characters: int) -> None:
    blocks = list(cut_blocks(io.StringIO(text, newline=""), block_characters))
    assert "".join(blocks) == text
    quarter = block_characters // 4
    assert all(len(block) <= block_characters + quarter for block in blocks)
    assert all(len(block) >= block_characters - quarter for block in blocks[:-1])
    assert not any(a.endswith("\r") and b.startswith("\n") for a, b in pairwise(blocks))


@pytest.mark.parametrize("end", ["\n\n", "\r\n\r\n", "\n", " "])
def test_blocks_end_where_the_text_does(end: str) -> None:
    weaker = {"\n\n": "\n", "\r\n\r\n": "\r\n", "\n": " ", " ": ""}[end]
    filler = f"word{weaker}" * 12 + f"word{end}"
    blocks = list(cut_blocks(io.StringIO(filler * 4000, newline=""), 200))  # several chunks
    assert all(block.endswith(f"word{end}") for block in blocks)
    assert len(blocks) >= 1000


def test_txt_file_in_blocks_gives_the_file_back(tmp_path: Path) -> None:
    random_source = random.Random(0)
    text = "".join(random_source.choice("ab é漢 \n\r") for _ in range(200_000))
    (tmp_path / "t.txt").write_bytes(text.encode())
    documents, _ = read(tmp_path / "t.txt", block_characters=1000)
    assert "".join(d.text for d in documents) == text
    assert documents[1].key == documents[1].source == "t.txt:2"


class Trickle(io.StringIO):
    """A file that is read three characters at a time."""

    def read(self, size: int | None = -1, /) -> str:
        return super().read(3)


SEPARATORS = st.sampled_from(["\n\n", "a", "é\n", "word \n", "\n", "\r\n", "\r\na\r\n", "\r"])


@given(text=TEXTS, separator=SEPARATORS)
@example(text="a\r\n\r\nb", separator="\n\n")
def test_separator_cuts_as_split_does_at_either_line_break(text: str, separator: str) -> None:
    pattern = re.sub("\r?\n", "\r?\n", separator)
    assert list(cut_at_separator(Trickle(text, newline=""), separator)) == re.split(pattern, text)


@given(text=TEXTS, separator=SEPARATORS)
def test_crlf_is_cut_where_lf_is(text: str, separator: str) -> None:
    text, separator = text.replace("\r", ""), separator.replace("\r", "") or "\n"
    crlf = list(cut_at_separator(Trickle(text.replace("\n", "\r\n"), newline=""), separator))
    assert [piece.replace("\r\n", "\n") for piece in crlf] == text.split(separator)
    lf = list(cut_at_separator(Trickle(text, newline=""), separator.replace("\n", "\r\n")))
    assert lf == text.split(separator)


def test_separated_text_is_its_own_key(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("one\n===\ntwo\n===\n\n===\nthree\n===\n")
    documents, counts = read(tmp_path / "t.txt", separator="\n===\n", strict=True)
    assert [(d.text, d.source) for d in documents] == [
        ("one", "t.txt:1"),
        ("two", "t.txt:2"),
        ("three", "t.txt:4"),
    ]
    assert [d.key for d in documents] == ["one", "two", "three"]
    assert counts.skipped_empty == 0


# Bad input


def test_invalid_utf8_is_named_and_skipped_or_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(
        b'{"text": "fine"}\n{"text": "caf\xe9"}\n{"text": "half \\ud83d"}\n{"text": "good"}\n'
    )
    (tmp_path / "b.txt").write_bytes(b"fine at first. " * 9000 + b"\xff")
    bad = pa.array([b"\xff\xfe", b"whole"]).view(pa.string())
    parquet.write_table(pa.table({"text": bad}), tmp_path / "c.parquet")
    documents, counts = read(tmp_path)
    assert [d.text for d in documents] == ["fine", "good", "whole"]
    assert counts.skipped_invalid_utf8 == 4
    assert [message.partition(": ")[0] for message in counts.skipped] == [
        "a.jsonl:2",
        "a.jsonl:3",
        "b.txt",
        "c.parquet:1",
    ]
    assert error_of(tmp_path, strict=True).startswith("a.jsonl:2: invalid UTF-8")
    said = error_of(tmp_path / "b.txt", strict=True)
    assert said.startswith("b.txt: invalid UTF-8; convert it, if it is Latin-1: iconv -f LATIN1")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "b"', "c.jsonl:2: broken JSON: Expecting ',' delimiter at character 13"),
        ("[" * 100_000, "c.jsonl:2: broken JSON"),
        ('["b"]', "c.jsonl:2: a list, not a JSON object"),
        ("3", "c.jsonl:2: a int, not a JSON object"),
    ],
)
def test_broken_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "c.jsonl").write_text(f'{{"text": "a"}}\n{line}\n')
    assert error_of(tmp_path / "c.jsonl").startswith(message)


def test_what_is_no_corpus_is_refused_by_name(tmp_path: Path) -> None:
    def make(name: str, content: bytes) -> Path:
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    assert "no such file or folder" in error_of(tmp_path / "nosuch.txt")
    assert "cannot be read" in error_of("x" * 5000)
    assert "unknown kind of file" in error_of(make("c.pdf", b"text"))
    assert "binary file" in error_of(make("b.txt", b"text\0more"))
    assert "binary file" in error_of(make("b.jsonl", '{"text": "a"}'.encode("utf-16")))
    assert "the file is empty" in error_of(make("e.txt", b""))
    assert "the file is empty" in error_of(make("e.parquet", b""))
    assert "only whitespace" in error_of(make("w.txt", b" \n\n"))
    assert "no usable document" in error_of(make("w.jsonl", b"\n\n"))
    assert "not a readable parquet" in error_of(make("p.parquet", b"PAR1 text, not parquet PAR1"))
    (tmp_path / "folder").mkdir()
    assert "holds no .txt, .jsonl, .parquet, .txt.gz, .jsonl.gz file" in error_of(
        tmp_path / "folder"
    )


# Memory


def peak_bytes(path: Path, **options: Any) -> int:
    tracemalloc.start()
    config = CorpusConfig(path=str(path), **options)
    number = sum(1 for _ in read_corpus(config, CorpusCounts()))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert number > 100
    return peak


def test_memory_does_not_grow_with_the_corpus(tmp_path: Path) -> None:
    # Long words: many bytes for few grams, so that the test is quick.
    lines = [" ".join(f"{n}word{word}" * 60 for word in range(20)) for n in range(1000)]
    small, large = tmp_path / "small", tmp_path / "large"
    for stem, chosen in [(small, lines[:200]), (large, lines)]:
        write_jsonl(stem.with_suffix(".jsonl"), [{"text": line} for line in chosen])
        stem.with_suffix(".txt").write_text("\n\n".join(chosen))
        table = pa.table({"text": chosen})
        parquet.write_table(table, stem.with_suffix(".parquet"), compression="none")
    assert large.with_suffix(".txt").stat().st_size > 10e6
    peak_bytes(small.with_suffix(".jsonl"))  # imports are no part of it
    for suffix in [".jsonl", ".txt", ".parquet"]:
        growth = peak_bytes(large.with_suffix(suffix)) - peak_bytes(small.with_suffix(suffix))
        assert growth < 1e6, suffix


# ---- kinds --------------------------------------------------------------------------------------


def test_a_documents_kind_is_a_field_of_the_users(tmp_path: Path) -> None:
    """The kind is the first of a list and the first levels of a path; it decides nothing else."""
    rows = [
        {"text": "one two three", "domain": ["Maths -> Algebra -> Sets", "Maths -> Logic"]},
        {"text": "four five six", "domain": "Maths/Geometry"},
        {"text": "seven eight", "domain": None},
        {"text": "nine ten", "domain": 4.5},
    ]
    path = tmp_path / "kinds.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    def kinds(**settings: Any) -> list[str]:
        config = CorpusConfig(path=str(path), **settings)
        return [document.kind for document in read_corpus(config, CorpusCounts())]

    assert kinds() == ["", "", "", ""]
    assert kinds(kind="domain") == ["Maths -> Algebra -> Sets", "Maths/Geometry", "", "4.5"]
    assert kinds(kind="domain", kind_levels=1) == ["Maths", "Maths", "", "4.5"]
    assert kinds(kind="domain", kind_levels=2)[0] == "Maths -> Algebra"
    with pytest.raises(UserError, match="field 'subject' is missing; there are: text, domain"):
        kinds(kind="subject")
    columns = {"text": [r["text"] for r in rows], "domain": ["a", "b", "", "a"]}
    path = tmp_path / "kinds.parquet"
    parquet.write_table(pa.table(columns), path)
    config = CorpusConfig(path=str(path), kind="domain")
    assert [d.kind for d in read_corpus(config, CorpusCounts())] == ["a", "b", "", "a"]
