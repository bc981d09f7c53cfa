"""What `score` says in the end, against counts by hand."""

from pathlib import Path

import numpy as np
import pytest

from openrpt.config.loading import load_config
from openrpt.data.positions import ScoredDocument
from openrpt.data.score_summary import SCORED
from openrpt.data.scored import ScoredCorpus, load_scored
from openrpt.data.scored_shards import write_shard
from openrpt.evaluation.statistics import Estimate
from openrpt.json_files import write_sealed
from openrpt.progress import Silent
from openrpt.stages.score import said
from openrpt.types import Split


def document(name: str, split: Split, right: int) -> ScoredDocument:
    """Twenty tokens of one letter: ten with 0.7 nats, six with 1.2, four with 2.0; `right` are
    right; every fifth is an é, and the hardest."""
    letters = ["é" if place % 5 == 4 else "a" for place in range(20)]
    hard = np.array([letter == "é" for letter in letters])
    offsets = np.cumsum([0, *(len(letter.encode()) for letter in letters)])
    return ScoredDocument(
        document_id=name,
        text="".join(letters),
        key=name,
        split=split,
        source="made-up.jsonl:1",
        token_ids=hard.astype(int),
        byte_offsets=offsets[:-1],
        negative_log_likelihood=np.where(hard, 4.0, 1.0),
        entropy=np.array([0.7] * 10 + [1.2] * 6 + [2.0] * 4),
        entropy_top16=np.zeros(20),
        ntp_token_id=np.zeros(20, dtype=int),
        ntp_correct=np.arange(20) < right,
    )


class Heard(Silent):
    """What a progress was told."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def begin(self, task: str, total: float, unit: str = "") -> None:
        self.heard.append(f"{task} of {total}")

    def update(self, completed: float, note: str = "") -> None:
        self.heard.append(str(completed))

    def end(self) -> None:
        self.heard.append("end")


@pytest.fixture
def corpus(tmp_path: Path) -> ScoredCorpus:
    train = [document(f"t{n}", "train", 10) for n in range(3)]
    heldout = [document(f"h{n}", "heldout", 4 + 2 * n) for n in range(4)]
    write_shard(tmp_path, 0, [*train, *heldout], {})
    write_sealed(tmp_path / SCORED, {"finished": True, "summary": {"shards": 1}})
    return load_scored(tmp_path)


def test_splits_difficulty_and_hardest_tokens(corpus: ScoredCorpus) -> None:
    config = load_config(overrides={"prompt.min_context": 1})
    train, heldout, power, hardest = said.score_lines(corpus, config)
    assert train == (
        "train: 3 documents, 60 tokens; 60 above 0.5, 30 above 1.0, 12 above 1.5 nats; standard"
        " prediction right at 50.0 ± 0.0 %"
    )
    assert heldout.startswith("heldout: 4 documents, 80 tokens; 80 above 0.5, 40 above 1.0")
    assert hardest == ("hardest tokens, by mean surprise in nats: 'é' 4.0 (n 28), 'a' 1.0 (n 112)")
    assert power.startswith("heldout, for openrpt evaluate: 76 positions of 4 documents tell")


def test_a_corpus_without_scores_has_its_size_alone(corpus: ScoredCorpus) -> None:
    config = load_config(overrides={"score.tokens_only": ["train", "development", "heldout"]})
    lines = [*said.score_lines(corpus, config)]
    assert not [line for line in lines if "for openrpt evaluate" in line]


def test_a_split_without_documents_is_said(corpus: ScoredCorpus) -> None:
    config = load_config(overrides={"evaluate.split": "development"})
    lines = [line for line in said.score_lines(corpus, config) if line.startswith("development")]
    assert len(lines) == 1 and "no document" in lines[0] and "corpus.separator" in lines[0]


def test_a_split_that_is_not_scored_is_not_missed(corpus: ScoredCorpus) -> None:
    config = load_config(overrides={"evaluate.split": "development", "score.splits": ["train"]})
    assert not any("no document" in line for line in said.score_lines(corpus, config))


def test_how_many_documents_a_difference_takes() -> None:
    """A quarter of the difference takes sixteen times the documents; drawn, it is found in four of
    five tries."""
    found = Estimate(value=0.5, standard_error=0.02, n=400, documents=50)
    least = (1.96 + 0.84) * 0.02
    assert said.documents_for(found, least) == 50
    assert said.documents_for(found, least / 4) == 800
    rng = np.random.default_rng(0)
    spread = 0.02 * np.sqrt(50)  # of a document's mean difference
    tries = rng.normal(least, spread, size=(4000, 50))
    told = tries.mean(1) / (tries.std(1, ddof=1) / np.sqrt(50)) > 1.96
    assert told.mean() == pytest.approx(0.8, abs=0.03)


def test_shards_are_counted_as_one_corpus(corpus: ScoredCorpus, tmp_path: Path) -> None:
    """The same lines come of the same documents in several files, and of those without a score."""
    config = load_config(overrides={"prompt.min_context": 1})
    documents = [corpus.numbered(n) for n in range(len(corpus.entries))]
    folder = tmp_path / "several"
    folder.mkdir()
    for shard, part in enumerate((documents[:1], documents[1:5], documents[5:])):
        write_shard(folder, shard, part, {})
    write_sealed(folder / SCORED, {"finished": True, "summary": {"shards": 3}})
    assert [*said.score_lines(load_scored(folder), config)] == [*said.score_lines(corpus, config)]


def test_what_takes_long_says_so(corpus: ScoredCorpus, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config(overrides={"prompt.min_context": 1})
    bar = Heard()
    [*said.score_lines(corpus, config, progress=bar)]
    assert not bar.heard
    monkeypatch.setattr(said, "_LONG", 100)
    [*said.score_lines(corpus, config, progress=bar)]
    assert bar.heard == ["look through the scores of 140", "140", "end"]
