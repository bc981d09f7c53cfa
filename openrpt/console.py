"""rich's console for tables, colours and progress, by the rules of `openrpt.terminal`."""

from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from openrpt.terminal import KEPT, printable


class PlainConsole(Console):
    """A console that names hidden characters, and reads no markup or emoji codes in a text."""

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, markup=False, emoji=False, highlight=False)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Yields rich's segments with hidden characters named; segments that move the cursor
        stay."""
        for segment in super().render(renderable, options):
            if segment.control:  # moves the cursor, and is rich's own
                yield segment
            else:
                yield Segment(printable(segment.text, KEPT), segment.style)
