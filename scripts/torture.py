"""Kills stages, fills disks and flips bits, and sees whether a restart ends at the same result.

    python scripts/torture.py --seconds 300 --seed 0 --areas kill,stop,calls,disk,flip

On a tiny model; each stage is run once in peace, then disturbed again and again:

- kill: SIGKILL at a random moment of score, warmup, pretrain, train (LoRA, too), evaluate and
  finetune;
- stop: SIGTERM at such a moment: one line, no traceback;
- calls: SIGKILL before, in the middle of or after the n-th call that changes a file of the run;
- disk: from the n-th such call on the disk is full, or the n-th fails once (EIO): one line, no
  traceback;
- flip: a bit of a checkpoint, the warmed-up policy, the scores or the records of the steps is
  flipped: the next stage names the file, or what it makes is the same.

After each disturbance (but flips) the same command is started again: it must end well, with
weights, metrics, rollouts, scores and evaluations that are equal to the bit, and without leftovers.
Exits with 1 if anything broke. The calls are counted by a small C library (torture_shim.c), so
these areas need a C compiler and Linux.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import click

os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}

from torture_stages import Shim, Stage, ended, facts, in_peace, make_stages, restore, start

AREAS = ("kill", "stop", "calls", "disk", "flip")
SHIM = "OPENRPT_TORTURE_SHIM"


class Torture:
    """Each method of an area's name disturbs once; returns what was done and what broke ('' =
    held)."""

    def __init__(self, work: Path, shim: Path | None, seed: int) -> None:
        self.work, self.run, self.log = work, work / "run", work / "log.txt"
        self.rng = random.Random(seed)
        self.shim = Shim(shim) if shim else None
        self.stages = make_stages(work, self.shim)
        config, trained = self.stages[0].command[-1], work / "after-train"
        self.readers = [
            in_peace("more", ("train", config, "--train.steps", "6"), trained, work, None),
            in_peace("evaluated", ("evaluate", "warmup", config), trained, work, None),
        ]

    def kill(self) -> tuple[str, str]:
        stage, seconds, _ = self._signalled(signal.SIGKILL)
        return f"{stage.name} after {seconds:.2f} s", self._restarted(stage)

    def stop(self) -> tuple[str, str]:
        stage, seconds, code = self._signalled(signal.SIGTERM)
        began = code != -signal.SIGTERM  # else it came before the command could hear it
        broken = self._poor_end(code, stopped=128 + signal.SIGTERM) if began else ""
        return f"{stage.name} after {seconds:.2f} s", broken or self._restarted(stage)

    def calls(self) -> tuple[str, str]:
        modes = {"before": Shim.KILL_BEFORE, "in": Shim.KILL_HALF, "after": Shim.KILL_AFTER}
        when = self.rng.choice(list(modes))
        stage, at, _ = self._faulty(modes[when])
        return f"{stage.name} {when} call {at}", self._restarted(stage)

    def disk(self) -> tuple[str, str]:
        modes = {"full from": Shim.FULL_FROM, "EIO at": Shim.FAIL_ONCE}
        how = self.rng.choice(list(modes))
        stage, at, code = self._faulty(modes[how])
        broken = self._poor_end(code)
        return f"{stage.name}, {how} call {at}", broken or self._restarted(stage)

    def flip(self) -> tuple[str, str]:
        reader = self.rng.choice(self.readers)
        restore(reader.before, self.run)
        patterns = ("checkpoints/step-*/**/*", "warmup/**/*", "scored/**/*", "*.jsonl")
        files = [
            path
            for pattern in patterns
            for path in sorted(self.run.glob(pattern))
            if path.is_file() and path.stat().st_size
        ]
        path = self.rng.choice(files)
        data = bytearray(path.read_bytes())
        bit = self.rng.randrange(8 * len(data))
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        name = path.relative_to(self.run).as_posix()
        code = ended(start(reader.command, self.log))
        broken = self._poor_end(code)
        if not broken and code:
            broken = "" if path.name in self.log.read_text() else f"not named: {self._last_line()}"
        elif not broken:
            stands = path.is_file() and path.read_bytes() == bytes(data)  # it was not written anew
            broken = self._difference(reader, without=name if stands else "")
        return f"bit {bit} of {name}, then {reader.name}", broken

    def _signalled(self, signum: signal.Signals) -> tuple[Stage, float, int]:
        """A stage with a signal at a random moment: the stage, the moment, the exit code."""
        stage = self.rng.choice(self.stages)
        restore(stage.before, self.run)
        seconds = self.rng.uniform(0, stage.seconds)
        pid = start(stage.command, self.log)
        time.sleep(seconds)
        os.kill(pid, signum)
        return stage, seconds, ended(pid)

    def _faulty(self, mode: int) -> tuple[Stage, int, int]:
        """A stage with a fault at a random call: the stage, the call, the exit code."""
        shim, stage = self.shim, self.rng.choice(self.stages)
        assert shim is not None
        restore(stage.before, self.run)
        at = self.rng.randint(1, stage.calls)
        arm: Callable[[], None] = lambda: shim.arm(self.run, mode, at)  # noqa: E731
        return stage, at, ended(start(stage.command, self.log, arm))

    def _poor_end(self, code: int, stopped: int = 2) -> str:
        """'' for success, and for one line that says what went wrong, or that it was stopped."""
        good = code == 0 or (code == stopped and self._last_line().startswith("openrpt: "))
        if good and "Traceback" not in self.log.read_text():
            return ""
        return f"exit code {code}: {self._last_line()}"

    def _restarted(self, stage: Stage) -> str:
        code = ended(start(stage.command, self.log))
        if code:
            return f"the restart ends with {code}: {self._last_line()}"
        return self._difference(stage)

    def _difference(self, stage: Stage, without: str = "") -> str:
        found = facts(self.run, without)
        names = sorted(found.keys() | stage.after.keys() - {without})
        differ = [n for n in names if n != without and found.get(n) != stage.after.get(n)]
        said = [f"{name} ({found.get(name, 'missing')})" for name in differ[:3]]
        return f"{len(differ)} files differ: {', '.join(said)}" if differ else ""

    def _last_line(self) -> str:
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return lines[-1][:300] if lines else "nothing was said"


def compiled(folder: Path) -> Path | None:
    """The shim; None, and a line, where it can't be had."""
    compiler = shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        click.echo("calls and disk are left out: they need Linux and a C compiler (cc)")
        return None
    source, target = Path(__file__).with_name("torture_shim.c"), folder / "shim.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", target, source, "-ldl"], check=True)
    return target


