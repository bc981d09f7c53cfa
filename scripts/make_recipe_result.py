"""The result of a recipe's run: `python scripts/make_recipe_result.py runs/paper-135m` writes
docs/results/NAME.json and the section of docs/recipes.md between its markers.

Everything in it is read from the run folder, after `openrpt evaluate start warmup trained`.
"""

import json
import sys
from pathlib import Path
from typing import Any

from marked import put

from openrpt.amounts import count, duration
from openrpt.config.loading import flatten
from openrpt.config.recipes import config_path
from openrpt.config.toml_files import read_toml
from openrpt.evaluation.records import read_evaluation
from openrpt.json_files import json_text
from openrpt.report.verdict import model_sentences
from openrpt.runs.metrics import numbers, read_metrics
from openrpt.runs.run import Run, existing_run
from openrpt.sheets import Sheet, markdown, points, share

ROOT = Path(__file__).parent.parent
LEVELS = ("easy", "medium", "hard")
ROWS = (
    ("standard prediction, start model", "start", "ntp"),
    ("standard prediction, trained model", "trained", "ntp"),
    ("reasoning, start model", "start", "reasoning"),
    ("reasoning, after warmup", "warmup", "reasoning"),
    ("reasoning, trained", "trained", "reasoning"),
)


def recipe_result(run: Run, recipe: str) -> dict[str, Any]:
    """Returns what was run and found: keys that differ from the recipe's, steps, time, accuracies
    with n and standard error by document, paired differences."""
    found = read_evaluation(run.evaluation)
    evaluations = found["evaluations"]
    rows = [numbers(row) | {"stage": row["stage"]} for row in read_metrics(run.metrics)]
    asked = flatten(read_toml(config_path(f"recipe:{recipe}")))
    used = flatten(run.config.model_dump(mode="json"))
    environment = json.loads((run.path / "environment.json").read_text(encoding="utf-8"))
    return {
        "recipe": recipe,
        "differs": {key: used[key] for key in asked if key != "run" and used[key] != asked[key]},
        "threads": environment["threads"],
        "stages": {stage: _spent(rows, stage) for stage in ("warmup", "train")},
        "rollouts": used["train.group_size"] * run.config.train.prompts_per_step,
        "accuracy": {
            name: {level: evaluations[label]["summary"][mode][level] for level in LEVELS}
            for name, label, mode in ROWS
        },
        "differences": found["differences"],
        "said": model_sentences("The trained policy", evaluations["trained"], run.config.prompt),
    }


def _spent(rows: list[dict[str, Any]], stage: str) -> dict[str, float]:
    own = [row.get("seconds", 0.0) for row in rows if row["stage"] == stage]
    return {"steps": len(own), "seconds": max(own, default=0.0)}


def section(result: dict[str, Any]) -> str:
    """Returns the section in markdown."""
    stages = ", ".join(
        f"{found['steps']} steps of {stage} in {duration(found['seconds'])}"
        for stage, found in result["stages"].items()
    )
    differs = ", ".join(f"`{key} = {value}`" for key, value in result["differs"].items())
    sizes = next(iter(result["accuracy"].values()))
    size = f"{count(sizes['easy']['n'])} positions of {sizes['easy']['documents']} documents"
    rows = [
        [name, *(share(found[level]) for level in LEVELS)]
        for name, found in result["accuracy"].items()
    ]
    for one in result["differences"]:
        if one["a"] == {"label": "trained", "mode": "reasoning"}:
            name = f"*trained reasoning − {one['b']['label']} {one['b']['mode']}*"
            rows.append([name, *(points(one["difference"][level]) for level in LEVELS)])
    headings = ["", *(f"{level} (n = {sizes[level]['n']})" for level in LEVELS)]
    sheet = Sheet(title="", headings=headings, rows=rows, notes=[" ".join(result["said"])])
    opening = (
        f"`recipe:{result['recipe']}`{f' with {differs}' if differs else ''},"
        f" {result['rollouts']} rollouts a step, {result['threads']} thread(s): {stages}. Accuracy"
        f" in % on {size}, ± standard error by document; differences in points [95 %]."
    )
    return f"\n{opening}\n\n{markdown(sheet)}"


def main() -> None:
    """Writes the result of the run named on the command line."""
    run = existing_run(Path(sys.argv[1]))
    result = recipe_result(run, recipe=run.path.name)
    target = ROOT / "docs" / "results" / f"{result['recipe']}.json"
    target.write_text(json_text(result), encoding="utf-8")
    put(ROOT / "docs" / "recipes.md", "recipe-result", section(result))


if __name__ == "__main__":
    main()
