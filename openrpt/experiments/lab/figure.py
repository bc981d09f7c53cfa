"""A laboratory as a picture: accuracy over depth, a line an arm, a band over seeds."""

from typing import Any

import altair as alt
import numpy as np
import vl_convert

from openrpt.experiments.lab.outcome import Outcome

_COLORS = {
    "start": "#999999",
    "rpt": "#d55e00",
    "ntp": "#0072b2",
    "traces": "#009e73",
    "deeper": "#cc79a7",
    "random-reward": "#f0b400",
    "no-thought": "#56b4e9",
    "filler": "#000000",
}
"""The colours of the arms, Okabe-Ito's and a grey: told apart with every kind of colour vision."""


def lab_svg(outcome: Outcome) -> str:
    """Returns an SVG, drawn without a browser or a network."""
    return vl_convert.vegalite_to_svg(specification(outcome))


def specification(outcome: Outcome) -> dict[str, Any]:
    """Returns the Vega-Lite specification: lines and bands, a line upright at `shown`, a dotted
    one at chance."""
    arms = outcome.arms
    color = alt.Color(
        "arm:N",
        title=None,
        scale=alt.Scale(domain=arms, range=[_COLORS[arm] for arm in arms]),
        legend=alt.Legend(symbolType="stroke", symbolStrokeWidth=3, symbolOpacity=1),
    )
    base = alt.Chart(alt.Data(values=depth_values(outcome))).encode(
        x=alt.X(
            "depth:Q",
            title="depth: steps to the answer",
            scale=alt.Scale(zero=False, nice=False, padding=8),
            axis=alt.Axis(tickMinStep=1),
        ),
        color=color,
    )
    band = base.mark_area(opacity=0.15).encode(
        y=alt.Y("low:Q", title="right, %", scale=alt.Scale(domain=[0, 100])),
        y2="high:Q",
    )
    # RPT's line lies broad beneath the others, so that those on it can be seen.
    is_rpt = alt.FieldEqualPredicate(field="arm", equal="rpt")
    lines = base.mark_line().encode(
        y="accuracy:Q",
        strokeWidth=alt.condition(is_rpt, alt.value(5), alt.value(1.5)),
    )
    shown = alt.Chart(alt.Data(values=[{"depth": outcome.shown}])).mark_rule(color="#555555")
    chance = alt.Chart(alt.Data(values=[{"accuracy": 100 * outcome.chance}]))
    dotted = chance.mark_rule(color="#555555", strokeDash=[2, 3])
    seeds = len(outcome.seeds)
    title = alt.TitleParams(
        outcome.world,
        subtitle=f"{seeds} seed{'s' if seeds > 1 else ''}; upright: the deepest thought shown;"
        " dotted: chance",
        anchor="start",
    )
    layers = alt.layer(band, shown.encode(x="depth:Q"), dotted.encode(y="accuracy:Q"), lines)
    return layers.properties(width=480, height=300, title=title).to_dict()


def depth_values(outcome: Outcome) -> list[dict[str, Any]]:
    """Returns a value for each arm and depth, in percent: the mean over seeds, and the lowest and
    highest of them."""
    values = []
    for arm in sorted(outcome.arms, key="rpt".__ne__):  # what comes first is drawn beneath
        own = [cell for cell in outcome.cells if cell.arm == arm]
        for depth in sorted({cell.depth for cell in own}):
            found = [100 * cell.accuracy for cell in own if cell.depth == depth]
            values.append(
                {
                    "arm": arm,
                    "depth": depth,
                    "accuracy": float(np.mean(found)),
                    "low": min(found),
                    "high": max(found),
                }
            )
    return values
