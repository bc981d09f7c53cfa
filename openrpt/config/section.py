"""The base of every section of the configuration, and the bounds of its numbers."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import AfterValidator, BaseModel, ConfigDict

from openrpt.config.paths import require_path, require_path_or_none

if TYPE_CHECKING:
    from openrpt.config.sections import Bound

MOST = 1_000_000_000
"""Upper bound of what only ends a loop that can be stopped: steps, documents, positions."""
MOST_TOKENS = 1_000_000
"""Upper bound of a sequence and of its parts, in tokens."""
MOST_SAMPLES = 10_000
"""Upper bound of the rollouts of a position or question, whose draws are laid out at once."""
MOST_SECONDS = 86_400
"""Upper bound of a time limit on one check or program."""
_MOST_CHARACTERS = 20_000
"""Upper bound of a text in the configuration."""

PathText = Annotated[str, AfterValidator(require_path)]
"""A file, a folder, or a name such as 'champ' or 'datasets:NAME' in its place."""
OptionalPath = Annotated[str, AfterValidator(require_path_or_none)]
"""A path as PathText, or the empty text for none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Binds:
    """The stages that read a key, so that the key may not change once their results stand in the
    run folder."""

    what: "tuple[Bound, ...]"
    recorded: bool = False
    """Whether it may change all the same, since it helps where a step failed or a run goes wrong:
    metrics.jsonl says from which step on another value holds."""
    under: "tuple[Bound, str, str] | None" = None
    """(stage, key, value): it binds that stage only where the key has that value."""


def binds(
    *what: "Bound", recorded: bool = False, under: "tuple[Bound, str, str] | None" = None
) -> Binds:
    """Returns what a section's keys (`BINDS`), or one field (`Annotated[int, binds("train")]`),
    bind."""
    return Binds(what=what, recorded=recorded, under=under)


NOTHING = binds()
"""The binding of keys that say how long, where and in which portions a stage runs, or what it
shows."""


class Section(BaseModel):
    """A section of the configuration: frozen, with no key but its own."""

    BINDS: ClassVar[Binds]
    """The binding of the section's keys that have none of their own."""

    # With a bound on its length, pydantic also refuses a text that is not UTF-8.
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        protected_namespaces=(),
        str_max_length=_MOST_CHARACTERS,
        allow_inf_nan=False,
    )
