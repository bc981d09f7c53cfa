"""Keys that name a part: one of OpenRPT's own, or a user's by its import path."""

from dataclasses import dataclass

from openrpt.errors import nearest
from openrpt.user_code import is_import_path


@dataclass(frozen=True, kw_only=True, slots=True)
class PartName:
    """The check of a part's name; that a user's part is there is checked where it is loaded."""

    kind: str
    """The word for such a part: `reward`."""
    known: tuple[str, ...]
    """The names of OpenRPT's own."""
    path: str = "package.module:function"
    """The form of a user's."""

    def __call__(self, name: str) -> str:
        """Returns the name. Raises ValueError, which gives the nearest, for one that is neither.

        >>> PartName(kind="judge", known=("exact", "fuzzy"))("fuzy")
        Traceback (most recent call last):
        ...
        ValueError: unknown judge 'fuzy'; nearest: 'fuzzy', or package.module:function
        """
        if name in self.known or is_import_path(name):
            return name
        hint = nearest(name, self.known, otherwise=f"one of {', '.join(self.known)}")
        raise ValueError(f"unknown {self.kind} '{name}'{hint}, or {self.path}")
