"""Every stored rollout of a run as one table, and its groups as the page shows them: of training,
of the evaluations on the development split, and of the models that were evaluated."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby, pairwise
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from openrpt.report.chunks import as_text, finite
from openrpt.report.texts import HUNDREDTHS
from openrpt.rewards import matched_tokens
from openrpt.rollouts import evaluated_path, rollout_folder

MAX_ROLLOUTS = 200_000
"""More are thinned by step: the page could not hold them, and reading them takes long."""
ESSENTIAL = (
    *("step", "document_id", "position", "rollout", "entropy", "prefix_end", "continuation"),
    *("ntp_prediction", "candidates", "thought", "prediction", "reward", "advantage"),
    *("finish_reason", "sampler_logprobs", "loss_mask"),
)
OPTIONAL = ("candidate_logprobs", "ntp_top", "ntp_top_logprobs", "tokens", "exact", "reward_terms")
"""Columns that files of other versions lack."""
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

    def rows(self, document_id: str) -> list[dict[str, Any]]:
        start, end = self.documents.get(document_id, (0, 0))
        return self.table.slice(start, end - start).to_pylist()


@dataclass(frozen=True, slots=True)
class Source:
    """A file of rollouts: of training, of an evaluation, of a `model` by its label."""

    path: Path
    model: str = ""
    evaluated: bool = False


def read_stored(run: Path, labels: Sequence[str], missing: list[str]) -> Stored | None:
    """None where there is nothing. `labels`: of the evaluated models. What can't be read is added
    to `missing`."""
    paths = sorted(rollout_folder(run).glob("step-*.parquet"))
    development = sorted(rollout_folder(run, development=True).glob("step-*.parquet"))
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
    order = ("document_id", "position", "model", "step", "rollout")
    keys = [(name, "ascending") for name in order]
    table = table.take(pc.sort_indices(table, sort_keys=keys))
    ids = table["document_id"].combine_chunks().dictionary_encode()
    codes = ids.indices.to_numpy()
    starts = np.flatnonzero(np.append(True, codes[1:] != codes[:-1])).tolist()
    ends = [*starts[1:], len(codes)]
    names = [ids.dictionary[int(codes[start])].as_py() for start in starts]
    return Stored(
        table=_compact(table),
        documents=dict(zip(names, zip(starts, ends, strict=True), strict=True)),
        steps=sorted(set(table.filter(pc.invert(table["evaluated"]))["step"].to_pylist())),
        num_steps=len(paths),
    )


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
    except (pa.ArrowException, OSError, KeyError) as error:
        return f"{source.path}: not readable ({str(error).splitlines()[0]})"


def _read_rollouts(source: Source) -> pa.Table:
    """Raises KeyError for a file of another layout."""
    with pq.ParquetFile(source.path) as file:
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
    rows: Sequence[dict[str, Any]],
    tokens: Sequence[bytes] | None,
    places: Mapping[str, Mapping[int, int]],
) -> list[dict[str, Any]]:
    """Groups of one document, by position, model and step. `tokens`: the document's; None = its
    text is absent, so that each group brings the end of its prefix and its continuation.
    `places`: of a model with a tokenizer of its own, its positions → the document's; those that
    are no place there are left out."""
    groups = []
    keys = ("position", "model", "step")
    for (position, model, _), found in groupby(rows, key=itemgetter(*keys)):
        own = list(found)
        if tokens is None:
            groups.append(_group(own, position, None))
        elif model not in places:
            groups.append(_group(own, position, tokens[position:]))
        elif position in places[model]:
            place = places[model][position]
            groups.append(_group(own, place, own[0]["continuation"]))
    return groups


def _group(
    rows: list[dict[str, Any]], position: int, continuation: Sequence[bytes] | None
) -> dict[str, Any]:
    """`continuation`: what predictions are compared with, where the document is there."""
    first = rows[0]
    group: dict[str, Any] = {
        "step": first["step"],
        "position": position,
        "entropy": finite([first["entropy"]])[0],
        "ntp": as_text(first["ntp_prediction"]),
        "candidates": [as_text(token) for token in first["candidates"]],
        "rollout": [row["rollout"] for row in rows],
        "thought": [as_text(row["thought"]) for row in rows],
        "prediction": [
            None if row["prediction"] is None else as_text(row["prediction"]) for row in rows
        ],
        "reward": finite([row["reward"] for row in rows]),
        "advantage": finite([row["advantage"] for row in rows], 3),
        "finish": [row["finish_reason"] for row in rows],
    }
    if first["evaluated"]:
        group["evaluated"] = 1
    if first["model"]:
        group["model"] = first["model"]
    if first.get("ntp_top"):
        group["top"] = [as_text(token) for token in first["ntp_top"]]
        group["top_logprobs"] = finite(first["ntp_top_logprobs"], 4)
    if first.get("candidate_logprobs"):
        group["candidate_logprobs"] = finite(first["candidate_logprobs"], 4)
    if continuation is None:
        continuation = first["continuation"]
        group["prefix"] = as_text(first["prefix_end"])
        group["continuation"] = [as_text(token) for token in continuation]
    group["ntp_right"] = int(matched_tokens(first["ntp_prediction"], continuation) > 0)
    group["matched"] = [matched_tokens(row["prediction"], continuation) for row in rows]
    if first.get("completion") is not None:
        group["completion"] = [as_text(row["completion"]) for row in rows]
        group["lengths"] = [row["tokens"] for row in rows]
        group["surprise"] = [row["sampler_logprobs"] for row in rows]
        group["trained"] = [row["loss_mask"] for row in rows]
    terms = [
        {term["name"]: term["value"] for term in row.get("reward_terms") or ()} for row in rows
    ]
    group["terms"] = {
        name: finite([own.get(name, float("nan")) for own in terms], 4)
        for name in dict.fromkeys(name for own in terms for name in own)
    }
    return group
