"""What a run will take, before it is run: tokens, FLOPs, memory, time, energy and money by stage.

The counting is that of the metrics (`openrpt.costs.flops`), over branches of the lengths that the
configuration allows: every budget used up, no group flat. So it is an upper estimate; what it
assumes is said with it.
"""

import time

import psutil
import torch

from openrpt import amounts
from openrpt.config.loading import finetune_config
from openrpt.config.questions import FinetuneConfig, QuestionsConfig
from openrpt.config.sections import Config
from openrpt.costs.energy import DEFAULT_WATTS, money
from openrpt.costs.held import LIBRARIES, state_bytes
from openrpt.costs.limits import gpu_named
from openrpt.costs.plan import WorkPlan
from openrpt.costs.planned import PlannedStage
from openrpt.costs.run_estimate import RunEstimate
from openrpt.costs.speed import Speeds, measure_speeds
from openrpt.data.corpus_size import CorpusSize, corpus_size
from openrpt.engine.loading import outline, pick_device
from openrpt.errors import UserError
from openrpt.progress import SILENT, Progress

_LONGEST_SECONDS = 365 * 86_400.0
"""Seconds of a year: steps that take longer are a limit that is not meant to be reached."""
_UNDISTURBED = 0.9
"""Share of a processor that the measuring thread, which never waits, has where nothing else runs;
below it the speeds are those of a busy machine."""
UTILISATION = 0.25
"""Share of a GPU's peak that is assumed where the user gives none; no measurement stands behind
it."""


def estimate(
    config: Config,
    *,
    gpu: str = "",
    gpus: int = 1,
    utilisation: float = UTILISATION,
    progress: Progress = SILENT,
) -> RunEstimate:
    """Estimates a run on this machine (measured for about ten seconds), or on named GPUs (their
    peak rate times `utilisation`), which share out the documents of each step.

    A configuration that says anything of [finetune] or [questions] is one of `finetune`.

    Raises UserError for a GPU that is not in the table, a model that can't be outlined, a prompt
    that does not fit it, and a measurement for which this machine has too little memory.
    """
    if gpu:
        gpu_named(gpu)  # a wrong name is said before anything is loaded
    asks = config.questions != QuestionsConfig() or config.finetune != FinetuneConfig()
    config = finetune_config(config) if asks else config
    policy = outline(config)
    layout = policy.layout(config.prompt)
    scorer = None
    if config.score.model and not asks:
        path = {"path": config.score.model, "lora_rank": 0}
        scorer = outline(config.model_copy(update={"model": config.model.model_copy(update=path)}))
    plan = WorkPlan(
        config=config,
        policy=policy,
        layout=layout,
        corpus=_questions(config) if asks else corpus_size(config, policy.tokenizer),
        scorer=scorer,
    )
    if gpu:
        return estimate_on(plan, gpu, gpus=gpus, utilisation=utilisation)
    device = pick_device(config.model.device)
    require_memory(state_bytes(policy, copies=0, trained=True) + LIBRARIES, device)
    machine, speeds, rate = rates_of(config, gpu="", utilisation=utilisation, progress=progress)
    watts = config.cost.watts or DEFAULT_WATTS[device.type]
    return _priced(plan, machine, speeds, watts, notes=[rate])


def _questions(config: Config) -> CorpusSize:
    """Returns the questions that are asked at evaluations, each as long as one may be."""
    asked = {"development": config.train.eval_positions, "heldout": config.finetune.eval_questions}
    return CorpusSize(lengths=[config.prompt.window], documents_of=asked, known=False)


def estimate_on(
    plan: WorkPlan, gpu: str, *, gpus: int = 1, utilisation: float = UTILISATION
) -> RunEstimate:
    """Estimates a plan on GPUs that are in the table. Raises UserError for one that is not."""
    chosen = gpu_named(gpu)
    machine, speeds, rate = rates_of(plan.config, gpu=gpu, utilisation=utilisation)
    notes = [rate]
    if gpus > 1:
        notes.append(
            "each GPU holds the whole model and has documents of its own; evaluations run on one;"
            " adding gradients up between GPUs takes no time"
        )
    watts = gpus * (plan.config.cost.watts or chosen.watts)
    several = machine if gpus == 1 else f"{gpus} × {machine}"
    found = _priced(plan, several, speeds, watts, notes=notes, gpus=gpus)
    for stage in found.stages:
        found.warnings.extend(_too_little(stage, gpu, chosen.memory, gpus))
    return found


