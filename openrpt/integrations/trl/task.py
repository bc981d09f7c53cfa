"""The next-token task as `GRPOTrainer` takes it: model, dataset, reward, rollouts."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openrpt.config.sections import Config
from openrpt.data.prompts import Budget, Layout
from openrpt.data.tokens import literal_bytes
from openrpt.errors import UserError
from openrpt.extras import require
from openrpt.integrations.trl.rollouts import only_read, requests_of
from openrpt.integrations.trl.rows import DatasetRows
from openrpt.rl.completions import extract_prediction
from openrpt.rl.rewards.matching import prefix_match
from openrpt.runs.run import Run, existing_run

if TYPE_CHECKING:
    from datasets import IterableDataset
    from trl import GRPOTrainer

    from openrpt.engine.engine import Engine
    from openrpt.engine.model import Model

_PLAIN = {"top_p": (1.0,), "top_k": (0, None), "min_p": (0.0, None), "repetition_penalty": (1.0,)}
"""The settings of `GRPOConfig` that change what is drawn, with the values that change nothing."""


def open_task(run: str | Path) -> "TrlTask":
    """Opens what TRL trains on: the scored corpus of a run, and the policy that `openrpt train`
    would begin from.

    The model is loaded on the CPU; TRL's trainer moves it. Raises UserError where no run or no
    scores are, as `load_model`, and for settings that TRL can't be given.
    """
    from openrpt.engine.engine import open_seeding_start
    from openrpt.engine.loading import load_model
    from openrpt.runs.scores import scores_of

    found = existing_run(Path(run))
    config = found.config
    _require_prefix_match(config)
    scores_of(found)
    path = str(found.start) if found.start.is_dir() else config.model.path
    on_cpu = config.model.model_copy(update={"device": "cpu"})
    model = load_model(on_cpu, path=path, trained=True)
    start = open_seeding_start(config)
    return TrlTask(run=found, policy=model, layout=model.layout(config.prompt), start=start)


def _require_prefix_match(config: Config) -> None:
    settings = config.reward
    if settings.terms != {"prefix": 1.0} or settings.thought_cost:
        raise UserError(
            "TRL is given the prefix match alone; leave reward.terms and reward.thought_cost at"
            " their defaults, and add your own reward to GRPOTrainer's reward_funcs"
        )
    if config.selection.curriculum:
        raise UserError(
            "TRL's dataset can't follow what was right so far; set selection.curriculum = 0"
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class TrlTask:
    """The next-token task as `GRPOTrainer` takes it."""

    run: Run
    policy: "Model"
    layout: Layout
    start: "Engine | None"
    """The engine whose candidates seed the thought, where not the policy's own."""

    @property
    def parts(self) -> dict[str, Any]:
        """All that `GRPOTrainer` takes of the task, by the names of its parameters."""
        return {
            "model": self.model,
            "processing_class": self.tokenizer,
            "train_dataset": self.dataset,
            "reward_funcs": self.prefix_match,
            "rollout_func": self.rollout,
        }

    @property
    def model(self) -> Any:
        """The policy, for `GRPOTrainer(model=…)`."""
        return self.policy.network

    @property
    def tokenizer(self) -> Any:
        """The policy's tokenizer, for `GRPOTrainer(processing_class=…)`."""
        return self.policy.tokenizer

    @property
    def max_completion_length(self) -> int:
        """Most tokens of a completion that are trained: what `dr_grpo` divides by, as in `openrpt
        train`."""
        return Budget.of(self.run.config.prompt).trained(self.layout)

    @property
    def dataset(self) -> "IterableDataset":
        """The positions in the order in which `openrpt train` takes them, without end: a stream, so
        `GRPOConfig` needs `max_steps`, and `shuffle_dataset=False` to keep the order.

        Columns: `prompt` (`ids`, `document_id`, `position`), `continuation` (the bytes of the true
        tokens that follow).
        """
        require("datasets", extra="trl", what="openrpt.integrations.trl")
        from datasets import Features, IterableDataset, List, Value

        features = Features(
            {
                "prompt": {
                    "ids": List(Value("int64")),
                    "document_id": Value("string"),
                    "position": Value("int64"),
                },
                "continuation": List(Value("binary")),
            }
        )
        rows = DatasetRows(run=self.run, layout=self.layout)
        return IterableDataset.from_generator(rows.each, features=features)

    def prefix_match(
        self,
        completion_ids: Sequence[Sequence[int]],
        continuation: Sequence[Sequence[bytes]],
        **columns: Any,
    ) -> list[float]:
        """Rewards each completion by the bytes of its ids, for `GRPOTrainer(reward_funcs=…)`: 1.0
        where its prediction ends on a token boundary of the continuation, else 0.0."""
        return [
            prefix_match(self._prediction(ids), pieces)
            for ids, pieces in zip(completion_ids, continuation, strict=True)
        ]

    def _prediction(self, ids: Sequence[int]) -> bytes | None:
        text = literal_bytes(self.policy.table, ids, self.layout.literal)
        return extract_prediction(text, thought_end=self.layout.thought_end)

    def rollout(self, prompts: list[dict[str, Any]], trainer: "GRPOTrainer") -> dict[str, Any]:
        """Makes one completion for each prompt of a process's slice, in which TRL repeats a prompt
        `num_generations` times, for `GRPOTrainer(rollout_func=…)`.

        The run's engine draws, so the seed and the close of the thought are forced, and positions
        of a document share its prefix. Forced tokens are 0 in `env_mask`: TRL trains on the others.
        Draws are keyed as in `openrpt train` (the run's seed, step, document, position, rollout)
        and made in the precision in which TRL trains. Raises UserError for a trainer of another
        model and for settings that would draw otherwise.
        """
        import torch

        from openrpt.engine.decoding import Sampling
        from openrpt.engine.engine import bind

        self._require_own(trainer)
        first = trainer.accelerator.process_index * len(prompts)  # a group may be split over them
        step = (self.run.config.seed, trainer.state.global_step + 1)
        requests = list(requests_of(prompts, len(self.layout.tail_ids), step, first=first))
        config = self.run.config
        sampling = Sampling.of(
            config.prompt,
            temperature=trainer.temperature,
            generation_rollouts=config.memory.generation_rollouts,
        )
        mixed = trainer.args.bf16 and self.policy.causal_lm.dtype == torch.float32
        policy = replace(self.policy, compute_dtype=torch.bfloat16 if mixed else None)
        with only_read(policy):
            engine = bind(config.engine.trainer, policy, self.start)
            outcomes = list(engine.generate_each(requests, self.layout, sampling))
        completions = [c for found in outcomes for one in found for c in one.completions]
        return {
            "prompt_ids": [one["ids"] for one in prompts],
            "completion_ids": [list(one.token_ids) for one in completions],
            "logprobs": [list(one.sampler_logprobs) for one in completions],
            "env_mask": [list(map(int, one.loss_mask)) for one in completions],
        }

    def _require_own(self, trainer: "GRPOTrainer") -> None:
        """Checks that what is drawn here is what the trainer trains. Raises UserError."""
        from transformers.integrations import is_deepspeed_zero3_enabled

        if trainer.is_fsdp_enabled or is_deepspeed_zero3_enabled():
            raise UserError(
                "the model's weights are sharded (FSDP, ZeRO-3), and rollouts need them whole; take"
                " DDP or ZeRO-2, or give rollout_func=unforced_rollout"
            )
        if trainer.use_vllm:
            raise UserError(
                "use_vllm starts an engine that these rollouts don't ask; leave it out, or give"
                " rollout_func=unforced_rollout"
            )
        if trainer.accelerator.unwrap_model(trainer.model) is not self.model:
            raise UserError(
                "the trainer has another model than the rollouts; give GRPOTrainer"
                " model=task.model (LoRA is made by model.lora_rank of the run, not by peft_config)"
            )
        for name, plain in _PLAIN.items():
            if (value := getattr(trainer, name)) not in plain:
                raise UserError(
                    f"GRPOConfig({name}={value}): rollouts are drawn from the plain softmax, at"
                    " `temperature` alone; leave it at its default"
                )
