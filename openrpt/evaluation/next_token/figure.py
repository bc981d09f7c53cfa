"""The comparison as a picture: accuracy by difficulty with errors, and over what it cost."""

from typing import Any

import altair as alt
import vl_convert

from openrpt.evaluation.next_token.compare import Comparison, mean_over_difficulties
from openrpt.evaluation.statistics import error_bar

_PARTS = {"all": "all", "easy": "> 0.5 nats", "medium": "> 1.0", "hard": "> 1.5"}
_MODES = ("ntp", "reasoning")
"""The modes whose accuracies the figure shows over their cost."""
_COST_TITLES = {
    "flops": "training FLOPs",
    "seconds": "training seconds",
    "joules": "training energy, J",
    "money": "training cost",
}


def comparison_svg(comparison: Comparison) -> str:
    """Returns an SVG, drawn without a browser or a network."""
    return vl_convert.vegalite_to_svg(specification(comparison))


def specification(comparison: Comparison) -> dict[str, Any]:
    """Returns the Vega-Lite specification: a panel of accuracies, one of their means over
    difficulties (the paper's Figure 4), and one for each cost that differs between models."""
    values = _figure_values(comparison)
    order = list(dict.fromkeys(value["line"] for value in values))
    panels: list[Any] = [_accuracies(values, order), _means(mean_values(comparison))]
    for cost, title in _COST_TITLES.items():
        whole = [v for v in values if v["part"] == _PARTS["all"] and v["mode"] in _MODES]
        known = [v for v in whole if v[cost] is not None]
        if len({value[cost] for value in known}) > 1:
            panels.append(_over_cost(known, cost, title))
    return alt.hconcat(*panels).resolve_scale(color="independent").to_dict()


def _figure_values(comparison: Comparison) -> list[dict[str, Any]]:
    """Returns a value for each line and difficulty: accuracy in percent, and one standard error
    around it."""
    values = []
    for line in comparison.lines:
        parts = line.model.result.slices()
        for part, title in _PARTS.items():
            estimate = line.model.result.estimate(line.mode, parts[part])
            if not estimate.n:
                continue
            values.append(
                {
                    "line": line.name,
                    "model": line.model.name,
                    "mode": line.mode,
                    "part": title,
                    **error_bar(estimate.as_dict()),
                    **line.model.cost,
                }
            )
    return values


def _accuracies(values: list[dict[str, Any]], order: list[str]) -> Any:
    shown = [title for title in _PARTS.values() if any(v["part"] == title for v in values)]
    base = alt.Chart(alt.Data(values=values)).encode(
        y=alt.Y("line:N", title=None, sort=order, axis=alt.Axis(labelLimit=400)),
        yOffset=alt.YOffset("part:N", sort=shown),
        color=alt.Color("part:N", title="entropy", sort=shown),
    )
    accuracy = alt.X(
        "accuracy:Q", title="accuracy, % ± standard error", scale=alt.Scale(zero=False)
    )
    points = base.mark_point(filled=True, size=50, opacity=1).encode(x=accuracy)
    errors = base.mark_rule().encode(x="low:Q", x2="high:Q")
    return alt.layer(errors, points).properties(width=360, height={"step": 9})


def mean_values(comparison: Comparison) -> list[dict[str, Any]]:
    """Returns a value for each line of _MODES: the mean over easy, medium and hard in percent, and
    its error."""
    found: list[dict[str, Any]] = []
    for line in comparison.lines:
        mean = mean_over_difficulties(line)
        if line.mode in _MODES and mean.n:
            found.append({"line": line.name, "mode": line.mode, **error_bar(mean.as_dict())})
    return found


def _means(values: list[dict[str, Any]]) -> Any:
    base = alt.Chart(alt.Data(values=values)).encode(
        y=alt.Y("line:N", title=None, sort="-x", axis=alt.Axis(labelLimit=400))
    )
    title = "mean of easy, medium and hard, %"
    bars = base.mark_bar(opacity=0.7).encode(
        x=alt.X("accuracy:Q", title=title), color=alt.Color("mode:N", title="mode")
    )
    errors = base.mark_rule().encode(x="low:Q", x2="high:Q")
    return alt.layer(bars, errors).properties(width=240, height={"step": 18})


def _over_cost(values: list[dict[str, Any]], cost: str, title: str) -> Any:
    base = alt.Chart(alt.Data(values=values)).encode(
        x=alt.X(f"{cost}:Q", title=title, axis=alt.Axis(format="~e" if cost == "flops" else "~s")),
        color=alt.Color("mode:N", title="mode"),
    )
    accuracy = alt.Y("accuracy:Q", title="accuracy, % (all)", scale=alt.Scale(zero=False))
    points = base.mark_point(filled=True, size=50, opacity=1).encode(
        y=accuracy, shape=alt.Shape("model:N", title="model")
    )
    errors = base.mark_rule().encode(y="low:Q", y2="high:Q")
    return alt.layer(errors, points).properties(width=240, height=240)
