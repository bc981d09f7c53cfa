"""The curves, as Vega-Lite specifications: what is drawn, not how it is themed.

The page brings colours (light and dark), widths, and the data: rows of `x`, `value` (smoothed),
`raw`, `low` and `high` (a band), `series`, `run`, and `line`, the name of series and run together.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from openrpt.report import specs
from openrpt.report.glossary import METRICS
from openrpt.report.plans import PLANS, Plan
from openrpt.sheets import extreme_bounds

_Row = Mapping[str, Any]
_COSTS = {"flops": "flops/update", "hours": "time/step", "energy": "energy/joules"}
"""The metric that each axis of cost needs; money needs time, and a price."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Chart:
    """A chart of the page: its plan, drawn for the rows of one stage."""

    id: str
    plan: Plan
    stage: str
    spec: dict[str, Any]
    """The Vega-Lite specification; its data sets `rows` and `warnings` are empty."""
    description: str
    """The first and last values in words: for those who can't see or hover."""
    curves: frozenset[tuple[tuple[int, float], ...]] = frozenset()
    """Each series' (step, value)."""
    also: tuple[str, ...] = ()
    """Titles of charts that would show the same curves."""

    @property
    def title(self) -> str:
        """The chart's heading."""
        return f"{self.plan.title} (fine-tuning)" if self.stage == "finetune" else self.plan.title

    @property
    def drawing(self) -> dict[str, Any]:
        """The values that the page's script needs."""
        plan = self.plan
        names = {"series": dict(plan.series), "stage": self.stage, "stacked": plan.stacked}
        return {"id": self.id, "axis": plan.axis, "spec": self.spec, **names}


def charts(
    rows: Sequence[_Row], runs: Sequence[str] = ("run",), *, price: float = 0.0
) -> list[Chart]:
    """Returns the charts of those plans for which the metrics have at least one value; rows as in
    metrics.jsonl, of the first of `runs`; the others are drawn over it. Of a run alone, curves that
    are the same are drawn once. `price`: of an hour; 0 = unknown."""
    alone = len(runs) == 1
    found: list[Chart] = []
    for number, plan in enumerate(PLANS):
        for stage in plan.stages:
            own = [row for row in rows if row["stage"] == stage]
            values = series_values(own, plan) if _has_axis(own, plan, price) else []
            if not values:
                continue
            narrow = plan.narrowed({value["metric"] for value in values})
            drawn = Chart(
                id=f"chart-{number}-{stage}",
                plan=narrow,
                stage=stage,
                spec=(_stacked if plan.stacked else _lines)(values, narrow, runs),
                description=_describe(values, narrow),
                curves=_curves_of(values),
            )
            same = next((one for one in found if _same(one, drawn)), None) if alone else None
            if same is None:
                found.append(drawn)
            else:
                place = found.index(same)
                found[place] = replace(same, also=(*same.also, drawn.title))
    return found


def _curves_of(values: Sequence[_Row]) -> frozenset[tuple[tuple[int, float], ...]]:
    """Returns each series' steps and values, whatever it is called."""
    metrics = dict.fromkeys(value["metric"] for value in values)
    return frozenset(
        tuple((v["step"], v["value"]) for v in values if v["metric"] == metric)
        for metric in metrics
    )


def _same(drawn: Chart, other: Chart) -> bool:
    """Returns whether a chart of what is learned shows what another has shown already: the reward
    is the share exactly right where nothing else is rewarded, and every position is easy where
    only such are trained on."""
    learning = drawn.plan.section == other.plan.section == "learning"
    return learning and drawn.stage == other.stage and other.curves <= drawn.curves


def _has_axis(rows: Sequence[_Row], plan: Plan, price: float) -> bool:
    if plan.axis == "money" and not price:
        return False
    needed = _COSTS.get(plan.axis, _COSTS["hours"])
    return not plan.axis or any(needed in row for row in rows)


def series_values(rows: Sequence[_Row], plan: Plan) -> list[dict[str, Any]]:
    """Returns [{step, metric, series, value}] of a stage's rows; what is absent or no finite
    number is left out."""
    return [
        {"step": row["step"], "metric": metric, "series": name, "value": row[metric]}
        for row in rows
        for metric, name in plan.series.items()
        if isinstance(row.get(metric), int | float) and math.isfinite(row[metric])
    ]


