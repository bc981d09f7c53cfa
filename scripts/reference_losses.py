"""Advantages and losses as TRL and verl compute them, on random inputs, for the tests.

    python scripts/reference_losses.py     # writes tests/fixtures/reference_losses.json

Each library runs in an environment of its own (scripts/environments.py builds it, once). TRL's
values are those of a real `GRPOTrainer`, of which nothing is replaced but what a model would have
said: the completions and their log-probabilities are the given ones. verl's are those of its
`core_algos` and `rollout_corr_helper`. tests/rl/test_reference_losses.py compares ours with them.

    PEER_PYTHON scripts/reference_losses.py trl INPUTS.json FOUND.json     # what it runs itself
"""

import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
TARGET = ROOT / "tests" / "fixtures" / "reference_losses.json"
SEED = 0

ROLLOUTS, GROUP, TOKENS = 8, 4, 6
LENGTHS = (6, 4, 1, 5, 3, 6, 2, 6)
LONGEST = 9
"""Most tokens that a completion may have: Dr. GRPO's constant."""

LOSSES: dict[str, dict[str, Any]] = {
    "grpo": {"aggregation": "sequence_mean"},
    "dr_grpo": {"aggregation": "constant_length"},
    "dapo": {"aggregation": "token_mean", "clip_high": 0.28},
    "gspo": {
        "aggregation": "sequence_mean",
        "ratio_level": "sequence",
        "clip_low": 0.03,
        "clip_high": 0.04,
    },
    "cispo": {
        "aggregation": "token_mean",
        "surrogate": "cispo",
        "clip_low": 1.0,
        "clip_high": 0.3,
    },
    "kl": {"aggregation": "sequence_mean", "kl_weight": 0.3},
    "truncate": {"aggregation": "token_mean", "importance_correction": "truncate"},
    "token_mask": {"aggregation": "token_mean", "importance_correction": "token_mask"},
    "sequence_mask": {"aggregation": "sequence_mean", "importance_correction": "sequence_mask"},
}
"""Name → what differs from the defaults below: keys of openrpt's LossConfig."""
DEFAULTS: dict[str, Any] = {
    "ratio_level": "token",
    "surrogate": "clip",
    "clip_low": 0.2,
    "clip_high": 0.2,
    "kl_weight": 0.0,
    "importance_correction": "off",
    "importance_min": 0.8,
    "importance_max": 1.25,
}


def make_inputs(seed: int) -> dict[str, Any]:
    """Log-probabilities that straddle the clips and the bands; rewards with flat groups."""
    rng = random.Random(seed)

    def table(around: list[list[float]], spread: float) -> list[list[float]]:
        return [[value + rng.gauss(0, spread) for value in row] for row in around]

    old = table([[-2.0] * TOKENS] * ROLLOUTS, 0.5)
    mask = [[int(token < length) for token in range(TOKENS)] for length in LENGTHS]
    mask[0][2] = 0  # a forced token in the middle
    binary = [[float(rng.random() < 0.4) for _ in range(5)] for _ in range(6)]
    return {
        "rewards": [1.0, 0.0, 0.25, 0.0, 0.5, 0.0, 1.0, 1.0],  # of the losses' two groups
        "group_rewards": [*binary, [1.0] * 5, [0.0] * 5],
        "dense_rewards": [[rng.random() for _ in range(5)] for _ in range(6)],
        "old": old,
        "trainer": table(old, 0.3),
        "sampler": table(old, 0.15),
        "reference": table(old, 0.3),
        "mask": mask,
        "longest": LONGEST,
        "losses": {name: DEFAULTS | case for name, case in LOSSES.items()},
    }


