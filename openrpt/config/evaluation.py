"""What measures: `[evaluate]`, `[probe]`, `[writing]`, `[zeroshot]`, `[coding]`, `[suite]`."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from openrpt.config.prompt import PositionRule, TextTemplate
from openrpt.config.section import (
    MOST,
    MOST_SAMPLES,
    MOST_SECONDS,
    MOST_TOKENS,
    NOTHING,
    Binds,
    OptionalPath,
    PathText,
    Section,
    binds,
)


class EvaluateConfig(Section):
    """Next-token accuracy on held-out positions."""

    BINDS: ClassVar[Binds] = binds("label")

    split: Literal["train", "development", "heldout"] = Field("heldout", description="Which split")
    modes: list[Literal["ntp", "reasoning"]] = Field(
        ["ntp", "reasoning"], description="ntp: argmax of one pass; reasoning: think, then predict"
    )
    positions: int = Field(1024, ge=1, le=MOST, description="Most positions evaluated")
    positions_per_document: int = Field(
        64, ge=1, le=MOST_TOKENS, description="Most positions of one document"
    )
    min_entropy: float = Field(
        0.5, ge=0, description="Least full entropy of the scorer at a position, in nats; 0 = all"
    )
    where: PositionRule = Field(
        "",
        description="Only where this rule says so, too, as selection.where: before:REGEX,"
        " class:computed or another class of tokens, offsets; '' = everywhere",
    )
    extra_where: Annotated[PositionRule, NOTHING] = Field(
        "",
        description="Behind each evaluation a second one where this rule says so, too, recorded"
        " under a label of its own: enough positions of a rare class; '' = none",
    )
    extra_positions: Annotated[int, NOTHING] = Field(
        256, ge=1, le=MOST, description="Most positions of the second one"
    )
    samples: int = Field(
        0,
        ge=0,
        le=MOST_SAMPLES,
        description="Samples a position (mean@k, pass@k, majority); 0 = greedy",
    )
    temperature: float = Field(1.0, ge=0.001, le=100, description="Temperature of the samples")
    controls: Annotated[list[Literal["emptied", "cut", "swapped", "ntp_voting"]], NOTHING] = Field(
        [],
        description="Beside the real thought: the thought emptied, cut at half, swapped with"
        " another position's; ntp_voting: NTP's majority at equal inference FLOPs",
    )
    likelihood: Annotated[bool, NOTHING] = Field(
        False,
        description="Also the negative log-likelihood of the true token, with and without a"
        " thought, and their difference, the information gain",
    )
    templates: Annotated[list[TextTemplate], NOTHING] = Field(
        [], description="Prompt templates evaluated one after another, in place of prompt.template"
    )


class ProbeConfig(Section):
    """Linear probes on hidden states; the split is [evaluate]'s."""

    BINDS: ClassVar[Binds] = NOTHING

    targets: list[Literal["token", "next", "answer"]] = Field(
        ["token", "next", "answer"],
        description="Read from a state: the class of the token read last, of the next one, and how"
        " far off the final answer is",
    )
    positions: int = Field(
        4000, ge=1, le=MOST, description="Most positions, training and test together"
    )
    positions_per_document: int = Field(
        32, ge=1, le=MOST_TOKENS, description="Most positions of one document"
    )
    layers: int = Field(
        9,
        ge=0,
        le=1000,
        description="Layers probed, evenly from the embeddings to the last; 0 = all",
    )
    test_fraction: float = Field(
        0.4, gt=0, lt=1, description="Share of the documents on which probes are tested"
    )
    min_examples: int = Field(
        10,
        ge=2,
        le=MOST,
        description="A class with fewer training positions is left out, and named",
    )
    answer_mark: str = Field(
        "\\boxed{",
        description="answer: what stands before a document's final answer; the last one counts"
        " ('####' for GSM8K)",
    )


