"""Live progress: what is being done, how far, and how long it will still take."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Protocol

from openrpt.amounts import count, rough_duration

if TYPE_CHECKING:
    from rich.progress import TaskID

    from openrpt.console import PlainConsole

_LINE_SECONDS = 30.0
"""Seconds between two lines off a terminal, at least."""
_NEARLY = 0.99
"""Most of a bar that is full before its task has ended: what follows the last unit is work, too."""


class Progress(Protocol):
    """A protocol: what a stage tells the person who waits. `SILENT` says nothing."""

    def begin(self, task: str, total: float, unit: str = "") -> None:
        """Begins a task of `total` units in all; 0 = not known."""

    def update(self, completed: float, note: str = "") -> None:
        """Says that `completed` units of the task are done; the note is shown beside the bar."""

    def say(self, line: str) -> None:
        """Prints one line that stays."""

    def end(self) -> None:
        """Ends the task, before something else is said or begun."""


class Silent:
    """A `Progress` that says nothing."""

    def begin(self, task: str, total: float, unit: str = "") -> None:
        """Does nothing."""

    def update(self, completed: float, note: str = "") -> None:
        """Does nothing."""

    def say(self, line: str) -> None:
        """Does nothing."""

    def end(self) -> None:
        """Does nothing."""


SILENT = Silent()


@dataclass(frozen=True, kw_only=True)
class Named:
    """A `Progress` whose tasks say which part of a whole they belong to."""

    inner: Progress
    name: str

    def begin(self, task: str, total: float, unit: str = "") -> None:
        """Begins a task, behind the part's name."""
        self.inner.begin(f"{self.name} {task}", total, unit)

    def update(self, completed: float, note: str = "") -> None:
        """Passes on how much is done."""
        self.inner.update(completed, note)

    def say(self, line: str) -> None:
        """Passes on a line."""
        self.inner.say(line)

    def end(self) -> None:
        """Passes on that the task has ended."""
        self.inner.end()


class _Total:
    """The units of a task in all: a guess that gives way to another where it is passed, which is
    said at most every half minute."""

    def __init__(self, task: str, total: float, unit: str) -> None:
        self.task, self.total, self.unit = task, total, unit
        self._said: float | None = None

    def passed(self, completed: float) -> str:
        """Guesses anew where the total was passed; returns the line that says so, else nothing."""
        if not self.total or completed <= self.total:
            return ""
        self.total = 1.5 * completed
        now = monotonic()
        if self._said is not None and now - self._said < _LINE_SECONDS:
            return ""
        self._said = now
        much = f"{count(self.total)} {self.unit}".rstrip()
        return f"{self.task}: more than was thought, about {much} now"


class Bars:
    """A `Progress` on a terminal: a bar that moves."""

    def __init__(self, console: "PlainConsole", hint: str = "") -> None:
        from rich.progress import (
            BarColumn,
            Progress,
            SpinnerColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self.console = console
        self.bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", style="bold", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[share]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", style="dim", markup=False),
            console=console,
        )
        self._hint = hint
        self._task: TaskID | None = None
        self._whole = _Total("", 0.0, "")

    def begin(self, task: str, total: float, unit: str = "") -> None:
        """Begins a task, whose bar takes the last one's place."""
        self.end()
        if self._hint:
            self.say(self._hint)
            self._hint = ""
        self._whole = _Total(task, total, unit)
        self._task = self.bars.add_task(task, total=total or None, note="", share="")

    def update(self, completed: float, note: str = "") -> None:
        """Moves the bar."""
        if self._task is None:
            return
        if not self._whole.total:
            self.bars.update(self._task, note=note)
            return
        if line := self._whole.passed(completed):
            self.say(line)
        total = self._whole.total
        share = min(completed / total, _NEARLY)
        self.bars.update(
            self._task,
            total=total,
            completed=share * total,
            note=note,
            share=f"{share:>3.0%}",
        )

    def say(self, line: str) -> None:
        """Prints one line above the bar."""
        self.console.print(line, soft_wrap=True)

    def end(self) -> None:
        """Takes the bar down."""
        if self._task is not None:
            self.bars.remove_task(self._task)
            self._task = None


class Lines:
    """A `Progress` off a terminal: a line as a task begins, at its first result, then at most every
    half minute, and one at its end. Each begins with the task's name."""

    def __init__(self, console: "PlainConsole", hint: str = "") -> None:
        self.console, self._hint = console, hint
        self._whole = _Total("", 0.0, "")
        self._began = self._said = 0.0
        self._first: float | None = None
        self._last, self._note = 0.0, ""

    def begin(self, task: str, total: float, unit: str = "") -> None:
        """Says a task's name and size."""
        self.end()
        if self._hint:
            self.say(self._hint)
            self._hint = ""
        self._whole = _Total(task, total, unit)
        self._began, self._first = monotonic(), None
        size = f" ({count(total)} {unit})" if unit and total else ""
        self.say(f"{task}{size} …")

    def update(self, completed: float, note: str = "") -> None:
        """Says how far the task is: the first time, then where half a minute has gone by."""
        now = monotonic()
        self._last, self._note = completed, note
        if line := self._whole.passed(completed):
            self.say(line)
        if self._first is None or now - self._said >= _LINE_SECONDS:
            self._say_how_far(now)
        if self._first is None:
            self._first, self._began = completed, now

    def say(self, line: str) -> None:
        """Prints one line."""
        self.console.print(line, soft_wrap=True)

    def end(self, *, whole: bool = True) -> None:
        """Says that the task has ended, where it had a result; `whole`: nothing stopped it."""
        if self._whole.task and self._first is not None:
            much = f"{count(self._last)} {self._whole.unit.partition(',')[0]}".rstrip()
            said = f"done, {much}" if whole else f"stopped, {self._how_much()}"
            seconds = monotonic() - self._began
            took = f", {rough_duration(seconds)}" if seconds >= 1 else ""
            self.say(self._line(said + took))
        self._whole = _Total("", 0.0, "")

    def _say_how_far(self, now: float) -> None:
        parts, done = [self._how_much()], self._last - (self._first or 0.0)
        if self._whole.total and self._first is not None and done > 0:
            left = (self._whole.total - self._last) * (now - self._began) / done
            parts.append(f"about {rough_duration(left)} left")
        self.say(self._line(", ".join(parts)))
        self._said = now

    def _how_much(self) -> str:
        of = f" of {count(self._whole.total)}" if self._whole.total else ""
        return f"{count(self._last)}{of} {self._whole.unit}".rstrip()

    def _line(self, text: str) -> str:
        return f"{self._whole.task}: {text}" + (f" · {self._note}" if self._note else "")


@contextmanager
def live_progress(hint: str = "") -> Iterator[Bars | Lines]:
    """Gives a `Progress` on stderr: bars on a terminal, lines elsewhere. `hint`: said as the first
    task begins, so that an error before it stands alone."""
    from openrpt.console import PlainConsole

    console = PlainConsole(stderr=True)
    if console.is_terminal:
        shown = Bars(console, hint)
        with shown.bars:
            yield shown
            shown.end()
        return
    lines, whole = Lines(console, hint), False
    try:
        yield lines
        whole = True
    finally:
        lines.end(whole=whole)
