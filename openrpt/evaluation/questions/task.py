"""Questions as a trainer works on them (see `openrpt.rl.task.Task`), and how they are answered.

A question is a document with one position, at its end; a group is the rollouts of one question.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from openrpt.config.sections import Config
from openrpt.data.places import token_starts
from openrpt.data.positions import ScoredDocument, Window
from openrpt.data.prompts import Layout
from openrpt.data.questions import Question
from openrpt.data.request import Request
from openrpt.data.tokens import encode_document, literal_bytes
from openrpt.data.training_work import place_at
from openrpt.data.work import Work
from openrpt.engine.checkpoint_record import TrainerState
from openrpt.engine.decoding import Sampling
from openrpt.engine.engine import Engine
from openrpt.engine.generation import Generated
from openrpt.engine.model import Model
from openrpt.errors import UserError
from openrpt.evaluation.kept import NOTHING_KEPT, Kept
from openrpt.evaluation.questions.checks import Check, extract_answer
from openrpt.evaluation.questions.results import AnswerResult
from openrpt.json_lines import Row
from openrpt.progress import SILENT, Progress
from openrpt.rl.completions import split_thought
from openrpt.seeding import generator, keys_of
from openrpt.types import Completion, Group, Position, Prompt, Rollout, Split


@dataclass(kw_only=True, slots=True)
class TaskCounts:
    """Questions of each split, and those that were left out."""

    train: int = 0
    development: int = 0
    heldout: int = 0
    too_long: int = 0
    """Questions with more tokens than finetune.question_tokens."""
    not_encodable: int = 0
    """The tokenizer does not give their text back."""


@dataclass(frozen=True, kw_only=True, eq=False)
class QuestionTask:
    """Questions, rewarded by their true answers (see `openrpt.rl.task.Task`)."""

    questions: Mapping[str, Question]
    works: Mapping[Split, Mapping[str, Work]]
    """Split → question_id → its work, in the order in which they were read."""
    counts: TaskCounts
    config: Config
    policy: Model
    layout: Layout
    check: Check
    baseline: None = None

    def take(self, state: TrainerState) -> Iterator[tuple[int, Work]]:
        """Yields (cursor, work): one training question after another, without end."""
        works, cursor = self.works["train"], state.cursor
        ids = list(works)
        while True:
            work = works[ids[place_at(len(ids), cursor, self.config.seed)]]
            cursor += 1
            yield cursor, work

    def grade(self, work: Work, generated: Sequence[Generated], step: int = 0) -> list[Group]:
        """Returns the one group of a question, each rollout checked against the answer."""
        question = self.questions[work.document.document_id]
        prefix = tuple(work.document.token_ids.tolist())
        return [
            Group(
                prompt=Prompt(
                    position=position,
                    head_ids=self.layout.head_ids,
                    prefix_ids=prefix,
                    tail_ids=self.layout.tail_ids,
                ),
                rollouts=tuple(self._grade(question, c) for c in outcome.completions),
                ntp_token_id=outcome.standard_id,
            )
            for position, outcome in zip(work.positions, generated, strict=True)
        ]

    def _grade(self, question: Question, completion: Completion) -> Rollout:
        text = literal_bytes(self.policy.table, completion.token_ids, self.layout.literal)
        answer = extract_answer(
            text,
            thought_end=self.layout.thought_end,
            opening=self.config.answers.opening.encode(),
            closing=self.config.answers.closing.encode(),
        )
        reward = self.check(question, answer)
        return Rollout(
            completion=completion,
            thought=split_thought(text, thought_end=self.layout.thought_end),
            prediction=answer,
            exact=reward >= 1,
            reward=reward,
        )

    def follow(self, state: TrainerState, groups: Sequence[Group]) -> dict[str, float]:
        """Returns nothing: questions have no curriculum."""
        return {}

    def truth(self, work: Work) -> list[list[bytes]]:
        """Returns the question's right answer as bytes."""
        return [[self.questions[work.document.document_id].answer.encode()]]

    def development(self, engine: Engine, step: int) -> dict[str, float]:
        """Measures greedy accuracy on the development questions; nothing where there are none."""
        works = self.chosen("development", self.config.train.eval_positions)
        if not works:
            return {}
        result = answer_questions(engine, self, works, samples=0)
        return {
            "development/reasoning_accuracy": result.accuracy(),
            "development/positions": float(result.num_questions),
        }

    def chosen(self, split: Split, count: int) -> list[Work]:
        """Returns the first `count` questions of a split in a keyed order: the same for every
        model."""
        works = list(self.works[split].values())
        order = generator(self.config.seed, "evaluation", split).permutation(len(works))
        return [works[place] for place in order[:count]]


