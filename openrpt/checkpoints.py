"""Checkpoints: plain Hugging Face folders that also hold what a resumed run needs.

`transformers` loads the folder as it is (safetensors only; LoRA is merged, its adapter lies
beside it). `state.safetensors` has the optimizer, `checkpoint.json` the step, the data cursor,
the config and the size of every file, so that a truncated checkpoint is noticed. Written to a
temporary folder and renamed: a folder that stands there is whole.
"""

import copy
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

import openrpt
from openrpt.config import Config
from openrpt.errors import UserError
from openrpt.files import replacing_folder
from openrpt.models import Policy, quiet_transformers

FORMAT = 1
BASELINE = "baseline.safetensors"
"""The moving average of the policy, where a reward keeps one."""


@dataclass(kw_only=True)
class TrainerState:
    """All that a stage carries from step to step, weights and optimizer aside.

    Random draws carry no state: they are keyed by (seed, step, …).
    """

    stage: str
    warmed_up: bool = True
    """False where the policy began as the start model itself."""
    step: int = 0
    cursor: int = 0
    """Documents taken so far, over all epochs."""
    seconds: float = 0.0
    """Time spent in steps, over all restarts."""
    pass_rates: dict[str, dict[str, float]] = field(default_factory=dict)
    """document → position → share of right rollouts in its last group."""
    best_step: int = -1
    best_accuracy: float = -1.0


