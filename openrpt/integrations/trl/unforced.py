"""TRL's own generation, from the ids of the prompts."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trl import GRPOTrainer


def unforced_rollout(prompts: list[dict[str, Any]], trainer: "GRPOTrainer") -> dict[str, Any]:
    """Lets TRL itself generate (by transformers or vLLM) from the ids of the prompts, for
    `GRPOTrainer(rollout_func=…)`.

    Nothing of TRL's generation is replaced, so nothing is forced: the policy must end its thoughts
    by itself, and a run with `prompt.candidates = 0` and a think budget is what fits.
    """
    ids = [one["ids"] for one in prompts]
    count = trainer.num_generations if trainer.model.training else trainer.num_generations_eval
    completion_ids, logprobs = trainer._generate_single_turn(ids, None, {}, count)
    return {"prompt_ids": ids, "completion_ids": completion_ids, "logprobs": logprobs}
