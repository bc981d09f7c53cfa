"""A laboratory: its folders, and the configuration of each arm at each seed.

A model from scratch is pre-trained on a world's text, thoughts of all styles in it. From these
weights `train` reinforces thoughts on plain lines, and each arm goes on in another way: as many
steps of the same with one thing changed, or plain next-token training for as many FLOPs.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from openrpt.config.loading import load_config
from openrpt.config.sections import Config, PromptConfig
from openrpt.data.worlds.reading import open_world
from openrpt.data.worlds.world import BLANK, World
from openrpt.errors import UserError
from openrpt.experiments.control import Control
from openrpt.experiments.lab.recipes import Recipe, recipe_of
from openrpt.runs.run import Run

_PLAIN = "worked=0&filler=0"
TEXT_ARMS = {"ntp": "", "traces": "worked=1&filler=0"}
"""Plain next-token training from the same start, for RPT's FLOPs: the world's parameters."""
CONTROLS = ("random-reward", "no-thought")
"""The controls of `openrpt.experiments.controls` that are arms."""
ARMS = ("start", "rpt", *TEXT_ARMS, "deeper", *CONTROLS, "filler")
"""The arms, in the order in which they are evaluated and shown."""
LONGEST_FIRST = ("deeper", "random-reward", "filler", "no-thought", "traces", "ntp", "rpt", "start")
"""The arms in the order in which they begin, so that no long one is left for the end."""
_LAYERS, _DEEPER = 2, 8


@dataclass(frozen=True, kw_only=True)
class Lab:
    """The study of a world: everything lies in folders below `folder`."""

    folder: Path
    world: str
    """The world, as in `corpus.path`, behind `lab:`; without documents, shares and seed, which are
    set here."""
    seeds: Sequence[int] = (0,)
    """The seeds of texts, weights and draws: a whole comparison each, in `seed-N`."""
    changes: dict[str, Any] = field(default_factory=dict)
    """Changes of the configurations below, by dotted keys: for a smaller laboratory."""
    documents: int = 60_000
    """Documents of the text; of plain lines and of an arm's text a tenth."""

    @property
    def name(self) -> str:
        """The world's name, without parameters."""
        return self.world.partition("?")[0]

    @property
    def recipe(self) -> Recipe:
        """What this world needs."""
        return recipe_of(self.name)

    @property
    def opened(self) -> World:
        """The world, with the shares of the start's text. Raises UserError for one that is unknown
        or shows no thoughts."""
        world = open_world(self.corpus(self.recipe.shares))
        if not world.shown:
            raise UserError(f"lab:{self.world}: shown = 0 leaves nothing to start from; give more")
        return world

    def corpus(self, *queries: str) -> str:
        """Returns the world as `corpus.path`, with these parameters behind its own."""
        parts = [self.world.partition("?")[2], *queries]
        return f"lab:{self.name}?" + "&".join(filter(None, parts))

    def at(self, seed: int) -> "LabSeed":
        """Returns the comparison at one seed."""
        return LabSeed(lab=self, seed=seed)


