"""A laboratory as a picture: accuracy over depth, a line an arm, a band over seeds."""

from typing import Any

import altair as alt
import numpy as np
import vl_convert

from openrpt.experiments.lab.outcome import Outcome

_COLORS = (
    *("#7f7f7f", "#d55e00", "#0072b2", "#009e73"),
    *("#cc79a7", "#f0b400", "#56b4e9", "#000000"),
)
"""Okabe-Ito's, an arm each: told apart with every kind of colour vision."""


def lab_svg(outcome: Outcome) -> str:
    """An SVG, drawn without a browser or a network."""
    return vl_convert.vegalite_to_svg(specification(outcome))


def specification(outcome: Outcome) -> dict[str, Any]:
    """Vega-Lite: lines and bands, a line upright at `shown`, a dotted one at chance."""
    arms = outcome.arms
    base = alt.Chart(alt.Data(values=figure_values(outcome))).encode(
        x=alt.X("depth:Q", title="depth: steps to the answer", axis=alt.Axis(tickMinStep=1)),
        color=alt.Color(
            "arm:N", title=None, scale=alt.Scale(domain=arms, range=list(_COLORS[: len(arms)]))
        ),
    )
    right = alt.Y("accuracy:Q", title="right, %", scale=alt.Scale(domain=[0, 100]))
    band = base.mark_area(opacity=0.15).encode(y=alt.Y("low:Q", title="right, %"), y2="high:Q")
    lines = base.mark_line(strokeWidth=2, point=alt.OverlayMarkDef(size=18)).encode(y=right)
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


def figure_values(outcome: Outcome) -> list[dict[str, Any]]:
    """One an arm and depth, in percent: the mean over seeds, and the lowest and highest of them."""
    values = []
    for arm in outcome.arms:
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
