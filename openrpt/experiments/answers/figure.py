"""An experiment as a picture: an arm a row, or accuracy over training compute."""

import math
from typing import Any

import altair as alt
import numpy as np
import vl_convert

from openrpt.experiments.answers.experiment import Experiment
from openrpt.experiments.answers.outcome import MEASURES, Outcome

_COLORS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#f0b400", "#56b4e9", "#000000", "#999999"]
"""Okabe and Ito's colours: told apart with every kind of colour vision."""


def figure_svg(experiment: Experiment, outcome: Outcome) -> str:
    """Returns an SVG, drawn without a browser or a network."""
    return vl_convert.vegalite_to_svg(_specification(experiment, outcome))


def _specification(experiment: Experiment, outcome: Outcome) -> dict[str, Any]:
    """Returns the Vega-Lite specification: a point an arm (the mean over seeds), a rule from the
    lowest seed to the highest, a faint point a seed."""
    measure = outcome.compared
    values = figure_values(outcome, measure)
    chart = _over_flops(values, measure) if experiment.over_flops else _rows(values, measure)
    return chart.properties(title=experiment.name).to_dict()


def _over_flops(values: list[dict[str, Any]], measure: str) -> Any:
    """Returns a line a series: coloured by what stands behind its hyphen, the model's size, dashed
    by what stands before it."""
    base = alt.Chart(alt.Data(values=[value for value in values if value["series"]]))
    x = alt.X(
        "flops:Q",
        scale=alt.Scale(type="log", nice=False, padding=8),
        axis=alt.Axis(format="~e", tickCount=6),
        title="training FLOPs, beside the start's",
    )
    stroke: dict[str, Any] = {
        "title": None,
        "symbolType": "stroke",
        "symbolStrokeWidth": 3,
        "symbolOpacity": 1,
    }
    black = alt.Legend(**stroke, symbolStrokeColor="#000000")
    sized = any(value["size"] != value["way"] for value in values)
    color = alt.Color(
        "size:N", sort=None, scale=alt.Scale(range=_COLORS), legend=alt.Legend(**stroke)
    )
    dash = alt.StrokeDash("way:N", sort=None, legend=black if sized else None)
    y = alt.Y("value:Q", title=MEASURES[measure])
    rules = base.mark_rule(opacity=0.4).encode(x=x, y="low:Q", y2="high:Q", color=color)
    lines = base.mark_line().encode(x=x, y=y, color=color, strokeDash=dash, detail="series:N")
    dots = base.mark_point(filled=True, opacity=1).encode(x=x, y=y, color=color)
    return alt.layer(rules, lines, dots).properties(width=480, height=300)


def _rows(values: list[dict[str, Any]], measure: str) -> Any:
    base = alt.Chart(alt.Data(values=values))
    single = [{"arm": one["arm"], "value": value} for one in values for value in one["seeds"]]
    seeds = alt.Chart(alt.Data(values=single))
    row = alt.Y("arm:N", sort=[value["arm"] for value in values], title=None)
    x = alt.X("value:Q", title=MEASURES[measure])
    return alt.layer(
        seeds.mark_point(filled=True, opacity=0.3, size=20, color=_COLORS[6]).encode(x=x, y=row),
        base.mark_rule(color=_COLORS[0]).encode(x="low:Q", x2="high:Q", y=row),
        base.mark_point(filled=True, opacity=1, size=60, color=_COLORS[0]).encode(x=x, y=row),
    ).properties(width=420, height=alt.Step(18))


def figure_values(outcome: Outcome, measure: str) -> list[dict[str, Any]]:
    """Returns a value for each arm that has the measure, in percent: the mean over seeds, the
    lowest and the highest of them, each one, and the mean of its FLOPs."""
    found = []
    for arm in outcome.arms:
        values = [100 * v for v in outcome.values(arm.name, measure) if not math.isnan(v)]
        way, _, size = arm.series.partition("-")
        if values:
            found.append(
                {
                    "arm": arm.name,
                    "series": arm.series,
                    "way": way,
                    "size": size or way,
                    "value": float(np.mean(values)),
                    "low": min(values),
                    "high": max(values),
                    "seeds": values,
                    "flops": outcome.mean(arm.name, "flops"),
                }
            )
    return found
