"""Configuration: one section a concern, TOML plus `--section.key value` overrides.

Every key has a type, a range, a default and a description with its unit; the command line's
help and `docs/configuration.md` are made from them. An unknown key is an error that names the
nearest known one.
"""

import difflib
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from openrpt.config.algorithms import (
    ALGORITHMS,
    OVERRIDABLE,
    Aggregation,
    Algorithm,
    AlgorithmName,
    Estimator,
    ImportanceCorrection,
    Overlong,
    RatioLevel,
)
from openrpt.config.paths import require_path, require_path_or_none

MOST = 1_000_000_000
"""Of what only ends a loop that shows its progress and can be stopped: steps, documents, positions.
"""
MOST_TOKENS = 1_000_000
"""Of one sequence, and of its parts."""
MOST_SAMPLES = 10_000
"""Rollouts of one position or question: their draws are laid out at once."""
MOST_SECONDS = 86_400
MOST_CHARACTERS = 20_000
"""Of a text in the configuration."""
LONGEST_SHOWN = 200
"""Characters of a wrong value that its error shows."""

PathText = Annotated[str, AfterValidator(require_path)]
"""A file, a folder, or a name such as 'champ' or 'datasets:NAME' in its place."""
OptionalPath = Annotated[str, AfterValidator(require_path_or_none)]
REWARDS = (
    "prefix",
    "first_token",
    "dense",
    "conditional_dense",
    "length_weighted",
    "information_gain",
    "segment",
    "random",
)
"""The names that `reward.terms` knows, beside import paths (`package.module:function`)."""
JUDGES = ("exact", "fuzzy")
LARGEST_REWARD = 1e15
"""Beyond it, of either sign, a reward or its weight counts as not finite: its square, which the
advantages take, still is in float32."""


class Section(BaseModel):
    # With a bound on its length, pydantic also refuses a text that is not UTF-8.
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        protected_namespaces=(),
        str_max_length=MOST_CHARACTERS,
        allow_inf_nan=False,
    )


class ModelConfig(Section):
    """The policy, and how it is run."""

    path: PathText = Field(
        "smollm2",
        description="Policy: 'smollm2' (the default model), a folder, a .gguf file, a Hub id, or"
        " 'new:llama[?layers=2&width=64&heads=4&mlp=3&context=512&seed=0]', from scratch",
    )
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, mps")
    dtype: Literal["float32", "bfloat16", "float64"] = Field(
        "float32", description="Precision of weights and activations"
    )
    threads: int = Field(0, ge=0, description="CPU threads; 0 = all the cores this process may use")
    generator: Literal["tree", "flat"] = Field(
        "tree", description="tree shares a document's prefix; flat computes every prompt alone"
    )
    lora_rank: int = Field(
        0, ge=0, le=4096, description="Rank of LoRA adapters; 0 = full fine-tuning"
    )
    lora_alpha: int = Field(
        32, gt=0, le=1_000_000, description="LoRA scale numerator (alpha / rank)"
    )
    gradient_checkpointing: bool = Field(
        False, description="Recompute activations in the backward pass: less memory, more time"
    )
    trust_remote_code: bool = Field(False, description="Run model code that a repository ships")


