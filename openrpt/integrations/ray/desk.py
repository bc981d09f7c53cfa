"""Where workers leave word for the process that waits for them. No torch: an actor that takes
messages starts faster without."""

from dataclasses import dataclass
from typing import Any


class Desk:
    """Where the workers leave word for the process that waits for them: an actor beside it."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, tuple[Any, ...]]] = []
        self.starts = 0
        self.failed = False

    def start(self) -> tuple[int, bool]:
        """Returns how often workers were started, this time included, and whether all has ended."""
        self.starts += 1
        return self.starts, self.failed

    def tell(self, what: str, *values: Any) -> None:
        """Takes a message: the name of a method of Progress or of an outcome, and its values."""
        self.messages.append((what, values))

    def fail(self, message: str) -> None:
        """Takes what the user is to mend, for which no new start helps."""
        self.failed = True
        self.messages.append(("failed", (message,)))

    def take(self) -> list[tuple[str, tuple[Any, ...]]]:
        """Returns the messages, each once."""
        taken, self.messages = self.messages, []
        return taken


@dataclass(frozen=True, kw_only=True, slots=True)
class Told:
    """A `Progress` that is shown where the command was typed."""

    desk: Any

    def begin(self, task: str, total: float, unit: str = "") -> None:
        """Passes it on."""
        self.desk.tell.remote("begin", task, total, unit)

    def update(self, completed: float, note: str = "") -> None:
        """Passes it on."""
        self.desk.tell.remote("update", completed, note)

    def say(self, line: str) -> None:
        """Passes it on."""
        self.desk.tell.remote("say", line)

    def end(self) -> None:
        """Passes it on."""
        self.desk.tell.remote("end")
