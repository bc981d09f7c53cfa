"""A run is a folder: its resolved config, its environment, its metrics, and what the stages add."""

import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from itertools import count
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from openrpt.config.as_typed import as_option
from openrpt.config.binding import bindings, first_change, spelled_change
from openrpt.config.loading import flatten, to_toml, validate_config
from openrpt.config.sections import STAGES, Config, StageName
from openrpt.config.toml_files import read_toml
from openrpt.errors import UserError
from openrpt.files import clear_leftovers, is_leftover, numbered, remove_folder, write_text, writing
from openrpt.json_files import read_json, write_sealed
from openrpt.runs.environment import environment
from openrpt.runs.lock import LOCK, sole_process
from openrpt.runs.trackers import require_installed


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run folder and its configuration; the properties are the places in it."""

    path: Path
    config: Config

    @property
    def scored(self) -> Path:
        """The folder of the scores."""
        return self.path / "scored"

    @property
    def start(self) -> Path:
        """The policy that reinforcement starts from, which warmup leaves."""
        return self.path / STAGES["warmup"].leaves

    @property
    def checkpoints(self) -> Path:
        """The folder of training's checkpoints."""
        return self.checkpoints_of("train")

    def checkpoints_of(self, stage: StageName) -> Path:
        """Returns the folder of what a restart of a training stage goes on from."""
        return self.path / STAGES[stage].checkpoints

    @property
    def metrics(self) -> Path:
        """The file of metrics, a line a step."""
        return self.path / "metrics.jsonl"

    @property
    def evaluation(self) -> Path:
        """The file of the models' evaluations."""
        return self.path / "evaluation.json"

    def standing(self) -> set[StageName]:
        """Returns the stages whose results stand in the folder, finished or begun."""
        found = {stage for stage in STAGES if self._has_begun(stage)}
        # Their checkpoints lie in one folder, which is a run's of either.
        return found - {"train"} if "finetune" in found else found

    def _has_begun(self, stage: StageName) -> bool:
        facts = STAGES[stage]
        if facts.mark:
            return (self.path / facts.mark).exists()
        if facts.leaves and (self.path / facts.leaves).is_dir():
            return True
        checkpoints = self.checkpoints_of(stage)
        return (checkpoints / "best").is_dir() or bool(numbered(checkpoints))

    @contextmanager
    def at_work(self, *, writes: bool = True) -> Iterator[None]:
        """Keeps other processes from writing in the folder meanwhile, after clearing what a killed
        one left half done. Where no run is (a model is asked without one) nothing is written or
        locked; nor where this process only reads, beside one that `writes`.

        Raises UserError that names the other process.
        """
        if not writes or not is_run(self.path):
            yield
            return
        with sole_process(self.path) as first:
            if first:
                _clear(self)
            yield


_P = ParamSpec("_P")
_T = TypeVar("_T")


