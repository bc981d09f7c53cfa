"""The template that a record becomes a text by."""

import string
from collections.abc import Mapping

from openrpt.errors import UserError


class Template:
    """`{field}` and literal text (`{{` is a brace); nothing else of Python's format strings.

    >>> Template("Q: {problem} {{}}").render({"problem": "1 + 1?"})
    'Q: 1 + 1? {}'
    """

    def __init__(self, template: str) -> None:
        where = f"corpus.template = {template!r}"
        try:
            pieces = list(string.Formatter().parse(template))
        except ValueError as error:
            raise UserError(f"{where}: {error}; a literal brace is {{{{ or }}}}") from None
        self.pieces: list[tuple[str, str | None]] = []
        for literal, name, format_spec, conversion in pieces:
            if name is not None and (
                not name or name.isdigit() or set(name) & set(".[") or format_spec or conversion
            ):
                raise UserError(f"{where}: only plain fields such as {{problem}} can be used")
            self.pieces.append((literal, name))
        self.fields = tuple(dict.fromkeys(name for _, name in self.pieces if name is not None))
        if not self.fields:
            raise UserError(f"{where}: it names no field, such as {{text}}")

    def render(self, values: Mapping[str, str]) -> str:
        """Returns the text for these values of the fields."""
        return "".join(
            literal + (values[name] if name is not None else "") for literal, name in self.pieces
        )
