"""A stage's command in every process that a launcher has started: torchrun, accelerate launch."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from openrpt.cli.main import Stopped, begin_work, showing_progress
from openrpt.errors import SaidElsewhere, UserError
from openrpt.launch import launch
from openrpt.progress import SILENT, Progress
from openrpt.stopping import Interrupted, exit_code

if TYPE_CHECKING:
    from openrpt.config.sections import Config
    from openrpt.rl.workers import Workers
    from openrpt.runs.run import Run


@dataclass(frozen=True, kw_only=True, slots=True)
class _Shared:
    """What a stage runs with."""

    run: "Run"
    workers: "Workers"
    progress: Progress


@contextmanager
def shared(config: "Config", opened: "Callable[[], Run]") -> "Iterator[_Shared]":
    """Gives what a stage runs with, in the processes that were launched together.

    The first opens the run folder and shows progress. The others print nothing, unless the first is
    gone; for them the command ends with this block.
    """
    from openrpt.rl.launched import launched_workers

    rank = launch().rank
    try:
        with launched_workers(config.model.device, minutes=config.parallel.timeout) as workers:
            found = workers.first(opened)
            if rank == 0:
                with showing_progress(goes_on=True) as progress:
                    yield _Shared(run=found, workers=workers, progress=progress)
                return
            begin_work()
            run = replace(found, path=Path(config.run), config=config)
            yield _Shared(run=run, workers=workers, progress=SILENT)
    except SaidElsewhere:
        sys.exit(2)
    except UserError as error:
        if rank == 0:
            raise
        raise Stopped(str(error), 2) from None
    except (Interrupted, KeyboardInterrupt) as stop:
        if rank == 0:
            raise
        sys.exit(stop.exit_code if isinstance(stop, Interrupted) else exit_code(stop))
    sys.exit(0)
