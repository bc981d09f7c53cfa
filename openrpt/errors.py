"""The one error that is the user's to mend: shown on one line, exit code 2."""

import contextlib
import difflib
from collections.abc import Iterable, Iterator, Sequence

_LONGEST_NAME = 200
"""Characters of the longest name that others are compared with."""
_SPOKEN = {"lr": "learning_rate"}
"""What the field calls a key, which are the initials of another key, too."""
_NAMED = 4
"""Names that a message lists."""


class UserError(Exception):
    """Bad input or bad configuration.

    The message is one line: what happened, where (file, line, key, document), what to do.

    >>> raise UserError("a.jsonl:7: field 'problem' is missing; there are: question, answer")
    Traceback (most recent call last):
    ...
    openrpt.errors.UserError: a.jsonl:7: field 'problem' is missing; there are: question, answer
    """


class SaidElsewhere(UserError):
    """An error that another process of the run says: this one ends with the same exit code, and
    says nothing."""


def nearest(name: str, known: Iterable[str], *, otherwise: str = "", cutoff: float = 0.65) -> str:
    """Returns the end of a message on an unknown name: the known one most like it, else
    `otherwise`. Initials stand for a name: `lr` for `learning_rate`.

    `cutoff`: least likeness, in [0, 1] (difflib's ratio); of dotted names that share their section,
    of what follows it.

    >>> nearest("trian", ["train", "score"])
    "; nearest: 'train'"
    >>> nearest("x", ["train", "score"], otherwise="see --help")
    '; see --help'
    >>> nearest("train.lr", ["train.steps", "train.learning_rate"])
    "; nearest: 'train.learning_rate'"
    """
    likeness = {one: _likeness(name, one) for one in known} if len(name) <= _LONGEST_NAME else {}
    best = max(likeness, key=lambda one: likeness[one], default="")
    hint = f"nearest: '{best}'" if best and likeness[best] >= cutoff else otherwise
    return f"; {hint}" if hint else ""


def few(names: Sequence[str], separator: str = ", ") -> str:
    """Returns the first 4 names as a message lists them, and how many more there are.

    >>> few(["a", "b", "c", "d", "e"])
    'a, b, c, d and 1 more'
    """
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return separator.join(names[:_NAMED]) + more


def _likeness(name: str, known: str) -> float:
    """Returns how like two names are, in [0, 1]."""
    section, _, own = name.rpartition(".")
    other_section, _, other = known.rpartition(".")
    if section in ("", other_section):  # what they share says nothing
        if own in _SPOKEN:
            return float(other == _SPOKEN[own])
        words = other.split("_")
        if len(words) > 1 and own == "".join(word[:1] for word in words):
            return 1.0
        name, known = own, other
    return difflib.SequenceMatcher(None, name, known).ratio()


@contextlib.contextmanager
def foreign(what: str, *, advice: str = "") -> Iterator[None]:
    """Turns whatever foreign code raises over a model into one UserError: `what`, the reason,
    `advice`.

    On a folder that is not what it says, transformers, tokenizers, safetensors and the model's own
    code raise anything at all (tokenizers a bare Exception, or a panic that is no Exception), so
    that no list of classes would do. Loading, its checks and a text's encoding run in here.
    """
    try:
        yield
    except (UserError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        raise UserError("; ".join(filter(None, (f"{what}: {_reason(error)}", advice)))) from None


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split())[:300]
    speaks = isinstance(error, OSError | ValueError | ImportError) and text
    return text if speaks else f"{type(error).__name__} {text}".rstrip()
