"""What each world needs beside the laboratory's common settings: the one place where they differ.

A start must write worked thoughts and read them when it answers; how long that takes depends on the
world. Decided on seeds from 100 on, apart from those whose results are shown.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The start's text and size, and the length of its training and of reinforcement."""

    shares: str = "worked=0.3&filler=0.5"
    """The styles of the start's text, as parameters of the world."""
    width: int = 64
    """The model's."""
    text_steps: int = 2000
    """Steps of pre-training, of 1,200 tokens."""
    rpt_steps: int = 80
    """Steps of reinforcement, of 16 problems with 16 rollouts each."""
    rpt_learning_rate: float = 5e-4
    opens_at: float = 0.9
    """The share of right rollouts at which the curriculum opens the next depth."""


_RECIPES = {
    "permutations": Recipe(text_steps=2500, rpt_learning_rate=1e-3),
    "find": Recipe(shares="worked=0.1&filler=0.1", opens_at=0.8),
}
"""The worlds whose recipe is not the common one."""


def recipe_of(world: str) -> Recipe:
    """Returns the recipe of a world by its name."""
    return _RECIPES.get(world, Recipe())
