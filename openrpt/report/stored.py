"""Every stored rollout of a run as one table: those of training, of the evaluations on the
development split, and of the models that were evaluated."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from openrpt.files import numbered
from openrpt.parquet import checked_bytes, not_readable, reading_errors
from openrpt.report.texts import HUNDREDTHS
from openrpt.runs.rollouts import evaluated_path, rollout_folder

_MAX_ROLLOUTS = 200_000
"""The most rollouts that are read; more are thinned by step: the page could not hold them, and
reading them takes long."""
_ESSENTIAL = (
    "step",
    "document_id",
    "position",
    "rollout",
    "entropy",
    "prefix_end",
    "continuation",
    "ntp_prediction",
    "candidates",
    "thought",
    "prediction",
    "reward",
    "advantage",
    "finish_reason",
    "sampler_logprobs",
    "loss_mask",
)
_OPTIONAL = ("candidate_logprobs", "ntp_top", "ntp_top_logprobs", "tokens", "exact", "reward_terms")
"""Columns that files of other versions lack."""
_OWN = (
    "rollout",
    "thought",
    "prediction",
    "reward",
    "advantage",
    "finish_reason",
    "reward_terms",
    "sampler_logprobs",
    "loss_mask",
    "tokens",
    "completion",
)
"""Columns that differ within a group; the others are the group's."""
_GROUP = ("document_id", "position", "model", "step")
_READERS = 4
"""Files that are read at a time: a file is small, and there may be thousands."""
_NO_STEP = -1
"""The step of a rollout that a model evaluated by itself has made."""
_GREATEST = 9999
"""The greatest −log-probability that is kept, in hundredths of a nat."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Stored:
    """Rollouts sorted by document, position, model, step and their number."""

    table: pa.Table
    """The rollouts: SCHEMA's columns made compact; `model`: the label of the model that was
    evaluated, "" at a step; `evaluated`: not of training."""
    documents: dict[str, tuple[int, int]]
    """The rows [start, end) of each document."""
    group_starts: NDArray[np.int64]
    """The first row of each group, and the number of rows."""
    steps: list[int]
    """The training steps that were read."""
    num_steps: int
    """Training steps that are stored."""

    @property
    def has_tokens(self) -> bool:
        """Whether every completion is there token by token."""
        known = "completion" in self.table.column_names
        return known and self.table["completion"].null_count == 0

    @property
    def trained(self) -> pa.Table:
        """The rollouts of training alone."""
        return self.table.filter(pc.invert(self.table["evaluated"]))

    def groups(self, document_id: str) -> list[dict[str, Any]]:
        """Returns a document's groups by position, model and step: _OWN's columns as lists, the
        others as values."""
        start, end = self.documents.get(document_id, (0, 0))
        first, last = np.searchsorted(self.group_starts, (start, end))
        bounds = self.group_starts[first : last + 1] - start
        rows = self.table.slice(start, end - start)
        names = [name for name in rows.column_names if name not in _OWN]
        shared = rows.select(names).take(bounds[:-1]).to_pylist()
        own = {name: rows[name].to_pylist() for name in _OWN if name in rows.column_names}
        return [
            values | {name: column[a:b] for name, column in own.items()}
            for values, (a, b) in zip(shared, pairwise(bounds.tolist()), strict=True)
        ]


@dataclass(frozen=True, slots=True)
class _Source:
    """A file of rollouts: of training, of an evaluation, of a `model` by its label."""

    path: Path
    model: str = ""
    evaluated: bool = False


def read_stored(run: Path, labels: Sequence[str], missing: list[str]) -> Stored | None:
    """Reads all that is stored in a run; None where there is nothing. `labels`: of the evaluated
    models. What can't be read is added to `missing`."""
    paths = list(numbered(rollout_folder(run), ".parquet").values())
    development = list(numbered(rollout_folder(run, development=True), ".parquet").values())
    sources = [_Source(path) for path in _thinned(paths)]
    sources += [_Source(path, evaluated=True) for path in _thinned(development)]
    own = [_Source(evaluated_path(run, label), label, evaluated=True) for label in labels]
    sources += [source for source in own if source.path.is_file()]
    with ThreadPoolExecutor(_READERS) as readers:
        found = list(readers.map(_read, sources))
    tables = [table for table in found if isinstance(table, pa.Table)]
    errors = [said for said in found if isinstance(said, str)]
    missing += errors[:3]
    if len(errors) > 3:
        missing.append(f"{len(errors) - 3} more files of rollouts are not readable")
    if not tables:
        return None
    table = pa.concat_tables(tables, promote_options="default").combine_chunks()
    keys = [(name, "ascending") for name in (*_GROUP, "rollout")]
    table = table.take(pc.sort_indices(table, sort_keys=keys))
    starts = _changes(table, _GROUP[:1])
    names = table["document_id"].take(starts[:-1]).to_pylist()
    return Stored(
        table=_compact(table),
        documents=dict(zip(names, pairwise(starts.tolist()), strict=True)),
        group_starts=_changes(table, _GROUP),
        steps=sorted(set(table.filter(pc.invert(table["evaluated"]))["step"].to_pylist())),
        num_steps=len(paths),
    )


