"""The questions of probes: positions of held-out documents, and what is true there.

Labels are of the text and of the tokens of the scores, never of the model that is probed, so that
models are compared on the same questions. Documents, not positions, are split: no probe is tested
on a document that it has seen.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from openrpt.config.evaluation import ProbeConfig
from openrpt.config.sections import Config
from openrpt.data.evaluation_work import evaluation_work
from openrpt.data.scored import ScoredCorpus
from openrpt.data.token_classes import CONTEXT, token_class
from openrpt.data.tokens import encode_document
from openrpt.data.work import Work
from openrpt.errors import UserError
from openrpt.seeding import generator

TARGETS = {
    "token": "class of the token read last",
    "next": "class of the next token",
    "answer": "bytes left until the final answer",
}
_DISTANCES = {"< 16": 16, "16–63": 64, "64–255": 256, "≥ 256": float("inf")}
"""Classes of `answer`: bytes between the position and the final answer's mark."""
_VALIDATION_FRACTION = 0.25
"""The share, among documents that are not tested on, by which the regularisation is chosen."""
_LEAST_DOCUMENTS = 4


@dataclass(frozen=True, kw_only=True, eq=False)
class ProbeSample:
    """Positions [n] and what is true there; a state at a position has read all before it."""

    works: Sequence[Work]
    """Its positions in order, in the tokens of the scores."""
    documents: np.ndarray
    """[n] document ids"""
    byte_offsets: np.ndarray
    """[n] Bytes of the document that are read."""
    types: np.ndarray
    """[n] Bytes of the token read last, as text: its type, whose label the control task draws."""
    labels: Mapping[str, np.ndarray]
    """Target → [n]; '' where it has none."""
    roles: np.ndarray
    """[n] fit, validation or test: all positions of a document have the same."""
    notes: tuple[str, ...] = ()
    """Notes on what was left out, and why."""

    @property
    def key(self) -> list[Any]:
        """The key of all that a result depends on."""
        labels = {target: values.tolist() for target, values in self.labels.items()}
        offsets = self.byte_offsets.tolist()
        return [self.documents.tolist(), offsets, self.roles.tolist(), labels]

    def about(self) -> dict[str, Any]:
        """Counts for people: documents by role, positions by target and class."""
        documents = {
            role: len(np.unique(self.documents[self.roles == role]))
            for role in ("fit", "validation", "test")
        }
        classes = {
            target: dict(Counter(values[values != ""].tolist()).most_common())
            for target, values in self.labels.items()
        }
        return {"documents": documents, "classes": classes, "notes": list(self.notes)}


def probe_sample(
    corpus: ScoredCorpus, config: Config, tokenizers: Sequence[Any] = ()
) -> ProbeSample:
    """Returns the positions that all `tokenizers` have a boundary at, and their labels.

    Positions of any entropy, spread over the documents of `config.evaluate.split`. A class with
    fewer than `probe.min_examples` positions to fit is left out, a target with fewer than two
    classes too; both are noted. Raises UserError for too few documents, and where no target is
    left.
    """
    settings = config.probe
    if not corpus.ids(config.evaluate.split):
        raise UserError(
            f"{corpus.folder}: no document of the {config.evaluate.split} split was scored"
        )
    works = evaluation_work(
        corpus,
        config,
        split=config.evaluate.split,
        positions=settings.positions,
        positions_per_document=settings.positions_per_document,
        min_entropy=-1.0,
    )
    works, notes = _on_shared_boundaries(works, tokenizers)
    names = sorted({work.document.document_id for work in works})
    if len(names) < _LEAST_DOCUMENTS:
        raise UserError(
            f"{corpus.folder}: {len(names)} documents of the {config.evaluate.split} split; probes"
            f" need {_LEAST_DOCUMENTS} to be fitted and tested on different ones: score more"
        )
    role_of = document_roles(names, settings.test_fraction, config.seed)
    rows = [row for work in works for row in _rows(work, settings)]
    columns = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    sample = ProbeSample(
        works=works,
        documents=columns["document"],
        byte_offsets=columns["byte_offset"],
        types=columns["type"],
        labels={target: columns[target] for target in settings.targets},
        roles=np.array([role_of[name] for name in columns["document"].tolist()]),
        notes=tuple(notes),
    )
    return _without_rare(sample, settings)


