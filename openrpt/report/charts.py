"""The curves, as Vega-Lite specifications made by altair: what is drawn, not how it is themed.

Colours come from the page (light and dark), widths from the container.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

from openrpt.report.glossary import METRICS, Meaning

Row = Mapping[str, Any]

FEW = 40
"""Up to this many steps each point is marked: a line through two or three is hard to see."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """A chart to be: which metrics of which stage, under which names. The first one's line in
    the glossary says how to read it."""

    title: str
    series: Mapping[str, str]
    """metric → the name that stands in the legend."""
    stacked: bool = False
    stage: str = "train"

    @property
    def meaning(self) -> Meaning:
        return METRICS[next(iter(self.series))]

    @property
    def healthy(self) -> str:
        """One range where the series share it, else each series' own."""
        ranges = {name: METRICS[metric].healthy for metric, name in self.series.items()}
        if len(set(ranges.values())) == 1:
            return self.meaning.healthy
        return "; ".join(f"{name}: {healthy}" for name, healthy in ranges.items())


PLANS = (
    Plan(title="Reward", series={"reward/mean": "reward"}),
    Plan(title="Exactly right in training", series={"reward/exact": "exactly right"}),
    Plan(
        title="Development accuracy",
        series={
            "development/reasoning_accuracy": "reasoning",
            "development/ntp_accuracy": "standard (NTP)",
        },
    ),
    Plan(
        title="Pass rate by difficulty",
        series={"pass_rate/easy": "easy", "pass_rate/medium": "medium", "pass_rate/hard": "hard"},
    ),
    Plan(title="Flat groups", series={"group/flat_fraction": "flat"}),
    Plan(title="Entropy of the policy", series={"policy/entropy": "entropy"}),
    Plan(title="Gradient norm", series={"optim/grad_norm": "norm"}),
    Plan(title="Policy loss", series={"loss/policy": "policy loss"}),
    Plan(title="Plain next-token loss", series={"loss/ntp": "NTP loss"}),
    Plan(title="Thought length", series={"completion/thought_bytes_mean": "thought"}),
    Plan(
        title="Closed boxes",
        series={
            "completion/closed_fraction": "box closed",
            "completion/stopped_fraction": "stopped by itself",
        },
    ),
    Plan(title="Sampler against trainer", series={"policy/sampler_difference": "difference"}),
    Plan(
        title="Tokens a step",
        series={
            "tokens/generate": "run in generation",
            "tokens/update": "run in update",
            "tokens/not_computed": "not computed",
        },
        stacked=True,
    ),
    Plan(
        title="Time by phase",
        series={"time/generate": "generate", "time/update": "update", "time/store": "store"},
        stacked=True,
    ),
    Plan(
        title="FLOPs by phase",
        series={"flops/generate": "generate", "flops/update": "update"},
        stacked=True,
    ),
    Plan(title="Peak memory", series={"memory/peak_gib": "peak"}),
    Plan(title="Warmup: traces", series={"loss/trace": "trace loss"}, stage="warmup"),
    Plan(title="Warmup: drift on plain text", series={"loss/text_kl": "KL"}, stage="warmup"),
    Plan(title="Warmup: tail", series={"loss/tail_kl": "KL after the tail"}, stage="warmup"),
    Plan(title="Warmup: gradient norm", series={"optim/grad_norm": "norm"}, stage="warmup"),
    Plan(
        title="Warmup: time by phase",
        series={"time/generate": "generate", "time/update": "update"},
        stacked=True,
        stage="warmup",
    ),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Chart:
    id: str
    plan: Plan
    spec: dict[str, Any]
    """Vega-Lite."""
    description: str
    """The last values in words: for those who can't see or hover."""


def charts(rows: Sequence[Row]) -> list[Chart]:
    """Those plans for which the metrics have at least one value; rows as in metrics.jsonl."""
    found = []
    for number, plan in enumerate(PLANS):
        values = series_values(rows, plan)
        if values:
            spec = (_stacked if plan.stacked else _lines)(values, plan)
            found.append(
                Chart(
                    id=f"chart-{number}", plan=plan, spec=spec, description=describe(values, plan)
                )
            )
    return found


def series_values(rows: Sequence[Row], plan: Plan) -> list[dict[str, Any]]:
    """[{step, series, value}]; what is absent or no finite number is left out."""
    return [
        {"step": row["step"], "series": name, "value": float(f"{row[metric]:.5g}")}
        for row in rows
        if row["stage"] == plan.stage
        for metric, name in plan.series.items()
        if metric in row and math.isfinite(row[metric])
    ]


def describe(values: Sequence[Row], plan: Plan) -> str:
    """'step 1 to 49: easy 0.38 → 0.52; medium …'"""
    parts = []
    for name in plan.series.values():
        own = [value for value in values if value["series"] == name]
        if own:
            first, last = own[0]["value"], own[-1]["value"]
            label = f"{name} " if len(plan.series) > 1 else ""
            parts.append(f"{label}{number(first, plan)} → {number(last, plan)}")
    steps = [value["step"] for value in values]
    return f"Step {min(steps)} to {max(steps)}: " + "; ".join(parts)


def number(value: float, plan: Plan) -> str:
    if plan.meaning.unit == "fraction":
        return f"{value:.1%}"
    if abs(value) >= 1e6:
        return f"{value:.3g}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _formats(values: Sequence[Row], plan: Plan) -> tuple[str, str]:
    """(of the axis, of a tooltip), in d3's words; '' = the library's own."""
    if plan.meaning.unit == "fraction":
        return ".2~%", ".1%"
    if plan.meaning.unit == "FLOPs":
        return "~e", ".3~e"
    greatest = max(abs(value["value"]) for value in values)
    if greatest >= 1e4:
        return "~s", ".4~s"
    return ("~e", ".2~e") if 0 < greatest < 1e-3 else ("", ".4~g")


def _axis_title(plan: Plan) -> str | None:
    unit = plan.meaning.unit
    return None if unit in ("fraction", "(no unit)") else unit


def _legend(plan: Plan) -> alt.Legend | None:
    if len(plan.series) == 1:
        return None
    symbol = "square" if plan.stacked else "stroke"
    return alt.Legend(title=None, orient="top", symbolType=symbol)


def _color(plan: Plan) -> alt.Color:
    return alt.Color("series:N", scale=_scale(plan), legend=_legend(plan))


def _scale(plan: Plan) -> alt.Scale:
    """The same colour and dash for a series in every run."""
    return alt.Scale(domain=[*plan.series.values()])


def _steps() -> alt.Axis:
    """Whole numbers only."""
    return alt.Axis(
        tickMinStep=1, format="d", labelExpr="floor(datum.value) == datum.value ? datum.label : ''"
    )


def _lines(values: list[dict[str, Any]], plan: Plan) -> dict[str, Any]:
    axis, tooltip = _formats(values, plan)
    present = [n for n in plan.series.values() if any(v["series"] == n for v in values)]
    few = len(values) <= FEW * len(present)
    base = alt.Chart().encode(x=alt.X("step:Q", title="step", axis=_steps()))
    numbers = {value["value"] for value in values}
    series = base.encode(
        y=alt.Y(
            "value:Q",
            title=_axis_title(plan),
            axis=alt.Axis(format=axis or alt.Undefined),
            scale=alt.Scale(zero=len(numbers) == 1),
        ),
        color=_color(plan),
        strokeDash=alt.StrokeDash("series:N", scale=_scale(plan), legend=_legend(plan)),
    )
    lines = series.mark_line(strokeWidth=2)
    hover = alt.selection_point(
        name="hover", nearest=True, on="pointerover", fields=["step"], empty=False
    )
    # The dash is told in the points' layers too: else the legend stands there twice.
    marked = series.mark_point(filled=True, size=70, opacity=1, strokeWidth=0)
    dots = [series.mark_point(filled=True, size=18, opacity=1, strokeWidth=0)] if few else []
    rule = (
        base.transform_pivot("series", value="value", groupby=["step"])
        .mark_rule()
        .encode(
            opacity=alt.condition(hover, alt.value(0.5), alt.value(0)),
            tooltip=[
                alt.Tooltip("step:Q"),
                *(alt.Tooltip(field=name, type="quantitative", format=tooltip) for name in present),
            ],
        )
        .add_params(hover)
    )
    layers = [lines, *dots, marked.transform_filter(hover), rule]
    return _finish(alt.LayerChart(layer=layers, data=alt.Data(values=values)))


def _stacked(values: list[dict[str, Any]], plan: Plan) -> dict[str, Any]:
    axis, tooltip = _formats(values, plan)
    places = {name: place for place, name in enumerate(plan.series.values())}  # 0 = lowest
    for value in values:  # a bar spans its step
        ends = {"from": value["step"] - 0.5, "to": value["step"] + 0.5}
        value |= ends | {"place": places[value["series"]]}
    bars = (
        alt.Chart(alt.Data(values=values))
        .mark_bar(orient="vertical")
        .encode(
            x=alt.X("from:Q", bin="binned", title="step", axis=_steps()),
            x2="to:Q",
            y=alt.Y(
                "value:Q",
                stack=True,
                title=_axis_title(plan),
                axis=alt.Axis(format=axis or alt.Undefined),
            ),
            color=_color(plan),
            order=alt.Order("place:Q"),
            tooltip=[
                alt.Tooltip("step:Q"),
                alt.Tooltip("series:N", title="part"),
                alt.Tooltip("value:Q", title=plan.meaning.unit, format=tooltip),
            ],
        )
    )
    return _finish(bars)


def _finish(chart: alt.Chart | alt.LayerChart) -> dict[str, Any]:
    spec = chart.properties(width="container", height=180).to_dict()
    spec.pop("config", None)  # the page's theme
    return spec
