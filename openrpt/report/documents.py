"""What the inspector shows, a block a document, and an index of them: as much as the page holds.

A report that would grow beyond its size takes fewer documents, whole, and says so. Which ones is
decided by their ids, which are hashes: evenly over the run.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openrpt.errors import UserError
from openrpt.parquet import read_table, unreadable
from openrpt.report.chunks import as_text, finite, pack
from openrpt.report.stored import Stored, encode_groups, read_stored
from openrpt.report.texts import ScoredText, document_sizes, read_texts, vocabulary_of

MAX_CHARACTERS = 22_500_000
"""Of all documents' blocks: with the charts' library and all else the page stays below 25 MB."""
WITHOUT_ROLLOUTS = 24
"""Most documents of a run that has only been scored."""
LIKELY = (7.0, 60.0, 2.5)
"""Characters that a document's token, a rollout, and a rollout's token come to, about."""
EVALUATED = ("position", "byte_offset", "ntp", "reasoning", "information_gain")
"""Columns of an evaluation that the inspector reads."""
OPENING = 100
"""Bytes of a text by which it is known in the list of documents."""


@dataclass(kw_only=True, slots=True)
class Inspected:
    """The data of inspector and samples table."""

    index: dict[str, Any] = field(default_factory=dict)
    blocks: list[str] = field(default_factory=list)
    """A packed document each, in the index's order."""
    notes: list[str] = field(default_factory=list)
    """What was left out, and why."""
    stored: Stored | None = None
    num_groups: int = 0


def inspect(run: Path, scored: Path, labels: Sequence[str], missing: list[str]) -> Inspected:
    """What stands in a run; `labels`: of its evaluations. What is unreadable goes to `missing`."""
    stored = read_stored(run, labels, missing)
    evaluations = _evaluations(run, labels, missing)
    try:
        sizes = document_sizes(scored)
    except UserError as error:
        missing.append(str(error))
        sizes = {}
    evaluated = {name for places in evaluations.values() for name in places if name in sizes}
    sampled = set(stored.documents) if stored else set()
    wanted = alternating(sorted(evaluated), sorted(sampled - evaluated))  # by their hash
    if not wanted:
        wanted = list(sizes)[:WITHOUT_ROLLOUTS]
    chosen = _affordable(wanted, sizes, stored)
    try:
        texts = {text.document_id: text for text in read_texts(scored, set(chosen))}
    except UserError as error:
        missing.append(str(error))
        texts = {}
    found = Inspected(stored=stored)
    _encode(found, chosen, texts, evaluations)
    _say(found, wanted, sampled, texts)
    return found


def alternating(first: Sequence[str], second: Sequence[str]) -> list[str]:
    """So that a page that is full has of both.

    >>> alternating(["a", "b", "c"], ["1"])
    ['a', '1', 'b', 'c']
    """
    pairs = zip_longest(first, second)
    return [name for pair in pairs for name in pair if name is not None]


def _affordable(wanted: list[str], sizes: Mapping[str, int], stored: Stored | None) -> list[str]:
    """A little more than fits, by a guess: what is too much falls off after packing."""
    a_token, a_rollout, a_rollout_token = LIKELY
    chosen: list[str] = []
    spent = length = 0.0
    if stored:
        length = len(stored.table["loss_mask"].combine_chunks().buffers()[2] or b"")
        length /= max(stored.table.num_rows, 1)
    for name in wanted:
        start, end = stored.documents.get(name, (0, 0)) if stored else (0, 0)
        spent += a_token * sizes.get(name, 0)
        spent += (end - start) * (a_rollout + a_rollout_token * length)
        if spent > 1.5 * MAX_CHARACTERS and chosen:
            break
        chosen.append(name)
    return chosen


def _encode(
    found: Inspected,
    chosen: Sequence[str],
    texts: Mapping[str, ScoredText],
    evaluations: Mapping[str, Mapping[str, Any]],
) -> None:
    vocabulary = vocabulary_of(list(texts.values()))
    documents: list[dict[str, Any]] = []
    samples = Samples()
    spent = 0
    for name in chosen:
        stored = found.stored.groups(name) if found.stored else []
        text = texts.get(name)
        if text is None and not stored:
            continue
        tokens = text.tokens if text else None
        own = {label: found[name] for label, found in evaluations.items() if name in found}
        places = {
            label: moved
            for label, columns in own.items()
            if text and (moved := other_places(columns, text.offsets)) is not None
        }
        groups = encode_groups(stored, tokens, places)
        document: dict[str, Any] = {"id": name, "groups": groups}
        if text:
            document |= text.encode(vocabulary)
            document["evaluations"] = {
                label: _at_places(columns, places.get(label)) for label, columns in own.items()
            }
        block = pack(document)
        spent += len(block)
        if spent > MAX_CHARACTERS and documents:
            break
        samples.add(len(documents), groups, tokens)
        steps = sorted({group["step"] for group in groups if "model" not in group})
        documents.append(
            {
                "id": name,
                "source": text.source if text else "",
                "split": text.split if text else _split_of(groups),
                "tokens": len(tokens) if tokens else 0,
                "sampled": len({group["position"] for group in groups}),
                "steps": steps,
                "opening": as_text(text.text[:OPENING]) if text else groups[0]["prefix"],
            }
        )
        found.blocks.append(block)
    found.num_groups = len(samples.columns["step"])
    found.index = {"documents": documents, "samples": samples.columns}


