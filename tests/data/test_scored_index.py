"""The index of a scored corpus against what was written, and what is read of it, and how often."""

import gc
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from openrpt.config.sections import Config
from openrpt.data.evaluation_work import evaluation_work
from openrpt.data.positions import ScoredDocument
from openrpt.data.score_summary import SCORED
from openrpt.data.scored import ScoredCorpus, load_scored
from openrpt.data.scored_index import SCHEMA, ScoredIndex
from openrpt.data.scored_shards import read_metadata, shard_paths, write_shard
from openrpt.data.training_work import place_at, take_work
from openrpt.errors import UserError
from openrpt.json_files import write_sealed
from openrpt.seeding import generator
from openrpt.types import Split

SPLITS: tuple[Split, ...] = ("train", "heldout", "train", "development", "train")


def scored(number: int, tokens: int = 40) -> ScoredDocument:
    rng = np.random.default_rng(number)
    entropy = rng.gamma(1.0, 1.0, tokens).astype(np.float32)
    entropy[0] = np.nan
    guess, right = rng.integers(0, 50_000, tokens), rng.random(tokens) < 0.5
    guess[0], right[0] = -1, False  # nothing stands before it
    return ScoredDocument(
        document_id=f"document-{number}",
        key=f"key {number // 2}",
        split=SPLITS[number % len(SPLITS)],
        source=f"here:{number}",
        text="é" * tokens,
        kind=str(number % 3),
        token_ids=rng.integers(0, 50_000, tokens),
        byte_offsets=2 * np.arange(tokens),
        negative_log_likelihood=entropy,
        entropy=entropy,
        entropy_top16=entropy,
        ntp_token_id=guess,
        ntp_correct=right,
        offsets=(0, 4) if number % 2 else (),
    )


def write(folder: Path, shards: list[list[ScoredDocument]]) -> ScoredCorpus:
    folder.mkdir(exist_ok=True)
    for shard, documents in enumerate(shards):
        write_shard(folder, shard, documents, {"scorer": "none"})
    write_sealed(folder / SCORED, {"finished": True, "summary": {"shards": len(shards)}})
    return load_scored(folder)


@pytest.fixture
def documents() -> list[ScoredDocument]:
    return [scored(number, tokens=30 + 7 * (number % 4)) for number in range(37)]


@pytest.fixture
def corpus(tmp_path: Path, documents: list[ScoredDocument]) -> ScoredCorpus:
    return write(tmp_path, [documents[:10], documents[10:11], documents[11:]])


def same(one: ScoredDocument, other: ScoredDocument) -> bool:
    values: list[tuple[Any, Any]] = [
        (getattr(one, name), getattr(other, name)) for name in one.__slots__
    ]
    return all(
        np.array_equal(a, b, equal_nan=a.dtype.kind == "f") and a.dtype == b.dtype
        if isinstance(a, np.ndarray)
        else a == b
        for a, b in values
    )


def test_every_document_comes_back_by_id_and_by_number(
    corpus: ScoredCorpus, documents: list[ScoredDocument]
) -> None:
    assert list(corpus.entries) == [one.document_id for one in documents]
    assert len(corpus.entries) == len(documents) and corpus.entries.shards == 3
    for number, one in enumerate(documents):
        assert same(corpus.document(one.document_id), one)
        assert same(corpus.numbered(number), one)
        entry = corpus.entries[one.document_id]
        assert (entry.num_tokens, entry.split) == (one.num_tokens, one.split)
        assert corpus.entries.kind(number) == one.kind
    for split in set(SPLITS):
        own = [one for one in documents if one.split == split]
        assert corpus.ids(split) == [one.document_id for one in own]
        assert corpus.kinds(split) == {one.document_id: one.kind for one in own}
    assert corpus.keys()["key 3"] == ["document-6", "document-7"]
    with pytest.raises(UserError, match="no document 'document-99'"):
        corpus.document("document-99")


def test_ids_of_one_hash_are_told_apart() -> None:
    rows = {"document_id": ["a", "b", "c"], "split": ["train"] * 3, "num_tokens": [1, 2, 3]}
    index = ScoredIndex([pa.table(rows | {"kind": [""] * 3}, SCHEMA)])
    index.__dict__["_by_hash"] = (np.full(3, hash("b")), np.arange(3))
    assert index.number("b") == 1 and index["b"].num_tokens == 2
    with pytest.raises(KeyError):
        index.number("d")