class WritingConfig(Section):
    """Completions of held-out texts beside the real ones; the split is [evaluate]'s."""

    BINDS: ClassVar[Binds] = NOTHING

    documents: int = Field(
        100, ge=1, le=MOST, description="Most documents that are completed, once each"
    )
    prefix_tokens: int = Field(
        64, ge=1, le=MOST_TOKENS, description="What is given of a document, in tokens of the scores"
    )
    completion_tokens: int = Field(
        128,
        ge=4,
        le=MOST_TOKENS,
        description="Tokens of a completion at most, and of the real continuation beside it",
    )
    temperature: float = Field(1.0, ge=0, le=100, description="Temperature of sampling; 0 = greedy")
    features: OptionalPath = Field(
        "", description="Frozen model whose states are the features; '' = the run's start model"
    )


class ZeroshotConfig(Section):
    """End tasks through lm-eval, answered directly and after a thought."""

    BINDS: ClassVar[Binds] = NOTHING

    tasks: list[PathText] = Field(
        ["mmlu_pro", "supergpqa"],
        description="mmlu_pro, supergpqa, mmlu, arc, gsm8k, math, from the Hub, or each as"
        " NAME=PATH from a .jsonl or .parquet file; 'lm-eval:NAME': a task of lm-eval's own",
    )
    modes: list[Literal["direct", "think"]] = Field(
        ["direct", "think"],
        description="direct: the most likely letter, or an answer at once; think: a thought first",
    )
    questions_per_category: int = Field(
        0,
        ge=0,
        le=MOST,
        description="Most questions of each category (of a task, where it has none); 0 = all; the"
        " paper took 200",
    )
    think_budget: int = Field(
        256,
        ge=0,
        le=MOST_TOKENS,
        description="Tokens of thought before the close is forced; 0 = closed at once; the paper"
        " allowed 12288",
    )
    answer_budget: int = Field(
        32,
        ge=2,
        le=MOST_TOKENS,
        description="Tokens of a generated answer, the end of turn included",
    )
    samples: int = Field(
        0,
        ge=0,
        le=MOST_SAMPLES,
        description="Samples a generated answer (mean@k, pass@k); 0 = greedy",
    )
    temperature: float = Field(
        0.8, ge=0.001, le=100, description="Temperature of the samples; the paper's is 0.8"
    )


class CodingConfig(Section):
    """Functions to be written, and whether they may be run."""

    BINDS: ClassVar[Binds] = NOTHING

    path: PathText = Field(
        "examples",
        description="'examples' (eight small tasks that come along), a .jsonl or .parquet file with"
        " HumanEval's fields, or 'datasets:NAME[:CONFIG[:SPLIT]]'",
    )
    run_code: bool = Field(
        False,
        description="Run what the model wrote, walled in (Linux only); off: only write it",
    )
    samples: int = Field(
        0, ge=0, le=MOST_SAMPLES, description="Samples a task, for pass@k; 0 = greedy"
    )
    temperature: float = Field(0.2, ge=0.001, le=100, description="Temperature of the samples")
    think_budget: int = Field(
        0, ge=0, le=MOST_TOKENS, description="Tokens of thought before the code; 0 = none"
    )
    max_tokens: int = Field(384, ge=8, le=MOST_TOKENS, description="Tokens of the code")
    timeout: float = Field(
        10.0, gt=0, le=MOST_SECONDS, description="Seconds that a program may run"
    )
    memory_mib: int = Field(
        1024, ge=64, le=1_048_576, description="Address space of a program, in MiB"
    )


class SuiteConfig(Section):
    """What one command measures, each part by its own section."""

    BINDS: ClassVar[Binds] = NOTHING

    parts: list[Literal["zeroshot", "coding", "reasoning"]] = Field(
        ["zeroshot", "coding", "reasoning"],
        description="zeroshot and coding: as those commands; reasoning: the held-out [questions],"
        " answered as finetune answers them, without training",
    )
