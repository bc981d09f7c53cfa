"""The check of a user's own parts, before anything is loaded."""

from collections.abc import Callable

from openrpt.config.binding import bindings
from openrpt.config.loading import flatten
from openrpt.config.sections import Config, StageName
from openrpt.data.own_selection import load_selection
from openrpt.data.prompt_texts import template_of
from openrpt.engine.own_sampler import load_sampler
from openrpt.rl.own_advantages import load_advantages
from openrpt.rl.rewards.configured import make_terms
from openrpt.user_code import is_import_path

_LOADED: dict[str, Callable[[Config], object]] = {
    "prompt.template": lambda config: template_of(config.prompt),
    "selection.strategy": lambda config: load_selection(config.selection),
    "engine.sampler": lambda config: load_sampler(config.engine),
    "reward.terms": make_terms,
    "train.advantage": lambda config: load_advantages(config.train),
}
"""The keys that may name a user's own part, and what loads it."""


def own_parts(config: Config) -> list[str]:
    """Returns the import paths of a user's own parts that a configuration names."""
    flat = flatten(config.model_dump(mode="json"))
    named = [flat[key] for key in _LOADED if isinstance(flat.get(key), str)]
    return [path for path in (*named, *config.reward.terms) if is_import_path(path)]


def require_own_parts(config: Config, *stages: StageName) -> None:
    """Checks that the parts which these stages read can be had. Raises UserError, which names the
    key."""
    for key, load in _LOADED.items():
        if set(stages) & set(bindings()[key].what):
            load(config)
