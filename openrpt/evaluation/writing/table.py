"""Writing of several models: made or taken from the run's folder, compared in pairs, shown as a
table and written as JSON and CSV."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openrpt.config.corpus import CorpusConfig
from openrpt.config.sections import Config
from openrpt.data.documents import CorpusCounts, read_corpus
from openrpt.data.scored import load_scored
from openrpt.data.skipped import unread_lines
from openrpt.engine.engine import open_engine
from openrpt.engine.fingerprint import model_fingerprint
from openrpt.engine.loading import load_tokenizer
from openrpt.errors import UserError
from openrpt.evaluation.models import NamedModel, fingerprint
from openrpt.evaluation.statistics import Interval
from openrpt.evaluation.writing.passages import passages, passages_key
from openrpt.evaluation.writing.writing import (
    DECIMALS,
    MEASURES,
    OF_REAL,
    WritingResult,
    evaluate_writing,
)
from openrpt.extras import require
from openrpt.files import csv_text, json_text, write_text
from openrpt.progress import SILENT, Progress
from openrpt.runs.run import Run, works_in_run

if TYPE_CHECKING:
    from rich.console import Console


FORMAT = 1
REAL = "real text"


@dataclass(frozen=True, kw_only=True, eq=False)
class Written:
    model: NamedModel
    result: WritingResult


@works_in_run
def write_side_by_side(
    run: Run,
    models: Sequence[NamedModel],
    config: Config,
    *,
    corpus: CorpusConfig | None = None,
    progress: Progress = SILENT,
) -> tuple[str, list[Written]]:
    """The text's name, and each model's completions of the same passages, of the run's split or
    of another corpus. What the run's folder holds already, of the same weights, settings and
    passages, is taken from there; an interrupted model goes on after its last completion.

    Raises UserError as `evaluate_writing`, and for what can't be loaded.
    """
    require("sklearn", extra="scikit-learn", what="openrpt writing")
    name, texts = _texts(run, config, corpus, progress)
    tokenizers = [load_tokenizer(config.model, model.path) for model in models]
    own = load_tokenizer(config.model, run.config.model.path)
    given = passages(texts, config, own, tokenizers)
    judge_path = config.writing.features or run.config.model.path
    judge = None
    settings: list[Any]
    settings = [config.seed, config.writing.model_dump(), config.prompt.window]
    settings += [config.model.dtype, judge_path, passages_key(given)]
    found = []
    for model in models:
        mark = fingerprint(model_fingerprint(model.path), settings)
        path = run.path / "writing" / f"{model.label}-{mark}.parquet"
        if path.is_file():
            progress.say(f"{model.label}: has written before, taken from {path}")
            result = WritingResult.load(path)
        else:
            judge = judge or open_engine(config.model, path=judge_path)
            result = evaluate_writing(
                open_engine(config.model, path=model.path),
                given,
                config,
                features=judge,
                store=path.with_suffix(".jsonl"),
                progress=progress,
                title=f"{model.label} writes",
            )
            result.save(path)
        found.append(Written(model=model, result=result))
    return name, found


def _texts(
    run: Run, config: Config, corpus: CorpusConfig | None, progress: Progress
) -> tuple[str, Iterable[tuple[str, Callable[[], str]]]]:
    """The text's name; of each document its id, and a function that reads it."""
    if corpus is not None:
        counts = CorpusCounts()
        documents = list(read_corpus(corpus, counts))
        for line in unread_lines(counts):
            progress.say(line)
        return Path(corpus.path).stem, [(d.document_id, lambda d=d: d.text) for d in documents]
    scored, split = load_scored(run.scored), config.evaluate.split
    ids = scored.ids(split)
    if not ids:
        raise UserError(f"{scored.folder}: no document of the {split} split was scored")
    return str(split), [(i, lambda i=i: scored.document(i).text) for i in ids]


def writing_rows(written: Sequence[Written]) -> list[dict[str, Any]]:
    """A row a measure and model, the real text's first; differences are to the first model."""
    first = written[0]
    rows = []
    for name in MEASURES:
        if name in OF_REAL:
            rows.append(_row(name, REAL, first.result.measure(name, "real").interval(), None))
        basis = first.result.measure(name)
        for one in written:
            value = one.result.measure(name)
            difference = None if one is first else value.minus(basis).interval()
            rows.append(_row(name, one.model.label, value.interval(), difference))
    return rows


