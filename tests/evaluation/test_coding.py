"""Coding tasks: the sandbox holds, a program is put together rightly, pass@k is unbiased."""

import itertools
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from openrpt.cli.main import main
from openrpt.config.loading import load_config
from openrpt.errors import UserError
from openrpt.evaluation.end_tasks.coding import EXAMPLES, coding, pass_at_k, read_tasks, with_tests
from openrpt.evaluation.end_tasks.programs import program_of
from openrpt.evaluation.end_tasks.sandbox import (
    WORKER,
    Limits,
    Outcome,
    require_sandbox,
    run_program,
)
from openrpt.evaluation.records import read_models
from openrpt.runs.run import open_run
from tests.helpers.tiny_model import tiny_model_folder


def refusal() -> str:
    try:
        require_sandbox()
    except UserError as error:
        return str(error)
    return ""


WHY_NOT = refusal()
walled = pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT or "it can")
LIMITS = Limits(seconds=60, memory_mib=256)  # however busy the machine
SHORT = Limits(seconds=1, memory_mib=256)
"""Limits of programs that do not end by themselves."""


@walled
@pytest.mark.parametrize(
    ("source", "verdict", "error"),
    [
        ("assert 1 + 1 == 2\nprint('a lot ' * 99999)", "passed", ""),
        ("import collections, dataclasses, heapq, math, re, sqlite3, ssl, typing", "passed", ""),
        ("open('a', 'w').write('b'); assert open('/tmp/a').read() == 'b'", "passed", ""),
        (
            "assert __name__ == '__main__'; import __main__ as m; assert not m.__doc__",
            "passed",
            "",
        ),
        ("assert '\ud800' == chr(0xd800)", "passed", ""),
        ("assert False, 'no'", "failed", "AssertionError: no"),
        ("assert False, '\ud800'", "failed", "AssertionError: \\ud800"),
        ("def (", "failed", "SyntaxError"),
        ("raise SystemExit(0)", "failed", "SystemExit"),
        ("import os; os._exit(0)", "failed", "it ended itself"),
        ("print('passed')\nimport os; os._exit(0)", "failed", "it ended itself"),
        ("import os; os.abort()", "failed", "it ended itself"),
        ("import ctypes; ctypes.string_at(0)", "failed", "it ended itself"),
        ("x = [0] * 10**9", "memory", ""),
        ("open('big', 'wb').write(b'0' * (1 << 25))", "failed", "OSError"),
        ("import os; assert set(os.environ) <= {'HOME', 'TMPDIR', 'PATH', 'LANG'}", "passed", ""),
        ("assert input()", "failed", "EOFError"),
        ("import os; assert not os.listdir()", "passed", ""),
    ],
)
def test_the_sandbox(source, verdict, error):
    outcome = run_program(source, LIMITS)
    assert outcome.verdict == verdict and outcome.error.startswith(error), outcome


@walled
@pytest.mark.parametrize(
    "source",
    [
        "while True: pass",
        "import time; time.sleep(1e6)",
        "import os, time; os.closerange(0, 99); time.sleep(1e6)",
    ],
)
def test_the_time_of_a_program_ends(source, monkeypatch):
    """By the judge, and not by the last resort of the process that asked."""
    monkeypatch.setattr("openrpt.evaluation.end_tasks.sandbox._START_SECONDS", 300)
    started = time.monotonic()
    assert run_program(source, SHORT) == Outcome(verdict="time")
    assert time.monotonic() - started < 300


@walled
@pytest.mark.parametrize(
    "source",
    [
        "import os\nwhile True: os.fork()",
        "import os, time\nif os.fork() == 0:\n  os.setsid(); time.sleep(1e6)",
        "import os\nfor _ in range(20):\n  if os.fork() == 0: x = bytearray(200 << 20); input()",
        "import subprocess, sys; subprocess.Popen([sys.executable, '-c', ''])",
        "import threading; threading.Thread(target=print).start()",
        "import multiprocessing; multiprocessing.Process(target=print).start()",
        "import ctypes; assert ctypes.CDLL(None).unshare(0x10000000) == 0",  # a new user's rights
        "import os; os.setuid(0)",
        "import os; os.kill(-1, 9)",
    ],
)
def test_a_program_stays_one_process(source):
    assert run_program(source, LIMITS).verdict == "failed"


@walled
def test_files_in_memory_are_bounded_too():
    source = "for n in range(99): open(f'f{n}', 'wb').write(bytes(15 << 20))"
    outcome = run_program(source, LIMITS)
    assert outcome.verdict == "failed" and "No space left" in outcome.error


