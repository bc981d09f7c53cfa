"""The task of `train`: positions of a corpus, rewarded by what truly follows.

`finetune` works on questions (`openrpt.evaluation.questions.task`); the trainer, the tree and the
losses are the same.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from openrpt.config.sections import Config
from openrpt.data.curriculum import Curriculum, read_curriculum
from openrpt.data.prompts import Layout
from openrpt.data.scored import ScoredCorpus
from openrpt.data.training_work import take_work
from openrpt.data.work import Work, document_bytes
from openrpt.engine.average import MovingAverage
from openrpt.engine.checkpoint_record import TrainerState
from openrpt.engine.engine import Engine, bind, with_plain_standard
from openrpt.engine.generation import Generated
from openrpt.evaluation.next_token.evaluate import evaluate_policy
from openrpt.rl.grading import grade_groups
from openrpt.rl.rewards.configured import make_terms
from openrpt.rl.rewards.reward import reward_groups
from openrpt.rl.rewards.term import RewardContext, RewardTerm
from openrpt.runs.rollouts import rollout_path, with_step, write_rollout_table
from openrpt.runs.run import Run
from openrpt.runs.scores import scores_of
from openrpt.types import Group


def take_positions(
    corpus: ScoredCorpus,
    config: Config,
    state: TrainerState,
    *,
    kinds: Sequence[str] | None = None,
) -> Iterator[tuple[int, Work]]:
    """Yields (cursor, work) from where a training is. `kinds`: those of which documents are taken;
    None = all."""
    return take_work(
        corpus,
        config,
        cursor=state.cursor,
        count=config.train.positions_per_document,
        purpose="positions",
        pass_rates=state.pass_rates,
        kinds=kinds,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class TextTask:
    """Positions of a corpus, rewarded by what truly follows."""

    folder: Path
    """The run's, where what a development evaluation thought is kept."""
    corpus: ScoredCorpus
    config: Config
    engine: Engine
    """The policy's."""
    layout: Layout
    terms: Mapping[str, RewardTerm]
    curriculum: Curriculum | None
    baseline: MovingAverage | None
    baseline_engine: Engine | None
    """The engine that reads the moving average; None where there is none."""

    def take(self, state: TrainerState) -> Iterator[tuple[int, Work]]:
        """Yields (cursor, work): the next documents with their drawn positions."""
        curriculum = self.curriculum
        kinds = None if curriculum is None else curriculum.open_kinds(state.kinds_opened)
        return take_positions(self.corpus, self.config, state, kinds=kinds)

    def follow(self, state: TrainerState, groups: Sequence[Group]) -> dict[str, float]:
        """Opens further kinds of positions as the curriculum says; returns its metrics."""
        curriculum = self.curriculum
        if curriculum is None:
            return {}
        open_kinds = float(len(curriculum.open_kinds(state.kinds_opened)))
        right = sum(group.pass_rate for group in groups) / len(groups)
        state.kinds_opened, state.right_shares = curriculum.after(
            state.kinds_opened, state.right_shares, right
        )
        return {"curriculum/open_kinds": open_kinds}

    def grade(self, work: Work, generated: Sequence[Generated], step: int) -> list[Group]:
        """Returns the groups at a work's positions, with their rewards."""
        table, tokenizer = self.engine.model.table, self.engine.model.tokenizer
        token_bytes = document_bytes(tokenizer, work.document)
        generated = with_plain_standard(self.engine, work, self.layout, generated)
        groups = grade_groups(
            generated,
            work.positions,
            work.document.token_ids.tolist(),
            token_bytes,
            self.layout,
            table,
        )
        context = RewardContext(
            config=self.config,
            step=step,
            work=work,
            token_bytes=token_bytes,
            engine=self.engine,
            layout=self.layout,
            baseline=self.baseline_engine,
        )
        return reward_groups(groups, self.terms, context)

    def truth(self, work: Work) -> list[list[bytes]]:
        """Returns the bytes of the true tokens from each position to the document's end."""
        tokens = document_bytes(self.engine.model.tokenizer, work.document)
        return [tokens[position.index :] for position in work.positions]

    def development(self, engine: Engine, step: int) -> dict[str, float]:
        """Returns metrics of held-out text; nothing where no development documents are scored."""
        if not self.corpus.ids("development"):
            return {}
        result = evaluate_policy(
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


def text_task(run: Run, engine: Engine, layout: Layout) -> TextTask:
    """Makes the task of `train`, on the run's scored corpus."""
    config, baseline, baseline_engine = run.config, None, None
    corpus = scores_of(run)
    if "information_gain" in config.reward.terms:
        baseline = MovingAverage.of(engine.model, config.reward.baseline_decay)
        baseline_engine = bind(config.engine.trainer, baseline.policy)
    return TextTask(
        folder=run.path,
        corpus=corpus,
        config=config,
        engine=engine,
        layout=layout,
        terms=make_terms(config),
        curriculum=read_curriculum(corpus, config.selection),
        baseline=baseline,
        baseline_engine=baseline_engine,
    )
