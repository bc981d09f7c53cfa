"""Policy losses, for use elsewhere: public names of `openrpt.rl.losses`."""

from openrpt.rl.losses import LossConfig, LossInputs, LossOutputs, StepTotals, policy_loss

__all__ = ["LossConfig", "LossInputs", "LossOutputs", "StepTotals", "policy_loss"]
