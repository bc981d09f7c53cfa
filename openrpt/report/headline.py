"""The beginning of a report: one sentence of what has changed, and the numbers to see before all
else."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from openrpt.amounts import count, duration, energy, flops
from openrpt.report.summary import BEYOND, START, TRAINED, WARMUP, difference_verdict, side_name
from openrpt.runs.spent import Cost
from openrpt.sheets import percent, points, share

_SHORT = {
    (WARMUP, "reasoning"): "warmup",
    (TRAINED, "ntp"): "its own NTP",
    (START, "ntp"): "the start model's NTP",
}
"""The models that reasoning after RPT is compared with, in a few words."""


def what_changed(evaluations: Mapping[str, Any], differences: Sequence[Mapping[str, Any]]) -> str:
    """Returns one sentence: how good reasoning is now, and what it differs from beyond noise."""
    after = evaluations.get(TRAINED, {"summary": {}})["summary"].get("reasoning", {}).get("easy")
    if not after or not after["n"]:
        return "The trained policy has not been evaluated, so nothing can be said of a change yet."
    sentence = (
        f"Reasoning after RPT is right at {percent(after)} of {count(after['n'])} positions (easy"
        " and harder)"
    )
    compared = []
    for entry in differences:
        difference = entry["difference"].get("easy")
        if entry["a"] == {"label": TRAINED, "mode": "reasoning"} and difference["n"]:
            name = side_name(entry["b"])
            name = name.replace("Reasoning", "reasoning").replace("Standard", "standard")
            compared.append(
                f"{points(difference)} points against {name}, {difference_verdict(difference)}"
            )
    if not compared:
        return sentence + "; paired differences have not been computed."
    return f"{sentence}: {'; '.join(compared)} (in brackets: 95 % interval)."


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """One of the numbers to see first."""

    name: str
    value: str
    detail: str
    tone: str = ""
    """The tone, right or wrong: a difference beyond noise; else empty."""


def figures(
    evaluations: Mapping[str, Any], differences: Sequence[Mapping[str, Any]], spent: Cost
) -> list[Figure]:
    """Returns how good reasoning is, what it differs from, and what the run took."""
    found = []
    for label, name in ((TRAINED, "Reasoning after RPT"), (WARMUP, "Reasoning after warmup")):
        cell = evaluations.get(label, {"summary": {}})["summary"].get("reasoning", {}).get("easy")
        if cell and cell["n"]:
            value, bracket, bounds = share(cell).partition(" [")
            parts = [f"{bracket}{bounds}".strip()] if bounds else []
            parts.append(f"{count(cell['n'])} positions, easy and harder")
            found.append(Figure(name=name, value=f"{value} %", detail=", ".join(parts)))
            break
    for entry in differences:
        cell = entry["difference"].get("easy")
        if entry["a"] == {"label": TRAINED, "mode": "reasoning"} and cell and cell["n"]:
            beyond = difference_verdict(cell) == BEYOND
            tone = ("right" if cell["value"] > 0 else "wrong") if beyond else ""
            name = f"against {_SHORT.get(tuple(entry['b'].values()), side_name(entry['b']))}"
            value, _, bounds = points(cell).partition(" ")
            unit = f"points {bounds}" if bounds else "points"
            detail = f"{unit}, {difference_verdict(cell)}"
            found.append(Figure(name=name, value=value, detail=detail, tone=tone))
    if spent.total_seconds:
        parts = [f"{flops(spent.flops)} FLOPs"] if spent.flops else []
        if spent.joules:
            parts.append(energy(spent.joules) + ("" if spent.measured else " (estimated)"))
        value = duration(spent.total_seconds)
        found.append(Figure(name="Time of all stages", value=value, detail=", ".join(parts)))
    return found
