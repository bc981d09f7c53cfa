"""Comparisons laid out as tables: as the paper has them (arXiv 2506.08007, Tables 1 and 8 and
Figure 4), and with paired differences. A sheet is text in cells, shown on the terminal or as
markdown."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from openrpt.evaluation.compare import Comparison, Evaluated, Line
from openrpt.evaluation.results import EvaluationResult
from openrpt.evaluation.statistics import Estimate, mean_of_slices
from openrpt.positions import DIFFICULTIES
from openrpt.show import percent, points

if TYPE_CHECKING:
    from rich.console import Console

SHOWN = ("all", "medium", "hard")
ALL = "all"


@dataclass(frozen=True, kw_only=True)
class Sheet:
    title: str
    headings: list[str]
    rows: list[list[str]]
    labels: int = 1
    """Leading columns that are words: they stand on the left."""
    ends: set[int] = field(default_factory=set)
    """Rows under which there is a line."""
    notes: list[str] = field(default_factory=list)


def print_sheet(sheet: Sheet, console: "Console") -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=sheet.title, title_justify="left")
    for i, heading in enumerate(sheet.headings):
        if i < sheet.labels:
            table.add_column(heading, overflow="fold")
        else:
            table.add_column(heading, justify="right")
    for i, row in enumerate(sheet.rows):
        table.add_row(*row, end_section=i in sheet.ends)
    console.print(table)
    for note in sheet.notes:
        console.print(Text(note, "dim"), soft_wrap=True)


def markdown(sheet: Sheet) -> str:
    """The sheet as a markdown table under its title."""
    rules = ["---" if i < sheet.labels else "---:" for i in range(len(sheet.headings))]
    rows = [sheet.headings, rules, *sheet.rows]
    lines = [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]
    return "\n\n".join([f"**{sheet.title}**", "\n".join(lines), *sheet.notes]) + "\n"


# ---- cells --------------------------------------------------------------------------------------

COST_HEADINGS = ["training FLOPs", "training time"]


def cost_cells(cost: Mapping[str, Any]) -> list[str]:
    """FLOPs and time, of training as `stage.training_cost` says it, or of other work as WorkMeter
    does; dashes for what is not known."""
    from openrpt.report.costs import duration

    flops, seconds = cost.get("flops"), cost.get("seconds")
    bound = "≥ " if cost.get("steps_without_flops") else ""
    return [
        "–" if flops is None else f"{bound}{flops:.2g}",
        "–" if seconds is None else duration(seconds),
    ]


def size_of(result: EvaluationResult) -> str:
    documents = result.estimate("ntp").documents
    return f"{result.num_positions:,} positions of {documents:,} documents"


def _cell(result: EvaluationResult, mode: str, part: str) -> str:
    return percent(result.estimate(mode, result.slices()[part]).as_dict())


# ---- sheets -------------------------------------------------------------------------------------


def differences_sheet(comparison: Comparison) -> Sheet:
    """A row a model and mode, with its paired difference to the one compared with."""
    rows = []
    for line in comparison.lines:
        result, difference = line.model.result, line.differences[ALL]
        same = line.name == comparison.against
        rows.append(
            [
                line.model.name,
                line.mode,
                *(_cell(result, line.mode, part) for part in SHOWN),
                *(["", ""] if same else [points(difference.as_dict()), f"{difference.p:.2g}"]),
                _copies(line),
                *cost_cells(line.model.cost),
            ]
        )
    compared = ["difference [95 %]", "p", "= start's argmax"]
    return Sheet(
        title=f"{size_of(comparison.models[0].result)}; differences to {comparison.against}",
        headings=["model", "mode", *SHOWN, *compared, *COST_HEADINGS],
        rows=rows,
        labels=2,
        notes=["± is the standard error by document"],
    )


def _copies(line: Line) -> str:
    """How often the model says just what the start model would have said."""
    if line.mode != "reasoning":
        return ""
    return percent(line.model.result.estimate("agrees_start").as_dict())


TITLES = {"ntp": "standard NTP", "reasoning": "next-token reasoning"}


def table_1(comparison: Comparison) -> Sheet:
    """The paper's Table 1: both modes by difficulty, with n, errors and costs."""
    rows: list[list[str]] = []
    ends = set()
    for mode, title in TITLES.items():
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
        title=f"Table 1: accuracy by difficulty, {size_of(result)}",
        headings=["mode", "model", *counts, *COST_HEADINGS],
        rows=rows,
        labels=2,
        ends=ends,
        notes=["± is the standard error by document; difficulties are nested"],
    )


def table_8(models: Sequence[Evaluated]) -> Sheet:
    """The paper's Table 8: by prompt template, one sample (Random@1) and the best of k (Pass@k).

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
                *(percent(result.estimate(name).as_dict()) for name in ("reasoning", "closed")),
                *drawn,
                *cost_cells(model.entry.get("evaluation_cost") or {}),
            ]
        )
    return Sheet(
        title="Table 8: accuracy by prompt template"
        + (f", {size_of(thinking[0].result)}" if thinking else ""),
        headings=[
            *("model", "template", "decoding", "accuracy", "a prediction", *passes),
            *("evaluation FLOPs", "evaluation time"),
        ],
        rows=rows,
        labels=3,
        notes=["± is the standard error by document"]
        if rows
        else ["none of these models was evaluated in reasoning; --against chooses another first"],
    )


def mean_over_difficulties(line: Line) -> Estimate:
    """Mean of the accuracies at easy, medium and hard positions (the paper's Figure 4)."""
    result = line.model.result
    parts = result.slices()
    values = result.columns[line.mode].astype(float)
    masks = [parts[part] & ~_nan(values) for part in DIFFICULTIES]
    return mean_of_slices(values, masks, result.columns["document_id"])


def _nan(values: Any) -> Any:
    return values != values


def figure_4(comparison: Comparison) -> Sheet:
    """The paper's Figure 4 in numbers: the mean over difficulties, the best first."""
    found = [(line, mean_over_difficulties(line)) for line in comparison.lines]
    found = [(line, mean) for line, mean in found if line.mode in TITLES and mean.n]
    found.sort(key=lambda pair: -pair[1].value)
    return Sheet(
        title="Figure 4: mean of the accuracies at easy, medium and hard positions, "
        + size_of(comparison.models[0].result),
        headings=["model", "mode", "mean", *COST_HEADINGS],
        rows=[
            [
                line.model.name,
                TITLES[line.mode],
                percent(mean.as_dict()),
                *cost_cells(line.model.cost),
            ]
            for line, mean in found
        ],
        labels=2,
        notes=["± is the standard error by document"],
    )


LAYOUTS: dict[str, Callable[[Comparison], Sheet]] = {
    "differences": differences_sheet,
    "table-1": table_1,
    "table-8": lambda comparison: table_8(comparison.models),
    "figure-4": figure_4,
}
