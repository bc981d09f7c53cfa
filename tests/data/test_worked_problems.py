"""Worked word problems, made at run time: fields, templates, split."""

import sys
from collections import defaultdict
from pathlib import Path
from random import Random
from typing import Any

import pytest

from openrpt.config.corpus import CorpusConfig
from openrpt.data import worked_problems as worked
from openrpt.data.calculator.find import find_computed
from openrpt.data.corpus_counts import CorpusCounts
from openrpt.data.documents import read_corpus
from openrpt.data.worked_problems import HELD_OUT, SEEN, WORKED_TASK, worked_problems
from openrpt.errors import UserError
from openrpt.types import Document


def require_files() -> None:
    """Skips a test where the package index can't be reached."""
    try:
        worked.worked_problem_files()
    except UserError as error:
        pytest.skip(str(error))


def read(settings: str = "", **options: Any) -> list[Document]:
    config = CorpusConfig(path=f"{WORKED_TASK}{settings}", **options)
    return list(read_corpus(config, CorpusCounts()))


def test_documents_are_problems_with_their_solutions() -> None:
    require_files()
    documents = read("?size=300&seed=3")
    assert 250 < len(documents) <= 300  # the same problem again is left out
    assert documents == read("?size=300&seed=3")
    others = {document.document_id for document in read("?size=300&seed=900")}
    assert sum(document.document_id in others for document in documents) < 30
    for document in documents:
        question, _, solution = document.text.partition("\n")
        assert document.key.startswith(question) and "#### " in solution
        assert "Do not include units" not in document.text
    computed = sum(len(list(find_computed(document.text))) for document in documents)
    assert computed > 2 * len(documents)


def test_templates_seen_and_held_out() -> None:
    require_files()
    config = CorpusConfig(path=f"{WORKED_TASK}?size=1500")
    kinds, splits = defaultdict(set), defaultdict(set)
    for _, fields in worked_problems(config):
        kinds[fields["template"]].add(fields["kind"])
        splits[fields["kind"]].add(fields["split"])
    assert all(len(found) == 1 for found in kinds.values())
    held_out = {template for template, found in kinds.items() if found == {HELD_OUT}}
    assert (len(kinds), len(held_out)) == (85, 17)
    assert splits == {SEEN: {"train", "development", "heldout"}, HELD_OUT: {"heldout"}}
    # Whoever is held out does not depend on the seed.
    other = CorpusConfig(path=f"{WORKED_TASK}?size=1500&seed=70000")
    again = {f["template"] for _, f in worked_problems(other) if f["kind"] == HELD_OUT}
    assert again == held_out
    assert {(d.kind, d.split) for d in read("?size=1500")} == {
        *((SEEN, split) for split in ("train", "development", "heldout")),
        (HELD_OUT, "heldout"),
    }


def test_fields_of_ones_own_choice() -> None:
    require_files()
    documents = read("?size=40", template="{solution}", kind="template", key="template")
    assert documents[0].kind.startswith("template ") and documents[0].key == documents[0].kind


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("?sizes=3", "unknown parameter 'sizes'; nearest: 'size'"),
        ("?size=many", "size = many: input should be a valid integer"),
        ("?size=0", "size = 0: input should be greater than or equal to 1"),
        ("?templates_heldout=1", "templates_heldout = 1: input should be less than 1"),
    ],
)
def test_settings_that_are_none(settings: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read(settings)


def test_without_the_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OPENRPT_CACHE", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    worked._templates.cache_clear()
    with pytest.raises(UserError, match=r"pip could not download reasoning-gym==0\.1\.25"):
        read()


def test_templates_are_read_without_the_package(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Only the numbers that are listed count, and nothing stays behind in sys.modules."""
    contents = {
        "utils.py": "def twice(number): return 2 * number",
        "listing.py": "import reasoning_gym.factory\ntasks_ok = [1, 3]",
        "first.py": """
from reasoning_gym.utils import twice
def generate_1(rng, difficulty=1.0):
    a = rng.randint(1, 9)
    return {"question": f"Twice {a}?", "answer": str(twice(a)), "metadata": {"answer_cot": "x"}}
def generate_2(rng, difficulty=1.0):
    raise AssertionError
""",
        "second.py": "def generate_3(rng, difficulty=1.0): return generate_3",
    }
    files = [tmp_path / name for name in contents]
    for file in files:
        file.write_text(contents[file.name])
    monkeypatch.setattr(worked, "worked_problem_files", lambda: files)
    worked._templates.cache_clear()
    before = dict(sys.modules)
    templates = worked._templates()
    worked._templates.cache_clear()
    assert list(templates) == [1, 3]
    problem = templates[1](Random(0), 1.0)
    assert int(problem["answer"]) == 2 * int(problem["question"][6])
    assert {key for key in sys.modules if "reasoning_gym" in key} == {
        key for key in before if "reasoning_gym" in key
    }


def test_the_same_problems_as_the_package_makes() -> None:
    pytest.importorskip("reasoning_gym")
    from reasoning_gym.factory import create_dataset

    config = CorpusConfig(path=f"{WORKED_TASK}?size=100&seed=5")
    theirs = create_dataset("gsm_symbolic", seed=5, size=100)
    for (_, fields), entry in zip(worked_problems(config), theirs, strict=True):
        assert entry["question"].startswith(fields["question"])
        assert entry["metadata"]["answer_cot"].strip() == fields["solution"]