def trl_values(given: dict[str, Any]) -> dict[str, Any]:
    """Runs a GRPOTrainer's own scoring and loss for each case."""
    import torch
    from datasets import Dataset
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
    from trl import GRPOConfig, GRPOTrainer

    tensors = {
        name: torch.tensor(given[name], dtype=torch.float64)
        for name in ("old", "trainer", "sampler", "reference")
    }
    tensors["trainer"].requires_grad_()
    ends = [max(t for t in range(TOKENS) if row[t]) + 1 for row in given["mask"]]

    class GivenTrainer(GRPOTrainer):
        def _generate(self, prompts: list) -> tuple:
            completions = [[1] * end for end in ends]
            masks = [row[:end] for row, end in zip(given["mask"], ends, strict=True)]
            sampled = [row[:end] for row, end in zip(given["sampler"], ends, strict=True)]
            texts = ["a"] * ROLLOUTS
            return [[1]] * ROLLOUTS, completions, masks, texts, sampled, {}, None, None

        def _get_per_token_logps_and_entropies(self, model: Any, *args: Any, **kwargs: Any):
            if torch.is_grad_enabled():
                name = "trainer"
            else:
                name = "reference" if model is self.ref_model else "old"
            return tensors[name], torch.zeros(ROLLOUTS, TOKENS), None

    def trainer_of(case: dict[str, Any], folder: str, **settings: Any) -> GRPOTrainer:
        types = {"sequence_mean": "grpo", "constant_length": "dr_grpo", "token_mean": "dapo"}
        cispo = case["surrogate"] == "cispo"
        modes = {"truncate": "token_truncate", "off": "token_truncate"}
        mode = modes.get(case["importance_correction"], case["importance_correction"])
        arguments = GRPOConfig(
            output_dir=folder,
            use_cpu=True,
            bf16=False,
            report_to="none",
            per_device_train_batch_size=ROLLOUTS,
            num_generations=GROUP,
            num_iterations=2,  # so that old log-probabilities are computed
            max_completion_length=given["longest"],
            loss_type="cispo" if cispo else types[case["aggregation"]],
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
            **settings,
        )
        trainer = GivenTrainer(
            model=folder,
            reward_funcs=lambda completions, **kwargs: given["rewards"],
            args=arguments,
            train_dataset=Dataset.from_dict({"prompt": ["a"] * ROLLOUTS}),
            processing_class=PreTrainedTokenizerFast.from_pretrained(folder),
        )
        # Only now, so that it does not look for vLLM: the correction is what is wanted.
        trainer.use_vllm = case["importance_correction"] != "off"
        trainer.current_gradient_accumulation_steps = 1
        trainer.model.train()
        return trainer

    found: dict[str, Any] = {"losses": {}, "advantages": {}}
    with tempfile.TemporaryDirectory() as folder:
        shape = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
        heads = {"num_attention_heads": 1, "num_key_value_heads": 1}
        LlamaForCausalLM(LlamaConfig(vocab_size=4, **shape, **heads)).save_pretrained(folder)
        tiny_tokenizer().save_pretrained(folder)
        rows = [{"prompt": "a"}] * ROLLOUTS
        for name, case in given["losses"].items():
            trainer = trainer_of(case, folder)
            batch = trainer._generate_and_score_completions(rows)
            loss = trainer._compute_loss(trainer.model, batch)
            (gradient,) = torch.autograd.grad(loss, tensors["trainer"])
            found["losses"][name] = {"value": loss.item(), "gradient": gradient.tolist()}
            found["loss_advantages"] = batch["advantages"].tolist()
        for name, scale in (("grpo", "group"), ("dr_grpo", "none")):
            trainer = trainer_of(DEFAULTS | LOSSES["grpo"], folder, scale_rewards=scale)
            batch = trainer._generate_and_score_completions(rows)
            found["advantages"][name] = batch["advantages"].tolist()
    return found


def tiny_tokenizer() -> Any:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = models.WordLevel({"<pad>": 0, "a": 1, "b": 2, "<end>": 3}, unk_token="b")
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(words), eos_token="<end>", pad_token="<pad>"
    )


