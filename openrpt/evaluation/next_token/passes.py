"""The passes of one evaluation over its works, each of which gives columns.

First the model thinks for itself everywhere; then, where they are asked for, come the controls (its
thoughts changed) and the likelihood of the truth (after its thoughts).
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pyarrow as pa

from openrpt.costs.flops import model_shape
from openrpt.data.token_classes import CONTEXT, token_class
from openrpt.data.work import Work, document_bytes, retokenized
from openrpt.engine.generation import Generated
from openrpt.engine.model import Model
from openrpt.errors import UserError
from openrpt.evaluation.next_token.results import CARRIED, THOUGHT_CONTROLS, PositionResult
from openrpt.evaluation.next_token.thoughts import (
    Subject,
    Thoughts,
    accuracies,
    carried,
    changed_thoughts,
    likelihoods,
    rollouts_after,
    swapped,
    thought_of,
    vote,
    voting_draws,
)
from openrpt.progress import Progress
from openrpt.rl.grading import CONTINUATION_TOKENS, grade_groups
from openrpt.rl.rewards.matching import matched_tokens, prefix_match
from openrpt.runs.rollouts import evaluated_table
from openrpt.types import Group, Rollout

_NAN = float("nan")


def in_tokens_of(policy: Model, works: Sequence[Work], progress: Progress) -> list[Work]:
    """Returns the works in a policy's own tokens; what has no boundary there is left out, and
    counted."""
    found = []
    for work in works:
        own = retokenized(work, policy.tokenizer)
        if own.positions:
            found.append(own)
    before = sum(len(work.positions) for work in works)
    kept = sum(len(work.positions) for work in found)
    progress.say(
        f"another tokenizer than the scores': {kept:,} of {before:,} positions stand between two"
        " of its tokens and are evaluated in them"
    )
    if not found:
        raise UserError(
            f"model '{policy.name}': none of the positions stands between two of its tokens;"
            " raise evaluate.positions"
        )
    return found


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """The passes of one evaluation; each goes once through all works."""

    subject: Subject
    works: Sequence[Work]
    progress: Progress
    title: str
    start_ids: bool
    rollouts: list[pa.Table] = field(default_factory=list)
    """A table a work, filled where the policy thinks for itself."""

    @cached_property
    def documents(self) -> list[str]:
        """The document of each position, [n]."""
        return [p.document_id for work in self.works for p in work.positions]

    def run(
        self, reasoning: bool, controls: Sequence[str], likelihood: bool
    ) -> dict[str, np.ndarray]:
        """Runs the passes; returns the columns of all passes that are asked for, each [n]."""
        voting = "ntp_voting" in controls
        results: list[PositionResult] = []
        thoughts: Thoughts = []
        said: list[list[bytes | None]] = []
        draws: list[int] = []
        shape = model_shape(self.subject.policy) if voting else None
        samples = self.subject.samples if reasoning else 0
        each = self.subject.predict_each(self.works, samples)
        for work in self._each_work(self.title):
            groups, found = self._graded(work, next(each))
            results += found
            if reasoning:
                tokens = document_bytes(self.subject.policy.tokenizer, work.document)
                self.rollouts.append(evaluated_table(groups, tokens, self.subject.policy.table))
            layout = self.subject.layout
            thoughts += [
                tuple(thought_of(r.completion, layout) for r in g.rollouts) for g in groups
            ]
            said += [[r.prediction for r in g.rollouts] for g in groups]
            if shape is not None:
                draws += [voting_draws(shape, group, layout) for group in groups]
        fields = PositionResult.__dataclass_fields__
        columns = {name: np.array([getattr(r, name) for r in results]) for name in fields}
        kinds = {
            control: changed_thoughts(control, thoughts, self.documents)
            for control in THOUGHT_CONTROLS
            if control in controls
        }
        if kinds:
            donors = swapped(said, self.documents) if "swapped" in kinds else []
            columns |= self._by_work(
                "controls", lambda work, at: self._controlled(work, _part(kinds, at), donors[at])
            )
        if voting:
            columns |= self._by_work(
                "voting", lambda work, at: {"ntp_voting": vote(self.subject, work, draws[at])}
            )
            columns["voting_draws"] = np.array(draws, dtype=float)
        if likelihood:
            kinds = ({"": thoughts} if reasoning else {}) | kinds
            nats = self._by_work(
                "likelihood", lambda work, at: likelihoods(self.subject, work, _part(kinds, at))
            )
            columns |= {f"nll_{kind}".rstrip("_"): values for kind, values in nats.items()}
            if reasoning:
                columns["information_gain"] = columns["nll_ntp"] - columns["nll"]
        return columns

    def _controlled(
        self,
        work: Work,
        thoughts: dict[str, Thoughts],
        donors: Sequence[Sequence[bytes | None]],
    ) -> dict[str, np.ndarray]:
        """Returns the columns of the controls at a work; `donors`: what was predicted where each
        of its swapped thoughts stood."""
        rollouts = rollouts_after(self.subject, work, thoughts)
        found = accuracies(rollouts)
        if "swapped" in rollouts:
            found[CARRIED] = carried(rollouts["swapped"], donors)
        return found

    def _by_work(
        self, task: str, function: Callable[[Work, slice], dict[str, np.ndarray]]
    ) -> dict[str, np.ndarray]:
        """Returns the columns that a function makes of each work and its place among all
        positions."""
        parts: dict[str, list[np.ndarray]] = {}
        start = 0
        for work in self._each_work(f"{self.title}: {task}"):
            end = start + len(work.positions)
            for name, values in function(work, slice(start, end)).items():
                parts.setdefault(name, []).append(values)
            start = end
        return {name: np.concatenate(values) for name, values in parts.items()}

    def _each_work(self, title: str) -> Iterator[Work]:
        self.progress.begin(title, len(self.documents), "positions")
        done = 0
        for work in self.works:
            yield work
            done += len(work.positions)
            self.progress.update(done)

    def _graded(
        self, work: Work, generated: list[Generated]
    ) -> tuple[list[Group], list[PositionResult]]:
        """Returns the groups at the work's positions, and which of their predictions are exact."""
        subject, table = self.subject, self.subject.policy.table
        generated = subject.with_plain_standard(work, generated)
        tokens = document_bytes(subject.policy.tokenizer, work.document)
        ids = work.document.token_ids.tolist()
        groups = grade_groups(generated, work.positions, ids, tokens, subject.layout, table)
        ends = np.cumsum([len(piece) for piece in tokens])
        results = []
        for group in groups:
            start_id = int(work.document.ntp_token_id[group.prompt.position.index])
            start = table.bytes[start_id] if self.start_ids and start_id >= 0 else None
            ntp, kind = table.bytes[group.ntp_token_id], work.document.kind
            results.append(_result(group, ntp, start, tokens, ends, kind))
        return groups, results


