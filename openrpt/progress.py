"""Live progress: what is being done, how far, and how long it will still take."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.progress import TaskID


class Progress(Protocol):
    """What a stage tells the person who waits. `SILENT` says nothing."""

    def begin(self, task: str, total: float, unit: str = "") -> None:
        """A new task of a known size."""

    def update(self, completed: float, note: str = "") -> None:
        """How much of the task is done; the note is shown beside it."""

    def say(self, line: str) -> None:
        """One line that stays."""


class Silent:
    def begin(self, task: str, total: float, unit: str = "") -> None: ...

    def update(self, completed: float, note: str = "") -> None: ...

    def say(self, line: str) -> None: ...


SILENT = Silent()


class Live:
    """On a terminal a bar that moves; elsewhere a line at the begin and the end of each task."""

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
        self._finish()
        self._task = self._bars.add_task(task, total=max(total, 1e-9), note="")
        if not self.console.is_terminal:
            size = f" ({total:,.0f} {unit})" if unit else ""
            self.console.print(f"{task}{size} …")

    def update(self, completed: float, note: str = "") -> None:
        if self._task is not None:
            self._bars.update(self._task, completed=completed, note=note)

    def say(self, line: str) -> None:
        self.console.print(line)

    def _finish(self) -> None:
        if self._task is not None:
            self._bars.remove_task(self._task)
            self._task = None


@contextmanager
def live_progress() -> Iterator[Live]:
    live = Live()
    with live._bars:
        yield live
        live._finish()
