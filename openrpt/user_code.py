"""A user's own parts: functions and values by import path, checked before anything is run."""

import importlib.util
import inspect
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openrpt.errors import UserError, nearest


def is_import_path(name: str) -> bool:
    """Returns whether a name is meant as the import path of a user's own part.

    >>> is_import_path("mine:weights"), is_import_path("entropy")
    (True, False)
    """
    return ":" in name


@dataclass(frozen=True, kw_only=True, slots=True)
class UserFunction:
    """A function and the names of what it reads: it is called by keyword, with those alone."""

    path: str
    function: Callable[..., Any]
    reads: tuple[str, ...]

    def __call__(self, values: Mapping[str, Any]) -> Any:
        """Returns what the function gives for `values`; raises what it raises."""
        return self.function(**{name: values[name] for name in self.reads})

    def result(self, values: Mapping[str, Any], *, where: str) -> Any:
        """Returns what the function gives for `values`. Raises UserError, which says `where`, for
        whatever the function raises."""
        with users_code() as failure:
            return self(values)
        raise self.error(failure.reason, where=where) from failure.error

    def error(self, problem: str, *, where: str) -> UserError:
        """Returns the error that says what is wrong with the function: what it did, and where."""
        return UserError(f"'{self.path}' {problem} {where}")


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
def users_code() -> Iterator[Failure]:
    """Keeps what a user's code raises, which may be anything, sys.exit's SystemExit too; only what
    stops the whole command (KeyboardInterrupt) is passed on."""
    failure = Failure()
    try:
        yield failure
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        failure.error = error


def shown(value: object) -> str:
    """Returns a value's text, cut and in one line; its type where it has no text (an integer of
    5,000 digits)."""
    with users_code():
        return " ".join(f"{value!r:.80}".split())
    return f"a value of type {type(value).__name__}"


def module_file(path: str) -> Path | None:
    """Returns the file of the module that an import path names; None where it has none, or can't be
    found."""
    _see_working_directory(path)
    with users_code():  # finding a module imports the packages that it lies in
        spec = importlib.util.find_spec(path.partition(":")[0])
        if spec is not None and spec.origin and Path(spec.origin).is_file():
            return Path(spec.origin)
    return None


def load_value(path: str, *, key: str) -> Any:
    """Imports `package.module:name`, which may also lie in the working directory.

    Raises UserError, which names the configuration's key, for a module or a name that is not there.
    """
    return _load(path, key, what="value", of=lambda value: True)


def load_function(path: str, *, key: str, known: Sequence[str]) -> UserFunction:
    """Imports `package.module:function` as `load_value` does.

    Every parameter without a default must be one of `known`: what the function can read. Raises
    UserError as `load_value`, and for a signature that asks for something else.
    """
    function = _load(path, key, what="function", of=callable)
    reads = _what_it_reads(function, f"{key}: '{path}'", known)
    return UserFunction(path=path, function=function, reads=reads)


def _load(path: str, key: str, *, what: str, of: Callable[[object], bool]) -> Any:
    module_name, _, name = path.partition(":")
    if not (module_name and name):
        raise UserError(f"{key}: '{path}' is no import path; it has the form module:{what}")
    _see_working_directory(path)
    with users_code() as failure:
        module = importlib.import_module(module_name)
    if failure.error is not None:
        plain = isinstance(failure.error, ImportError | SyntaxError)
        reason = failure.message if plain else f"it {failure.reason}"
        raise UserError(f"{key}: '{path}' can't be imported: {reason}")
    there = {n: value for n, value in vars(module).items() if of(value)}
    if name not in there:
        hint = nearest(name, there)
        raise UserError(f"{key}: '{path}': module '{module_name}' has no {what} '{name}'{hint}")
    return there[name]


def _see_working_directory(path: str) -> None:
    # A part is asked for again and again; the working directory may be gone by then.
    if path.partition(":")[0] not in sys.modules and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())


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
