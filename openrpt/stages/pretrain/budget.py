"""The length of a pretraining and its data: its own corpus and steps, or a matched run's."""

import math
from pathlib import Path

from openrpt.config.sections import Config
from openrpt.costs.flops import Shape
from openrpt.data.score_summary import SCORED
from openrpt.data.scored import ScoredCorpus
from openrpt.data.tokens import tokenizer_fingerprint
from openrpt.engine.model import Model
from openrpt.errors import UserError
from openrpt.runs.run import Run, existing_run
from openrpt.runs.scores import scores_of
from openrpt.stages.pretrain.batches import batches, count_step, step_flops
from openrpt.stages.pretrain.matched import (
    require_same_corpus,
    spent_flops,
    spent_seconds,
    training_rows,
)
from openrpt.stages.stage import Limits


def matched_run(config: Config) -> Run | None:
    """Opens the run that this is a control for; None where it is for none."""
    return existing_run(Path(config.pretrain.match)) if config.pretrain.match else None


def load_corpus(run: Run, other: Run | None) -> ScoredCorpus:
    """Opens the run's own scores; the matched run's where it has none."""
    if other is None or (run.scored / SCORED).is_file():
        settings = run.config.pretrain
        tokens_only = settings.tokens == "full" and not settings.eval_every
        corpus = scores_of(run, tokens_only=tokens_only)
        if other is not None and run.config.pretrain.match_by == "documents":
            require_same_corpus(corpus, other)
        return corpus
    return scores_of(other)


def limits_of(
    config: Config, other: Run | None, corpus: ScoredCorpus, shape: Shape, head_length: int
) -> Limits:
    """Gives where training ends. Evaluations take none of its time, which another run may match.

    FLOPs become steps here: what a step costs is known from its pieces alone.
    """
    settings = config.pretrain
    steps, seconds = settings.steps, settings.time_limit * 60 or math.inf
    if other is not None and settings.match_by == "documents":
        steps = len(training_rows(other, "train"))
    elif other is not None and settings.match_by == "time":
        steps, seconds = 1 << 30, min(seconds, spent_seconds(other))
    elif other is not None or settings.flops:
        budget, spent, steps = settings.flops if other is None else spent_flops(other), 0.0, 0
        supply = batches(corpus, config, cursor=0, head_length=head_length)
        while spent < budget:
            steps += 1
            spent += step_flops(shape, count_step(next(supply)[1], head_length))
    return Limits(steps=steps, seconds=seconds, count_evaluations=False)


def require_fit(policy: Model, corpus: ScoredCorpus, config: Config, other: Run | None) -> None:
    """Checks that the policy can train on the scored tokens. Raises UserError where the policy's
    tokens are not those scored, or don't fit into it."""
    if tokenizer_fingerprint(policy.tokenizer) != corpus.metadata["tokenizer"]:
        raise UserError(
            f"model '{policy.name}' has another tokenizer than the model whose tokens were scored"
            f" in {corpus.folder}; score for it in a run of its own: openrpt score --run …"
        )
    settings = config.pretrain
    longest, key = settings.sequence_length, "pretrain.sequence_length"
    if other is not None and settings.match_by == "documents":
        longest, key = other.config.prompt.window + 1, "prompt.window of the matched run"
    if len(policy.bos_ids) + longest > policy.max_length:
        raise UserError(
            f"{key}: {longest} tokens do not fit, the model holds {policy.max_length}"
            f" ({len(policy.bos_ids)} of them before the text)"
        )
    if settings.eval_every and corpus.ids("development"):
        policy.layout(config.prompt)  # refused here, not at the first evaluation
