"""The laboratory: from one start several ways to go on, at equal FLOPs, measured by depth.

A model from scratch is pre-trained on a world's text, thoughts of all styles in it. From these
weights `train` reinforces thoughts on plain lines, and each arm goes on in another way: as many
steps of the same with one thing changed, or plain next-token training for as many FLOPs.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from openrpt.config.loading import load_config
from openrpt.config.sections import Config
from openrpt.data.worlds.reading import open_world
from openrpt.progress import SILENT, Progress
from openrpt.runs.run import Run, open_run
from openrpt.sheets import Sheet, percent

PLAIN = "worked=0&filler=0"
TEXT_ARMS = {"ntp": "", "traces": "worked=1&filler=0"}
"""Plain next-token training from the same start, for RPT's FLOPs: the world's parameters."""
CONTROLS = ("random-reward", "no-thought")
"""Of `openrpt.experiments.controls`."""


@dataclass(frozen=True, kw_only=True)
class Lab:
    """Where a world is studied, and how: everything lies in folders below `folder`."""

    folder: Path
    world: str
    """As in `corpus.path`, behind `lab:`; without documents, shares and seed."""
    seed: int = 0
    changes: dict[str, Any] = field(default_factory=dict)
    """Of the configurations below, dotted: for a smaller laboratory."""
    documents: int = 60_000
    """Of the text; of plain lines and of an arm's text a tenth."""

    def path(self, query: str, documents: int, seed: int) -> str:
        parts = [self.world.partition("?")[2], query, f"documents={documents}", f"seed={seed}"]
        name = self.world.partition("?")[0]
        return f"lab:{name}?" + "&".join(part for part in parts if part)

    def config(self, name: str, corpus: str, model: str, **more: Any) -> Config:
        world = open_world(corpus)
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
            "pretrain.tokens_per_step": 1200,
            "pretrain.sequence_length": 2 * world.width + 40,
            "pretrain.microbatch_tokens": 8192,
            "pretrain.learning_rate": 1e-3,
            "pretrain.eval_every": 0,
            "checkpoints.every": 100_000,
            "train.steps": 80,
            "train.documents_per_step": 16,
            "train.positions_per_document": 1,
            "train.group_size": 16,
            "memory.microbatch_tokens": 16_384,
            "train.learning_rate": 5e-4,
            "optim.adam_beta2": 0.98,
            "train.ntp_weight": 0.0,
            "train.eval_every": 0,
            "evaluate.positions": 400,
            "evaluate.min_entropy": 0.0,
        }
        own = {key.replace("__", "."): value for key, value in more.items()}
        return load_config(overrides=values | own | self.changes)

    def text(self) -> Config:
        """The start: pre-training from scratch."""
        return self.config(
            "text",
            self.path("", self.documents, self.seed),
            f"new:llama?layers=2&width=32&seed={self.seed}",
            score__splits=["train"],
            pretrain__steps=2000,
            pretrain__learning_rate=2e-3,
        )

    def rpt(self, start: str) -> Config:
        """Reinforcement on plain lines, and the problems on which every arm is measured."""
        return self.config("rpt", self.path(PLAIN, self.documents // 10, self.seed + 1), start)

    def arm(self, name: str, start: str, rpt: Run) -> Config:
        """One of TEXT_ARMS."""
        return self.config(
            name,
            self.path(TEXT_ARMS[name], self.documents // 10, self.seed + 2),
            start,
            score__splits=["train"],
            pretrain__match=str(rpt.path),
            pretrain__match_by="flops",
        )


def run_lab(lab: Lab, *, progress: Progress = SILENT) -> Run:
    """Runs, or goes on with, the whole comparison; returns the run that holds its evaluations.

    Raises UserError for a world that is unknown, and whatever the stages raise.
    """
    from openrpt.evaluation.models import model_path
    from openrpt.experiments.controls import run_controls
    from openrpt.stages.train import train

    start = _pretrained(lab.text(), progress)
    rpt = _scored(lab.rpt(start), progress)
    train(rpt, progress=progress)
    models = {"start": "start", "rpt": "trained"}
    models |= {name: _pretrained(lab.arm(name, start, rpt), progress) for name in TEXT_ARMS}
    for label, model in models.items():
        _evaluate(rpt, model_path(rpt, model), label, progress)
    run_controls(rpt, CONTROLS, rpt.config, progress=progress)
    return rpt


def _scored(config: Config, progress: Progress) -> Run:
    from openrpt.stages.score.score import score_corpus

    run = open_run(config)
    progress.begin(f"score {run.path.name}", 0, "tokens")
    score_corpus(config, run.scored, progress=lambda tokens, text: progress.update(tokens, text))
    return run


def _pretrained(config: Config, progress: Progress) -> str:
    """The folder of the model that plain next-token training ends with."""
    from openrpt.stages.pretrain.pretrain import pretrain

    run = _scored(config, progress)
    return str(pretrain(run, progress=progress).checkpoint)


def _evaluate(run: Run, model: str, label: str, progress: Progress) -> None:
    from openrpt.evaluation.next_token.stage import evaluate_model
    from openrpt.evaluation.records import read_evaluation

    known = read_evaluation(run.evaluation)["evaluations"].get(label)
    if known is None or known["model"] != model:
        evaluate_model(run, model, run.config, label=label, progress=progress)


def lab_sheet(run: Run, shown: int) -> Sheet:
    """% right of each arm at depths that worked lines show, and beyond."""
    from openrpt.evaluation.records import read_evaluation

    rows = []
    for label, found in read_evaluation(run.evaluation)["evaluations"].items():
        summary = found["summary"]
        thinking = summary.get("reasoning", {})
        rows.append(
            [
                label,
                by_depth(thinking, lambda depth: depth <= shown),
                by_depth(thinking, lambda depth: depth > shown),
                percent(summary["ntp"]["all"]),
            ]
        )
    headings = ["arm", f"depth ≤ {shown}", f"depth > {shown}", "by itself, no thought"]
    return Sheet(title=f"{run.config.corpus.path}: right", headings=headings, rows=rows)


def by_depth(summary: dict[str, Any], inside: Any) -> str:
    """% right over the depths that are `inside`."""
    kinds = {key: found for key, found in summary.items() if key.startswith("kind: ")}
    chosen = [found for key, found in kinds.items() if inside(int(key.removeprefix("kind: ")))]
    count = sum(found["n"] for found in chosen)
    if not count:
        return "–"
    return f"{100 * sum(found['value'] * found['n'] for found in chosen) / count:.1f} %"