def _describe(values: Sequence[_Row], plan: Plan) -> str:
    """Returns a chart in words: 'step 1 to 49: easy 0.38 → 0.52; medium …'."""
    parts = []
    for name in plan.series.values():
        own = [value for value in values if value["series"] == name]
        if own:
            first, last = own[0]["value"], own[-1]["value"]
            label = f"{name} " if len(plan.series) > 1 else ""
            change = f" → {_number(last, plan)}" if len(own) > 1 else ""
            parts.append(f"{label}{_number(first, plan)}{change}")
    steps = [value["step"] for value in values]
    when = f"Step {min(steps)} to {max(steps)}" if min(steps) < max(steps) else f"Step {steps[0]}"
    return f"{when}: " + "; ".join(parts)


def _number(value: float, plan: Plan) -> str:
    """Returns a value as a chart's description writes it: a fraction in percent."""
    if plan.meaning.unit == "fraction":
        return f"{value:.1%}"
    if abs(value) >= 1e6:
        return f"{value:.3g}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _line_names(plan: Plan, runs: Sequence[str]) -> list[str]:
    """Returns each line's name: by its series, by its run, or by both; the page names them so,
    too."""
    if len(runs) == 1:
        return list(plan.series.values())
    if len(plan.series) == 1:
        return list(runs)
    return [f"{name}, {run}" for run in runs for name in plan.series.values()]


def _formats(values: Sequence[_Row], plan: Plan) -> tuple[str, str]:
    """Returns the number formats (of the axis, of a tooltip), in d3's words; '' = the library's
    own."""
    if plan.meaning.unit == "fraction":
        return ".2~%", ".1%"
    if plan.meaning.unit in ("FLOPs", "FLOPs a second"):
        return "~e", ".3~e"
    greatest = max(abs(value["value"]) for value in values)
    if greatest >= 1e4:
        return "~s", ".4~s"
    return ("~e", ".2~e") if 0 < greatest < 1e-3 else ("", ".4~g")


def _axis_title(plan: Plan) -> str | None:
    unit = plan.meaning.unit
    return None if unit in ("fraction", "(no unit)") else unit


def _lines(values: list[dict[str, Any]], plan: Plan, runs: Sequence[str]) -> specs.Spec:
    axis, tooltip = _formats(values, plan)
    return specs.lines(
        names=[*plan.series.values()],
        runs=runs,
        line_names=_line_names(plan, runs),
        unit=_axis_title(plan),
        axis=axis,
        tooltip=tooltip,
        zero=len({value["value"] for value in values}) == 1,  # steady
        limits=_limits_left(values),
    )


def _limits_left(values: Sequence[_Row]) -> list[float]:
    """Returns those limits of the healthy ranges that a series has gone beyond: of the others, far
    ones would make the curve flat."""
    left = []
    for value in values:
        meaning = METRICS.get(value["metric"])
        if meaning and value["value"] < meaning.least:
            left.append(meaning.least)
        elif meaning and value["value"] > meaning.most:
            left.append(meaning.most)
    return sorted({*left})


def _stacked(values: list[dict[str, Any]], plan: Plan, runs: Sequence[str]) -> specs.Spec:
    axis, tooltip = _formats(values, plan)
    return specs.stacked(
        names=[*plan.series.values()],
        unit=plan.meaning.unit,
        axis_title=_axis_title(plan),
        axis=axis,
        tooltip=tooltip,
    )


def _bar(cell: Mapping[str, Any]) -> tuple[float, float]:
    """Returns where an error bar begins and ends."""
    error = cell["standard_error"] if cell["documents"] > 1 else 0.0
    return extreme_bounds(cell) or (cell["value"] - error, cell["value"] + error)


def accuracy_chart(evaluations: Mapping[str, Any], slices: Mapping[str, str]) -> dict[str, Any]:
    """Returns the chart of held-out accuracy by band of difficulty (disjoint), a line a model and
    mode, with an error bar of one standard error by document (of 95 % where that is 0). `slices`:
    band → its name on the axis."""
    values = [
        {
            "band": title,
            "model": f"{label}, {'NTP' if mode == 'ntp' else mode}",
            "value": cell["value"],
            "low": low,
            "high": high,
            "n": cell["n"],
        }
        for label, evaluation in evaluations.items()
        for mode in ("ntp", "reasoning")
        for name, title in slices.items()
        if (cell := evaluation["summary"].get(mode, {}).get(name)) and cell["n"]
        for low, high in [_bar(cell)]
    ]
    if not values:
        return {}
    models = [*dict.fromkeys(value["model"] for value in values)]
    return specs.dots_by_band(values, [*slices.values()], models)
