"""The answers of a model by what it was asked, a line an answer, so that nothing is asked twice.
No torch."""

from dataclasses import dataclass, field
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from openrpt.errors import UserError
from openrpt.json_lines import append_row, whole_rows, write_rows

_FORMAT = 1
COSTS = ("tokens", "flops", "flops_alone", "seconds", "joules")


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """The completions or ratings given to one context, and what they cost."""

    texts: list[str] = field(default_factory=list)
    """The text after the thought, for each sample."""
    thoughts: list[str] = field(default_factory=list)
    """The thought of each sample; an empty string where there is no thought."""
    closed: list[bool] = field(default_factory=list)
    """For each sample, whether the model ended its thought by itself."""
    lengths: list[int] = field(default_factory=list)
    """Tokens of each sample's completion, the thought's and the forced ones included."""
    logprobs: list[tuple[float, bool]] = field(default_factory=list)
    """The log-likelihood of each given text in nats, and whether it is the greedy one."""
    cut: int = 0
    """Tokens of the context that did not fit, cut off at its start."""
    cost: dict[str, float] = field(default_factory=dict)
    """The cost of this answer alone, by the names of COSTS."""


class AnswerBook:
    """Answers by key: in memory, or in a file of JSON lines that is read again at the start.

    The file's first line says whose answers they are. Raises UserError where they are another
    model's, or the file is damaged elsewhere than in a last line that was cut off.
    """

    def __init__(self, path: Path | None = None, *, owner: str = "") -> None:
        self.path, self.answers = path, dict[str, Answer]()
        if path is None:
            return
        if path.is_file():
            self._read(path, owner)
        else:
            write_rows(path, [{"format": _FORMAT, "owner": owner}])

    def _read(self, path: Path, owner: str) -> None:
        advice = "delete it and evaluate again"
        first, *rows = whole_rows(path, advice=advice) or [{"owner": owner}]
        if first.get("owner") != owner:
            raise UserError(
                f"{path}: holds the answers of another model ({first.get('owner')}); give this one"
                " another --label, or delete the file"
            )
        try:
            self.answers = TypeAdapter(dict[str, Answer]).validate_python(
                {row["key"]: {k: v for k, v in row.items() if k != "key"} for row in rows}
            )
        except (KeyError, TypeError, ValidationError):
            raise UserError(f"{path}: damaged; {advice}") from None
        write_rows(path, [{"format": _FORMAT, "owner": owner}, *rows])  # without what was cut off

    def add(self, key: str, answer: Answer) -> None:
        """Adds an answer, to the file as well where there is one."""
        self.answers[key] = answer
        if self.path is not None:
            row = {name: getattr(answer, name) for name in Answer.__dataclass_fields__}
            append_row(self.path, {"key": key} | row)
