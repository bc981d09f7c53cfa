"""The inspector's data, a block a document, and an index of them: as much as the page holds.

A report that would grow beyond its size takes fewer documents, whole, and says so. Which ones is
decided by their ids, which are hashes: evenly over the run.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

from openrpt.errors import UserError
from openrpt.report.chunks import as_text, pack
from openrpt.report.evaluated import at_places, other_places, read_evaluated_positions
from openrpt.report.groups import encode_groups
from openrpt.report.samples import Samples
from openrpt.report.stored import Stored, read_stored
from openrpt.report.texts import ScoredText, document_sizes, read_texts, vocabulary_of

_MAX_CHARACTERS = 22_500_000
"""The characters of all documents' blocks: with the charts' library and all else the page stays
below 25 MB."""
_WITHOUT_ROLLOUTS = 24
"""Most documents of a run that has only been scored."""
_LIKELY = (7.0, 60.0, 2.5)
"""Characters that a document's token, a rollout, and a rollout's token come to, about."""
_OPENING = 100
"""Bytes of a text by which it is known in the list of documents."""


@dataclass(kw_only=True, slots=True)
class Inspected:
    """The data of inspector and samples table."""

    index: dict[str, Any] = field(default_factory=dict)
    blocks: list[str] = field(default_factory=list)
    """A packed document each, in the index's order."""
    notes: list[str] = field(default_factory=list)
    """Sentences that say what was left out, and why."""
    stored: Stored | None = None
    num_groups: int = 0


def inspect(run: Path, scored: Path, labels: Sequence[str], missing: list[str]) -> Inspected:
    """Returns the data of a run. `labels`: of its evaluations. What is unreadable is added to
    `missing`."""
    stored = read_stored(run, labels, missing)
    evaluations = read_evaluated_positions(run, labels, missing)
    try:
        sizes = document_sizes(scored)
    except UserError as error:
        missing.append(str(error))
        sizes = {}
    evaluated = {name for places in evaluations.values() for name in places if name in sizes}
    sampled = set(stored.documents) if stored else set()
    wanted = alternating(sorted(evaluated), sorted(sampled - evaluated))  # by their hash
    if not wanted:
        wanted = list(sizes)[:_WITHOUT_ROLLOUTS]
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
    """Returns one of each in turn, so that a page that is full has of both.

    >>> alternating(["a", "b", "c"], ["1"])
    ['a', '1', 'b', 'c']
    """
    pairs = zip_longest(first, second)
    return [name for pair in pairs for name in pair if name is not None]


def _affordable(wanted: list[str], sizes: Mapping[str, int], stored: Stored | None) -> list[str]:
    """Returns a little more than fits, by a guess: what is too much falls off after packing."""
    a_token, a_rollout, a_rollout_token = _LIKELY
    chosen: list[str] = []
    spent = length = 0.0
    if stored:
        length = len(stored.table["loss_mask"].combine_chunks().buffers()[2] or b"")
        length /= max(stored.table.num_rows, 1)
    for name in wanted:
        start, end = stored.documents.get(name, (0, 0)) if stored else (0, 0)
        spent += a_token * sizes.get(name, 0)
        spent += (end - start) * (a_rollout + a_rollout_token * length)
        if spent > 1.5 * _MAX_CHARACTERS and chosen:
            break
        chosen.append(name)
    return chosen


def _encode(
    found: Inspected,
    chosen: Sequence[str],
    texts: Mapping[str, ScoredText],
    evaluations: Mapping[str, Mapping[str, Any]],
) -> None:
    """Adds the chosen documents, their index and their samples, as far as the page holds them."""
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
                label: at_places(columns, places.get(label)) for label, columns in own.items()
            }
        block = pack(document)
        spent += len(block)
        if spent > _MAX_CHARACTERS and documents:
            break
        samples.add(len(documents), groups, tokens)
        steps = sorted({group["step"] for group in groups if "model" not in group})
        documents.append(
            {
                "id": name,
                "source": text.source if text else "",
                "split": text.split if text else _split_of(groups),
                "tokens": len(tokens) if tokens else 0,
                "models": len({group["model"] for group in groups if "model" in group}),
                "sampled": len({group["position"] for group in groups}),
                "steps": steps,
                "opening": as_text(text.text[:_OPENING]) if text else groups[0]["prefix"],
            }
        )
        found.blocks.append(block)
    found.num_groups = len(samples.columns["step"])
    found.index = {"documents": documents, "samples": samples.columns}


def _split_of(groups: Sequence[Mapping[str, Any]]) -> str:
    """Returns the split of a document whose text is absent."""
    return "evaluated" if all("evaluated" in group for group in groups) else "train"


def _say(
    found: Inspected, wanted: Sequence[str], sampled: set[str], texts: Mapping[str, ScoredText]
) -> None:
    """Adds the notes on what the page does not hold."""
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
