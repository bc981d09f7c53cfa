"""Updates whose loss or gradient is not finite: where in the text it came from, and whether the
stage stops or leaves the update out (`optim.on_nonfinite`).
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from torch import Tensor

from openrpt.config.training import OptimConfig
from openrpt.errors import UserError, few
from openrpt.types import Finding

SKIPPED = "optim/skipped"
"""The metric: 1 for a step whose update was left out, 0 for others; where skipping is on."""


class Places:
    """The documents of a step, and the places among them where a loss was not finite."""

    def __init__(self, documents: Iterable[str]) -> None:
        self._documents = list(dict.fromkeys(documents))
        self._found: dict[str, dict[int, None]] = {}

    @classmethod
    def of_all(cls, parts: "Sequence[Places]") -> "Places":
        """Returns the places of several processes, each with documents of one step, as one."""
        whole = cls(document for part in parts for document in part._documents)
        for part in parts:
            for document_id, positions in part._found.items():
                whole.note(document_id, positions)
        return whole

    def note(self, document_id: str, positions: Iterable[int]) -> None:
        """Notes that a loss at these positions of the document (tokens) is not finite."""
        self._found.setdefault(document_id, {}).update(dict.fromkeys(positions))

    def note_text(self, document_id: str, hidden: Tensor, *, start: int) -> bool:
        """Notes the first of a text's tokens whose state is not finite, and says if there is one.

        hidden [L, d], of tokens that are numbered from `start` on.
        """
        bad = (~hidden.detach().isfinite().all(1)).nonzero()
        if len(bad):
            self.note(document_id, [start + int(bad[0])])
        return len(bad) > 0

    def describe(self, norm: float) -> str:
        """Says in words where it was; `norm` is the gradient's, which is not finite."""
        if not self._found:  # each loss was finite, and their gradient is not
            return f"the gradient's norm is {norm} (documents {few(self._documents)})"
        places = []
        for document_id, positions in self._found.items():
            word = "position" if len(positions) == 1 else "positions"
            places.append(f"document {document_id}, {word} {few([str(one) for one in positions])}")
        return f"a loss is not finite at {few(places, '; ')}"


class NotFinite(UserError):
    """An update that was not made, since its gradient is not finite."""

    def __init__(self, norm: float, places: Places, learning_rate: str) -> None:
        self.seen = f"{places.describe(norm)}: the update was not made"
        self.helps = f"a lower {learning_rate}"
        super().__init__(
            f"{self.seen}; the same command meets it again: add --optim.on_nonfinite skip, which"
            f" leaves such updates out, or give {self.helps}"
        )


def attempted(
    update: Callable[[], dict[str, float]], settings: OptimConfig, *, step: int
) -> dict[str, Any]:
    """Runs `update`, and gives what it measures.

    Where it raises NotFinite and such updates are to be left out (`optim.on_nonfinite`), it gives
    that this one was: as a metric, and as a warning of the step. Else NotFinite is raised.
    """
    if settings.on_nonfinite == "stop":
        return update()
    try:
        return update() | {SKIPPED: 0.0}
    except NotFinite as error:
        finding = Finding(name="skipped_update", step=step, seen=error.seen, helps=error.helps)
        return {SKIPPED: 1.0, "warnings": [finding]}


def require_few_skipped(rows: Sequence[dict[str, Any]], settings: OptimConfig) -> None:
    """Stops a stage: raises UserError where the last `optim.nonfinite_limit` steps were all left
    out."""
    limit = settings.nonfinite_limit
    last = rows[-limit:]
    if len(last) == limit and all(row.get(SKIPPED) for row in last):
        raise UserError(
            f"the last {limit} updates were left out, since their gradients were not finite; lower"
            f" the learning rate, or allow more with --optim.nonfinite_limit {2 * limit}"
        )


def finite_only(metrics: dict[str, Any]) -> dict[str, Any]:
    """Returns the metrics without the sums that an update that was left out has spoiled."""
    return {
        name: value
        for name, value in metrics.items()
        if not isinstance(value, float) or math.isfinite(value)
    }
