"""Ctrl-C, SIGTERM and SIGHUP: a stage ends cleanly, any other command with one line."""

import os
import signal
import time
from pathlib import Path

import pytest

from openrpt.cli.main import main
from openrpt.config.loading import to_toml
from openrpt.engine.checkpoint_record import read_record
from openrpt.evaluation.questions.checks import MathChecker
from openrpt.files import write_text
from openrpt.progress import SILENT
from openrpt.runs.checkpoints import latest_checkpoint
from openrpt.runs.journal import read_stage
from openrpt.runs.metrics import read_metrics
from openrpt.runs.run import Run
from openrpt.stages.train import Trainer, train
from openrpt.stopping import Interrupted, Terminated, ending_as_interrupts, stop_on_signals
from tests.helpers.processes import in_processes
from tests.helpers.tiny_model import copied_run, tiny_run

pytestmark = [
    pytest.mark.skipif(os.name == "nt", reason="signals"),
    pytest.mark.usefixtures("heard"),
]


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return tiny_run(tmp_path_factory.mktemp("stopping"))


class Signals(type(SILENT)):  # type: ignore[misc]
    """Sends these once step 2 is done."""

    def __init__(self, *signals: int) -> None:
        self.signals = signals

    def update(self, completed: float, note: str = "") -> None:
        for signum in self.signals if completed == 2 else ():
            os.kill(os.getpid(), signum)


@pytest.mark.parametrize(
    ("signals", "code"),
    [
        ((signal.SIGINT,), 130),
        ((signal.SIGTERM,), 143),
        ((signal.SIGHUP,), 129),
        ((signal.SIGHUP, signal.SIGHUP, signal.SIGTERM), 129),  # of a terminal that is closed
    ],
)
def test_a_stage_ends_cleanly(scored: Run, signals: tuple[int, ...], code: int) -> None:
    run = copied_run(scored, f"ends-{code}-{len(signals)}", train__steps=4)
    before = [signal.getsignal(signum) for signum in signals]
    with pytest.raises(Interrupted, match="stopped in train after step 2; the same") as stop:
        train(run, progress=Signals(*signals))
    assert stop.value.exit_code == code
    assert [signal.getsignal(signum) for signum in signals] == before
    last, stage = latest_checkpoint(run.checkpoints), read_stage(run.path)
    assert last is not None and last.name == "step-000002"
    assert stage is not None and stage.state == "stopped"


def test_an_evaluation_is_left_at_once_and_made_up_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"corpus__development_fraction": 0.3, "train__steps": 2, "train__eval_every": 2}
    run = tiny_run(tmp_path, **settings)
    whole = copied_run(run, "whole", **settings)
    train(whole)
    evaluate, evaluated = Trainer.evaluate, []

    def stopped(trainer: Trainer) -> dict[str, float]:
        os.kill(os.getpid(), signal.SIGTERM)
        evaluated.append(evaluate(trainer))
        return evaluated[0]

    monkeypatch.setattr(Trainer, "evaluate", stopped)
    for _ in range(2):  # as it is made up for, too
        with pytest.raises(Interrupted, match="stopped in train after step 2") as stop:
            train(run)
        assert stop.value.exit_code == 143 and not evaluated
        assert "unevaluated" in read_metrics(run.metrics)[-1]
    monkeypatch.undo()
    train(run)
    states, accuracies = [], []
    for one in (run, whole):
        states.append(read_record(one.checkpoints / "step-000002").state)
        accuracies.append(read_metrics(one.metrics)[-1]["development/reasoning_accuracy"])
    assert accuracies[0] == accuracies[1]
    assert [(state.best_step, state.best_accuracy) for state in states] == [(2, accuracies[0])] * 2


def test_a_second_ctrl_c_stops_at_once() -> None:
    said: list[str] = []
    with pytest.raises(KeyboardInterrupt), stop_on_signals(said.append) as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested and len(said) == 1
        os.kill(os.getpid(), signal.SIGINT)


def test_a_terminal_that_is_gone_is_no_error() -> None:
    def say(line: str) -> None:
        raise OSError(5, "Input/output error")

    with stop_on_signals(say) as stop:
        os.kill(os.getpid(), signal.SIGHUP)
    assert stop.requested and stop.exit_code == 129


def test_ignored_signals_stay_ignored() -> None:
    """As nohup has it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with ending_as_interrupts(), stop_on_signals(print) as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.requested
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_other_commands_are_left_as_by_ctrl_c() -> None:
    with pytest.raises(Terminated) as stop, ending_as_interrupts():
        os.kill(os.getpid(), signal.SIGTERM)
    assert isinstance(stop.value, KeyboardInterrupt) and stop.value.signum == signal.SIGTERM


def test_a_training_process_that_is_terminated(scored: Run) -> None:
    run = copied_run(scored, "process", train__steps=100_000)
    (run.path / "config.toml").write_text(to_toml(run.config), encoding="utf-8")
    pid = run.path / "pid"

    def work(rank: int) -> None:
        if rank == 0:
            write_text(pid, str(os.getpid()))
            main(["train", "--run", str(run.path)])
        while len(read_metrics(run.metrics)) < 2:  # however long two steps take
            time.sleep(0.05)
        os.kill(int(pid.read_text()), signal.SIGTERM)

    trained, _ = in_processes(2, work, WORLD_SIZE="1")
    last = read_metrics(run.metrics)[-1]["step"]
    line = f"openrpt: stopped in train after step {last}; the same command goes on"
    assert trained.code == 143 and trained.err.rstrip().endswith(line)
    assert latest_checkpoint(run.checkpoints) == run.checkpoints / f"step-{last:06d}"


def test_a_group_s_signals_leave_the_math_worker_alone() -> None:
    """Else the answers of a stage's last step are wrong: a scheduler signals every process."""
    pytest.importorskip("math_verify")
    with MathChecker(seconds=60.0) as check:
        assert check("1/4", "0.25")
        assert check.worker.process is not None
        for signum in (signal.SIGTERM, signal.SIGHUP):
            check.worker.process.send_signal(signum)
        assert check("1/8", "0.125") and not check.given_up
