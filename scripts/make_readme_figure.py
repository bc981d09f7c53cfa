"""README's first figure, accuracy over training compute: `python scripts/make_readme_figure.py`.

On the left the laboratory (docs/results/experiment-cost.json), on the right text that people wrote
(docs/results/gsm8k.json): reinforcement beside next-token training for as many FLOPs.
"""

from pathlib import Path
from typing import Any

import altair as alt
import vl_convert

from openrpt.experiments.answers.figure import figure_values
from openrpt.experiments.answers.files import read_results
from openrpt.files import write_text
from openrpt.json_files import read_json

_DOCS = Path(__file__).parent.parent / "docs"
PICTURE = _DOCS / "images" / "compute.svg"
THINKS, AT_ONCE, PLAIN, WORKED = (
    "reinforcement, behind a thought",
    "the same weights, at once",
    "next-token training",
    "next-token training with worked lines",
)
COLORS = {THINKS: "#d55e00", AT_ONCE: "#f0b400", PLAIN: "#0072b2", WORKED: "#009e73"}
_LABORATORY = {"RPT": THINKS, "NTP": PLAIN, "NTP with worked lines": WORKED}


def laboratory() -> list[dict[str, Any]]:
    """Returns the points of `cost`: % right beyond the depths shown, mean and range of seeds."""
    outcome = read_results(_DOCS / "results" / "experiment-cost.json")
    return [
        {key: value[key] for key in ("flops", "value", "low", "high")}
        | {"way": _LABORATORY[value["series"]]}
        for value in figure_values(outcome, "beyond")
        if value["series"]
    ]


def real_text() -> list[dict[str, Any]]:
    """Returns the points of GSM8K: % of whole numbers right, and a standard error either way."""
    found = []
    for model in read_json(
        _DOCS / "results" / "gsm8k.json", advice="python scripts/make_gsm8k_result.py RUN writes it"
    )["models"]:
        measures, thinks = model["measures"], "span" in model["measures"]
        ways = {"span": THINKS, "span_ntp": AT_ONCE} if thinks else {"span_ntp": PLAIN}
        for measure, way in ways.items():
            value, error = (measures[measure]["all"][key] for key in ("value", "standard_error"))
            found.append(
                {
                    "way": way,
                    "flops": model["flops"],
                    "value": 100 * value,
                    "low": 100 * (value - error),
                    "high": 100 * (value + error),
                }
            )
    return found


def panel(points: list[dict[str, Any]], title: str, power: int) -> Any:
    """Returns a line a way over FLOPs in units of ten to `power`, with a rule from `low` to
    `high`."""
    legend = alt.Legend(
        title=None,
        orient="bottom",
        columns=2,
        symbolType="stroke",
        symbolStrokeWidth=3,
        symbolOpacity=1,
        labelLimit=400,
    )
    scale = alt.Scale(domain=list(COLORS), range=list(COLORS.values()))
    color = alt.Color("way:N", scale=scale, legend=legend)
    values = [point | {"flops": point["flops"] / 10**power} for point in points]
    exponent = str(power).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))
    x = alt.X("flops:Q", title=f"training FLOPs, × 10{exponent}")
    y = alt.Y("value:Q", title="right, %", scale=alt.Scale(domain=[0, 100]))
    base = alt.Chart(alt.Data(values=values)).encode(x=x, color=color)
    return alt.layer(
        base.mark_rule(opacity=0.4).encode(y="low:Q", y2="high:Q"),
        base.mark_line().encode(y=y),
        base.mark_point(filled=True, opacity=1).encode(y=y),
    ).properties(title=title, width=300, height=240)


def main() -> None:
    """Draws the figure."""
    left = panel(laboratory(), "The laboratory, deeper than any thought shown", 10)
    right = panel(real_text(), "GSM8K, computed numbers held out", 14)
    both = alt.hconcat(left, right).configure_axis(grid=True, gridOpacity=0.5)
    write_text(PICTURE, vl_convert.vegalite_to_svg(both.to_dict()))
    print(PICTURE)


if __name__ == "__main__":
    main()
