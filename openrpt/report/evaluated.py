"""The positions at which models were evaluated, as the inspector marks them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openrpt.parquet import not_readable, read_table, reading_errors
from openrpt.report.chunks import finite

_COLUMNS = ("position", "byte_offset", "ntp", "reasoning", "information_gain")
"""Columns of an evaluation that the inspector reads."""


def read_evaluated_positions(
    run: Path, labels: Sequence[str], missing: list[str]
) -> dict[str, dict[str, Any]]:
    """Reads label → document → {position, ntp, reasoning, …}, those of _COLUMNS that were measured:
    whole numbers as such."""
    found: dict[str, dict[str, Any]] = {}
    for label in labels:
        path = run / "evaluation" / f"{label}.parquet"
        if not path.is_file():
            continue
        try:
            table = read_table(path)
            names = [name for name in _COLUMNS if name in table.column_names]
            columns = {name: table[name].to_numpy() for name in names}
            documents = table["document_id"].to_numpy().astype(str)
        except reading_errors() as error:
            missing.append(not_readable(path, error))
            continue
        found[label] = {
            str(name): {
                column: _numbers(values[documents == name]) for column, values in columns.items()
            }
            for name in np.unique(documents)
        }
    return found


def _numbers(values: NDArray[Any]) -> list[Any]:
    if np.issubdtype(values.dtype, np.integer):
        return list(values.tolist())
    return finite(values.tolist())


def other_places(columns: Mapping[str, Any], offsets: NDArray[np.int64]) -> dict[int, int] | None:
    """Maps the positions of a model with another tokenizer to those of the document's tokens that
    begin at the same byte. None where they are the same. `offsets` [T + 1]: of the document's
    tokens."""
    if "byte_offset" not in columns:
        return None
    positions, starts = columns["position"], columns["byte_offset"]
    if all(
        p < len(offsets) and offsets[p] == start for p, start in zip(positions, starts, strict=True)
    ):
        return None
    found = np.searchsorted(offsets[:-1], starts).tolist()
    return {
        position: place
        for position, place, start in zip(positions, found, starts, strict=True)
        if place < len(offsets) - 1 and offsets[place] == start
    }


def at_places(columns: Mapping[str, Any], places: Mapping[int, int] | None) -> dict[str, Any]:
    """Returns an evaluation's columns at the document's own positions."""
    kept = {name: values for name, values in columns.items() if name != "byte_offset"}
    if places is None:
        return kept
    rows = [i for i, position in enumerate(kept["position"]) if position in places]
    moved = {name: [values[i] for i in rows] for name, values in kept.items()}
    return moved | {"position": [places[position] for position in moved["position"]]}
