"""The look of the charts: Vega-Lite specifications, without the data and the theme.

They are written out here, and not made by altair, because building and checking forty of them takes
it many seconds: most of the time of a report. A test checks each against altair's schema.
"""

from collections.abc import Mapping, Sequence
from typing import Any

Spec = dict[str, Any]

_GRAY = "#7b8590"
"""A grey that is seen on light and on dark."""
_SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
_HOVERED = {"param": "hover", "empty": False}


def lines(
    *,
    names: Sequence[str],
    named: bool,
    runs: Sequence[str],
    line_names: Sequence[str],
    unit: str | None,
    axis: str,
    tooltip: str,
    zero: bool,
    limits: Sequence[float] = (),
) -> Spec:
    """Returns a specification of lines in layers: band, raw values, line, dots, warnings, what is
    hovered. The page leaves out those that have nothing to show. `names`: of the series; `named`:
    whether a legend tells them; `axis`, `tooltip`: formats in d3's words; `limits`: of the healthy
    range, where it was left."""
    # The same colour and dash for a series in every run; of several runs, a colour each.
    several = len(runs) > 1
    color_of, colors = ("run", runs) if several else ("series", names)
    # Where colours tell the runs, the legend of dashes has none of its own.
    gray = {"symbolStrokeColor": _GRAY} if several else {}
    x = _quantity("x", title="step", scale={"nice": False, "padding": 8})
    color = _names(color_of, colors, _legend("stroke") if several or named else None)
    dash = _names("series", names, _legend("stroke", **gray) if named else None)
    y = _quantity("value", title=unit, axis=_axis(axis), scale={"zero": zero})
    plain = {"x": x, "color": color, "detail": _name("line")}
    series = plain | {"y": y, "strokeDash": dash}
    # Beside a legend of colours one of dashes must not know of the points: it would be drawn as
    # they are, without a stroke. Where both are one legend the points tell the dash, too: else it
    # stands there twice.
    pointed = plain | {"y": y} if several else series
    point = {"type": "point", "filled": True, "opacity": 1, "strokeWidth": 0}
    layers = [
        {
            "name": "band",
            "mark": {"type": "area", "opacity": 0.18},
            "encoding": plain | {"y": _quantity("low"), "y2": {"field": "high"}},
        },
        {
            "name": "raw",
            "mark": {"type": "line", "strokeWidth": 1, "opacity": 0.35},
            "encoding": plain | {"y": _quantity("raw")},
        },
        {"name": "line", "mark": {"type": "line", "strokeWidth": 2}, "encoding": series},
        {"name": "dots", "mark": point, "encoding": pointed | {"size": {"value": 18}}},
        *([_limits(limits)] if limits else []),
        _WARNINGS,
        {
            "name": "hovered",
            "transform": [{"filter": _HOVERED}],
            "mark": point,
            "encoding": pointed | {"size": {"value": 70}},
        },
        _rule(x, line_names, tooltip),
    ]
    return _finished({"data": {"name": "rows"}, "layer": layers, "params": _PARAMS})


def _rule(x: Spec, line_names: Sequence[str], tooltip: str) -> Spec:
    """Returns the upright line at the hovered step, with the values of all lines there."""
    shown = [_quantity(f"l{i}", title=name, format=tooltip) for i, name in enumerate(line_names)]
    return {
        "name": "rule",
        "transform": [{"pivot": "key", "value": "value", "groupby": ["x"]}],
        "mark": {"type": "rule"},
        "encoding": {
            "x": x,
            "opacity": {"condition": _HOVERED | {"value": 0.5}, "value": 0},
            "tooltip": [_quantity("x", title="step", format=".6~g"), *shown],
        },
    }


_PARAMS: list[Spec] = [
    {
        "name": "zoom",
        "select": {"type": "interval", "encodings": ["x"], "zoom": "wheel![event.shiftKey]"},
        "bind": "scales",
        "views": ["line"],
    },
    {
        "name": "hover",
        "select": {"type": "point", "fields": ["x"], "nearest": True, "on": "pointerover"},
        "views": ["rule"],
    },
]
"""The pointer's part: it zooms, and chooses the step whose values are told."""


