"""Configuration: one section a concern, TOML plus `--section.key value` overrides.

Every key has a type, a range, a default and a description with its unit; the command line's
help and `docs/configuration.md` are made from them. An unknown key is an error that names the
nearest known one. `STAGES` says what each stage is made from and where its results lie.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, model_validator

from openrpt.config.algorithms import ImportanceCorrection
from openrpt.config.corpus import CorpusConfig, ScoreConfig
from openrpt.config.engine import EngineConfig
from openrpt.config.evaluation import (
    CodingConfig,
    EvaluateConfig,
    ProbeConfig,
    SuiteConfig,
    WritingConfig,
    ZeroshotConfig,
)
from openrpt.config.model import MemoryConfig, ModelConfig
from openrpt.config.parallel import ParallelConfig
from openrpt.config.prompt import PromptConfig, SelectionConfig
from openrpt.config.questions import AnswersConfig, FinetuneConfig, QuestionsConfig
from openrpt.config.reinforcement import TrainConfig
from openrpt.config.rewards import RewardConfig
from openrpt.config.section import NOTHING, PathText, Section, binds
from openrpt.config.spending import CostConfig, TrackConfig
from openrpt.config.training import CheckpointsConfig, OptimConfig, PretrainConfig, WarmupConfig


class Config(Section):
    """The whole pipeline; each stage reads its own section and those it shares."""

    seed: Annotated[int, binds("warmup", "train", "finetune", "pretrain", "evaluation")] = Field(
        0, ge=0, le=2**63 - 1, description="Seed of every random choice"
    )
    run: Annotated[PathText, NOTHING] = Field(
        "runs/default", description="Run folder: everything is written there"
    )
    model: ModelConfig = ModelConfig()
    engine: EngineConfig = EngineConfig()
    memory: MemoryConfig = MemoryConfig()
    parallel: ParallelConfig = ParallelConfig()
    corpus: CorpusConfig = CorpusConfig()
    score: ScoreConfig = ScoreConfig()
    prompt: PromptConfig = PromptConfig()
    selection: SelectionConfig = SelectionConfig()
    optim: OptimConfig = OptimConfig()
    checkpoints: CheckpointsConfig = CheckpointsConfig()
    warmup: WarmupConfig = WarmupConfig()
    reward: RewardConfig = RewardConfig()
    train: TrainConfig = TrainConfig()
    pretrain: PretrainConfig = PretrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    probe: ProbeConfig = ProbeConfig()
    writing: WritingConfig = WritingConfig()
    questions: QuestionsConfig = QuestionsConfig()
    answers: AnswersConfig = AnswersConfig()
    finetune: FinetuneConfig = FinetuneConfig()
    zeroshot: ZeroshotConfig = ZeroshotConfig()
    coding: CodingConfig = CodingConfig()
    suite: SuiteConfig = SuiteConfig()
    track: TrackConfig = TrackConfig()
    cost: CostConfig = CostConfig()

    @model_validator(mode="after")
    def _offsets_are_read(self) -> "Config":
        if self.selection.where == "offsets" and not self.corpus.offsets:
            raise ValueError("selection.where = 'offsets' needs corpus.offsets, the field of them")
        return self

    @model_validator(mode="after")
    def _sampler_fits(self) -> "Config":
        if self.engine.sampler == "same":
            return self
        if self.train.answer_gradient == "exact":
            raise ValueError(
                "train.answer_gradient = 'exact' reads the policy's own probabilities, with no"
                " correction for another sampler: it needs engine.sampler = 'same'"
            )
        if self.engine.sampler == "vllm" and self.model.dtype == "float64":
            raise ValueError("vLLM has no float64: model.dtype needs engine.sampler = 'same'")
        return self

    @property
    def importance_correction(self) -> ImportanceCorrection:
        """The correction for what the rollouts were drawn with, `train.importance_correction`."""
        asked = self.train.importance_correction
        if asked != "auto":
            return asked
        return "off" if self.engine.sampler == "same" else "truncate"


StageName = Literal["score", "warmup", "train", "finetune", "pretrain", "evaluation"]
"""What leaves results in a run folder."""
Bound = StageName | Literal["label"]
"""What a key can bind: the results of a stage that reads it, or only an evaluation's label."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StageFacts:
    """What the rest of OpenRPT knows of a stage. Names are those of files and folders of a run."""

    made_from: tuple[StageName, ...] = ()
    """The stages whose results it reads: what binds those binds its own, too."""
    checkpoints: str = ""
    """The folder of what a restart goes on from; empty = it has none."""
    leaves: str = ""
    """The folder that its last model is left in; empty = its last checkpoint is what it made. Where
    there is one, checkpoints are only for a restart: they are written by minutes alone, one is
    kept, and they are gone once the stage is done."""
    mark: str = ""
    """What shows that it has begun, where neither of these does."""
    model: str = ""
    """The word for the model that it makes (`openrpt evaluate MODEL`)."""
    rollouts: bool = False
    """Whether it stores the rollouts and the works of each step."""
    shown: tuple[str, ...] = ()
    """The metrics whose way from first to last says what it found."""


STAGES: dict[StageName, StageFacts] = {
    "score": StageFacts(mark="scored/scored.json"),
    "warmup": StageFacts(
        made_from=("score",),
        checkpoints="warmup-checkpoints",
        leaves="warmup",
        model="warmup",
        shown=("loss/imitation",),
    ),
    "train": StageFacts(
        made_from=("score", "warmup"),
        checkpoints="checkpoints",
        model="trained",
        rollouts=True,
        shown=("reward/mean", "development/reasoning_accuracy"),
    ),
    # Its model is `trained`, too: a run is one of train or one of finetune.
    "finetune": StageFacts(
        checkpoints="checkpoints", mark="finetune.json", rollouts=True, shown=("reward/mean",)
    ),
    "pretrain": StageFacts(
        made_from=("score",),
        checkpoints="pretrain-checkpoints",
        model="pretrained",
        shown=("loss/ntp",),
    ),
    "evaluation": StageFacts(mark="evaluation.json"),
}
OWN_MODELS = ("start", "best", *(facts.model for facts in STAGES.values() if facts.model))
"""Words for a run's own models: before anything, the best so far, and the latest of each stage."""
