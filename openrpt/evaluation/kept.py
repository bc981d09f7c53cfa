"""The rows that a model has made so far, with which a stopped measurement goes on."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from openrpt.costs.meters import SUMMED, WorkMeter
from openrpt.errors import UserError
from openrpt.json_lines import Row, append_row, whole_rows, write_rows

_Item = TypeVar("_Item")
_COST = "cost"
"""The field of a row that says what it took, where a meter is at hand."""


@dataclass(frozen=True, kw_only=True)
class Kept:
    """A file of JSON lines with a row an item: a stopped measurement goes on behind its last
    row."""

    path: Path | None = None
    """The file; None where nothing is kept."""
    meter: WorkMeter | None = None
    """The meter of the work; what an earlier process took for the rows that are kept counts."""

    def rows(self, key: str) -> dict[str, Row]:
        """Returns the rows by the field that names their item; a last line that was cut off is
        dropped.

        Raises UserError where another line is damaged.
        """
        if self.path is None:
            return {}
        advice = "delete it and measure again"
        rows = whole_rows(self.path, advice=advice)
        write_rows(self.path, rows)
        try:
            return {row[key]: row for row in rows}
        except (KeyError, TypeError):
            raise UserError(f"{self.path}: damaged; {advice}") from None

    def each(
        self,
        items: Mapping[str, _Item],
        make: Callable[[Sequence[_Item]], Iterator[Row]],
        *,
        key: str,
    ) -> Iterator[Row]:
        """Yields a row an item, by the items' names in their order.

        `make`: gives the rows of items that have none yet, in turn; each has its item's name under
        `key`.
        """
        known = self.rows(key)
        if self.meter is not None:
            self.meter.add(*(known[name].get(_COST, {}) for name in items if name in known))
        made = self._kept(make([item for name, item in items.items() if name not in known]))
        for name in items:
            row = known[name] if name in known else next(made)
            yield {field: value for field, value in row.items() if field != _COST}

    def drop(self) -> None:
        """Removes the file: the measurement is whole, and stands elsewhere."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    def _kept(self, made: Iterator[Row]) -> Iterator[Row]:
        """Yields the rows that are made, each on the disk by then, with what it took."""
        before = self.meter.cost() if self.meter is not None else {}
        for row in made:
            if self.meter is not None:
                now = self.meter.cost()
                row = row | {_COST: {name: now[name] - before[name] for name in SUMMED}}
                before = now
            if self.path is not None:
                append_row(self.path, row)
            yield row


NOTHING_KEPT = Kept()
