"""The curves, as Vega-Lite specifications made by altair: what is drawn, not how it is themed.

The page brings colours (light and dark), widths, and the data: rows of `x`, `value` (smoothed),
`raw`, `low` and `high` (a band), `series`, `run`, and `line`, the name of series and run together.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

from openrpt.report.plans import PLANS, Plan

Row = Mapping[str, Any]
COSTS = {"flops": "flops/update", "hours": "time/step", "energy": "energy/joules"}
"""Axis → the metric that it needs; money needs time, and a price."""


GRAY = "#7b8590"
"""Seen on light and on dark."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Chart:
    id: str
    plan: Plan
    stage: str
    spec: dict[str, Any]
    """Vega-Lite; its data sets `rows` and `warnings` are empty."""
    description: str
    """The first and last values in words: for those who can't see or hover."""

    @property
    def title(self) -> str:
        return f"{self.plan.title} (fine-tuning)" if self.stage == "finetune" else self.plan.title

    @property
    def drawing(self) -> dict[str, Any]:
        """What the page's script needs."""
        plan = self.plan
        names = {"series": dict(plan.series), "stage": self.stage, "stacked": plan.stacked}
        return {"id": self.id, "axis": plan.axis, "spec": self.spec, **names}


def charts(
    rows: Sequence[Row], runs: Sequence[str] = ("run",), *, price: float = 0.0
) -> list[Chart]:
    """Those plans for which the metrics have at least one value; rows as in metrics.jsonl, of the
    first of `runs`; the others are drawn over it. `price`: of an hour; 0 = unknown."""
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
                    description=describe(values, narrow),
                )
            )
    return found


def _has_axis(rows: Sequence[Row], plan: Plan, price: float) -> bool:
    if plan.axis == "money" and not price:
        return False
    needed = COSTS.get(plan.axis, COSTS["hours"])
    return not plan.axis or any(needed in row for row in rows)


def series_values(rows: Sequence[Row], plan: Plan) -> list[dict[str, Any]]:
    """[{step, metric, series, value}] of a stage's rows; what is absent or no finite number is left
    out."""
    return [
        {"step": row["step"], "metric": metric, "series": name, "value": row[metric]}
        for row in rows
        for metric, name in plan.series.items()
        if isinstance(row.get(metric), int | float) and math.isfinite(row[metric])
    ]


def describe(values: Sequence[Row], plan: Plan) -> str:
    """'step 1 to 49: easy 0.38 → 0.52; medium …'"""
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
    if plan.meaning.unit == "fraction":
        return f"{value:.1%}"
    if abs(value) >= 1e6:
        return f"{value:.3g}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def line_names(plan: Plan, runs: Sequence[str]) -> list[str]:
    """How each line is called: by its series, by its run, or by both; the page names them so,
    too."""
    if len(runs) == 1:
        return list(plan.series.values())
    if len(plan.series) == 1:
        return list(runs)
    return [f"{name}, {run}" for run in runs for name in plan.series.values()]


def _formats(values: Sequence[Row], plan: Plan) -> tuple[str, str]:
    """(of the axis, of a tooltip), in d3's words; '' = the library's own."""
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


def _legend(names: Sequence[str], symbol: str, stroke: Any = alt.Undefined) -> alt.Legend | None:
    if len(names) == 1:
        return None
    return alt.Legend(
        title=None,
        orient="top",
        symbolType=symbol,
        symbolStrokeColor=stroke,
        columns=2,
        labelLimit=220,
    )


