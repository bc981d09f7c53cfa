"""OpenRPT's next-token task for verifiers and prime-rl: a taskset, and the harness that asks it."""

from openrpt_env.harness import OpenRPTHarness
from openrpt_env.taskset import OpenRPTTaskset

__all__ = ["OpenRPTHarness", "OpenRPTTaskset"]