@click.command(help=__doc__)
@click.option("--seconds", type=float, default=300.0, help="Time for all areas together [300]")
@click.option("--seed", type=int, default=0, help="Of what is disturbed, and when [0]")
@click.option("--areas", default=",".join(AREAS), help=f"Of {','.join(AREAS)} [all]")
def main(seconds: float, seed: int, areas: str) -> None:
    chosen = areas.split(",")
    if unknown := set(chosen) - set(AREAS):
        raise click.UsageError(
            f"no area {', '.join(sorted(unknown))}; there are: {', '.join(AREAS)}"
        )
    with tempfile.TemporaryDirectory(prefix="openrpt-torture-") as folder:
        if SHIM not in os.environ:  # preloaded from the start, by a process that clears up
            shim = compiled(Path(folder))
            preload = {"LD_PRELOAD": str(shim)} if shim else {}
            environment = os.environ | preload | {SHIM: str(shim or "")}
            sys.exit(
                subprocess.run([sys.executable, *sys.argv], env=environment, check=False).returncode
            )
        path = os.environ[SHIM]
        chosen = [area for area in chosen if path or area not in ("calls", "disk")]
        torture = Torture(Path(folder).resolve(), Path(path) if path else None, seed)
        sys.exit(1 if disturb(torture, chosen, seconds) else 0)


def disturb(torture: Torture, areas: Sequence[str], seconds: float) -> int:
    """The areas in turn until the time is over; prints the table and returns what broke."""
    tries, broke = dict.fromkeys(areas, 0), dict.fromkeys(areas, 0)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        area = min(areas, key=tries.__getitem__)
        what, broken = getattr(torture, area)()
        tries[area] += 1
        if broken:
            broke[area] += 1
            click.echo(f"BROKE {area}: {what}: {broken}")
    click.echo(f"{'area':8}{'tries':>8}{'held':>8}{'broke':>8}")
    for area in areas:
        click.echo(f"{area:8}{tries[area]:8}{tries[area] - broke[area]:8}{broke[area]:8}")
    return sum(broke.values())


if __name__ == "__main__":
    main()
