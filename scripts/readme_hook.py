"""The README as an index shows it: without what only the repository has.

hatchling calls `update` when it builds (pyproject.toml, `metadata.hooks.custom`). On the page of an
index a relative link leads nowhere: an image and the line about it are left out, of a link its text
stays.
"""

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

_FIGURE = re.compile(r"!\[[^\]]*\]\((?!https?:)[^)]*\)\n\n\*[^\n]*\*\n\n")
_LINK = re.compile(r"\[([^\]]*)\]\((?!https?:)[^)]*\)")


class ReadmeHook(MetadataHookInterface):
    """Gives the project its README."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Sets `readme`."""
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        shown = _LINK.sub(r"\1", _FIGURE.sub("", text))
        metadata["readme"] = {"content-type": "text/markdown", "text": shown}
