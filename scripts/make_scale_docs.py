"""Puts the numbers of `openrpt estimate` into docs/scale.md: python scripts/make_scale_docs.py

Nothing is fetched: the models are their published shapes (`SHAPES`), with a tokenizer of bytes in
the place of their own. It makes the instructions before a text some four times as long, which is
below 1 % of what a step computes. What was measured is read from docs/results/scale.json, which
scripts/simulate_scale.py writes.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any

import torch
from marked import replaced
from transformers import AutoModelForCausalLM, Qwen2Config

from openrpt import amounts
from openrpt.config.loading import load_config
from openrpt.config.sections import Config
from openrpt.costs.estimate import UTILISATION, estimate_on
from openrpt.costs.limits import gpu_named
from openrpt.costs.plan import WorkPlan
from openrpt.costs.planned import PlannedStage
from openrpt.costs.run_estimate import RunEstimate
from openrpt.data.corpus_size import CorpusSize
from openrpt.engine.lora import add_lora
from openrpt.engine.model import Model
from openrpt.engine.new_models import byte_tokenizer
from openrpt.files import write_text
from openrpt.sheets import Sheet, markdown

ROOT = Path(__file__).parent.parent
TARGET, MEASURED = ROOT / "docs" / "scale.md", ROOT / "docs" / "results" / "scale.json"
GPUS = ("a100-80gb", "h100-sxm", "h200", "b200")
SHAPES = {
    "1.5B": {
        "hidden_size": 1536,
        "intermediate_size": 8960,
        "num_hidden_layers": 28,
        "num_attention_heads": 12,
        "num_key_value_heads": 2,
        "vocab_size": 151936,
    },
    "7B": {
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "vocab_size": 152064,
    },
    "14B": {
        "hidden_size": 5120,
        "intermediate_size": 13824,
        "num_hidden_layers": 48,
        "num_attention_heads": 40,
        "num_key_value_heads": 8,
        "vocab_size": 152064,
    },
}
"""DeepSeek-R1-Distill-Qwen of these sizes, by their config.json; head and embeddings are two
matrices."""
RECIPES: tuple[tuple[str, str, int, dict[str, Any]], ...] = (
    ("paper-1.5b", "1.5B", 1, {}),
    ("paper-7b", "7B", 8, {}),
    ("paper", "14B", 1, {"model.lora_rank": 64, "train.positions_per_document": 16}),
    ("paper", "14B", 64, {"model.lora_rank": 64}),
    ("paper", "14B", 64, {}),
)
"""Recipe, size, number of GPUs, and what is given beside it."""
TEXT_TOKENS = 600
"""Tokens of a problem with its solution, about: what is assumed of the recipes' corpus."""
DOCUMENTS = 4_428
TRILLION = 1e12


@cache
def outline(size: str, lora_rank: int, lora_alpha: int) -> Model:
    """Returns the shapes of a model of this size, in mixed precision: no memory."""
    config = Qwen2Config(**SHAPES[size], tie_word_embeddings=False)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        found = Model(
            network=model, tokenizer=byte_tokenizer(), name=size, compute_dtype=torch.bfloat16
        )
        if lora_rank:
            found.network = add_lora(model, rank=lora_rank, alpha=lora_alpha)
    return found


def plan_of(recipe: str, size: str, given: dict[str, Any]) -> WorkPlan:
    """Returns the plan of a recipe with a model of this size, on texts of `TEXT_TOKENS`."""
    config: Config = load_config(f"recipe:{recipe}", given)
    policy = outline(size, config.model.lora_rank, config.model.lora_alpha)
    return WorkPlan(
        config=config,
        policy=policy,
        layout=policy.layout(config.prompt),
        corpus=CorpusSize(lengths=[TEXT_TOKENS], documents_of={"train": DOCUMENTS}, known=False),
        scorer=outline("1.5B", 0, 0) if config.score.model else None,
    )


def gigabytes(number: float) -> str:
    return f"{number / 1e9:.0f} GB" if number >= 9.5e9 else f"{number / 1e9:.1f} GB"


def train_of(found: RunEstimate) -> PlannedStage:
    return next(stage for stage in found.stages if stage.stage == "train")


def recipes() -> Sheet:
    """Each recipe on the GPUs that it is meant for."""
    rows = []
    for recipe, size, count, given in RECIPES:
        plan = plan_of(recipe, size, given)
        trained = f"LoRA {rank}" if (rank := plan.config.model.lora_rank) else "all weights"
        for gpu in GPUS:
            train = train_of(estimate_on(plan, gpu, gpus=count))
            if count == 1 and train.memory_bytes / 1e9 > gpu_named(gpu).memory:
                continue
            prompts = plan.config.train.steps * plan.config.train.prompts_per_step
            rows.append(
                [
                    f"`{recipe}`, {size}, {trained}",
                    f"{count} × {gpu}",
                    _held(train, gpu, count),
                    amounts.rough_duration(train.seconds / plan.config.train.steps),
                    f"{amounts.rough_duration(train.seconds)} ({plan.config.train.steps:,})",
                    amounts.energy(train.joules),
                    f"{amounts.count(round(train.flops / prompts / scored_token(), -3))}",
                ]
            )
    headings = ["recipe", "GPUs", "memory of each", "a step", "all steps", "energy"]
    headings.append("a prompt, in tokens scored by 1.5B")
    return Sheet(title="", headings=headings, rows=rows, labels=2)


def _held(train: PlannedStage, gpu: str, count: int) -> str:
    """What each GPU holds; where that is too much, what would be left of it in parts."""
    if train.memory_bytes / 1e9 <= gpu_named(gpu).memory:
        return gigabytes(train.memory_bytes)
    parted = train.memory_bytes - train.state_bytes * (1 - 1 / count)
    return f"too much: {gigabytes(train.memory_bytes)}, in parts {gigabytes(parted)}"


