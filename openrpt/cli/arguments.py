"""Types of the command line's arguments: paths, labels and numbers that are refused in one line."""

import math
import re
from collections.abc import Callable
from typing import Any

import click

from openrpt.config.paths import require_path, require_reachable
from openrpt.errors import nearest

_LONGEST_LABEL = 100


class PathName(click.ParamType):
    """A path that can be, whether or not something is there. `check`: what its text must be."""

    name = "path"

    def __init__(self, check: Callable[[str], str] = require_path) -> None:
        self.check = check

    def convert(self, value: Any, param: Any, ctx: Any) -> str:
        """Returns the path as it was typed; fails for what can be none."""
        try:
            return require_reachable(self.check(value))
        except ValueError as error:
            self.fail(f"'{value}': {error}", param, ctx)


class _Text(click.ParamType):
    """A text that is UTF-8."""

    name = "text"

    def convert(self, value: Any, param: Any, ctx: Any) -> str:
        """Returns the text; fails for what is not UTF-8."""
        try:
            value.encode()
        except UnicodeEncodeError as error:
            self.fail(f"not UTF-8 at character {error.start}", param, ctx)
        return str(value)


class _Label(click.ParamType):
    """A name that becomes a file's or a folder's; empty for one that is made up."""

    name = "label"

    def convert(self, value: Any, param: Any, ctx: Any) -> str:
        """Returns the label; fails for what can't name a file."""
        if re.search(r"[/\\]|^\.", value) or not value.isprintable() or len(value) > _LONGEST_LABEL:
            self.fail(
                f"'{value}' becomes a file's name: no slashes, no leading dot, no hidden"
                f" characters, at most {_LONGEST_LABEL} of them",
                param,
                ctx,
            )
        return str(value)


class Number(click.FloatRange):
    """A number in a range; NaN is in none."""

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        """Returns the number; fails for NaN."""
        number = float(super().convert(value, param, ctx))
        if math.isnan(number):
            self.fail(f"{value} is not a number", param, ctx)
        return number


class Command(click.Command):
    """A command that answers an unknown option with the nearest: of equals, one of its own section
    of the configuration (`--train.` of train), then one that its help shows."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parses. Raises UsageError."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            options = [one for one in self.get_params(ctx) if isinstance(one, click.Option)]
            own = f"--{self.name}."
            options.sort(key=lambda one: (not one.opts[0].startswith(own), one.hidden))
            known = [opt.lstrip("-") for one in options for opt in one.opts]
            hint = nearest(error.option_name.lstrip("-"), known, otherwise="see --help")
            hint = hint.replace("nearest: '", "nearest: '--")
            raise click.UsageError(f"No such option '{error.option_name}'{hint}", ctx) from None


class RunCommand(Command):
    """A command whose first arguments are runs: `--run` gives them, too, as it does elsewhere."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parses, with what stands behind each `--run` put first."""
        runs: list[str] = []
        rest = list(args)
        while "--run" in rest[:-1]:
            at = rest.index("--run")
            runs.append(rest[at + 1])
            del rest[at : at + 2]
        for one in [one for one in rest if one.startswith("--run=")]:
            runs.append(one.removeprefix("--run="))
            rest.remove(one)
        return super().parse_args(ctx, [*runs, *rest])

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the options, and `--run` behind them."""
        super().format_options(ctx, formatter)
        with formatter.section("Also"):
            formatter.write_dl([("--run RUN", "As the argument RUN")])


PATH = PathName()
LABEL = _Label()
TEXT = _Text()
STEP = click.IntRange(0, 10**9)
COUNT = click.IntRange(1, 10**9)

OF_PEAK = click.option(
    "--utilisation",
    type=Number(0, 1, min_open=True),
    help="Share of the GPU's peak rate that is reached [default 0.25]",
)
