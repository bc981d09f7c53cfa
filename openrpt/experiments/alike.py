"""That what is done already was made as it would be now, where several runs share a table."""

from collections.abc import Sequence

from openrpt.config.binding import first_change, spelled_change
from openrpt.config.loading import flatten
from openrpt.config.sections import Config
from openrpt.errors import UserError
from openrpt.runs.run import Run


def require_made_as(run: Run, config: Config, what: str, *, also: Sequence[str] = ()) -> None:
    """Checks that a run differs from `config` in no key that its results bind, and in none of
    `also`; `what` is what the table calls it. Raises UserError that names the first such key."""
    key = first_change(run.config, config, run.standing())
    if key is None:
        was, now = (flatten(one.model_dump(mode="json")) for one in (run.config, config))
        key = next((one for one in also if was[one] != now[one]), None)
    if key is not None:
        change = spelled_change(key, run.config, config)
        raise UserError(f"{run.path}: the {what} was made with {change}; choose another --run")