def _changes(table: pa.Table, names: Sequence[str]) -> NDArray[np.int64]:
    """Returns the rows of a sorted table at which one of these columns has another value than
    before: the first among them, and the number of rows."""
    changed = np.zeros(table.num_rows + 1, dtype=bool)
    changed[[0, -1]] = True
    for name in names:
        codes = table[name].combine_chunks().dictionary_encode().indices.to_numpy()
        changed[1:-1] |= codes[1:] != codes[:-1]
    return np.flatnonzero(changed)


def _thinned(paths: Sequence[Path]) -> list[Path]:
    """Returns all, or evenly many: the last always among them."""
    if not paths:
        return []
    try:
        a_step = pq.read_metadata(paths[0]).num_rows
    except (pa.ArrowException, OSError):
        a_step = 0  # said of it when it is read
    stride = max(1, -(-a_step * len(paths) // _MAX_ROLLOUTS))
    return list(paths[::-1][::stride])[::-1]


def _read(source: _Source) -> pa.Table | str:
    """Reads the rollouts of a file, or what is said in its place where it is not readable."""
    try:
        return _read_rollouts(source)
    except reading_errors() as error:
        return not_readable(source.path, error)


def _read_rollouts(source: _Source) -> pa.Table:
    """Reads a rollout file. Raises KeyError for a file of another layout."""
    with pq.ParquetFile(pa.BufferReader(checked_bytes(source.path))) as file:
        names = file.schema_arrow.names
        for name in _ESSENTIAL:
            if name not in names:
                raise KeyError(f"no column '{name}': written by another version of OpenRPT")
        columns = [*_ESSENTIAL, *(name for name in _OPTIONAL if name in names)]
        table = file.read(columns=columns, use_threads=False).select(columns)
    rows = table.num_rows
    table = _with(table, "step", pc.fill_null(table["step"], _NO_STEP))
    table = table.append_column("model", pa.array([source.model] * rows, pa.string()))
    return table.append_column("evaluated", pa.array([source.evaluated] * rows, pa.bool_()))


def _compact(table: pa.Table) -> pa.Table:
    """Returns columns in short form: log-probabilities as whole hundredths, masks as '0110',
    tokens as text and lengths: column by column, because row by row would take long."""
    logprobs = table["sampler_logprobs"].combine_chunks()
    values = logprobs.flatten().to_numpy(zero_copy_only=False)
    whole = np.clip(np.rint(-HUNDREDTHS * np.nan_to_num(values)), 0, _GREATEST).astype(np.int16)
    table = _with(table, "sampler_logprobs", _list_of(logprobs, pa.array(whole)))
    mask = table["loss_mask"].combine_chunks()
    signs = (mask.flatten().to_numpy(zero_copy_only=False).astype(np.uint8) + ord("0")).tobytes()
    spans = _spans(mask)
    table = _with(table, "loss_mask", pa.array([signs[a:b].decode() for a, b in spans]))
    if "tokens" in table.column_names:
        tokens = table["tokens"].combine_chunks()
        lengths = pc.fill_null(pc.binary_length(tokens.flatten()), 0)
        ends = np.append(0, np.cumsum(lengths.to_numpy()))
        data = b"".join(tokens.flatten().to_pylist())
        texts = [
            data[ends[a] : ends[b]] if known else None  # None: of a file of an earlier version
            for (a, b), known in zip(_spans(tokens), tokens.is_valid().to_pylist(), strict=True)
        ]
        table = _with(table, "tokens", _list_of(tokens, lengths))
        table = table.append_column("completion", pa.array(texts, pa.binary()))
    return table


def _with(table: pa.Table, name: str, column: pa.Array | pa.ChunkedArray) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, column)


def _list_of(like: pa.ListArray, values: pa.Array) -> pa.ListArray:
    """Returns lists as long as another column's; where that has none, an empty one."""
    return pa.ListArray.from_arrays(pa.array(_ends(like), pa.int32()), values)


def _spans(lists: pa.ListArray) -> Iterator[tuple[int, int]]:
    ends = _ends(lists).tolist()
    return pairwise(ends)


def _ends(lists: pa.ListArray) -> np.ndarray:
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy()
    return np.append(0, np.cumsum(lengths))
