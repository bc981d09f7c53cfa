"""The tokens and FLOPs of a warmup step, counted as it runs."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from openrpt.costs.flops import Count, Ledger, count_alone, count_tree, model_shape
from openrpt.data.work import Work
from openrpt.stages.warmup.imitations import Imitation
from openrpt.stages.warmup.loss import WarmupLoss


@dataclass(frozen=True, kw_only=True, eq=False)
class StepCost:
    """The passes of one step, document by document."""

    made: Ledger = field(default_factory=Ledger)
    """The work that made the imitations."""
    trained: Ledger = field(default_factory=Ledger)
    """The policy's forward and backward passes."""
    teacher: Count = field(default_factory=Count)
    """The frozen model's forward passes."""

    def add(self, other: "StepCost") -> None:
        """Adds the passes over other documents of the step."""
        self.made.add(other.made)
        self.trained.add(other.trained)
        self.teacher.add(other.teacher)

    def count(self, loss: WarmupLoss, work: Work, imitations: Sequence[Imitation] | None) -> None:
        """Adds what `WarmupLoss.accumulate` runs of a document, in the policy and the teacher."""
        prefix = len(work.prefix_ids(loss.layout, whole=True))
        branches = loss.branches(work, imitations)
        ends = len(branches) if loss.reads_tails else 0
        text = prefix - 1 - loss.unread
        logits = ends + (text if loss.reads_text else 0)
        logits += sum(weight > 0 for imitation in imitations or () for weight in imitation.weights)
        self.trained.shared.add(count_tree(prefix, branches, logits))
        self.trained.alone.add(count_alone(branches, logits, prefix if loss.reads_text else 0))
        compared = text if loss.config.warmup.text_kl_weight > 0 else 0
        if loss.reads_teacher:
            self.teacher.run(prefix, 0, ends + compared)

    def flops(self, loss: WarmupLoss) -> dict[str, float]:
        """Gives the metrics, in FLOPs; `sharing/flops_alone`: without the tree."""
        shape = model_shape(loss.engine.model)
        frozen = self.teacher.forward(shape)
        return {
            "flops/generate": self.made.shared.forward(shape),
            "flops/update": self.trained.shared.train(shape) + frozen,
            "sharing/flops_alone": self.made.alone.forward(shape)
            + self.trained.alone.train(shape)
            + frozen,
        }
