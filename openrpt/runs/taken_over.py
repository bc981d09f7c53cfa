"""A run that begins from another's results: their files are linked, not copied, and checked."""

import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from openrpt.config.sections import STAGES, Config, StageName
from openrpt.engine.checkpoint_record import RECORD, open_checkpoint
from openrpt.errors import UserError
from openrpt.files import replacing_folder
from openrpt.hashes import file_hash
from openrpt.json_files import read_as, write_sealed
from openrpt.runs.metrics import append_metrics, read_metrics
from openrpt.runs.run import Run, is_run, open_run, require_same, works_in_run

_FROM = "from.json"


@dataclass(frozen=True, kw_only=True)
class _Origin:
    """The run that a run was begun from, and the hashes of what it had then: `from.json`."""

    run: str
    scores: str
    """SHA-256 of `scored.json`; empty = none were taken."""
    warmup: str
    """SHA-256 of the warmup's `checkpoint.json`; empty = none was taken."""


def begin_from(
    source: Run, config: Config, stage: StageName, check_input: Callable[[Run], object]
) -> Run:
    """Opens the run of `config`, with those results of `source` that a stage is made from: its
    scores, and for train its warmup, where it has one. Where that was done before, opens it.

    `check_input` is the stage's, and reads the results where they are. Raises UserError for results
    that `config` would make otherwise (the key is named), for damaged ones, and for a folder that
    was begun otherwise.
    """
    run = Run(path=Path(config.run), config=config)
    if run.path.resolve() == source.path.resolve():
        raise UserError(f"--from {source.path}: begins another run; give that one's folder (--run)")
    origin = _origin(source, stage)
    stands = is_run(run.path)
    if stands and _stored(run) != origin and (_stored(run) or run.standing()):
        raise UserError(
            f"{run.path}: was not begun from {source.path} as it is now; leave --from out to go on"
            " with what stands there, or choose another --run"
        )

    def check(new: Run) -> None:
        unscored = origin.scores and not new.scored.is_dir()
        if unscored or (origin.warmup and not new.start.is_dir()):
            _require_fitting(source, config, stage)
            new = Run(path=source.path, config=config)
        check_input(new)

    run = open_run(config, check_input=check)
    _take(run, source, origin)
    return run


@works_in_run
def _take(run: Run, source: Run, origin: _Origin) -> None:
    write_sealed(run.path / _FROM, asdict(origin))
    if origin.scores:
        link_folder(source.scored, run.scored)
    if origin.warmup and "train" not in run.standing():
        take_warmup(source, run)


def _origin(source: Run, stage: StageName) -> _Origin:
    """Returns what a stage takes of a run. Raises UserError where a warmup has not ended, or its
    files have changed."""
    warmup = ""
    if "warmup" in STAGES[stage].made_from and "warmup" in source.standing():
        if not source.start.is_dir():
            raise UserError(
                f"{source.path}: its warmup has not ended: openrpt warmup --run {source.path}"
            )
        open_checkpoint(source.start)
        warmup = file_hash(source.start / RECORD)
    scored = source.path / STAGES["score"].mark
    takes = "score" in STAGES[stage].made_from
    scores = file_hash(scored) if takes and scored.is_file() else ""
    return _Origin(run=str(source.path), scores=scores, warmup=warmup)


def _stored(run: Run) -> _Origin | None:
    path = run.path / _FROM
    return read_as(_Origin, path, advice="delete it") if path.is_file() else None


def _require_fitting(source: Run, config: Config, stage: StageName) -> None:
    """Checks that the results to be taken are those that `config` would make."""
    done = [one for one in STAGES[stage].made_from if one in source.standing()]
    for one in done:
        what = {"score": "its scores were made", "warmup": "its warmup was made"}[one]
        require_same(
            source.config,
            config,
            f"{source.path}: {what}",
            stages={one},
            run=source.path,
            new=Path(config.run),
        )


def link_folder(source: Path, target: Path) -> None:
    """Puts a folder's files under another path, unless there is one; no second copy where the disk
    can link them. Raises UserError where a copy is not what was copied."""
    if not source.is_dir() or target.is_dir():
        return
    with replacing_folder(target) as partial:
        shutil.copytree(source, partial, copy_function=_link, dirs_exist_ok=True)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk, or one that knows no links
        shutil.copy2(source, target)
        if file_hash(Path(source)) != file_hash(Path(target)):
            raise UserError(f"{target}: not what {source} is; see what the disk does") from None


def take_warmup(source: Run, run: Run) -> None:
    """Puts a run's warmed-up policy, and what it cost, into another's folder."""
    if not source.start.is_dir() or run.start.is_dir():
        return
    run.metrics.unlink(missing_ok=True)  # of a start that was broken off here
    for row in read_metrics(source.metrics):
        if row["stage"] == "warmup":
            append_metrics(run.metrics, row)
    link_folder(source.start, run.start)
