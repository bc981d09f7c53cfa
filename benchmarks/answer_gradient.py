"""The noise of a step's gradient: sampled answers against the answer's exact gradient.

python benchmarks/answer_gradient.py RUN [--repeats 200] [--group-size 4 16]

RUN is a run folder with scores and a start. The same positions are asked again and again, each time
with other draws, and both gradients are made of the same rollouts: of `prefix` by the sampled
answers, and of `expected` with `train.answer_gradient = exact`. Both follow `rloo`, whose mean is
the objective's own gradient. For each: the variance (the mean of |g − mean g|² over the repeats),
and it over |mean g|². And how much of the rate of right answers `expected` counts.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from common import RESULTS, environment, parser_of, say, write_result
from torch import Tensor

from openrpt.config.loading import with_overrides
from openrpt.config.sections import Config
from openrpt.engine.model import Model
from openrpt.rl.batch import Graded, weighted_batch
from openrpt.rl.rewards.configured import make_terms
from openrpt.rl.update import update_policy
from openrpt.runs.run import existing_run
from openrpt.stages.text_task import TextTask
from openrpt.stages.train import Trainer, open_train

COMMON = {
    "train.algorithm": "rloo",
    "train.ntp_weight": 0.0,
    "train.kl_weight": 0.0,
    "train.entropy_weight": 0.0,
    "optim.max_grad_norm": 1e9,
}
KINDS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "sampled": ("prefix", {"train.answer_gradient": "sampled", "reward.terms": {"prefix": 1.0}}),
    "exact": ("expected", {"train.answer_gradient": "exact", "reward.terms": {"expected": 1.0}}),
}
MEASURED = {"reward.terms": {"prefix": 1.0, "expected": 0.0}}


@dataclass(kw_only=True)
class Moments:
    """The mean and spread of a gradient over the repeats."""

    total: Tensor | None = None
    squares: float = 0.0
    count: int = 0

    def add(self, gradient: Tensor) -> None:
        gradient = gradient.double()
        self.total = gradient if self.total is None else self.total + gradient
        self.squares += float(gradient.square().sum())
        self.count += 1

    @property
    def mean(self) -> Tensor:
        assert self.total is not None
        return self.total / self.count

    @property
    def variance(self) -> float:
        biased = self.squares / self.count - float(self.mean.square().sum())
        return biased * self.count / (self.count - 1)

    @property
    def signal(self) -> float:
        """|E g|², without what the variance adds to it."""
        return float(self.mean.square().sum()) - self.variance / self.count


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--group-size", type=int, nargs="*", default=[4, 16])
    parser.add_argument("--output", type=Path, default=RESULTS / "answer_gradient.json")
    given = parser.parse_args()
    trainer = open_train(existing_run(given.run))
    rows = [measure(trainer, group_size, given.repeats) for group_size in given.group_size]
    prompt = {"think_budget": trainer.config.prompt.think_budget}
    result = {"rows": rows, "repeats": given.repeats, "prompt": prompt}
    write_result(given.output, "answer_gradient", result | environment())


def measure(trainer: Trainer, group_size: int, repeats: int) -> dict[str, Any]:
    asked = {"train.group_size": group_size}
    config = with_overrides(trainer.config, COMMON | asked | MEASURED)
    works = [work for _, work in islice(trainer.task.take(trainer.state), 2)]
    assert isinstance(trainer.task, TextTask)
    moments = {kind: Moments() for kind in KINDS}
    means: dict[str, list[float]] = {"prefix": [], "expected": []}
    for repeat in range(repeats):
        seeded = config.model_copy(update={"seed": repeat})
        task = replace(trainer.task, config=seeded, terms=make_terms(seeded))
        collector = replace(trainer.collector, config=seeded, task=task)
        graded = list(collector.rollouts_each(works, 0))
        for name, values in means.items():
            values.append(mean_of(graded, name))
        for kind, (term, settings) in KINDS.items():
            own = with_overrides(config, dict(settings))
            moments[kind].add(gradient(trainer, graded, term, own))
    both = {k: m.mean for k, m in moments.items()}
    cosine = torch.nn.functional.cosine_similarity(both["sampled"], both["exact"], dim=0)
    row: dict[str, Any] = asked | {
        "positions": sum(len(work.positions) for work in works),
        "cosine_of_means": float(cosine),
        "variance_ratio": ratio(moments["sampled"].variance, moments["exact"].variance),
    }
    for kind, found in moments.items():
        row[kind] = {"variance": found.variance, "over_signal": ratio(found.variance, found.signal)}
    for name, values in means.items():
        error = torch.tensor(values).std() / math.sqrt(repeats)
        row[name] = {"mean": sum(values) / repeats, "error": float(error)}
    say(json.dumps(row))
    return row


def ratio(over: float, under: float) -> float:
    """None as JSON has it where there is nothing but rounding below."""
    return over / under if under > 1e-9 * over else math.nan


def mean_of(graded: Sequence[Graded], term: str) -> float:
    rollouts = [r for one in graded for group in one.groups for r in group.rollouts]
    return sum(r.terms[term] for r in rollouts) / len(rollouts)


def gradient(trainer: Trainer, graded: Sequence[Graded], term: str, config: Config) -> Tensor:
    """Returns the gradient of one update by these rollouts, rewarded by one of their terms."""
    rewarded = [
        replace(
            one,
            groups=tuple(
                replace(
                    group,
                    rollouts=tuple(replace(r, reward=r.terms[term]) for r in group.rollouts),
                )
                for group in one.groups
            ),
        )
        for one in graded
    ]
    engine = trainer.engine
    optimizer = torch.optim.SGD(engine.model.parameters(), lr=0.0)
    batch = weighted_batch(rewarded, config, trainer.layout)
    update_policy(engine, optimizer, batch, config, trainer.layout)
    return flat(engine.model)


def flat(policy: Model) -> Tensor:
    parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in policy.parameters()]
    return torch.cat([part.flatten() for part in parts])


if __name__ == "__main__":
    main()
