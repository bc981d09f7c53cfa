"""Accuracy over thought at test time: the same weights at the same positions with one think budget
after another.

A thought that has not ended by its budget is closed by force, as training does it (budget forcing,
as in s1, arXiv 2501.19393, section 3.1). Beside the budgets stands standard prediction of the same
weights, with which each of them is compared in pairs.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from openrpt.config.sections import Config
from openrpt.data.evaluation_work import evaluation_work
from openrpt.data.prompt_texts import prompt_settings, template_of
from openrpt.data.prompts import Layout
from openrpt.data.scored import ScoredCorpus
from openrpt.data.tokens import tokenizer_fingerprint
from openrpt.data.work import Work, document_bytes, works_key
from openrpt.engine.engine import Engine
from openrpt.engine.generation import Generated
from openrpt.errors import UserError
from openrpt.evaluation.budgets.table import budgets_report
from openrpt.evaluation.columns import Columns
from openrpt.evaluation.instrument import Bench, Measured
from openrpt.evaluation.next_token.passes import in_tokens_of
from openrpt.evaluation.next_token.subject import Subject
from openrpt.evaluation.reports import Report
from openrpt.evaluation.statistics import Difference, Estimate, mean_by_document, paired_difference
from openrpt.json_lines import Row
from openrpt.rl.grading import continuation_at, grade
from openrpt.rl.rewards.matching import prefix_match
from openrpt.rl.thoughts import read_thought
from openrpt.runs.run import Run
from openrpt.runs.scores import scores_of

_STANDARD = "ntp"
"""The name of standard prediction among the budgets."""


@dataclass(frozen=True, kw_only=True, eq=False)
class BudgetsResult(Columns):
    """A model's predictions with each budget. Columns, a row a position: `document_id`,
    `position`, `entropy` (the scorer's, nats), `ntp` (1 where standard prediction is right) and,
    for a budget of B tokens, `accuracy/B` (share of the samples that are right), `tokens/B` (free
    tokens of thought, their mean) and `forced/B` (share of the thoughts that were closed by
    force)."""

    budgets: list[int]
    """The think budgets in tokens, ascending."""
    split: str
    samples: int
    """Samples a position; 0 = greedy."""
    flops: dict[str, float] = field(default_factory=dict)
    """FLOPs a position, by budget and for `ntp`: of the shared prefix its part, too."""

    def estimate(self, column: str) -> Estimate:
        """Returns a column's mean; its error is by document."""
        return mean_by_document(self.columns[column], self.columns["document_id"])

    def gain(self, budget: int) -> Difference:
        """Returns accuracy with a budget less that of standard prediction, paired."""
        accuracy, standard = self.columns[f"accuracy/{budget}"], self.columns[_STANDARD]
        return paired_difference(accuracy, standard, self.columns["document_id"])


@dataclass(frozen=True, kw_only=True, eq=False)
class Budgets:
    """Predictions at a split's evaluation positions, with each of several think budgets."""

    corpus: ScoredCorpus
    config: Config
    budgets: Sequence[int]
    """The think budgets in tokens, ascending, in place of `prompt.think_budget`."""
    kind = BudgetsResult
    done = "has thought before"

    def __post_init__(self) -> None:
        template_of(self.config.prompt)  # one of the user's own is checked before a model is loaded

    @cached_property
    def works(self) -> list[Work]:
        """The positions, those of `openrpt evaluate`, in the tokens of the scores."""
        asked = self.config.evaluate
        return evaluation_work(
            self.corpus,
            self.config,
            split=asked.split,
            positions=asked.positions,
            positions_per_document=asked.positions_per_document,
            min_entropy=asked.min_entropy,
        )

    @property
    def settings(self) -> dict[str, Any]:
        """All that a result depends on beside the model's files."""
        config, known = self.config, self.corpus.metadata
        prompt = prompt_settings(config.prompt)
        del prompt["think_budget"]
        return {
            "seed": config.seed,
            "prompt": prompt,
            "dtype": config.model.precision,
            "budgets": list(self.budgets),
            "samples": config.evaluate.samples,
            "temperature": config.evaluate.temperature,
            "scores": [known["scorer"], known["tokenizer"]],
            "works": works_key(self.works),
        }

    def title(self, label: str) -> str:
        """Returns the name of the progress of a model's measurement."""
        return f"{label} thinks"

    def run(self, bench: Bench) -> BudgetsResult:
        """Predicts at every position by standard prediction, then with each budget; what is kept of
        a stopped measurement is a budget. Raises UserError where the longest does not fit."""
        model, works, longest = bench.model, self.works, self.config.prompt.window
        if tokenizer_fingerprint(model.tokenizer) != self.corpus.metadata["tokenizer"]:
            works = in_tokens_of(model, works, bench.progress)
            longest = max(work.positions[-1].index - work.window.start for work in works)
        prompt = self._with_budget(max(self.budgets)).prompt
        layout = model.layout(prompt, window=longest)
        positions = [position for work in works for position in work.positions]

        def make(missing: Sequence[int | None]) -> Iterator[Row]:
            for budget in missing:
                before = bench.meter.cost()["flops"]
                row = self._predict(bench, works, layout, budget)
                flops = (bench.meter.cost()["flops"] - before) / len(positions)
                yield {"budget": _name(budget), "flops": flops, **row}

        asked = {_name(budget): budget for budget in (None, *self.budgets)}
        rows = {row["budget"]: row for row in bench.kept.each(asked, make, key="budget")}
        columns = {
            "document_id": np.array([p.document_id for p in positions]),
            "position": np.array([p.index for p in positions]),
            "entropy": np.array([p.entropy for p in positions]),
            _STANDARD: np.array(rows[_STANDARD]["right"]),
        }
        for budget in self.budgets:
            row = rows[str(budget)]
            columns[f"accuracy/{budget}"] = np.array(row["right"])
            columns[f"tokens/{budget}"] = np.array(row["tokens"])
            columns[f"forced/{budget}"] = np.array(row["forced"])
        return BudgetsResult(
            columns=columns,
            budgets=list(self.budgets),
            split=self.config.evaluate.split,
            samples=self.config.evaluate.samples,
            flops={name: row["flops"] for name, row in rows.items()},
        )

    def _predict(
        self, bench: Bench, works: Sequence[Work], layout: Layout, budget: int | None
    ) -> Row:
        """Returns the outcomes at each position, with this budget; None: of standard prediction."""
        count = sum(len(work.positions) for work in works)
        if budget is None:
            bench.progress.begin(f"{bench.title}: not at all", count, "positions")
            return {"right": _standard(bench.engine, works, layout)}
        bench.progress.begin(f"{bench.title}: {budget} tokens", count, "positions")
        config = self._with_budget(budget)
        subject = Subject(engine=bench.engine, config=config, layout=layout)
        found: Row = {"right": [], "tokens": [], "forced": []}
        each = subject.predict_each(works, subject.samples)
        for work, generated in zip(works, each, strict=True):
            for means in _means(subject, work, generated):
                for name, value in means.items():
                    found[name].append(value)
            bench.progress.update(len(found["right"]))
        return found

    def _with_budget(self, budget: int) -> Config:
        prompt = self.config.prompt.model_copy(update={"think_budget": budget})
        return self.config.model_copy(update={"prompt": prompt})

    def report(self, measured: Sequence[Measured[BudgetsResult]]) -> Report:
        """Returns the models together; differences are to each one's own standard prediction."""
        return budgets_report(measured)


def budgets_of(run: Run, config: Config, budgets: Sequence[int]) -> Budgets:
    """Returns the instrument on the run's scores. Raises UserError for scores that can't be loaded,
    and where the start model's candidates would have to seed the thoughts."""
    if config.prompt.is_seeded_by_start:
        raise UserError(
            "prompt.candidate_source = 'start': with other think budgets a model's thoughts are"
            " seeded with its own candidates; give --prompt.candidate_source policy"
        )
    return Budgets(corpus=scores_of(run), config=config, budgets=sorted(set(budgets)))


def _name(budget: int | None) -> str:
    return _STANDARD if budget is None else str(budget)


def _standard(engine: Engine, works: Sequence[Work], layout: Layout) -> list[float]:
    """Returns 1 for each position where standard prediction on the plain text is right, else 0."""
    right = []
    for work in works:
        prefix_ids = work.prefix_ids(layout.plain, whole=False)
        lengths = work.prefix_lengths(layout.plain)
        found = engine.standard(prefix_ids, lengths, delimiter_ids=layout.delimiter_ids)
        tokens = document_bytes(engine.model.tokenizer, work.document)
        for position, token in zip(work.positions, found.argmax.tolist(), strict=True):
            continuation = continuation_at(tokens, position.index)
            right.append(prefix_match(engine.model.table.bytes[token], continuation))
    return right


def _means(
    subject: Subject, work: Work, generated: Sequence[Generated]
) -> Iterator[dict[str, float]]:
    """Yields, for each of the work's positions, the means over its samples: whether it is `right`,
    free `tokens` of thought, whether the thought was closed by force (`forced`)."""
    layout, budget = subject.layout, subject.config.prompt.think_budget
    tokens = document_bytes(subject.policy.tokenizer, work.document)
    for position, outcome in zip(work.positions, generated, strict=True):
        continuation = continuation_at(tokens, position.index)
        made = outcome.completions
        rollouts = [grade(one, continuation, layout, subject.policy.table) for one in made]
        thoughts = [read_thought(one, layout, think_budget=budget) for one in made]
        yield {
            "right": float(np.mean([one.exact for one in rollouts])),
            "tokens": float(np.mean([one.free_tokens for one in thoughts])),
            "forced": float(np.mean([one.has_answer and not one.box_ids for one in thoughts])),
        }
