"""Where a seed of an experiment stands, and the configuration of each of its runs: a laboratory's
world, or real text."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from openrpt.config.loading import load_config, with_overrides
from openrpt.config.queries import split_query
from openrpt.config.sections import Config
from openrpt.data.made_corpora import is_made
from openrpt.data.worlds.reading import open_world
from openrpt.data.worlds.world import World
from openrpt.experiments.answers.experiment import Arm, Size
from openrpt.experiments.lab.lab import Lab, LabSeed

_PROBLEMS = "problems"
QUESTIONS = "questions.jsonl"
TRACES = "traces.jsonl"


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What an arm goes on from."""

    start: str = ""
    """The model of the seed's start; empty before that is made."""
    model: str = ""
    """The model that the arm goes on from; empty: random weights, or the recipe's own model."""
    flops: float = 0.0
    """The FLOPs that it is trained for; 0 = as long as the size says."""
    steps: int = 0
    """The steps that these come to, where the stage has no budget of FLOPs."""


class Ground(Protocol):
    """A seed of an experiment at one size; everything lies below `folder`."""

    @property
    def size(self) -> Size:
        """The budget."""

    @property
    def folder(self) -> Path:
        """The seed's folder."""

    def problems(self, start: str) -> Config:
        """Returns the configuration of the run that holds the scores of the text to reinforce on,
        and the evaluations of all arms."""

    def config(self, arm: Arm, origin: Origin) -> Config:
        """Returns the configuration of an arm's run, which lies in `folder`/NAME."""

    @property
    def world(self) -> World | None:
        """The laboratory's world; None on real text."""

    @property
    def scored_by_start(self) -> bool:
        """Whether the start is made before the scores, since it is the scorer."""


def ground_of(size: Size, folder: Path, seed: int) -> Ground:
    """Returns the ground of a seed at a size, in `folder`/seed-N."""
    if size.recipe:
        return TextGround(size=size, folder=folder / f"seed-{seed}", seed=seed)
    changes = {"model.threads": 1, **size.changes}
    lab = Lab(folder=folder, world=size.world, documents=size.documents, changes=changes)
    return LabGround(size=size, lab=lab.at(seed))


@dataclass(frozen=True, kw_only=True)
class LabGround:
    """A seed in a laboratory."""

    size: Size
    lab: LabSeed

    @property
    def folder(self) -> Path:
        """The seed's folder."""
        return self.lab.folder

    @property
    def world(self) -> World:
        """The laboratory's world."""
        return self.lab.lab.opened

    scored_by_start = True

    def problems(self, start: str) -> Config:
        """Returns the configuration of reinforcement on plain lines, with the problems that every
        arm is measured on."""
        base = self.lab.rpt(start or self.lab.model())
        return with_overrides(base, {"run": str(self.folder / _PROBLEMS), "score.model": start})

    def config(self, arm: Arm, origin: Origin) -> Config:
        """Returns the configuration of an arm: its stage on the world's text."""
        values: dict[str, Any] = {"run": str(self.folder / arm.name)}
        if arm.stage == "pretrain":
            base, more = self._text(arm, origin)
        else:
            base, more = self.lab.rpt(origin.model), {"score.model": origin.start}
            more["train.steps"] = origin.steps or _steps(base.train.steps, arm.share)
        if arm.stage == "finetune":
            more |= self._questions(base)
        if arm.stage == "train" and arm.world:
            more["corpus.path"] = f"{base.corpus.path}&{arm.world}"
        return with_overrides(base, values | more | dict(arm.changes) | dict(arm.asked))

    def _text(self, arm: Arm, origin: Origin) -> tuple[Config, dict[str, Any]]:
        """Returns plain training on the world's text: the configuration and what is other in it."""
        base, shares, seed = self.lab.text(), arm.world or self.lab.lab.recipe.shares, self.lab.seed
        if origin.model:
            corpus = self.lab.corpus(shares, seed=seed + 2, share=10)
            more: dict[str, Any] = {"model.path": origin.model, "pretrain.learning_rate": 1e-3}
        else:
            corpus = self.lab.corpus(shares, seed=seed)
            more = {"model.path": self.lab.model(width=arm.width)}
        budget = {"pretrain.flops": origin.flops} if origin.flops else {}
        steps = {"pretrain.steps": _steps(base.pretrain.steps, arm.share)}
        return base, more | {"corpus.path": corpus} | steps | budget

    def _questions(self, base: Config) -> dict[str, Any]:
        """Returns what asks the world's problems as questions: on the same side of the split as
        their lines are in the corpus, since that is by the same text."""
        world = self.world
        return {
            "questions.path": str(self.folder / QUESTIONS),
            "questions.near_duplicates": False,
            "questions.heldout_fraction": base.corpus.heldout_fraction,
            "questions.development_fraction": 0.0,
            "answers.check": "exact",
            "prompt.instruction": "",
            "finetune.questions_per_step": base.train.documents,
            "finetune.question_tokens": 2 * world.width + 40,
            "finetune.think_budget": base.prompt.think_budget,
            "finetune.answer_budget": base.prompt.prediction_budget,
            "finetune.eval_questions": base.evaluate.positions,
        }

    def question_rows(self) -> list[dict[str, str]]:
        """Returns the world's problems as questions with their answers, none twice: those that are
        deeper than any worked line."""
        lines = open_world(self.lab.corpus("worked=0&filler=0", seed=self.lab.seed + 3, share=10))
        found = {
            text.problem: text.answer for text in lines.texts() if text.depth > self.world.shown
        }
        return [{"question": problem, "answer": answer} for problem, answer in found.items()]


