"""Types of the values that keys take on the command line: lists, tables, a number or a word."""

from collections.abc import Sequence
from typing import Any

import click

from openrpt.config.parts import PartName


class PartWord(click.Choice):
    """The name of a part, or a user's own by its import path: `entropy`, `mine:weights`."""

    def __init__(self, part: PartName) -> None:
        super().__init__(part.known)
        self.part = part

    def convert(self, value: Any, param: Any, ctx: Any) -> str:
        """Returns the name; fails, with the nearest, for one that is neither."""
        try:
            return self.part(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class CommaSeparated(click.ParamType):
    """A list: `train,heldout`. Without choices, of anything that has no comma."""

    name = "list"

    def __init__(self, choices: Sequence[str], part: PartName | None = None) -> None:
        self.choices = choices
        self.part = None if part is None else PartWord(part)

    def convert(self, value: Any, param: Any, ctx: Any) -> list[str]:
        """Returns the items; fails for one that is no choice."""
        items = [item.strip() for item in value.split(",") if item.strip()]
        for item in items:
            if self.part is not None:
                self.part.convert(item, param, ctx)
            elif self.choices and item not in self.choices:
                self.fail(f"'{item}' is none of {', '.join(self.choices)}", param, ctx)
        return items


class Weights(click.ParamType):
    """A table of numbers: `prefix=1,dense=0.2`."""

    name = "weights"

    def convert(self, value: Any, param: Any, ctx: Any) -> dict[str, float]:
        """Returns the weights of `name=number,…`."""
        weights: dict[str, float] = {}
        for item in value.split(","):
            name, _, number = (part.strip() for part in item.rpartition("="))
            try:
                weights[name] = float(number)
            except ValueError:
                self.fail(f"'{number}' in '{item}' is no number", param, ctx)
            if not name:
                self.fail(f"'{item}' has no name; it has the form NAME=WEIGHT", param, ctx)
        return weights


class NumberOrWord(click.ParamType):
    """A number, or a word in its place: `0.2`, `auto`."""

    name = "number or word"

    def __init__(self, number: Any, words: Sequence[str]) -> None:
        self.number, self.words = number, words

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """Returns the number, or one of the words as it is."""
        if value in self.words:
            return value
        try:
            return self.number(value)
        except ValueError:
            self.fail(f"'{value}' is neither a number nor {' or '.join(self.words)}", param, ctx)