def _part(kinds: dict[str, Thoughts], at: slice) -> dict[str, Thoughts]:
    return {kind: thoughts[at] for kind, thoughts in kinds.items()}


def _result(
    group: Group,
    standard: bytes,
    start: bytes | None,
    tokens: list[bytes],
    ends: np.ndarray,
    kind: str,
) -> PositionResult:
    """Returns the columns of one pass. `standard`, `start`: standard prediction of the policy and
    of the start model (None where it is not known); `ends` [T]: where each token of the document
    ends, in bytes; `kind`: the document's."""
    position = group.prompt.position
    index = position.index
    continuation = tokens[index : index + CONTINUATION_TOKENS]
    rollouts = group.rollouts
    lengths = [matched_tokens(r.prediction, continuation) for r in rollouts]
    majority, confidence = _majority(rollouts)
    return PositionResult(
        document_id=position.document_id,
        position=index,
        byte_offset=int(ends[index]) - len(tokens[index]),
        entropy=position.entropy,
        document_kind=kind,
        token_class=token_class(tokens[index], b"".join(tokens[max(0, index - CONTEXT) : index])),
        token_bytes=len(tokens[index]),
        ntp=prefix_match(standard, continuation),
        reasoning=_mean([float(r.exact) for r in rollouts]),
        single_token=_mean([float(length == 1) for length in lengths]),
        any_right=max((float(r.exact) for r in rollouts), default=_NAN),
        majority=majority,
        confidence=confidence,
        predicted_tokens=_mean([float(length) for length in lengths if length]),
        closed=_mean([float(r.prediction is not None) for r in rollouts]),
        agrees=_mean([float(r.prediction == standard) for r in rollouts]),
        agrees_start=_mean([float(r.prediction == start) for r in rollouts]) if start else _NAN,
    )


def _majority(rollouts: tuple[Rollout, ...]) -> tuple[float, float]:
    """Returns (1 if the commonest prediction, the earliest of equals, is exact; its share of
    rollouts)."""
    if not rollouts:
        return _NAN, _NAN
    counts = Counter(r.prediction for r in rollouts)
    winner = max(rollouts, key=lambda r: counts[r.prediction])
    known = winner.prediction is not None and len(rollouts) > 1
    share = counts[winner.prediction] / len(rollouts)
    return float(winner.exact), share if known else _NAN


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else _NAN
