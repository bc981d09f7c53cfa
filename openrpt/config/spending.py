"""`[track]` and `[cost]`: who follows a run, and what its hours cost."""

from typing import ClassVar, Literal

from pydantic import Field

from openrpt.config.section import MOST, NOTHING, Binds, Section


class TrackConfig(Section):
    """Trackers that follow a run's stages; metrics.jsonl is written without any."""

    BINDS: ClassVar[Binds] = NOTHING

    to: list[Literal["tensorboard", "wandb", "trackio", "mlflow"]] = Field(
        [], description="Trackers, each an extra of its name: pip install 'openrpt[tensorboard]'"
    )
    project: str = Field("openrpt", description="Project or experiment that runs are filed under")
    rollouts_every: int = Field(20, ge=1, le=MOST, description="Steps between tables of rollouts")


class CostConfig(Section):
    """What an hour costs, and what the machine draws where it can't be measured."""

    BINDS: ClassVar[Binds] = NOTHING

    price_per_hour: float = Field(
        0.0, ge=0, description="Price of the machine for an hour; 0 = unknown, no money is shown"
    )
    currency: str = Field("USD", description="Currency of that price, as it is printed")
    watts: float = Field(
        0.0,
        ge=0,
        description="Power at work where no counter can be read (RAPL, NVML), in watts; 0 = a"
        " guess: 65 on a CPU, 400 on a CUDA GPU",
    )
