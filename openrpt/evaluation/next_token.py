"""Next-token accuracy on held-out positions (the paper's Section 4.1, Table 1).

Both modes stand on the same positions and the same prefix and are graded by the same
`prefix_match`: `ntp`, the argmax of one forward pass (special tokens masked), and `reasoning`,
think and then predict. Errors are by document.
"""

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from openrpt.config import Config
from openrpt.data import Work, document_bytes, evaluation_work
from openrpt.decoding import Sampling
from openrpt.engine import Engine
from openrpt.evaluation.statistics import Estimate, mean_by_document
from openrpt.generation import Request
from openrpt.models import Policy
from openrpt.positions import BANDS, DIFFICULTIES
from openrpt.progress import SILENT, Progress
from openrpt.prompts import Layout, build_layout, require_room
from openrpt.rewards import matched_tokens, prefix_match
from openrpt.rollouts import CONTINUATION_TOKENS, grade_groups
from openrpt.scores import ScoredCorpus
from openrpt.seeding import key_of
from openrpt.types import Group, Rollout, Split


@dataclass(frozen=True, kw_only=True, eq=False)
class PositionResult:
    """What a model did at one position. With samples, fractions over the samples."""

    document_id: str
    position: int
    entropy: float
    ntp: float
    """1 if standard prediction was right."""
    reasoning: float
    """prefix match: right up to a token boundary (mean over samples)."""
    single_token: float
    """right, and exactly one token long."""
    any_right: float
    """pass@k."""
    majority: float
    """The commonest prediction is right."""
    predicted_tokens: float
    """Tokens of the continuation that a right prediction covers; NaN where none was right."""
    closed: float
    """Share of completions with a prediction."""
    agrees: float
    """Share of predictions that equal standard prediction's."""


@dataclass(frozen=True, kw_only=True, eq=False)
class EvaluationResult:
    """A model on a set of positions, column by column."""

    columns: dict[str, np.ndarray]
    has_reasoning: bool

    @property
    def num_positions(self) -> int:
        return len(self.columns["position"])

    def estimate(self, column: str, above: float = -np.inf, upto: float = np.inf) -> Estimate:
        """Mean of a column over positions of entropy in (above, upto], error by document."""
        entropy, values = self.columns["entropy"], self.columns[column]
        inside = (entropy > above) & (entropy <= upto) & ~np.isnan(values)
        return mean_by_document(values[inside], self.columns["document_id"][inside])

    def accuracy(self, mode: str) -> float:
        return self.estimate(mode).value

    def summary(self) -> dict[str, Any]:
        """Numbers for `evaluation.json`, by difficulty (nested) and band (disjoint)."""
        slices = {"all": (-np.inf, np.inf)}
        slices |= {name: (low, np.inf) for name, low in DIFFICULTIES.items()}
        slices |= BANDS
        names = ["ntp"]
        if self.has_reasoning:
            names += ["reasoning", "single_token", "any_right", "majority", "predicted_tokens"]
            names += ["closed", "agrees"]
        return {
            name: {part: self.estimate(name, *bounds).as_dict() for part, bounds in slices.items()}
            for name in names
        }

    def save(self, path: Path) -> None:
        """Every position's outcome, so that any two models can be compared in pairs. Atomic."""
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        metadata = {"has_reasoning": str(self.has_reasoning)}
        table = pa.table({k: pa.array(v) for k, v in self.columns.items()})
        pq.write_table(table.replace_schema_metadata(metadata), partial)
        os.replace(partial, path)

    @classmethod
    def load(cls, path: Path) -> "EvaluationResult":
        table = pq.read_table(path)
        columns = {name: table[name].to_numpy() for name in table.column_names}
        metadata = table.schema.metadata or {}
        return cls(columns=columns, has_reasoning=metadata[b"has_reasoning"] == b"True")