@dataclass(kw_only=True, slots=True)
class Samples:
    """The samples table: a row a group, column by column."""

    columns: dict[str, list[Any]] = field(
        default_factory=lambda: {
            name: []
            for name in (
                *("document", "position", "step", "model", "evaluated", "entropy"),
                *("truth", "ntp", "ntp_right"),
                *("prediction", "prediction_right", "rollouts", "right", "reward"),
            )
        }
    )

    def add(
        self, document: int, groups: Sequence[dict[str, Any]], tokens: Sequence[bytes] | None
    ) -> None:
        for group in groups:
            rewards = [reward or 0.0 for reward in group["reward"]]
            here = group["position"]
            commonest = Counter(group["prediction"]).most_common(1)[0][0]
            row = {
                "document": document,
                "position": here,
                "step": group["step"],
                "model": group.get("model", ""),
                "evaluated": group.get("evaluated", 0),
                "entropy": group["entropy"],
                "truth": as_text(tokens[here]) if tokens else group["continuation"][0],
                "ntp": group["ntp"],
                "ntp_right": group["ntp_right"],
                "prediction": commonest,
                "prediction_right": int(group["matched"][group["prediction"].index(commonest)] > 0),
                "rollouts": len(rewards),
                "right": sum(length > 0 for length in group["matched"]),
                "reward": finite([sum(rewards) / len(rewards)], 3)[0],
            }
            for name, value in row.items():
                self.columns[name].append(value)


def _evaluations(run: Path, labels: Sequence[str], missing: list[str]) -> dict[str, dict[str, Any]]:
    """label → document → {position, ntp, reasoning, …}, those of EVALUATED that were measured:
    whole numbers as such."""
    found: dict[str, dict[str, Any]] = {}
    for label in labels:
        path = run / "evaluation" / f"{label}.parquet"
        if not path.is_file():
            continue
        try:
            table = read_table(path)
            names = [name for name in EVALUATED if name in table.column_names]
            columns = {name: table[name].to_numpy() for name in names}
            documents = table["document_id"].to_numpy().astype(str)
        except unreadable() as error:
            missing.append(f"{path}: not readable ({str(error).splitlines()[0]})")
            continue
        found[label] = {
            str(name): {
                column: _numbers(values[documents == name]) for column, values in columns.items()
            }
            for name in np.unique(documents)
        }
    return found


def _split_of(groups: Sequence[Mapping[str, Any]]) -> str:
    """Of a document whose text is absent."""
    return "evaluated" if all("evaluated" in group for group in groups) else "train"


def _numbers(values: NDArray[Any]) -> list[Any]:
    if np.issubdtype(values.dtype, np.integer):
        return list(values.tolist())
    return finite(values.tolist())


def other_places(columns: Mapping[str, Any], offsets: NDArray[np.int64]) -> dict[int, int] | None:
    """Of a model with another tokenizer: its positions → those of the document's tokens that begin
    at the same byte. None where they are the same. `offsets` [T + 1]: of the document's tokens."""
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


def _at_places(columns: Mapping[str, Any], places: Mapping[int, int] | None) -> dict[str, Any]:
    """An evaluation's columns at the document's own positions."""
    kept = {name: values for name, values in columns.items() if name != "byte_offset"}
    if places is None:
        return kept
    rows = [i for i, position in enumerate(kept["position"]) if position in places]
    moved = {name: [values[i] for i in rows] for name, values in kept.items()}
    return moved | {"position": [places[position] for position in moved["position"]]}


def _say(
    found: Inspected, wanted: Sequence[str], sampled: set[str], texts: Mapping[str, ScoredText]
) -> None:
    shown = {document["id"] for document in found.index["documents"]}
    if len(shown) < len(wanted):
        found.notes.append(
            f"{len(shown):,} of {len(wanted):,} documents are here, chosen by their ids: more"
            " would make the file larger than 25 MB. The others stay in the run folder."
        )
    stored = found.stored
    if stored and len(stored.steps) < stored.num_steps:
        found.notes.append(
            f"{len(stored.steps):,} of {stored.num_steps:,} stored steps are here, evenly"
            " spaced. openrpt rollouts shows the others."
        )
    if stored and not stored.has_tokens:
        found.notes.append(
            "Rollouts were stored by an earlier version, without their tokens: what single tokens"
            " of those thoughts are worth can't be shown."
        )
    if not all(name in texts for name in sampled & shown):
        found.notes.append(
            "The scored texts of some documents are not in the run folder: of those only the"
            " ends of the stored prefixes are shown."
        )