def verl_values(given: dict[str, Any]) -> dict[str, Any]:
    import numpy as np
    import torch
    from verl.trainer.ppo import core_algos as algos
    from verl.trainer.ppo.rollout_corr_helper import compute_rollout_correction_weights
    from verl.workers.config import ActorConfig

    mask = torch.tensor(given["mask"], dtype=torch.float64)
    old, sampler, reference = (
        torch.tensor(given[name], dtype=torch.float64) for name in ("old", "sampler", "reference")
    )
    modes = {
        "sequence_mean": "seq-mean-token-mean",
        "constant_length": "seq-mean-token-sum-norm",
        "token_mean": "token-mean",
    }

    def advantages(rewards: list[list[float]]) -> dict[str, list[list[float]]]:
        """A completion is one token here, so that verl's token statistics are of rollouts."""
        scores = torch.tensor(rewards, dtype=torch.float64)
        index = np.repeat(np.arange(len(scores)), scores.shape[1])

        def run(function: Any, **settings: Any) -> list[list[float]]:
            flat = scores.reshape(-1, 1)
            values, _ = function(flat.clone(), torch.ones_like(flat), index=index, **settings)
            return values.reshape(scores.shape).tolist()

        return {
            "grpo": run(algos.compute_grpo_outcome_advantage),
            "dr_grpo": run(algos.compute_grpo_outcome_advantage, norm_adv_by_std_in_grpo=False),
            "rloo": run(algos.compute_rloo_outcome_advantage),
            "reinforce_plus_plus": run(
                algos.compute_reinforce_plus_plus_baseline_outcome_advantage
            ),
        }

    def loss_of(case: dict[str, Any], values: torch.Tensor) -> torch.Tensor:
        trainer = torch.tensor(given["trainer"], dtype=torch.float64, requires_grad=True)
        info = {
            "dp_size": 1,
            "batch_num_tokens": int(mask.sum()),
            "global_batch_size": ROLLOUTS,
            "loss_scale_factor": given["longest"],
        }
        config = ActorConfig(
            strategy="fsdp",
            rollout_n=GROUP,
            ppo_micro_batch_size_per_gpu=1,
            clip_ratio_low=case["clip_low"],
            clip_ratio_high=case["clip_high"],
            clip_ratio_c=1e9,  # no dual clip
            global_batch_info=info,
        )
        name = "gspo" if case["ratio_level"] == "sequence" else "vanilla"
        name = "cispo" if case["surrogate"] == "cispo" else name
        weights = None
        correction = case["importance_correction"]
        if correction != "off":
            band = f"{case['importance_min']}_{case['importance_max']}"
            weights, _ = compute_rollout_correction_weights(
                old - sampler,
                mask,
                rollout_is="sequence" if correction == "sequence_mask" else "token",
                rollout_is_threshold=case["importance_max"] if correction == "truncate" else band,
            )
        mode = modes[case["aggregation"]]
        loss, _ = algos.get_policy_loss_fn(name)(
            old, trainer, values[:, None] * mask, mask, mode, config, weights
        )
        if case["kl_weight"]:
            penalty = algos.kl_penalty(trainer, reference, "k3")
            loss = loss + case["kl_weight"] * algos.agg_loss(penalty, mask, mode, **info)
        (gradient,) = torch.autograd.grad(loss, trainer)
        return {"value": loss.item(), "gradient": gradient.tolist()}

    rewards = torch.tensor(given["rewards"]).reshape(-1, GROUP).tolist()
    values = torch.tensor(advantages(rewards)["grpo"], dtype=torch.float64).reshape(-1)
    return {
        "loss_advantages": values.tolist(),
        "losses": {name: loss_of(case, values) for name, case in given["losses"].items()},
        "advantages": {
            name: advantages(given[name]) for name in ("group_rewards", "dense_rewards")
        },
    }


PEERS = {"trl": trl_values, "verl": verl_values}


def main() -> None:
    from environments import environment_python

    given = make_inputs(SEED)
    found: dict[str, Any] = {"made_by": "scripts/reference_losses.py", "inputs": given}
    with tempfile.TemporaryDirectory() as folder:
        inputs = Path(folder) / "inputs.json"
        inputs.write_text(json.dumps(given))
        for name in PEERS:
            output = Path(folder) / f"{name}.json"
            subprocess.run([environment_python(name), __file__, name, inputs, output], check=True)
            found[name] = json.loads(output.read_text())
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(TARGET, {name: found[name]["versions"] for name in PEERS})


def peer_main(name: str, inputs: Path, output: Path) -> None:
    from importlib.metadata import version

    versions = {library: version(library) for library in (name, "torch", "transformers")}
    found = PEERS[name](json.loads(inputs.read_text()))
    output.write_text(json.dumps({"versions": versions} | found))


if __name__ == "__main__":
    if len(sys.argv) == 1:
        main()
    else:
        peer_main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
