"""Coding tasks: the sandbox holds, a program is put together rightly, pass@k is unbiased."""

import itertools
import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tiny_model import tiny_model_folder

from openrpt.cli import main
from openrpt.config import load_config
from openrpt.errors import UserError
from openrpt.evaluation.coding import (
    EXAMPLES,
    coding,
    pass_at_k,
    program_of,
    read_tasks,
    with_tests,
)
from openrpt.evaluation.records import read_models
from openrpt.run import open_run
from openrpt.sandbox import Limits, run_program

posix = pytest.mark.skipif(sys.platform == "win32", reason="no limits for processes there")
LIMITS = Limits(seconds=1, memory_mib=256)


@posix
@pytest.mark.parametrize(
    ("source", "verdict", "error"),
    [
        ("assert 1 + 1 == 2\nprint('a lot ' * 99999)", "passed", ""),
        ("import collections, heapq, math, re, typing", "passed", ""),
        ("assert False, 'no'", "failed", "AssertionError: no"),
        ("def (", "failed", "SyntaxError"),
        ("raise SystemExit(0)", "failed", "SystemExit"),
        ("import os; os._exit(0)", "failed", ""),
        ("print('passed')\nimport os; os._exit(0)", "failed", ""),
        ("while True: pass", "time", ""),
        ("x = [0] * 10**9", "memory", ""),
        ("open('big', 'wb').write(b'0' * (1 << 25))", "failed", "OSError"),
        ("import os; assert set(os.environ) <= {'HOME', 'TMPDIR', 'PATH', 'LANG'}", "passed", ""),
        ("assert input()", "failed", "EOFError"),
        ("import os; assert not os.listdir()", "passed", ""),
    ],
)
def test_the_sandbox(source, verdict, error):
    outcome = run_program(source, LIMITS)
    assert outcome.verdict == verdict and outcome.error.startswith(error)


@posix
def test_nothing_stays_behind(tmp_path):
    """A process that the program has started ends with it, and its folder is gone."""
    mark = tmp_path / "alive"
    code = f"import time\nwhile True: open({str(mark)!r}, 'a').write('x'); time.sleep(0.05)"
    source = (
        "import os, subprocess, sys\n"
        f"open({str(tmp_path / 'folder')!r}, 'w').write(os.getcwd())\n"
        f"subprocess.Popen([{sys.executable!r}, '-S', '-c', {code!r}])\n"
        "import time; time.sleep(0.7)\n"
    )
    assert run_program(source, Limits(seconds=3, memory_mib=512)).verdict == "passed"
    assert mark.exists()
    size = mark.stat().st_size
    time.sleep(0.3)
    assert mark.stat().st_size == size
    assert not Path((tmp_path / "folder").read_text()).exists()


@posix
def test_no_network_where_it_says_so():
    source = "import socket; socket.create_connection(('127.0.0.1', 9), timeout=0.3)"
    outcome = run_program(source, LIMITS)
    assert outcome.verdict == "failed"
    if outcome.offline:
        assert "unreachable" in outcome.error


@posix
def test_the_examples_are_right():
    rows = [json.loads(line) for line in EXAMPLES.read_text(encoding="utf-8").splitlines()]
    tasks = read_tasks("examples")
    assert len(tasks) == len(rows) == 8
    for task, row in zip(tasks, rows, strict=True):
        right = program_of(task, row["canonical_solution"])
        assert run_program(with_tests(task, right), Limits()).verdict == "passed", task["task_id"]
        empty = program_of(task, "    return None\n")
        assert run_program(with_tests(task, empty), Limits()).verdict == "failed", task["task_id"]


TASK = {"prompt": 'import math\n\n\ndef half(x):\n    """x / 2"""\n', "entry_point": "half"}


