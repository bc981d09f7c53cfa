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
    return vl_convert.vegalite_to_svg(specification(experiment, outcome))


def specification(experiment: Experiment, outcome: Outcome) -> dict[str, Any]:
    """Returns the Vega-Lite specification: a point an arm (the mean over seeds), a rule from the
    lowest seed to the highest, a faint point a seed."""
    measure = experiment.measures[0]
    values = figure_values(outcome, measure)
    axis = alt.Axis(title=MEASURES[measure])
    base = alt.Chart(alt.Data(values=values))
    seeds = alt.Chart(alt.Data(values=_seed_values(outcome, measure)))
    if experiment.over_flops:
        x = alt.X("flops:Q", scale=alt.Scale(type="log", nice=False), title="training FLOPs")
        color = alt.Color("series:N", title=None, sort=None, scale=alt.Scale(range=_COLORS))
        y = alt.Y("value:Q", axis=axis)
        layers = [
            base.mark_rule(opacity=0.4).encode(x=x, y="low:Q", y2="high:Q", color=color),
            base.mark_line(point=True).encode(x=x, y=y, color=color),
        ]
        chart = alt.layer(*layers).properties(width=480, height=300)
    else:
        order = [value["arm"] for value in values]
        row = alt.Y("arm:N", sort=order, title=None)
        layers = [
            seeds.mark_point(filled=True, opacity=0.3, size=20, color=_COLORS[-1]).encode(
                x="value:Q", y=row
            ),
            base.mark_rule(color=_COLORS[0]).encode(x="low:Q", x2="high:Q", y=row),
            base.mark_point(filled=True, opacity=1, size=60, color=_COLORS[0]).encode(
                x=alt.X("value:Q", axis=axis), y=row
            ),
        ]
        chart = alt.layer(*layers).properties(width=420, height=alt.Step(18))
    return chart.properties(title=experiment.name).to_dict()


def figure_values(outcome: Outcome, measure: str) -> list[dict[str, Any]]:
    """Returns a value for each arm that has the measure, in percent: the mean over seeds, the
    lowest and the highest of them, and the mean of its FLOPs."""
    found = []
    for arm in outcome.arms:
        values = [100 * v for v in outcome.values(arm.name, measure) if not math.isnan(v)]
        if values:
            found.append(
                {
                    "arm": arm.name,
                    "series": arm.series or arm.name,
                    "value": float(np.mean(values)),
                    "low": min(values),
                    "high": max(values),
                    "flops": outcome.mean(arm.name, "flops"),
                }
            )
    return found


def _seed_values(outcome: Outcome, measure: str) -> list[dict[str, Any]]:
    return [
        {"arm": one.arm, "value": 100 * one.values[measure]}
        for one in outcome.measured
        if measure in one.values
    ]
