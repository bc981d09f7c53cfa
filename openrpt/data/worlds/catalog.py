"""The worlds: five whose answers need step after step, and one that a single pass reads off.

They are after the word problems of groups and the running sums on which one-pass transformers are
known to fail (arXiv 2402.12875, 2406.06467, 2510.11495).
"""

import string
from functools import cache
from itertools import permutations
from math import gcd

import numpy as np
from pydantic import Field, model_validator

from openrpt.data.worlds.world import BLANK, World

_DIGITS = string.digits


def _drawn(rng: np.random.Generator, letters: str, count: int) -> str:
    return "".join(letters[i] for i in rng.integers(len(letters), size=count))


class _Sums(World):
    """Running sums modulo m: `3104=` is 3 + 1 + 0 + 4."""

    modulus: int = Field(5, ge=2, le=10)

    @property
    def alphabet(self) -> str:
        return _DIGITS[: self.modulus]

    def cells(self, rng: np.random.Generator, depth: int) -> str:
        return _drawn(rng, self.alphabet, depth + 1)

    def step(self, state: str, cells: str, index: int) -> str:
        before = 0 if state == BLANK else int(state)
        return str((before + int(cells[index])) % self.modulus)


class _Scan(World):
    """Affine maps modulo m, one after another: `2x+x*=` is ((2 + 1 + 2) + 1) · 2."""

    modulus: int = Field(5, ge=5, le=7)

    @model_validator(mode="after")
    def _maps_are_invertible(self) -> "_Scan":
        if gcd(self.modulus, 6) > 1:
            raise ValueError("modulus must be 5 or 7: else a step forgets the state before it")
        return self

    @property
    def alphabet(self) -> str:
        return _DIGITS[: self.modulus]

    def cells(self, rng: np.random.Generator, depth: int) -> str:
        return _drawn(rng, self.alphabet, 1) + _drawn(rng, "x+*^", depth)

    def step(self, state: str, cells: str, index: int) -> str:
        match cells[index]:
            case "x":
                value = int(state) + 1
            case "+":
                value = int(state) + 2
            case "*":
                value = int(state) * 2
            case "^":
                value = int(state) * 3
            case start:
                value = int(start)
        return str(value % self.modulus)


@cache
def _even_permutations() -> tuple[tuple[int, ...], ...]:
    def is_even(order: tuple[int, ...]) -> bool:
        swaps = sum(order[i] > order[j] for j in range(5) for i in range(j))
        return swaps % 2 == 0

    return tuple(filter(is_even, permutations(range(5))))


_GENERATORS = {"+": (1, 2, 3, 4, 0), "*": (1, 2, 0, 3, 4)}


class _Permutations(World):
    """Even permutations of five things (A5, not solvable: NC1-complete), moved on by a 5-cycle (+)
    or a 3-cycle (*)."""

    @property
    def alphabet(self) -> str:
        return (_DIGITS + string.ascii_letters)[:60]

    def cells(self, rng: np.random.Generator, depth: int) -> str:
        return _drawn(rng, self.alphabet, 1) + _drawn(rng, "+*", depth)

    def step(self, state: str, cells: str, index: int) -> str:
        moves = _GENERATORS.get(cells[index])
        if moves is None:
            return cells[index]
        order = _even_permutations()[self.alphabet.index(state)]
        moved = tuple(order[moves[i]] for i in range(5))
        return self.alphabet[_even_permutations().index(moved)]


class _Registers(World):
    """Two registers modulo 3, written as one digit (3p + q): + is p + 1, & is p + q, ~ swaps."""

    @property
    def alphabet(self) -> str:
        return _DIGITS[:9]

    def cells(self, rng: np.random.Generator, depth: int) -> str:
        return _drawn(rng, self.alphabet, 1) + _drawn(rng, "+&~", depth)

    def step(self, state: str, cells: str, index: int) -> str:
        if cells[index] in self.alphabet:
            return cells[index]
        p, q = divmod(int(state), 3)
        match cells[index]:
            case "+":
                p += 1
            case "&":
                p += q
            case "~":
                p, q = q, p
        return str(p % 3 * 3 + q)


class _Nested(World):
    """Nested arithmetic modulo m: `((3+4)*2)=`. The value is carried through every cell."""

    modulus: int = Field(5, ge=5, le=7)
    depth: int = Field(12, ge=1, le=200)
    shown: int = Field(5, ge=0)

    @model_validator(mode="after")
    def _products_are_invertible(self) -> "_Nested":
        if self.modulus == 6:
            raise ValueError("modulus must be 5 or 7: else a step forgets the state before it")
        return self

    @property
    def alphabet(self) -> str:
        return _DIGITS[: self.modulus]

    def num_cells(self, depth: int) -> int:
        return 4 * depth + 1

    def cells(self, rng: np.random.Generator, depth: int) -> str:
        operators = _drawn(rng, "+-*", depth)
        operands = _drawn(rng, self.alphabet[1:], depth)  # a product with 0 forgets the state
        steps = "".join(f"{o}{k})" for o, k in zip(operators, operands, strict=True))
        return "(" * depth + _drawn(rng, self.alphabet, 1) + steps

    def step(self, state: str, cells: str, index: int) -> str:
        if cells[index] not in self.alphabet:
            return state
        operand = int(cells[index])
        match cells[index - 1]:
            case "+":
                value = int(state) + operand
            case "-":
                value = int(state) - operand
            case "*":
                value = int(state) * operand
            case _:
                value = operand
        return str(value % self.modulus)


class _Find(World):
    """The negative control: the one letter among the digits, a for 0. A single look finds it."""

    letters: int = Field(5, ge=2, le=10)

    @property
    def alphabet(self) -> str:
        return _DIGITS[: self.letters]

    def num_cells(self, depth: int) -> int:
        return depth

    def cells(self, rng: np.random.Generator, depth: int) -> str:
        cells = list(_drawn(rng, self.alphabet, depth))
        cells[int(rng.integers(depth))] = _drawn(rng, string.ascii_lowercase[: self.letters], 1)
        return "".join(cells)

    def step(self, state: str, cells: str, index: int) -> str:
        letter = string.ascii_lowercase.find(cells[index])
        return state if letter < 0 else self.alphabet[letter]


WORLDS: dict[str, type[World]] = {
    "sums": _Sums,
    "scan": _Scan,
    "permutations": _Permutations,
    "registers": _Registers,
    "nested": _Nested,
    "find": _Find,
}
