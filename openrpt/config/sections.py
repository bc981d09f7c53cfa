"""Configuration: one section a concern, TOML plus `--section.key value` overrides.

Every key has a type, a range, a default and a description with its unit; the command line's
help and `docs/configuration.md` are made from them. An unknown key is an error that names the
nearest known one.
"""

from typing import Annotated

from pydantic import Field, model_validator

from openrpt.config.corpus import CorpusConfig, ScoreConfig
from openrpt.config.evaluation import (
    CodingConfig,
    EvaluateConfig,
    ProbeConfig,
    SuiteConfig,
    WritingConfig,
    ZeroshotConfig,
)
from openrpt.config.model import MemoryConfig, ModelConfig
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
    memory: MemoryConfig = MemoryConfig()
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
