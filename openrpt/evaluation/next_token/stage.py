"""The evaluation stage: one model on a run's positions, recorded in its `evaluation.json`."""

from collections.abc import Sequence
from pathlib import Path

from openrpt.config.prompt import Template
from openrpt.config.sections import Config
from openrpt.data.scored import load_scored
from openrpt.data.tokens import tokenizer_fingerprint
from openrpt.engine.engine import open_engine
from openrpt.errors import UserError
from openrpt.evaluation.models import (
    changed_settings,
    default_label,
    model_path,
    supervision_of,
    training_cost,
)
from openrpt.evaluation.next_token.evaluate import evaluate_policy
from openrpt.evaluation.next_token.results import EvaluationResult
from openrpt.evaluation.records import read_evaluation, record
from openrpt.progress import SILENT, Progress
from openrpt.runs.run import Run, works_in_run
from openrpt.runs.scores import scores_of


def evaluate_model(
    run: Run,
    model: str,
    config: Config,
    *,
    label: str = "",
    scores: Path | None = None,
    progress: Progress = SILENT,
) -> tuple[str, EvaluationResult]:
    """Evaluates a model (see `model_path`) under `config` and records it in the run's folder.

    `scores`: a folder of scores in place of the run's; they stay the measure of difficulty for a
    model with another tokenizer, too. Returns the label that it is recorded under, and the result.
    Raises UserError for whatever can't be loaded or does not fit.
    """
    one = with_template(config, config.prompt.template)
    return evaluate_templates(run, model, one, label=label, scores=scores, progress=progress)[0]


@works_in_run
def evaluate_templates(
    run: Run,
    model: str,
    config: Config,
    *,
    label: str = "",
    scores: Path | None = None,
    progress: Progress = SILENT,
) -> list[tuple[str, EvaluationResult]]:
    """As `evaluate_model`, once for each of `evaluate.templates`; the model is loaded once.

    Of several templates, each one's name is added to a given label.
    """
    corpus = load_scored(scores) if scores else scores_of(run)
    path = model_path(run, model)
    start = None
    reasoning = "reasoning" in config.evaluate.modes
    if reasoning and config.prompt.candidates and config.prompt.candidate_source == "start":
        start = open_engine(config.model)
    engine = open_engine(config.model, path=path, start=start)
    if start is not None:
        tokenizers = [one.model.tokenizer for one in (engine, start)]
        if len({tokenizer_fingerprint(tokenizer) for tokenizer in tokenizers}) > 1:
            raise UserError(
                f"prompt.candidate_source = 'start': model '{path}' has another tokenizer than the"
                " start model; give --prompt.candidate_source policy"
            )
    templates: Sequence[Template] = config.evaluate.templates or [config.prompt.template]
    found = []
    for template in templates:
        one = with_template(config, template)
        name = f"{label}-{template}" if label and len(templates) > 1 else label
        name = name or default_label(run, model, one)
        result = evaluate_policy(
            engine,
            corpus,
            one,
            modes=tuple(config.evaluate.modes),
            controls=tuple(config.evaluate.controls),
            likelihood=config.evaluate.likelihood,
            progress=progress,
            title=f"evaluate {name}",
        )
        record(
            run,
            name,
            result,
            model=path,
            note=", ".join(changed_settings(run, one)),
            split=config.evaluate.split,
            template=template,
            supervision=supervision_of(path),
            cost=training_cost(run, path),
        )
        found.append((name, result))
    return found


def with_template(config: Config, template: Template) -> Config:
    """One template, and no list of them."""
    return config.model_copy(
        update={
            "prompt": config.prompt.model_copy(update={"template": template}),
            "evaluate": config.evaluate.model_copy(update={"templates": []}),
        }
    )


def is_recorded(run: Run, label: str, model: str, config: Config) -> bool:
    """The model was evaluated under this label, in the same way, and nothing asked for is missing.

    `model`: as `model_path` returns it.
    """
    entry = read_evaluation(run.evaluation)["evaluations"].get(label)
    if entry is None or entry["model"] != model:
        return False
    asked: list[str] = [*config.evaluate.modes, *config.evaluate.controls]
    asked += ["nll_ntp"] if config.evaluate.likelihood else []
    same = entry["note"] == ", ".join(changed_settings(run, config))
    return same and set(asked) <= entry["summary"].keys()
