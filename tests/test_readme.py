"""What the first page shows is what happens: its Python prints what it says, and its figures are
those of the other pages."""

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


def test_the_first_page_is_short() -> None:
    """Signs of tables and addresses of links are no words."""
    text = re.sub(r"\]\([^)]*\)|<!--.*?-->|[|*]", " ", README.read_text(encoding="utf-8"))
    assert len([word for word in text.split() if re.search(r"\w", word)]) < 850


def test_what_gpus_take_is_what_the_page_on_scale_says() -> None:
    """Time of all steps; the price is that of 3 dollars a GPU hour, rounded."""
    scale = (README.parent / "docs" / "scale.md").read_text(encoding="utf-8").splitlines()
    rows = re.findall(
        r"\| (.+) \| `recipe:([\w.-]+).*` \| (\d+) (H\d+) \| ((\d+) h (\d+) min) \| \$([\d,]+) \|",
        README.read_text(encoding="utf-8"),
    )
    assert len(rows) == 3
    for model, recipe, gpus, gpu, time, hours, minutes, price in rows:
        begins = f"| `{recipe}`, {model} | {gpus} × {gpu.lower()}"
        (found,) = [row for row in scale if row.startswith(begins)]
        assert f"| {time} (" in found
        exact = 3 * int(gpus) * (int(hours) + int(minutes) / 60)
        assert abs(int(price.replace(",", "")) / exact - 1) < 0.07
