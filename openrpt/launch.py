"""What a launcher (torchrun, accelerate launch) says of a process in its environment. No torch."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from openrpt.errors import UserError


@dataclass(frozen=True, kw_only=True, slots=True)
class Launch:
    """The place of this process among those that were launched together."""

    rank: int = 0
    count: int = 1
    """Processes in all."""
    local_rank: int = 0
    local_count: int = 1
    """Processes on this machine."""


def launch(environment: Mapping[str, str] = os.environ) -> Launch:
    """Returns this process' place: 0 of 1 where no launcher started it.

    Raises UserError for an environment that is no launcher's.
    """
    if "WORLD_SIZE" not in environment:
        return Launch()
    found = Launch(
        rank=_number(environment, "RANK"),
        count=_number(environment, "WORLD_SIZE"),
        local_rank=_number(environment, "LOCAL_RANK", otherwise="0"),
        local_count=_number(environment, "LOCAL_WORLD_SIZE", otherwise="1"),
    )
    if not 0 <= found.rank < found.count:
        raise UserError(
            f"RANK = {found.rank} in the environment, but WORLD_SIZE = {found.count}: start the"
            " processes with torchrun"
        )
    return found


def _number(environment: Mapping[str, str], name: str, *, otherwise: str = "") -> int:
    text = environment.get(name, otherwise)
    if not text.isdecimal():
        raise UserError(
            f"WORLD_SIZE is set in the environment, and {name} is {text!r}, no number: start the"
            " processes with torchrun, or unset WORLD_SIZE"
        )
    return int(text)