def question_task(
    questions: Sequence[Question], config: Config, policy: Model, layout: Layout, check: Check
) -> QuestionTask:
    """Makes the task of a configuration. Raises UserError where no question of a side that is
    needed fits."""
    counts = TaskCounts()
    works: dict[Split, dict[str, Work]] = {"train": {}, "development": {}, "heldout": {}}
    for question in questions:
        try:
            ids, pieces = encode_document(policy.tokenizer, question.text)
        except UserError:
            counts.not_encodable += 1
            continue
        if len(ids) > config.finetune.question_tokens:
            counts.too_long += 1
            continue
        works[question.split][question.question_id] = _question_work(question, ids, pieces)
    counts.train, counts.development, counts.heldout = (len(found) for found in works.values())
    if not (counts.train and counts.heldout):
        raise UserError(
            f"{config.questions.path}: {counts.train} training and {counts.heldout} held-out"
            f" questions are left ({counts.too_long} have more than finetune.question_tokens ="
            f" {config.finetune.question_tokens}, {counts.not_encodable} the tokenizer can't give"
            " back)"
        )
    return QuestionTask(
        questions={question.question_id: question for question in questions},
        works=works,
        counts=counts,
        config=config,
        policy=policy,
        layout=layout,
        check=check,
    )


def _question_work(question: Question, ids: Sequence[int], pieces: Sequence[bytes]) -> Work:
    """Returns a question as a document that no scorer has seen, with one position: its end."""
    unknown = np.full(len(ids), np.nan, dtype=np.float32)
    document = ScoredDocument(
        document_id=question.question_id,
        key=question.text,
        split=question.split,
        source=question.source,
        text=question.text,
        token_ids=np.array(ids, dtype=np.int64),
        byte_offsets=token_starts(pieces),
        negative_log_likelihood=unknown,
        entropy=unknown,
        entropy_top16=unknown,
        ntp_token_id=np.full(len(ids), -1, dtype=np.int64),
        ntp_correct=np.zeros(len(ids), dtype=bool),
    )
    end = len(ids)
    return Work(
        document=document,
        window=Window(start=0, end=end, first=end),
        positions=(Position(document_id=question.question_id, index=end),),
    )


def answer_questions(
    engine: Engine,
    task: QuestionTask,
    works: Sequence[Work],
    *,
    samples: int,
    kept: Kept = NOTHING_KEPT,
    progress: Progress = SILENT,
) -> AnswerResult:
    """Generates `samples` answers to each question (0 = the greedy one); `kept`: those that are
    there."""
    config, layout = task.config, task.layout
    sampling = Sampling.of(
        config.prompt,
        temperature=config.finetune.eval_temperature if samples else 0.0,
        generation_rollouts=config.memory.generation_rollouts,
    )

    def make(new: Sequence[Work]) -> Iterator[Row]:
        requests = [_question_request(work, layout, config.seed, max(samples, 1)) for work in new]
        each = engine.generate_each(requests, layout, sampling)
        for work, generated in zip(new, each, strict=True):
            (group,) = task.grade(work, generated)
            yield _outcome_row(task.questions[work.document.document_id], group)

    asked = {work.document.document_id: work for work in works}
    rows: list[Row] = []
    for row in kept.each(asked, make, key="question_id"):
        rows.append(row)
        progress.update(len(rows))
    return AnswerResult(columns={name: np.array([row[name] for row in rows]) for name in rows[0]})


def _question_request(work: Work, layout: Layout, seed: int, samples: int) -> Request:
    """Asks for `samples` answers to a question, each with its own keys."""
    return work.request(layout, [keys_of(samples, seed, "evaluate", work.document.document_id)])


def _outcome_row(question: Question, group: Group) -> Row:
    """Returns a question's row of an AnswerResult, from the rollouts that answered it."""
    count = len(group.rollouts)
    return {
        "question_id": question.question_id,
        "task": question.task,
        "accuracy": group.pass_rate,
        "any_right": float(any(rollout.exact for rollout in group.rollouts)),
        "reward": sum(group.rewards) / count,
        "closed": sum(r.prediction is not None for r in group.rollouts) / count,
        "tokens": sum(len(r.completion.token_ids) for r in group.rollouts) / count,
        "answer": (group.rollouts[0].prediction or b"").decode("utf-8", errors="replace"),
    }
