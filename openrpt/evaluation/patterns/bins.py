"""Reasoning patterns of runs: their stored rollouts, over training steps and between runs.

Every value is a mean with a 95 % interval from resampling documents: rollouts of one document are
not independent. Steps of a bin are read evenly spaced, so that a long run takes no longer.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from re import Pattern
from typing import Any

import numpy as np

from openrpt.config.sections import Config
from openrpt.errors import UserError
from openrpt.evaluation.intervals import Interval, difference_of_means, mean_interval
from openrpt.evaluation.patterns.measures import (
    KEYWORDS,
    Keywords,
    distinct,
    free_thought,
    keyword_patterns,
    prediction_measures,
    target_text,
    thought_measures,
    words_of,
)
from openrpt.evaluation.records import read_evaluation
from openrpt.progress import SILENT, Progress
from openrpt.runs.metrics import readable_metrics
from openrpt.runs.rollouts import (
    evaluated_path,
    read_evaluated,
    read_rollouts,
    rollout_folder,
    stored_steps,
)
from openrpt.runs.run import Run
from openrpt.runs.spent import costs

_STEPS_PER_BIN = 10
"""Most steps that are read of a bin."""

MEASURES = {
    "thought_bytes": "length of the free thought, in bytes",
    "contains_target": "thoughts that contain the true next token (leakage)",
    "contains_other_target": "… another position's token: what chance gives",
    "copied_from_prefix": "longest run of words that stands in the prefix, of the thought's words",
    "answer_switched": "thoughts whose last named answer differs from the first",
    "distinct_1": "different words of a group's thoughts, of all",
    "distinct_2": "different pairs of words of a group's thoughts, of all",
    "reward": "reward",
    "closed": "rollouts with a prediction",
    "prediction_bytes": "length of a prediction, in bytes",
    "prediction_content": "predictions with a letter, digit or mathematical sign",
    "truth_content": "… true next tokens with one",
    "commonest_prediction": "predictions that are their step's commonest one",
    "commonest_truth": "… true next tokens that are their step's commonest one",
    "equals_ntp": "predictions equal to standard prediction's",
}
"""The names of what is measured, apart from the keyword groups (`keywords/GROUP`: thoughts with
one of its keywords). Means over rollouts; `distinct_…` over groups. Thoughts: without the
candidates that they were made to begin with, and only where there is anything left."""
THOUGHT_MEASURES = list(MEASURES)[: list(MEASURES).index("reward")]
DECIMALS = {"thought_bytes": 1, "prediction_bytes": 1, "reward": 3}
"""The decimals of the measures that are shown as they are; all others are shares, shown in
percent."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Observed:
    """One measure's values, each with its document."""

    values: np.ndarray
    documents: np.ndarray

    def interval(self) -> Interval:
        """Returns the mean with its interval, drawn over documents."""
        return mean_interval(self.values, self.documents)


@dataclass(frozen=True, kw_only=True, eq=False)
class Bin:
    """A range of a run's steps; first = last = 0 for an evaluation."""

    run: str
    first: int
    last: int
    steps: tuple[int, ...]
    """The steps that were read."""
    measures: dict[str, Observed]
    flops: float | None = None
    """FLOPs of the training up to its last step, warmup included."""
    seconds: float | None = None

    @property
    def name(self) -> str:
        """The steps, `1–3`; `evaluated` for an evaluation's bin."""
        if not self.first:
            return "evaluated"
        return f"{self.first}" if self.first == self.last else f"{self.first}–{self.last}"


def run_bins(
    run: Run,
    *,
    bins: int = 4,
    keywords: Keywords = KEYWORDS,
    progress: Progress = SILENT,
) -> list[Bin]:
    """Returns a run's stored rollouts in ranges of about equally many steps, from first to last.

    Raises UserError where no rollouts are stored, or a file is not readable.
    """
    steps = stored_steps(rollout_folder(run.path))
    if not steps:
        raise UserError(f"{run.path}: no rollouts are stored; was `openrpt train` run there?")
    groups = keyword_patterns(keywords)
    parts = [part.tolist() for part in np.array_split(steps, min(bins, len(steps)))]
    chosen = [_evenly(part, _STEPS_PER_BIN) for part in parts]
    progress.begin(f"patterns of {run.path}", sum(map(len, chosen)), "steps")
    done, found = 0, []
    history, _ = readable_metrics(run.metrics)
    for part, read in zip(parts, chosen, strict=True):
        values: dict[str, list[tuple[float, str]]] = {}
        for step in read:
            rows = read_rollouts(run.path, step).to_pylist()
            _measure_rows(rows, run.config, groups, values)
            done += 1
            progress.update(done)
        found.append(
            Bin(
                run=str(run.path),
                first=part[0],
                last=part[-1],
                steps=tuple(read),
                measures={name: _measured(values.get(name, [])) for name in _measure_names(groups)},
                **_spent(history, part[-1]),
            )
        )
    return found


