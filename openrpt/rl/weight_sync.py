"""The weights that rollouts are drawn with, where the sampler holds its own copy of the policy."""

from dataclasses import dataclass

from openrpt.engine.engine import Engine, Sampler
from openrpt.engine.exported import checkpoint_weights


@dataclass(kw_only=True, eq=False)
class WeightSync:
    """Keeps a sampler's weights those of the policy, or at most so many optimizer steps older.

    Training waits for the rollouts of each step, so a copy is older only where it was not renewed.
    """

    sampler: Sampler
    policy: Engine
    max_staleness: int = 0
    """Most steps of the optimizer by which the sampler's weights may be behind the policy's."""
    handed_over: int | None = None
    """Steps that the weights had behind them which the sampler was given last; None = none yet."""

    def policy_version(self, step: int) -> int:
        """Returns how many steps lie behind the weights that the rollouts of `step` (from 1) are
        drawn with. They are handed over first where the sampler's are too old.

        Raises UserError where the sampler does not take them.
        """
        current = step - 1
        if self.handed_over is None or current - self.handed_over > self.max_staleness:
            self.sampler.load(checkpoint_weights(self.policy.model))
            self.handed_over = current
        return self.handed_over
