"""A split that is given: by a field, or by a second corpus; and places in a document by a field."""

import json
from pathlib import Path
from typing import Any

import pytest

from openrpt.config.corpus import CorpusConfig
from openrpt.config.loading import validate_config
from openrpt.data.corpus_counts import CorpusCounts
from openrpt.data.documents import possible_splits, read_corpus
from openrpt.errors import UserError
from openrpt.types import Document


def read(path: Path, **options: Any) -> tuple[list[Document], CorpusCounts]:
    counts = CorpusCounts()
    return list(read_corpus(CorpusConfig(path=str(path), **options), counts)), counts


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def words(seed: str, n: int = 20) -> str:
    return " ".join(f"{seed}{number}" for number in range(n))


def test_a_field_says_the_side(tmp_path: Path) -> None:
    names = ["train", "Test", "validation", "dev", "heldout", " development "]
    rows = [{"text": words(f"w{n}"), "part": name} for n, name in enumerate(names)]
    documents, counts = read(write(tmp_path / "a.jsonl", *rows), split="part")
    sides = ["train", "heldout", "development", "development", "heldout", "development"]
    assert [document.split for document in documents] == sides
    assert (counts.train, counts.development, counts.heldout) == (1, 3, 2)


@pytest.mark.parametrize("value", ["training set", "", None, 3])
def test_what_is_no_side_is_said(tmp_path: Path, value: Any) -> None:
    path = write(tmp_path / "a.jsonl", {"text": "a", "part": "train"}, {"text": "b", "part": value})
    with pytest.raises(UserError, match=r"a\.jsonl:2: field 'part' \(corpus\.split\).*heldout"):
        read(path, split="part")
    with pytest.raises(UserError, match=r"a\.jsonl:1: field 'side' is missing"):
        read(path, split="side")


def test_a_second_corpus_is_held_out(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", *({"text": words(f"a{n}")} for n in range(40)))
    other = write(tmp_path / "b.jsonl", *({"text": words(f"b{n}")} for n in range(9)))
    documents, counts = read(path, heldout_path=str(other), limit=30)
    assert [document.source for document in documents if document.split == "heldout"] == [
        f"b.jsonl:{n}" for n in range(1, 10)
    ]
    assert (counts.heldout, counts.train + counts.development) == (9, 30)  # the limit is of each
    assert counts.development > 0
    # The side of path's documents is that of the hash, with nothing held out.
    alone, _ = read(path, heldout_fraction=0.0, limit=30)
    assert [d.split for d in documents[:30]] == [d.split for d in alone]


def test_a_given_side_stays_and_what_stands_on_two_is_left_out(tmp_path: Path) -> None:
    shared = words("s")
    path = write(
        tmp_path / "a.jsonl",
        {"text": shared + " one", "part": "train"},
        {"text": shared + " two", "part": "heldout"},
        {"text": shared + " three", "part": "train"},
        {"text": words("o"), "part": "heldout"},
    )
    documents, counts = read(path, split="part")
    assert [document.source for document in documents] == ["a.jsonl:1", "a.jsonl:3", "a.jsonl:4"]
    assert counts.near_duplicates_dropped == 1 and counts.near_duplicates_moved == 0


def test_which_sides_can_have_documents() -> None:
    def sides(**options: Any) -> set[str]:
        return set(possible_splits(CorpusConfig(**options)))

    assert sides(heldout_fraction=0.0) == {"train", "development"}
    assert sides(heldout_fraction=0.0, split="part") == {"train", "development", "heldout"}
    assert sides(development_fraction=0.0, heldout_path="b") == {"train", "heldout"}


def test_two_ways_to_say_it_are_refused() -> None:
    with pytest.raises(UserError, match="split and heldout_path both"):
        validate_config({"corpus": {"split": "a", "heldout_path": "b"}}, source="test")


# Places by a field


def test_offsets_come_with_the_document(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {"text": "ab é", "at": [0, 4]}, {"text": "c", "at": None})
    assert [d.offsets for d in read(path, offsets="at")[0]] == [(0, 4), ()]


@pytest.mark.parametrize("value", ["3", [1.5], [True], {"a": 1}, ["1"]])
def test_offsets_that_are_no_numbers(tmp_path: Path, value: Any) -> None:
    path = write(tmp_path / "a.jsonl", {"text": "abcdef", "at": value})
    with pytest.raises(UserError, match=r"a\.jsonl:1: field 'at' .* no list of whole numbers"):
        read(path, offsets="at")


@pytest.mark.parametrize("offset", [-1, 5])
def test_offsets_outside_of_the_text(tmp_path: Path, offset: int) -> None:
    path = write(tmp_path / "a.jsonl", {"text": "ab é", "at": [offset]})
    with pytest.raises(UserError, match=rf"has {offset}, outside of the document's 5 bytes"):
        read(path, offsets="at")
