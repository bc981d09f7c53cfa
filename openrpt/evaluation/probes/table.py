"""Probes of several models of a run: made or taken from its folder, compared in pairs, shown as
a table and written as JSON, CSV and a figure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openrpt.config.sections import Config
from openrpt.data.scored import ScoredCorpus
from openrpt.data.tokens import tokenizer_fingerprint
from openrpt.engine.engine import open_engine
from openrpt.engine.fingerprint import model_fingerprint
from openrpt.engine.loading import load_tokenizer
from openrpt.evaluation.models import NamedModel, fingerprint
from openrpt.evaluation.probes.labels import TARGETS, ProbeSample, probe_sample
from openrpt.evaluation.probes.probes import ProbeResult, evaluate_probes, probe_difference
from openrpt.extras import require
from openrpt.files import csv_text, json_text, write_text
from openrpt.progress import SILENT, Progress
from openrpt.runs.run import Run, works_in_run
from openrpt.runs.scores import scores_of
from openrpt.sheets import COST_HEADINGS, cost_cells

if TYPE_CHECKING:
    from rich.console import Console


FORMAT = 1


@dataclass(frozen=True, kw_only=True, eq=False)
class Probed:
    model: NamedModel
    result: ProbeResult


@works_in_run
def probe_models(
    run: Run, models: Sequence[NamedModel], config: Config, *, progress: Progress = SILENT
) -> list[Probed]:
    """Each model's probes on the same positions. What the run's folder holds already, of the same
    weights, settings and positions, is taken from there.

    Raises UserError as `evaluate_probes`, and for what can't be loaded.
    """
    require("sklearn", extra="scikit-learn", what="openrpt probe")
    corpus = scores_of(run)
    sample = probe_sample(corpus, config, _foreign_tokenizers(models, corpus, config))
    for note in sample.notes:
        progress.say(f"note: {note}")
    prompt = config.prompt
    settings: list[Any]
    settings = [config.seed, config.probe.layers, prompt.window, prompt.min_context]
    settings += [config.model.dtype, sample.key]
    found = []
    for model in models:
        mark = fingerprint(model_fingerprint(model.path), settings)
        path = run.path / "probes" / f"{model.label}-{mark}.parquet"
        if path.is_file():
            progress.say(f"{model.label}: probed before, taken from {path}")
            result = ProbeResult.load(path)
        else:
            result = _probe(model, corpus, config, sample, progress)
            result.save(path)
        found.append(Probed(model=model, result=result))
    return found


def _probe(
    model: NamedModel,
    corpus: ScoredCorpus,
    config: Config,
    sample: ProbeSample,
    progress: Progress,
) -> ProbeResult:
    engine = open_engine(config.model, path=model.path)
    title = f"probe {model.label}"
    return evaluate_probes(engine, corpus, config, sample=sample, progress=progress, title=title)


def _foreign_tokenizers(
    models: Sequence[NamedModel], corpus: ScoredCorpus, config: Config
) -> list[Any]:
    """Those that are not the scores' own; none twice."""
    found = {}
    for model in models:
        tokenizer = load_tokenizer(config.model, model.path)
        mark = tokenizer_fingerprint(tokenizer)
        found[mark] = tokenizer
    return [t for mark, t in found.items() if mark != corpus.metadata["tokenizer"]]


def probe_rows(probed: Sequence[Probed]) -> list[dict[str, Any]]:
    """A row a target, layer and model; differences are to the first model, at the same layer
    where both were probed there."""
    first = probed[0].result
    rows = []
    for target in first.targets:
        for one in probed:
            for layer in one.result.layers:
                rows.append(_row(one, target, layer, first))
    return rows


def _row(one: Probed, target: str, layer: int, first: ProbeResult) -> dict[str, Any]:
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


