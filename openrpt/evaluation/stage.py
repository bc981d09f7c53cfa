"""The evaluation stage: one model on a run's positions, recorded in its `evaluation.json`."""

import re
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from openrpt.checkpoint_record import latest_checkpoint, read_record
from openrpt.config import Config, Template
from openrpt.energy import money
from openrpt.engine import make_engine
from openrpt.errors import UserError
from openrpt.evaluation.next_token import evaluate_policy
from openrpt.evaluation.records import read_evaluation, record
from openrpt.evaluation.results import EvaluationResult
from openrpt.gguf_models import is_gguf
from openrpt.metrics import read_metrics
from openrpt.models import freeze, load_policy
from openrpt.progress import SILENT, Progress
from openrpt.run import Run, flatten, owning_run, works_in_run
from openrpt.scores import load_scored
from openrpt.scoring import scores_of
from openrpt.tokens import tokenizer_fingerprint

OWN_MODELS = ("start", "warmup", "trained", "best", "pretrained")
"""Words for a run's own models: before anything, after warmup, the latest, the best so far, and
the one of plain next-token training."""
NOT_IN_LABEL = {"run", "model.device", "model.threads", "score.shard_tokens"}
NOT_IN_LABEL |= {"evaluate.controls", "evaluate.likelihood", "evaluate.templates"}
"""Settings that leave the numbers as they are, or only add more of them."""


def latest_model(run: Run) -> str:
    """The furthest that the run has come: one of OWN_MODELS."""
    if latest_checkpoint(run.checkpoints):
        return "trained"
    if run.start.is_dir():
        return "warmup"
    return "pretrained" if latest_checkpoint(run.pretrain_checkpoints) else "start"


def model_path(run: Run, model: str) -> str:
    """Where a model of that name lies: one of OWN_MODELS, else a folder, GGUF file or Hub id.

    Raises UserError where the run has no such model yet, or it is damaged.
    """
    own: dict[str, Path | None] = {
        "warmup": run.start,
        "trained": latest_checkpoint(run.checkpoints),
        "best": run.checkpoints / "best",
        "pretrained": latest_checkpoint(run.pretrain_checkpoints),
    }
    if model == "start":
        return run.config.model.path
    if model not in own:
        nearest = get_close_matches(model, OWN_MODELS, n=1, cutoff=0.75)
        if nearest and not Path(model).exists():
            raise UserError(f"no model '{model}'; nearest: '{nearest[0]}'")
        return model
    folder = own[model]
    if folder is None or not folder.is_dir():
        raise UserError(
            f"{run.path}: the run has no '{model}' model yet; its latest is '{latest_model(run)}'"
        )
    read_record(folder)
    return str(folder)


def model_label(model: str) -> str:
    """A model's name as a file may be called: `trained`, `step-000040`, `SmolLM2-135M`."""
    return re.sub(r"[^\w.=,-]+", "_", _file_name(model)).strip("._") or "model"


def _file_name(model: str) -> str:
    path = Path(model)
    return path.stem if is_gguf(path) else path.name


def default_label(run: Run, model: str, config: Config) -> str:
    """The model's name, and every setting that is not the run's: so that an evaluation under
    another prompt does not take the first one's place.

    `trained`, `start-template=v6`
    """
    changed = changed_settings(run, config)
    brief = [setting.partition("=")[0].rpartition(".")[2] for setting in changed]
    settings = [
        setting if brief.count(name) > 1 else name + setting[setting.index("=") :]
        for setting, name in zip(changed, brief, strict=True)
    ]
    labels = [_file_name(model), *settings]
    return re.sub(r"[^\w.=,-]+", "_", "-".join(labels)).strip("._") or "model"


def changed_settings(run: Run, config: Config) -> list[str]:
    """`key=value` of what differs from the run's own configuration."""
    old, new = flatten(run.config.model_dump(mode="json")), flatten(config.model_dump(mode="json"))
    differ = [
        key
        for key in new
        if new[key] != old[key]
        and key not in NOT_IN_LABEL
        and not key.startswith(("track.", "cost."))
    ]
    return [f"{key}={new[key]}" for key in differ]


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
    policy = freeze(load_policy(config.model, path=path))
    start = None
    reasoning = "reasoning" in config.evaluate.modes
    if reasoning and config.prompt.candidates and config.prompt.candidate_source == "start":
        start = freeze(load_policy(config.model))
        if tokenizer_fingerprint(start.tokenizer) != tokenizer_fingerprint(policy.tokenizer):
            raise UserError(
                f"prompt.candidate_source = 'start': model '{path}' has another tokenizer than the"
                " start model; give --prompt.candidate_source policy"
            )
    engine = make_engine(config.model.generator, policy, start)
    templates: Sequence[Template] = config.evaluate.templates or [config.prompt.template]
    found = []
    for template in templates:
        one = with_template(config, template)
        name = f"{label}-{template}" if label and len(templates) > 1 else label
        name = name or default_label(run, model, one)
        result = evaluate_policy(
            policy,
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


def training_cost(run: Run, model: str) -> dict[str, float | None] | None:
    """What the steps that made a model took, by the `metrics.jsonl` of the run that it lies in:
    nothing for the start model; None for one from elsewhere. `model`: as `model_path` returns it.

    `flops`, `seconds`, `joules`, and `money` at `run`'s price an hour (None without one). FLOPs
    are None where no step recorded them; a lower bound where some, `steps_without_flops`, did not.
    """
    from openrpt.report.costs import costs

    made: list[dict[str, Any]] = []
    if model != run.config.model.path:
        found = steps_that_made(Path(model))
        if found is None:
            return None
        made = found
    spent = costs(made)
    without = sum(not any(key.startswith("flops/") for key in row) for row in made)
    seconds, price = sum((cost.total_seconds for cost in spent), 0.0), run.config.cost
    return {
        "flops": sum((c.flops for c in spent), 0.0) if without < len(made) or not made else None,
        "seconds": seconds,
        "joules": sum((cost.joules for cost in spent), 0.0),
        "money": money(seconds, price.price_per_hour) if price.price_per_hour else None,
        "steps_without_flops": without,
    }


def steps_that_made(model: Path) -> list[dict[str, Any]] | None:
    """The rows of metrics of the warmup or the steps behind a checkpoint; None where the folder
    is none of a run's."""
    owner = owning_run(model)
    if owner is None:
        return None
    if model == owner.start:
        stages, last = {"warmup"}, 0
    elif model.parent in (owner.checkpoints, owner.pretrain_checkpoints):
        state = read_record(model).state
        stages, last = {state.stage}, state.step
        if state.stage == "train":
            stages.add("warmup")
    else:
        return None
    rows = [row for row in read_metrics(owner.metrics) if row["stage"] in stages]
    return [row for row in rows if row["stage"] == "warmup" or row["step"] <= last]


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
