"""Probes of several models as people read them: a table a target, rows of numbers, a figure."""

from collections.abc import Sequence
from typing import Any

from openrpt.evaluation.instrument import Measured, models_of
from openrpt.evaluation.probes.labels import TARGETS
from openrpt.evaluation.probes.probes import ProbeResult, probe_difference
from openrpt.evaluation.reports import Report
from openrpt.evaluation.statistics import error_bar
from openrpt.sheets import COST_HEADINGS, Sheet, cost_cells, percent, points

_BASELINES = {"majority": "the commonest class", "offset": "how much is read, alone"}
_NOTE = (
    "± is the standard error by document; selectivity: accuracy less that with random labels a"
    " type of token; differences are paired, their intervals not corrected for the number of"
    " layers"
)


def probe_report(measured: Sequence[Measured[ProbeResult]]) -> Report:
    """Returns a sheet a target, one of costs, and a figure; differences are to the first model."""
    first, rows = measured[0], _probe_rows(measured)
    targets = first.result.targets
    return Report(
        name="probes",
        about={
            "against": first.model.label,
            "targets": {target: TARGETS[target] for target in targets},
            "sample": first.result.sample,
        },
        models=models_of(measured),
        rows=rows,
        sheets=[*(_target_sheet(measured, target) for target in targets), _cost_sheet(measured)],
        figure=_figure(rows),
    )


def _probe_rows(probed: Sequence[Measured[ProbeResult]]) -> list[dict[str, Any]]:
    """Returns a row a target, layer and model; differences are to the first model, at the same
    layer where both were probed there."""
    first = probed[0].result
    rows = []
    for target in first.targets:
        for one in probed:
            for layer in one.result.layers:
                rows.append(_row(one, target, layer, first))
    return rows


def _row(one: Measured[ProbeResult], target: str, layer: int, first: ProbeResult) -> dict[str, Any]:
    result, column = one.result, f"{target}/{layer}"
    selectivity = result.selectivity(target, layer)
    row: dict[str, Any] = {
        "target": target,
        "model": one.model.label,
        "layer": layer,
        **result.estimate(column).as_dict(),
        "control": result.estimate(f"{column}/control").value,
        "selectivity": selectivity.value,
        "selectivity_standard_error": selectivity.standard_error,
        "majority": result.estimate(f"{target}/majority").value,
        "offset": result.estimate(f"{target}/offset").value,
        "strength": result.strengths[column],
    }
    difference = (
        probe_difference(result, first, column).as_dict() if column in first.columns else {}
    )
    names = ("value", "low", "high", "p", "distinguishable")
    return row | {f"difference_{name}": difference.get(name) for name in names}


def _target_sheet(measured: Sequence[Measured[ProbeResult]], target: str) -> Sheet:
    """Returns accuracy, selectivity and the difference to the first model, by layer."""
    first = measured[0]
    baselines = {name: first.result.estimate(f"{target}/{name}") for name in _BASELINES}
    n, documents = baselines["majority"].n, baselines["majority"].documents
    headings = ["layer"]
    for one in measured:
        headings += [one.model.label, "selectivity"]
        if one is not first:
            headings.append(f"− {first.model.label} [95 %]")
    layers = sorted({layer for one in measured for layer in one.result.layers})
    texts = [f"{_BASELINES[name]}: {percent(e.as_dict())}" for name, e in baselines.items()]
    return Sheet(
        title=f"{target}: {TARGETS[target]}; accuracy in % at {n:,} test positions of"
        f" {documents} documents",
        headings=headings,
        rows=[
            [str(layer), *(cell for one in measured for cell in _cells(one, target, layer, first))]
            for layer in layers
        ],
        labels=0,
        notes=["; ".join(texts)],
    )


def _cells(
    one: Measured[ProbeResult], target: str, layer: int, first: Measured[ProbeResult]
) -> list[str]:
    column, compared = f"{target}/{layer}", one is not first
    if layer not in one.result.layers:
        return ["–"] * (3 if compared else 2)
    accuracy = percent(one.result.estimate(column).as_dict()).removesuffix(" %")
    selectivity = 100 * one.result.selectivity(target, layer).value
    cells = [accuracy, f"{selectivity:+.1f}".replace("-", "−")]
    if compared:
        known = column in first.result.columns
        found = probe_difference(one.result, first.result, column) if known else None
        cells.append(points(found.as_dict()) if found else "–")
    return cells


def _cost_sheet(measured: Sequence[Measured[ProbeResult]]) -> Sheet:
    return Sheet(
        title="cost",
        headings=["model", *COST_HEADINGS, "FLOPs of its states", "probing time"],
        rows=[
            [one.model.label, *cost_cells(one.model.cost or {}), *cost_cells(one.result.cost)]
            for one in measured
        ],
        notes=[_NOTE],
    )


def _figure(rows: Sequence[dict[str, Any]]) -> str:
    """Returns an SVG: accuracy by layer with one standard error, the control dashed, a panel a
    target."""
    import altair as alt
    import vl_convert

    values = [
        {
            "panel": TARGETS[row["target"]],
            "model": row["model"],
            "layer": row["layer"],
            **error_bar(row),
            "control": 100 * row["control"],
            "majority": 100 * row["majority"],
        }
        for row in rows
    ]
    panels = []
    for panel in dict.fromkeys(value["panel"] for value in values):
        inside = [value for value in values if value["panel"] == panel]
        base = alt.Chart(alt.Data(values=inside)).encode(
            x=alt.X("layer:Q", title="layer", axis=alt.Axis(tickMinStep=1)),
            color=alt.Color("model:N", title="model", sort=None),
        )

        def y(field: str) -> Any:
            return alt.Y(f"{field}:Q", title="accuracy, %", scale=alt.Scale(zero=False))

        real = base.mark_line(point=True).encode(y=y("accuracy"))
        errors = base.mark_rule().encode(y=y("low"), y2="high:Q")
        control = base.mark_line(strokeDash=[4, 3], opacity=0.6).encode(y=y("control"))
        rule = (
            alt.Chart(alt.Data(values=inside[:1]))
            .mark_rule(color="gray", strokeDash=[1, 2])
            .encode(y=y("majority"))
        )
        layers = alt.layer(rule, control, errors, real)
        panels.append(layers.properties(width=260, height=220, title=panel))
    svg: str = vl_convert.vegalite_to_svg(alt.hconcat(*panels).to_dict())
    return svg
