"""What an experiment will take, arm by arm, before it is run: the counts of `openrpt estimate`."""

from dataclasses import dataclass, field
from pathlib import Path

from openrpt import amounts
from openrpt.config.loading import with_overrides
from openrpt.config.sections import Config
from openrpt.costs.estimate import UTILISATION, rates_of
from openrpt.costs.plan import PlannedStage, WorkPlan
from openrpt.costs.speed import Speeds
from openrpt.data.corpus_size import CorpusSize, corpus_size
from openrpt.engine.loading import outline
from openrpt.engine.model import Model
from openrpt.experiments.answers.experiment import START, Arm, Experiment, Size, arms_of
from openrpt.experiments.answers.ground import Ground, LabGround, Origin, ground_of
from openrpt.progress import SILENT, Progress
from openrpt.sheets import Sheet


@dataclass(frozen=True, kw_only=True)
class ArmEstimate:
    """One seed of an arm: its training, and its evaluation."""

    arm: str
    flops: float
    seconds: float


@dataclass(frozen=True, kw_only=True)
class ExperimentEstimate:
    """The estimate of an experiment."""

    size: Size
    machine: str
    arms: list[ArmEstimate]
    notes: list[str]

    @property
    def seconds(self) -> float:
        """Seconds of all seeds, one arm after the other."""
        return self.size.seeds * sum(arm.seconds for arm in self.arms)

    @property
    def flops(self) -> float:
        """FLOPs of all seeds."""
        return self.size.seeds * sum(arm.flops for arm in self.arms)


def estimate_experiment(
    experiment: Experiment,
    size: Size,
    *,
    gpu: str = "",
    utilisation: float = UTILISATION,
    progress: Progress = SILENT,
) -> ExperimentEstimate:
    """Estimates all seeds, on this machine (measured for some ten seconds) or on a named GPU.

    Raises UserError for a GPU that is not in the table and a model that can't be outlined.
    """
    ground = ground_of(size, Path("runs") / experiment.name, 0)
    arms, spent = arms_of(experiment, size), dict[str, float]()
    machine, speeds, rate = rates_of(
        _measured_as(ground, arms[0]), gpu=gpu, utilisation=utilisation, progress=progress
    )
    found, plans = [], _Plans(ground=ground)
    for arm in arms:
        plan = plans.plan(arm)
        trained = _training(plan, arm, sum(spent[name] for name in arm.match))
        spent[arm.name] = trained.flops
        stages = [trained, plan.evaluate()] if arm.measured else [trained]
        found.append(
            ArmEstimate(
                arm=arm.name,
                flops=sum(stage.flops for stage in stages),
                seconds=sum(_seconds(stage, speeds) for stage in stages),
            )
        )
    notes = [rate, "every thought uses its whole budget, and no group is flat: an upper estimate"]
    return ExperimentEstimate(size=size, machine=machine, arms=found, notes=notes)


def _config(ground: Ground, arm: Arm) -> Config:
    """Returns an arm's configuration with a model of the right size in the place of the one that it
    would go on from."""
    if isinstance(ground, LabGround):
        model = ground.lab.model(width=arm.width)
        return ground.config(arm, Origin(start=model, model=model if arm.origin else ""))
    config = ground.config(arm, Origin())
    return with_overrides(config, {"model.path": ground.problems("").model.path})


def _measured_as(ground: Ground, arm: Arm) -> Config:
    """Returns the configuration that the machine is measured with: a laboratory's documents, of one
    position each, run together as one document's positions do."""
    config = _config(ground, arm)
    if not isinstance(ground, LabGround):
        return config
    together = {"train.positions_per_document": config.train.documents}
    window = {"prompt.window": max(8, config.prompt.min_context), "prompt.min_context": 1}
    return with_overrides(config, together | window)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Plans:
    """The plans of arms; a model is outlined, and a corpus looked at, once."""

    ground: Ground
    models: dict[str, Model] = field(default_factory=dict)
    corpora: dict[str, CorpusSize] = field(default_factory=dict)

    def plan(self, arm: Arm) -> WorkPlan:
        """Returns an arm's plan."""
        config = _config(self.ground, arm)
        path, text = config.model.path, config.corpus.path
        if path not in self.models:
            self.models[path] = outline(config)
        policy = self.models[path]
        if isinstance(self.ground, LabGround):
            lengths = [self.ground.lab.lab.opened.answer_index + 1]
            corpus = CorpusSize(lengths=lengths, documents_of={"heldout": 1000}, known=True)
            # A position is its line's end.
            config = with_overrides(config, {"prompt.min_context": 1})
        else:
            if text not in self.corpora:
                self.corpora[text] = corpus_size(config, policy.tokenizer)
            corpus = self.corpora[text]
        layout = policy.layout(config.prompt)
        return WorkPlan(config=config, policy=policy, layout=layout, corpus=corpus)


def _training(plan: WorkPlan, arm: Arm, matched: float) -> PlannedStage:
    if matched:
        stage = PlannedStage(stage=arm.stage)
        stage.add("update", 0.0, matched)
        return stage
    if arm.stage == "pretrain":
        return plan.pretrain()
    if arm.stage == "warmup" or (arm.name == START and plan.config.warmup.steps):
        return plan.warmup()
    return plan.train()


def _seconds(stage: PlannedStage, speeds: Speeds) -> float:
    return sum(flops / speeds.by_phase[phase] for phase, flops in stage.flops_by_phase.items())


def estimate_sheet(experiment: Experiment, found: ExperimentEstimate) -> Sheet:
    """Returns a row an arm and one for all seeds."""
    rows = [
        [arm.arm, amounts.flops(arm.flops), amounts.rough_duration(arm.seconds)]
        for arm in found.arms
    ]
    seeds = found.size.seeds
    rows.append(
        [
            f"{seeds} seed{'s' if seeds > 1 else ''}",
            amounts.flops(found.flops),
            amounts.rough_duration(found.seconds),
        ]
    )
    return Sheet(
        title=f"{experiment.name}, {found.size.name}: what it will take on {found.machine}",
        headings=["arm, a seed", "FLOPs", "time"],
        rows=rows,
        ends={len(rows) - 2},
        notes=[f"assumed: {line}" for line in found.notes],
    )
