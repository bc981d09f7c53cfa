"""The model card of a checkpoint: `README.md` beside the weights, which says how they were made."""

from pathlib import Path

import openrpt
from openrpt.config.sections import Config
from openrpt.engine.checkpoint_record import TrainerState


def model_card(state: TrainerState, config: Config) -> str:
    """Returns the card's text: metadata that the Hub reads, and what the weights were made from and
    by. A supervised target is labelled so."""
    from huggingface_hub import ModelCard, ModelCardData  # 0.2 s, where a checkpoint is written

    plain = state.stage == "pretrain"
    name = "continual next-token training" if plain else state.stage
    method = (
        f"Made by OpenRPT {openrpt.__version__} (reinforcement pre-training, arXiv 2506.08007)."
    )
    if plain:
        method = (
            f"Made by OpenRPT {openrpt.__version__}. Supervised: every target is the text's own"
            " token. No reinforcement, no thought."
        )
    data = ModelCardData(
        base_model=_hub_id(config.model.path),
        library_name="transformers",
        tags=["openrpt", "continual-pre-training" if plain else "reinforcement-pre-training"],
    )
    lines = [
        "---",
        data.to_yaml(),
        "---",
        f"# {_shown(config.model.path)} after {name}, step {state.step}",
        "",
        method,
        "",
        f"- start model: {_shown(config.model.path)}",
        *(f"- {fact}" for fact in _facts(state, config)),
    ]
    return str(ModelCard("\n".join(lines) + "\n"))


def _hub_id(name: str) -> str | None:
    """Returns a model's name on the Hub; None for a folder, a file and the demo's model."""
    return None if _is_local(name) or "/" not in name else name


def _is_local(name: str) -> bool:
    return name.startswith((".", "/", "~")) or Path(name).exists()


def _shown(name: str) -> str:
    """Returns a model's or a corpus's name as others may read it: of a local path its last part."""
    return Path(name).name if _is_local(name) else name


def _facts(state: TrainerState, config: Config) -> list[str]:
    """Returns what the stage learned from, and how."""
    if state.stage == "pretrain":
        return _pretraining(config)
    if state.stage == "finetune":
        return [f"questions: {_shown(config.questions.path)}", *_reinforcement(config)]
    seen = config.warmup.supervision(state.trace_sources)
    warmed_up = f"{config.warmup.target} target"
    warmed_up += f" (supervised: it saw {seen})" if seen else " (form only)"
    facts = [
        f"corpus: {_shown(config.corpus.path)}",
        f"warmup: {warmed_up if state.warmed_up else 'none'}",
    ]
    return facts + (_reinforcement(config) if state.stage == "train" else [])


def _reinforcement(config: Config) -> list[str]:
    terms = (f"{weight:g} · {name}" for name, weight in config.reward.terms.items())
    return [
        f"algorithm: {config.train.algorithm}, group size {config.train.group_size},"
        f" learning rate {config.train.learning_rate:g}, plain next-token loss weight"
        f" {config.train.ntp_weight:g}",
        f"reward: {' + '.join(terms)}",
        f"prompt: template {config.prompt.template}, {config.prompt.candidates} candidates,"
        f" think budget {config.prompt.think_budget}",
    ]


def _pretraining(config: Config) -> list[str]:
    """Returns the tokens, and the run that it is a control for."""
    settings = config.pretrain
    tokens = "all tokens"
    if settings.tokens == "selected":
        tokens = f"the tokens selected by {config.selection.strategy}"
    purpose = "no run is matched"
    if settings.match:
        purpose = f"a control for the RPT run {_shown(settings.match)} by equal {settings.match_by}"
    return [
        f"corpus: {_shown(config.corpus.path)}",
        f"trained on: {tokens}",
        f"budget: {purpose}",
        f"learning rate {settings.learning_rate:g}, {settings.schedule} schedule",
    ]
