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
from openrpt.evaluation.next_token.graded import Text, position_result
from openrpt.evaluation.next_token.likelihood import likelihoods
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
from openrpt.progress import Progress
from openrpt.rl.grading import grade_groups
from openrpt.runs.rollouts import evaluated_table
from openrpt.types import Group


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
