"""TRL's side of scripts/reference_losses.py: a real `GRPOTrainer`'s own scoring and loss, run by
TRL's own Python.

    environments/trl/bin/python scripts/reference_losses_trl.py INPUTS.json FOUND.json
"""

import tempfile
from typing import Any

import torch
from datasets import Dataset
from reference_losses import DEFAULTS, GROUP, LOSSES, ROLLOUTS, TOKENS, answer
from tokenizers import Tokenizer, models
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import GRPOConfig, GRPOTrainer

LOSS_TYPES = {"sequence_mean": "grpo", "constant_length": "dr_grpo", "token_mean": "dapo"}
"""Our aggregations → what TRL calls them."""
CORRECTIONS = {"truncate": "token_truncate", "off": "token_truncate"}
"""Our corrections → what TRL calls them, where it has another name; `off` needs any."""
ROWS = [{"prompt": "a"}] * ROLLOUTS


class GivenTrainer(GRPOTrainer):
    """A trainer whose model says what is given: completions and their log-probabilities."""

    def __init__(self, given: dict[str, Any], logprobs: dict[str, Tensor], **arguments: Any):
        super().__init__(reward_funcs=lambda completions, **more: given["rewards"], **arguments)
        self.given, self.logprobs = given, logprobs

    def _generate(self, prompts: list) -> tuple:
        masks, sampled = self.given["mask"], self.given["sampler"]
        ends = [max(t for t in range(TOKENS) if row[t]) + 1 for row in masks]
        completions = [[1] * end for end in ends]
        masks = [row[:end] for row, end in zip(masks, ends, strict=True)]
        sampled = [row[:end] for row, end in zip(sampled, ends, strict=True)]
        texts = ["a"] * ROLLOUTS
        return [[1]] * ROLLOUTS, completions, masks, texts, sampled, {}, None, None

    def _get_per_token_logps_and_entropies(self, model: Any, *args: Any, **kwargs: Any):
        if torch.is_grad_enabled():
            name = "trainer"
        else:
            name = "reference" if model is self.ref_model else "old"
        return self.logprobs[name], torch.zeros(ROLLOUTS, TOKENS), None


def values(given: dict[str, Any]) -> dict[str, Any]:
    """Runs a trainer for each case."""
    logprobs = {
        name: torch.tensor(given[name], dtype=torch.float64)
        for name in ("old", "trainer", "sampler", "reference")
    }
    logprobs["trainer"].requires_grad_()
    found: dict[str, Any] = {"losses": {}, "advantages": {}}
    with tempfile.TemporaryDirectory() as folder:
        write_tiny_model(folder)
        for name, case in given["losses"].items():
            trainer = open_trainer(given, logprobs, case, folder)
            batch = trainer._generate_and_score_completions(ROWS)
            loss = trainer._compute_loss(trainer.model, batch)
            (gradient,) = torch.autograd.grad(loss, logprobs["trainer"])
            found["losses"][name] = {"value": loss.item(), "gradient": gradient.tolist()}
            found["loss_advantages"] = batch["advantages"].tolist()
        for name, scale in (("grpo", "group"), ("dr_grpo", "none")):
            case = DEFAULTS | LOSSES["grpo"]
            trainer = open_trainer(given, logprobs, case, folder, scale_rewards=scale)
            batch = trainer._generate_and_score_completions(ROWS)
            found["advantages"][name] = batch["advantages"].tolist()
    return found


def open_trainer(
    given: dict[str, Any],
    logprobs: dict[str, Tensor],
    case: dict[str, Any],
    folder: str,
    **more: Any,
) -> GivenTrainer:
    trainer = GivenTrainer(
        given,
        logprobs,
        model=folder,
        args=settings_of(case, folder, max_completion_length=given["longest"], **more),
        train_dataset=Dataset.from_list(ROWS),
        processing_class=PreTrainedTokenizerFast.from_pretrained(folder),
    )
    # Only now, so that it does not look for vLLM: the correction is what is wanted.
    trainer.use_vllm = case["importance_correction"] != "off"
    trainer.current_gradient_accumulation_steps = 1
    trainer.model.train()
    return trainer


def settings_of(case: dict[str, Any], folder: str, **more: Any) -> GRPOConfig:
    """Returns a case of ours as TRL's settings say it."""
    cispo = case["surrogate"] == "cispo"
    mode = CORRECTIONS.get(case["importance_correction"], case["importance_correction"])
    return GRPOConfig(
        output_dir=folder,
        use_cpu=True,
        bf16=False,
        report_to="none",
        per_device_train_batch_size=ROLLOUTS,
        num_generations=GROUP,
        num_iterations=2,  # so that old log-probabilities are computed
        loss_type="cispo" if cispo else LOSS_TYPES[case["aggregation"]],
        importance_sampling_level=case["ratio_level"],
        epsilon=case["clip_low"],
        epsilon_high=case["clip_high"] + cispo,  # TRL's bound is on the ratio itself there
        beta=case["kl_weight"],
        use_bias_correction_kl=False,
        vllm_importance_sampling_mode=mode,
        vllm_importance_sampling_clip_max=case["importance_max"],
        vllm_importance_sampling_clip_min=(
            None if mode == "token_truncate" else case["importance_min"]
        ),
        **more,
    )


def write_tiny_model(folder: str) -> None:
    """Writes a model and a tokenizer that a trainer can be opened with: what they say is given."""
    shape = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 1, "num_key_value_heads": 1}
    LlamaForCausalLM(LlamaConfig(vocab_size=4, **shape, **heads)).save_pretrained(folder)
    words = models.WordLevel({"<pad>": 0, "a": 1, "b": 2, "<end>": 3}, unk_token="b")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(words), eos_token="<end>", pad_token="<pad>"
    )
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    answer("trl", values)
