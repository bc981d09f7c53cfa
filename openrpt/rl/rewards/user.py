"""A user's own reward or judge: a function by import path, checked before anything is run."""

import importlib
import inspect
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from numbers import Real
from typing import Any

from openrpt.errors import UserError, nearest


@dataclass(frozen=True, kw_only=True, slots=True)
class UserFunction:
    """A function and the names of what it reads: it is called by keyword, with those alone."""

    path: str
    function: Callable[..., Any]
    reads: tuple[str, ...]

    def __call__(self, values: Mapping[str, Any], *, where: str, on_error: str) -> float:
        """Returns what the function gives for `values`, as a float.

        Where it raises, or returns no number: NaN under `on_error = "zero"`, else UserError that
        says `where`.
        """
        found: Any = None
        with _users_code() as failure:
            found = self.function(**{name: values[name] for name in self.reads})
            if isinstance(found, Real):
                return float(found)
        if on_error == "zero":
            return math.nan
        problem = f"returned {_shown(found)}, which is no number,"
        if failure.error is not None:
            problem = failure.reason
        raise UserError(
            f"'{self.path}' {problem} for {where}; mend it, or count such rollouts as 0 with"
            " --reward.on_error zero"
        )


@dataclass(kw_only=True)
class Failure:
    """The error that a user's code has raised, if any."""

    error: BaseException | None = None

    @property
    def message(self) -> str:
        """The error's text in one line; empty where it has none, or can't say it."""
        try:
            return f"{' '.join(str(self.error).split()):.200}"
        except Exception:  # its __str__ is the user's, too
            return ""

    @property
    def reason(self) -> str:
        """The failure in words: `raised ValueError (…)`."""
        return f"raised {type(self.error).__name__}" + (
            f" ({self.message})" if self.message else ""
        )


@contextmanager
def _users_code() -> Iterator[Failure]:
    """Keeps what a user's code raises, which may be anything, sys.exit's SystemExit too; only what
    stops the whole command (KeyboardInterrupt) is passed on."""
    failure = Failure()
    try:
        yield failure
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        failure.error = error


def _shown(value: object) -> str:
    """Returns a value's text, cut and in one line; its type where it has no text (an integer of
    5,000 digits)."""
    with _users_code():
        return " ".join(f"{value!r:.80}".split())
    return f"a value of type {type(value).__name__}"


def load_function(path: str, *, key: str, known: Sequence[str]) -> UserFunction:
    """Imports `package.module:function`, which may also lie in the working directory.

    Every parameter without a default must be one of `known`: what the function can read. Raises
    UserError, which names the configuration's key, for a module or a function that is not there
    and for a signature that asks for something else.
    """
    module_name, _, name = path.partition(":")
    if not (module_name and name):
        raise UserError(f"{key}: '{path}' is no import path; it has the form module:function")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    with _users_code() as failure:
        module = importlib.import_module(module_name)
    if failure.error is not None:
        plain = isinstance(failure.error, ImportError | SyntaxError)
        reason = failure.message if plain else f"it {failure.reason}"
        raise UserError(f"{key}: '{path}' can't be imported: {reason}")
    functions = {n: value for n, value in vars(module).items() if callable(value)}
    if name not in functions:
        hint = nearest(name, functions)
        raise UserError(f"{key}: '{path}': module '{module_name}' has no function '{name}'{hint}")
    reads = _what_it_reads(functions[name], f"{key}: '{path}'", known)
    return UserFunction(path=path, function=functions[name], reads=reads)


def _what_it_reads(
    function: Callable[..., Any], name: str, known: Sequence[str]
) -> tuple[str, ...]:
    may_read = f"it may read {', '.join(known)}"
    try:
        parameters = inspect.signature(function).parameters.values()
    except (ValueError, TypeError):
        raise UserError(f"{name} has no signature that can be read; wrap it in a def") from None
    reads: list[str] = []
    for parameter in parameters:
        if parameter.kind is parameter.VAR_KEYWORD:
            return tuple(known)
        if parameter.name in known and parameter.kind is not parameter.POSITIONAL_ONLY:
            reads.append(parameter.name)
        elif (
            parameter.default is parameter.empty and parameter.kind is not parameter.VAR_POSITIONAL
        ):
            hint = nearest(parameter.name, known)
            positional = parameter.kind is parameter.POSITIONAL_ONLY
            problem = "positional-only" if positional else "unknown"
            raise UserError(
                f"{name} asks for '{parameter.name}', which is {problem}: {may_read}, by"
                f" keyword{hint}"
            )
    if not reads:
        raise UserError(f"{name} reads nothing: {may_read}")
    return tuple(reads)
