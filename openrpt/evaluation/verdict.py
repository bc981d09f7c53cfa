"""Whether thinking is said to help: what the real thought must beat, and the sentence about it."""

from collections.abc import Mapping, Sequence

from openrpt.evaluation.results import EvaluationResult, paired_differences
from openrpt.evaluation.statistics import Difference

NEEDED = {
    "standard": "its own standard prediction",
    "emptied": "its emptied thought",
    "swapped": "another position's thought",
    "no thought": "a run trained without a thought",
}
"""What the real thought must beat before thinking is said to help, in words. A thought that only
carries the model's first guess beats every other thought, and adds nothing to that guess."""


def thought_differences(
    result: EvaluationResult, without_thought: EvaluationResult | None = None
) -> dict[str, Difference]:
    """reasoning − each of NEEDED that was evaluated, over all positions.

    `without_thought`: a run that was trained to predict at once, on the same positions.
    """
    everywhere = {"all": result.slices()["all"]}
    pairs = {"standard": (result, "ntp")}
    pairs |= {name: (result, name) for name in ("emptied", "swapped") if name in result.columns}
    if without_thought is not None:
        pairs["no thought"] = (without_thought, "reasoning")
    return {
        name: paired_differences(result, "reasoning", other, column, everywhere)["all"]
        for name, (other, column) in pairs.items()
    }


def verdict(differences: Mapping[str, Difference]) -> str:
    """Whether thinking is said to help: only if the real thought beats all of NEEDED."""
    beaten = [_spell(name, d) for name, d in differences.items() if d.low > 0]
    unbeaten = [_spell(name, d) for name, d in differences.items() if not d.low > 0]
    missing = [NEEDED[name] for name in NEEDED if name not in differences]
    if unbeaten:
        return (
            f"Thinking is not said to help: the real thought does not beat {_join(unbeaten, 'or')}."
        )
    if missing:
        so_far = f"the real thought beats {_join(beaten, 'and')}, but " if beaten else ""
        return f"Whether thinking helps is open: {so_far}{_join(missing, 'and')} was not compared."
    return f"Thinking helps: the real thought beats {_join(beaten, 'and')}."


def _spell(name: str, difference: Difference) -> str:
    points = [100 * value for value in (difference.value, difference.low, difference.high)]
    return "{} ({:+.1f} points [{:+.1f}, {:+.1f}])".format(NEEDED[name], *points)


def _join(parts: Sequence[str], word: str) -> str:
    return f" {word} ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
