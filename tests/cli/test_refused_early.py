"""What is not there is refused before torch is imported, which takes seconds."""

import subprocess
import sys
from pathlib import Path

COMMANDS = (
    ["score", "nothing"],
    ["score", "page.md"],
    ["warmup", "--run", "nothing"],
    ["train", "--run", "nothing"],
    ["evaluate", "trained", "--run", "nothing"],
    ["evaluate", "nothing"],
    ["compare", "nothing"],
    ["report", "nothing"],
    ["perplexity", "nothing"],
    ["writing", "nothing"],
    ["probe", "trained", "--run", "nothing"],
    ["budgets", "--run", "nothing"],
    ["sweep", "nothing", "--train.steps", "1,2"],
    ["experiment", "nothing"],
    ["lab", "nothing"],
    ["traces", "calculator", "nothing", "--out", "traces.jsonl"],
)
CODE = f"""
import sys
from openrpt.cli.main import main
for command in {COMMANDS!r}:
    sys.argv = ["openrpt", *command]
    try:
        main()
    except SystemExit as ended:
        print(ended.code, "torch" in sys.modules, *command)
"""


def test_what_is_not_there_is_refused_before_torch_is_imported(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text("A page.")
    done = subprocess.run(
        [sys.executable, "-c", CODE], cwd=tmp_path, capture_output=True, text=True
    )
    expected = [" ".join(["2", "False", *command]) for command in COMMANDS]
    assert done.stdout.splitlines() == expected, done.stderr
    assert all(line.startswith("openrpt: ") for line in done.stderr.splitlines())
    assert [path.name for path in tmp_path.iterdir()] == ["page.md"]
