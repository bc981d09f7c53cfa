"""The configuration that a command runs with: what the command line says, then a file, then the run
folder, then the defaults."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from openrpt.cli.options import HINT, OVERRIDES
from openrpt.config.paths import require_reachable
from openrpt.config.recipes import is_config
from openrpt.errors import UserError
from openrpt.terminal import say, say_lines

if TYPE_CHECKING:
    from openrpt.config.corpus import CorpusConfig
    from openrpt.config.sections import Config
    from openrpt.runs.run import Run


def stage_config(
    ctx: click.Context,
    file: str | None,
    *,
    base: "Config | None" = None,
    more: dict[str, Any] | None = None,
    check: "Callable[[Config], None] | None" = None,
) -> "Config":
    """Returns what a command runs with: what the command line says, then the file, then `base`, or
    the run folder's own configuration where there is one, then the defaults.

    So a run's later stages need nothing but `--run`. Prints it and exits under `--print-config`.
    Such a command runs a model: the process gets the configuration's threads here. `check` comes
    before that, which takes seconds.
    """
    from openrpt.config.loading import load_config, to_toml, with_file, with_overrides
    from openrpt.config.recipes import config_path
    from openrpt.config.toml_files import read_toml
    from openrpt.runs.run import is_run, stored_config

    overrides = {**(more or {}), **ctx.meta.get(OVERRIDES, {})}
    values = {} if file is None else read_toml(config_path(file))
    config = base
    if config is None:
        if "run" not in values:
            overrides.setdefault("run", load_config().run)
        run = Path(_reachable(overrides.get("run", str(values.get("run")))))
        config = stored_config(run) if is_run(run) else load_config()
    if file is not None:
        config = with_file(config, values, source=file)
    config = with_overrides(config, overrides)
    _reachable(config.run)
    if ctx.params["print_config"]:
        say_lines(to_toml(config).removesuffix("\n"))
        ctx.exit()
    if check is not None:
        check(config)
    take_cpu(config.model.threads)
    return with_faster_products(config)


def with_faster_products(config: "Config") -> "Config":
    """Returns the configuration with the precision of products that a run has begun with, else the
    one that is faster here, which is said; as it is where it names one.

    Raises UserError where several processes begin a run together: each would measure its own.
    """
    if config.model.compute_dtype != "auto":
        _warn_of_slow_products(config)
        return config
    from openrpt.config.loading import with_overrides
    from openrpt.costs.product_speed import product_speed
    from openrpt.engine.loading import pick_device
    from openrpt.launch import launch
    from openrpt.runs.run import is_run, stored_config

    run = Path(config.run)
    if is_run(run):
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


def _warn_of_slow_products(config: "Config") -> None:
    """Says where a configuration names bfloat16 and the processor has no instructions for it."""
    if "bfloat16" not in (config.model.dtype, config.model.compute_dtype):
        return
    from openrpt.costs.product_speed import product_speed
    from openrpt.engine.loading import pick_device
    from openrpt.launch import launch

    device = pick_device(config.model.device)
    if device.type != "cpu" or launch().rank:
        return
    speed = product_speed(device)
    if speed.gain < 1:
        say(
            f"products in bfloat16, as the configuration says, take {1 / speed.gain:.2g} times as"
            " long here as in float32: a new run with --model.dtype float32"
            " --model.compute_dtype same is faster",
            err=True,
        )


def take_cpu(threads: int) -> None:
    """Gives the process its threads; what to do where the cores are busy is said once its work
    begins. Raises UserError."""
    from openrpt.engine.cpu import busy_cores, use_cpu

    use_cpu(threads)
    click.get_current_context().meta[HINT] = busy_cores(threads)


def _reachable(run: str) -> str:
    """Returns the path of a run folder. Raises UserError where the system refuses it."""
    try:
        return require_reachable(run)
    except ValueError as error:
        raise UserError(f"run = '{run}': {error}; choose another --run") from None


def _config_file(positional: str | None, option: str | None) -> tuple[str | None, str | None]:
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
    corpus or the model is the value of `key`; a corpus that is given must be there."""
    value, file = _config_file(source, ctx.params["config_file"])
    corpus = value is not None and key == "corpus.path"
    return stage_config(
        ctx,
        file,
        base=base,
        more={key: value} if value else None,
        check=_require_corpus if corpus else None,
    )


