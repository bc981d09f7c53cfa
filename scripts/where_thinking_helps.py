"""Where a thought helps: a run's trained model on texts of other kinds, by class of token.

    python scripts/where_thinking_helps.py runs/paper-135m --work runs/other-texts \\
        --text MATH math.jsonl '{problem}\\n\\n{solution}' --text Wikipedia wiki.jsonl '{text}'

Each text is scored by the run's scorer and the model is evaluated there, with the run's prompt, at
positions above the run's entropy, never trained on; the run's own held-out text stands first. What
was done is passed over, so the same command goes on. Writes
docs/results/where_thinking_helps.json, and the tables of the page beside it between its marks.
"""

import argparse
from pathlib import Path
from typing import Any

from marked import put

from openrpt.config.loading import with_overrides
from openrpt.evaluation.models import model_path
from openrpt.evaluation.next_token.stage import evaluate_model
from openrpt.evaluation.records import read_evaluation
from openrpt.json_files import read_json, write_sealed
from openrpt.progress import live_progress
from openrpt.runs.run import Run, existing_run
from openrpt.sheets import NOTHING, Sheet, markdown, points, share
from openrpt.stages.score.score import score_corpus

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "results" / "where_thinking_helps.md"
CLASSES = ("computed", "number", "operator", "word start", "punctuation", "whitespace")
_LEAST = 20
"""Positions of a class below which nothing is said of it."""


def main() -> None:
    """Measures what is not measured yet, and writes results and page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, nargs="?", help="a trained run; none: the page alone")
    parser.add_argument("--work", type=Path, default=Path("runs/other-texts"))
    parser.add_argument("--positions", type=int, default=240)
    parser.add_argument("--tokens", type=int, default=12_000, help="scored tokens of a text")
    parser.add_argument(
        "--text", nargs=3, action="append", default=[], metavar=("NAME", "PATH", "TEMPLATE")
    )
    arguments = parser.parse_args()
    path = PAGE.with_suffix(".json")
    if arguments.run is not None:
        run, found = existing_run(arguments.run), {}
        own = read_evaluation(run.evaluation)["evaluations"]["trained"]
        found[run.config.corpus.path] = _facts(own)
        for name, text, template in arguments.text:
            found[name] = _measured(run, name, text, template, arguments)
            write_sealed(path, {"run": run.path.name, "texts": found})
    known = read_json(path, advice="measure anew")
    for name, sheet in _sheets(known["texts"]).items():
        put(PAGE, name, f"\n\n{markdown(sheet).strip()}\n\n")


def _measured(
    run: Run, name: str, text: str, template: str, arguments: argparse.Namespace
) -> dict[str, Any]:
    """Returns what the run's trained model does on a text; measures it where that is not done."""
    config = with_overrides(
        run.config,
        {
            "corpus.path": text,
            "corpus.template": template.replace("\\n", "\n"),
            "corpus.heldout_fraction": 0.9,
            "corpus.development_fraction": 0.0,
            "score.splits": ["heldout"],
            "score.max_tokens": arguments.tokens,
            "evaluate.positions": arguments.positions,
            "evaluate.positions_per_document": 6,
        },
    )
    scores = arguments.work / name / "scored"
    with live_progress() as progress:
        progress.begin(f"score {name}", arguments.tokens, "tokens")
        score_corpus(config, scores, progress=progress.update)
        progress.end()
        evaluate_model(run, "trained", config, label=name, scores=scores, progress=progress)
    entry = read_evaluation(run.evaluation)["evaluations"][name]
    assert entry["model"] == model_path(run, "trained")
    return _facts(entry)


def _facts(entry: dict[str, Any]) -> dict[str, Any]:
    parts = ("all", *CLASSES)
    return {
        mode: {
            part: entry["summary"][mode][part] for part in parts if part in entry["summary"][mode]
        }
        for mode in ("ntp", "reasoning")
    } | {"value": {part: entry["thought_value"]["reasoning"].get(part) for part in parts}}


def _sheets(texts: dict[str, Any]) -> dict[str, Sheet]:
    """Returns the tables: all positions, and the thought's value by class."""
    rows, by_class = [], []
    for name, found in texts.items():
        value = found["value"]
        rows.append(
            [
                name,
                f"{value['all']['n']} of {value['all']['documents']}",
                share(found["ntp"]["all"]),
                share(found["reasoning"]["all"]),
                points(value["all"]),
            ]
        )
        cells = [
            value[part] if (value[part] or {"n": 0})["n"] >= _LEAST else None for part in CLASSES
        ]
        by_class.append([name, *(NOTHING if one is None else points(one) for one in cells)])
    return {
        "where-texts": Sheet(
            title="",
            headings=["text", "positions of documents", "standard", "reasoning", "difference"],
            rows=rows,
            notes=["%, and points with 95 % by document"],
        ),
        "where-classes": Sheet(
            title="",
            headings=["text", *CLASSES],
            rows=by_class,
            notes=[f"reasoning − standard prediction, points; {NOTHING}: fewer than {_LEAST}"],
        ),
    }


if __name__ == "__main__":
    main()