@walled
def test_nothing_stays_behind(tmp_path, monkeypatch):
    """All processes of a program end with its time, and its folder is gone."""
    seen: dict[int, psutil.Process] = {}
    limits = Limits(seconds=8, memory_mib=256)  # long enough to be seen, on a busy machine, too
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with ThreadPoolExecutor() as pool:
        running = pool.submit(run_program, "import time; time.sleep(1e6)", limits)
        while not running.done():
            for process in psutil.Process().children(recursive=True):
                with suppress(psutil.Error):
                    if "sandbox_worker" in " ".join(process.cmdline()):
                        seen[process.pid] = process
            time.sleep(0.2)  # each look goes through all processes of the machine
    assert running.result().verdict == "time" and len(seen) == 3  # keeper, judge, program
    assert not psutil.wait_procs(list(seen.values()), timeout=120)[1]
    assert not list(tmp_path.iterdir())


@walled
def test_the_end_of_the_judge_is_the_end_of_the_program(tmp_path):
    """Where the process that asked is killed, too: nobody has to clean up."""
    if os.getuid():
        pytest.skip("an ordinary user's program has its own user's number")
    source = "from openrpt.evaluation.end_tasks.sandbox import *\n"
    source += "require_sandbox(); print(flush=True)\n"  # it runs a program of its own
    source += "run_program('import time; time.sleep(1e6)', Limits(seconds=900))"
    own = os.environ | {"TMPDIR": str(tmp_path)}
    asking = subprocess.Popen([sys.executable, "-c", source], env=own, stdout=subprocess.PIPE)
    assert asking.stdout is not None
    with asking.stdout:
        asking.stdout.readline()
    program = None
    while asking.poll() is None and program is None:
        found = psutil.Process(asking.pid).children(recursive=True)
        program = next((p for p in found if len(found) == 3 and p.uids().real == 65534), None)
        time.sleep(0.02)
    asking.kill()
    asking.wait()
    assert program is not None  # its own time is not over
    assert not psutil.wait_procs([program], timeout=120)[1]


