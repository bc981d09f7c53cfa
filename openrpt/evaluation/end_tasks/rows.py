"""Questions of end tasks: how a record is read, and how it is asked.

Two kinds. A *choice* has options A, B, C, …; a *short* answer is a number or an expression. The
records may be those of the public sets (MMLU-Pro, SuperGPQA, MMLU, ARC, GSM8K, MATH) as the Hub
has them, or a file of one's own with the same fields. lm-eval reads, asks and grades through these
functions (`openrpt/evaluation/end_tasks/tasks`); no torch here.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from string import ascii_uppercase as LETTERS
from typing import Any, Literal

from openrpt.data.kinds import kind_of
from openrpt.data.questions import field_text
from openrpt.data.readers import read_fields
from openrpt.errors import UserError
from openrpt.evaluation.questions.checks import extract_answer
from openrpt.seeding import generator

Kind = Literal["choice", "short"]
Row = dict[str, Any]
"""question_id, question, options (none for a short answer), answer (a choice's: its letter),
category and difficulty ("" where the record states none)."""

_CATEGORIES = ("category", "subject", "discipline", "type")
_DIFFICULTIES = ("difficulty", "level")
_ANSWERS = ("answer_index", "answer_letter", "answerKey", "answer")

_NUMBERED = re.compile(r"\bAnswer\s?(\d+):\s*")
"""The spelling of options in instruction files: `Answer1: … Answer2: …`."""
_NUMBERED_KEY = re.compile(r"[Aa]nswer\s?(\d{1,2})")
_KEY = re.compile(
    r"(?:(?i:option|choice)\s+)?[(\[]?([A-Za-z])(?:[)\]]?[.:)]?|[)\]]?[.:)]\s*(.+))", re.DOTALL
)
_WHOLE = re.compile(r"\d{1,6}(?:\.0*)?")


# ---- reading ------------------------------------------------------------------------------------


def read_rows(path: str, kind: Kind, *, per_category: int = 0, seed: int = 0) -> list[Row]:
    """Reads all questions of a file, a folder or `datasets:NAME[:CONFIG[:SPLIT]]`, in order.

    `per_category`: at most so many of each category (0 = all), the first of an order that the seed
    and the question decide, so they are the same for every model. The same question twice counts
    once. Raises UserError (with file and line) for what can't be read and for a record without a
    question, options or an answer.
    """
    read = choice_row if kind == "choice" else short_row
    rows: dict[str, Row] = {}
    for source, fields in read_fields(path):
        row = read(fields, source)
        rows.setdefault(row["question_id"], row)
    if not rows:
        raise UserError(f"{path}: no questions")
    return _first_of_each(list(rows.values()), per_category, seed)


def _first_of_each(rows: list[Row], count: int, seed: int) -> list[Row]:
    if not count:
        return rows
    taken: dict[str, int] = {}
    chosen = []
    for place in generator(seed, "zeroshot", len(rows)).permutation(len(rows)).tolist():
        category = rows[place]["category"]
        taken[category] = taken.get(category, 0) + 1
        if taken[category] <= count:
            chosen.append(place)
    return [rows[place] for place in sorted(chosen)]


def choice_row(fields: Mapping[str, Any], source: str) -> Row:
    """Returns a multiple-choice question. Raises UserError where it is none."""
    question, options, labels = _question_and_options(fields, source)
    index = _right_option(fields, options, labels, source)
    return _row(fields, question, options, LETTERS[index])


def short_row(fields: Mapping[str, Any], source: str) -> Row:
    """Returns a question with a short answer: the field `answer` (what follows its last `####`, as
    GSM8K has it), else the last box of the field `solution`. Raises UserError where there is
    neither."""
    question = _text(fields, ("question", "problem"), source, "a question")
    stated = fields.get("answer")
    answer = "" if stated is None else field_text(stated, "answer", source)
    answer = answer.rpartition("####")[2].strip()
    if not answer and isinstance(fields.get("solution"), str):
        boxed = extract_answer(fields["solution"].encode())
        answer = (boxed or b"").decode()
    if not answer:
        raise UserError(f"{source}: no 'answer' (nor a \\boxed one in 'solution') to grade by")
    return _row(fields, question, [], answer)


def _row(fields: Mapping[str, Any], question: str, options: list[str], answer: str) -> Row:
    def stated(names: Iterable[str]) -> str:
        return next(filter(None, (kind_of(fields.get(name), 0) for name in names)), "")

    text = "\n".join([question, *options])
    return {
        "question_id": sha256(text.encode(errors="replace")).hexdigest()[:16],
        "question": question,
        "options": options,
        "answer": answer,
        "category": stated(_CATEGORIES),
        "difficulty": stated(_DIFFICULTIES),
    }


def _text(fields: Mapping[str, Any], names: Sequence[str], source: str, what: str) -> str:
    for name in names:
        value = "" if fields.get(name) is None else field_text(fields[name], name, source)
        if value.strip():
            return value.strip()
    known = ", ".join(fields) or "none"
    raise UserError(f"{source}: {what} is missing (field {' or '.join(names)}); there are: {known}")


def _question_and_options(
    fields: Mapping[str, Any], source: str
) -> tuple[str, list[str], list[str]]:
    """Returns (the question, its options, their labels where the record states any)."""
    options = _stated(fields)
    parts = fields.get("choices") if fields.get("options") is None else fields["options"]
    labels = parts.get("label") or [] if isinstance(parts, Mapping) else []
    if not options and isinstance(fields.get("instruction"), str):
        text = fields["instruction"].partition("\n\nAnswer format:")[0]
        pieces = _NUMBERED.split(text)
        question = pieces[0].rpartition("correct answer to the question:")[2].strip()
        options = [piece.strip() for piece in pieces[2::2]]
    else:
        question = _text(fields, ("question",), source, "a question")
    listed = [field_text(option, "options", source) for option in options]
    if not 1 <= len(listed) <= len(LETTERS):  # a few of MMLU-Pro's have a single one
        raise UserError(
            f"{source}: {len(listed)} options (field 'options' or 'choices'); a multiple-choice"
            f" question has 1 to {len(LETTERS)}"
        )
    return question, listed, [field_text(label, "label", source).strip() for label in labels]


def _stated(fields: Mapping[str, Any]) -> Sequence[Any]:
    """Returns the options as the record has them; none where it has no list of them."""
    options = fields.get("choices") if fields.get("options") is None else fields["options"]
    if isinstance(options, Mapping):  # ARC on the Hub: {"text": […], "label": […]}
        options = options.get("text")
    return options if isinstance(options, list | tuple) else ()


def _right_option(
    fields: Mapping[str, Any], options: list[str], labels: list[str], source: str
) -> int:
    """Returns which option the record calls right. Raises UserError where that is none or
    several."""
    name = next((name for name in _ANSWERS if fields.get(name) not in (None, "")), None)
    if name is None:
        raise UserError(
            f"{source}: no answer ({', '.join(_ANSWERS)}): a question needs its true one"
        )
    value = fields[name]
    said = field_text(value, name, source).strip()
    number = int(float(said)) if _WHOLE.fullmatch(said) else -1  # no index
    texts = [option.strip() for option in options]
    found: set[int] = set()  # also of a number that is none of numbered labels
    if name == "answer_index":
        found = {number}
    elif said in labels or str(number) in labels:
        found = {labels.index(said if said in labels else str(number))}
    elif any(map(_WHOLE.fullmatch, labels)) and number >= 0:
        pass
    elif isinstance(value, str):
        found = _meant(said, texts, labels) or {number}
    else:  # where the options are numbers as well, it can be one of them
        same = {texts.index(said)} if texts.count(said) == 1 else set()
        are_numbers = not all(isinstance(option, str) for option in _stated(fields))
        found = {number} if 0 <= number < len(texts) else same
        found |= same if are_numbers else set()
    found = {index for index in found if 0 <= index < len(options)}
    if len(found) == 1:
        return found.pop()
    if found:
        several = " or ".join(f"option {LETTERS[index]}" for index in sorted(found))
        raise UserError(f"{source}: {name} = {value!r} is {several}; give answer_index (from 0)")
    raise UserError(f"{source}: {name} = {value!r} is none of its {len(options)} options")


def _meant(said: str, texts: list[str], labels: list[str]) -> set[int]:
    """Returns what a text can mean: a letter (`b`, `(B)`, `B. green`), `answer2`, or an option's
    own text.

    Letters are the labels where those are letters.
    """
    found = {texts.index(said)} if texts.count(said) == 1 else set()
    names = (
        labels if all(label in LETTERS for label in labels) and labels else LETTERS[: len(texts)]
    )
    match = _KEY.fullmatch(said)
    if match and match[1].upper() in names:
        index = names.index(match[1].upper())
        if match[2] in (None, texts[index]):
            found.add(index)
    if match := _NUMBERED_KEY.fullmatch(said):
        found.add(int(match[1]) - 1)
    return found


# ---- asking -------------------------------------------------------------------------------------


def question_text(row: Row) -> str:
    """Returns the question and, a line each, its options: as MMLU is asked."""
    options = zip(LETTERS, row["options"], strict=False)
    lines = [f"{letter}. {option.strip()}" for letter, option in options]
    return "\n".join([row["question"].strip(), *lines]) + "\n"


def question_and_letter(row: Row) -> str:
    """Returns a row's question with its options, to be answered by a letter after a thought."""
    asked = "Think step by step, then give the letter of the right option inside \\boxed{}."
    return f"{question_text(row)}\n{asked}"


def question_and_steps(row: Row) -> str:
    """Returns a row's question, to be answered step by step."""
    return row["question"] + "\n\nReason step by step, then give the final answer inside \\boxed{}."


def question_and_answer(row: Row) -> str:
    """Returns a row's question, to be answered at once."""
    return row["question"] + "\n\nGive the final answer inside \\boxed{}."


def letters(row: Row) -> list[str]:
    """Returns the letters of a row's options."""
    return list(LETTERS[: len(row["options"])])


def right_index(row: Row) -> int:
    """Returns the index of the right option among a row's choices."""
    return LETTERS.index(row["answer"])


def dataset(
    task: str, source: str, kind: Kind, openrpt: Mapping[str, Any] | None = None, **_: Any
) -> dict[str, Any]:
    """Returns a task's questions as lm-eval takes them. `openrpt` is the metadata of that name:
    `files` (task → path, in place of `source`), `per_category` and `seed`."""
    import datasets

    settings = openrpt or {}
    rows = read_rows(
        settings.get("files", {}).get(task) or source,
        kind,
        per_category=settings.get("per_category", 0),
        seed=settings.get("seed", 0),
    )
    return {"test": datasets.Dataset.from_list(rows)}
