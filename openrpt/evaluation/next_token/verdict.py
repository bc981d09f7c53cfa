"""Whether thinking is said to help: what the real thought must beat, in one sentence."""

from collections.abc import Mapping, Sequence

from openrpt.evaluation.next_token.results import EvaluationResult, paired_differences
from openrpt.evaluation.statistics import Difference

_NEEDED = {
    "standard": "its own standard prediction",
    "emptied": "its emptied thought",
    "swapped": "another position's thought",
    "no thought": "a run trained without a thought",
}
"""The controls that the real thought must beat before thinking is said to help, in words. A
thought that only carries the model's first guess beats every other thought, and adds nothing to
that guess."""


def result_verdict(
    result: EvaluationResult, without_thought: EvaluationResult | None = None
) -> str:
    """Says whether thinking helps by one model's result; `without_thought` as in
    `thought_differences`."""
    return verdict(thought_differences(result, without_thought), _span_difference(result))


def thought_differences(
    result: EvaluationResult, without_thought: EvaluationResult | None = None
) -> dict[str, Difference]:
    """Returns reasoning − each of _NEEDED that was evaluated, over all positions.

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


def _span_difference(result: EvaluationResult) -> Difference | None:
    """Returns reasoning − standard prediction by whole span, over all positions; None where spans
    were not graded."""
    if not {"span", "span_ntp"} <= result.columns.keys():
        return None
    everywhere = {"all": result.slices()["all"]}
    found = paired_differences(result, "span", result, "span_ntp", everywhere)["all"]
    return found if found.n else None


def verdict(differences: Mapping[str, Difference], spans: Difference | None = None) -> str:
    """Says whether thinking helps: only if the real thought beats all of _NEEDED.

    Prefix match holds one token of standard prediction against whatever is in the box. So where
    standard prediction alone decides, and `spans` (see `_span_difference`) says the opposite, both
    are named and neither is called the answer.
    """
    standard = differences.get("standard")
    if spans is None or standard is None:
        return _by_prefix_match(differences)
    others = {name: d for name, d in differences.items() if name != "standard"}
    agrees = (spans.low > 0) == (standard.low > 0)
    if not agrees and all(d.low > 0 for d in others.values()):
        return _undecided(standard, spans, others)
    does = "beats" if spans.low > 0 else "does not beat"
    said = f"By whole span it {does} {_NEEDED['standard']}{', too' if agrees else ''}"
    return f"{_by_prefix_match(differences)} {said} ({_points(spans)})."


def _undecided(standard: Difference, spans: Difference, others: Mapping[str, Difference]) -> str:
    """Says what two gradings make of the thought against standard prediction, where they
    contradict each other; it beats all `others`."""
    does, other = ("beats", "does not") if standard.low > 0 else ("does not beat", "does")
    found = (
        f"Whether thinking helps depends on the grading: by prefix match the real thought {does}"
        f" {_spell('standard', standard)}, by whole span (all of a number or word) it {other}"
        f" ({_points(spans)})."
    )
    if others:
        found += f" It beats {_join([_spell(name, d) for name, d in others.items()], 'and')}."
    missing = [words for name, words in _NEEDED.items() if name not in {"standard", *others}]
    return f"{found} {_join(missing, 'and').capitalize()} was not compared." if missing else found


def _by_prefix_match(differences: Mapping[str, Difference]) -> str:
    beaten = [_spell(name, d) for name, d in differences.items() if d.low > 0]
    unbeaten = [_spell(name, d) for name, d in differences.items() if not d.low > 0]
    missing = [_NEEDED[name] for name in _NEEDED if name not in differences]
    if unbeaten:
        return (
            f"Thinking is not said to help: the real thought does not beat {_join(unbeaten, 'or')}."
        )
    if missing:
        so_far = f"the real thought beats {_join(beaten, 'and')}, but " if beaten else ""
        return f"Whether thinking helps is open: {so_far}{_join(missing, 'and')} was not compared."
    return f"Thinking helps: the real thought beats {_join(beaten, 'and')}."


def _spell(name: str, difference: Difference) -> str:
    return f"{_NEEDED[name]} ({_points(difference)})"


def _points(difference: Difference) -> str:
    value, low, high = (100 * v for v in (difference.value, difference.low, difference.high))
    return f"{value:+.1f} points [{low:+.1f}, {high:+.1f}]"


def _join(parts: Sequence[str], word: str) -> str:
    return f" {word} ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
