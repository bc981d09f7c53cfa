"""The report: one HTML file that needs no network, from what stands in a run folder.

What is absent or damaged there is said in the report; nothing of it stops the report. Summary and
tables are HTML; curves, inspector and samples table are drawn by the page's own scripts from
compressed blocks of data (`chunks.pack`), which the browser decodes when it needs them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

import openrpt
from openrpt import amounts
from openrpt.config.binding import differing_settings
from openrpt.config.loading import to_toml
from openrpt.config.sections import Config
from openrpt.data.positions import DIFFICULTIES
from openrpt.engine.checkpoint_record import read_record
from openrpt.errors import UserError
from openrpt.evaluation.records import read_evaluation
from openrpt.files import write_text
from openrpt.json_files import read_json
from openrpt.report import curves, headline, summary
from openrpt.report.accuracy import accuracy_chart
from openrpt.report.assets import HEAD_SCRIPT, asset, content_policy, scripts, vega
from openrpt.report.charts import Chart, charts
from openrpt.report.chunks import pack
from openrpt.report.documents import Inspected, inspect
from openrpt.report.essentials import essentials
from openrpt.report.patterns import read_patterns
from openrpt.report.plans import SECTIONS
from openrpt.report.verdict import run_verdict
from openrpt.runs import spent as costs
from openrpt.runs.metrics import readable_metrics
from openrpt.runs.reading import setting_changes
from openrpt.runs.run import Run

_Read = TypeVar("_Read")
_Rows = list[dict[str, Any]]

_BANDS = {"<=0.5": "≤ 0.5", "0.5-1.0": "0.5 to 1.0", "1.0-1.5": "1.0 to 1.5", ">1.5": "> 1.5"}


def write_report(run: Run, others: Sequence[Run] = (), notes: Sequence[str] = ()) -> Path:
    """Writes `report.html` into the run folder, atomically, and returns its path."""
    path = run.path / "report.html"
    write_text(path, render(run, others, notes))
    return path


def render(run: Run, others: Sequence[Run] = (), notes: Sequence[str] = ()) -> str:
    """Returns the page. Metrics, evaluation and rollouts may each be absent or damaged.

    `others`: runs whose curves are drawn over this one's. `notes`: what else is to be said of the
    run folder.
    """
    reader = _Reader(missing=[*notes])
    metrics = reader.metrics(run)
    reader.missing.extend(setting_changes(metrics))
    no_models: dict[str, Any] = {"evaluations": {}, "differences": []}
    evaluation = reader.read(lambda: read_evaluation(run.evaluation), no_models)
    patterns = reader.read(lambda: read_patterns(run.path / "patterns.json", run.path), None)
    evaluations, differences = evaluation["evaluations"], evaluation["differences"]
    inspected = inspect(run.path, run.scored, list(evaluations), reader.missing)
    rows = curves.with_stored(metrics, inspected.stored)
    warnings = curves.find_warnings(metrics)
    names = _names([run, *others])
    overlaid = {name: reader.metrics(other) for name, other in zip(names[1:], others, strict=True)}
    speeds = {name: curves.with_speed(own) for name, own in overlaid.items()}
    price = _price(run)
    drawn = charts(curves.with_speed(rows), names[0], speeds, price=price["price"])
    by_band = accuracy_chart(evaluations, _BANDS)
    data = {
        "runs": [_curves(names[0], rows), *(_curves(*one) for one in overlaid.items())],
        "charts": [chart.drawing for chart in drawn],
        "accuracy": by_band,
    }
    sources = reader.read(lambda: _trace_sources(run), list[str]())
    scoring: dict[str, float] = reader.read(lambda: costs.scoring_cost(run.scored), {})
    spent = costs.all_costs(scoring, metrics, evaluations)
    spent_in_all = costs.together(spent)
    grading = headline.Grading.of(run.config, evaluations)
    return (
        _templates()
        .get_template("report.html.jinja")
        .render(
            **_look(),
            title=run.path.resolve().name,
            missing=reader.missing,
            warnings=warnings,
            essentials=essentials(run.config, sources),
            machine=_environment(run.path / "environment.json"),
            costs=spent,
            total=spent_in_all,
            figures=headline.figures(evaluations, differences, spent_in_all, grading),
            verdict=run_verdict(evaluations, metrics, run.config.prompt),
            changed=headline.what_changed(evaluations, differences, grading),
            thinking=reader.read(lambda: _thinking(run, evaluations), ""),
            **_accuracies(evaluations, differences, run.config, sources),
            by_band=by_band,
            sections=SECTIONS,
            curves=_by_section(drawn),
            any_curve=bool(drawn),
            patterns=patterns,
            overlaid=names[1:],
            settings=differing_settings([one.config for one in (run, *others)]),
            **price,
            inspected=inspected,
            no_rollouts=inspected.stored is None,
            blocks=_blocks(data, inspected),
            config=to_toml(run.config),
        )
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Reader:
    """A reader of run folders, whatever of them is absent or damaged."""

    missing: list[str]
    """What is to be said of what could not be read."""

    def read(self, function: Callable[[], _Read], otherwise: _Read) -> _Read:
        try:
            return function()
        except UserError as error:
            self.missing.append(str(error))
            return otherwise

    def metrics(self, run: Run) -> _Rows:
        rows, left_out = readable_metrics(run.metrics)
        self.missing.extend(note for note in left_out if note not in self.missing)
        return rows


def _look() -> dict[str, Any]:
    """Returns the page's own style and scripts, and the policy that lets no others in."""
    head, bundle, script = asset(HEAD_SCRIPT), vega(), scripts()
    return {
        "version": openrpt.__version__,
        "policy": content_policy(head, bundle, script),
        "style": Markup(asset("report.css") + asset("inspector.css")),
        "head": Markup(head),
        "script": Markup(script),
        "bundle": Markup(bundle),
    }


