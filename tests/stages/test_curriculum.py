"""A curriculum over the kinds of documents: what is taken, when it opens, and that it resumes."""

import json
from dataclasses import replace
from typing import Any

import pytest

from openrpt.config.loading import with_overrides
from openrpt.data.curriculum import Curriculum, read_curriculum
from openrpt.data.scored import load_scored
from openrpt.data.training_work import take_work
from openrpt.engine.checkpoint_record import read_record
from openrpt.errors import UserError
from openrpt.runs.run import Run
from openrpt.runs.works import recorded_works
from openrpt.stages.train import train
from openrpt.stages.warmup.warmup import warmup
from tests.helpers.run_files import rows_of, weights_of
from tests.helpers.tiny_model import copied_run, periodic_corpus, tiny_run

LEVELS = ("10", "9", "2")
OWN: dict[str, Any] = {"corpus__kind": "level"}


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run after warmup, on documents of three levels."""
    folder = tmp_path_factory.mktemp("curriculum")
    path = periodic_corpus(folder / "corpus.jsonl")
    texts = [json.loads(line) for line in path.read_text().splitlines()]
    lines = [json.dumps(text | {"level": LEVELS[i % 3]}) for i, text in enumerate(texts)]
    path.write_text("\n".join(lines) + "\n")
    run = tiny_run(folder, **OWN)
    warmup(run)
    return run


def run_of(warm: Run, name: str, **overrides: Any) -> Run:
    rule = {"selection__curriculum": 1, "selection__curriculum_share": 0.05}
    return copied_run(warm, name, **OWN | rule | overrides)


def test_the_next_kind_opens_where_the_open_ones_are_mastered() -> None:
    rule = Curriculum(kinds=("1", "2", "3"), first=1, share=0.75, steps=2)
    opened, shares, seen = 0, [], []
    for right in (0.9, 0.5, 1.0, 1.0, 0.5, 1.0, 1.0):
        opened, shares = rule.after(opened, shares, right)
        seen.append((len(rule.open_kinds(opened)), shares))
    # A mean of 0.7 is too little; 0.75 is enough; shares before an opening count no more.
    assert seen == [(1, [0.9]), (1, [0.9, 0.5]), (2, []), (2, [1.0]), (3, []), (3, []), (3, [])]


def test_it_takes_open_kinds_alone_and_resumes_to_the_same_bits(warm: Run) -> None:
    whole = run_of(warm, "whole", train__steps=6)
    train(whole)
    kinds = load_scored(whole.scored).kinds("train")
    taken = recorded_works(whole.path, "train", load_scored(whole.scored))
    before = 1
    for row in rows_of(whole):
        count = int(row["curriculum/open_kinds"])
        assert before <= count <= before + 1
        before = count
        _, works = taken[row["step"]]
        levels = {kinds[work.document.document_id] for work in works}
        assert levels <= {"2", "9", "10"} if count == 3 else levels <= {"2", "9"}
        assert levels == {"2"} or count > 1
    assert rows_of(whole)[0]["curriculum/open_kinds"] == 1 and before == 3

    parts = run_of(warm, "parts", train__steps=2)
    train(parts)
    state = read_record(parts.checkpoints / "step-000002").state
    assert state.kinds_opened + len(state.right_shares) > 0
    longer = parts.config.train.model_copy(update={"steps": 6})
    train(replace(parts, config=parts.config.model_copy(update={"train": longer})))
    assert rows_of(parts) == rows_of(whole)
    assert weights_of(parts, 6) == weights_of(whole, 6)


def test_what_it_cannot_be_is_said_in_a_line(warm: Run) -> None:
    corpus = load_scored(warm.scored)

    def error(**changes: Any) -> str:
        config = with_overrides(warm.config, changes).selection
        with pytest.raises(UserError) as raised:
            read_curriculum(corpus, config)
        return str(raised.value)

    assert read_curriculum(corpus, warm.config.selection) is None
    assert "selection.curriculum = 3 leaves no kind" in error(**{"selection.curriculum": 3})
    words = dict.fromkeys(corpus.ids("train"), "algebra")
    corpus.kinds = lambda split: words  # type: ignore[method-assign]
    assert "'algebra', no number; let corpus.kind" in error(**{"selection.curriculum": 1})
    supply = take_work(
        load_scored(warm.scored), warm.config, cursor=0, count=4, purpose="test", kinds=("7",)
    )
    with pytest.raises(UserError, match=r"of the kinds 7 \(selection\.curriculum\)"):
        next(supply)
