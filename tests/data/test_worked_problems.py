"""Worked word problems, made at run time: fields, templates, split."""

from collections import defaultdict
from typing import Any

import pytest

from openrpt.config.corpus import CorpusConfig
from openrpt.data.calculator.find import find_computed
from openrpt.data.documents import CorpusCounts, read_corpus
from openrpt.data.worked_problems import HELD_OUT, SEEN, WORKED_TASK, worked_problems
from openrpt.errors import UserError
from openrpt.types import Document


def read(settings: str = "", **options: Any) -> list[Document]:
    config = CorpusConfig(path=f"{WORKED_TASK}{settings}", **options)
    return list(read_corpus(config, CorpusCounts()))


def test_documents_are_problems_with_their_solutions() -> None:
    pytest.importorskip("reasoning_gym")
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
    pytest.importorskip("reasoning_gym")
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
    pytest.importorskip("reasoning_gym")
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


def test_without_reasoning_gym(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs reasoning_gym; install it: .*\[reasoning-gym\]"):
        read()