def _require_corpus(config: "Config") -> None:
    from openrpt.data.readers import require_there

    require_there(config.corpus.path)


def model_and_config(
    ctx: click.Context, source: str | None, *, in_run: bool = False
) -> "tuple[str | None, Config]":
    """Returns (the model of `[MODEL | CONFIG.toml]`, `stage_config`), as `models_and_config`; None
    for the run's latest."""
    models, config = models_and_config(ctx, (source,) if source else (), in_run=in_run)
    return models[0] if models else None, config


def models_and_config(
    ctx: click.Context, sources: tuple[str, ...], *, in_run: bool = False
) -> "tuple[tuple[str, ...], Config]":
    """Returns (the models of `[MODEL]... [CONFIG.toml]`, `stage_config`): what stands among them
    and is a .toml or a recipe is the configuration, and a run folder gives `--run` where it isn't
    given. `in_run`: a run has to be named (`named_run`).
    """
    from openrpt.runs.run import is_run

    models = tuple(source for source in sources if not is_config(source))
    file = ctx.params["config_file"]
    for source in sources:
        if is_config(source):
            _, file = _config_file(source, file)
    runs = [model for model in models if is_run(model)]
    more: dict[str, Any] = {}
    if "run" not in ctx.meta.get(OVERRIDES, {}) and len(runs) == 1:
        models = tuple(model for model in models if model != runs[0])
        more = {"run": runs[0]}

    def check(config: "Config") -> None:
        if in_run:
            named_run(ctx, config, models)

    return models, stage_config(ctx, file, more=more, check=check)


def named_run(ctx: click.Context, config: "Config", models: Sequence[str]) -> "Run":
    """Opens the run whose models are asked. Raises UserError where there is none: what `models`
    names that is not there, if no run was named."""
    from openrpt.config.loading import load_config
    from openrpt.config.sections import OWN_MODELS
    from openrpt.runs.run import existing_run, is_run

    given = "run" in ctx.meta.get(OVERRIDES, {}) or config.run != load_config().run
    if given or is_run(config.run):
        return existing_run(Path(config.run))
    lost = [one for one in models if one not in OWN_MODELS and not Path(one).exists()]
    missing = f"{lost[0]}: no such folder, and " if lost else ""
    raise UserError(f"{missing}no run is named ({config.run} is not there): give one by --run RUN")


def only_config(positional: str | None, option: str | None) -> str | None:
    """Returns the configuration of `[CONFIG.toml]`, given as an argument or by --config. Raises
    UserError for an argument that is none."""
    other, file = _config_file(positional, option)
    if other is None:
        return file
    from openrpt.runs.run import is_run

    if is_run(other):
        raise UserError(f"{other}: a run folder, no configuration; say --run {other}")
    missing = "" if Path(other).exists() else "no such file; "
    raise UserError(f"{other}: {missing}a configuration's name ends with .toml, or is recipe:NAME")


def other_corpus(ctx: click.Context, text: str | None) -> "CorpusConfig | None":
    """Returns the corpus of `--text`, read by the defaults and by what the command line says, not
    by the run's own template. Raises UserError for keys of a text that isn't given."""
    given = {k: v for k, v in ctx.meta.get(OVERRIDES, {}).items() if k.startswith("corpus.")}
    if text is None:
        if given:
            raise UserError(f"--{next(iter(given))}: about another text; give one by --text PATH")
        return None
    from openrpt.config.loading import load_config

    return load_config(overrides={**given, "corpus.path": text}).corpus
