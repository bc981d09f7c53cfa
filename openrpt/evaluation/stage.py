"""The evaluation stage: one model on a run's positions, recorded in its `evaluation.json`."""

import re
from pathlib import Path

from openrpt.checkpoints import latest_checkpoint
from openrpt.config import Config
from openrpt.engine import make_engine
from openrpt.errors import UserError
from openrpt.evaluation.next_token import EvaluationResult, evaluate_policy
from openrpt.evaluation.records import record
from openrpt.models import freeze, load_policy
from openrpt.progress import SILENT, Progress
from openrpt.run import Run, flatten
from openrpt.scores import load_scored
from openrpt.scoring import tokenizer_fingerprint

OWN_MODELS = ("start", "warmup", "trained", "best")
"""Words for a run's own models: before anything, after warmup, the latest, the best so far."""
NOT_IN_LABEL = {"run", "model.device", "model.threads", "score.shard_tokens"}


def latest_model(run: Run) -> str:
    """The furthest that the run has come: one of OWN_MODELS."""
    if latest_checkpoint(run.checkpoints):
        return "trained"
    return "warmup" if run.start.is_dir() else "start"


def model_path(run: Run, model: str) -> str:
    """Where a model of that name lies: one of OWN_MODELS, else a folder, GGUF file or Hub id.

    Raises UserError where the run has no such model yet.
    """
    own: dict[str, Path | None] = {
        "warmup": run.start,
        "trained": latest_checkpoint(run.checkpoints),
        "best": run.checkpoints / "best",
    }
    if model not in own:
        return run.config.model.path if model == "start" else model
    folder = own[model]
    if folder is None or not folder.is_dir():
        raise UserError(
            f"{run.path}: the run has no '{model}' model yet; its latest is '{latest_model(run)}'"
        )
    return str(folder)


def default_label(run: Run, model: str, config: Config) -> str:
    """The model's name, and every setting that is not the run's: so that an evaluation under
    another prompt does not take the first one's place.

    `trained`, `start-prompt.template=v6`
    """
    labels = [Path(model).name.removesuffix(".gguf"), *changed_settings(run, config)]
    return re.sub(r"[^\w.=,-]+", "_", "-".join(labels)).strip("._") or "model"


def changed_settings(run: Run, config: Config) -> list[str]:
    """`key=value` of what differs from the run's own configuration."""
    old, new = flatten(run.config.model_dump(mode="json")), flatten(config.model_dump(mode="json"))
    differ = [key for key in new if new[key] != old[key] and key not in NOT_IN_LABEL]
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

    `scores`: a folder of scores in place of the run's. Returns the label that it is recorded
    under, and the result. Raises UserError for a model whose tokens are not those that were
    scored, and for whatever can't be loaded.
    """
    label = label or default_label(run, model, config)
    corpus = load_scored(scores or run.scored)
    path = model_path(run, model)
    policy = freeze(load_policy(config.model, path=path))
    if tokenizer_fingerprint(policy) != corpus.metadata["tokenizer"]:
        raise UserError(
            f"model '{path}' has another tokenizer than the model whose tokens were scored in"
            f" {corpus.folder}; score for it in a run of its own:"
            f" openrpt score --model.path {path} --run …"
        )
    start = None
    if config.prompt.candidates and config.prompt.candidate_source == "start":
        start = freeze(load_policy(config.model))
    result = evaluate_policy(
        policy,
        make_engine(config.model.generator, policy, start),
        corpus,
        config,
        modes=tuple(config.evaluate.modes),
        progress=progress,
        title=f"evaluate {label}",
    )
    note = ", ".join(changed_settings(run, config))
    record(run, label, result, model=path, note=note, split=config.evaluate.split)
    return label, result
