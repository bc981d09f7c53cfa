"""Evaluations and comparisons as sheets, and a comparison on the terminal."""

from collections.abc import Callable, Sequence

from rich.console import Console
from rich.text import Text

from openrpt.config.binding import differing_settings
from openrpt.data.positions import DIFFICULTIES
from openrpt.evaluation.next_token.compare import Comparison, Line, mean_over_difficulties
from openrpt.evaluation.next_token.recorded import Recorded
from openrpt.evaluation.next_token.results import EvaluationResult
from openrpt.runs.run import existing_run
from openrpt.sheets import COST_HEADINGS, Sheet, cost_cells, percent, points, print_sheet

_SHOWN = ("all", "medium", "hard")
_ALL = "all"


def _size_of(result: EvaluationResult) -> str:
    """Returns the size of a result, `1,024 positions of 64 documents`."""
    documents = result.estimate("ntp").documents
    return f"{result.num_positions:,} positions of {documents:,} documents"


def _cell(result: EvaluationResult, mode: str, part: str) -> str:
    return percent(result.estimate(mode, result.slices()[part]).as_dict())


def differences_sheet(comparison: Comparison) -> Sheet:
    """Returns a row a model and mode, with its paired difference to the one compared with."""
    rows = []
    for line in comparison.lines:
        result, difference = line.model.result, line.differences[_ALL]
        if line.name == comparison.against:
            compared_cells = ["", ""]
        else:
            compared_cells = [points(difference.as_dict()), f"{difference.p:.2g}"]
        rows.append(
            [
                line.model.name,
                line.mode,
                *(_cell(result, line.mode, part) for part in _SHOWN),
                *compared_cells,
                _copies(line),
                *cost_cells(line.model.cost),
            ]
        )
    compared = ["difference [95 %]", "p", "= start's argmax"]
    return Sheet(
        title=f"{_size_of(comparison.models[0].result)}; differences to {comparison.against}",
        headings=["model", "mode", *_SHOWN, *compared, *COST_HEADINGS],
        rows=rows,
        labels=2,
        notes=["± is the standard error by document"],
    )


def _copies(line: Line) -> str:
    """Returns how often the model says just what the start model would have said."""
    if line.mode != "reasoning":
        return ""
    return percent(line.model.result.estimate("agrees_start").as_dict())


_TITLES = {"ntp": "standard NTP", "reasoning": "next-token reasoning"}


def table_1(comparison: Comparison) -> Sheet:
    """Returns the paper's Table 1: both modes by difficulty, with n, errors and costs."""
    rows: list[list[str]] = []
    ends = set()
    for mode, title in _TITLES.items():
        lines = [line for line in comparison.lines if line.mode == mode]
        for line in lines:
            result = line.model.result
            cells = [_cell(result, mode, part) for part in DIFFICULTIES]
            rows.append([title, line.model.name, *cells, *cost_cells(line.model.cost)])
        ends.add(len(rows) - 1)
    result = comparison.models[0].result
    parts = result.slices()
    counts = [f"{part} (n = {int(parts[part].sum()):,})" for part in DIFFICULTIES]
    return Sheet(
        title=f"Table 1: accuracy by difficulty, {_size_of(result)}",
        headings=["mode", "model", *counts, *COST_HEADINGS],
        rows=rows,
        labels=2,
        ends=ends,
        notes=["± is the standard error by document; difficulties are nested"],
    )


def table_8(models: Sequence[Recorded]) -> Sheet:
    """Returns the paper's Table 8: by prompt template, one sample (Random@1) and the best of k
    (Pass@k).

    Models that were evaluated greedily have no Pass@k.
    """
    thinking = [model for model in models if model.result.has_reasoning]
    sizes = sorted({model.result.samples for model in thinking if model.result.samples > 1})
    passes = [f"Pass@{size}" for size in sizes]
    rows = []
    for model in thinking:
        result = model.result
        drawn = [
            percent(result.estimate("any_right").as_dict()) if result.samples == size else ""
            for size in sizes
        ]
        rows.append(
            [
                model.name,
                model.entry.get("template", ""),
                "Random@1" if result.samples else "greedy",
                percent(result.estimate("reasoning").as_dict()),
                percent(result.estimate("closed").as_dict()),
                *drawn,
                *cost_cells(model.entry.get("evaluation_cost") or {}),
            ]
        )
    return Sheet(
        title="Table 8: accuracy by prompt template"
        + (f", {_size_of(thinking[0].result)}" if thinking else ""),
        headings=[
            "model",
            "template",
            "decoding",
            "accuracy",
            "a prediction",
            *passes,
            "evaluation FLOPs",
            "evaluation time",
        ],
        rows=rows,
        labels=3,
        notes=["± is the standard error by document"]
        if rows
        else ["none of these models was evaluated in reasoning; --against chooses another first"],
    )


def figure_4(comparison: Comparison) -> Sheet:
    """Returns the paper's Figure 4 in numbers: the mean over difficulties, the best first."""
    found = [(line, mean_over_difficulties(line)) for line in comparison.lines]
    found = [(line, mean) for line, mean in found if line.mode in _TITLES and mean.n]
    found.sort(key=lambda pair: -pair[1].value)
    return Sheet(
        title="Figure 4: mean of the accuracies at easy, medium and hard positions, "
        + _size_of(comparison.models[0].result),
        headings=["model", "mode", "mean", *COST_HEADINGS],
        rows=[
            [
                line.model.name,
                _TITLES[line.mode],
                percent(mean.as_dict()),
                *cost_cells(line.model.cost),
            ]
            for line, mean in found
        ],
        labels=2,
        notes=["± is the standard error by document"],
    )


def settings_sheet(comparison: Comparison) -> Sheet:
    """Returns a row a setting in which the runs differ, a column a run; no row where they are alike
    or there is one run."""
    runs = {model.run_name: model.run for model in comparison.models}
    found = differing_settings([existing_run(path).config for path in runs.values()])
    return Sheet(
        title="Settings that differ",
        headings=["setting", *runs],
        rows=[[key, *map(str, values)] for key, values in found.items()],
    )


LAYOUTS: dict[str, Callable[[Comparison], Sheet]] = {
    "differences": differences_sheet,
    "table-1": table_1,
    "table-8": lambda comparison: table_8(comparison.models),
    "figure-4": figure_4,
}
"""The ways to lay a comparison out, by the names that the command line has for them."""


def print_comparison(comparison: Comparison, console: Console, layout: str) -> None:
    """Prints one of LAYOUTS, the settings in which runs differ, and what must be known to read
    it."""
    print_sheet(LAYOUTS[layout](comparison), console)
    if (settings := settings_sheet(comparison)).rows:
        print_sheet(settings, console)
    for note in comparison.notes:
        console.print(Text(f"note: {note}"), soft_wrap=True)
    for name, sentence in comparison.verdicts.items():
        console.print(Text(f"{name}: {sentence}"), soft_wrap=True)
