"""`[model]` and `[memory]`: the policy, and how it is run."""

from dataclasses import replace
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from openrpt.config.section import MOST, NOTHING, Binds, PathText, Section, binds


class ModelConfig(Section):
    """The policy, and how it is run."""

    BINDS: ClassVar[Binds] = binds("score", "warmup", "train", "finetune", "pretrain", "evaluation")

    # Where another model scores, scores depend on the policy's tokens alone (`runs.scores`).
    path: Annotated[PathText, replace(BINDS, under=("score", "score.model", ""))] = Field(
        "smollm2",
        description="Policy: 'smollm2' (the default model), a folder, a .gguf file, a Hub id, or"
        " 'new:llama[?layers=2&width=64&heads=4&mlp=3&context=512&seed=0]', from scratch",
    )
    device: Annotated[str, NOTHING] = Field("auto", description="auto, cpu, cuda, cuda:1, mps")
    dtype: Literal["float32", "bfloat16", "float64"] = Field(
        "float32", description="Precision of weights, gradients and optimizer"
    )
    compute_dtype: Literal["auto", "same", "bfloat16"] = Field(
        "same",
        description="Precision of matrix products: that of the weights, or bfloat16 beside float32"
        " weights (mixed precision); auto = bfloat16 where a measurement, as a run begins, finds"
        " it at least twice as fast",
    )
    threads: Annotated[int, NOTHING] = Field(
        0,
        ge=0,
        description="CPU threads; 0 = all the cores this process may use (on cores that are busy,"
        " and for a tiny model, 1 is faster)",
    )
    lora_rank: Annotated[int, binds("warmup", "train", "finetune", "pretrain")] = Field(
        0, ge=0, le=4096, description="Rank of LoRA adapters; 0 = full fine-tuning"
    )
    lora_alpha: Annotated[int, binds("warmup", "train", "finetune", "pretrain")] = Field(
        32, gt=0, le=1_000_000, description="LoRA scale numerator (alpha / rank)"
    )
    trust_remote_code: bool = Field(False, description="Run model code that a repository ships")

    @property
    def is_mixed(self) -> bool:
        """Whether products are computed in another precision than the weights have."""
        return self.compute_dtype == "bfloat16"

    @property
    def product_dtype(self) -> str:
        """The precision of matrix products."""
        return self.compute_dtype if self.is_mixed else self.dtype

    @property
    def precision(self) -> str:
        """What is said of both: "float32", or "float32, products in bfloat16"."""
        return f"{self.dtype}, products in {self.compute_dtype}" if self.is_mixed else self.dtype

    @model_validator(mode="after")
    def _mixes_float32(self) -> "ModelConfig":
        if self.is_mixed and self.dtype != "float32":
            raise ValueError(
                f"compute_dtype = '{self.compute_dtype}' is for float32 weights, but dtype ="
                f" '{self.dtype}'; set one of them only"
            )
        return self


class MemoryConfig(Section):
    """What is computed at once: memory and time, never results."""

    BINDS: ClassVar[Binds] = NOTHING

    microbatch_tokens: int = Field(
        512,
        ge=1,
        le=MOST,
        description="Tokens run forward and backward at once: completions, or several prefixes",
    )
    generation_rollouts: int = Field(256, ge=1, le=MOST, description="Rollouts decoded at once")
    gradient_checkpointing: bool = Field(
        False, description="Recompute activations in the backward pass: less memory, more time"
    )