@cache
def scored_token() -> float:
    """The FLOPs of scoring a token with 1.5B."""
    return plan_of("paper-1.5b", "1.5B", {}).score().flops / (TEXT_TOKENS * DOCUMENTS)


def memory() -> Sheet:
    """What a training process holds, by size and by what is trained."""
    rows = []
    for size in SHAPES:
        for name, rank in (("all weights", 0), ("LoRA, rank 64", 64)):
            train = plan_of("paper", size, {"model.lora_rank": rank}).train()
            parts = [gigabytes(train.state_bytes / count) for count in (1, 8, 64)]
            rows.append([size, name, *parts, gigabytes(train.memory_bytes - train.state_bytes)])
    headings = ["model", "trained", "weights, gradients, moments", "in 8 parts", "in 64 parts"]
    return Sheet(title="", headings=[*headings, "all else"], rows=rows, labels=2)


def scoring() -> Sheet:
    """What scoring 10¹² tokens takes, by scorer and GPU."""
    rows = []
    for size in SHAPES:
        stage = plan_of("paper-1.5b", size, {}).score()
        for gpu in GPUS:
            chosen = gpu_named(gpu)
            rate = UTILISATION * chosen.rate("bfloat16")
            seconds = TRILLION * stage.flops / (TEXT_TOKENS * DOCUMENTS) / rate
            rows.append(
                [
                    size,
                    gpu,
                    amounts.count(TRILLION / seconds),
                    amounts.count(seconds / 3600),
                    amounts.rough_duration(seconds / 1024),
                    amounts.energy(seconds * chosen.watts),
                ]
            )
    headings = ["scorer", "GPU", "tokens a second", "GPU hours for 10¹²", "on 1,024", "energy"]
    return Sheet(title="", headings=headings, rows=rows, labels=2)


def storage(measured: dict[str, Any]) -> Sheet:
    """Bytes of the stored scores, by column, for a token and for 10¹² of them."""
    sizes = measured["write"]["bytes_per_token"]
    named = {
        "token ids": ("positions.token_id",),
        "standard prediction, and whether it is right": (
            "positions.ntp_token_id",
            "positions.ntp_correct",
        ),
        "surprise": ("positions.negative_log_likelihood",),
        "entropy": ("positions.entropy",),
        "entropy over 16": ("positions.entropy_top16",),
        "places": ("positions.position", "positions.byte_offset", "positions.document_id"),
        "text": ("documents.text",),
    }
    parts = {name: sum(sizes[column] for column in columns) for name, columns in named.items()}
    parts["all else"] = sizes["all"] - sum(parts.values())
    rows = [[name, f"{size:.2f}", f"{size:.2f} TB"] for name, size in parts.items()]
    rows.append(["all", f"{sizes['all']:.2f}", f"{sizes['all']:.1f} TB"])
    return Sheet(title="", headings=["", "bytes a token", "10¹² tokens"], rows=rows)


def simulated(measured: dict[str, Any]) -> Sheet:
    """What the simulation took."""
    train, write = measured["train:entropy"], measured["write"]

    def seconds(number: float) -> str:
        return f"{1000 * number:.0f} ms" if number < 1 else f"{number:.1f} s"

    rows = [
        ["write (the shards alone)", f"{write['tokens_per_second']:,.0f} tokens a second", "write"],
        ["open the scores", seconds(train["first"]["opened_seconds"]), "skip"],
        [
            "the first step of a start",
            seconds(train["first"]["first_step_seconds"]),
            "train:entropy",
        ],
        ["a later step (median)", seconds(train["rest"]["median_step_seconds"]), "train:entropy"],
        [
            "a later step, pass_rate",
            seconds(measured["train:pass_rate"]["rest"]["median_step_seconds"]),
            "train:pass_rate",
        ],
        ["go on at a cursor 3 epochs on", seconds(measured["skip"]["seconds"]), "skip"],
        ["the positions of an evaluation", seconds(measured["evaluate"]["seconds"]), "evaluate"],
        ["begin a curriculum", seconds(measured["curriculum"]["opened_seconds"]), "curriculum"],
        ["its first step", seconds(measured["curriculum"]["step_seconds"]), "curriculum"],
    ]
    rows = [[name, took, f"{measured[part]['peak_gb']:.1f} GB"] for name, took, part in rows]
    return Sheet(title="", headings=["", "takes", "peak memory"], rows=rows)


def read_rate(measured: dict[str, Any]) -> str:
    """How fast documents are read, and how large their index of grams becomes."""
    return f"{measured['read']['tokens_per_cpu_second']:,.0f} tokens a second of CPU time"


def size(measured: dict[str, Any]) -> str:
    """How much the simulation wrote."""
    write = measured["write"]
    return (
        f"{write['positions']:,} positions of {write['documents']:,} documents in"
        f" {write['shards']:,} shards, {measured['steps']} steps, on a core that others used, too"
    )


def tables() -> dict[str, str]:
    """Returns marker → what stands there, in markdown."""
    measured = json.loads(MEASURED.read_text(encoding="utf-8"))
    sheets = {
        "recipes": recipes(),
        "memory": memory(),
        "scoring": scoring(),
        "storage": storage(measured),
        "simulated": simulated(measured),
    }
    found = {marker: f"\n\n{markdown(sheet)}\n" for marker, sheet in sheets.items()}
    return found | {"read": read_rate(measured), "size": size(measured)}


def updated(text: str) -> str:
    """Returns the page with all of it made anew."""
    for marker, made in tables().items():
        text = replaced(text, marker, made)
    return text


if __name__ == "__main__":
    write_text(TARGET, updated(TARGET.read_text(encoding="utf-8")))
