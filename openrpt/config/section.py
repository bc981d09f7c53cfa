"""What every section of the configuration shares: its base, and the bounds of its numbers."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict

from openrpt.config.paths import require_path, require_path_or_none

MOST = 1_000_000_000
"""Upper bound of what only ends a loop that can be stopped: steps, documents, positions."""
MOST_TOKENS = 1_000_000
"""Upper bound of a sequence and of its parts, in tokens."""
MOST_SAMPLES = 10_000
"""Upper bound of the rollouts of a position or question, whose draws are laid out at once."""
MOST_SECONDS = 86_400
MOST_CHARACTERS = 20_000
"""Upper bound of a text in the configuration."""

PathText = Annotated[str, AfterValidator(require_path)]
"""A file, a folder, or a name such as 'champ' or 'datasets:NAME' in its place."""
OptionalPath = Annotated[str, AfterValidator(require_path_or_none)]


class Section(BaseModel):
    # With a bound on its length, pydantic also refuses a text that is not UTF-8.
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        protected_namespaces=(),
        str_max_length=MOST_CHARACTERS,
        allow_inf_nan=False,
    )
