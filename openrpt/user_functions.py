"""A user's own reward or judge: a function by import path, checked before anything is run."""

import difflib
import importlib
import inspect
import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

from openrpt.errors import UserError


@dataclass(frozen=True, kw_only=True, slots=True)
class UserFunction:
    """A function and the names of what it reads: it is called by keyword, with those alone."""

    path: str
    function: Callable[..., Any]
    reads: tuple[str, ...]

    def __call__(self, values: Mapping[str, Any], *, where: str, on_error: str) -> float:
        """What the function returns for `values`, as a float.

        Where it raises, or returns no number: NaN under `on_error = "zero"`, else UserError that
        says `where`.
        """
        try:
            found = self.function(**{name: values[name] for name in self.reads})
        except Exception as error:  # a user's code may raise anything
            reason = " ".join(str(error).split())
            problem = f"raised {type(error).__name__}" + (f" ({reason})" if reason else "")
        else:
            if isinstance(found, Real):
                return float(found)
            problem = f"returned {found!r:.80}, which is no number,"
        if on_error == "zero":
            return math.nan
        raise UserError(
            f"'{self.path}' {problem} for {where}; mend it, or count such rollouts as 0 with"
            " --reward.on_error zero"
        )


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
    try:
        module = importlib.import_module(module_name)
    except (ImportError, SyntaxError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{key}: '{path}' can't be imported: {reason}") from None
    functions = {n: value for n, value in vars(module).items() if callable(value)}
    if name not in functions:
        nearest = difflib.get_close_matches(name, functions, n=1, cutoff=0.4)
        hint = f"; nearest: '{nearest[0]}'" if nearest else ""
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
            nearest = difflib.get_close_matches(parameter.name, known, n=1, cutoff=0.5)
            hint = f"; nearest: '{nearest[0]}'" if nearest else ""
            positional = parameter.kind is parameter.POSITIONAL_ONLY
            problem = "positional-only" if positional else "unknown"
            raise UserError(
                f"{name} asks for '{parameter.name}', which is {problem}: {may_read}, by"
                f" keyword{hint}"
            )
    if not reads:
        raise UserError(f"{name} reads nothing: {may_read}")
    return tuple(reads)
