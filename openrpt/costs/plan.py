"""What a configuration asks for, stage by stage, in tokens, FLOPs and bytes: the work of
`openrpt estimate`, in branches of the greatest lengths that the configuration allows."""

import math
from dataclasses import dataclass, replace
from statistics import mean

from openrpt.config.sections import Config
from openrpt.costs.flops import (
    Count,
    Shape,
    count_scoring,
    model_shape,
    plain_passes,
    prefix_passes,
)
from openrpt.costs.held import LIBRARIES, passed_bytes, state_bytes, weight_bytes
from openrpt.costs.planned import PlannedStage
from openrpt.costs.window_work import WindowWork
from openrpt.data.corpus_size import CorpusSize
from openrpt.data.prompts import Budget, Layout
from openrpt.engine.model import Model


@dataclass(frozen=True, kw_only=True, eq=False)
class WorkPlan:
    """A configuration's work, stage by stage."""

    config: Config
    policy: Model
    layout: Layout
    corpus: CorpusSize
    scorer: Model | None = None
    """The scorer, where it is another model than the policy."""

    @property
    def shape(self) -> Shape:
        """The sizes of the policy."""
        return model_shape(self.policy)

    @property
    def window(self) -> int:
        """Window of a typical document, in tokens."""
        prompt = self.config.prompt
        typical = math.ceil(mean(min(prompt.window, length) for length in self.corpus.lengths))
        return max(typical, min(2 * prompt.min_context, prompt.window))

    @property
    def each(self) -> WindowWork:
        """The work on one window of a typical document."""
        return WindowWork(config=self.config, layout=self.layout, window=self.window)

    def assumptions(self) -> list[str]:
        """Returns what the plan assumes, a line each."""
        train = self.config.train
        source = "as scored" if self.corpus.known else "guessed from the size of the corpus"
        if not self.corpus.known and ":" in (path := self.config.corpus.path):
            source = f"a guess, since the size of {path} can't be seen from here"
        text = f"{self.corpus.tokens:,.0f} tokens of text, {source}; windows of {self.window}"
        if self.config.prompt.template == "question":
            text = f"[finetune] or [questions] is given: questions of {self.window} tokens each"
        found = [
            text,
            "every thought and prediction uses its whole budget, and no group is flat",
        ]
        if train.recipe().dynamic_sampling_from is not None:
            found.append("dynamic sampling adds no round")
        if self.config.warmup.traces and self.config.prompt.template != "question":
            found.append("every document has enough given thoughts for warmup.trace_share")
        return found

    def score(self) -> PlannedStage:
        """Returns the scoring of the whole corpus."""
        prompt, lengths = self.config.prompt, self.corpus.lengths
        scorer = self.scorer or self.policy
        count = Count()
        for length in lengths:
            count.add(
                count_scoring(
                    length,
                    head=len(scorer.bos_ids),
                    window=prompt.window,
                    min_context=prompt.min_context,
                )
            )
        share = self.corpus.tokens / sum(lengths)
        memory = self.memory(copies=0, rollouts=0, trained=False)
        if self.scorer is not None:
            memory += weight_bytes(self.scorer.network)
        stage = PlannedStage(stage="score", memory_bytes=memory)
        flops = count.forward(model_shape(scorer))
        stage.add("score", share * count.tokens, share * flops)
        return stage

    def warmup(self) -> PlannedStage:
        """Returns the warmup: one imitation a position; where a loss compares with the frozen start
        model, this one runs over each window, too."""
        config, settings = self.config, self.config.warmup
        free = int(config.prompt.think_budget > 0)
        made = self.each.branches(settings.positions_per_document, free)
        generation = self.each.generation(made)
        trained = self.each.branches(settings.positions_per_document, 1)
        text = settings.text_kl_weight > 0 or settings.ntp_weight > 0
        given = round(settings.trace_share * len(trained)) if settings.traces else 0
        read = 3 * (len(trained) - given) + given * Budget.of(config.prompt).trained(self.layout)
        update = self.each.update(trained, text=text, drawn=read)
        documents = settings.steps * settings.documents_per_step
        stage = PlannedStage(
            stage="warmup",
            documents=settings.documents_per_step,
            memory_bytes=self.memory(copies=1, rollouts=0, trained=True),
            state_bytes=self.state_bytes(copies=1, trained=True),
        )
        flops = update.train(self.shape)
        if settings.reads_start(config.prompt.candidates):
            window = replace(trained[-1], tail_ids=(), completions=())
            flops += self.each.update([window], text=True, drawn=0).forward(self.shape)
        stage.add(
            "generate", documents * generation.tokens, documents * generation.forward(self.shape)
        )
        stage.add("update", documents * update.tokens, documents * flops)
        return stage

    def train(self) -> PlannedStage:
        """Returns the training, with the evaluations on the development split."""
        train = self.config.train
        branches = self.each.branches(train.positions_per_document, train.group_size)
        generation = self.each.graded(branches)
        drawn = self.each.drawn(branches)
        if train.answer_gradient == "exact":
            thoughts = self.each.thoughts(branches)
            read = sum(len(ids) for branch in thoughts for ids in branch.completions)
            update = self.each.update(thoughts, text=train.ntp_weight > 0, drawn=read)
            update.add(self.each.answers(thoughts))
        else:
            update = self.each.update(branches, text=train.ntp_weight > 0, drawn=drawn)
        flops = train.updates_per_batch * update.train(self.shape)
        if train.kl_weight:
            flops += self.each.update(branches, text=False, drawn=drawn).forward(self.shape)
        documents = train.steps * train.documents
        seeded_by_start = prefix_passes(self.config.prompt) - 1
        rollouts = min(self.config.memory.generation_rollouts, len(branches) * train.group_size)
        copies = int(train.kl_weight > 0) + seeded_by_start
        stage = PlannedStage(
            stage="train",
            documents=train.documents,
            memory_bytes=self.memory(copies=copies, rollouts=rollouts, trained=True),
            state_bytes=self.state_bytes(copies=copies, trained=True),
        )
        stage.add(
            "generate", documents * generation.tokens, documents * generation.forward(self.shape)
        )
        stage.add("update", documents * train.updates_per_batch * update.tokens, documents * flops)
        if train.eval_every:
            times = train.steps // train.eval_every
            tokens, flops = self.evaluation(train.eval_positions, "development")
            stage.add("evaluate", times * tokens, times * flops)
        return stage

    def pretrain(self) -> PlannedStage:
        """Returns plain next-token training by its steps, in pieces of the usual length."""
        settings, mean_length = self.config.pretrain, mean(self.corpus.lengths)
        length = min(settings.sequence_length, math.ceil(mean_length))
        head = len(self.policy.bos_ids)
        piece = count_scoring(length, head=head, window=length, min_context=1)
        pieces = settings.steps * math.ceil(settings.tokens_per_step / length)
        memory = self.memory(copies=0, rollouts=0, trained=True)
        stage = PlannedStage(stage="pretrain", memory_bytes=memory)
        stage.add("update", pieces * float(piece.tokens), pieces * piece.train(self.shape))
        return stage

    def finetune(self) -> PlannedStage:
        """Returns the reinforcement on questions, with the held-out ones asked before and after;
        the plan's configuration is `finetune_config`'s."""
        settings = self.config.finetune
        stage = replace(self.train(), stage="finetune")
        asked = self.each.generation(self.each.branches(1, max(settings.eval_samples, 1)))
        times = 2 * settings.eval_questions
        stage.add("evaluate", times * asked.tokens, times * asked.forward(self.shape))
        return stage

    def evaluate(self) -> PlannedStage:
        """Returns the evaluation of one model."""
        settings = self.config.evaluate
        tokens, flops = self.evaluation(settings.positions, settings.split)
        rollouts = max(settings.samples, 1) * 16
        memory = self.memory(copies=0, rollouts=rollouts, trained=False)
        stage = PlannedStage(stage="evaluate", memory_bytes=memory)
        stage.add("evaluate", tokens, flops)
        return stage

    def evaluation(self, positions: int, split: str) -> tuple[float, float]:
        """Returns (tokens, FLOPs) of an evaluation at positions spread over the documents of a
        split."""
        settings = self.config.evaluate
        documents = max(1, round(self.corpus.documents_of.get(split, 1)))
        positions = min(positions, documents * settings.positions_per_document)
        windows = min(documents, positions)
        reasoning = "reasoning" in settings.modes
        branches = self.each.branches(
            math.ceil(positions / windows), max(settings.samples, 1) if reasoning else 0
        )
        count = self.each.generation(branches)
        for _ in range(plain_passes(self.config.prompt, self.layout)):
            count.run(branches[-1].prefix_length, 0, len(branches))
        return windows * float(count.tokens), windows * count.forward(self.shape)

    def state_bytes(self, *, copies: int, trained: bool) -> float:
        """Returns the bytes of weights, gradients and moments: `held.state_bytes`."""
        return state_bytes(self.policy, copies=copies, trained=trained)

    def memory(self, *, copies: int, rollouts: int, trained: bool) -> float:
        """Returns the peak in bytes, about."""
        branches = self.each.branches(self.config.train.positions_per_document, 1)
        passed = passed_bytes(
            self.policy, self.config.memory, branches, rollouts=rollouts, trained=trained
        )
        return self.state_bytes(copies=copies, trained=trained) + LIBRARIES + passed