def _accuracies(
    evaluations: dict[str, Any],
    differences: Sequence[Mapping[str, Any]],
    config: Config,
    sources: Sequence[str],
) -> dict[str, Any]:
    """Returns the tables of evaluated models, and what is said beside them."""
    accuracy = summary.accuracy_rows(evaluations, config, sources)
    absent, elsewhere = summary.absent_rows(evaluations)
    label = summary.recorded_label(evaluations, summary.TRAINED)
    return {
        "difficulties": DIFFICULTIES,
        "accuracy": accuracy,
        "sizes": summary.common_sizes(accuracy),
        "absent": absent,
        "elsewhere": elsewhere,
        "differences": summary.difference_rows(differences),
        "no_difference": summary.why_no_difference(evaluations),
        "values": summary.value_rows(evaluations),
        "values_of": "" if label == summary.TRAINED else label,
        "notes": {label: e["note"] for label, e in evaluations.items() if e["note"]},
        "splits": sorted({e["split"] for e in evaluations.values()}),
    }


def _by_section(drawn: Sequence[Chart]) -> dict[str, list[Chart]]:
    found: dict[str, list[Chart]] = {name: [] for name in (*SECTIONS, "cost", "patterns")}
    for chart in drawn:
        found[chart.plan.section].append(chart)
    return found


def _blocks(data: dict[str, Any], inspected: Inspected) -> dict[str, str]:
    """Returns packed data by its id."""
    blocks = {"data-curves": pack(data), "data-index": pack(inspected.index)}
    return blocks | {f"data-{number}": block for number, block in enumerate(inspected.blocks)}


def _price(run: Run) -> dict[str, Any]:
    """Returns the price of the machine for an hour and its currency; 0 where the configuration has
    none."""
    cost = run.config.model_dump().get("cost", {})
    return {"price": cost.get("price_per_hour", 0.0), "currency": cost.get("currency", "")}


def _curves(name: str, rows: _Rows) -> dict[str, Any]:
    warnings = curves.find_warnings(rows)
    columns = curves.columns(curves.with_errors(curves.with_speed(rows)))
    return {"name": name, "stages": columns, "warnings": warnings}


def _names(runs: Sequence[Run]) -> list[str]:
    """Returns the names of runs' folders; numbered where two have the same."""
    names: list[str] = []
    for run in runs:
        name = run.path.resolve().name
        names.append(name if name not in names else f"{name} ({len(names) + 1})")
    return names


def _thinking(run: Run, evaluations: Mapping[str, Any]) -> str:
    """Says whether the trained policy's thought is said to help; empty where it was not
    changed."""
    from openrpt.evaluation.next_token.compare import thought_verdict
    from openrpt.evaluation.next_token.recorded import find_evaluated

    label = summary.recorded_label(evaluations, summary.TRAINED)
    if "emptied" not in evaluations.get(label, {"summary": {}})["summary"]:
        return ""
    found = find_evaluated([str(run.path)])
    (name,) = (model.name for model in found if model.label == label)
    return thought_verdict(found, name)


def _trace_sources(run: Run) -> list[str]:
    """Returns the makers of the thoughts that the run's warmup was given."""
    return read_record(run.start).state.trace_sources if run.start.is_dir() else []


def _environment(path: Path) -> dict[str, Any]:
    """Reads the environment; empty where the file is absent or damaged."""
    try:
        return read_json(path, advice="")
    except (OSError, UserError):
        return {}


def _templates() -> Environment:
    environment = Environment(
        loader=PackageLoader("openrpt", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "count": amounts.count,
        "duration": amounts.duration,
        "energy": amounts.energy,
        "flops": amounts.flops,
        "money": amounts.money,
    }
    return environment
