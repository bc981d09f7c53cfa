"""Checkpoints of a running stage: when they are due, and what a step that fails leaves."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from openrpt.config.sections import STAGES
from openrpt.engine.checkpoint_record import TrainerState
from openrpt.errors import UserError
from openrpt.rl.optimizer import SharedAdamW
from openrpt.rl.workers import ALONE
from openrpt.runs.checkpoints import prune, save_checkpoint, step_folder
from openrpt.stages.stage import Stage


@dataclass(kw_only=True)
class Saver:
    """Saves a stage's checkpoints when they are due, and what is whole when a step fails."""

    stage: Stage
    step: int
    """The last step that is saved."""
    at: float = field(default_factory=time.monotonic)
    """The time of the last save."""

    @property
    def state(self) -> TrainerState:
        """The state of the stage that is saved."""
        return self.stage.state

    @property
    def writes(self) -> bool:
        """Whether this process writes the files, of those that share the stage."""
        return self.stage.workers.rank == 0

    @property
    def is_divided(self) -> bool:
        """Whether each process keeps a part of the optimizer's state, or of the weights."""
        weights = self.stage.engine.model.divided is not None
        return weights or isinstance(self.stage.optimizer, SharedAdamW)

    @property
    def checkpoints(self) -> Path:
        """The folder of the stage's checkpoints."""
        return self.stage.run.checkpoints_of(self.state.stage)

    @property
    def is_due(self) -> bool:
        """Whether it is time to save: every so many steps, where checkpoints are what the stage
        makes, and minutes."""
        settings, facts = self.stage.config.checkpoints, STAGES[self.state.stage]
        late = time.monotonic() - self.at > settings.minutes * 60
        return late or (not facts.leaves and self.state.step % settings.every == 0)

    def now(self, *, again: bool = False) -> None:
        """Saves the step that is done, unless it is saved (`again`: also then, since the state has
        changed), and removes old checkpoints."""
        if (again or self.step != self.state.step) and (self.writes or self.is_divided):
            self._save()
        self.at, self.step = time.monotonic(), self.state.step

    def _save(self) -> None:
        stage, baseline = self.stage, self.stage.baseline
        save_checkpoint(
            step_folder(self.checkpoints, self.state.step),
            stage.engine.model,
            stage.state,
            stage.config,
            optimizer=stage.optimizer,
            baseline=None if baseline is None else baseline.weights,
            workers=stage.workers if self.is_divided else ALONE,
        )
        kept = 1 if STAGES[self.state.stage].leaves else stage.config.checkpoints.kept
        if self.writes:
            prune(self.checkpoints, kept)

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Encloses a step. Where it fails, the state becomes what it was before, and is saved;
        unless the weights had changed already, which belong to no whole step then. Of several
        processes each meets the failure of one, and the first saves."""
        state, before = self.state, replace(self.state)
        updates: list[int] = []
        hook = self.stage.optimizer.register_step_pre_hook(lambda *_: updates.append(state.step))
        try:
            yield
        except Exception as error:  # whatever it is: it goes on once what is whole is saved
            if not self.writes:
                raise
            vars(state).update(vars(before))
            kept = self._lost("the weights had changed already") if updates else self._kept()
            raise _told(error, f"{state.stage}, step {state.step + 1}", kept) from None
        finally:
            hook.remove()

    @contextmanager
    def after(self) -> Iterator[None]:
        """Encloses what follows a whole step; where that fails, the step is saved."""
        try:
            yield
        except Exception as error:  # as above
            if not self.writes:
                raise
            where = f"{self.state.stage}, after step {self.state.step}"
            raise _told(error, where, self._kept()) from None

    def _kept(self) -> str:
        """Saves, and says what is saved."""
        if self.is_divided and self.step != self.state.step:
            return self._lost("other processes have parts of what is trained")
        try:
            self.now()
        except UserError as error:
            return f"the steps after step {self.step} could not be saved: {error}"
        return f"all up to step {self.step} is saved" if self.step else ""

    def _lost(self, text: str) -> str:
        """Returns what is lost, in words, where what is in memory can't be saved; `text`: why."""
        steps = self.state.step - self.step
        if steps:
            counted = "1 step" if steps == 1 else f"{steps} steps"
            text += f", so what {counted} before it did is lost, too"
        if self.step:
            return (
                f"{text}: the same command goes on from {step_folder(self.checkpoints, self.step)}"
            )
        return f"{text}: the same command begins anew"


def save_policy(stage: Stage, folder: Path, state: TrainerState) -> None:
    """Saves a stage's policy alone; all processes call this, and the first writes. Raises UserError
    where the disk refuses it."""
    policy, workers = stage.engine.model, stage.workers
    if policy.divided is not None:
        save_checkpoint(folder, policy, state, stage.config, workers=workers)
    elif workers.rank == 0:
        save_checkpoint(folder, policy, state, stage.config)


def _told(error: Exception, where: str, kept: str) -> Exception:
    """Returns the error with where it happened and what is saved: in a UserError's line, else as a
    note."""
    kept = f"; {kept}" if kept else ""
    if isinstance(error, UserError):
        return UserError(f"{where}: {error}{kept}")
    error.add_note(f"{where}{kept}")
    return error
