"""A curriculum over the kinds of documents: the lowest first, the next one once those are mastered.

Without one, a policy can settle on what is easy at the low kinds and chance at the high ones, where
a right thought is too rare to be reinforced.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from openrpt.config.prompt import SelectionConfig
from openrpt.data.kinds import kind_number, ordered_kinds
from openrpt.data.scored import ScoredCorpus
from openrpt.errors import UserError


@dataclass(frozen=True, kw_only=True, slots=True)
class Curriculum:
    """Which kinds are open, as a pure function of how many were opened so far."""

    kinds: tuple[str, ...]
    """All kinds, their numbers ascending."""
    first: int
    """The number of kinds that are open from the start."""
    share: float
    """The share of right rollouts that opens the next kind."""
    steps: int
    """The number of last steps, all since the last opening, that this share is the mean of."""

    def open_kinds(self, opened: int) -> tuple[str, ...]:
        """Returns the kinds that documents are taken of, after so many were opened."""
        return self.kinds[: self.first + opened]

    def after(self, opened: int, shares: list[float], right: float) -> tuple[int, list[float]]:
        """Returns kinds opened, and shares since the last opening, after one more step.

        `shares`: of right rollouts in the steps since the last opening; `right`: in this one.

        >>> rule = Curriculum(kinds=("1", "2", "3"), first=1, share=0.8, steps=2)
        >>> rule.after(0, [], 0.7), rule.after(0, [0.7], 0.9), rule.after(2, [], 1.0)
        ((0, [0.7]), (1, []), (2, []))
        """
        if self.first + opened >= len(self.kinds):
            return opened, []
        last = [*shares, right][-self.steps :]
        if len(last) == self.steps and sum(last) / len(last) >= self.share - 1e-12:
            return opened + 1, []
        return opened, last


def read_curriculum(corpus: ScoredCorpus, config: SelectionConfig) -> Curriculum | None:
    """Makes the curriculum over the kinds of the training documents; None where there is none.

    Raises UserError where a document's kind is no number, or where there is none left to open.
    """
    if not config.curriculum:
        return None
    kinds = corpus.kinds("train")
    _require_numbers(kinds)
    ordered = ordered_kinds(kinds.values())
    if config.curriculum >= len(ordered):
        raise UserError(
            f"selection.curriculum = {config.curriculum} leaves no kind to open: the training"
            f" documents in {corpus.folder} have {len(ordered)}; give less, or 0 for no curriculum"
        )
    return Curriculum(
        kinds=tuple(ordered),
        first=config.curriculum,
        share=config.curriculum_share,
        steps=config.curriculum_steps,
    )


def _require_numbers(kinds: Mapping[str, str]) -> None:
    for document_id, kind in kinds.items():
        if kind_number(kind) is None:
            what = f"is '{kind}', no number" if kind else "is not there"
            raise UserError(
                f"selection.curriculum: the kind of document {document_id} {what}; let corpus.kind"
                " name a field of numbers, and score again"
            )
