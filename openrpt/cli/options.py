"""Every key of the configuration as an option of the command line: `--train.learning_rate 2e-5`.

Made from `config/`, so that help, documentation and validation never drift apart. Importing
that takes longer than all else that `openrpt --help` does, so it is imported where it is read.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin

import click
from click.core import ParameterSource

from openrpt.cli.arguments import PATH, PathName
from openrpt.config.as_typed import ESCAPED, escape, unescape
from openrpt.config.paths import require_path, require_path_or_none, require_reachable
from openrpt.config.recipes import is_config
from openrpt.errors import UserError, nearest
from openrpt.terminal import say, say_lines

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from openrpt.config.section import Section
    from openrpt.config.sections import Config, StageName


_SIGNS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
OVERRIDES = "openrpt.overrides"


@dataclass(frozen=True, kw_only=True, slots=True)
class Key:
    """One key of the configuration, as people read it."""

    name: str
    """The dotted name: `train.learning_rate`."""
    annotation: Any
    default: Any
    description: str
    limits: str
    """The bounds, `≥ 0, < 1`; empty where there are none."""
    path_check: Callable[[str], str] | None
    """The check of a path, which raises ValueError for what can be none; None for other keys."""

    @property
    def section(self) -> str:
        """The section's name."""
        return self.name.rpartition(".")[0]

    @property
    def choices(self) -> tuple[str, ...]:
        """The words that a key, or each item of its list, may be; empty where anything goes."""
        inner = get_args(self.annotation)[0] if self.is_list else self.annotation
        if self.number is not None:
            inner = get_args(inner)[1]
        return get_args(inner) if get_origin(inner) is Literal else ()

    @property
    def number(self) -> Any:
        """The kind of number that a key may be in place of its words; None for other keys."""
        if get_origin(self.annotation) not in (UnionType, Union):
            return None
        return get_args(get_args(self.annotation)[0])[0]

    @property
    def is_list(self) -> bool:
        """Whether the key's value is a list."""
        return get_origin(self.annotation) is list

    @property
    def is_table(self) -> bool:
        """Whether the key's value is a table of names and numbers."""
        return get_origin(self.annotation) is dict

    @property
    def is_file(self) -> bool:
        """Whether the key's value is what a file holds, which is named in its place."""
        return get_origin(self.annotation) is tuple

    @property
    def shown_default(self) -> str:
        """The default as one types it after the option."""
        if self.is_table:
            return ",".join(f"{name}={value:g}" for name, value in self.default.items())
        if self.is_list:
            return ",".join(self.default) or "''"
        if self.is_file:
            return "''"
        if isinstance(self.default, str) and self.name in ESCAPED:
            return f"'{escape(self.default)}'"
        return json.dumps(self.default).strip('"') or "''"

    @property
    def help(self) -> str:
        """The option's help: the key's description with its default and limits."""
        facts = "; ".join(part for part in (f"default {self.shown_default}", self.limits) if part)
        return f"{self.description} [{facts}]"


def sections() -> "dict[str, type[Section]]":
    """Returns each section's class by its name, in the configuration's order."""
    from openrpt.config.section import Section
    from openrpt.config.sections import Config

    fields = Config.model_fields.items()
    return {
        name: field.annotation
        for name, field in fields
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section)
    }


def config_keys() -> Iterator[Key]:
    """Yields all keys, in the configuration's order."""
    from openrpt.config.sections import Config

    found = sections()
    for name, field in Config.model_fields.items():
        if name not in found:
            yield _key(name, field)
            continue
        for key, inner in found[name].model_fields.items():
            yield _key(f"{name}.{key}", inner)


def _key(name: str, field: "FieldInfo") -> Key:
    from pydantic import AfterValidator

    # The metadata are annotated_types' bounds, Ge(ge=0) or Lt(lt=1), and validators.
    metadata = field.metadata
    if get_origin(field.annotation) in (UnionType, Union):  # a number, or words in its place
        (inner,) = get_args(field.annotation)[0].__metadata__
        metadata = inner.metadata
    bounds = [bound for constraint in metadata for bound in asdict(constraint).items()]
    limits = [f"{_SIGNS[name]} {value:,}" for name, value in bounds if name in _SIGNS]
    checks = [
        check
        for check in (require_path, require_path_or_none)
        if AfterValidator(check) in field.metadata
    ]
    return Key(
        name=name,
        annotation=field.annotation,
        default=field.default,
        description=field.description or "",
        limits=", ".join(limits),
        path_check=next(iter(checks), None),
    )


class CommaSeparated(click.ParamType):
    """A list: `train,heldout`. Without choices, of anything that has no comma."""

    name = "list"

    def __init__(self, choices: Sequence[str]) -> None:
        self.choices = choices

    def convert(self, value: Any, param: Any, ctx: Any) -> list[str]:
        """Returns the items; fails for one that is no choice."""
        items = [item.strip() for item in value.split(",") if item.strip()]
        for item in items:
            if self.choices and item not in self.choices:
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


class ConfigOption(click.Option):
    """An option that overrides a key; what was given is kept in the context, under OVERRIDES."""

    def __init__(self, key: Key, *, hidden: bool) -> None:
        self.key = key
        flag = f"--{key.name}/--no-{key.name}" if key.annotation is bool else f"--{key.name}"
        kind: Any = None if key.annotation is bool else key.annotation
        if key.is_list:
            kind = CommaSeparated(key.choices)
        elif key.is_table:
            kind = Weights()
        elif key.number is not None:
            kind = NumberOrWord(key.number, key.choices)
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
    return (",".join(key.choices) or "ITEM,…") if key.is_list else None


