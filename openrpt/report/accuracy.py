"""The chart of held-out accuracy by band of difficulty, as a Vega-Lite specification."""

from collections.abc import Mapping
from typing import Any

from openrpt.report import specs
from openrpt.sheets import extreme_bounds


def _bar(cell: Mapping[str, Any]) -> tuple[float, float]:
    """Returns where an error bar begins and ends."""
    error = cell["standard_error"] if cell["documents"] > 1 else 0.0
    return extreme_bounds(cell) or (cell["value"] - error, cell["value"] + error)


def accuracy_chart(evaluations: Mapping[str, Any], slices: Mapping[str, str]) -> dict[str, Any]:
    """Returns the chart of held-out accuracy by band of difficulty (disjoint), a line a model and
    mode, with an error bar of one standard error by document (of 95 % where that is 0). `slices`:
    band → its name on the axis."""
    values = [
        {
            "band": title,
            "model": f"{label}, {'NTP' if mode == 'ntp' else mode}",
            "value": cell["value"],
            "low": low,
            "high": high,
            "n": cell["n"],
        }
        for label, evaluation in evaluations.items()
        for mode in ("ntp", "reasoning")
        for name, title in slices.items()
        if (cell := evaluation["summary"].get(mode, {}).get(name)) and cell["n"]
        for low, high in [_bar(cell)]
    ]
    if not values:
        return {}
    models = [*dict.fromkeys(value["model"] for value in values)]
    return specs.dots_by_band(values, [*slices.values()], models)
