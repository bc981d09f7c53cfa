"""`[questions]`, `[answers]` and `[finetune]`: questions with verifiable answers."""

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from openrpt.config.section import (
    MOST,
    MOST_SAMPLES,
    MOST_SECONDS,
    MOST_TOKENS,
    Binds,
    PathText,
    Section,
    binds,
)


class QuestionsConfig(Section):
    """Questions with verifiable answers, and on which side of the split each stands."""

    BINDS: ClassVar[Binds] = binds("finetune")

    path: PathText = Field(
        "reasoning-gym:chain_sum,leg_counting",
        description="A .jsonl or .parquet file, a folder of them, 'datasets:NAME[:CONFIG[:SPLIT]]'"
        " or 'reasoning-gym:TASK[,TASK…]', where TASK@LEVEL or TASK@FIRST-LAST is of its"
        " curriculum's levels",
    )
    question: str = Field("question", description="Field that holds the question")
    answer: str = Field("answer", description="Field that holds the true answer")
    answer_after: str = Field(
        "",
        description="Only what follows the last of these characters is the answer ('####' for"
        " GSM8K); '' = the whole field",
    )
    generated: int = Field(
        500, ge=1, le=100_000, description="reasoning-gym: questions of each task"
    )
    limit: int = Field(0, ge=0, le=MOST, description="Read at most this many questions; 0 = all")
    heldout_fraction: float = Field(
        0.2, gt=0, lt=1, description="Share of questions held out, for before and after"
    )
    development_fraction: float = Field(
        0.1, ge=0, lt=1, description="Share of questions for evaluation during training"
    )
    near_duplicates: bool = Field(
        True,
        description="Keep questions that share 13 words in a row on one side of the split; off for"
        " a file whose questions are made from one template",
    )

    @model_validator(mode="after")
    def _leaves_training_data(self) -> "QuestionsConfig":
        if self.heldout_fraction + self.development_fraction >= 1:
            raise ValueError("heldout_fraction + development_fraction must be below 1")
        return self


class AnswersConfig(Section):
    """How the final answer is found in a completion, and checked."""

    BINDS: ClassVar[Binds] = binds("finetune")

    check: Literal["auto", "math", "exact", "reasoning_gym"] = Field(
        "auto",
        description="math (math-verify: 1/2 = 0.5), exact (the same characters), reasoning_gym"
        " (the task's own scorer), auto (reasoning_gym for its tasks, else math)",
    )
    opening: str = Field(
        "\\boxed{", description="What stands before the final answer; the last one counts"
    )
    closing: str = Field("}", description="What stands after it; braces are balanced")
    timeout: float = Field(
        5.0,
        gt=0,
        le=MOST_SECONDS,
        description="math: seconds for one check; what takes longer is wrong",
    )

    @model_validator(mode="after")
    def _marks_an_answer(self) -> "AnswersConfig":
        if not (self.opening and self.closing):
            raise ValueError("opening and closing must not be empty")
        return self


class FinetuneConfig(Section):
    """Reinforcement fine-tuning on questions; all that is not here is [train]'s, [optim]'s and
    [memory]'s."""

    BINDS: ClassVar[Binds] = binds("finetune")

    questions_per_step: int = Field(16, ge=1, le=MOST_SAMPLES, description="Questions in a step")
    question_tokens: int = Field(
        512,
        ge=8,
        le=MOST_TOKENS,
        description="Longer questions are left out, in tokens of the policy",
    )
    think_budget: int = Field(
        256,
        ge=0,
        le=MOST_TOKENS,
        description="Free tokens of thought before the close is forced; 0 = no thought",
    )
    answer_budget: int = Field(
        32,
        ge=2,
        le=MOST_TOKENS,
        description="Tokens after the thought's end, the end of turn included",
    )
    eval_questions: int = Field(
        200, ge=1, le=MOST, description="Most held-out questions evaluated before and after"
    )
    eval_samples: int = Field(
        0,
        ge=0,
        le=MOST_SAMPLES,
        description="Samples a question (mean@k, pass@k) before and after; 0 = greedy",
    )
    eval_temperature: float = Field(
        0.6, ge=0.001, le=100, description="Temperature of these samples"
    )