def _remember(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    assert isinstance(param, ConfigOption) and param.name
    if ctx.get_parameter_source(param.name) is ParameterSource.COMMANDLINE:
        name = param.key.name
        given = unescape(value) if name in ESCAPED else value
        ctx.meta.setdefault(OVERRIDES, {})[name] = given


class StageCommand(click.Command):
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
            ConfigOption(key, hidden=not shown & {key.name, key.section}) for key in config_keys()
        ]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parses; an unknown option is answered with the nearest: of equals, one of the command's
        own section, then one in its help."""
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


def stage_config(
    ctx: click.Context,
    file: str | None,
    *,
    base: "Config | None" = None,
    more: dict[str, Any] | None = None,
) -> "Config":
    """Returns what a command runs with: what the command line says, then the file, then `base`, or
    the run folder's own configuration where there is one, then the defaults.

    So a run's later stages need nothing but `--run`. Prints it and exits under `--print-config`.
    Such a command runs a model: the process gets the configuration's threads here.
    """
    from openrpt.config.loading import load_config, to_toml, with_file, with_overrides
    from openrpt.config.recipes import config_path
    from openrpt.config.toml_files import read_toml
    from openrpt.runs.run import stored_config

    overrides = {**(more or {}), **ctx.meta.get(OVERRIDES, {})}
    values = {} if file is None else read_toml(config_path(file))
    config = base
    if config is None:
        if "run" not in values:
            overrides.setdefault("run", load_config().run)
        run = Path(_reachable(overrides.get("run", str(values.get("run")))))
        config = stored_config(run) if (run / "config.toml").is_file() else load_config()
    if file is not None:
        config = with_file(config, values, source=file)
    config = with_overrides(config, overrides)
    _reachable(config.run)
    if ctx.params["print_config"]:
        say_lines(to_toml(config).removesuffix("\n"))
        ctx.exit()
    from openrpt.engine.cpu import use_cpu

    use_cpu(config.model.threads)
    return config if config.model.compute_dtype != "auto" else _with_faster_products(config)


def _with_faster_products(config: "Config") -> "Config":
    """Returns the configuration with the precision of products that a run has begun with, else the
    one that is faster here, which is said.

    Raises UserError where several processes begin a run together: each would measure its own.
    """
    from openrpt.config.loading import with_overrides
    from openrpt.costs.product_speed import product_speed
    from openrpt.engine.loading import pick_device
    from openrpt.launch import launch
    from openrpt.runs.run import stored_config

    run = Path(config.run)
    if (run / "config.toml").is_file():
        chosen = stored_config(run).model.compute_dtype
        return with_overrides(config, {"model.compute_dtype": chosen})
    if config.model.dtype != "float32":  # there is nothing to mix
        return with_overrides(config, {"model.compute_dtype": "same"})
    if launch().count > 1:
        raise UserError(
            "model.compute_dtype = 'auto' is measured by one process, and a run of several must"
            " agree; give same or bfloat16 (openrpt doctor measures both)"
        )
    speed = product_speed(pick_device(config.model.device))
    named = {"same": "float32", "bfloat16": "bfloat16"}[speed.compute_dtype]
    say(f"products in {named}: here bfloat16 is {speed.gain:.2g} times as fast as float32")
    return with_overrides(config, {"model.compute_dtype": speed.compute_dtype})


def _reachable(run: str) -> str:
    """Returns the path of a run folder. Raises UserError where the system refuses it."""
    try:
        return require_reachable(run)
    except ValueError as error:
        raise UserError(f"run = '{run}': {error}; choose another --run") from None


def config_file(positional: str | None, option: str | None) -> tuple[str | None, str | None]:
    """Returns (what the positional argument names, the configuration): a positional .toml or recipe
    is the latter."""
    if positional is None or not is_config(positional):
        return positional, option
    if option is not None:
        raise UserError(f"two configuration files, {positional} and {option}: give one")
    return None, positional


def source_config(
    ctx: click.Context, source: str | None, *, key: str, base: "Config | None" = None
) -> "Config":
    """Returns `stage_config` for `[CORPUS | CONFIG.toml]` or `[MODEL | CONFIG.toml]`, where the
    corpus or the model is the value of `key`."""
    value, file = config_file(source, ctx.params["config_file"])
    return stage_config(ctx, file, base=base, more={key: value} if value else None)


def model_and_config(ctx: click.Context, source: str | None) -> "tuple[str | None, Config]":
    """Returns (the model of `[MODEL | CONFIG.toml]`, `stage_config`), as `models_and_config`; None
    for the run's latest."""
    models, config = models_and_config(ctx, (source,) if source else ())
    return models[0] if models else None, config


def models_and_config(
    ctx: click.Context, sources: tuple[str, ...]
) -> "tuple[tuple[str, ...], Config]":
    """Returns (the models of `[MODEL]... [CONFIG.toml]`, `stage_config`): what stands among them
    and is a .toml or a recipe is the configuration, and a run folder gives `--run` where it isn't
    given.
    """
    models = tuple(source for source in sources if not is_config(source))
    file = ctx.params["config_file"]
    for source in sources:
        if is_config(source):
            _, file = config_file(source, file)
    runs = [model for model in models if (Path(model) / "config.toml").is_file()]
    if "run" in ctx.meta.get(OVERRIDES, {}) or len(runs) != 1:
        return models, stage_config(ctx, file)
    models = tuple(model for model in models if model != runs[0])
    return models, stage_config(ctx, file, more={"run": runs[0]})
