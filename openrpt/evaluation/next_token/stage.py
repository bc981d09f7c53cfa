"""The evaluation stage: one model on a run's positions, recorded in its `evaluation.json`."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openrpt.config.sections import Config
from openrpt.data.prompt_texts import template_of
from openrpt.data.scored import load_scored
from openrpt.engine.engine import Engine, OpenModel, open_engine, open_seeding_start
from openrpt.evaluation.instrument import mark_of, measure, stored
from openrpt.evaluation.kept import Kept
from openrpt.evaluation.models import (
    changed_settings,
    default_label,
    model_label,
    model_path,
    supervision_of,
    training_cost,
)
from openrpt.evaluation.next_token.evaluate import NextToken
from openrpt.evaluation.next_token.results import EvaluationResult
from openrpt.evaluation.records import read_evaluation, record, result_path
from openrpt.progress import SILENT, Progress
from openrpt.runs.rollouts import evaluated_path
from openrpt.runs.run import Run, works_in_run
from openrpt.runs.scores import scores_of


def open_evaluated(config: Config, path: str) -> Engine:
    """Opens the model to evaluate, with the start model where that one's candidates are asked
    for."""
    start = open_seeding_start(config) if "reasoning" in config.evaluate.modes else None
    return open_engine(config, path=path, start=start)


def evaluate_model(
    run: Run,
    model: str,
    config: Config,
    *,
    label: str = "",
    scores: Path | None = None,
    progress: Progress = SILENT,
) -> tuple[str, EvaluationResult]:
    """Evaluates a model (see `model_path`) under `config` and records it in the run's folder, once:
    without `evaluate.extra_where`.

    `scores`: a folder of scores in place of the run's; they stay the measure of difficulty for a
    model with another tokenizer, too. Returns the label that it is recorded under, and the result.
    Raises UserError for whatever can't be loaded or does not fit.
    """
    one = _one_of(config, config.prompt.template)
    return evaluate_templates(run, model, one, label=label, scores=scores, progress=progress)[0]


@works_in_run
def evaluate_templates(
    run: Run,
    model: str,
    config: Config,
    *,
    label: str = "",
    scores: Path | None = None,
    open_model: OpenModel = open_evaluated,
    progress: Progress = SILENT,
) -> list[tuple[str, EvaluationResult]]:
    """Evaluates as `evaluate_model` does, once for each of `evaluate.templates`, and behind each at
    the positions of `evaluate.extra_where`; the model is loaded once.

    What the run holds already under a label, of the same weights, settings and positions, is taken
    from there. Of several templates, each one's name is added to a given label; the extra rule is
    added to any. `open_model` opens the model.
    """
    corpus = load_scored(scores) if scores else scores_of(run)
    path = model_path(run, model)
    templates = config.evaluate.templates or [config.prompt.template]
    for template in templates:  # one of the user's own is checked before a model is loaded
        template_of(_one_of(config, template).prompt)
    opened: list[Engine] = []

    def engine() -> Engine:
        if not opened:
            opened.append(open_model(config, path))
        return opened[0]

    found = []
    for template in templates:
        one = _one_of(config, template)
        name = f"{label}-{model_label(template)}" if label and len(templates) > 1 else label
        name = name or default_label(run, model, one)
        both = {name: one}
        if rule := config.evaluate.extra_where:
            both[model_label(f"{name}-where={rule}")] = _one_of(config, template, where=rule)
        instruments = {name: NextToken.of(corpus, own) for name, own in both.items()}
        for instrument in instruments.values():
            instrument.works  # noqa: B018  (says at once where there are no positions)
        for name, instrument in instruments.items():
            found.append((name, _recorded(run, name, path, instrument, engine, progress)))
    return found


def _recorded(
    run: Run,
    label: str,
    path: str,
    instrument: NextToken,
    engine: Callable[[], Engine],
    progress: Progress,
) -> EvaluationResult:
    """Returns what the run holds under the label, if it is the same; else measures, and records
    it. A stopped measurement goes on from what it had made."""
    config, mark = instrument.config, mark_of(instrument, path)
    found = _stored(run, label, path, instrument, mark, progress)
    if found is None:
        title = instrument.title(label)
        kept = Kept(path=result_path(run, label).with_name(f"{label}-{mark}.jsonl"))
        found = measure(instrument, engine(), title=title, mark=mark, kept=kept, progress=progress)
        record_measured(run, Evaluated(label=label, model=path, config=config, result=found))
        kept.drop()
    return found


def _stored(
    run: Run, label: str, path: str, instrument: NextToken, mark: str, progress: Progress
) -> EvaluationResult | None:
    """Returns what the run holds under the label; None where that is of another model, or was
    measured otherwise."""
    entry = read_evaluation(run.evaluation)["evaluations"].get(label)
    thoughts = evaluated_path(run.path, label).is_file() or "reasoning" not in instrument.modes
    if entry is None or entry["model"] != path or not thoughts:
        return None
    return stored(instrument, result_path(run, label), label=label, mark=mark, progress=progress)


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluated:
    """An evaluation that is not recorded yet."""

    label: str
    model: str
    """The model's folder or name."""
    config: Config
    """The configuration that it was evaluated under."""
    result: EvaluationResult


def measure_model(
    run: Run, model: str, config: Config, *, label: str, progress: Progress = SILENT
) -> Evaluated | None:
    """Evaluates a model as `evaluate_model` does, and writes nothing, so that several processes may
    do so for one run; None where the run holds it already."""
    path = model_path(run, model)
    instrument = NextToken.of(scores_of(run), config)
    mark = mark_of(instrument, path)
    if _stored(run, label, path, instrument, mark, progress) is not None:
        return None
    title = instrument.title(label)
    result = measure(
        instrument, open_evaluated(config, path), title=title, mark=mark, progress=progress
    )
    return Evaluated(label=label, model=path, config=config, result=result)


@works_in_run
def record_measured(run: Run, evaluated: Evaluated) -> None:
    """Records an evaluation in the run's folder."""
    config = evaluated.config
    record(
        run,
        evaluated.label,
        evaluated.result,
        model=evaluated.model,
        note=", ".join(changed_settings(run, config)),
        split=config.evaluate.split,
        where=config.evaluate.where,
        template=config.prompt.template,
        supervision=supervision_of(evaluated.model),
        cost=training_cost(run, evaluated.model),
    )


def _one_of(config: Config, template: str, *, where: str = "") -> Config:
    """Returns the configuration of one evaluation: with one template, and no list of them; `where`:
    at the extra positions by this rule."""
    asked = config.evaluate
    update: dict[str, Any] = {"templates": [], "extra_where": ""}
    if where:
        update |= {"where": where, "positions": asked.extra_positions}
    return config.model_copy(
        update={
            "prompt": config.prompt.model_copy(update={"template": template}),
            "evaluate": asked.model_copy(update=update),
        }
    )
