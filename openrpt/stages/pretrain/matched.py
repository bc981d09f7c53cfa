"""The cost of another run's training, for a control to take the same: its documents or its budget.

All of it comes from what that run recorded of its steps; its weights are never read.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from openrpt.config.sections import Config
from openrpt.data.scored import ScoredCorpus, load_scored
from openrpt.data.work import Work
from openrpt.errors import UserError
from openrpt.runs.metrics import read_metrics
from openrpt.runs.run import Run
from openrpt.runs.works import WORKS, recorded_works
from openrpt.stages.pretrain.batches import Piece, all_targets

_Row = Mapping[str, Any]


def training_rows(other: Run, *stages: str) -> list[_Row]:
    """Gives the metrics of these stages' steps. Raises UserError where nothing was trained."""
    rows = read_metrics(other.metrics)
    if not any(row["stage"] == "train" for row in rows):
        raise UserError(
            f"pretrain.match = '{other.path}': no step of `openrpt train` in {other.metrics}; train"
            " that run first"
        )
    return [row for row in rows if row["stage"] in stages]


def spent_flops(other: Run) -> float:
    """Sums the FLOPs of all its steps of warmup and train, as far as they were counted.

    Raises UserError where none were.
    """
    rows = training_rows(other, "warmup", "train")
    flops = sum(value for row in rows for key, value in row.items() if key.startswith("flops/"))
    if not flops:
        raise UserError(
            f"{other.metrics}: its steps counted no FLOPs; use --pretrain.match_by time"
        )
    return flops


def spent_seconds(other: Run) -> float:
    """Sums the wall time of all its steps of warmup and train, in seconds: without
    evaluations and checkpoints."""
    rows = training_rows(other, "warmup", "train")
    return sum(
        value
        for row in rows
        for key, value in row.items()
        if key.startswith("time/") and key != "time/step"  # that is the phases' sum
    )


def uncounted_warmup(other: Run) -> bool:
    """Returns whether the warmup's FLOPs were not recorded, so they are not in the budget."""
    rows = training_rows(other, "warmup")
    return bool(rows) and not any(key.startswith("flops/") for row in rows for key in row)


def require_same_corpus(corpus: ScoredCorpus, other: Run) -> None:
    """Checks that both runs read one corpus. Raises UserError where the other run's documents or
    tokens are not these."""
    theirs = load_scored(other.scored)
    for name, what in {"corpus_hash": "documents", "tokenizer": "tokens"}.items():
        if corpus.metadata[name] != theirs.metadata[name]:
            raise UserError(
                f"{corpus.folder} and {theirs.folder} have other {what}, so none can be matched;"
                " use a new --run: it takes the matched run's scores"
            )


def matched_batches(
    other: Run, corpus: ScoredCorpus, config: Config, *, head_length: int
) -> Iterator[tuple[int, list[Piece]]]:
    """Yields (cursor after it, pieces) of each step of the other run's training.

    The windows are its own; the targets are all their tokens, or the positions that it trained
    at. Raises UserError where they are not recorded.
    """
    for cursor, works in matched_works(other, corpus):
        pieces = []
        for work in works:
            window = work.window
            targets = all_targets(window.start, window.end, head_length)
            if config.pretrain.tokens == "selected":
                targets = np.array([position.index for position in work.positions])
            pieces.append(
                Piece(
                    document_id=work.document.document_id,
                    start=window.start,
                    end=window.end,
                    targets=targets,
                )
            )
        yield cursor, pieces


def matched_works(other: Run, corpus: ScoredCorpus) -> Iterator[tuple[int, list[Work]]]:
    """Yields (cursor after it, works) of each step, as that run recorded them.

    Raises UserError where a step's are not recorded.
    """
    recorded = recorded_works(other.path, "train", corpus)
    for row in training_rows(other, "train"):
        if row["step"] not in recorded:
            raise UserError(
                f"{other.path / WORKS}: step {row['step']} is not there, so its documents can't be"
                " known (an OpenRPT before 0.2 trained it); use --pretrain.match_by flops or time"
            )
        yield recorded[row["step"]]