@works_in_run
def write_probes(run: Run, probed: Sequence[Probed]) -> list[Path]:
    """`probes.json`, `.csv` (as `probe_rows`) and `.svg` in the run's `probes`; each atomic."""
    folder = run.path / "probes"
    rows = probe_rows(probed)
    document = {
        "format": FORMAT,
        "against": probed[0].model.label,
        "targets": {target: TARGETS[target] for target in probed[0].result.targets},
        "sample": probed[0].result.sample,
        "models": {
            one.model.label: {
                "model": one.model.path,
                "cost": one.model.cost,
                "evaluation_cost": one.result.cost,
            }
            for one in probed
        },
        "rows": rows,
    }
    files = {
        folder / "probes.json": json_text(document),
        folder / "probes.csv": csv_text(rows),
        folder / "probes.svg": figure(rows),
    }
    for path, content in files.items():
        write_text(path, content)
    return list(files)


def print_probes(probed: Sequence[Probed], console: "Console") -> None:
    """A table a target: accuracy, selectivity and the difference to the first model, by layer."""
    from rich.table import Table
    from rich.text import Text

    from openrpt.sheets import percent

    first = probed[0]
    for target in first.result.targets:
        baselines = {
            name: first.result.estimate(f"{target}/{name}") for name in ("majority", "offset")
        }
        n, documents = baselines["majority"].n, baselines["majority"].documents
        table = Table(
            title=f"{target}: {TARGETS[target]}; accuracy in % at {n:,} test positions of"
            f" {documents} documents",
            title_justify="left",
        )
        table.add_column("layer", justify="right")
        for one in probed:
            table.add_column(one.model.label, justify="right")
            table.add_column("selectivity", justify="right")
            if one is not first:
                table.add_column(f"− {first.model.label} [95 %]", justify="right")
        layers = sorted({layer for one in probed for layer in one.result.layers})
        for layer in layers:
            cells = [str(layer)]
            for one in probed:
                cells += _cells(one, target, layer, first)
            table.add_row(*cells)
        console.print(table)
        said = {"majority": "the commonest class", "offset": "how much is read, alone"}
        texts = [f"{said[name]}: {percent(e.as_dict())}" for name, e in baselines.items()]
        console.print(Text("; ".join(texts)), soft_wrap=True)
    console.print(_cost_table(probed))
    console.print(
        Text(
            "± is the standard error by document; selectivity: accuracy less that with random"
            " labels a type of token; differences are paired, their intervals not corrected for"
            " the number of layers",
            "dim",
        ),
        soft_wrap=True,
    )


def _cells(one: Probed, target: str, layer: int, first: Probed) -> list[str]:
    from openrpt.sheets import percent, points

    column, compared = f"{target}/{layer}", one is not first
    if layer not in one.result.layers:
        return ["–"] * (3 if compared else 2)
    accuracy = percent(one.result.estimate(column).as_dict()).removesuffix(" %")
    cells = [
        accuracy,
        f"{100 * one.result.selectivity(target, layer).value:+.1f}".replace("-", "−"),
    ]
    if compared:
        known = column in first.result.columns
        found = probe_difference(one.result, first.result, column) if known else None
        cells.append(points(found.as_dict()) if found else "–")
    return cells


def _cost_table(probed: Sequence[Probed]) -> Any:
    from rich.table import Table

    table = Table(title="cost", title_justify="left")
    table.add_column("model")
    for name in (*COST_HEADINGS, "FLOPs of its states", "probing time"):
        table.add_column(name, justify="right")
    for one in probed:
        spent, paid = cost_cells(one.model.cost or {}), cost_cells(one.result.cost)
        table.add_row(one.model.label, *spent, *paid)
    return table


def figure(rows: Sequence[dict[str, Any]]) -> str:
    """SVG: accuracy by layer with one standard error, the control dashed, a panel a target."""
    import altair as alt
    import vl_convert

    values = [
        {
            "panel": TARGETS[row["target"]],
            "model": row["model"],
            "layer": row["layer"],
            "accuracy": 100 * row["value"],
            "low": 100 * (row["value"] - _or_zero(row["standard_error"])),
            "high": 100 * (row["value"] + _or_zero(row["standard_error"])),
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


def _or_zero(value: float) -> float:
    return 0.0 if math.isnan(value) else value
