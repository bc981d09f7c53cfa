"""TRL's `GRPOTrainer` on the positions of a run: its model, dataset, reward and rollouts.

docs/trl.md has the twenty lines that train with it. TRL's step stays TRL's own: what is handed over
are prompts as token ids, completions as token ids with a mask of what was drawn, and rewards of
those ids' exact bytes. Nothing on the way is decoded to text and encoded again.

The engine is imported where it is asked for: a process that takes `unforced_rollout` alone, as the
benchmarks' peer does, has none of it.
"""

from openrpt.integrations.trl.task import TrlTask, open_task
from openrpt.integrations.trl.unforced import unforced_rollout

__all__ = ["TrlTask", "open_task", "unforced_rollout"]
