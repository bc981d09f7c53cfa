"""The report: one HTML file that needs no network, from what stands in a run folder.

What is absent or damaged there is said in the report; nothing of it stops the report.
"""

import base64
import hashlib
import html
import json
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

import openrpt
from openrpt.config import to_toml
from openrpt.errors import UserError
from openrpt.evaluation.records import FORMAT, read_evaluation
from openrpt.metrics import read_metrics
from openrpt.positions import DIFFICULTIES
from openrpt.report import summary
from openrpt.report.charts import charts
from openrpt.report.samples import SampleStep, sample_steps
from openrpt.run import Run, write_text

Read = TypeVar("Read")


def write_report(run: Run) -> Path:
    """Writes `report.html` into the run folder, atomically, and returns its path."""
    path = run.path / "report.html"
    write_text(path, render(run))
    return path


def render(run: Run) -> str:
    """The page. Metrics, evaluation and rollouts may each be absent or damaged."""
    missing: list[str] = []

    def read(function: Callable[[], Read], otherwise: Read) -> Read:
        try:
            return function()
        except UserError as error:
            missing.append(str(error))
            return otherwise

    no_rows: list[dict[str, Any]] = []
    no_models: dict[str, Any] = {"evaluations": {}, "differences": []}
    no_steps: list[SampleStep] = []
    metrics = read(lambda: read_metrics(run.metrics), no_rows)
    evaluation = read(lambda: _evaluation(run.evaluation), no_models)
    samples = read(lambda: sample_steps(run.path), no_steps)
    evaluations, differences = evaluation["evaluations"], evaluation["differences"]
    accuracy = summary.accuracy_rows(evaluations, run.config)
    drawn = charts(metrics)
    costs = summary.costs(metrics)
    bundle, script = _vega(), _asset("report.js")
    template = _templates().get_template("report.html.jinja")
    return template.render(
        version=openrpt.__version__,
        title=run.path.resolve().name,
        policy=_content_policy(bundle, script),
        style=Markup(_asset("report.css")),
        script=Markup(script),
        bundle=Markup(bundle),
        missing=missing,
        essentials=summary.essentials(run.config),
        machine=_environment(run.path / "environment.json"),
        costs=costs,
        total=summary.duration(sum(cost.total_seconds for cost in costs)),
        changed=summary.what_changed(evaluations, differences),
        difficulties=DIFFICULTIES,
        accuracy=accuracy,
        sizes=summary.common_sizes(accuracy),
        absent=summary.absent_rows(evaluations),
        differences=summary.difference_rows(differences),
        notes={label: e["note"] for label, e in evaluations.items() if e["note"]},
        splits=sorted({e["split"] for e in evaluations.values()}),
        charts=drawn,
        specs=json_for_script({chart.id: chart.spec for chart in drawn}),
        samples=samples,
        config=to_toml(run.config),
    )


def json_for_script(value: Any) -> Markup:
    """JSON that can stand inside a <script>: nothing in it can end the element.

    >>> str(json_for_script({"a": "</script>"}))
    '{"a":"\\\\u003c/script\\\\u003e"}'
    """
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _evaluation(path: Path) -> dict[str, Any]:
    found = read_evaluation(path)
    if found.get("format") != FORMAT:
        raise UserError(
            f"{path}: format {found.get('format')!r}, not {FORMAT}: written by another version of"
            " OpenRPT; evaluate again, or use that version"
        )
    return found


def _environment(path: Path) -> dict[str, Any]:
    """Empty where the file is absent or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return {}


def _templates() -> Environment:
    environment = Environment(
        loader=PackageLoader("openrpt", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["duration"] = summary.duration
    return environment


def _asset(name: str) -> str:
    return files("openrpt.report").joinpath(name).read_text(encoding="utf-8")


@cache
def _vega() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script (BSD-3-Clause)."""
    import vl_convert

    bundle: str = vl_convert.javascript_bundle()  # type: ignore[call-arg]
    return bundle.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def _content_policy(*scripts: str) -> str:
    """The browser's own guard: no network, and no script but these two."""
    digests = [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts]
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    return html.escape(
        f"default-src 'none'; script-src {allowed} 'unsafe-eval';"  # Vega compiles expressions
        " style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'",
        quote=False,
    )