def _lines(values: list[dict[str, Any]], plan: Plan, runs: Sequence[str]) -> dict[str, Any]:
    """Layers: band, raw values, line, dots, warnings, what is hovered. The page leaves out those
    that have nothing to show."""
    axis, tooltip = _formats(values, plan)
    names = [*plan.series.values()]
    # The same colour and dash for a series in every run.
    color_of, colors = ("series", names) if len(runs) == 1 else ("run", [*runs])
    color = alt.Color(
        f"{color_of}:N", scale=alt.Scale(domain=colors), legend=_legend(colors, "stroke")
    )
    # Where colours tell the runs, the legend of dashes has none of its own.
    gray = GRAY if len(runs) > 1 else alt.Undefined
    dash = alt.StrokeDash(
        "series:N", scale=alt.Scale(domain=names), legend=_legend(names, "stroke", gray)
    )
    steady = len({value["value"] for value in values}) == 1
    y = alt.Y(
        "value:Q",
        title=_axis_title(plan),
        axis=alt.Axis(format=axis or alt.Undefined),
        scale=alt.Scale(zero=steady),
    )
    base = alt.Chart().encode(x=alt.X("x:Q", title="step", scale=alt.Scale(nice=False, padding=8)))
    series = base.encode(y=y, color=color, strokeDash=dash, detail="line:N")
    plain = base.encode(color=color, detail="line:N")
    hover = alt.selection_point(
        name="hover", nearest=True, on="pointerover", fields=["x"], empty=False
    )
    zoom = alt.selection_interval(
        name="zoom", bind="scales", encodings=["x"], zoom="wheel![event.shiftKey]"
    )
    # The dash is told in the points' layers too: else the legend stands there twice.
    points = series.mark_point(filled=True, opacity=1, strokeWidth=0)
    shown = [
        alt.Tooltip(field=f"l{i}", title=name, type="quantitative", format=tooltip)
        for i, name in enumerate(line_names(plan, runs))
    ]
    layers = [
        plain.mark_area(opacity=0.18).encode(y=alt.Y("low:Q"), y2="high:Q").properties(name="band"),
        plain.mark_line(strokeWidth=1, opacity=0.35)
        .encode(y=alt.Y("raw:Q"))
        .properties(name="raw"),
        series.mark_line(strokeWidth=2).add_params(zoom).properties(name="line"),
        points.encode(size=alt.value(18)).properties(name="dots"),
        _warnings(),
        points.encode(size=alt.value(70)).transform_filter(hover).properties(name="hovered"),
        base.transform_pivot("key", value="value", groupby=["x"])
        .mark_rule()
        .encode(
            opacity=alt.condition(hover, alt.value(0.5), alt.value(0)),
            tooltip=[alt.Tooltip("x:Q", title="step", format=".6~g"), *shown],
        )
        .add_params(hover)
        .properties(name="rule"),
    ]
    return _finish(alt.LayerChart(layer=layers, data=alt.NamedData(name="rows")))


def _warnings() -> alt.Chart:
    """A mark at the top of the chart where something was wrong; what it was, on hovering."""
    return (
        alt.Chart(alt.NamedData(name="warnings"))
        .mark_point(shape="triangle-down", filled=True, size=90, opacity=1)
        .encode(
            x=alt.X("x:Q"),
            y=alt.value(6),
            tooltip=[
                alt.Tooltip("step:Q"),
                alt.Tooltip("name:N", title="warning"),
                alt.Tooltip("text:N", title="what"),
            ],
        )
        .properties(name="warnings")
    )


def _stacked(values: list[dict[str, Any]], plan: Plan, runs: Sequence[str]) -> dict[str, Any]:
    """Bars; of the first run alone."""
    axis, tooltip = _formats(values, plan)
    names = [*plan.series.values()]
    bars = (
        alt.Chart(alt.NamedData(name="rows"))
        .mark_bar(orient="vertical")
        .encode(
            x=alt.X("from:Q", bin="binned", title="step", scale=alt.Scale(nice=False)),
            x2="to:Q",
            y=alt.Y(
                "value:Q",
                stack=True,
                title=_axis_title(plan),
                axis=alt.Axis(format=axis or alt.Undefined),
            ),
            color=alt.Color(
                "series:N", scale=alt.Scale(domain=names), legend=_legend(names, "square")
            ),
            order=alt.Order("place:Q"),
            tooltip=[
                alt.Tooltip("x:Q", title="step", format=".6~g"),
                alt.Tooltip("series:N", title="part"),
                alt.Tooltip("value:Q", title=plan.meaning.unit, format=tooltip),
            ],
        )
    )
    return _finish(bars)


def accuracy_chart(evaluations: Mapping[str, Any], slices: Mapping[str, str]) -> dict[str, Any]:
    """Held-out accuracy by band of difficulty (disjoint), a line a model and mode, with an error
    bar of one standard error by document. `slices`: band → its name on the axis."""
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
    color = alt.Color(
        "model:N", scale=alt.Scale(domain=models), legend=_legend([*models, ""], "circle")
    )
    shape = alt.Shape("model:N", scale=alt.Scale(domain=models))
    offset = alt.XOffset("model:N", scale=alt.Scale(domain=models))
    base = alt.Chart(alt.Data(values=values)).encode(
        x=alt.X(
            "band:N",
            sort=[*slices.values()],
            title="entropy of the scorer, nats",
            axis=alt.Axis(labelAngle=0),
        ),
        xOffset=offset,
        color=color,
        tooltip=[
            alt.Tooltip("model:N"),
            alt.Tooltip("band:N"),
            alt.Tooltip("value:Q", format=".1%", title="right"),
            alt.Tooltip("n:Q", title="positions"),
        ],
    )
    right = alt.Y("value:Q", title="right", axis=alt.Axis(format=".2~%"))
    points = base.mark_point(filled=True, size=80, opacity=1).encode(y=right, shape=shape)
    bars = base.mark_rule(strokeWidth=2).encode(y=alt.Y("low:Q"), y2="high:Q")
    return _finish(alt.LayerChart(layer=[bars, points]))


def _finish(chart: alt.Chart | alt.LayerChart) -> dict[str, Any]:
    spec = chart.properties(width="container", height=180).to_dict()
    spec.pop("config", None)  # the page's theme
    return spec
