"""The rows that a model has made so far, with which a stopped measurement goes on."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from openrpt.errors import UserError
from openrpt.json_lines import Row, append_row, whole_rows, write_rows

_Item = TypeVar("_Item")


@dataclass(frozen=True, kw_only=True)
class Kept:
    """A file of JSON lines with a row an item: a stopped measurement goes on behind its last
    row."""

    path: Path | None = None
    """The file; None where nothing is kept."""

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
        made = make([item for name, item in items.items() if name not in known])
        for name in items:
            if name in known:
                yield known[name]
                continue
            row = next(made)
            if self.path is not None:
                append_row(self.path, row)
            yield row


NOTHING_KEPT = Kept()
