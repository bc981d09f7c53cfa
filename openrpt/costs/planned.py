"""A stage's row of an estimate: its work, then its time and what that costs."""

import math
from dataclasses import dataclass, field


@dataclass(kw_only=True)
class PlannedStage:
    """A stage's row of an estimate."""

    stage: str
    tokens: float = 0.0
    flops_by_phase: dict[str, float] = field(default_factory=dict)
    """FLOPs of each phase."""
    memory_bytes: float = 0.0
    state_bytes: float = 0.0
    """The part of it that is weights, gradients and moments."""
    documents: int = 0
    """Documents of a step, which processes share out; 0 = it has no steps."""
    seconds: float = 0.0
    endless: bool = False
    """Whether its steps are more than anybody waits for, and no time limit ends it."""
    joules: float = 0.0
    money: float | None = None

    @property
    def flops(self) -> float:
        """FLOPs of all phases."""
        return sum(self.flops_by_phase.values())

    def add(self, phase: str, tokens: float, flops: float) -> None:
        """Adds the work of a phase."""
        self.tokens += tokens
        self.flops_by_phase[phase] = self.flops_by_phase.get(phase, 0.0) + flops

    def share_of_slowest(self, phase: str, processes: int) -> float:
        """Returns the share of a phase's work that the process with most of it has.

        A step's documents are shared out whole; what scores a corpus takes any part of it; an
        evaluation runs in one process.
        """
        if phase == "evaluate":
            return 1.0
        if not self.documents:
            return 1 / processes
        return math.ceil(self.documents / processes) / self.documents

    def cut(self, share: float) -> None:
        """Cuts the stage to the share of it that is run."""
        self.tokens *= share
        self.seconds *= share
        self.flops_by_phase = {phase: share * n for phase, n in self.flops_by_phase.items()}
