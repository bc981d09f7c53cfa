"""`[prompt]` and `[selection]`: which positions are asked for, and how."""

import re
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from openrpt.config.examples import Examples
from openrpt.config.parts import PartName
from openrpt.config.section import MOST, MOST_TOKENS, Binds, Section, binds

TOKEN_CLASSES = (
    "word start",
    "inside a word",
    "number",
    "operator",
    "LaTeX command",
    "punctuation",
    "whitespace",
    "other",
)
"""What `openrpt.data.token_classes.token_class` gives."""
COMPUTED = "computed"
"""The class, beside these, of a token in which a computed number begins: it takes the document."""

_TEXT_TEMPLATES = ("minimal", "v0", "v6", "chat")
_TEMPLATE_PATH = "package.module:TEMPLATE"
TextTemplate = Annotated[
    str,
    AfterValidator(PartName(kind="template", known=_TEXT_TEMPLATES, path=_TEMPLATE_PATH)),
]
"""Templates of a position in a text."""
_Template = Annotated[
    str,
    AfterValidator(
        PartName(kind="template", known=(*_TEXT_TEMPLATES, "question"), path=_TEMPLATE_PATH)
    ),
]
"""Templates of a prompt, that of a question among them."""


def _known_rule(rule: str) -> str:
    kind, colon, value = rule.partition(":")
    if rule in ("", "offsets"):
        return rule
    if not colon or kind not in ("before", "class"):
        raise ValueError("a rule is before:REGEX, class:NAME or offsets")
    if kind == "class" and value not in (classes := (*TOKEN_CLASSES, COMPUTED)):
        raise ValueError(f"the classes are {', '.join(classes)}")
    if kind == "before":
        _require_expression(value)
    return rule


def _require_expression(pattern: str) -> None:
    if not pattern:
        raise ValueError("before: needs a regular expression behind it")
    try:
        re.compile(f"(?:{pattern})\\Z")
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"no regular expression: {error}") from None


PositionRule = Annotated[str, AfterValidator(_known_rule)]
"""A rule by which positions are taken (`openrpt.data.where`); '' = everywhere."""


_ASKED = binds("warmup", "train", "finetune", "evaluation")
"""The binding of the keys that a question is laid out by, too."""


class PromptConfig(Section):
    """How a position becomes a prompt, and how a completion is laid out."""

    BINDS: ClassVar[Binds] = binds("warmup", "train", "evaluation")

    template: _Template = Field(
        "minimal",
        description="minimal (no instruction), v0 and v6 (the paper's shapes), chat (short),"
        " question (the text is a question; what finetune uses), or two texts of yours"
        " (docs/own_parts.md)",
    )
    instruction: Annotated[str, _ASKED] = Field(
        "Reason step by step, then give the final answer inside \\boxed{}.",
        description="question: what is asked after the question; in a template of yours, what"
        " stands for {instruction}",
    )
    chat_template: Annotated[Literal["auto", "on", "off"], _ASKED] = Field(
        "auto",
        description="Wrap the template in the tokenizer's chat template; auto = if it has"
        " one and the template is not minimal",
    )
    examples: Annotated[Examples, _ASKED] = Field(
        (),
        description="File of examples of thoughts (docs/traces.md) that stand before the text, or"
        " what it held; '' = none",
    )
    window: Annotated[int, binds("score", "warmup", "train", "evaluation")] = Field(
        512, ge=8, le=MOST_TOKENS, description="Longest prefix, in tokens"
    )
    min_context: Annotated[int, binds("score", "warmup", "train", "evaluation")] = Field(
        16, ge=1, le=MOST_TOKENS, description="Least prefix that a position has, in tokens"
    )
    thought_start: Annotated[str, _ASKED] = Field("<think>", description="What opens the thought")
    thought_end: Annotated[str, _ASKED] = Field("</think>", description="What closes the thought")
    answer_start: Annotated[str, _ASKED] = Field(
        "\n\\boxed{", description="What follows the thought's end; the box"
    )
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

    @property
    def is_seeded_by_start(self) -> bool:
        """Whether the start model's candidates seed the thought, not the policy's own."""
        return self.candidates > 0 and self.candidate_source == "start"

    @model_validator(mode="after")
    def _examples_end_where_they_say(self) -> Self:
        for number, example in enumerate(self.examples, 1):
            if self.thought_end and self.thought_end in example.thought + example.prediction:
                raise ValueError(
                    f"examples: {self.thought_end!r} in example {number} would end its thought"
                    " there"
                )
        return self


_STRATEGY = PartName(kind="strategy", known=("entropy", "random", "pass_rate"))
_CHOSEN = binds("warmup", "train", "pretrain", recorded=True)
_CHOSEN_BY_RULE = binds("warmup", "train", "pretrain", under=("warmup", "warmup.traces", ""))
"""A warmup with given thoughts imitates the model's own wherever there is none."""


class SelectionConfig(Section):
    """Which positions are trained on."""

    BINDS: ClassVar[Binds] = binds("warmup", "train", "pretrain")

    strategy: Annotated[str, AfterValidator(_STRATEGY), _CHOSEN] = Field(
        "entropy",
        description="entropy (the paper), random, pass_rate (a band), or weights by a function of"
        " yours (docs/own_parts.md)",
    )
    where: Annotated[PositionRule, _CHOSEN_BY_RULE] = Field(
        "",
        description="Only where this rule says so, too: before:REGEX (the text before ends with"
        " it), class:computed (a result of arithmetic in the text) or another class of tokens,"
        " offsets (corpus.offsets); '' = everywhere",
    )
    min_entropy: Annotated[float, _CHOSEN] = Field(
        0.5, ge=0, description="entropy: least top-16 entropy of the scorer, in nats"
    )
    pass_rate_low: Annotated[float, _CHOSEN] = Field(
        0.05,
        ge=0,
        le=1,
        description="pass_rate: least share of right rollouts (its last group's;"
        " before the first, the scorer's probability of the truth)",
    )
    pass_rate_high: Annotated[float, _CHOSEN] = Field(
        0.95, ge=0, le=1, description="pass_rate: greatest such share"
    )
    measure_again: float = Field(
        0.1,
        ge=0,
        le=1,
        description="pass_rate: share of a draw that goes to positions whose measured rate left the"
        " band, since the policy has changed meanwhile",
    )

    curriculum: Annotated[int, binds("train")] = Field(
        0,
        ge=0,
        le=MOST,
        description="train: begin with documents of so many kinds, the lowest (corpus.kind,"
        " numbers); the next kind opens whenever the open ones are mastered; 0 = all from the"
        " start",
    )
    curriculum_share: Annotated[float, binds("train")] = Field(
        0.8, gt=0, le=1, description="Share of right rollouts that opens the next kind"
    )
    curriculum_steps: Annotated[int, binds("train")] = Field(
        1,
        ge=1,
        le=1000,
        description="That share is the mean of so many last steps, all since the last opening",
    )