def evaluation_bins(
    run: Run, *, keywords: Keywords = KEYWORDS, progress: Progress = SILENT
) -> list[Bin]:
    """Returns a bin for each evaluation whose rollouts are stored: the models of a run side by
    side.

    Raises UserError where there is none, or a file is not readable.
    """
    groups = keyword_patterns(keywords)
    entries = read_evaluation(run.evaluation)["evaluations"]
    labels = [label for label in entries if evaluated_path(run.path, label).is_file()]
    if not labels:
        raise UserError(
            f"{run.path}: no evaluation with thoughts is stored; run: openrpt evaluate --run"
            f" {run.path}"
        )
    progress.begin(f"patterns of {run.path}", len(labels), "evaluations")
    found = []
    for label in labels:
        values: dict[str, list[tuple[float, str]]] = {}
        rows = read_evaluated(run.path, label).to_pylist()
        _measure_rows(rows, run.config, groups, values)
        cost = entries[label].get("cost") or {}
        found.append(
            Bin(
                run=label,
                first=0,
                last=0,
                steps=(),
                measures={name: _measured(values.get(name, [])) for name in _measure_names(groups)},
                flops=cost.get("flops"),
                seconds=cost.get("seconds"),
            )
        )
        progress.update(len(found))
    return found


def _spent(history: Sequence[Mapping[str, Any]], step: int) -> dict[str, float]:
    """Returns the FLOPs and seconds up to a step of train."""
    rows = [r for r in history if r["stage"] == "warmup" or r["stage"] == "train"]
    rows = [r for r in rows if r["stage"] == "warmup" or r["step"] <= step]
    spent = costs(rows)
    return {
        "flops": sum(cost.flops for cost in spent),
        "seconds": sum(cost.total_seconds for cost in spent),
    }


def _measure_names(groups: Mapping[str, Any]) -> list[str]:
    return [*(f"keywords/{group}" for group in groups), *MEASURES]


def _evenly(items: Sequence[int], most: int) -> list[int]:
    """Returns at most so many of them, the first and the last included."""
    if len(items) <= most:
        return list(items)
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]


def _measured(pairs: Sequence[tuple[float, str]]) -> Observed:
    return Observed(
        values=np.array([value for value, _ in pairs], dtype=float),
        documents=np.array([document for _, document in pairs], dtype=str),
    )


def _measure_rows(
    rows: Sequence[dict[str, Any]],
    config: Config,
    groups: Mapping[str, Pattern[str]],
    values: dict[str, list[tuple[float, str]]],
) -> None:
    """Adds (value, document) of the rollouts of a step, or of an evaluation, to each measure."""
    by_position = groupby(rows, key=lambda row: (row["document_id"], row["position"]))
    positions = [list(group) for _, group in by_position]
    targets = [target_text(group[0]["continuation"]) for group in positions]
    predictions = _commonest([row["prediction"] for row in rows])
    first_tokens = [next(iter(group[0]["continuation"]), None) for group in positions]
    truths = _commonest(first_tokens)
    separator = config.prompt.candidate_separator.encode()
    for i, group in enumerate(positions):
        document = group[0]["document_id"]
        thoughts = []
        other = targets[(i + len(targets) // 2) % len(targets)] if len(targets) > 1 else ""
        measured: list[dict[str, float | None]] = []
        for row in group:
            text = free_thought(row["thought"], row["candidates"], separator).decode(
                "utf-8", "replace"
            )
            thoughts.append(words_of(text))
            prefix = row["prefix_end"].decode("utf-8", "replace")
            measured.append(
                thought_measures(text, prefix, targets[i], other, groups)
                | prediction_measures(row)
                | {"commonest_prediction": predictions(row["prediction"])}
            )
        measured.append(
            {"distinct_1": distinct(thoughts, 1), "distinct_2": distinct(thoughts, 2)}
            | {"commonest_truth": truths(first_tokens[i])}
        )
        for name, value in (item for one in measured for item in one.items()):
            if value is not None:
                values.setdefault(name, []).append((value, document))


def _commonest(items: Sequence[bytes | None]) -> Callable[[bytes | None], float | None]:
    """Returns a function that says whether an item is the commonest of these; None is no item."""
    counts = Counter(item for item in items if item is not None)
    winner = max(counts, key=lambda item: counts[item]) if counts else None
    return lambda item: None if item is None else float(item == winner)


def difference(later: Bin, earlier: Bin, name: str) -> Interval:
    """Returns later − earlier of one measure, with its interval."""
    a, b = later.measures[name], earlier.measures[name]
    return difference_of_means(a.values, a.documents, b.values, b.documents)


def compared(runs: Sequence[Sequence[Bin]]) -> list[tuple[Bin, Bin]]:
    """Returns what is compared, as (a, b) of a − b: each run's last bin with its own first, and
    with the last bin of the first run."""
    pairs = [(bins[-1], bins[0]) for bins in runs if len(bins) > 1]
    return pairs + [(bins[-1], runs[0][-1]) for bins in runs[1:]]
