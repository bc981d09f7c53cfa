"""The rollouts of a step: generated, graded, and chosen for the update.

A collector knows no run folder and no optimizer: given a sampler of the policy and a trainer's
state it says what a step trains on, so it can run elsewhere than the update does.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from openrpt.config.sections import Config
from openrpt.data.positions import DIFFICULTIES
from openrpt.data.prompts import Layout
from openrpt.data.request import Request
from openrpt.data.work import Work
from openrpt.engine.checkpoint_record import TrainerState
from openrpt.engine.decoding import Sampling
from openrpt.engine.engine import Sampler
from openrpt.rl.batch import Graded, Weighted, weighted_batch
from openrpt.rl.completions import has_content
from openrpt.rl.task import Task
from openrpt.rl.workers import ALONE, Workers
from openrpt.seeding import keys_of


@dataclass(frozen=True, kw_only=True, eq=False)
class Collector:
    """Makes a step's rollouts with a sampler, for a task."""

    config: Config
    sampler: Sampler
    """What draws them: the policy's engine, or another that holds its weights."""
    task: Task
    layout: Layout
    workers: Workers = ALONE

    def collect(self, state: TrainerState) -> tuple[list[Weighted], list[Graded]]:
        """Collects the rollouts of the step that `state` is in.

        Returns what is trained on, and all that was generated. Both are the whole step's, whatever
        the number of workers. With dynamic sampling, flat groups are replaced by those of further
        documents, in their keyed order, within a stated budget. The state's cursor and pass rates
        move on. Raises UserError where a reward fails.
        """
        train = self.config.train
        first = train.recipe().dynamic_sampling_from
        dynamic = first is not None and first <= state.step
        rounds = train.dynamic_sampling_rounds if dynamic else 1
        wanted = train.prompts
        generated: list[Graded] = []
        live = 0
        for graded in self._rounds(state, rounds):
            generated.append(graded)
            live += sum(not group.is_flat for group in graded.groups)
            if dynamic and live >= wanted:
                break
        remember_pass_rates(state, generated)
        kept = (_live_only(generated, wanted) or generated) if dynamic else generated
        return weighted_batch(kept, self.config, self.layout), generated

    def _rounds(self, state: TrainerState, rounds: int) -> Iterator[Graded]:
        """Yields the next documents in their order, a step's worth a round, whoever generated at
        them.

        The cursor moves with each that is asked for. Workers go on together, a document each, so
        that all of them see the same and stop at the same.
        """
        supply, count = self.task.take(state), self.workers.count
        for _ in range(rounds):
            taken = list(islice(supply, self.config.train.documents))
            own = self.workers.share([work for _, work in taken])
            each = self.rollouts_each(own, state.step)
            for start in range(0, len(taken), count):
                together = taken[start : start + count]
                found = [one for one in self.workers.gather(next(each, None)) if one is not None]
                for (cursor, _), graded in zip(together, found, strict=True):
                    state.cursor = cursor
                    yield graded

    def rollouts_each(self, works: Sequence[Work], step: int) -> Iterator[Graded]:
        """Generates at each work's positions and grades that, one work after another.

        Raises UserError where a reward fails.
        """
        config, layout = self.config, self.layout
        sampling = Sampling.of(
            config.prompt,
            temperature=config.train.temperature,
            generation_rollouts=config.memory.generation_rollouts,
        )
        requests = [self._request(work, step) for work in works]
        each = self.sampler.generate_each(requests, layout, sampling)
        for work, generated in zip(works, each, strict=True):
            yield Graded(
                work=work,
                groups=tuple(self.task.grade(work, generated, step)),
                near_boundary=sum(outcome.near_boundary for outcome in generated),
            )

    def _request(self, work: Work, step: int) -> Request:
        count, name = self.config.train.group_size, (self.config.seed, step)
        keys = [keys_of(count, *name, p.document_id, p.index) for p in work.positions]
        return work.request(self.layout, keys)


def _live_only(generated: Sequence[Graded], wanted: int) -> list[Graded]:
    """Returns the first `wanted` groups that are not flat, document by document."""
    kept = []
    for graded in generated:
        keep = [i for i, group in enumerate(graded.groups) if not group.is_flat][:wanted]
        wanted -= len(keep)
        if keep:
            positions = tuple(graded.work.positions[i] for i in keep)
            kept.append(
                replace(
                    graded,
                    work=replace(graded.work, positions=positions),
                    groups=tuple(graded.groups[i] for i in keep),
                )
            )
    return kept


def remember_pass_rates(state: TrainerState, generated: Sequence[Graded]) -> None:
    """Puts the groups' pass rates into the state's table.

    The table is replaced, not changed: a step that fails leaves the one before it.
    """
    table = dict(state.pass_rates)
    for graded in generated:
        document_id = graded.work.document.document_id
        rates = {str(group.prompt.position.index): group.pass_rate for group in graded.groups}
        table[document_id] = table.get(document_id, {}) | rates
    state.pass_rates = table


def batch_metrics(batch: Sequence[Graded], generated: Sequence[Graded]) -> dict[str, float]:
    """Describes the rollouts of a step: means over all that was generated."""
    groups = [group for graded in generated for group in graded.groups]
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    count = len(rollouts)
    metrics = {
        "reward/mean": sum(r.reward for r in rollouts) / count,
        "group/flat_fraction": sum(group.is_flat for group in groups) / len(groups),
        "group/generated": float(len(groups)),
        "group/kept": float(sum(len(graded.groups) for graded in batch)),
        "completion/closed_fraction": sum(r.prediction is not None for r in rollouts) / count,
        "completion/stopped_fraction": sum(r.completion.finish_reason == "stop" for r in rollouts)
        / count,
        "completion/tokens_mean": sum(len(r.completion.token_ids) for r in rollouts) / count,
        "completion/thought_bytes_mean": sum(len(r.thought) for r in rollouts) / count,
        "sampler/near_boundary_tokens": float(sum(graded.near_boundary for graded in generated)),
    }
    for name, threshold in DIFFICULTIES.items():
        inside = [g for g in groups if g.prompt.position.entropy > threshold]
        if inside:
            exact = [rollout.exact for group in inside for rollout in group.rollouts]
            metrics[f"pass_rate/{name}"] = sum(exact) / len(exact)
    return metrics | _prediction_metrics([r.prediction for r in rollouts])


def _prediction_metrics(predictions: Sequence[bytes | None]) -> dict[str, float]:
    """Returns metrics of what the predictions say, in the mean over those that are there; empty
    where none is."""
    said = [prediction for prediction in predictions if prediction is not None]
    if not said:
        return {}
    return {
        "completion/prediction_bytes_mean": sum(map(len, said)) / len(said),
        "completion/content_fraction": sum(map(has_content, said)) / len(said),
        "completion/commonest_fraction": Counter(said).most_common(1)[0][1] / len(said),
    }
