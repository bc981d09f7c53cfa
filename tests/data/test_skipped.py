"""What `score` and the demo say of documents that were skipped or moved, and of other files."""

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from openrpt.cli.main import main
from openrpt.config.sections import Config
from openrpt.data.corpus_counts import CorpusCounts
from openrpt.data.score_summary import ScoreSummary, read_scored_json
from openrpt.data.skipped import skipped_lines
from openrpt.experiments.demo import _score
from openrpt.runs.run import open_run
from openrpt.stages.score.folder import public_counts
from tests.helpers.tiny_model import tiny_config, tiny_model_folder

SMALL = ["--prompt.window", "48", "--prompt.min_context", "8", "--model.threads", "1"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model_folder(tmp_path_factory.mktemp("skipped") / "model")


@pytest.fixture
def score(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[[Path], list[str]]:
    def call(corpus: Path) -> list[str]:
        given = ["score", str(corpus), "--run", str(tmp_path / "run"), "--model.path", str(model)]
        with pytest.raises(SystemExit) as stopped:
            main([*given, *SMALL])
        said = capsys.readouterr()
        assert not stopped.value.code
        return [*said.err.splitlines(), *said.out.splitlines()]

    return call


def free(seed: int, words: int = 30) -> str:
    return " ".join(f"w{number}" for number in random.Random(seed).choices(range(9999), k=words))


def broken_corpus(folder: Path) -> Path:
    """Every kind of document that is not scored as it stands, and files of other kinds."""
    folder.mkdir()
    texts = [free(number) for number in range(30)]
    lines = [json.dumps({"text": text}) for text in texts]
    lines += ['{"text": ["a"]}'] * 5 + ['{"text": NaN}', '{"text": " "}', '{"text": "\\ud83d"}']
    lines += [lines[0], json.dumps({"text": texts[1] + " " + texts[2]}), '{"text": "short"}']
    lines += [
        json.dumps({"text": f"{text} and more {number}"}) for number, text in enumerate(texts)
    ]
    (folder / "c.jsonl").write_text("\n".join(lines) + "\n")
    for name in ["a.csv", "b.csv", "notes.md"]:
        (folder / name).write_text("left out")
    return folder


def test_score_says_every_kind_at_its_end(
    score: Callable[[Path], list[str]], tmp_path: Path
) -> None:
    corpus = broken_corpus(tmp_path / "corpus")
    lines = score(corpus)
    state = read_scored_json(tmp_path / "run" / "scored")
    assert state is not None
    moved = state["corpus"]["near_duplicates_moved"]
    assert moved > 3
    first = ", ".join(state["corpus"]["first"]["near_duplicates_moved"])
    shared = state["corpus"]["shared_words"]
    assert len(shared.split()) == 13
    first_line = lines.index("left out: 3 files (.csv, .md)")
    said = lines[first_line : first_line + 7]
    assert said == [
        "left out: 3 files (.csv, .md)",
        "skipped, not text: 6 documents (c.jsonl:31, c.jsonl:32, c.jsonl:33, …)",
        "skipped, empty: 1 document (c.jsonl:37)",
        "skipped, invalid UTF-8: 1 document (c.jsonl:38)",
        "skipped, the same word for word: 1 document (c.jsonl:39)",
        f"moved to the side of a near-duplicate: {moved} documents ({first}, …; they share words"
        f" such as '{shared}')",
        "skipped, too short: 1 document (c.jsonl:41)",
    ]
    # Once more: it is scored already, and that is said all the same.
    again = score(corpus)
    start = again.index(said[0])
    assert again[start : start + len(said)] == said
    assert again[start + len(said)].startswith("train: ")  # then what was scored


def test_score_of_a_clean_corpus_says_nothing_of_it(
    score: Callable[[Path], list[str]], tmp_path: Path
) -> None:
    path = tmp_path / "c.jsonl"
    path.write_text("".join(json.dumps({"text": free(n)}) + "\n" for n in range(20)))
    assert not [line for line in score(path) if line.startswith(("skipped", "left out"))]


def test_all_on_one_side_is_a_warning_with_the_words(
    score: Callable[[Path], list[str]], tmp_path: Path
) -> None:
    path, template = tmp_path / "c.jsonl", free(0, 40)
    texts = [f"{template} {free(number, 3)}" for number in range(30)]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    (warning,) = (line for line in score(path) if line.startswith("warning: "))
    assert "of 30 documents on the train side" in warning
    assert " ".join(template.split()[:13]) in warning


def test_the_demo_says_it_too(tmp_path: Path) -> None:
    class Heard:
        def __init__(self) -> None:
            self.lines: list[str] = []

        def begin(self, task: str, total: float, unit: str = "") -> None: ...

        def update(self, completed: float, note: str = "") -> None: ...

        def end(self) -> None: ...

        def say(self, line: str) -> None:
            self.lines.append(line)

    corpus = broken_corpus(tmp_path / "corpus")
    config: Config = tiny_config(tmp_path, corpus__path=str(corpus))
    heard = Heard()
    _score(open_run(config, min_free_bytes=0), heard)
    assert heard.lines[0] == f"{corpus}, scored by {config.model.path}"
    assert heard.lines[1] == "left out: 3 files (.csv, .md)"
    assert heard.lines[2].startswith("skipped, not text: 6 documents (c.jsonl:31, ")


def test_scores_of_an_older_version_say_what_they_have() -> None:
    state = {
        "corpus": {"documents": 3, "train": 3, "skipped_empty": 2, "skipped": ["a: b"]},
        "summary": {"documents": 3, "skipped_short": 1},
    }
    assert skipped_lines(state) == [
        "skipped, empty: 2 documents",
        "skipped, too short: 1 document",
    ]
    assert CorpusCounts().first == ScoreSummary().first == {}


@pytest.mark.parametrize(("dropped", "warned"), [(5, False), (20, True)])
def test_many_near_duplicates_come_with_what_to_do(dropped: int, warned: bool) -> None:
    counts = CorpusCounts(documents=80, train=60, near_duplicates_dropped=dropped)
    counts.shared_words = "the wind came from the west"
    state = {"corpus": public_counts(counts), "summary": vars(ScoreSummary())}
    said = [line for line in skipped_lines(state) if line.startswith("warning")]
    assert bool(said) == warned
    if warned:
        assert said[0].startswith("warning: 20 of 100 documents are not used")
        assert "corpus.heldout_path" in said[0] and counts.shared_words in said[0]
