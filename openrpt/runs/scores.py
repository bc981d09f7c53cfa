"""A run's own scores, refused where they were made with other settings or weights."""

from pathlib import Path
from typing import Any

from openrpt.config.binding import settings_of
from openrpt.config.loading import flatten
from openrpt.config.sections import Config
from openrpt.data.scored import ScoredCorpus, load_scored
from openrpt.data.tokens import tokenizer_fingerprint
from openrpt.engine.fingerprint import is_same_model, require_same_model
from openrpt.engine.loading import load_tokenizer
from openrpt.engine.model import Model
from openrpt.errors import UserError
from openrpt.runs.run import Run


def score_settings(config: Config, policy: Model | None, scorer: Model | None) -> dict[str, Any]:
    """Returns all that the scores depend on, by configuration key."""
    path = policy.name if policy else config.model.path
    values = settings_of("score", config)
    if "model.path" in values:
        values["model.path"] = path
    values["score.model"] = scorer.name if scorer else config.score.model or path
    return values


def require_same_settings(folder: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Checks that the scores were made with the run's settings. Raises UserError that names the
    key."""
    # Keys that are newer than the scores had their defaults.
    defaults = flatten(Config().model_dump(mode="json"))
    different = [key for key, value in now.items() if before.get(key, defaults.get(key)) != value]
    if different:
        key = different[0]
        more = f" (and {len(different) - 1} more)" if len(different) > 1 else ""
        was = before.get(key, defaults.get(key))
        raise UserError(
            f"{folder} holds scores of other settings: {key} was {was!r}, is now"
            f" {now[key]!r}{more}; use another --run or delete this folder"
        )


def require_same_weights(folder: Path, before: dict[str, Any], names: dict[str, str]) -> None:
    """Checks the models' files against the fingerprints in the scores' metadata. `names`: key →
    model. Raises UserError."""
    known = before.get("weights", {})
    for key, name in names.items():
        require_same_model(name, known.get(key, ""), f"{folder}: scored with")


def _require_same_tokens(run: Run, corpus: ScoredCorpus) -> None:
    """Checks that another model's scores are in the tokens of the policy. Raises UserError."""
    name = run.config.model.path
    if is_same_model(name, corpus.metadata.get("weights", {}).get("model.path", "")):
        return
    tokenizer = load_tokenizer(run.config.model, name)
    if tokenizer_fingerprint(tokenizer) != corpus.metadata["tokenizer"]:
        raise UserError(
            f"{run.scored} holds scores in other tokens than those of model.path = '{name}'; score"
            " in another --run"
        )


def scores_of(run: Run, *, tokens_only: bool = False) -> ScoredCorpus:
    """Returns a run's own scores. `tokens_only`: no score is read, so that there need be none.

    Raises UserError as `load_scored`, where the run's configuration or its model's files are not
    those that the scores were made with (only its tokens, where another model scored), and for
    tokens without scores.
    """
    corpus = load_scored(run.scored)
    require_same_settings(
        run.scored, corpus.metadata["settings"], score_settings(run.config, None, None)
    )
    if run.config.score.model:
        _require_same_tokens(run, corpus)
    else:
        require_same_weights(run.scored, corpus.metadata, {"model.path": run.config.model.path})
    if not run.config.score.has_scores and not tokens_only:
        raise UserError(
            f"{run.scored} holds no scores, since score.tokens_only names every split: that is"
            " enough for pretrain.tokens = 'full' with pretrain.eval_every = 0 alone; leave a split"
            " out of score.tokens_only, and score in another --run"
        )
    return corpus