class CorpusConfig(Section):
    """Where the documents come from, and on which side of the split each stands."""

    path: PathText = Field(
        "champ",
        description="'champ' (the default corpus), a .txt/.jsonl/.parquet file (the first two also"
        " as .gz), a folder of them, 'datasets:NAME[:CONFIG[:SPLIT]]', or 'lab:WORLD[?KEY=VALUE&…]'"
        " (docs/lab.md)",
    )
    template: str = Field(
        "{text}", description='Which fields make the text, e.g. "{problem}\\n\\n{solution}"'
    )
    key: str = Field(
        "", description="Field whose hash decides the split; '' = the template's first field"
    )
    kind: str = Field(
        "",
        description="Field that says what kind of document it is (a domain, a level), by which"
        " accuracy is broken down; of a list, the first; '' = none",
    )
    kind_levels: int = Field(
        0,
        ge=0,
        le=1000,
        description="Of a kind such as 'A -> B -> C' or 'A/B/C', keep so many; 0 = all",
    )
    separator: str = Field(
        "",
        description="What separates the documents of a .txt file (a line break in it stands for LF"
        " and CRLF); '' = contiguous blocks",
    )
    block_characters: int = Field(
        4000, ge=100, le=10_000_000, description="Length of a block of a .txt file, in characters"
    )
    heldout_fraction: float = Field(0.2, ge=0, lt=1, description="Share of documents held out")
    development_fraction: float = Field(
        0.1, ge=0, lt=1, description="Share of documents for evaluation during training"
    )
    min_tokens: int = Field(
        32, ge=2, le=MOST_TOKENS, description="Shorter documents are skipped, in tokens"
    )
    limit: int = Field(0, ge=0, le=MOST, description="Read at most this many documents; 0 = all")
    strict: bool = Field(
        False, description="Refuse a corpus that has an unusable document, instead of skipping it"
    )

    @model_validator(mode="after")
    def _leaves_training_data(self) -> "CorpusConfig":
        if self.heldout_fraction + self.development_fraction >= 1:
            raise ValueError("heldout_fraction + development_fraction must be below 1")
        return self


class ScoreConfig(Section):
    """The scorer's pass over the corpus."""

    model: OptionalPath = Field(
        "", description="Scorer, as model.path; '' = the policy's start model"
    )
    splits: list[Literal["train", "development", "heldout"]] = Field(
        ["train", "development", "heldout"], description="Which splits are scored"
    )
    max_tokens: int = Field(
        0,
        ge=0,
        le=1_000 * MOST,
        description="Stop after this many tokens in each split; 0 = the whole corpus",
    )
    shard_tokens: int = Field(
        100_000,
        ge=1000,
        le=100_000_000,
        description="Tokens a parquet shard holds, and what a restart can lose",
    )


TextTemplate = Literal["minimal", "v0", "v6", "chat"]
Template = Literal[TextTemplate, "question"]


class PromptConfig(Section):
    """How a position becomes a prompt, and how a completion is laid out."""

    template: Template = Field(
        "minimal",
        description="minimal (no instruction), v0 and v6 (the paper's shapes), chat (short),"
        " question (the text is a question; what finetune uses)",
    )
    instruction: str = Field(
        "Reason step by step, then give the final answer inside \\boxed{}.",
        description="question: what is asked after the question",
    )
    chat_template: Literal["auto", "on", "off"] = Field(
        "auto",
        description="Wrap the template in the tokenizer's chat template; auto = if it has"
        " one and the template is not minimal",
    )
    window: int = Field(512, ge=8, le=MOST_TOKENS, description="Longest prefix, in tokens")
    min_context: int = Field(
        16, ge=1, le=MOST_TOKENS, description="Least prefix that a position has, in tokens"
    )
    thought_start: str = Field("<think>", description="What opens the thought")
    thought_end: str = Field("</think>", description="What closes the thought")
    answer_start: str = Field("\n\\boxed{", description="What follows the thought's end; the box")
    answer_end: str = Field("}", description="What closes the box")
    candidates: int = Field(
        3,
        ge=0,
        le=1000,
        description="Candidates that seed the thought (k); 0 = an unseeded thought",
    )
    candidate_separator: str = Field(" |", description="What stands between two candidates")
    candidate_source: Literal["policy", "start"] = Field(
        "policy", description="Whose candidates: the current policy's or the frozen start model's"
    )
    think_budget: int = Field(
        0,
        ge=0,
        le=MOST_TOKENS,
        description="Free tokens of thought before the close is forced (0 = the seed is"
        " the whole thought)",
    )
    prediction_budget: int = Field(
        6,
        ge=2,
        le=MOST_TOKENS,
        description="Tokens after the thought's end, the box's end included",
    )


class SelectionConfig(Section):
    """Which positions are trained on."""

    strategy: Literal["entropy", "random", "pass_rate"] = Field(
        "entropy", description="entropy (the paper), random, pass_rate (a band)"
    )
    min_entropy: float = Field(
        0.5, ge=0, description="entropy: least top-16 entropy of the scorer, in nats"
    )
    pass_rate_low: float = Field(
        0.05,
        ge=0,
        le=1,
        description="pass_rate: least share of right rollouts (its last group's;"
        " before the first, the scorer's probability of the truth)",
    )
    pass_rate_high: float = Field(0.95, ge=0, le=1, description="pass_rate: greatest such share")
    measure_again: float = Field(
        0.1,
        ge=0,
        le=1,
        description="pass_rate: share of a draw that goes to positions whose measured rate left the"
        " band, since the policy has changed meanwhile",
    )