def _limits(values: Sequence[float]) -> Spec:
    """Returns a dashed line across the chart at each limit of the healthy range."""
    return {
        "name": "limits",
        "data": {"values": [{"limit": value} for value in values]},
        "mark": {"type": "rule", "strokeDash": [2, 3], "color": _GRAY},
        "encoding": {
            "y": _quantity("limit"),
            "tooltip": [_quantity("limit", title="limit of the healthy range")],
        },
    }


_WARNINGS: Spec = {
    "name": "warnings",
    "data": {"name": "warnings"},
    "mark": {"type": "point", "shape": "triangle-down", "filled": True, "size": 90, "opacity": 1},
    "encoding": {
        "x": {"field": "x", "type": "quantitative"},
        "y": {"value": 6},
        "tooltip": [
            {"field": "step", "type": "quantitative"},
            {"field": "name", "type": "nominal", "title": "warning"},
            {"field": "text", "type": "nominal", "title": "what"},
        ],
    },
}
"""A mark at the top of the chart where something was wrong; what it was, on hovering."""


def stacked(
    *, names: Sequence[str], unit: str, axis_title: str | None, axis: str, tooltip: str
) -> Spec:
    """Returns a specification of stacked bars, of the first run alone."""
    encoding = {
        "x": _quantity("from", bin="binned", title="step", scale={"nice": False}),
        "x2": {"field": "to"},
        "y": _quantity("value", stack=True, title=axis_title, axis=_axis(axis)),
        "color": _names("series", names, _legend("square") if len(names) > 1 else None),
        "order": _quantity("place"),
        "tooltip": [
            _quantity("x", title="step", format=".6~g"),
            _name("series", title="part"),
            _quantity("value", title=unit, format=tooltip),
        ],
    }
    mark = {"type": "bar", "orient": "vertical"}
    return _finished({"data": {"name": "rows"}, "mark": mark, "encoding": encoding})


def dots_by_band(
    values: Sequence[Mapping[str, Any]], bands: Sequence[str], models: Sequence[str]
) -> Spec:
    """Returns a specification of a point with an error bar a model and band. `values`: band,
    model, value, low, high, n."""
    shared = {
        "x": _name(
            "band",
            sort=[*bands],
            title="entropy of the scorer, nats",
            axis={"labelAngle": 0},
        ),
        "xOffset": {"field": "model", "type": "nominal", "scale": {"domain": [*models]}},
        "color": _names("model", models, _legend("circle")),
        "tooltip": [
            _name("model"),
            _name("band"),
            _quantity("value", title="right", format=".1%"),
            _quantity("n", title="positions"),
        ],
    }
    right = _quantity("value", title="right", axis={"format": ".2~%"})
    shape = {"field": "model", "type": "nominal", "scale": {"domain": [*models]}}
    bars = {
        "mark": {"type": "rule", "strokeWidth": 2},
        "encoding": shared | {"y": _quantity("low"), "y2": {"field": "high"}},
    }
    points = {
        "mark": {"type": "point", "filled": True, "size": 80, "opacity": 1},
        "encoding": shared | {"y": right, "shape": shape},
    }
    return _finished({"data": {"values": [*values]}, "layer": [bars, points]})


def _quantity(field: str, **more: Any) -> Spec:
    return {"field": field, "type": "quantitative"} | more


def _name(field: str, **more: Any) -> Spec:
    return {"field": field, "type": "nominal"} | more


def _names(field: str, domain: Sequence[str], legend: Spec | None) -> Spec:
    return _name(field, scale={"domain": [*domain]}, legend=legend)


def _axis(format: str) -> Spec:
    return {"format": format} if format else {}


def _legend(symbol: str, **more: Any) -> Spec:
    """The page chooses how many columns fit, and how long a name may be."""
    return {"title": None, "orient": "top", "symbolType": symbol, "columns": 2} | more


def _finished(spec: Spec) -> Spec:
    return {"$schema": _SCHEMA, "width": "container", "height": 180} | spec
