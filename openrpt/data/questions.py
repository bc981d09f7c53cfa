"""Questions with verifiable answers: from JSON lines, parquet, `datasets` or reasoning-gym."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from hashlib import sha256
from itertools import islice
from typing import Any

from openrpt.config.corpus import CorpusConfig
from openrpt.config.questions import QuestionsConfig
from openrpt.data.duplicates import open_index
from openrpt.data.field_values import WrittenFloat, text_of, type_of
from openrpt.data.gym_tasks import IS_GENERATED, gym_datasets, require_verdicts
from openrpt.data.readers import read_fields
from openrpt.data.splits import split_of_key
from openrpt.errors import UserError
from openrpt.types import Split

_PLAIN_DIGITS = 400
"""Most digits of a number that is written plainly; one that needs more (1e1000) keeps its
exponent."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """A question and its true answer.

    >>> Question(question_id="9f86d081884c7d65", text="1 + 1 = ?", answer="2", split="heldout",
    ...          source="sums.jsonl:1").task
    ''
    """

    question_id: str
    """First 16 hex digits of the SHA-256 of the text."""
    text: str
    answer: str
    split: Split
    """The side of the split, by the hash of the text."""
    source: str
    """The question's origin, as `file:line`."""
    task: str = ""
    """The reasoning-gym task, with its level where it has one (`chain_sum@2`); empty for all
    others."""
    entry: Mapping[str, Any] = field(default_factory=dict)
    """The record of reasoning-gym, which its scorer reads."""


@dataclass(kw_only=True, slots=True)
class QuestionCounts:
    """The counts of what `read_questions` left out or moved."""

    duplicates: int = 0
    """The same question again: left out."""
    moved: int = 0
    """Stand on another side than their hash said, because of an earlier near-duplicate."""
    dropped: int = 0
    """Overlap with questions of two sides."""


def read_questions(
    config: QuestionsConfig, counts: QuestionCounts, *, seed: int = 0
) -> list[Question]:
    """Returns all questions, in order, each on its side of the split, none twice.

    `seed` is that of generated questions. Near-duplicates stand on one side, as in a corpus, but
    for generated questions, which share their template's words. Raises UserError (with file and
    line) for what can't be read, a missing field, a blank question or answer, and where a side that
    is needed is empty.
    """
    generated = config.path.startswith(IS_GENERATED)
    found = _generate(config, seed) if generated else _read(config)
    questions: list[Question] = []
    with open_index(None) as index:
        for question in islice(found, config.limit or None):
            if not index.add_id(question.question_id):
                counts.duplicates += 1
                continue
            placed = question
            if config.near_duplicates and not generated:
                split = index.place(question.text, question.text, question.split).side
                if split is None:
                    counts.dropped += 1
                    continue
                counts.moved += split != question.split
                placed = replace(question, split=split)
            questions.append(placed)
    if not questions:
        raise UserError(f"{config.path}: no questions")
    _require_both_sides(questions, config, counts)
    return questions


def _require_both_sides(
    questions: list[Question], config: QuestionsConfig, counts: QuestionCounts
) -> None:
    for split in ("train", "heldout"):
        if not any(question.split == split for question in questions):
            why = "raise or lower questions.heldout_fraction, or give more questions"
            if counts.moved:
                why = f"{counts.moved} share 13 words in a row with another and stand with it; if"
                why += " that is only a template, --no-questions.near_duplicates"
            raise UserError(
                f"{config.path}: none of {len(questions)} questions is on the {split} side: {why}"
            )


def _question(config: QuestionsConfig, text: str, answer: str, source: str) -> Question:
    try:
        question_id = sha256(text.encode()).hexdigest()[:16]
        answer.encode()
    except UnicodeEncodeError:  # JSON can hold half a surrogate pair
        raise UserError(f"{source}: half a surrogate pair, which is not Unicode; mend it") from None
    shares = CorpusConfig(
        heldout_fraction=config.heldout_fraction, development_fraction=config.development_fraction
    )
    split = split_of_key(text, shares)
    return Question(question_id=question_id, text=text, answer=answer, split=split, source=source)


def _read(config: QuestionsConfig) -> Iterator[Question]:
    names = [config.question, config.answer]
    for source, fields in read_fields(config.path, names):
        text, answer = (field_text(fields[name], name, source) for name in names)
        if config.answer_after:
            _, mark, answer = answer.rpartition(config.answer_after)
            if not mark:
                raise UserError(
                    f"{source}: field '{config.answer}' has no '{config.answer_after}'"
                    " (questions.answer_after)"
                )
        for name, value in zip(names, (text, answer), strict=True):
            if not value.strip():
                raise UserError(
                    f"{source}: field '{name}' is blank: a question needs its true answer; leave"
                    " the line out"
                )
        yield _question(config, text.strip(), answer.strip(), source)


def field_text(value: Any, name: str, source: str) -> str:
    """Returns a field of a question's record as text, numbers in plain digits.

    Raises UserError (with file and line) for null, NaN, infinity, true, false and all else that is
    no text.

    >>> field_text(1e-07, "answer", "sums.jsonl:1"), field_text(1e22, "answer", "sums.jsonl:2")
    ('0.0000001', '10000000000000000000000')
    """
    text = text_of(value)
    if text is None:
        raise UserError(
            f"{source}: field '{name}' is not text but {type_of(value)}: give text or a number, or"
            " leave the line out"
        )
    if not isinstance(value, WrittenFloat):
        return text
    number = Decimal(text)  # `1e22`, as it stands in the file
    return f"{number:f}" if abs(number.adjusted()) <= _PLAIN_DIGITS else text


def _generate(config: QuestionsConfig, seed: int) -> Iterator[Question]:
    names = config.path.removeprefix(IS_GENERATED).split(",")
    # All names are looked at before the first question is made.
    made = [one for name in names for one in gym_datasets(name.strip(), seed, config.generated)]
    for task, dataset in made:
        require_verdicts(task, dataset[0])
    for task, dataset in made:
        for number, entry in enumerate(dataset):
            source = f"{IS_GENERATED}{task}:{number}"
            answer = str(entry["answer"])
            question = _question(config, str(entry["question"]).strip(), answer, source)
            yield replace(question, task=task, entry=entry)