class WarmupConfig(Section):
    """The cold start: the form of a rollout, learned from the model itself."""

    target: Literal["self", "truth"] = Field(
        "self",
        description="Answers of the traces: the model's own prediction (form only) or the"
        " text's (supervised, and labelled so)",
    )
    steps: int = Field(24, ge=0, le=MOST, description="Optimizer steps")
    time_limit: float = Field(
        0.0, ge=0, description="Begin no step that would end after this many minutes; 0 = none"
    )
    documents_per_step: int = Field(2, ge=1, le=MOST_SAMPLES, description="Documents in a step")
    positions_per_document: int = Field(
        24, ge=1, le=MOST_TOKENS, description="Positions of a document in a step"
    )
    learning_rate: float = Field(1.5e-4, gt=0, le=1, description="Peak learning rate")
    schedule_steps: int = Field(4, ge=0, le=MOST, description="Steps of linear warm-up")
    answer_sharpness: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Seeded: weight of the first candidate in the answer's"
        " target; the rest is the candidates' renormalised probabilities",
    )
    form_weight: float = Field(
        0.5, ge=0, le=1e6, description="Weight of the box's end and the end of turn (answer = 1)"
    )
    draft_weight: float = Field(
        0.1,
        ge=0,
        le=1e6,
        description="Unseeded: weight of the drafted thought's tokens (answer = 1)",
    )
    draft_tokens: int = Field(
        8,
        ge=1,
        le=MOST_TOKENS,
        description="Unseeded: tokens of look-ahead that make a trace's thought",
    )
    tail_steps: int = Field(
        16,
        ge=0,
        le=MOST,
        description="Unseeded: steps of dense distillation of the tail, before the form",
    )
    text_kl_weight: float = Field(
        1.0,
        ge=0,
        le=1e6,
        description="Weight of KL(start || policy) on the plain text, nats a token",
    )
    ntp_weight: float = Field(
        0.0,
        ge=0,
        le=1e6,
        description="Weight of plain next-token loss on the text, nats a token (makes"
        " the warmup supervised; labelled so)",
    )


class RewardConfig(Section):
    """What training rewards (docs/rewards.md); evaluation always grades by prefix match."""

    terms: dict[str, float] = Field(
        {"prefix": 1.0},
        description="Rewards and their weights, which are summed (a weight of 0 only measures): "
        + ", ".join(REWARDS)
        + ", or a function of yours as package.module:function",
    )
    on_error: Literal["stop", "zero"] = Field(
        "stop", description="A reward that raises or is no finite number: stop, or count it as 0"
    )
    length_bonus: float = Field(
        0.5, ge=0, description="length_weighted: what any number of further tokens earns at most"
    )
    information_tokens: int = Field(
        1,
        ge=1,
        le=MOST_TOKENS,
        description="information_gain: true next tokens whose log-probability counts",
    )
    baseline_decay: float = Field(
        0.999,
        ge=0,
        le=1,
        description="information_gain: what the baseline, a moving average of the policy, keeps of"
        " itself in a step",
    )
    segment_judge: str = Field(
        "exact",
        description="segment: exact, fuzzy (both on normalised text), or a function of yours as"
        " package.module:function",
    )
    segment_threshold: float = Field(
        0.8,
        ge=0,
        le=1,
        description="segment, fuzzy: likeness from which on it is a match; 0 = the likeness itself"
        " is the reward",
    )
    random_probability: float = Field(
        0.5, ge=0, le=1, description="random: probability of a reward of 1, else 0"
    )

    @field_validator("terms")
    @classmethod
    def _terms_are_known(cls, terms: dict[str, float]) -> dict[str, float]:
        for name, weight in terms.items():
            _require_known(name, REWARDS, "reward")
            if not abs(weight) <= LARGEST_REWARD:
                raise ValueError(
                    f"the weight of '{name}' must be at most {LARGEST_REWARD:g}, of either sign"
                )
        if not any(terms.values()):
            raise ValueError("at least one reward must have a weight other than 0")
        return terms

    @field_validator("segment_judge")
    @classmethod
    def _judge_is_known(cls, judge: str) -> str:
        _require_known(judge, JUDGES, "judge")
        return judge


