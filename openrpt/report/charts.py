"""The curves, as Vega-Lite specifications: what is drawn, not how it is themed.

The page brings colours (light and dark), widths, and the data: rows of `x`, `value` (smoothed),
`raw`, `low` and `high` (a band), `series`, `run`, and `line`, the name of series and run together.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from openrpt.report import specs
from openrpt.report.plans import PLANS, Plan

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
    metrics.jsonl, of the first of `runs`; the others are drawn over it. `price`: of an hour; 0 =
    unknown."""
    found = []
    for number, plan in enumerate(PLANS):
        for stage in plan.stages:
            own = [row for row in rows if row["stage"] == stage]
            values = series_values(own, plan) if _has_axis(own, plan, price) else []
            if not values:
                continue
            narrow = plan.narrowed({value["metric"] for value in values})
            found.append(
                Chart(
                    id=f"chart-{number}-{stage}",
                    plan=narrow,
                    stage=stage,
                    spec=(_stacked if plan.stacked else _lines)(values, narrow, runs),
                    description=_describe(values, narrow),
                )
            )
    return found


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
            change = f" → {number(last, plan)}" if len(own) > 1 else ""
            parts.append(f"{label}{number(first, plan)}{change}")
    steps = [value["step"] for value in values]
    when = f"Step {min(steps)} to {max(steps)}" if min(steps) < max(steps) else f"Step {steps[0]}"
    return f"{when}: " + "; ".join(parts)


def number(value: float, plan: Plan) -> str:
    """Returns a value as a chart's description writes it: a fraction in percent."""
    if plan.meaning.unit == "fraction":
        return f"{value:.1%}"
    if abs(value) >= 1e6:
        return f"{value:.3g}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def line_names(plan: Plan, runs: Sequence[str]) -> list[str]:
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
        line_names=line_names(plan, runs),
        unit=_axis_title(plan),
        axis=axis,
        tooltip=tooltip,
        zero=len({value["value"] for value in values}) == 1,  # steady
    )


def _stacked(values: list[dict[str, Any]], plan: Plan, runs: Sequence[str]) -> specs.Spec:
    axis, tooltip = _formats(values, plan)
    return specs.stacked(
        names=[*plan.series.values()],
        unit=plan.meaning.unit,
        axis_title=_axis_title(plan),
        axis=axis,
        tooltip=tooltip,
    )


def accuracy_chart(evaluations: Mapping[str, Any], slices: Mapping[str, str]) -> dict[str, Any]:
    """Returns the chart of held-out accuracy by band of difficulty (disjoint), a line a model and
    mode, with an error bar of one standard error by document. `slices`: band → its name on the
    axis."""
    values = [
        {
            "band": title,
            "model": f"{label}, {'NTP' if mode == 'ntp' else mode}",
            "value": cell["value"],
            "low": cell["value"] - error,
            "high": cell["value"] + error,
            "n": cell["n"],
        }
        for label, evaluation in evaluations.items()
        for mode in ("ntp", "reasoning")
        for name, title in slices.items()
        if (cell := evaluation["summary"].get(mode, {}).get(name)) and cell["n"]
        for error in [cell["standard_error"] if cell["documents"] > 1 else 0.0]
    ]
    if not values:
        return {}
    models = [*dict.fromkeys(value["model"] for value in values)]
    return specs.dots_by_band(values, [*slices.values()], models)