@dataclass(frozen=True, kw_only=True)
class TextGround:
    """A seed on real text: a recipe's configuration. Where the recipe's warmup is given thoughts,
    they are the calculator's, in `folder`/traces.jsonl."""

    size: Size
    folder: Path
    seed: int

    world = None
    scored_by_start = False

    def problems(self, start: str) -> Config:
        """Returns the recipe's configuration, whose scorer reads the corpus."""
        base = self._config({"run": str(self.folder / _PROBLEMS)})
        return with_overrides(base, {"score.model": base.score.model or base.model.path})

    def config(self, arm: Arm, origin: Origin) -> Config:
        """Returns the configuration of an arm: the recipe's, with the arm's changes."""
        base = self._config({"run": str(self.folder / arm.name)})
        more: dict[str, Any] = {"score.model": self.problems(origin.start).score.model}
        if origin.model:
            more["model.path"] = origin.model
        if arm.stage == "pretrain" and origin.flops:
            more["pretrain.flops"] = origin.flops
        if arm.stage in ("train", "finetune"):
            more["train.steps"] = origin.steps or _steps(base.train.steps, arm.share)
        return with_overrides(base, more | dict(arm.text) | dict(arm.changes) | dict(arm.asked))

    def _config(self, more: Mapping[str, Any]) -> Config:
        overrides = {"seed": self.seed, **self.size.changes, **more}
        base = load_config(self.size.recipe, overrides=overrides)
        own = {"corpus.path": _counted_on(base.corpus.path, self.seed)}
        if base.warmup.traces:
            own["warmup.traces"] = str(self.folder / TRACES)
        return with_overrides(base, own)


def _counted_on(corpus: str, seed: int) -> str:
    """Returns a corpus that is made at run time with so much added to its own seed: each seed has
    other documents. Files are read as they are.

    >>> _counted_on("bills?documents=30&seed=10", 1)
    'bills?documents=30&seed=11'
    """
    if not is_made(corpus):
        return corpus
    head, values = split_query(corpus)
    values["seed"] = str(int(values.get("seed", "0")) + seed)
    return f"{head}?{'&'.join(f'{key}={value}' for key, value in values.items())}"


def _steps(whole: int, share: float) -> int:
    return max(1, round(whole * share))
