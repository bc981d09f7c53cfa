"""`[parallel]`: several processes that share the steps of a stage."""

from typing import ClassVar, Literal

from pydantic import Field

from openrpt.config.section import NOTHING, Binds, Section


class ParallelConfig(Section):
    """How the processes of torchrun or accelerate launch work together."""

    BINDS: ClassVar[Binds] = NOTHING

    shard: Literal["none", "optimizer", "weights", "layers"] = Field(
        "none",
        description="What is divided among the processes. none; optimizer: its state, 8 of the 16"
        " bytes that a float32 weight takes; weights: all 16, gathered layer by layer in the update"
        " and whole to generate; layers: all 16, gathered layer by layer to generate, too",
    )
    timeout: float = Field(
        30.0, gt=0, description="Minutes that a process waits for the slowest one, then it gives up"
    )

    @property
    def divides_weights(self) -> bool:
        """Whether each process has only a part of the weights at rest."""
        return self.shard in ("weights", "layers")
