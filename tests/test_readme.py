"""What the first page shows is what happens: its Python prints what it says."""

import re
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def test_the_python_of_the_first_page_prints_what_it_says(capsys) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    said = program.rstrip().rpartition(")  # ")[2]
    exec(compile(program, "README.md", "exec"), {})
    assert capsys.readouterr().out.strip() == said


def test_command_and_result_come_early() -> None:
    """A screen to the first command, one more to the first result; a screen has 30 lines."""
    lines = README.read_text(encoding="utf-8").splitlines()
    command = next(n for n, line in enumerate(lines) if line.startswith("make demo"))
    result = next(n for n, line in enumerate(lines) if " ± " in line)
    assert command < 30 and result < 60
