"""The settings of a run in a few lines, as the report shows them."""

from collections.abc import Sequence

from openrpt.config.prompt import SelectionConfig
from openrpt.config.sections import Config


def essentials(config: Config, sources: Sequence[str] = ()) -> list[tuple[str, str]]:
    """Returns the settings that one asks for first: (name, value). `sources`: who made the
    thoughts that the warmup was given."""
    train, prompt, warmup = config.train, config.prompt, config.warmup
    per_step = train.prompts
    if prompt.candidates:
        whose = "the start model" if prompt.candidate_source == "start" else "the policy itself"
        several = "s" if prompt.candidates > 1 else ""
        thought = f"seeded with {prompt.candidates} candidate{several} of {whose}"
    else:
        thought = "unseeded"
    budget = prompt.think_budget
    thought += f", then at most {budget} free tokens" if budget else ", no free tokens"
    seen = warmup.supervision(sources)
    cold = "target " + ("the text's own token" if warmup.target == "truth" else "the model itself")
    cold += f" (supervised: it saw {seen})" if seen else " (form only)"
    adapters = f", LoRA rank {config.model.lora_rank}" if config.model.lora_rank else ""
    return [
        ("Model", f"{config.model.path} ({config.model.precision}{adapters})"),
        ("Corpus", config.corpus.path),
        ("Prompt", f"{prompt.template}, window {prompt.window} tokens"),
        ("Thought", thought),
        ("Warmup", cold),
        (
            "Reinforcement",
            f"{train.algorithm}, {train.documents} documents ×"
            f" {train.positions_per_document} positions × {train.group_size} rollouts ="
            f" {per_step * train.group_size:,} rollouts a step; learning rate"
            f" {train.learning_rate:g}, NTP loss × {train.ntp_weight:g}",
        ),
        ("Positions", _positions(config.selection)),
    ]


def _positions(selection: SelectionConfig) -> str:
    """Returns by what positions are taken: `at random, where class:computed`."""
    said = {
        "entropy": f"by entropy, above {selection.min_entropy:g} nats",
        "random": "at random",
        "pass_rate": f"by pass rate, {selection.pass_rate_low:g} to {selection.pass_rate_high:g}",
    }.get(selection.strategy, f"by {selection.strategy}")
    return f"{said}, where {selection.where}" if selection.where else said