def test_an_index_takes_some_fifty_bytes_a_document() -> None:
    count = 200_000
    table = pa.table(
        {
            "document_id": [f"{number:016x}" for number in range(count)],
            "split": pa.array(["train", "heldout"] * (count // 2)),
            "num_tokens": np.full(count, 600),
            "kind": pa.array([""] * count),
        },
        SCHEMA,
    )
    gc.collect()
    tracemalloc.start()
    before = pa.total_allocated_bytes()
    index = ScoredIndex([table.slice(start, 1000) for start in range(0, count, 1000)])
    assert index.number(f"{count - 1:016x}") == count - 1
    arrow, python = pa.total_allocated_bytes() - before, tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert (arrow + python) / count < 60


def test_a_document_does_not_keep_its_shard_in_memory(corpus: ScoredCorpus) -> None:
    document = corpus.numbered(3)
    for name in ("token_ids", "byte_offsets", "entropy", "ntp_correct"):
        array = getattr(document, name)
        assert array.base is None and not array.flags.writeable


def test_the_index_is_read_without_the_texts(
    tmp_path: Path, corpus: ScoredCorpus, documents: list[ScoredDocument]
) -> None:
    """A bit of a text is noticed when its document is read, one of the index's at once."""
    path = shard_paths(tmp_path, 2)[1]
    whole = path.read_bytes()
    broken = bytearray(whole)
    place = broken.rindex(b"\x00", 0, len(broken) // 3)
    broken[place] ^= 1
    path.write_bytes(broken)
    with pytest.raises(UserError, match=r"documents-00002\.parquet: broken"):
        load_scored(tmp_path).document(documents[20].document_id)
    path.write_bytes(whole)
    assert same(load_scored(tmp_path).document(documents[20].document_id), documents[20])


def test_scores_take_half_of_what_parquets_defaults_take(tmp_path: Path) -> None:
    write(tmp_path, [[scored(number, tokens=5000) for number in range(4)]])
    path = shard_paths(tmp_path, 0)[0]
    assert path.stat().st_size / 20_000 < 20
    assert read_metadata(path) == {"scorer": "none"}


def test_an_epochs_order_is_made_once_and_a_cursor_is_reached_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[tuple[Any, ...]] = []

    def counted(*parts: Any) -> np.random.Generator:
        made.append(parts)
        return generator(*parts)

    monkeypatch.setattr("openrpt.data.training_work.generator", counted)
    count, seed = 1009, 12_345_678
    places = [place_at(count, 5 * count + n, seed) for n in range(count)]
    assert places == generator(seed, "epoch", 5).permutation(count).tolist()
    assert made == [(seed, "epoch", 5)]


def test_closed_kinds_are_passed_over_unread(
    corpus: ScoredCorpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = Config.model_validate(
        {"prompt": {"window": 24, "min_context": 4}, "selection": {"strategy": "random"}}
    )

    def taken(kinds: tuple[str, ...] | None, number: int) -> list[str]:
        supply = take_work(corpus, config, cursor=0, count=2, purpose="test", kinds=kinds)
        return [next(supply)[1].document.document_id for _ in range(number)]

    read, real = [], corpus.numbered

    def counted(number: int) -> ScoredDocument:
        read.append(number)
        return real(number)

    monkeypatch.setattr(corpus, "numbered", counted)
    open_kind = [name for name, kind in corpus.kinds("train").items() if kind == "1"]
    assert sorted(taken(("1",), len(open_kind))) == sorted(open_kind)
    assert len(read) == len(open_kind)
    order = [name for name in taken(None, len(corpus.ids("train"))) if name in open_kind]
    assert order == taken(("1",), len(open_kind)), "the others are passed over, nothing else"


def test_an_evaluation_reads_each_shard_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("openrpt.data.scored._TOKENS_HELD", 0)
    shards = [[scored(5 * n + 1) for n in range(8 * s, 8 * s + 8)] for s in range(12)]
    corpus = write(tmp_path / "many", shards)
    config = Config.model_validate({"prompt": {"window": 24, "min_context": 4}})
    works = evaluation_work(
        corpus,
        config,
        split="heldout",
        positions=60,
        positions_per_document=3,
        min_entropy=0.5,
    )
    assert corpus._shard.cache_info().misses == 12 and corpus._shard.cache_info().maxsize == 4
    order = generator(0, "evaluation", "heldout").permutation(96)[:60]
    names = [f"document-{5 * int(place) + 1}" for place in order]
    taken = list(dict.fromkeys(work.document.document_id for work in works))
    assert taken == [name for name in names if name in taken], "in their keyed order"
    assert sum(len(work.positions) for work in works) == 60
