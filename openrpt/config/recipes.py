"""Recipes: configurations that come with the package, named `recipe:NAME` wherever a TOML file is
taken."""

from pathlib import Path

from openrpt.errors import UserError

_PREFIX = "recipe:"
_FOLDER = Path(__file__).parents[1] / "recipes"


def recipe_names() -> list[str]:
    """Returns the names of all recipes, without the prefix, sorted."""
    return sorted(path.name.removesuffix(".toml") for path in _FOLDER.glob("*.toml"))


def is_config(name: str) -> bool:
    """Whether a name is a configuration's, a TOML file or a recipe: not a corpus, model or run."""
    return name.endswith(".toml") or name.startswith(_PREFIX)


def config_path(name: str) -> Path:
    """Returns the file of a configuration. Raises UserError for a recipe that there is not.

    >>> config_path("recipe:demo").name, config_path("mine.toml").name
    ('demo.toml', 'mine.toml')
    """
    if not name.startswith(_PREFIX):
        return Path(name)
    recipe, known = name.removeprefix(_PREFIX), recipe_names()
    if recipe not in known:
        raise UserError(f"{name}: no such recipe; there are {', '.join(known)}")
    return _FOLDER / f"{recipe}.toml"
