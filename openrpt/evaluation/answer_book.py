"""What a model was asked and said, a line an answer, so that nothing is asked twice. No torch."""

import json
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from openrpt.errors import UserError

FORMAT = 1
COSTS = ("tokens", "flops", "flops_alone", "seconds", "joules")


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What was said to one context, and what that cost."""

    texts: list[str] = field(default_factory=list)
    """A sample: what stands after the thought."""
    thoughts: list[str] = field(default_factory=list)
    """Empty strings where there is no thought."""
    closed: list[bool] = field(default_factory=list)
    """A sample: the model ended its thought by itself."""
    lengths: list[int] = field(default_factory=list)
    """A sample: tokens of the completion, the thought's and the forced ones included."""
    logprobs: list[tuple[float, bool]] = field(default_factory=list)
    """A given text: its log-likelihood in nats, and whether it is the greedy one."""
    cut: int = 0
    """Tokens of the context that did not fit, cut off at its start."""
    cost: dict[str, float] = field(default_factory=dict)
    """COSTS: of this answer alone."""


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
            path.parent.mkdir(parents=True, exist_ok=True)
            _append(path, {"format": FORMAT, "owner": owner})

    def _read(self, path: Path, owner: str) -> None:
        data = path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        try:
            first, *rows = [json.loads(line) for line in whole.splitlines()]
            found = {row.pop("key"): Answer(**row) for row in rows}
        except (ValueError, TypeError, KeyError, AttributeError):
            raise UserError(f"{path}: damaged; delete it and evaluate again") from None
        if first.get("owner") != owner:
            raise UserError(
                f"{path}: holds the answers of another model ({first.get('owner')}); give this one"
                " another --label, or delete the file"
            )
        if len(whole) < len(data):  # the last line was being written when the process ended
            with path.open("r+b") as file:
                file.truncate(len(whole))
        for key, answer in found.items():
            pairs = [(float(value), bool(greedy)) for value, greedy in answer.logprobs]
            self.answers[key] = replace(answer, logprobs=pairs)

    def add(self, key: str, answer: Answer) -> None:
        self.answers[key] = answer
        if self.path is not None:
            row = {name: getattr(answer, name) for name in Answer.__dataclass_fields__}
            _append(self.path, {"key": key} | row)


def _append(path: Path, row: dict[str, Any]) -> None:
    """One line, on the disk before it returns."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
        file.flush()
        os.fsync(file.fileno())
