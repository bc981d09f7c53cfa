"""Every stored rollout of a run as one table, and its groups as the page shows them: of training,
of the evaluations on the development split, and of the models that were evaluated."""

from collections.abc import Iterator, Mapping, Sequence
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
from openrpt.parquet import checked_bytes, unreadable
from openrpt.report.chunks import as_text, finite
from openrpt.report.texts import HUNDREDTHS
from openrpt.rl.rewards.matching import matched_tokens
from openrpt.runs.rollouts import evaluated_path, rollout_folder

MAX_ROLLOUTS = 200_000
"""More are thinned by step: the page could not hold them, and reading them takes long."""
ESSENTIAL = (
    *("step", "document_id", "position", "rollout", "entropy", "prefix_end", "continuation"),
    *("ntp_prediction", "candidates", "thought", "prediction", "reward", "advantage"),
    *("finish_reason", "sampler_logprobs", "loss_mask"),
)
OPTIONAL = ("candidate_logprobs", "ntp_top", "ntp_top_logprobs", "tokens", "exact", "reward_terms")
"""Columns that files of other versions lack."""
OWN = (
    *("rollout", "thought", "prediction", "reward", "advantage", "finish_reason", "reward_terms"),
    *("sampler_logprobs", "loss_mask", "tokens", "completion"),
)
"""Columns that differ within a group; it shares the others."""
GROUP = ("document_id", "position", "model", "step")
READERS = 4
"""Files that are read at a time: a file is small, and there may be thousands."""
NO_STEP = -1
"""In place of the step, of a model that was evaluated."""
GREATEST = 9999
"""Of a −log-probability, in hundredths of a nat."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Stored:
    """Rollouts sorted by document, position, model, step and their number."""

    table: pa.Table
    """SCHEMA's columns made compact; `model`: the label of the model that was evaluated, "" at a
    step; `evaluated`: not of training."""
    documents: dict[str, tuple[int, int]]
    """Of each document its rows [start, end)."""
    group_starts: NDArray[np.int64]
    """The first row of each group, and the number of rows."""
    steps: list[int]
    """Those of training that were read."""
    num_steps: int
    """Those of training that are stored."""

    @property
    def has_tokens(self) -> bool:
        """Every completion is there token by token."""
        known = "completion" in self.table.column_names
        return known and self.table["completion"].null_count == 0

    @property
    def trained(self) -> pa.Table:
        """The rollouts of training alone."""
        return self.table.filter(pc.invert(self.table["evaluated"]))

    def groups(self, document_id: str) -> list[dict[str, Any]]:
        """A document's groups by position, model and step: OWN's columns as lists, the others as
        values."""
        start, end = self.documents.get(document_id, (0, 0))
        first, last = np.searchsorted(self.group_starts, (start, end))
        bounds = self.group_starts[first : last + 1] - start
        rows = self.table.slice(start, end - start)
        names = [name for name in rows.column_names if name not in OWN]
        shared = rows.select(names).take(bounds[:-1]).to_pylist()
        own = {name: rows[name].to_pylist() for name in OWN if name in rows.column_names}
        return [
            values | {name: column[a:b] for name, column in own.items()}
            for values, (a, b) in zip(shared, pairwise(bounds.tolist()), strict=True)
        ]


@dataclass(frozen=True, slots=True)
class Source:
    """A file of rollouts: of training, of an evaluation, of a `model` by its label."""

    path: Path
    model: str = ""
    evaluated: bool = False


def read_stored(run: Path, labels: Sequence[str], missing: list[str]) -> Stored | None:
    """None where there is nothing. `labels`: of the evaluated models. What can't be read is added
    to `missing`."""
    paths = list(numbered(rollout_folder(run), ".parquet").values())
    development = list(numbered(rollout_folder(run, development=True), ".parquet").values())
    sources = [Source(path) for path in _thinned(paths)]
    sources += [Source(path, evaluated=True) for path in _thinned(development)]
    own = [Source(evaluated_path(run, label), label, evaluated=True) for label in labels]
    sources += [source for source in own if source.path.is_file()]
    with ThreadPoolExecutor(READERS) as readers:
        found = list(readers.map(_read, sources))
    tables = [table for table in found if isinstance(table, pa.Table)]
    unreadable = [said for said in found if isinstance(said, str)]
    missing += unreadable[:3]
    if len(unreadable) > 3:
        missing.append(f"{len(unreadable) - 3} more files of rollouts are not readable")
    if not tables:
        return None
    table = pa.concat_tables(tables, promote_options="default").combine_chunks()
    keys = [(name, "ascending") for name in (*GROUP, "rollout")]
    table = table.take(pc.sort_indices(table, sort_keys=keys))
    starts = _changes(table, GROUP[:1])
    names = table["document_id"].take(starts[:-1]).to_pylist()
    return Stored(
        table=_compact(table),
        documents=dict(zip(names, pairwise(starts.tolist()), strict=True)),
        group_starts=_changes(table, GROUP),
        steps=sorted(set(table.filter(pc.invert(table["evaluated"]))["step"].to_pylist())),
        num_steps=len(paths),
    )


def _changes(table: pa.Table, names: Sequence[str]) -> NDArray[np.int64]:
    """The rows of a sorted table at which one of these columns has another value than before: the
    first among them, and the number of rows."""
    changed = np.zeros(table.num_rows + 1, dtype=bool)
    changed[[0, -1]] = True
    for name in names:
        codes = table[name].combine_chunks().dictionary_encode().indices.to_numpy()
        changed[1:-1] |= codes[1:] != codes[:-1]
    return np.flatnonzero(changed)


def _thinned(paths: Sequence[Path]) -> list[Path]:
    """All, or evenly many: the last always among them."""
    if not paths:
        return []
    try:
        a_step = pq.read_metadata(paths[0]).num_rows
    except (pa.ArrowException, OSError):
        a_step = 0  # said of it when it is read
    stride = max(1, -(-a_step * len(paths) // MAX_ROLLOUTS))
    return list(paths[::-1][::stride])[::-1]


def _read(source: Source) -> pa.Table | str:
    """What is to be said in place of a file that is not readable."""
    try:
        return _read_rollouts(source)
    except unreadable() as error:
        return f"{source.path}: not readable ({str(error).splitlines()[0]})"


def _read_rollouts(source: Source) -> pa.Table:
    """Raises KeyError for a file of another layout."""
    with pq.ParquetFile(pa.BufferReader(checked_bytes(source.path))) as file:
        names = file.schema_arrow.names
        for name in ESSENTIAL:
            if name not in names:
                raise KeyError(f"no column '{name}': written by another version of OpenRPT")
        columns = [*ESSENTIAL, *(name for name in OPTIONAL if name in names)]
        table = file.read(columns=columns, use_threads=False).select(columns)
    rows = table.num_rows
    table = _with(table, "step", pc.fill_null(table["step"], NO_STEP))
    table = table.append_column("model", pa.array([source.model] * rows, pa.string()))
    return table.append_column("evaluated", pa.array([source.evaluated] * rows, pa.bool_()))


def _compact(table: pa.Table) -> pa.Table:
    """Log-probabilities as whole hundredths, masks as '0110', tokens as text and lengths: column
    by column, because row by row would take long."""
    logprobs = table["sampler_logprobs"].combine_chunks()
    values = logprobs.flatten().to_numpy(zero_copy_only=False)
    whole = np.clip(np.rint(-HUNDREDTHS * np.nan_to_num(values)), 0, GREATEST).astype(np.int16)
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
    """Lists as long as another column's; where that has none, an empty one."""
    return pa.ListArray.from_arrays(pa.array(_ends(like), pa.int32()), values)