def _require_known(name: str, known: tuple[str, ...], kind: str) -> None:
    """A name that is known, or the import path of a user's function."""
    if name in known or ":" in name:
        return
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    hint = f"nearest: '{nearest[0]}'" if nearest else f"one of {', '.join(known)}"
    raise ValueError(f"unknown {kind} '{name}'; {hint}, or package.module:function")


class TrainConfig(Section):
    """Reinforcement on the document tree."""

    steps: int = Field(200, ge=0, le=MOST, description="Optimizer steps")
    time_limit: float = Field(
        0.0, ge=0, description="Begin no step that would end after this many minutes; 0 = none"
    )
    documents_per_step: int = Field(4, ge=1, le=MOST_SAMPLES, description="Documents in a step")
    positions_per_document: int = Field(
        16, ge=1, le=MOST_TOKENS, description="Positions of a document in a step"
    )
    group_size: int = Field(8, ge=1, le=MOST_SAMPLES, description="Rollouts of a position")
    microbatch_tokens: int = Field(
        512,
        ge=1,
        le=MOST,
        description="Completion tokens run forward and backward at once: memory, never results",
    )
    generation_rollouts: int = Field(
        256, ge=1, le=MOST, description="Rollouts decoded at once: memory, never results"
    )
    temperature: float = Field(
        1.0, ge=0.001, le=100, description="Sampling temperature (the loss uses it too)"
    )
    algorithm: AlgorithmName = Field(
        "grpo",
        description="A recipe of advantage, loss, clips and sampling (docs/algorithms.md); the"
        " keys that say 'auto' override single pieces of it",
    )
    advantage: Literal["auto", Estimator] = Field("auto", description="Advantage estimator")
    aggregation: Literal["auto", Aggregation] = Field(
        "auto",
        description="What the sum over tokens is divided by: the step's tokens, each rollout's"
        " own and then the rollouts, or the rollouts times the longest possible length",
    )
    ratio_level: Literal["auto", RatioLevel] = Field(
        "auto", description="The ratio of a token, or the geometric mean over the rollout (GSPO)"
    )
    clip_low: Annotated[float, Field(ge=0, le=1)] | Literal["auto"] = Field(
        "auto", description="The ratio is clipped below 1 − this; 1 = not at all"
    )
    clip_high: Annotated[float, Field(ge=0)] | Literal["auto"] = Field(
        "auto", description="The ratio is clipped above 1 + this"
    )
    pass_at_k: int = Field(
        2,
        ge=1,
        le=MOST_SAMPLES,
        description="pass_at_k: rollouts of which the best counts (k), at most group_size",
    )
    overlong: Literal["auto", Overlong] = Field(
        "auto",
        description="Completions that do not stop: kept as they are, left out of their group"
        " (mask), or a length penalty on the reward, from 0 down to -1",
    )
    overlong_buffer: float = Field(
        0.2,
        gt=0,
        le=1,
        description="overlong penalty: the last share of the longest possible completion,"
        " over which it grows",
    )
    importance_correction: ImportanceCorrection = Field(
        "off",
        description="For a sampler other than the trainer: weigh tokens by trainer / sampler"
        " probability, cut (truncate) or dropped outside a band (token_mask, sequence_mask); costs"
        " a forward pass",
    )
    importance_min: float = Field(
        0.5, ge=0, description="Masks: tokens or rollouts of a lower weight are dropped"
    )
    importance_max: float = Field(
        2.0, gt=0, description="Greatest weight: cut there (truncate) or dropped beyond (masks)"
    )
    updates_per_batch: int = Field(
        1, ge=1, le=1000, description="Optimizer updates on one batch of rollouts; 1 = on-policy"
    )
    entropy_weight: float = Field(
        0.0, ge=0, le=1e6, description="Weight of the entropy bonus, nats"
    )
    kl_weight: float = Field(
        0.0, ge=0, le=1e6, description="Weight of KL(policy || start of this stage), nats a token"
    )
    ntp_weight: float = Field(
        0.5,
        ge=0,
        le=1e6,
        description="Weight of the plain next-token loss on the prefix, nats a token",
    )
    dynamic_sampling_from: Annotated[int, Field(ge=0)] | Literal["auto", "never"] = Field(
        "auto",
        description="From this step on, flat groups are replaced by others; auto: from the first"
        " under dapo, never under the others",
    )
    dynamic_sampling_rounds: int = Field(
        3, ge=1, le=1000, description="Most rounds of generation a step with dynamic sampling"
    )
    learning_rate: float = Field(2e-5, gt=0, le=1, description="Peak learning rate")
    schedule_steps: int = Field(
        5, ge=0, le=MOST, description="Steps of linear warm-up; then constant"
    )
    weight_decay: float = Field(0.01, ge=0, le=1, description="AdamW's decoupled weight decay")
    adam_beta1: float = Field(0.9, ge=0, lt=1, description="AdamW's first decay")
    adam_beta2: float = Field(0.99, ge=0, lt=1, description="AdamW's second decay")
    max_grad_norm: float = Field(1.0, gt=0, le=1e9, description="Gradient clipping, global L2 norm")
    on_nonfinite: Literal["stop", "skip"] = Field(
        "stop",
        description="A gradient that is not finite, in train, warmup, pretrain and finetune: stop,"
        " or leave the update out (skip), say where it came from and go on",
    )
    nonfinite_limit: int = Field(
        3, ge=1, description="skip: stop after so many steps in a row whose update was left out"
    )
    eval_every: int = Field(
        20, ge=0, le=MOST, description="Steps between development evaluations; 0 = never"
    )
    eval_positions: int = Field(
        256, ge=1, le=MOST, description="Positions of a development evaluation"
    )
    checkpoint_every: int = Field(20, ge=1, le=MOST, description="Steps between checkpoints")
    checkpoint_minutes: float = Field(
        10.0, gt=0, description="A checkpoint is written at least this often, in minutes"
    )
    checkpoints_kept: int = Field(
        2, ge=1, le=MOST, description="Latest checkpoints kept (and the best one)"
    )

    def recipe(self) -> Algorithm:
        """The algorithm that is named, with the pieces that other keys override."""
        pieces = {name: getattr(self, name) for name in OVERRIDABLE}
        given = {name: piece for name, piece in pieces.items() if piece != "auto"}
        if self.dynamic_sampling_from == "never":
            given["dynamic_sampling_from"] = None
        return replace(ALGORITHMS[self.algorithm], **given)

    @model_validator(mode="after")
    def _pieces_fit(self) -> "TrainConfig":
        masks = self.importance_correction in ("token_mask", "sequence_mask")
        if masks and self.importance_min >= self.importance_max:
            raise ValueError("importance_min must be below importance_max")
        algorithm = self.recipe()
        if algorithm.advantage == "pass_at_k" and self.pass_at_k > self.group_size:
            raise ValueError("pass_at_k must be at most group_size")
        if algorithm.overlong == "penalty" and algorithm.advantage in ("maxrl", "pass_at_k"):
            raise ValueError(
                f"advantage {algorithm.advantage} needs rewards of at least 0, which the overlong"
                " penalty breaks: use overlong = mask"
            )
        return self


