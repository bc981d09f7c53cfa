"""The task of `train`: positions of a corpus, rewarded by what truly follows.

`finetune` works on questions (`openrpt.evaluation.questions.task`); the trainer, the tree and the
losses are the same.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from openrpt.config.sections import Config
from openrpt.data.prompts import Layout
from openrpt.data.scored import ScoredCorpus
from openrpt.data.work import Work, document_bytes, take_work
from openrpt.engine.average import MovingAverage
from openrpt.engine.checkpoint_record import TrainerState
from openrpt.engine.engine import Engine
from openrpt.engine.generation import Generated, Request, with_plain_standard
from openrpt.engine.model import Model
from openrpt.evaluation.next_token.evaluate import evaluate_policy
from openrpt.rl.grading import grade_groups
from openrpt.rl.rewards.terms import RewardContext, RewardTerm, make_terms, reward_groups
from openrpt.runs.rollouts import rollout_path, with_step, write_rollout_table
from openrpt.runs.run import Run
from openrpt.runs.scores import scores_of
from openrpt.types import Group


@dataclass(frozen=True, kw_only=True, eq=False)
class TextTask:
    """Positions of a corpus, rewarded by what truly follows."""

    folder: Path
    """Of the run: what a development evaluation thought is kept there."""
    corpus: ScoredCorpus
    config: Config
    policy: Model
    engine: Engine
    layout: Layout
    terms: Mapping[str, RewardTerm]
    baseline: MovingAverage | None

    def take(self, state: TrainerState) -> Iterator[tuple[int, Work]]:
        return take_work(
            self.corpus,
            self.config,
            cursor=state.cursor,
            count=self.config.train.positions_per_document,
            purpose="positions",
            pass_rates=state.pass_rates,
        )

    def grade(self, work: Work, generated: Sequence[Generated], step: int) -> list[Group]:
        token_bytes = document_bytes(self.policy.tokenizer, work.document)
        request = Request(
            prefix_ids=work.prefix_ids(self.layout, whole=False),
            prefix_lengths=work.prefix_lengths(self.layout),
            keys=tuple(() for _ in work.positions),
        )
        generated = with_plain_standard(self.engine.generator, request, self.layout, generated)
        groups = grade_groups(
            generated,
            work.positions,
            work.document.token_ids.tolist(),
            token_bytes,
            self.layout,
            self.policy.table,
        )
        context = RewardContext(
            config=self.config,
            step=step,
            work=work,
            token_bytes=token_bytes,
            policy=self.policy,
            engine=self.engine,
            layout=self.layout,
            baseline=self.baseline,
        )
        return reward_groups(groups, self.terms, context)

    def truth(self, work: Work) -> list[list[bytes]]:
        tokens = document_bytes(self.policy.tokenizer, work.document)
        return [tokens[position.index :] for position in work.positions]

    def development(self, policy: Model, engine: Engine, step: int) -> dict[str, float]:
        if not self.corpus.ids("development"):
            return {}
        result = evaluate_policy(
            policy,
            engine,
            self.corpus,
            self.config,
            split="development",
            positions=self.config.train.eval_positions,
        )
        if result.rollouts is not None:
            path = rollout_path(self.folder, step, development=True)
            write_rollout_table(path, with_step(result.rollouts, step))
        return result.development()


def text_task(run: Run, policy: Model, engine: Engine, layout: Layout) -> TextTask:
    """The task of `train`: the run's scored corpus."""
    config, baseline = run.config, None
    if "information_gain" in config.reward.terms:
        baseline = MovingAverage.of(policy, config.reward.baseline_decay)
    return TextTask(
        folder=run.path,
        corpus=scores_of(run),
        config=config,
        policy=policy,
        engine=engine,
        layout=layout,
        terms=make_terms(config),
        baseline=baseline,
    )