def _spans(lists: pa.ListArray) -> Iterator[tuple[int, int]]:
    ends = _ends(lists).tolist()
    return pairwise(ends)


def _ends(lists: pa.ListArray) -> np.ndarray:
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy()
    return np.append(0, np.cumsum(lengths))


def encode_groups(
    groups: Sequence[dict[str, Any]],
    tokens: Sequence[bytes] | None,
    places: Mapping[str, Mapping[int, int]],
) -> list[dict[str, Any]]:
    """Groups of one document as the page has them. `tokens`: the document's; None = its text is
    absent, so that each group brings the end of its prefix and its continuation. `places`: of a
    model with a tokenizer of its own, its positions → the document's; those that are no place
    there are left out."""
    found = []
    for group in groups:
        position, model = group["position"], group["model"]
        if tokens is None:
            found.append(_group(group, position, None))
        elif model not in places:
            found.append(_group(group, position, tokens[position:]))
        elif position in places[model]:
            found.append(_group(group, places[model][position], group["continuation"]))
    return found


def _group(
    group: Mapping[str, Any], position: int, continuation: Sequence[bytes] | None
) -> dict[str, Any]:
    """`continuation`: what predictions are compared with, where the document is there."""
    shown: dict[str, Any] = {
        "step": group["step"],
        "position": position,
        "entropy": finite([group["entropy"]])[0],
        "ntp": as_text(group["ntp_prediction"]),
        "candidates": [as_text(token) for token in group["candidates"]],
        "rollout": group["rollout"],
        "thought": [as_text(thought) for thought in group["thought"]],
        "prediction": [None if said is None else as_text(said) for said in group["prediction"]],
        "reward": finite(group["reward"]),
        "advantage": finite(group["advantage"], 3),
        "finish": group["finish_reason"],
    }
    if group["evaluated"]:
        shown["evaluated"] = 1
    if group["model"]:
        shown["model"] = group["model"]
    if group.get("ntp_top"):
        shown["top"] = [as_text(token) for token in group["ntp_top"]]
        shown["top_logprobs"] = finite(group["ntp_top_logprobs"], 4)
    if group.get("candidate_logprobs"):
        shown["candidate_logprobs"] = finite(group["candidate_logprobs"], 4)
    if continuation is None:
        continuation = group["continuation"]
        shown["prefix"] = as_text(group["prefix_end"])
        shown["continuation"] = [as_text(token) for token in continuation]
    shown["ntp_right"] = int(matched_tokens(group["ntp_prediction"], continuation) > 0)
    shown["matched"] = [matched_tokens(said, continuation) for said in group["prediction"]]
    if None not in group.get("completion", [None]):
        shown["completion"] = [as_text(completion) for completion in group["completion"]]
        shown["lengths"] = group["tokens"]
        shown["surprise"] = group["sampler_logprobs"]
        shown["trained"] = group["loss_mask"]
    terms = [
        {term["name"]: term["value"] for term in own or ()} for own in group.get("reward_terms", ())
    ]
    shown["terms"] = {
        name: finite([own.get(name, float("nan")) for own in terms], 4)
        for name in dict.fromkeys(name for own in terms for name in own)
    }
    return shown
