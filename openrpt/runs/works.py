"""What each training step generated at: documents, windows and positions, in `works.jsonl`.

A control that is to train on the same text reads them, whatever chose them and whatever dynamic
sampling dropped of them afterwards.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from openrpt.data.positions import Window
from openrpt.data.scored import ScoredCorpus
from openrpt.data.work import Work, work_at
from openrpt.errors import UserError
from openrpt.runs.metrics import append_metrics, read_metrics, truncate_metrics

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
    """Returns step → (cursor, works). Raises UserError for a document that the corpus does not
    have, and for works that are not within it."""
    path, found = run / WORKS, {}
    for row in read_metrics(path):
        if row["stage"] == stage:
            try:
                works = [_work(corpus, one) for one in row["works"]]
                found[row["step"]] = int(row["cursor"]), works
            except (KeyError, TypeError, ValueError):
                raise UserError(
                    f"{path}: step {row['step']}: damaged or changed by hand; use"
                    " --pretrain.match_by flops or time"
                ) from None
    return found


def _work(corpus: ScoredCorpus, recorded: Mapping[str, Any]) -> Work:
    """Returns the work of a line. Raises KeyError, TypeError or ValueError where it is not as
    `record_works` writes it."""
    document = corpus.document(recorded["document_id"])
    window, positions = Window(**recorded["window"]), recorded["positions"]
    length = len(document.token_ids)
    inside = 0 <= window.start < window.end <= length
    if not (inside and all(window.start <= index < window.end for index in positions)):
        raise ValueError("outside of its document")
    return work_at(document, window, positions)
