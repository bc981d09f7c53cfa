"""Accuracy over think budgets as people read it: a row a model and budget, and the curve."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from openrpt.amounts import flops
from openrpt.evaluation.instrument import Measured, models_of
from openrpt.evaluation.reports import Report
from openrpt.evaluation.statistics import error_bar
from openrpt.sheets import NOTHING, Sheet, points, share

if TYPE_CHECKING:
    from openrpt.evaluation.budgets.instrument import BudgetsResult

_STANDARD = "standard"
_NOTES = [
    "budget: most free tokens of a thought; tokens: those that were drawn, their mean, without its"
    " seed and its end; forced: thoughts that the budget closed",
    "standard: one forward pass of the same weights over the plain text, no thought; differences"
    " are to it, paired, 95 % by document; not corrected for the number of budgets",
    "± is the standard error by document; FLOPs: a position's, its part of the prefix included",
]


def budgets_report(measured: "Sequence[Measured[BudgetsResult]]") -> Report:
    """Returns one sheet of all models and budgets, and the curve of accuracy over tokens."""
    first = measured[0].result
    rows = [row for one in measured for row in _rows(one)]
    counts = sorted({one.result.estimate("ntp").n for one in measured})  # by tokenizer
    positions = " to ".join(f"{count:,}" for count in dict.fromkeys([counts[0], counts[-1]]))
    sampled = f"{first.samples} samples each" if first.samples else "greedy"
    return Report(
        name="budgets",
        about={"split": first.split, "samples": first.samples, "budgets": first.budgets},
        models=models_of(measured),
        rows=rows,
        sheets=[
            Sheet(
                title=f"Accuracy over thought: {positions} positions of {first.split}, {sampled}",
                headings=[
                    "model",
                    "budget",
                    "tokens",
                    "forced, %",
                    "accuracy, %",
                    "− standard",
                    "FLOPs",
                ],
                rows=[_cells(row) for row in rows],
                labels=2,
                ends={i for i, row in enumerate(rows) if row["budget"] == first.budgets[-1]},
                notes=_NOTES,
            )
        ],
        figure=_figure(rows),
    )


def _rows(one: "Measured[BudgetsResult]") -> list[dict[str, Any]]:
    """Returns a row a budget, standard prediction (`budget` None) first."""
    result, label = one.result, one.model.label
    rows = [
        {
            "model": label,
            "budget": None,
            "tokens": 0.0,
            "forced": None,
            **result.estimate("ntp").as_dict(),
            "flops": result.flops["ntp"],
            **dict.fromkeys(_DIFFERENCE),
        }
    ]
    for budget in result.budgets:
        gain = result.gain(budget).as_dict()
        rows.append(
            {
                "model": label,
                "budget": budget,
                "tokens": result.estimate(f"tokens/{budget}").value,
                "forced": result.estimate(f"forced/{budget}").value,
                **result.estimate(f"accuracy/{budget}").as_dict(),
                "flops": result.flops[str(budget)],
                **{key: gain[key.removeprefix("difference_")] for key in _DIFFERENCE},
            }
        )
    return rows


_DIFFERENCE = tuple(
    f"difference_{part}" for part in ("value", "low", "high", "p", "distinguishable")
)
"""Keys of a row about accuracy less standard prediction's; None for standard prediction itself."""


def _cells(row: dict[str, Any]) -> list[str]:
    standard = row["budget"] is None
    difference = {name: row[f"difference_{name}"] for name in ("value", "low", "high")}
    return [
        row["model"],
        _STANDARD if standard else str(row["budget"]),
        NOTHING if standard else f"{row['tokens']:.1f}",
        NOTHING if standard else f"{100 * row['forced']:.0f}",
        share(row),
        points(difference),
        flops(row["flops"]),
    ]


def _figure(rows: Sequence[dict[str, Any]]) -> str:
    """Returns an SVG: accuracy with one standard error over the tokens that were spent, a line a
    model, its standard prediction dashed."""
    import altair as alt
    import vl_convert

    values = [
        {
            "model": row["model"],
            "tokens": row["tokens"],
            "standard": row["budget"] is None,
            **error_bar(row),
        }
        for row in rows
    ]

    def drawn(standard: bool) -> Any:
        chosen = [value for value in values if value["standard"] is standard]
        return alt.Chart(alt.Data(values=chosen)).encode(
            color=alt.Color("model:N", title="model", sort=None)
        )

    def y(field: str) -> Any:
        return alt.Y(f"{field}:Q", title="accuracy, %", scale=alt.Scale(zero=False))

    tokens = alt.X("tokens:Q", title="tokens of thought spent, mean")
    line = drawn(False).mark_line(point=True).encode(x=tokens, y=y("accuracy"))
    errors = drawn(False).mark_rule().encode(x=tokens, y=y("low"), y2="high:Q")
    rule = drawn(True).mark_rule(strokeDash=[4, 3]).encode(y=y("accuracy"))
    chart = alt.layer(rule, errors, line).properties(width=360, height=240)
    svg: str = vl_convert.vegalite_to_svg(chart.to_dict())
    return svg
