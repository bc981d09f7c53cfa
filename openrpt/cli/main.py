"""The command `openrpt`: each command imports its stage when it runs, so that help is instant."""

import gc
import os
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from openrpt import __version__
from openrpt.cli.arguments import Command
from openrpt.cli.options import HINT, StageCommand
from openrpt.errors import UserError, nearest
from openrpt.files import REMEDIES, reason_of
from openrpt.launch import launch
from openrpt.stopping import Interrupted, ending_as_interrupts, exit_code
from openrpt.terminal import open_streams, say_error, say_lines

if TYPE_CHECKING:
    from openrpt.config.sections import StageName
    from openrpt.progress import Progress


GARBAGE_THRESHOLD = 2_000_000
"""New objects between two searches for garbage while a command begins: torch and transformers make
a million that stay, and looking through them every 700, which is Python's default, is a quarter of
their import."""
_WORKING_THRESHOLD = 50_000
"""The same once a command is at work: what was imported is looked through no more."""

_Command = TypeVar("_Command", bound=click.Command)


_FAMILIES = (
    "traces",
    "training",
    "sweeping",
    "experimenting",
    "comparing",
    "predicting",
    "exporting",
    "asking",
    "analysing",
    "planning",
    "thinking",
    "looking",
    "hub",
)
"""The modules of this package that have the commands; they import what is heavy when one runs."""


class Stopped(click.ClickException):
    """Stopped at the user's wish, or by what one of several processes has met; what was done is
    saved."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class Commands(click.Group):
    """Commands in the order in which data flows; an unknown one names the nearest.

    The help lists each command behind the one that it says (`after`), else behind the one above it
    in its file.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._followers: defaultdict[str, list[str]] = defaultdict(list)
        self._last: dict[str, str] = {}
        """Module → the command that it added last."""

    def place(self, name: str, module: str, *, after: str) -> None:
        """Says where the help lists a command; `after`: the one before it, empty = the one above it
        in its module."""
        if after:
            self._followers[after].insert(0, name)
        else:
            self._followers[self._last.get(module, "")].append(name)
        self._last[module] = name

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Returns the names of all commands, in the order of the help."""
        _import_families()
        return list(self._from(""))[1:]

    def _from(self, name: str) -> Iterator[str]:
        yield name
        for follower in self._followers[name]:
            yield from self._from(follower)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Returns a command; None for an unknown one."""
        _import_families()
        return super().get_command(ctx, cmd_name)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """Finds the command; an unknown one is answered with the nearest."""
        if args and self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            known = [*self.list_commands(ctx), "--version"]
            hint = nearest(args[0], known, otherwise="see openrpt --help")
            raise click.UsageError(f"no command '{args[0]}'{hint}", ctx)
        return super().resolve_command(ctx, args)


def _import_families() -> None:
    for family in _FAMILIES:
        import_module(f"openrpt.cli.{family}")


@click.group(cls=Commands, invoke_without_command=True, context_settings={"max_content_width": 100})
@click.version_option(__version__, prog_name="openrpt")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Reinforcement pre-training: models that think before they predict the next token.

    \b
    openrpt demo                  the whole pipeline on a small model, in 15 minutes
    openrpt train --help          every key of a stage, with its unit, default and range

    The stages share a run folder (--run). A stage without a CONFIG.toml goes on with the
    configuration that is stored there.
    """
    name, processes = ctx.invoked_subcommand, launch().count
    if name is None:
        say_lines(ctx.get_help())
    elif processes > 1 and name not in (shared := _shared()):
        raise UserError(
            f"openrpt {name} runs in one process, and {processes} were launched: start it without"
            f" torchrun; several share {', '.join(shared)}"
        )


def _shared() -> list[str]:
    """Returns the commands whose steps several processes share (torchrun, accelerate launch): the
    stages that train."""
    from openrpt.config.sections import STAGES

    return [name for name, facts in STAGES.items() if facts.checkpoints]


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a command and exits: 0, 2 for what is the user's to mend (one line says what), 130
    where Ctrl-C stopped it, 143 SIGTERM, 129 SIGHUP. Any other exception is a bug of ours and keeps
    its traceback."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if gc.get_threshold()[0] < _WORKING_THRESHOLD:  # else a caller's own, which stays
        gc.set_threshold(GARBAGE_THRESHOLD)
    open_streams()
    try:
        with ending_as_interrupts():
            cli.main(args=arguments, prog_name="openrpt", standalone_mode=False)
        sys.stdout.flush()
    except Stopped as error:
        _fail(error.format_message(), error.code)
    except UserError as error:
        _fail_once(str(error))
    except click.ClickException as error:
        _fail_once(error.format_message())
    except (click.Abort, KeyboardInterrupt) as stop:
        _fail("interrupted", exit_code(stop.__cause__ or stop))
    except BrokenPipeError:  # whoever read our output (head, less) has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        if error.filename is None and error.errno not in REMEDIES:
            raise
        where = error.filename or "a file"
        _fail(f"{where}: cannot be read or written {reason_of(error)}", 2)
    sys.exit(0)


def _fail_once(message: str) -> None:
    """Ends with what all processes of a machine that were launched together meet: one says it."""
    if os.environ.get("LOCAL_RANK", "0") != "0":
        sys.exit(2)
    _fail(message, 2)


def _fail(message: str, exit_code: int) -> None:
    say_error(message)
    sys.exit(exit_code)


def begin_work() -> None:
    """Tells Python's search for garbage, once, that a command has imported what it needs."""
    if gc.get_threshold()[0] == GARBAGE_THRESHOLD:
        gc.freeze()
        gc.set_threshold(_WORKING_THRESHOLD)


@contextmanager
def showing_progress(*, goes_on: bool = False) -> Iterator["Progress"]:
    """Shows live progress; a stop becomes one line. `goes_on`: the same command takes up what is
    done."""
    from openrpt.progress import live_progress

    begin_work()
    context = click.get_current_context(silent=True)
    try:
        with live_progress(hint=context.meta.get(HINT, "") if context else "") as progress:
            yield progress
    except Interrupted as stop:
        raise Stopped(str(stop), stop.exit_code) from None
    except KeyboardInterrupt as stop:
        text = "interrupted; the same command goes on" if goes_on else "interrupted"
        raise Stopped(text, exit_code(stop)) from None


def command(
    name: str,
    *,
    after: str = "",
    cls: type[_Command] = Command,  # type: ignore[assignment]
    **settings: Any,
) -> Callable[[Callable[..., None]], _Command]:
    """Makes a function the command `name`. `after`: the command behind which the help lists it;
    empty = the one above it in its file."""

    def add(function: Callable[..., None]) -> _Command:
        cli.place(name, function.__module__, after=after)
        return cast(_Command, cli.command(name, cls=cls, **settings)(function))

    return add


def stage(
    name: str,
    *shows: str,
    reads: "StageName | None" = None,
    after: str = "",
    cls: type[StageCommand] = StageCommand,
) -> Callable[[Callable[..., None]], click.Command]:
    """Makes a function the command `name`, which reads the configuration. In its help: the sections
    and keys that the results of the stage `reads` depend on, and those of `shows`."""
    return command(name, after=after, cls=cls, shows=shows, reads=reads)