@dataclass(frozen=True, kw_only=True)
class LabSeed:
    """The comparison at one seed: the configuration of each of its runs."""

    lab: Lab
    seed: int

    @property
    def folder(self) -> Path:
        """The folder of this seed's runs."""
        return self.lab.folder / f"seed-{self.seed}"

    @property
    def rpt_folder(self) -> Path:
        """The folder of the reinforcement, which holds the evaluations of all arms."""
        return self.folder / "rpt"

    def text(self) -> Config:
        """Returns the configuration of the start: pre-training from scratch."""
        recipe = self.lab.recipe
        corpus = self.corpus(recipe.shares, seed=self.seed)
        changes = {"pretrain.steps": recipe.text_steps}
        return self._pretraining("text", corpus, self.model(), changes)

    def rpt(self, start: str) -> Config:
        """Returns the configuration of reinforcement on plain lines, and the problems on which
        every arm is measured."""
        return self._config("rpt", self.corpus(_PLAIN, seed=self.seed + 1, share=10), start)

    def text_arm(self, name: str, start: str, rpt: Run) -> Config:
        """Returns the configuration of one of TEXT_ARMS."""
        shares = TEXT_ARMS[name] or self.lab.recipe.shares
        corpus = self.corpus(shares, seed=self.seed + 2, share=10)
        changes = {"pretrain.match": str(rpt.path), "pretrain.match_by": "flops"}
        return self._config(name, corpus, start, {**_TOKENS_ONLY, **changes})

    def deeper(self, flops: float) -> Config:
        """Returns the configuration of a model of more layers from scratch, on plain lines
        alone."""
        corpus = self.corpus(_PLAIN, seed=self.seed)
        return self._pretraining("deeper", corpus, self.model(_DEEPER), {"pretrain.flops": flops})

    def filler(self) -> Control:
        """Returns the configuration of the reinforcement behind a useless thought as long as a
        worked one, which is forced."""
        opening = PromptConfig().thought_start + BLANK * self.lab.opened.width
        return Control(
            question="is it what the thought says? a useless one as long, forced",
            stage="train",
            changes={
                "prompt.candidates": 0,
                "prompt.think_budget": 0,
                "prompt.thought_start": opening,
            },
            evaluate={"evaluate.controls": []},  # there is no thought to change
        )

    def model(self, layers: int = _LAYERS, width: int = 0) -> str:
        """Returns a model with random weights, as `model.path`; `width` 0: the recipe's."""
        width = width or self.lab.recipe.width
        return f"new:llama?layers={layers}&width={width}&seed={self.seed}"

    def corpus(self, shares: str, *, seed: int, share: int = 1) -> str:
        """Returns the world's text in these shares, as `corpus.path`; `share`: of the documents
        only one in so many."""
        return self.lab.corpus(shares, f"documents={self.lab.documents // share}", f"seed={seed}")

    def _pretraining(
        self, name: str, corpus: str, model: str, more: dict[str, Any] | None = None
    ) -> Config:
        changes = {"pretrain.learning_rate": 2e-3}
        return self._config(name, corpus, model, {**_TOKENS_ONLY, **changes, **(more or {})})

    def _config(
        self, name: str, corpus: str, model: str, more: dict[str, Any] | None = None
    ) -> Config:
        world, recipe = self.lab.opened, self.lab.recipe
        values = {
            "seed": self.seed,
            "run": str(self.folder / name),
            "model.path": model,
            "corpus.path": corpus,
            "corpus.heldout_fraction": 0.15,
            "corpus.development_fraction": 0.0,
            "corpus.min_tokens": 4,
            "prompt.window": 2 * world.width + 40,
            "prompt.min_context": world.answer_index,
            "prompt.candidates": 0,
            "prompt.think_budget": world.width + 4,
            "prompt.prediction_budget": 2,
            "selection.strategy": "random",
            "selection.curriculum": world.shown if world.shown < world.depth else 0,
            "selection.curriculum_share": recipe.opens_at,
            "pretrain.tokens_per_step": 1200,
            "pretrain.sequence_length": 2 * world.width + 40,
            "pretrain.microbatch_tokens": 8192,
            "pretrain.learning_rate": 1e-3,
            "pretrain.eval_every": 0,
            "checkpoints.every": 100_000,
            "train.steps": recipe.rpt_steps,
            "train.documents_per_step": 16,
            "train.positions_per_document": 1,
            "train.group_size": 16,
            "memory.microbatch_tokens": 16_384,
            "train.learning_rate": recipe.rpt_learning_rate,
            "optim.adam_beta2": 0.98,
            "train.ntp_weight": 0.0,
            "train.eval_every": 0,
            "evaluate.positions": 400,
            "evaluate.min_entropy": 0.0,
            "evaluate.controls": ["emptied", "swapped"],
        }
        return load_config(overrides=values | (more or {}) | self.lab.changes)


_TOKENS_ONLY = {"score.splits": ["train"], "score.tokens_only": ["train"]}
"""The scoring of text that is only pre-trained on: no score is read."""
