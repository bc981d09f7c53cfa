"""Policy losses, for use elsewhere: public names of `openrpt.rl.losses`."""

from openrpt.rl.losses import LossConfig, LossInputs, LossOutputs, StepTotals, policy_loss
from openrpt.rl.tally import Mean

__all__ = ["LossConfig", "LossInputs", "LossOutputs", "Mean", "StepTotals", "policy_loss"]