@posix
@pytest.mark.parametrize(
    "text",
    [
        "    return x / 2\n",
        "    return x / 2\n```",
        "Sure:\n```python\ndef half(x):\n    return x / 2\n```\nThat is it.",
        "```\nfrom math import floor\n\ndef half(x: float) -> float:\n    return x / 2",
        "```python\nhalf = 3\n```\nno:\n```py\ndef half(x):\n    return math.ldexp(x, -1)\n```",
    ],
)
def test_programs(text):
    task = TASK | {"test": "assert half(3) == 1.5"}
    assert run_program(with_tests(task, program_of(task, text)), Limits()).verdict == "passed"


def test_pass_at_k_is_the_mean_over_all_draws():
    for samples, right in itertools.product(range(1, 7), range(7)):
        if right > samples:
            continue
        marks = [True] * right + [False] * (samples - right)
        for k in range(1, samples + 1):
            draws = list(itertools.combinations(marks, k))
            expected = sum(any(draw) for draw in draws) / len(draws)
            assert pass_at_k(samples, right, k) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"test": ""}, "field 'test' is missing or blank"),
        ({"entry_point": "other"}, "defines no 'other'"),
        ({"prompt": None}, "field 'prompt' is missing"),
    ],
)
def test_what_it_refuses(tmp_path, fields, said):
    path = tmp_path / "tasks.jsonl"
    path.write_text(json.dumps(TASK | {"test": "assert 1"} | fields), encoding="utf-8")
    with pytest.raises(UserError, match=rf"tasks\.jsonl:1: .*{said}"):
        read_tasks(str(path))


def settings_of(folder: Path, name: str, **more: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "run": str(folder / name),
        "model.path": str(folder / "model"),
        "model.threads": 1,
        "model.device": "cpu",
        "coding.max_tokens": 8,
        "coding.timeout": 1.0,
    }
    return values | {key.replace("__", "."): value for key, value in more.items()}


@posix
def test_nothing_runs_unless_asked(tmp_path, capsys):
    tiny_model_folder(tmp_path / "model", max_position_embeddings=1024)
    arguments = ["coding", str(tmp_path / "model")]
    for key, value in settings_of(tmp_path, "run", coding__samples=2).items():
        arguments += [f"--{key}", str(value)]
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert not stopped.value.code
    shown = capsys.readouterr().out
    assert "8 tasks written" in shown and "nothing was run; --coding.run_code runs" in shown
    lines = (tmp_path / "run/coding/model/direct-2-samples.jsonl").read_text().splitlines()
    written = [json.loads(line) for line in lines]
    assert len(written) == 16 and all(row["verdict"] is None for row in written)
    assert all("def " in row["program"] for row in written)
    # The same command with the flag runs what was written.
    before = (tmp_path / "run/coding/model/answers.jsonl").read_text()
    with pytest.raises(SystemExit) as stopped:
        main([*arguments, "--coding.run_code"])
    assert not stopped.value.code
    shown = capsys.readouterr().out
    assert "pass@1 0.0 ± 0.0 %, pass@2" in shown and "hard: pass@1" in shown
    assert (tmp_path / "run/coding/model/answers.jsonl").read_text() == before
    entry = read_models(tmp_path / "run/coding.json")["model"]["examples, direct, 2 samples"]
    assert sum(entry["verdicts"].values()) == 16 and entry["pass_at"]["2"]["n"] == 8


@posix
@pytest.mark.parametrize("chat", ["auto", "off"])
def test_a_thought_before_the_code(tmp_path, chat):
    tiny_model_folder(tmp_path / "model", max_position_embeddings=1024)
    settings = settings_of(tmp_path, "run", coding__think_budget=4, prompt__chat_template=chat)
    run = open_run(load_config(overrides=settings), min_free_bytes=0)
    _, entry = coding(run, None, run.config)
    assert entry["settings"]["chat_template"] is (chat == "auto")
    line = (run.path / "coding/start/think-4.jsonl").read_text().splitlines()[0]
    program = json.loads(line)["program"]
    assert program.count("def add(a, b):") == 2 and "```" not in program.split("pass\n")[0]
