"""The passes of one evaluation over its works, each of which gives columns.

First the model thinks for itself everywhere; then, where they are asked for, come the controls (its
thoughts changed) and the likelihood of the truth (after its thoughts).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pyarrow as pa

from openrpt.costs.flops import model_shape
from openrpt.data.work import Work, document_bytes, retokenized
from openrpt.engine.generation import Generated
from openrpt.engine.model import Model
from openrpt.errors import UserError
from openrpt.evaluation.kept import NOTHING_KEPT, Kept
from openrpt.evaluation.next_token.graded import Text, position_result
from openrpt.evaluation.next_token.likelihood import likelihoods
from openrpt.evaluation.next_token.outcome_rows import outcome_rows, outcomes_of
from openrpt.evaluation.next_token.results import CARRIED, THOUGHT_CONTROLS, PositionResult
from openrpt.evaluation.next_token.subject import Subject
from openrpt.evaluation.next_token.thoughts import (
    Thoughts,
    accuracies,
    carried,
    changed_thoughts,
    rollouts_after,
    swapped,
    thought_of,
)
from openrpt.evaluation.next_token.voting import vote, voting_draws
from openrpt.json_lines import Row
from openrpt.progress import Progress
from openrpt.rl.grading import grade_groups
from openrpt.runs.rollouts import evaluated_table
from openrpt.types import Group

_ITEM = "work"
"""The field of a kept row that says which pass it is of, and at which work."""


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
class Passes:
    """The passes of one evaluation; each goes once through all works, and keeps what it makes of
    each."""

    subject: Subject
    works: Sequence[Work]
    progress: Progress
    title: str
    start_ids: bool
    kept: Kept = NOTHING_KEPT
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
        for work, generated in self._generated(self.subject.samples if reasoning else 0):
            groups, found = self._graded(work, generated)
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

    def _generated(self, samples: int) -> Iterator[tuple[Work, list[Generated]]]:
        """Yields each work with what the policy makes at its positions."""

        def make(missing: Sequence[int]) -> Iterator[Row]:
            works = [self.works[i] for i in missing]
            each = self.subject.predict_each(works, samples)
            for work, generated in zip(works, each, strict=True):
                plain = self.subject.with_plain_standard(work, generated)
                yield {"outcomes": outcome_rows(plain)}

        for work, row in self._each_row("", make):
            yield work, outcomes_of(row["outcomes"])

    def _by_work(
        self, task: str, function: Callable[[Work, slice], dict[str, np.ndarray]]
    ) -> dict[str, np.ndarray]:
        """Returns the columns that a function makes of each work and its place among all
        positions."""
        ends = np.cumsum([len(work.positions) for work in self.works]).tolist()

        def make(missing: Sequence[int]) -> Iterator[Row]:
            for i in missing:
                work = self.works[i]
                found = function(work, slice(ends[i] - len(work.positions), ends[i]))
                yield {name: values.tolist() for name, values in found.items()}

        rows = [row for _, row in self._each_row(task, make)]
        # dtype: JSON has no NaN, and a kept row null in its place.
        return {
            name: np.concatenate([np.array(row[name], dtype=float) for row in rows])
            for name in rows[0]
        }

    def _each_row(
        self, task: str, make: Callable[[Sequence[int]], Iterator[Row]]
    ) -> Iterator[tuple[Work, Row]]:
        """Yields each work with its row of a task, in the works' order; `make`: gives the rows of
        those works that have none kept, by their numbers."""
        names = {f"{task} {i}".strip(): i for i in range(len(self.works))}

        def named(missing: Sequence[int]) -> Iterator[Row]:
            for i, row in zip(missing, make(missing), strict=True):
                yield {_ITEM: f"{task} {i}".strip()} | row

        title = f"{self.title}: {task}" if task else self.title
        self.progress.begin(title, len(self.documents), "positions")
        done = 0
        for work, row in zip(self.works, self.kept.each(names, named, key=_ITEM), strict=True):
            yield work, {name: value for name, value in row.items() if name != _ITEM}
            done += len(work.positions)
            self.progress.update(done)

    def _graded(
        self, work: Work, generated: list[Generated]
    ) -> tuple[list[Group], list[PositionResult]]:
        """Returns the groups at the work's positions, and which of their predictions are exact."""
        subject, table = self.subject, self.subject.policy.table
        tokens = document_bytes(subject.policy.tokenizer, work.document)
        ids = work.document.token_ids.tolist()
        groups = grade_groups(generated, work.positions, ids, tokens, subject.layout, table)
        text = Text.of(work.document, tokens)
        results = []
        for group, outcome in zip(groups, generated, strict=True):
            start_id = int(work.document.ntp_token_id[group.prompt.position.index])
            start = table.bytes[start_id] if self.start_ids and start_id >= 0 else None
            standard = [table.bytes[i] for i in outcome.standard_ids]
            results.append(position_result(group, text, standard, start, table, subject.layout))
        return groups, results


def _part(kinds: dict[str, Thoughts], at: slice) -> dict[str, Thoughts]:
    return {kind: thoughts[at] for kind, thoughts in kinds.items()}