class PretrainConfig(Section):
    """Plain next-token training: the control for RPT, and a trainer in its own right."""

    steps: int = Field(200, ge=0, le=MOST, description="Optimizer steps, where match is empty")
    time_limit: float = Field(0.0, ge=0, description="Stop after this many minutes; 0 = none")
    match: OptionalPath = Field(
        "", description="Run folder whose training this is a control for; '' = none"
    )
    match_by: Literal["documents", "flops", "time"] = Field(
        "documents",
        description="What of that run is taken: documents (its windows, in its order and steps;"
        " the selected positions are its own), flops or time (its total, warmup included)",
    )
    tokens: Literal["full", "selected"] = Field(
        "full", description="Trained tokens: full (all), selected (where selection.strategy passes)"
    )
    tokens_per_step: int = Field(
        2048,
        ge=1,
        le=MOST,
        description="Least tokens of text run in a step (whole pieces are taken)",
    )
    sequence_length: int = Field(
        512,
        ge=8,
        le=MOST_TOKENS,
        description="Longer documents are cut into even pieces of at most this, in tokens",
    )
    microbatch_tokens: int = Field(
        2048, ge=1, le=MOST, description="Tokens packed into one pass: memory, never results"
    )
    learning_rate: float = Field(1e-5, gt=0, le=1, description="Peak learning rate")
    schedule: Literal["cosine", "constant"] = Field(
        "cosine", description="After the warm-up: half a cosine to 0 over the whole, or constant"
    )
    schedule_steps: int = Field(5, ge=0, le=MOST, description="Steps of linear warm-up")
    eval_every: int = Field(
        20, ge=0, le=MOST, description="Steps between development evaluations; 0 = never"
    )
    eval_tokens: int = Field(
        10_000, ge=1, le=MOST, description="Least tokens of a development evaluation's perplexity"
    )
    checkpoint_every: int = Field(20, ge=1, le=MOST, description="Steps between checkpoints")


