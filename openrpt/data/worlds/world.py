"""A world: problems of graded depth, and documents about them in several styles.

    ____2x+x*=2                                        plain: blanks, cells, then the answer
    ____2x+x*=<think>____23012</think>\\n\\boxed{2}      worked: the state, cell by cell
    ____2x+x*=<think>_________</think>\\n\\boxed{2}      filler: a useless thought as long
    ____2x+x*=<think>____23140</think>\\n\\boxed{0}      faulty: worked, with slips that go on

Useless thoughts stand beside worked ones so that the choice between them lies inside the thought.
A document is a pure function of the parameters and its number.
"""

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, islice
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from openrpt.config.queries import Parameters
from openrpt.config.sections import PromptConfig
from openrpt.seeding import generator

_Style = Literal["plain", "worked", "filler", "faulty"]
BLANK = "_"


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """A problem: the cells before the `=`, and the states that a worked thought writes.

    >>> Problem(cells="__2x+", states="__230", alphabet="01234").answer
    '0'
    """

    cells: str
    states: str
    """A character a cell; blank where there is no state yet."""
    alphabet: str

    @property
    def text(self) -> str:
        """The problem as it is asked: its cells and `=`."""
        return f"{self.cells}="

    @property
    def answer(self) -> str:
        """The right answer: the state after the last cell."""
        return self.states[-1]


@dataclass(frozen=True, kw_only=True, slots=True)
class WorldText:
    """A document of a world."""

    text: str
    problem: str
    """The text up to its `=`: documents of one problem are on one side of the split."""
    answer: str
    """The answer that the text gives; in a faulty thought it can be wrong."""
    answer_offset: int
    """Bytes of the text before its answer."""
    depth: int
    """Steps from the first state to the answer."""
    style: _Style


class World(Parameters):
    """Problems of one kind. A world says what its cells are and how they change a state."""

    documents: int = Field(20_000, ge=1, le=100_000_000)
    seed: int = Field(0, ge=0, le=2**63 - 1)
    depth: int = Field(20, ge=1, le=200)
    """The deepest problems; all depths from 1 on are equally frequent in plain texts."""
    shown: int = Field(8, ge=0)
    """The deepest problems that a thought is ever shown for."""
    worked: float = Field(0.2, ge=0, le=1)
    """The share of documents of this style, as the next two; the rest is plain."""
    filler: float = Field(0.3, ge=0, le=1)
    faulty: float = Field(0.0, ge=0, le=1)
    slip: float = Field(0.1, ge=0, le=1)
    """The probability in a faulty thought, at a step, of a state that is not the right one."""

    @model_validator(mode="after")
    def _is_consistent(self) -> "World":
        if self.worked + self.filler + self.faulty > 1 + 1e-9:
            raise ValueError("the shares worked + filler + faulty must not be above 1")
        if self.shown > self.depth:
            raise ValueError(f"shown = {self.shown} must be at most depth = {self.depth}")
        if self.shown == 0 and self.worked + self.filler + self.faulty > 0:
            raise ValueError("shown = 0 leaves no depth for thoughts; set worked, filler to 0, too")
        return self

    @property
    @abstractmethod
    def alphabet(self) -> str:
        """The states, a character each."""

    @abstractmethod
    def cells(self, rng: np.random.Generator, depth: int) -> str:
        """Returns a random problem's cells, without blanks."""

    @abstractmethod
    def step(self, state: str, cells: str, index: int) -> str:
        """Returns the state after this cell, from the one before it; blank before the first."""

    def num_cells(self, depth: int) -> int:
        """Returns the number of a problem's cells at this depth, without blanks."""
        return depth + 1

    @property
    def width(self) -> int:
        """Cells of every problem, blanks included: at least one blank, so that the first token of
        a thought is the same at all depths."""
        return self.num_cells(self.depth) + 1

    @property
    def answer_index(self) -> int:
        """Characters before the answer of a plain text, at all depths."""
        return self.width + 1

    def problem(self, rng: np.random.Generator, depth: int) -> Problem:
        """Returns a random problem of this depth, padded with blanks to `width`."""
        cells = self.cells(rng, depth)
        return self.solved(BLANK * (self.width - len(cells)) + cells)

    def solved(self, cells: str, slips: Iterator[str | None] | None = None) -> Problem:
        """Returns the problem with its states. `slips`: a step, what is written in place of the
        right state (None: nothing is)."""
        states, state = [], BLANK
        for index, cell in enumerate(cells):
            before = state
            state = BLANK if cell == BLANK else self.step(before, cells, index)
            if slips is not None and before != BLANK:
                state = next(slips) or state
            states.append(state)
        return Problem(cells=cells, states="".join(states), alphabet=self.alphabet)

    def texts(self) -> Iterator[WorldText]:
        """Returns an iterator over all `documents` texts, in their order."""
        return (self.document(number) for number in islice(count(), self.documents))

    def document(self, number: int) -> WorldText:
        """Returns the text with this number, the same for the same seed."""
        name = type(self).__name__.lower()
        rng = generator(self.seed, "world", name, number)
        style = self._style(rng.random())
        depth = int(rng.integers(1, (self.depth if style == "plain" else self.shown) + 1))
        problem = self.problem(rng, depth)
        thought = None
        match style:
            case "worked":
                thought = problem.states
            case "filler":
                thought = BLANK * self.width
            case "faulty":
                problem = self.solved(problem.cells, self._slips(rng))
                thought = problem.states
        before = problem.text
        end = ""
        if thought is not None:
            form = PromptConfig()
            before += f"{form.thought_start}{thought}{form.thought_end}{form.answer_start}"
            end = form.answer_end
        return WorldText(
            text=f"{before}{problem.answer}{end}",
            problem=problem.text,
            answer=problem.answer,
            answer_offset=len(before.encode()),
            depth=depth,
            style=style,
        )

    def _style(self, uniform: float) -> _Style:
        shares: dict[_Style, float] = {
            "worked": self.worked,
            "filler": self.filler,
            "faulty": self.faulty,
        }
        for style, share in shares.items():
            if uniform < share:
                return style
            uniform -= share
        return "plain"

    def _slips(self, rng: np.random.Generator) -> Iterator[str | None]:
        while True:
            slips = rng.random() < self.slip
            yield str(rng.choice(list(self.alphabet))) if slips else None