def save_checkpoint(
    folder: Path,
    policy: Policy,
    state: TrainerState,
    config: Config,
    *,
    optimizer: torch.optim.Optimizer | None = None,
    baseline: Mapping[str, torch.Tensor] | None = None,
    card: str = "",
) -> Path:
    """Raises UserError where the disk is full; what stood there before stays untouched."""
    advice = "free some space and start the same command again: it goes on from the last checkpoint"
    with replacing_folder(folder, advice=advice) as partial:
        try:
            with quiet_transformers():
                _save_model(policy, partial)
            if optimizer is not None:
                save_file(_trained_state(policy, optimizer), partial / "state.safetensors")
            if baseline is not None:
                save_file({n: t.contiguous() for n, t in baseline.items()}, partial / BASELINE)
        except SafetensorError as error:  # its way of reporting a full disk
            raise OSError(str(error)) from error
        policy.tokenizer.save_pretrained(partial)
        (partial / "README.md").write_text(card or model_card(state, config), encoding="utf-8")
        files = {
            str(p.relative_to(partial)): p.stat().st_size for p in partial.rglob("*") if p.is_file()
        }
        record = {
            "format": FORMAT,
            "openrpt": openrpt.__version__,
            "state": asdict(state),
            "config": config.model_dump(mode="json"),
            "files": files,
        }
        (partial / "checkpoint.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
    return folder


def _save_model(policy: Policy, folder: Path) -> None:
    if policy.is_lora:
        policy.model.save_pretrained(folder / "adapter")
        # Merging in place and back would change the weights by rounding.
        copy.deepcopy(policy.model).merge_and_unload().save_pretrained(folder)
    else:
        policy.model.save_pretrained(folder)


def _trained_state(policy: Policy, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """Adam's moments by parameter, and LoRA's weights (the merged ones can't be unmerged)."""
    tensors = {}
    for name, parameter in _trained(policy).items():
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"{key}/{name}"] = value.detach().clone().contiguous()
        if policy.is_lora:
            tensors[f"weight/{name}"] = parameter.detach().clone().contiguous()
    return tensors


def _trained(policy: Policy) -> dict[str, torch.nn.Parameter]:
    return {n: p for n, p in policy.model.named_parameters() if p.requires_grad}


def read_checkpoint(folder: Path) -> dict[str, Any]:
    """The record of a checkpoint, after checking that every file is whole.

    Raises UserError for a folder that is no checkpoint, is truncated or of a newer version.
    """
    try:
        record = json.loads((folder / "checkpoint.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{folder}: not a checkpoint (checkpoint.json is missing)") from None
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise UserError(f"{folder}/checkpoint.json: damaged; {_REMEDY}") from None
    if record["format"] > FORMAT:
        raise UserError(f"{folder}: written by a newer OpenRPT ({record['openrpt']}); update")
    for name, size in record["files"].items():
        path = folder / name
        found = path.stat().st_size if path.is_file() else None
        if found != size:
            what = "is missing" if found is None else f"has {found} bytes in place of {size}"
            raise UserError(f"{path}: {what}: the checkpoint is truncated; {_REMEDY}")
    return record


_REMEDY = "delete that folder, and the run resumes from the checkpoint before it"


def restore(folder: Path, policy: Policy, optimizer: torch.optim.Optimizer) -> TrainerState:
    """Puts optimizer (and LoRA weights) back; the model itself was loaded from the folder.

    Raises UserError for a damaged checkpoint.
    """
    record = read_checkpoint(folder)
    tensors = read_tensors(folder / "state.safetensors")
    by_parameter: dict[str, dict[str, torch.Tensor]] = {}
    for key, value in tensors.items():
        kind, name = key.split("/", 1)
        by_parameter.setdefault(name, {})[kind] = value
    for name, parameter in _trained(policy).items():
        values = by_parameter.get(name, {})
        if "weight" in values:
            with torch.no_grad():
                parameter.copy_(values.pop("weight"))
        if values:
            # Adam's step counter stays on the host, as torch keeps it.
            optimizer.state[parameter] = {
                key: value if key == "step" else value.to(parameter.device)
                for key, value in values.items()
            }
    return TrainerState(**record["state"])


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Raises UserError for a file that is damaged or not there."""
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: damaged ({error}); {_REMEDY}") from None


def latest_checkpoint(folder: Path) -> Path | None:
    found = sorted(p for p in folder.glob("step-*") if p.is_dir() and p.suffix != ".partial")
    return found[-1] if found else None


def step_folder(folder: Path, step: int) -> Path:
    return folder / f"step-{step:06d}"


def prune(folder: Path, keep: int) -> None:
    """Keeps the last `keep` checkpoints; `best` is a folder of its own."""
    found = sorted(p for p in folder.glob("step-*") if p.suffix != ".partial")
    for path in found[:-keep]:
        shutil.rmtree(path)


def model_card(state: TrainerState, config: Config, facts: Mapping[str, str] | None = None) -> str:
    """States how the weights were made; a supervised target is labelled so."""
    supervised = config.warmup.target == "truth" or config.warmup.ntp_weight > 0
    warmed_up = f"{config.warmup.target} target"
    warmed_up += " (supervised: it saw the true tokens)" if supervised else " (form only)"
    lines = [
        "---",
        "library_name: transformers",
        "tags: [openrpt, reinforcement-pre-training]",
        "---",
        f"# {config.model.path} after {state.stage}, step {state.step}",
        "",
        f"Made by OpenRPT {openrpt.__version__} (reinforcement pre-training, arXiv 2506.08007).",
        "",
        f"- start model: {config.model.path}",
    ]
    if state.stage == "finetune":
        lines.append(f"- questions: {config.questions.path}")
    else:
        lines += [
            f"- corpus: {config.corpus.path}",
            f"- warmup: {warmed_up if state.warmed_up else 'none'}",
        ]
    if state.stage in ("train", "finetune"):
        lines += [
            f"- algorithm: {config.train.algorithm}, group size {config.train.group_size},"
            f" learning rate {config.train.learning_rate:g}, plain next-token loss weight"
            f" {config.train.ntp_weight:g}",
            "- reward: "
            + " + ".join(f"{weight:g} · {name}" for name, weight in config.reward.terms.items()),
            f"- prompt: template {config.prompt.template}, {config.prompt.candidates} candidates,"
            f" think budget {config.prompt.think_budget}",
        ]
    lines += [f"- {key}: {value}" for key, value in (facts or {}).items()]
    return "\n".join(lines) + "\n"
