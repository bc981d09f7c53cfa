"""`[engine]`: what computes the policy in training, and what draws its rollouts."""

from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field

from openrpt.config.parts import PartName
from openrpt.config.section import MOST, MOST_SECONDS, NOTHING, Binds, OptionalPath, Section, binds

Trainer = Literal["tree", "flat"]
"""How sequences of a document are computed: over what they share, or each alone."""


class EngineConfig(Section):
    """What computes the policy, and what draws training's rollouts."""

    BINDS: ClassVar[Binds] = binds("train", "finetune")

    trainer: Annotated[Trainer, binds("warmup", "train", "finetune", "pretrain", "evaluation")] = (
        Field(
            "tree", description="tree shares a document's prefix; flat computes every prompt alone"
        )
    )
    sampler: Annotated[str, AfterValidator(PartName(kind="sampler", known=("same", "vllm")))] = (
        Field(
            "same",
            description="What draws training's rollouts: the trainer's own engine, vLLM"
            " (docs/vllm.md), or what a function of yours opens (docs/own_parts.md)",
        )
    )
    max_staleness: int = Field(
        0,
        ge=0,
        le=MOST,
        description="Another sampler than the trainer's: most optimizer steps by which its weights"
        " may be older than the policy's; 0 = they are handed over before every step",
    )
    server: Annotated[str, NOTHING] = Field(
        "",
        description="vllm: address of a `vllm serve`, http://HOST:PORT; empty = vLLM runs in this"
        " process",
    )
    shared_folder: Annotated[OptionalPath, NOTHING] = Field(
        "",
        description="vllm with a server: folder that the server sees, too, under the same path;"
        " weights are handed over there",
    )
    timeout: Annotated[float, NOTHING] = Field(
        600.0, gt=0, le=MOST_SECONDS, description="vllm: seconds that the server has for an answer"
    )
    retries: Annotated[int, NOTHING] = Field(
        5,
        ge=0,
        le=100,
        description="vllm: how often a request is put again, after 1, 2, 4 … seconds, where the"
        " server can't be reached or is busy",
    )
    cache_gib: Annotated[float, NOTHING] = Field(
        1.0, gt=0, le=10_000, description="vllm in this process: room for keys and values, GiB"
    )
