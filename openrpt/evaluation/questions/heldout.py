"""The held-out questions as an instrument: the one way to put them to a model, whoever asks.

`openrpt questions` puts them to several models, `openrpt suite` by family, and `openrpt finetune`
before and after its training.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from openrpt.config.loading import finetune_config
from openrpt.config.sections import Config
from openrpt.data.questions import Question, QuestionCounts, read_questions
from openrpt.data.work import Work
from openrpt.engine.model import Model
from openrpt.evaluation.instrument import Bench, Measured
from openrpt.evaluation.questions.checks import Check, open_check
from openrpt.evaluation.questions.results import AnswerResult
from openrpt.evaluation.questions.table import question_report
from openrpt.evaluation.questions.task import QuestionTask, answer_questions, question_task
from openrpt.evaluation.reports import Report
from openrpt.progress import SILENT, Progress


@dataclass(frozen=True, kw_only=True, eq=False)
class HeldOut:
    """Held-out questions with known answers, and how they are asked."""

    questions: Sequence[Question]
    check: Check
    config: Config
    """The configuration, as `finetune_config` makes it."""
    family: str | None = None
    """Only the questions of this task ("" for a file's); None for all."""
    kind = AnswerResult
    done = "has answered before"

    @property
    def settings(self) -> dict[str, Any]:
        """All that a result depends on beside the model's files."""
        config = self.config
        return {
            "seed": config.seed,
            "finetune": config.finetune.model_dump(),
            "answers": config.answers.model_dump(),
            "prompt": config.prompt.model_dump(),
            "dtype": config.model.precision,
            "questions": [(q.question_id, q.answer) for q in self.questions],
            "family": self.family,
        }

    def title(self, label: str) -> str:
        """Returns the name of the progress of a model's measurement."""
        if self.family is None:
            return f"questions to {label}"
        return f"reasoning: {self.family or self.config.questions.path}"

    def works(self, task: QuestionTask) -> list[Work]:
        """Returns the questions that are asked, of those that the model's tokenizer can hold."""
        chosen = task.chosen("heldout", self.config.finetune.eval_questions)
        if self.family is None:
            return chosen
        return [w for w in chosen if task.questions[w.document.document_id].task == self.family]

    def task(self, model: Model) -> QuestionTask:
        """Returns the questions in a model's tokens. Raises UserError where the prompt does not
        fit, and where no question does."""
        layout = model.layout(self.config.prompt)
        return question_task(self.questions, self.config, model, layout, self.check)

    def run(self, bench: Bench) -> AnswerResult:
        """Asks each question once, or `finetune.eval_samples` times."""
        task = self.task(bench.model)
        works = self.works(task)
        bench.progress.begin(bench.title, len(works), "questions")
        return answer_questions(
            bench.engine,
            task,
            works,
            samples=self.config.finetune.eval_samples,
            kept=bench.kept,
            progress=bench.progress,
        )

    def report(self, measured: Sequence[Measured[AnswerResult]]) -> Report:
        """Returns the models together, by task and level; differences are to the first."""
        return question_report(measured, self.config)


@contextmanager
def open_heldout(config: Config, *, progress: Progress = SILENT) -> Iterator[HeldOut]:
    """Opens the [questions] of a configuration, with the process that checks answers. Raises
    UserError for bad questions."""
    config = finetune_config(config)
    questions = read_questions(config.questions, QuestionCounts(), seed=config.seed)
    with open_check(config, progress=progress) as check:
        yield HeldOut(questions=questions, check=check, config=config)
