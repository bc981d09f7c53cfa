"""What came of a run, in sentences: of its records alone, the same in the report and on the
terminal."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from openrpt.amounts import count
from openrpt.config.prompt import PromptConfig
from openrpt.data.token_classes import COMPUTED, TOKEN_CLASSES
from openrpt.report.glossary import METRICS, Meaning
from openrpt.report.summary import (
    BEYOND,
    TRAINED,
    WARMUP,
    difference_verdict,
    recorded_label,
)
from openrpt.runs.metrics import numbers
from openrpt.sheets import percent, points

_COPIES = 0.02
"""Share of the positions; a policy that leaves standard prediction more seldom copies it."""
_FORM = 0.95
"""Least share of completions with a prediction: below it, accuracy is lost to form."""
_WINDOW = 5
"""Steps that a metric's last value is the mean of."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What came of a run."""

    said: list[str]
    """What happened, the most important first."""
    caveats: list[str]
    """What is out of its healthy range."""


def run_verdict(
    evaluations: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], prompt: PromptConfig
) -> Verdict:
    """Returns what came of a run: of the trained policy, else of the warmed-up one. `evaluations`:
    as in evaluation.json, `rows`: as in metrics.jsonl."""
    names = {TRAINED: "trained policy", WARMUP: "policy after warmup"}
    found = {model: recorded_label(evaluations, model) for model in names}
    model, label = next(((model, label) for model, label in found.items() if label), ("", ""))
    if not label:
        known = f"; evaluated are: {', '.join(evaluations)}" if evaluations else ""
        said = [f"Neither the policy after warmup nor the trained one has been evaluated{known}."]
    else:
        said = model_sentences(f"The {names[model]}", evaluations[label], prompt)
        if label != model:
            said = [f"By {label}:", *said]
    return Verdict(said=said, caveats=out_of_range(rows))


def model_sentences(name: str, entry: Mapping[str, Any], prompt: PromptConfig) -> list[str]:
    """Returns what one evaluation says of a model: whether it copies, whether reasoning beats the
    same weights' standard prediction, and where. `entry`: as in evaluation.json."""
    summary = entry["summary"]
    if not summary.get("reasoning", {}).get("all", {}).get("n"):
        return [f"{name} was evaluated without reasoning: nothing can be said of its thoughts."]
    found = [_copying(name, summary, prompt), *_against_standard(entry)]
    closed = summary["closed"]["all"]
    if closed["value"] >= _FORM:
        return found
    lost = round((1 - closed["value"]) * closed["n"])
    form = (
        f"{name} made no prediction at {count(lost)} of {count(closed['n'])} positions: accuracy is"
        " lost to form, which a longer warmup teaches."
    )
    # Where most have none, it says nothing that they are not standard prediction's.
    return [form, *found[1:]] if closed["value"] < 0.5 else [*found, form]


def _copying(name: str, summary: Mapping[str, Any], prompt: PromptConfig) -> str:
    """Returns at how many positions the prediction is another than standard prediction's."""
    own = summary["agrees"]["all"]
    start = summary.get("agrees_start", {}).get("all", {"n": 0})
    of_start = prompt.is_seeded_by_start and start["n"]
    agrees, whose = (start, "the start model's ") if of_start else (own, "")
    n = agrees["n"]
    differs = round((1 - agrees["value"]) * n)
    where = f"differs from {whose}standard prediction at {count(differs)} of {count(n)} positions"
    if differs > _COPIES * n:
        return f"{name}'s prediction {where}."
    what = "copies its first candidate" if prompt.candidates else "repeats standard prediction"
    return f"{name} {what}: its prediction {where}."


def _against_standard(entry: Mapping[str, Any]) -> Iterator[str]:
    """Yields whether reasoning beats the same weights' standard prediction: over all positions,
    then by class."""
    summary = entry["summary"]
    reasoning, ntp = summary["reasoning"]["all"], summary.get("ntp", {}).get("all")
    right = f"Reasoning is right at {percent(reasoning)} of {count(reasoning['n'])} positions"
    by_slice = entry.get("thought_value", {}).get("reasoning", {})
    if not ntp or "all" not in by_slice:
        yield f"{right}; the same weights' standard prediction was not evaluated beside it."
        return
    everywhere = by_slice["all"]
    spans = entry["thought_value"].get("span", {}).get("all", {"n": 0})
    otherwise = ""
    if spans["n"] and _in_words(spans) != _in_words(everywhere):
        otherwise = (
            f"; by whole span (all of a number or word): {points(spans)} points, {_in_words(spans)}"
        )
    yield (
        f"{right}, the same weights' standard prediction at {percent(ntp)}:"
        f" {points(everywhere)} points, {_in_words(everywhere)}{otherwise}."
    )
    classes = {name: by_slice[name] for name in (*TOKEN_CLASSES, COMPUTED) if name in by_slice}
    better = [_class(name, d) for name, d in classes.items() if _beyond(d) and d["value"] > 0]
    worse = [_class(name, d) for name, d in classes.items() if _beyond(d) and d["value"] < 0]
    if better or worse:
        parts = [f"better at {', '.join(better)}"] if better else []
        parts += [f"worse at {', '.join(worse)}"] if worse else []
        yield (
            f"By the class of the true token it is {'; '.join(parts)} ({len(classes)} classes,"
            " each at 95 %)."
        )


def _in_words(difference: Mapping[str, Any]) -> str:
    if not _beyond(difference):
        return difference_verdict(difference)
    return "better beyond noise" if difference["value"] > 0 else "worse beyond noise"


def _beyond(difference: Mapping[str, Any]) -> bool:
    return bool(difference["n"]) and difference_verdict(difference) == BEYOND


def _class(name: str, difference: Mapping[str, Any]) -> str:
    return f"{name.replace('_', ' ')} {points(difference)} (n {count(difference['n'])})"


def out_of_range(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns a sentence for each metric whose mean over a stage's last steps lies outside its
    healthy range, where the glossary gives that in numbers."""
    found = []
    for stage in dict.fromkeys(row["stage"] for row in rows):
        own = [numbers(row) | {"step": row["step"]} for row in rows if row["stage"] == stage]
        for key, meaning in METRICS.items():
            values = [row[key] for row in own if key in row]
            last = values[-_WINDOW:]
            if last and not _healthy(sum(last) / len(last), meaning):
                outside = sum(not _healthy(value, meaning) for value in values)
                steps = f"{len(last)} steps" if len(last) > 1 else "step"
                found.append(
                    f"{key} is {sum(last) / len(last):.3g} over the last {steps} of {stage};"
                    f" healthy: {meaning.healthy}. Outside at {count(outside)} of"
                    f" {count(len(values))}."
                )
    return found


def _healthy(value: float, meaning: Meaning) -> bool:
    return meaning.least <= value <= meaning.most