def evaluate_policy(
    policy: Policy,
    engine: Engine,
    corpus: ScoredCorpus,
    config: Config,
    *,
    split: Split | None = None,
    positions: int | None = None,
    modes: tuple[str, ...] = ("ntp", "reasoning"),
    progress: Progress = SILENT,
    title: str = "evaluate",
) -> EvaluationResult:
    """Standard and reasoned prediction at the split's evaluation positions.

    The positions depend on the seed, the corpus and `config.evaluate` only, never on the model.
    """
    layout = build_layout(policy.tokenizer, config.prompt, policy.bos_ids)
    require_room(layout, config.prompt, policy.max_length)
    works = evaluation_work(
        corpus,
        config,
        split=split or config.evaluate.split,
        positions=positions or config.evaluate.positions,
        positions_per_document=config.evaluate.positions_per_document,
        min_entropy=config.evaluate.min_entropy,
    )
    total = sum(len(work.positions) for work in works)
    progress.begin(title, total, "positions")
    results: list[PositionResult] = []
    for work in works:
        results += _evaluate_work(policy, engine, work, config, layout, "reasoning" in modes)
        progress.update(len(results))
    fields = PositionResult.__dataclass_fields__
    columns = {name: np.array([getattr(r, name) for r in results]) for name in fields}
    return EvaluationResult(columns=columns, has_reasoning="reasoning" in modes)


def _evaluate_work(
    policy: Policy, engine: Engine, work: Work, config: Config, layout: Layout, reasoning: bool
) -> list[PositionResult]:
    samples = max(config.evaluate.samples, 1) if reasoning else 0
    document = work.document
    request = Request(
        prefix_ids=work.prefix_ids(layout, whole=False),
        prefix_lengths=work.prefix_lengths(layout),
        keys=tuple(
            tuple(
                key_of(config.seed, "evaluate", document.document_id, p.index, s)
                for s in range(samples)
            )
            for p in work.positions
        ),
    )
    sampling = Sampling(
        temperature=config.evaluate.temperature if config.evaluate.samples else 0.0,
        think_budget=config.prompt.think_budget,
        prediction_budget=config.prompt.prediction_budget,
        candidates=config.prompt.candidates,
    )
    generated = engine.generator.generate(request, layout, sampling)
    standard_ids = [outcome.standard_id for outcome in generated]
    if layout.head_ids != layout.plain_head_ids:
        standard_ids = _plain_standard(engine, work, layout, sampling)
    tokens = document_bytes(policy, document)
    groups = grade_groups(
        generated, work.positions, document.token_ids.tolist(), tokens, layout, policy.table
    )
    return [
        _result(group, policy.table.bytes[standard_id], tokens)
        for group, standard_id in zip(groups, standard_ids, strict=True)
    ]


def _plain_standard(engine: Engine, work: Work, layout: Layout, sampling: Sampling) -> list[int]:
    """Standard prediction sees the text alone: where the prompt has instructions before it, it
    takes a pass of its own."""
    ids = work.document.token_ids[work.window.start : work.positions[-1].index].tolist()
    head = layout.plain_head_ids
    request = Request(
        prefix_ids=head + tuple(ids),
        prefix_lengths=tuple(len(head) + p.index - work.window.start for p in work.positions),
        keys=tuple(() for _ in work.positions),
    )
    generated = engine.generator.generate(request, layout, sampling)
    return [outcome.standard_id for outcome in generated]


def _result(group: Group, standard: bytes, tokens: list[bytes]) -> PositionResult:
    position = group.prompt.position
    continuation = tokens[position.index : position.index + CONTINUATION_TOKENS]
    right_by_ntp = prefix_match(standard, continuation)
    rollouts = group.rollouts
    lengths = [matched_tokens(r.prediction, continuation) for r in rollouts]
    return PositionResult(
        document_id=position.document_id,
        position=position.index,
        entropy=position.entropy,
        ntp=right_by_ntp,
        reasoning=_mean([r.reward for r in rollouts]),
        single_token=_mean([float(length == 1) for length in lengths]),
        any_right=max((r.reward for r in rollouts), default=float("nan")),
        majority=_majority(rollouts),
        predicted_tokens=_mean([float(length) for length in lengths if length]),
        closed=_mean([float(r.prediction is not None) for r in rollouts]),
        agrees=_mean([float(r.prediction == standard) for r in rollouts]),
    )


def _majority(rollouts: tuple[Rollout, ...]) -> float:
    """Reward of the commonest prediction; the earliest of equals."""
    if not rollouts:
        return float("nan")
    counts = Counter(r.prediction for r in rollouts)
    winner = max(rollouts, key=lambda r: counts[r.prediction])
    return winner.reward


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else float("nan")
