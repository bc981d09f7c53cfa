"""A model that is asked: what it says after a context, with or without a thought, and how likely
it finds given texts. Each answer is kept with what it cost (`answer_book`), so that a stopped
evaluation goes on where it was.

On the document tree: a question is run once, however many samples or options hang off it.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from hashlib import sha256
from itertools import groupby
from typing import Any

from openrpt.config.sections import Config
from openrpt.costs.energy import EnergyMeter, money
from openrpt.costs.flops import Count, Ledger, model_shape
from openrpt.costs.meters import CountingEngine
from openrpt.data.prompts import Layout, build_layout, require_chat_template
from openrpt.data.request import Request
from openrpt.data.tokens import literal_bytes
from openrpt.engine.engine import Engine, open_engine
from openrpt.engine.fingerprint import model_fingerprint
from openrpt.engine.generation import side_by_side
from openrpt.engine.model import Model
from openrpt.errors import UserError
from openrpt.evaluation.end_tasks.answer_book import COSTS, Answer, AnswerBook
from openrpt.evaluation.end_tasks.asked import Asked, Question, until_first
from openrpt.evaluation.end_tasks.likelihoods import rate_texts
from openrpt.evaluation.models import latest_model, model_label, model_path
from openrpt.runs.run import Run
from openrpt.seeding import keys_of


def open_respondent(
    run: Run, model: str | None, config: Config, folder: str, *, label: str = ""
) -> tuple[str, str, "Respondent"]:
    """Opens a model to be asked; returns (label, the model's path, the model to be asked), its
    answers in the run's `FOLDER/LABEL/answers.jsonl`. `model` as `models.model_path` has it; None:
    the run's latest.

    Raises UserError for whatever can't be loaded, and where these are another model's answers.
    """
    model = model or latest_model(run)
    path = model_path(run, model)
    label = label or model_label(model)
    engine = open_engine(config, path=path)
    require_chat_template(engine.model.tokenizer, config.prompt)
    book = AnswerBook(
        run.path / folder / label / "answers.jsonl", owner=model_identity(config, path)
    )
    return label, path, Respondent(engine, config, book)


def model_identity(config: Config, path: str) -> str:
    """Returns the identity of a model, whose answers are kept under it: the model's files,
    tokenizer and all, and the precision."""
    return f"{path} {model_fingerprint(path)} {config.model.precision}"


class Respondent:
    """Answers contexts, several side by side. Every answer is in its `book`."""

    def __init__(self, engine: Engine, config: Config, book: AnswerBook | None = None) -> None:
        self.config, self.book = config, book or AnswerBook()
        self.shape = model_shape(engine.model)
        self.energy = EnergyMeter(engine.model.device, watts=config.cost.watts)
        self.ledger = Ledger()
        self.engine = CountingEngine(engine=engine, ledger=self.ledger)

    @property
    def policy(self) -> Model:
        """The model that is asked."""
        return self.engine.model

    @property
    def chats(self) -> bool:
        """Whether contexts are to be wrapped in the tokenizer's chat template."""
        has_template = bool(self.policy.tokenizer.chat_template)
        return has_template and self.config.prompt.chat_template != "off"

    # ---- what it says

    def key(self, context: str, asked: Asked) -> str:
        """Returns the name of an answer in the book."""
        prompt = self.config.prompt
        delimiters = (prompt.thought_start, prompt.thought_end, self.config.seed)
        return _digest("says", context, repr(asked), *map(str, delimiters))

    def encode(self, text: str, *, chat: bool = False) -> list[int]:
        """Returns a context: the tokenizer's own beginning, unless the text begins with it, and
        the text with its control tokens parsed. Nothing follows it, though a tokenizer may end
        texts with an EOS: an answer goes on from here. A chat begins as its template says, as in
        `prompts.build_layout`."""
        tokenizer = self.policy.tokenizer
        ids = tokenizer.encode(text, add_special_tokens=False)
        has_bos = bool(tokenizer.bos_token) and text.startswith(tokenizer.bos_token)
        return ids if chat or has_bos else [*self.policy.bos_ids, *ids]

    def say(self, context: str, asked: Asked) -> Answer:
        """Returns `asked.samples` answers (one greedy one for 0) to the same context."""
        return next(self.say_each([(context, asked)]))

    def say_each(self, questions: Sequence[tuple[str, Asked]]) -> Iterator[Answer]:
        """Yields the answers to one context after another, as they come out."""
        answers = self.book.answers
        pairs = {self.key(*pair): pair for pair in questions}
        batches = self._batches([pair for key, pair in pairs.items() if key not in answers])
        for pair in questions:
            key = self.key(*pair)
            while key not in answers:
                self._answer(next(batches))
            yield answers[key]

    def _batches(self, questions: Sequence[tuple[str, Asked]]) -> Iterator[list[Question]]:
        """Yields the questions that are answered together; none stands there twice."""
        asked = (self._question(*pair) for pair in questions)
        for _, group in groupby(asked, key=lambda question: (question.layout, question.asked)):
            alike = list(group)
            requests, left = [question.request for question in alike], iter(alike)
            for batch in side_by_side(requests, alike[0].layout, alike[0].sampling):
                yield [next(left) for _ in batch]

    def _question(self, context: str, asked: Asked) -> Question:
        layout, context_ids = self._layout(context, asked), self.encode(context, chat=asked.chat)
        room = self.policy.max_length - asked.sampling.budget.behind(layout)
        if room < 1:
            raise UserError(
                f"a thought of {asked.think_budget or 0} and an answer of {asked.max_tokens} tokens"
                f" leave no room for a question: the model holds {self.policy.max_length}"
            )
        ids = tuple(context_ids[-room:])
        keys = keys_of(max(asked.samples, 1), self.config.seed, "say", context)
        return Question(
            context=context,
            asked=asked,
            layout=layout,
            request=Request.at_end(ids, keys),
            cut=len(context_ids) - len(ids),
        )

    def _answer(self, batch: Sequence[Question]) -> None:
        """Puts a batch's answers into the book; what a batch took is divided evenly, and FLOPs are
        each one's own."""
        layout, sampling = batch[0].layout, batch[0].sampling
        requests = [question.request for question in batch]
        started = self._begin()
        each = self.engine.generate_each(requests, layout, sampling)
        found, counts = [], []
        for generated in each:
            found.append(generated[0])
            counts.append(self._counted())
        spent = {name: amount / len(batch) for name, amount in self._spent(started).items()}
        for question, outcome, count in zip(batch, found, counts, strict=True):
            answer = Answer(cut=question.cut, cost=count | spent)
            for completion in outcome.completions:
                thought, ended, said = self._parts(completion.token_ids, layout, question.asked)
                answer.texts.append(until_first(said, question.asked.until))
                answer.thoughts.append(thought)
                # What was forced is masked: an end without any was the model's own.
                answer.closed.append(ended and all(completion.loss_mask))
                answer.lengths.append(len(completion.token_ids))
            self.book.add(self.key(question.context, question.asked), answer)

    def _layout(self, context: str, asked: Asked) -> Layout:
        """Returns the layout of a context: nothing stands before the context; the thought's
        opening behind it, unless it ends with one."""
        prompt = self.config.prompt
        bare = {"template": "minimal", "chat_template": "off", "answer_start": asked.answer_start}
        layout = build_layout(self.policy.tokenizer, prompt.model_copy(update=bare))
        if asked.think_budget is None:
            return replace(layout.plain, head_ids=())
        opened = prompt.thought_start and context.rstrip().endswith(prompt.thought_start.strip())
        return replace(layout, head_ids=(), tail_ids=() if opened else layout.tail_ids)

    def _parts(self, ids: Sequence[int], layout: Layout, asked: Asked) -> tuple[str, bool, str]:
        """Returns (thought, whether it has an end, answer), from the tokens' exact bytes: a
        tokenizer's own decoder may drop a text's first space. Where the model ended its turn
        inside its thought, all is the answer."""
        thinks = asked.think_budget is not None
        text = literal_bytes(self.policy.table, ids, layout.literal if thinks else {})
        thought, end, said = text.rpartition(layout.thought_end) if thinks else (b"", b"", text)
        return thought.decode(errors="replace"), bool(end), said.decode(errors="replace")

    # ---- how likely it finds a text

    def rate(self, context_ids: Sequence[int], continuations: Sequence[Sequence[int]]) -> Answer:
        """Returns `logprobs` of the continuations (none empty), which share one pass over the
        context, which is never empty either."""
        key = _digest("rates", str(list(context_ids)), str([list(c) for c in continuations]))
        if key not in self.book.answers:
            started = self._begin()
            answer = rate_texts(self.engine, context_ids, continuations)
            cost = self._counted() | self._spent(started)
            self.book.add(key, replace(answer, cost=cost))
        return self.book.answers[key]

    # ---- what it costs

    def _begin(self) -> float:
        self.ledger.shared, self.ledger.alone = Count(), Count()
        self.energy.begin()
        return time.perf_counter()

    def _counted(self) -> dict[str, float]:
        """Returns the tokens and FLOPs that were run since this was asked last."""
        counted = {
            "tokens": float(self.ledger.shared.tokens),
            "flops": self.ledger.shared.forward(self.shape),
            "flops_alone": self.ledger.alone.forward(self.shape),
        }
        self.ledger.shared, self.ledger.alone = Count(), Count()
        return counted

    def _spent(self, started: float) -> dict[str, float]:
        return {"seconds": time.perf_counter() - started, "joules": self.energy.joules()}

    def cost(self, answers: Sequence[Answer]) -> dict[str, Any]:
        """Returns the cost of these answers together, whenever they were given."""
        total: dict[str, Any] = {n: sum(answer.cost[n] for answer in answers) for n in COSTS}
        total["energy_measured"] = self.energy.measured
        price = self.config.cost
        if price.price_per_hour:
            total["money"] = money(total["seconds"], price.price_per_hour)
            total["currency"] = price.currency
        return total


def _digest(*parts: str) -> str:
    return sha256("\x1f".join(parts).encode(errors="surrogatepass")).hexdigest()[:32]