def _row(name: str, label: str, value: Interval, difference: Interval | None) -> dict[str, Any]:
    row: dict[str, Any] = {"measure": name, "model": label, **value.as_dict()}
    for key in ("value", "low", "high"):
        row[f"difference_{key}"] = None if difference is None else getattr(difference, key)
    return row


@works_in_run
def write_writing(run: Run, name: str, written: Sequence[Written]) -> list[Path]:
    """`RUN/writing/NAME.json` and `.csv` (as `writing_rows`); each atomic."""
    folder = run.path / "writing"
    rows = writing_rows(written)
    result = written[0].result
    document = {
        "format": FORMAT,
        "text": name,
        "against": written[0].model.label,
        "measures": MEASURES,
        "features": f"mean of the last layer's states over the text, {result.features}",
        "settings": result.settings,
        "models": {
            one.model.label: {
                "model": one.model.path,
                "cost": one.model.cost,
                "evaluation_cost": one.result.cost,
            }
            for one in written
        },
        "rows": rows,
    }
    files = {
        folder / f"{name}.json": json_text(document),
        folder / f"{name}.csv": csv_text(rows),
    }
    for path, content in files.items():
        write_text(path, content)
    return list(files)


def print_writing(name: str, written: Sequence[Written], console: "Console") -> None:
    """One row a measure: the real text, each model, and its difference to the first."""
    from rich.table import Table
    from rich.text import Text

    first = written[0]
    settings = first.result.settings
    table = Table(
        title=f"{first.result.documents} documents of {name}, completed by at most"
        f" {settings['completion_tokens']} tokens at temperature {settings['temperature']:g}",
        title_justify="left",
    )
    table.add_column("measure", no_wrap=True)
    table.add_column(REAL, justify="right")
    for one in written:
        table.add_column(one.model.label, justify="right")
        if one is not first:
            table.add_column(f"− {first.model.label}", justify="right")
    rows = writing_rows(written)
    for measure in MEASURES:
        by = {row["model"]: row for row in rows if row["measure"] == measure}
        cells = [_cell(measure, by[REAL]) if REAL in by else "–"]
        for one in written:
            cells.append(_cell(measure, by[one.model.label]))
            if one is not first:
                cells.append(_cell(measure, by[one.model.label], "difference_"))
        table.add_row(measure, *cells)
    for title, paid in _costs(written).items():
        beside = [[paid[one.model.label], *([""] * (one is not first))] for one in written]
        table.add_row(title, "", *(cell for cells in beside for cell in cells))
    console.print(table)
    legend = [f"{measure}: {text}" for measure, text in MEASURES.items()]
    legend.append(
        "in brackets: 95 % by document (bootstrap; distinct-n: jackknife), differences paired;"
        f" features: states of {first.result.features}"
    )
    console.print(Text("\n".join(legend), "dim"), soft_wrap=True)


def _costs(written: Sequence[Written]) -> dict[str, dict[str, str]]:
    from openrpt.sheets import cost_cells

    found: dict[str, dict[str, str]] = {"training FLOPs": {}, "evaluation FLOPs": {}, "time": {}}
    for one in written:
        cells = cost_cells(one.model.cost or {})[:1] + cost_cells(one.result.cost)
        for row, cell in zip(found.values(), cells, strict=True):
            row[one.model.label] = cell
    return found


def _cell(measure: str, row: dict[str, Any], kind: str = "") -> str:
    """`12.5 % [10.1, 14.9]`; differences of shares in points."""
    value, low, high = (row[f"{kind}{key}"] for key in ("value", "low", "high"))
    if math.isnan(value):
        return "–"
    share = measure not in DECIMALS
    scale, decimals = (100.0, 1) if share else (1.0, DECIMALS[measure])
    sign = "+" if kind else ""

    def number(found: float) -> str:
        return f"{scale * found:{sign}.{decimals}f}".replace("-", "−")

    text = number(value) + " %" * (share and not kind)
    return text if math.isnan(low) else f"{text} [{number(low)}, {number(high)}]"