def document_roles(names: Sequence[str], test_fraction: float, seed: int) -> dict[str, str]:
    """Returns each document's role, fit, validation or test; at least two to test on and one of
    each other."""
    order = [names[place] for place in generator(seed, "probe documents").permutation(len(names))]
    tested = min(max(round(test_fraction * len(names)), 2), len(names) - 2)
    rest = len(names) - tested
    validated = min(max(round(_VALIDATION_FRACTION * rest), 1), rest - 1)
    roles = ["test"] * tested + ["validation"] * validated
    return dict(zip(order, roles + ["fit"] * (rest - validated), strict=True))


def _distance_class(distance: int) -> str:
    """Returns the name of the range that a distance is in, in bytes.

    >>> [_distance_class(distance) for distance in (0, 15, 16, 300)]
    ['< 16', '< 16', '16–63', '≥ 256']
    """
    return next(name for name, end in _DISTANCES.items() if distance < end)


def answer_span(text: str, key: str, mark: str) -> tuple[int, int] | None:
    """Returns (where the solution begins, where its final answer's mark begins), in bytes; None
    without a mark behind the question.

    The question is the document's key, where the text begins with that; else all of the text is
    taken for the solution.

    >>> answer_span("1+1? So 2. #### 2", "1+1?", "####")
    (4, 11)
    """
    start = len(key) if text.startswith(key) and key != text else 0
    place = text.rfind(mark, start)
    if place < 0:
        return None
    return len(text[:start].encode()), len(text[:place].encode())


def _rows(work: Work, settings: ProbeConfig) -> list[dict[str, Any]]:
    document = work.document
    starts = document.byte_offsets
    text = document.text.encode()
    ends = [*starts[1:].tolist(), len(text)]
    pieces = [text[start:end] for start, end in zip(starts.tolist(), ends, strict=True)]
    span = answer_span(document.text, document.key, settings.answer_mark)

    def class_of(index: int) -> str:
        return token_class(pieces[index], b"".join(pieces[max(0, index - CONTEXT) : index]))

    rows = []
    for position in work.positions:
        index, offset = position.index, int(starts[position.index])
        inside = span is not None and span[0] <= offset <= span[1]
        rows.append(
            {
                "document": document.document_id,
                "byte_offset": offset,
                "type": pieces[index - 1].hex(),
                "token": class_of(index - 1),
                "next": class_of(index),
                "answer": _distance_class(span[1] - offset) if span and inside else "",
            }
        )
    return rows


def _on_shared_boundaries(
    works: Sequence[Work], tokenizers: Sequence[Any]
) -> tuple[list[Work], list[str]]:
    """Returns the works without positions that are inside a token of one of `tokenizers`."""
    if not tokenizers:
        return list(works), []
    kept: list[Work] = []
    for work in works:
        offsets = work.document.byte_offsets
        positions = work.positions
        for tokenizer in tokenizers:
            _, pieces = encode_document(tokenizer, work.document.text)
            starts = set(np.cumsum([0, *map(len, pieces)]).tolist())
            positions = tuple(p for p in positions if int(offsets[p.index]) in starts)
        if positions:
            kept.append(replace(work, positions=positions))
    before, after = (sum(len(work.positions) for work in found) for found in (works, kept))
    note = (
        f"different tokenizers, compared by bytes: {after:,} of {before:,} positions are between"
        " two tokens of each"
    )
    return kept, [note]


def _without_rare(sample: ProbeSample, settings: ProbeConfig) -> ProbeSample:
    fit = sample.roles == "fit"
    labels, notes = {}, []
    for target, values in sample.labels.items():
        values = values.astype(object)
        counts = Counter(values[fit & (values != "")].tolist())
        rare = [c for c in np.unique(values[values != ""]) if counts[c] < settings.min_examples]
        if rare:
            few = ", ".join(f"'{name}' ({counts[name]})" for name in rare)
            notes.append(
                f"{target}: left out, with fewer than {settings.min_examples} positions to fit:"
                f" {few}"
            )
            values[np.isin(values, rare)] = ""
        left = sorted(set(counts) - set(rare))
        if len(left) < 2 or not (values[sample.roles == "test"] != "").any():
            why = f"only the class '{left[0]}' is left" if left else "no position has a class"
            if target == "answer" and not counts and not rare:
                why = f"no document has '{settings.answer_mark}' (probe.answer_mark)"
            notes.append(f"{target}: not probed, {why}")
            continue
        labels[target] = values.astype(str)
    if not labels:
        raise UserError(
            f"nothing to probe: {'; '.join(notes)}; score more documents, raise probe.positions or"
            " lower probe.min_examples"
        )
    return replace(sample, labels=labels, notes=sample.notes + tuple(notes))
