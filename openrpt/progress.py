"""Live progress: what is being done, how far, and how long it will still take."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.progress import TaskID


class Progress(Protocol):
    """A protocol: what a stage tells the person who waits. `SILENT` says nothing."""

    def begin(self, task: str, total: float, unit: str = "") -> None:
        """Begins a task of `total` units in all."""

    def update(self, completed: float, note: str = "") -> None:
        """Says that `completed` units of the task are done; the note is shown beside the bar."""

    def say(self, line: str) -> None:
        """Prints one line that stays."""


class Silent:
    """A `Progress` that says nothing."""

    def begin(self, task: str, total: float, unit: str = "") -> None:
        """Does nothing."""

    def update(self, completed: float, note: str = "") -> None:
        """Does nothing."""

    def say(self, line: str) -> None:
        """Does nothing."""


SILENT = Silent()


class Live:
    """A `Progress` on stderr: on a terminal a bar that moves, elsewhere a line as each task
    begins."""

    def __init__(self) -> None:
        from rich.progress import (
            BarColumn,
            Progress,
            SpinnerColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        from openrpt.console import PlainConsole

        self.console = PlainConsole(stderr=True)
        self._bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", style="bold", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", style="dim", markup=False),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self._task: TaskID | None = None

    def begin(self, task: str, total: float, unit: str = "") -> None:
        """Begins a task; off a terminal, says its name and size in a line."""
        self._finish()
        self._task = self._bars.add_task(task, total=max(total, 1e-9), note="")
        if not self.console.is_terminal:
            size = f" ({total:,.0f} {unit})" if unit else ""
            self.console.print(f"{task}{size} …")

    def update(self, completed: float, note: str = "") -> None:
        """Moves the bar; off a terminal nothing is shown."""
        if self._task is not None:
            self._bars.update(self._task, completed=completed, note=note)

    def say(self, line: str) -> None:
        """Prints one line above the bar."""
        self.console.print(line)

    def _finish(self) -> None:
        if self._task is not None:
            self._bars.remove_task(self._task)
            self._task = None


@contextmanager
def live_progress() -> Iterator[Live]:
    """Gives a `Live` whose bars are taken down at the end."""
    live = Live()
    with live._bars:
        yield live
        live._finish()
