"""What each training step generated at: documents, windows and positions, in `works.jsonl`.

A control that is to train on the same text reads them, whatever chose them and whatever dynamic
sampling dropped of them afterwards.
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from openrpt.data import Work, work_at
from openrpt.metrics import append_metrics, read_metrics, truncate_metrics
from openrpt.positions import Window
from openrpt.scores import ScoredCorpus

WORKS = "works.jsonl"


def record_works(run: Path, *, stage: str, step: int, cursor: int, works: Sequence[Work]) -> None:
    """Appends a step's line. `cursor`: documents taken once the step was generated."""
    found = [
        {
            "document_id": work.document.document_id,
            "window": asdict(work.window),
            "positions": [position.index for position in work.positions],
        }
        for work in works
    ]
    append_metrics(run / WORKS, {"stage": stage, "step": step, "cursor": cursor, "works": found})


def forget_works(run: Path, stage: str, last_step: int) -> None:
    """Forgets the steps after `last_step`: they are about to be run again."""
    truncate_metrics(run / WORKS, stage, last_step)


def recorded_works(
    run: Path, stage: str, corpus: ScoredCorpus
) -> dict[int, tuple[int, list[Work]]]:
    """step → (cursor, works). Raises UserError for a document that the corpus does not have."""
    found = {}
    for row in read_metrics(run / WORKS):
        if row["stage"] == stage:
            works = [
                work_at(
                    corpus.document(one["document_id"]), Window(**one["window"]), one["positions"]
                )
                for one in row["works"]
            ]
            found[row["step"]] = row["cursor"], works
    return found