def _priced(
    plan: WorkPlan,
    machine: str,
    speeds: Speeds,
    watts: float,
    *,
    notes: list[str],
    gpus: int = 1,
) -> RunEstimate:
    """Returns the plan's stages with their time, energy and money."""
    config = plan.config
    if config.prompt.template == "question":
        stages = [plan.finetune()]
    else:
        stages = [plan.score(), plan.warmup(), plan.train(), plan.evaluate()]
    stages = [stage for stage in stages if stage.flops]
    train = config.train.time_limit * 60
    limits = {"warmup": config.warmup.time_limit * 60, "train": train, "finetune": train}
    notes = [*plan.assumptions(), *notes, f"power {watts:.0f} W throughout: an estimate"]
    for stage in stages:
        _price_stage(stage, speeds, gpus, limits.get(stage.stage, 0.0), watts, config, notes)
    return RunEstimate(
        machine=machine,
        stages=stages,
        assumptions=notes,
        currency=config.cost.currency,
        warnings=[],
    )


def _too_little(stage: PlannedStage, gpu: str, memory: float, gpus: int) -> list[str]:
    """Returns what is to be said of a stage on GPUs of so many GB: that the model does not fit, or
    that some of them have nothing to do."""
    said = []
    needed = stage.memory_bytes / 1e9
    if needed > memory:
        line = f"{stage.stage} needs about {needed:.0f} GB, {gpu} has {memory:g}"
        if gpus > 1:
            parted = (stage.memory_bytes - stage.state_bytes * (1 - 1 / gpus)) / 1e9
            line += f"; with the model in {gpus} parts about {parted:.0f} GB each"
        said.append(line)
    if 0 < stage.documents < gpus:
        said.append(
            f"{stage.stage} has {stage.documents} documents a step for {gpus} GPUs, so that"
            f" {gpus - stage.documents} have nothing to do: take more documents, with fewer"
            " positions each"
        )
    return said


def rates_of(
    config: Config, *, gpu: str, utilisation: float, progress: Progress = SILENT
) -> tuple[str, Speeds, str]:
    """Returns a machine's name, its speeds with a configuration's model, and where they are from:
    this machine, measured, or a named GPU's peak times `utilisation`."""
    if gpu:
        chosen = gpu_named(gpu)
        peak = chosen.rate(config.model.product_dtype)
        speeds = Speeds(**dict.fromkeys(("score", "generate", "update"), peak * utilisation))
        assumed = f"{utilisation:.0%} of {peak:.3g} FLOP/s in every phase (--utilisation)"
        return f"{gpu} ({chosen.source})", speeds, assumed
    device = pick_device(config.model.device)
    layout = outline(config).layout(config.prompt)
    progress.begin("measuring this machine, ten seconds where nothing else runs", 0.0)
    began, before = time.monotonic(), time.thread_time()
    speeds = measure_speeds(config, layout, device)
    progress.end()
    seconds, own = time.monotonic() - began, time.thread_time() - before
    progress.say(f"measured in {_short(seconds)}")
    measured = (
        f"measured now: generation {speeds.generate:.3g}, update {speeds.update:.3g}, scoring"
        f" {speeds.score:.3g} FLOP/s"
    )
    if device.type == "cpu" and own < _UNDISTURBED * seconds:
        measured += (
            f", with {own / seconds:.0%} of a processor: other programs ran beside it, and alone a"
            " run is faster"
        )
    return _this_machine(device), speeds, measured


def _short(seconds: float) -> str:
    return amounts.rough_duration(seconds) if seconds >= 1 else "under 1 s"


def _price_stage(
    stage: PlannedStage,
    speeds: Speeds,
    gpus: int,
    limit: float,
    watts: float,
    config: Config,
    notes: list[str],
) -> None:
    """Sets time, energy and money of a stage, which ends after `limit` seconds (0 = never)."""
    rates = speeds.by_phase
    stage.seconds = sum(
        stage.share_of_slowest(phase, gpus) * flops / rates[phase]
        for phase, flops in stage.flops_by_phase.items()
    )
    if 0 < limit < stage.seconds:
        notes.append(f"{stage.stage} ends by its time limit, {limit / 60:g} minutes")
        stage.cut(limit / stage.seconds)
    elif not limit and stage.seconds > _LONGEST_SECONDS:
        stage.endless = True
        section = "train" if stage.stage == "finetune" else stage.stage
        steps = getattr(config, section).steps
        each = _short(stage.seconds / steps)
        notes.append(
            f"{stage.stage} has no end: {steps:,} steps of {each} each; give --{section}.steps"
            f" or --{section}.time_limit"
        )
    stage.joules = stage.seconds * watts
    if config.cost.price_per_hour:
        stage.money = money(stage.seconds, config.cost.price_per_hour)


def require_memory(needed: float, device: torch.device) -> None:
    """Checks that the measurement's own model fits into memory. Raises UserError where it does
    not."""
    free: float = psutil.virtual_memory().available
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
    if needed > free:
        raise UserError(
            f"the model takes {needed / 1e9:.0f} GB to be measured and {free / 1e9:.0f} GB are"
            " free here; name the GPU that it will run on with --gpu"
        )


def _this_machine(device: torch.device) -> str:
    if device.type == "cuda":
        return f"this machine, {torch.cuda.get_device_name(device)}"
    threads = torch.get_num_threads()
    return f"this machine, {device.type}, {threads} thread{'' if threads == 1 else 's'}"
