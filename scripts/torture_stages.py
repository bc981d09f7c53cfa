"""The stages that torture.py disturbs: their commands on a tiny model, and all that they leave."""

import ctypes
import hashlib
import json
import os
import re
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

SETTINGS = {
    "model.threads": 1,
    "model.device": "cpu",
    "corpus.heldout_fraction": 0.3,
    "corpus.development_fraction": 0.2,
    "corpus.min_tokens": 20,
    "score.shard_tokens": 1000,
    "prompt.window": 32,
    "prompt.min_context": 4,
    "prompt.prediction_budget": 4,
    "warmup.steps": 4,
    "warmup.documents_per_step": 1,
    "warmup.positions_per_document": 4,
    "train.steps": 4,
    "train.documents_per_step": 1,
    "train.positions_per_document": 4,
    "train.group_size": 4,
    "train.eval_every": 2,
    "train.eval_positions": 8,
    "checkpoints.every": 2,
    "checkpoints.minutes": 0.0001,
    "checkpoints.kept": 1,
    "pretrain.steps": 4,
    "pretrain.eval_every": 0,
    "pretrain.sequence_length": 32,
    "pretrain.tokens_per_step": 64,
    "evaluate.positions": 8,
    "questions.question": "problem",
    "questions.answer": "sum",
    "questions.heldout_fraction": 0.3,
    "questions.development_fraction": 0.2,
    "answers.check": "exact",
    "finetune.questions_per_step": 2,
    "finetune.question_tokens": 24,
    "finetune.think_budget": 2,
    "finetune.answer_budget": 4,
}
OF_THE_MACHINE = re.compile(
    r"seconds|^time/|^memory/|^energy/|^efficiency/|cost|joules|openrpt|^sha256$|^start_model$|_at$"
)
"""Keys whose values two undisturbed runs do not share, or that follow from others."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    name: str
    command: tuple[str, ...]
    before: Path
    """A run folder in which the stage has not begun."""
    after: dict[str, str]
    """`facts` of the run that was left in peace."""
    seconds: float
    calls: int
    """That change files; 0 where they can't be counted."""


class Shim:
    """torture_shim.c, preloaded into this process and all that it forks."""

    COUNT, KILL_BEFORE, KILL_HALF, KILL_AFTER, FULL_FROM, FAIL_ONCE = range(6)

    def __init__(self, path: Path) -> None:
        self.library = ctypes.CDLL(str(path))
        self.library.torture_calls.restype = ctypes.c_long

    def arm(self, folder: Path, mode: int, at: int) -> None:
        """From now on, in this process."""
        self.library.torture_arm(os.fsencode(folder), mode, ctypes.c_long(at))

    def calls(self) -> int:
        return int(self.library.torture_calls())


def start(command: tuple[str, ...], log: Path, disturb: Callable[[], object] = int) -> int:
    """Runs `openrpt` in a process of its own, which has all libraries already; returns its id.
    `disturb` is called there first."""
    pid = os.fork()
    if pid:
        return pid
    os.setsid()
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    os.dup2(output, 1)
    os.dup2(output, 2)
    code = 1
    try:
        from openrpt.cli.main import main

        disturb()
        main(list(command))
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    os._exit(code)


def ended(pid: int, limit: float = 240.0) -> int:
    """The exit code; that of a process that had to be killed after `limit` seconds is -9."""
    until = time.monotonic() + limit
    while time.monotonic() < until:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return -int(signal.SIGKILL)


def facts(run: Path, without: str = "") -> dict[str, str]:
    """File → a hash of what it holds, times and costs aside; one file may be left out."""
    found = {}
    for path in sorted(run.rglob("*")):
        name = path.relative_to(run).as_posix()
        if path.name.endswith((".partial", ".replaced")):
            found[name] = "a leftover"
        elif path.is_file() and name != without and (content := _content(path)) is not None:
            found[name] = hashlib.sha256(content.encode()).hexdigest()[:12]
    return found


def _content(path: Path) -> str | None:
    import pyarrow.parquet as pq

    if path.suffix == ".safetensors":
        return hashlib.sha256(path.read_bytes()).hexdigest()
    if path.suffix == ".parquet":
        return repr(pq.read_table(path).to_pydict())
    if path.suffix == ".jsonl":
        return repr([_timeless(json.loads(line)) for line in path.read_text().splitlines()])
    if path.suffix == ".json" and path.name not in ("environment.json", "cost.json", "stage.json"):
        values = json.loads(path.read_text())
        if path.name == "checkpoint.json":  # of the other files, README.md has times
            del values["files"]
        return repr(_timeless(values))
    return None


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _timeless(v) for k, v in value.items() if not OF_THE_MACHINE.search(k)}
    return [_timeless(one) for one in value] if isinstance(value, list) else value


def make_stages(work: Path, shim: Shim | None) -> list[Stage]:
    """Each stage once in peace: what it starts from, and what it leaves."""
    from openrpt.config.loading import load_config, to_toml
    from tests.helpers.tiny_model import periodic_corpus, tiny_model_folder

    tiny_model_folder(work / "model")
    periodic_corpus(work / "corpus.jsonl", documents=24, letters=120)
    rows = [{"problem": f"{a} + {b}", "sum": a + b} for a in range(5) for b in range(5)]
    (work / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = work / "run"
    values = SETTINGS | {
        "run": run,
        "model.path": work / "model",
        "corpus.path": work / "corpus.jsonl",
        "questions.path": work / "sums.jsonl",
    }
    config = work / "torture.toml"
    overrides = {key: str(v) if isinstance(v, Path) else v for key, v in values.items()}
    config.write_text(to_toml(load_config(overrides=overrides)))
    first = work / "nothing"
    first.mkdir()
    plan = {
        "score": (first, ("score",)),
        "warmup": (work / "after-score", ("warmup",)),
        "pretrain": (work / "after-score", ("pretrain",)),
        "train": (work / "after-warmup", ("train",)),
        "lora": (work / "after-score", ("train", "--model.lora_rank", "2")),
        "evaluate": (work / "after-train", ("evaluate", "trained")),
        "finetune": (first, ("finetune",)),
    }
    return [
        in_peace(name, (*command, str(config)), before, work, shim)
        for name, (before, command) in plan.items()
    ]


def in_peace(
    name: str, command: tuple[str, ...], before: Path, work: Path, shim: Shim | None
) -> Stage:
    """The command's run is kept as `after-NAME`."""
    run, log, counted = work / "run", work / "log.txt", work / "calls.txt"

    def count() -> None:
        if shim is not None:
            shim.arm(run, Shim.COUNT, 0)
            real = os._exit

            def leave(code: int) -> None:
                counted.write_text(str(shim.calls()))
                real(code)

            os._exit = leave  # type: ignore[assignment]

    restore(before, run)
    started = time.monotonic()
    code = ended(start(command, log, count))
    if code:
        sys.exit(f"torture: {name} does not run undisturbed ({code}): {log.read_text()[-2000:]}")
    shutil.copytree(run, work / f"after-{name}")
    return Stage(
        name=name,
        command=command,
        before=before,
        after=facts(run),
        seconds=time.monotonic() - started,
        calls=int(counted.read_text()) if counted.is_file() else 0,
    )


def restore(before: Path, run: Path) -> None:
    shutil.rmtree(run, ignore_errors=True)
    shutil.copytree(before, run)