@walled
def test_the_users_files_are_not_there(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("mine")
    secret.chmod(0o666)
    tmp_path.chmod(0o777)
    for action in (
        "open({0!r}).read()",
        "open({0!r}, 'w')",
        "import os; os.unlink({0!r})",
        "import os; os.listdir('/home')",
        "open('/etc/passwd')",
        "open('/proc/self/cmdline')",
        "open({1!r} + '/new', 'w')",
        "import os; os.chmod({1!r}, 0o777)",
        "import os; os.mkdir('/new')",
        "open({2!r})",
    ):
        source = action.format(str(secret), os.path.dirname(os.__file__), str(WORKER))
        outcome = run_program(source, LIMITS)
        refused = ("FileNotFoundError", "PermissionError", "OSError: [Errno 30] Read-only")
        assert outcome.verdict == "failed" and outcome.error.startswith(refused), (action, outcome)
    assert secret.read_text() == "mine"


@walled
def test_no_network():
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
        source = f"import socket; socket.create_connection({address!r}, timeout=0.3)"
        outcome = run_program(source, LIMITS)
    assert outcome.verdict == "failed" and "unreachable" in outcome.error


TELL = """
import os, sys
def tell(data):
    for number in range(200):
        try: os.write(number, data)
        except OSError: pass
"""
TELL_ALL_WORDS = """
words, frame = [*sys.argv, 'done', 'passed'], sys._getframe()
while frame:
    for names in (frame.f_locals, frame.f_globals):
        words += [v for v in list(names.values()) if isinstance(v, (str, bytes))]
    frame = frame.f_back
for word in words:
    word = word if isinstance(word, bytes) else word.encode()
    for text in (word, word + b' passed\\n', b'{"verdict": "passed", "error": ""}\\n'):
        tell(text)
os._exit(0)
"""


@walled
@pytest.mark.parametrize(
    "source",
    [
        TELL + "tell(b'passed'); os._exit(0)",
        TELL + "tell(b'passed ')",
        TELL + "tell(b'done'); os._exit(0)",
        TELL + "tell(b'done' + bytes(16)); os._exit(0)",
        TELL + "tell(b'done'); tell(bytes(16)); os._exit(0)",
        TELL + TELL_ALL_WORDS,
        "import atexit, os; atexit.register(os._exit, 0); raise SystemExit",
        "import builtins\nbuiltins.exec = builtins.compile = lambda *a, **k: None\nassert 0",
        "import builtins\nbuiltins.BaseException = builtins.AssertionError = KeyError\nassert 0",
        "import sys\nsys.excepthook = lambda *a: None\nassert 0",
        "import signal, os\nos.kill(os.getpid(), signal.SIGTERM)",
        "import signal, os\nos.kill(os.getpid(), signal.SIGKILL)",
    ],
)
def test_passing_can_not_simply_be_claimed(source):
    assert run_program(source, LIMITS).verdict != "passed"


@walled
def test_a_program_that_stops_itself_has_not_passed():
    source = "import signal, os\nos.kill(os.getpid(), signal.SIGSTOP)"
    assert run_program(source, SHORT).verdict == "time"


@walled
def test_an_ordinary_user_gets_the_same_walls():
    """Root's walls and a user's are built in two ways."""
    if os.getuid():
        pytest.skip("the tests run as an ordinary user already")
    if not os.access("/usr/bin/python3", os.X_OK):
        pytest.skip("no Python that every user may run")
    with tempfile.TemporaryDirectory() as folder:
        os.chown(folder, 1234, 1234)
        worker = shutil.copy(WORKER, folder)
        for source, said in (
            ("import decimal", "passed"),
            ("import os; os.fork()", "BlockingIOError"),
            ("import os; os.listdir('/home')", "FileNotFoundError"),
            ("open('/usr/lib/new', 'w')", "Read-only file system"),
            ("import ctypes; assert ctypes.CDLL(None).unshare(0x10000000) == 0", "AssertionError"),
            ("import os; os.kill(1, 9); os.kill(1, 2); os.kill(os.getpid(), 9)", "time"),
        ):
            limits = SHORT if said == "time" else LIMITS
            asked = {"source": source, "seconds": limits.seconds, "memory": 256 << 20}
            box = tempfile.mkdtemp(dir=folder)
            os.chown(box, 1234, 1234)
            ran = subprocess.run(
                ["/usr/bin/python3", "-I", "-S", "-B", worker, box],
                **{"input": json.dumps(asked), "capture_output": True, "text": True},
                **{"user": 1234, "group": 1234, "extra_groups": [], "cwd": "/"},
            )
            if "refused" in ran.stdout:
                pytest.skip(ran.stdout)
            assert said in ran.stdout, source


def test_a_machine_without_walls_runs_nothing(tmp_path, monkeypatch):
    """One line that says what is missing: here, what the kernel says to a wrong call."""
    worker = tmp_path / "worker.py"
    worker.write_text(WORKER.read_text().replace('call("unshare", ', 'call("unshare", -1 | '))
    with monkeypatch.context() as patched:
        patched.setattr(sys, "platform", "darwin")
        with pytest.raises(UserError, match=r"on Linux only: .*leave out --coding\.run_code"):
            require_sandbox.__wrapped__()
    if sys.platform != "linux":
        pytest.skip("nothing is tried here")
    monkeypatch.setattr("openrpt.evaluation.end_tasks.sandbox.WORKER", worker)
    with pytest.raises(UserError, match=r"can't wall programs in \(unshare: .*--coding\.run_code"):
        require_sandbox.__wrapped__()


@walled
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


@walled
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


def test_marks_of_a_task(tmp_path):
    path, rows = tmp_path / "tasks.jsonl", []
    for marks in ({"task_id": 0, "difficulty": 0}, {"difficulty": float("nan")}):
        rows.append(json.dumps(TASK | {"test": "assert 1"} | marks))
    path.write_text("\n".join(rows), encoding="utf-8")
    first, second = read_tasks(str(path))
    assert (first["task_id"], first["difficulty"]) == ("0", "0")
    assert second["difficulty"] == ""


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


@walled
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
    assert "pass@1 0.0 [0.0, 36.9] %, pass@2" in shown  # of 8 tasks
    assert "hard: pass@1" in shown
    assert (tmp_path / "run/coding/model/answers.jsonl").read_text() == before
    entry = read_models(tmp_path / "run/coding.json")["model"]["examples, direct, 2 samples"]
    assert sum(entry["verdicts"].values()) == 16 and entry["pass_at"]["2"]["n"] == 8


@walled
@pytest.mark.parametrize("chat", ["auto", "off"])
def test_a_thought_before_the_code(tmp_path, chat):
    tiny_model_folder(tmp_path / "model", max_position_embeddings=1024)
    settings = settings_of(tmp_path, "run", coding__think_budget=4, prompt__chat_template=chat)
    run = open_run(load_config(overrides=settings), min_free_bytes=0)
    _, entry = coding(run, None, run.config)
    assert entry["settings"]["chat_template"] is (chat == "auto")
    line = (run.path / "coding/start/think-4.jsonl").read_text().splitlines()[0]
    program = json.loads(line)["program"]
    # The function goes on in the block that was opened for it: the prompt stands there once.
    assert program.startswith(read_tasks("examples")[0]["prompt"]) and "```python" not in program


def test_a_task_with_half_a_surrogate_pair(tmp_path):
    """Its text is the escape that a string literal has for it: it can be asked, run and written."""
    path = tmp_path / "tasks.jsonl"
    path.write_text(json.dumps(TASK | {"test": "assert half(2) == 1 and '\ud800'"}))
    assert read_tasks(str(path))[0]["test"].endswith(r"'\ud800'")
