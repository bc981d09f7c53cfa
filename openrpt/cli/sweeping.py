"""The command that makes one run a value: sweep."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import click

from openrpt.cli.arguments import PATH
from openrpt.cli.main import showing_progress, stage
from openrpt.cli.options import OVERRIDES, ConfigOption, StageCommand
from openrpt.cli.stage_config import only_config, stage_config
from openrpt.terminal import say

_SWEPT = "openrpt.swept"


class _Several(click.ParamType):
    """Several values of a key: `1e-5,2e-5`; of a text, a list or a table, `prefix=1;dense=1`."""

    name = "values"

    def __init__(self, inner: click.ParamType, separator: str) -> None:
        self.inner, self.separator = inner, separator

    def convert(self, value: Any, param: Any, ctx: Any) -> list[Any]:
        """Returns the values; fails for one that the key can't have."""
        parts = [part.strip() for part in value.split(self.separator)]
        return [self.inner.convert(part, param, ctx) for part in parts if part]


class _SweptOption(ConfigOption):
    """An option of a key that takes several values; those of one are overrides, as elsewhere."""

    def __init__(self, option: ConfigOption) -> None:
        super().__init__(option.key, hidden=option.hidden)
        if option.is_flag or option.key.name == "run":
            return
        is_text = option.key.annotation is str and option.key.part is None
        has_commas = option.key.is_list or option.key.is_table or is_text
        self.type = _Several(self.type, ";" if has_commas else ",")
        self.callback = _remember_several


def _remember_several(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    assert isinstance(param, ConfigOption)
    if value is None or ctx.get_parameter_source(str(param.name)) is None:
        return
    if len(value) == 1:
        ctx.meta.setdefault(OVERRIDES, {})[param.key.name] = value[0]
    else:
        ctx.meta.setdefault(_SWEPT, {})[param.key.name] = value


class _SweepCommand(StageCommand):
    """A stage's command whose keys take several values."""

    @cached_property
    def config_options(self) -> Sequence[ConfigOption]:  # type: ignore[override]
        """The options of the configuration, each of several values."""
        return [_SweptOption(option) for option in super().config_options]


@stage(
    "sweep",
    "warmup",
    "evaluate",
    "memory",
    "checkpoints",
    reads="train",
    after="evaluate",
    cls=_SweepCommand,
)
@click.argument("config_toml", metavar="[CONFIG.toml]", type=PATH, required=False)
@click.pass_context
def sweep(ctx: click.Context, config_toml: str | None, **options: Any) -> None:
    """Make a run for each value of a key, and compare them.

    \b
    openrpt sweep maths.toml --train.learning_rate 1e-5,2e-5,5e-5
    openrpt sweep --run runs/maths --train.group_size 4,8,16 --seed 0,1
    openrpt sweep --run runs/maths --reward.terms 'prefix=1;dense=1'

    Each combination is a run in RUN/sweep, one after another: warmed up where a key that differs is
    of the warmup, trained, evaluated. What they share, the scores and else the warmup, is made once
    in RUN (or taken from there). The same command goes on after a stop.
    """
    config = stage_config(ctx, only_config(config_toml, options["config_file"]))
    from openrpt.experiments.sweep import longer_command, run_sweep, variants_of

    variants = variants_of(config, ctx.meta.get(_SWEPT, {}))
    from openrpt.console import PlainConsole
    from openrpt.evaluation.next_token.compare import compare
    from openrpt.evaluation.next_token.comparison_files import write_comparison
    from openrpt.evaluation.next_token.recorded import find_evaluated
    from openrpt.evaluation.next_token.tables import print_comparison
    from openrpt.report.page import write_report

    with showing_progress(goes_on=True) as progress:
        shared, *runs = run_sweep(config, variants, progress=progress)
    sources = [str(run.path) for run in (shared, *runs)]
    comparison = compare(find_evaluated(sources), "")
    files = write_comparison(comparison, Path(config.run) / "sweep", sources)
    print_comparison(comparison, PlainConsole(), "differences")
    for path in (*files, write_report(runs[0], runs[1:])):
        say(path)
    say(f"next, with the most accurate of them: {longer_command(runs)}")