def works_in_run(stage: Callable[Concatenate[Run, _P], _T]) -> Callable[Concatenate[Run, _P], _T]:
    """Lets a stage have its run folder to itself: see `Run.at_work`."""

    @wraps(stage)
    def alone(run: Run, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        with run.at_work():
            return stage(run, *args, **kwargs)

    return alone


def _clear(run: Run) -> None:
    clear_leftovers(run.path)
    for stage, facts in STAGES.items():
        if facts.leaves and (run.path / facts.leaves).is_dir():  # killed before they were gone
            remove_folder(run.checkpoints_of(stage))


def open_run(
    config: Config,
    *,
    min_free_bytes: int = 1 << 30,
    check_input: Callable[[Run], object] | None = None,
) -> Run:
    """Creates or reopens the run folder. The configuration of one that stands is replaced by
    `config` once a stage has work to do with it (`keep_config`).

    `check_input` reads a stage's input before anything is written: what it raises leaves no new
    folder, and an old one as it was.

    Raises UserError if the folder holds something else, if results stand there that were made with
    another value of a key that binds them (the key is named), if it is in use by another process,
    if the disk is nearly full, or if a tracker's package is missing.
    """
    require_installed(config.track.to)
    path = Path(config.run)
    run = Run(path=path, config=config)
    stored = path / "config.toml"
    if path.exists() and not path.is_dir():
        raise UserError(f"run = '{path}': a file of that name stands there; choose another --run")
    with writing(path, "choose another --run"):
        names = {one.name for one in path.iterdir()} if path.is_dir() else set()
    # What a kill leaves before there is a configuration does not count.
    if stored.name not in names and not all(n == LOCK or is_leftover(n) for n in names):
        raise UserError(
            f"run = '{path}': the folder is not empty and not a run; choose another --run"
        )
    stands = stored.name in names
    if check_input is not None and not stands:
        check_input(run)
    with writing(path, "choose another --run"):
        path.mkdir(parents=True, exist_ok=True)
    with sole_process(path) as first:
        if stands:
            before = existing_run(path)
            require_same_run(before, config)
            run = Run(path=path, config=_with_what_was_made(before, config))
            if check_input is not None:
                check_input(run)
        free = shutil.disk_usage(path).free
        if free < min_free_bytes:
            raise UserError(
                f"run = '{path}': only {free / 2**30:.1f} GiB are free on its disk; free some, or"
                " put the run elsewhere with --run"
            )
        if first:
            _clear(run)
        if not stands:
            keep_config(run)
    return run


def keep_config(run: Run) -> None:
    """Writes the configuration that a stage is about to work with into its folder, and where it
    does."""
    write_text(run.path / "config.toml", to_toml(run.config))
    write_sealed(run.path / "environment.json", environment())


def _with_what_was_made(before: Run, config: Config) -> Config:
    """Returns a configuration, with the section of each stage that has left its model, and so can't
    go on, as it was before: the run's records say what it was made with."""
    leaves = {name: facts.leaves for name, facts in STAGES.items() if facts.leaves}
    made = [name for name, folder in leaves.items() if (before.path / folder).is_dir()]
    return config.model_copy(update={name: getattr(before.config, name) for name in made})


def is_run(path: str | Path) -> bool:
    """Whether a run stands in a folder: what it was begun with does."""
    return (Path(path) / "config.toml").is_file()


def why_no_run(path: Path) -> str:
    """Returns what is the matter with a path at which no run stands, in a few words."""
    if path.is_dir():
        return "config.toml is missing"
    return "it is a file" if path.exists() else "there is no such folder"


def existing_run(path: Path) -> Run:
    """Returns a run to read. Raises UserError where there is none."""
    if not is_run(path):
        raise UserError(f"{path}: not a run folder ({why_no_run(path)})")
    return Run(path=path, config=stored_config(path))


def stored_config(path: Path) -> Config:
    """Returns the configuration of a run folder. Raises UserError where this version can't read it,
    with the version that made the run."""
    file = path / "config.toml"
    values = read_toml(file)
    try:
        return validate_config(values, source=str(file))
    except UserError as error:
        raise UserError(f"{error}{_made_by(path)}") from None


def _made_by(path: Path) -> str:
    import openrpt

    try:
        made = read_json(path / "environment.json", advice="")["openrpt"]
    except (OSError, UserError, KeyError, TypeError):
        return ""
    return f"; the run was made by OpenRPT {made}, this is {openrpt.__version__}"


def owning_run(path: Path) -> Run | None:
    """Returns the innermost run whose folder holds `path` (or is it); None where none does."""
    for folder in (path, *path.parents):
        if is_run(folder):
            return existing_run(folder)
    return None


def require_same(
    stored: Config,
    config: Config,
    whose: str,
    *,
    stages: Collection[StageName],
    run: Path,
    new: Path | None = None,
    helps: str = "give the old value",
) -> None:
    """Checks that a configuration differs from the stored one in no key that the results of
    `stages`, which stand in `run`, bind; `whose` says what was made with the stored one.

    Raises UserError that names the first such key, and the command that begins another run (`new`:
    its folder) with it from what holds.
    """
    key = first_change(stored, config, stages)
    if key is not None:
        now = flatten(config.model_dump(mode="json"))[key]
        begin = f"openrpt {first_reader(key)} --from {run} --run {new or next_name(run)}"
        raise UserError(
            f"{whose} with {spelled_change(key, stored, config)}; {helps}, or begin another run"
            f" with it: {begin} {as_option(key, now)}"
        )


def require_same_run(run: Run, config: Config) -> None:
    """Checks that a configuration may take the place of a run's own. Raises UserError as
    `require_same`."""
    whose = f"{run.path}: the folder belongs to a run"
    require_same(run.config, config, whose, stages=run.standing(), run=run.path)


def first_reader(key: str) -> StageName:
    """Returns the first stage that reads a key."""
    section = key.partition(".")[0]
    readers = (one for one in STAGES if one == section or one in bindings()[key].what)
    return next(readers, "score")


def next_name(run: Path) -> Path:
    """Returns the first free folder beside a run: `runs/maths-2`."""
    names = (run.with_name(f"{run.name}-{number}") for number in count(2))
    return next(path for path in names if not path.exists())
