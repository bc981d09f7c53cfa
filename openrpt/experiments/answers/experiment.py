"""An experiment: a question, the arms that answer it, and what is said of what they measured.

The same experiment is run at five sizes. `smoke` and `cpu` are laboratories
(`openrpt.experiments.lab`): a world of text, tiny models from scratch. `text`, `gpu` and `paper`
take the same arms to sentences and a recipe. The size decides how much is run, nothing else.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from openrpt.errors import UserError, nearest
from openrpt.sheets import Sheet

if TYPE_CHECKING:
    from openrpt.experiments.answers.outcome import Outcome

START = "start"
"""The arm that every seed begins with: in a laboratory a model pre-trained from scratch on the
world's text, on real text the recipe's model after its warmup."""
ArmStage = Literal["pretrain", "warmup", "train", "finetune"]


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One way to train, from random weights or from another arm's model."""

    name: str
    what: str
    """What it does, as the page's set-up says it."""
    stage: ArmStage = "train"
    origin: str = START
    """The arm whose model it goes on from; empty: random weights (on real text: `model.path`)."""
    match: tuple[str, ...] = ()
    """The arms whose FLOPs, all together, it is trained for; empty: as long as the size says."""
    share: float = 1.0
    """The share of the size's steps that it takes."""
    world: str = ""
    """Laboratory: parameters of the world whose text it reads, after the recipe's own."""
    width: int = 0
    """Laboratory: the width of a model from random weights; 0 = the recipe's."""
    text: Mapping[str, Any] = field(default_factory=dict)
    """Real text: changes of the configuration that `world` and `width` stand for in a
    laboratory."""
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Changes of the configuration, by dotted keys."""
    asked: Mapping[str, Any] = field(default_factory=dict)
    """Changes that hold when it is measured, too."""
    series: str = ""
    """The line of the figure that it is on, where that has a line through several arms."""
    measured: bool = True


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much a budget runs."""

    name: str
    seeds: int
    recipe: str = ""
    """The configuration of a run on real text; empty: a laboratory."""
    world: str = "scan"
    """The laboratory's world."""
    documents: int = 60_000
    """The documents of the laboratory's text."""
    widths: tuple[int, ...] = (32, 64, 96, 128)
    """The model sizes of an experiment on size."""
    shares: tuple[float, ...] = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1, 2)
    """The budgets of an experiment on compute, as shares of the usual one."""
    thoughts: tuple[int, ...] = (0, 8, 16)
    """The think budgets of an experiment on them, in tokens."""
    rewards: tuple[str, ...] = ()
    """The arms of the experiment on rewards; empty: all."""
    most_arms: int = 1000
    """The most arms beside the start: the first ones."""
    starts: Mapping[str, str] = field(default_factory=dict)
    """Real text: models to begin with beside the recipe's own, by kind."""
    warmups: tuple[int, ...] = ()
    """Real text whose thoughts are given: steps of warmup to begin with beside the recipe's."""
    compared: str = "accuracy"
    """The measure that arms are compared by (a key of `outcome.MEASURES`)."""
    limits: tuple[str, ...] = ()
    """What no result at this size means."""
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Changes of every configuration."""


_SMALL = {
    "train.steps": 2,
    "train.documents_per_step": 2,
    "train.group_size": 4,
    "pretrain.steps": 20,
    "pretrain.tokens_per_step": 200,
    "evaluate.positions": 4,
}
_SENTENCES = {
    "corpus.path": "bills?documents=330&seed=10",  # no result has its documents (docs/LOG.md)
    "model.threads": 1,
    "model.compute_dtype": "bfloat16",  # not measured: seeds of several machines share a table
    "warmup.steps": 50,
    "warmup.time_limit": 0.0,
    "train.steps": 8,  # two seeds of five arms in some two hours of two cores
    "train.learning_rate": 1e-5,
    "train.eval_every": 0,
}
_LABORATORY = (
    "It is a laboratory: worlds of text made for it, models of some ten to hundred thousand"
    " weights. Whether it holds on text that people wrote is another question.",
)
_TEMPLATES = (
    "The sentences are natural ones, but a program makes them from a few templates, and each sum"
    " stands written out in them; the same sum may be among the held-out ones and the others."
    " Whether it holds on text that people wrote is another question.",
    "Thoughts are given at first, by a calculator: reinforcement goes on from right ones.",
    "The model has 135 million weights, and a run takes minutes.",
    "Two seeds tell large differences apart alone: Student's t has one degree of freedom.",
)
_TOLD_APART = ("prefix", "first_token", "span", "expected", "random")
"""The rewards that differ most where an answer is several tokens, and a coin."""
SIZES = {
    size.name: size
    for size in (
        Size(
            name="smoke",
            seeds=1,
            world="scan?depth=3&shown=1",
            documents=400,
            widths=(16,),
            most_arms=4,
            changes=_SMALL,
            limits=_LABORATORY,
        ),
        Size(name="cpu", seeds=5, limits=_LABORATORY),
        Size(
            name="text",
            seeds=2,
            recipe="recipe:demo",
            shares=(1 / 8, 1 / 4, 1 / 2, 1),
            thoughts=(0, 15, 30),
            rewards=_TOLD_APART,
            warmups=(10, 25),
            compared="span",
            limits=_TEMPLATES,
            changes=_SENTENCES,
        ),
        Size(
            name="gpu",
            seeds=2,
            recipe="recipe:paper-135m",
            thoughts=(0, 12, 48),
            starts={"base": "HuggingFaceTB/SmolLM2-135M"},
        ),
        Size(
            name="paper",
            seeds=2,
            recipe="recipe:paper",
            thoughts=(0, 512, 2048),
            starts={"base": "Qwen/Qwen2.5-14B", "chat": "Qwen/Qwen2.5-14B-Instruct"},
        ),
    )
}
"""The budgets by name."""


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One of the paper's experiments or open questions."""

    name: str
    question: str
    setting: str
    """What stands around the arms: what is equal among them, and why they are these."""
    text_setting: str = ""
    """The same on real text; empty: it is the same there."""
    arms: Callable[[Size], Sequence[Arm]]
    """The arms at a size, each behind those that it goes on from; the start is not among them."""
    baseline: str
    """The arm that the others are compared with."""
    measures: tuple[str, ...] = ("accuracy", "within", "beyond", "standard")
    """The columns of its table (keys of `outcome.MEASURES`)."""
    answer: Callable[["Outcome"], str]
    """A function that says what was found, from the intervals alone."""
    limits: Sequence[str]
    """What the result does not mean."""
    lab_limits: Sequence[str] = ()
    """What else it does not mean in a laboratory."""
    sheets: Callable[["Outcome"], list[Sheet]] = lambda outcome: []
    """Tables of its own."""
    over_flops: bool = False
    """Whether the figure has accuracy over training FLOPs; else an arm has a row of its own."""


def arms_of(experiment: Experiment, size: Size) -> list[Arm]:
    """Returns all arms of an experiment, the start first."""
    what = "the recipe's model and warmup" if size.recipe else "from scratch on the world's text"
    stage: ArmStage = "warmup" if size.recipe else "pretrain"
    start = Arm(name=START, what=what, stage=stage, origin="")
    return [start, *experiment.arms(size)[: size.most_arms]]


def size_named(name: str) -> Size:
    """Returns a budget. Raises UserError for an unknown one, which names the nearest."""
    if name not in SIZES:
        hint = nearest(name, SIZES, otherwise=f"there are: {', '.join(SIZES)}")
        raise UserError(f"--budget {name}: no such budget{hint}")
    return SIZES[name]
