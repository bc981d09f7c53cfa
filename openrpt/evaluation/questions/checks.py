r"""The final answer of a completion, and whether it is right.

A completion reads `thought </think> … \boxed{answer}`; what a question's answer must equal is a
number, an expression or a word, so it is compared by meaning (math-verify), by characters, or by
the scorer of the reasoning-gym task that it comes from. Nothing of an answer is ever run as code.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from types import TracebackType

from openrpt.config.sections import Config
from openrpt.data.gym_tasks import IS_GENERATED, gym_score
from openrpt.data.questions import Question
from openrpt.errors import UserError
from openrpt.extras import require
from openrpt.progress import SILENT, Progress
from openrpt.worker import Worker

Check = Callable[[Question, bytes | None], float]
"""A check: question and answer (None = there is none) → the reward; 1 = right."""

_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d{1,5})?", re.ASCII)
_WRAPPED = re.compile(r"\\(?:text|mathrm|textbf|mbox)\{([^{}]*)\}")


def extract_answer(
    completion: bytes,
    *,
    thought_end: bytes = b"</think>",
    opening: bytes = rb"\boxed{",
    closing: bytes = b"}",
) -> bytes | None:
    r"""Returns the final answer: what stands between the last `opening` and its `closing`.

    Only what follows the last `thought_end` counts; where the policy ended its turn without
    closing its thought, the whole completion. An `opening` that ends with `{` is closed by the
    brace that balances it (`\{` and `\}` are LaTeX's printed braces and count for nothing). None
    where there is no box, it is not closed, or it is blank.

    >>> extract_answer(rb"1 + 1 </think> So \boxed{\frac{1}{2}}, {as} asked.")
    b'\\frac{1}{2}'
    """
    _, _, said = completion.rpartition(thought_end)
    _, found, rest = said.rpartition(opening)
    if not found:
        return None
    balanced = opening.endswith(b"{") and closing == b"}"
    end = _balancing_brace(rest) if balanced else rest.find(closing)
    return (rest[:end].strip() or None) if end >= 0 else None


def _balancing_brace(text: bytes) -> int:
    """Returns the index of the `}` that closes a `{` just before the text; -1 if there is none."""
    depth = 1
    for match in re.finditer(rb"\\.|[{}]", text, re.DOTALL):
        depth += {b"{": 1, b"}": -1}.get(match[0], 0)
        if depth == 0:
            return match.start()
    return -1


def normalised(answer: str) -> str:
    r"""Returns an answer without what does not change it: spaces around it, `$`, `\text{}`, a full
    stop.

    >>> normalised(" $\\text{the  end}.$ ")
    'the end'
    """
    text = _WRAPPED.sub(r"\1", answer).strip().strip("$").strip()
    text = re.sub(r"(?<!\.)\.$", "", text)  # three dots say that a decimal goes on
    return " ".join(text.split())


def same_characters(answer: str, truth: str) -> bool:
    """Returns whether two answers are the same but for what does not change them.

    A number is the same in every way of writing it in digits: 18.0, 18 and 1.8e1.

    >>> same_characters(" 18 ", "18.0"), same_characters("1/2", "0.5"), same_characters("a", "A")
    (True, False, False)
    """
    said, true = normalised(answer), normalised(truth)
    if said == true:
        return True
    return all(map(_NUMBER.fullmatch, (said, true))) and Decimal(said) == Decimal(true)


class MathChecker:
    """A process that compares answers by `checker(answer, truth)`: the same characters, or the
    same by math-verify.

    A context: a process of its own does the algebra (`math_worker.py`), for at most `seconds`
    a check; what takes longer or breaks it is wrong, and counted in `given_up`. The truths are
    trusted to be sane, the answers are not. Raises UserError where math-verify is missing.
    """

    def __init__(self, *, seconds: float = 5.0) -> None:
        require(
            "math_verify",
            extra="finetune",
            what="answers.check = 'math'",
            otherwise=", or compare by characters: --answers.check exact",
        )
        self.seconds = seconds
        self.given_up = 0
        self._verdicts: dict[tuple[str, str], bool] = {}
        self.worker = Worker(
            "openrpt.evaluation.questions.math_worker",
            broken="math-verify can't be started: see what `python -c 'from math_verify import"
            ' parse; parse("$1/2$")\'` says',
        )

    def __call__(self, answer: str, truth: str) -> bool:
        if same_characters(answer, truth):
            return True
        pair = (answer, truth)
        if pair not in self._verdicts:
            verdict = self.worker.ask(pair, seconds=self.seconds)
            self.given_up += verdict is None
            self._verdicts[pair] = bool(verdict)
        return self._verdicts[pair]

    def close(self) -> None:
        """Ends the process."""
        self.worker.close()

    def __enter__(self) -> "MathChecker":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def check_kind(config: Config) -> str:
    """Returns `answers.check` with `auto` decided: "math", "exact" or "reasoning_gym"."""
    generated = config.questions.path.startswith(IS_GENERATED)
    kind = config.answers.check
    if kind == "auto":
        return "reasoning_gym" if generated else "math"
    if kind == "reasoning_gym" and not generated:
        raise UserError(
            f"answers.check = 'reasoning_gym', but questions.path = '{config.questions.path}' is"
            f" none of its tasks ('{IS_GENERATED}TASK'); use 'math' or 'exact'"
        )
    return kind


@contextmanager
def open_check(config: Config, *, progress: Progress = SILENT) -> Iterator[Check]:
    """Opens the check that the configuration asks for, with the process that it needs; in the end
    it is said how many answers were given up. Raises UserError where math-verify is missing."""
    if check_kind(config) != "math":
        yield checker_of(config, None)
        return
    with MathChecker(seconds=config.answers.timeout) as math:
        yield checker_of(config, math)
        if math.given_up:
            progress.say(
                f"{math.given_up} answers took math-verify longer than answers.timeout ="
                f" {config.answers.timeout:g} s, or broke it: counted as wrong"
            )


def checker_of(config: Config, math: MathChecker | None) -> Check:
    """Returns the check that the configuration asks for; `math` where `check_kind` is "math"."""
    kind = check_kind(config)

    def check(question: Question, answer: bytes | None) -> float:
        if answer is None:
            return 0.0
        said = answer.decode("utf-8", errors="replace")
        if kind == "reasoning_gym":
            return gym_score(question.task, said, question.entry)
        if kind == "math":
            assert math is not None
            return float(math(said, question.answer))
        return float(same_characters(said, question.answer))

    return check
