"""Every key of the configuration as an option of the command line: `--train.learning_rate 2e-5`.

Made from `config/`, so that help, documentation and validation never drift apart.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from openrpt.cli.arguments import PATH, Command, PathName
from openrpt.cli.key_types import CommaSeparated, NumberOrWord, PartWord, Weights
from openrpt.config.as_typed import ESCAPED, unescape
from openrpt.config.keys import Key, described_keys, sections
from openrpt.config.paths import require_path_or_none

if TYPE_CHECKING:
    from openrpt.config.sections import StageName

OVERRIDES = "openrpt.overrides"
"""Where the context keeps the keys that the command line gives."""
HINT = "openrpt.hint"
"""Where it keeps what is to be said once the work begins."""


class ConfigOption(click.Option):
    """An option that overrides a key; what was given is kept in the context, under OVERRIDES."""

    def __init__(self, key: Key, *, hidden: bool) -> None:
        self.key = key
        flag = f"--{key.name}/--no-{key.name}" if key.annotation is bool else f"--{key.name}"
        kind: Any = None if key.annotation is bool else key.annotation
        if key.is_list:
            kind = CommaSeparated(key.choices, key.part)
        elif key.is_table:
            kind = Weights()
        elif key.number is not None:
            kind = NumberOrWord(key.number, key.choices)
        elif key.part is not None:
            kind = PartWord(key.part)
        elif key.choices:
            kind = click.Choice(key.choices)
        elif key.is_file:
            kind = PathName(require_path_or_none)
        elif key.path_check:
            kind = PathName(key.path_check)
        super().__init__(
            [flag, key.name.replace(".", "__")],
            type=kind,
            help=key.help,
            hidden=hidden,
            expose_value=False,
            callback=_remember,
            metavar=_metavar(key),
        )


def _metavar(key: Key) -> str | None:
    if key.is_table:
        return "NAME=WEIGHT,…"
    if key.is_file:
        return "FILE"
    if key.number is not None:
        return "|".join(["NUMBER", *key.choices])
    if key.is_list:
        return ",".join(key.choices) or "ITEM,…"
    return f"[{'|'.join((*key.choices, 'MODULE:NAME'))}]" if key.part is not None else None


def _remember(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    assert isinstance(param, ConfigOption) and param.name
    if ctx.get_parameter_source(param.name) is ParameterSource.COMMANDLINE:
        name = param.key.name
        given = unescape(value) if name in ESCAPED else value
        ctx.meta.setdefault(OVERRIDES, {})[name] = given


class StageCommand(Command):
    """A command that reads the configuration: every key is an option, those that it reads are
    in its help: what the stage `reads` depends on, and the sections or single keys of `shows`."""

    def __init__(
        self, *args: Any, shows: Sequence[str], reads: "StageName | None", **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.params.append(
            click.Option(
                ["--config", "config_file"],
                metavar="FILE",
                type=PATH,
                help="A TOML file or a recipe",
            )
        )
        self.params.append(
            click.Option(
                ["--print-config"], is_flag=True, help="Print the resolved TOML and do nothing"
            )
        )
        self.shows, self.reads = shows, reads

    @cached_property
    def config_options(self) -> list[ConfigOption]:
        """The options of the configuration, made when they are read: the list of commands does not
        wait for them."""
        from openrpt.config.binding import read_by

        shown = {*self.shows, *(read_by(self.reads) if self.reads else ())}
        return [
            ConfigOption(key, hidden=not shown & {key.name, key.section})
            for key in described_keys()
        ]

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Returns the command's own options, the configuration's, and `--help`."""
        *own, help_option = super().get_params(ctx)
        return [*own, *self.config_options, help_option]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the options grouped by section, each under what it is about."""
        about = {name: f"[{name}] {section.__doc__}" for name, section in sections().items()}
        groups: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx) if isinstance(param, click.Option) else None
            if record is not None:
                section = param.key.section if isinstance(param, ConfigOption) else ""
                groups.setdefault(about.get(section, "Options"), []).append(record)
        for heading, rows in groups.items():
            with formatter.section(heading.removesuffix(".")):
                formatter.write_dl(rows)