class EvaluateConfig(Section):
    """Next-token accuracy on held-out positions."""

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
    samples: int = Field(
        0,
        ge=0,
        le=MOST_SAMPLES,
        description="Samples a position (mean@k, pass@k, majority); 0 = greedy",
    )
    temperature: float = Field(1.0, ge=0.001, le=100, description="Temperature of the samples")
    controls: list[Literal["emptied", "cut", "swapped", "ntp_voting"]] = Field(
        [],
        description="Beside the real thought: the thought emptied, cut at half, swapped with"
        " another position's; ntp_voting: NTP's majority at equal inference FLOPs",
    )
    likelihood: bool = Field(
        False,
        description="Also the negative log-likelihood of the true token, with and without a"
        " thought, and their difference, the information gain",
    )
    templates: list[TextTemplate] = Field(
        [], description="Prompt templates evaluated one after another, in place of prompt.template"
    )


class ProbeConfig(Section):
    """Linear probes on hidden states; the split is [evaluate]'s."""

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


class QuestionsConfig(Section):
    """Questions with verifiable answers, and on which side of the split each stands."""

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
    """Reinforcement fine-tuning on questions; all that is not here is [train]'s."""

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


class ZeroshotConfig(Section):
    """End tasks through lm-eval, answered directly and after a thought."""

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

    parts: list[Literal["zeroshot", "coding", "reasoning"]] = Field(
        ["zeroshot", "coding", "reasoning"],
        description="zeroshot and coding: as those commands; reasoning: the held-out [questions],"
        " answered as finetune answers them, without training",
    )


class TrackConfig(Section):
    """Trackers that follow a run's stages; metrics.jsonl is written without any."""

    to: list[Literal["tensorboard", "wandb", "trackio", "mlflow"]] = Field(
        [], description="Trackers, each an extra of its name: pip install 'openrpt[tensorboard]'"
    )
    project: str = Field("openrpt", description="Project or experiment that runs are filed under")
    rollouts_every: int = Field(20, ge=1, le=MOST, description="Steps between tables of rollouts")


class CostConfig(Section):
    """What an hour costs, and what the machine draws where it can't be measured."""

    price_per_hour: float = Field(
        0.0, ge=0, description="Price of the machine for an hour; 0 = unknown, no money is shown"
    )
    currency: str = Field("USD", description="Currency of that price, as it is printed")
    watts: float = Field(
        0.0,
        ge=0,
        description="Power at work where no counter can be read (RAPL, NVML), in watts; 0 = a"
        " guess: 65 on a CPU, 400 on a CUDA GPU",
    )


class Config(Section):
    """The whole pipeline; each stage reads its own section and those it shares."""

    seed: int = Field(0, ge=0, le=2**63 - 1, description="Seed of every random choice")
    run: PathText = Field("runs/default", description="Run folder: everything is written there")
    model: ModelConfig = ModelConfig()
    corpus: CorpusConfig = CorpusConfig()
    score: ScoreConfig = ScoreConfig()
    prompt: PromptConfig = PromptConfig()
    selection: SelectionConfig = SelectionConfig()
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


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except ValueError:  # Python writes no integer of more than 4300 digits
        return "a number of thousands of digits"
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}…"
