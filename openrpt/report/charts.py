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

_Row = Mapping[str, Any]
_COSTS = {"flops": "flops/update", "hours": "time/step", "energy": "energy/joules"}
"""The metric that each axis of cost needs; money needs time, and a price."""


_Curve = tuple[tuple[str, int, float], ...]
"""The runs, steps and values of a series; values to nine digits, so that two ways to the same mean
are the same."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Chart:
    """A chart of the page: its plan, drawn for the rows of one stage."""

    id: str
    plan: Plan
    stage: str
    lines: Mapping[str, str]
    """The name of each line, by its metric: series that are equal are one line, `easy = medium`."""
    curves: Mapping[_Curve, str]
    """The name of each line, by what is drawn."""
    spec: dict[str, Any]
    """The Vega-Lite specification; its data sets `rows` and `warnings` are empty."""
    description: str
    """The first and last values in words: for those who can't see or hover."""
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
        names = {"series": dict(self.lines), "stage": self.stage, "stacked": plan.stacked}
        return {"id": self.id, "axis": plan.axis, "spec": self.spec, **names}

    def shows(self, other: "Chart") -> bool:
        """Returns whether it has all that another chart of what is learned would show: the reward
        is the share exactly right where nothing else is rewarded, and every position is easy where
        only such are trained on. Never of the reward, whose band no other chart has."""
        learning = self.plan.section == other.plan.section == "learning"
        if not learning or self.stage != other.stage or "reward/mean" in other.lines:
            return False
        return other.curves.keys() <= self.curves.keys()

    def standing_for(self, others: Sequence["Chart"]) -> "Chart":
        """Returns the chart, with the names of others that it shows."""
        also = []
        for other in others:
            names = ", ".join(self.curves[curve] for curve in other.curves)
            also.append(f"{other.title} ({names})" if len(self.curves) > 1 else other.title)
        return replace(self, also=tuple(also))


def charts(
    rows: Sequence[_Row],
    name: str = "run",
    others: Mapping[str, Sequence[_Row]] | None = None,
    *,
    price: float = 0.0,
) -> list[Chart]:
    """Returns the charts of those plans for which a run's metrics have at least one value; rows as
    in metrics.jsonl. `others`: by name, the rows of the runs that are drawn over it. What is the
    same in all of them is drawn once. `price`: of an hour; 0 = unknown."""
    runs = {name: rows, **(others or {})}
    found: list[Chart] = []
    for number, plan in enumerate(PLANS):
        for stage in plan.stages:
            own = [row for row in rows if row["stage"] == stage]
            values = series_values(own, plan) if _has_axis(own, plan, price) else []
            if values:
                found.append(_chart(f"chart-{number}-{stage}", plan, stage, values, runs))
    left_out: dict[str, list[Chart]] = {}  # by the id of the chart that shows them
    for chart in sorted(found, key=lambda one: -len(one.curves)):
        same = next((one for one in found if one.id in left_out and one.shows(chart)), chart)
        left_out.setdefault(same.id, []).extend([chart] if same is not chart else [])
    return [one.standing_for(left_out[one.id]) for one in found if one.id in left_out]


def _chart(
    id: str,
    plan: Plan,
    stage: str,
    values: list[dict[str, Any]],
    runs: Mapping[str, Sequence[_Row]],
) -> Chart:
    """Returns the chart of a plan; `values`: of the first of the runs, as series_values."""
    plan = plan.narrowed({value["metric"] for value in values})
    alike: dict[_Curve, list[str]] = {}
    for metric in plan.series:
        alike.setdefault(_curve(metric, plan, stage, runs), []).append(metric)
    names = {curve: " = ".join(plan.series[m] for m in same) for curve, same in alike.items()}
    lines = {same[0]: names[curve] for curve, same in alike.items()}
    if plan.stacked:  # its parts add up, equal or not
        lines = dict(plan.series)
    return Chart(
        id=id,
        plan=plan,
        stage=stage,
        lines=lines,
        curves=names,
        spec=(_stacked if plan.stacked else _lines)(values, plan, lines, [*runs]),
        description=_describe(values, plan, lines),
    )


def _curve(metric: str, plan: Plan, stage: str, runs: Mapping[str, Sequence[_Row]]) -> _Curve:
    return tuple(
        (run, value["step"], float(f"{value['value']:.9g}"))
        for run, rows in runs.items()
        for value in series_values([row for row in rows if row["stage"] == stage], plan)
        if value["metric"] == metric
    )


def _has_axis(rows: Sequence[_Row], plan: Plan, price: float) -> bool:
    if plan.axis == "money" and not price:
        return False
    needed = _COSTS.get(plan.axis, _COSTS["hours"])
    return not plan.axis or any(needed in row for row in rows)


def series_values(rows: Sequence[_Row], plan: Plan) -> list[dict[str, Any]]:
    """Returns [{step, metric, value}] of a stage's rows; what is absent or no finite number is left
    out."""
    return [
        {"step": row["step"], "metric": metric, "value": row[metric]}
        for row in rows
        for metric in plan.series
        if isinstance(row.get(metric), int | float) and math.isfinite(row[metric])
    ]


def _describe(values: Sequence[_Row], plan: Plan, lines: Mapping[str, str]) -> str:
    """Returns a chart in words: 'step 1 to 49: easy 0.38 → 0.52; medium …'."""
    parts = []
    for metric, name in lines.items():
        own = [value["value"] for value in values if value["metric"] == metric]
        label = f"{name} " if len(plan.series) > 1 else ""
        change = f" → {_number(own[-1], plan)}" if len(own) > 1 else ""
        parts.append(f"{label}{_number(own[0], plan)}{change}")
    steps = [value["step"] for value in values]
    when = f"Step {min(steps)} to {max(steps)}" if min(steps) < max(steps) else f"Step {steps[0]}"
    return f"{when}: " + "; ".join(parts)


def _number(value: float, plan: Plan) -> str:
    """Returns a value as a chart's description writes it: a fraction in percent."""
    whole = 1000 <= abs(value) < 1e6
    format = ".1%" if plan.meaning.unit == "fraction" else ",.0f" if whole else ".3g"
    return f"{value:{format}}".replace("-", "−")


def _line_names(names: Sequence[str], runs: Sequence[str]) -> list[str]:
    """Returns each line's name: by its series, by its run, or by both; the page names them so,
    too."""
    if len(runs) == 1:
        return list(names)
    if len(names) == 1:
        return list(runs)
    return [f"{name}, {run}" for run in runs for name in names]


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


def _lines(
    values: list[dict[str, Any]], plan: Plan, lines: Mapping[str, str], runs: Sequence[str]
) -> specs.Spec:
    axis, tooltip = _formats(values, plan)
    names = [*lines.values()]
    return specs.lines(
        names=names,
        named=len(plan.series) > 1,
        runs=runs,
        line_names=_line_names(names, runs),
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


def _stacked(
    values: list[dict[str, Any]], plan: Plan, lines: Mapping[str, str], runs: Sequence[str]
) -> specs.Spec:
    axis, tooltip = _formats(values, plan)
    return specs.stacked(
        names=[*lines.values()],
        unit=plan.meaning.unit,
        axis_title=_axis_title(plan),
        axis=axis,
        tooltip=tooltip,
    )
