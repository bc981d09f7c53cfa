r"""How a key's value is typed on the command line: `--train.learning_rate 2e-05`."""

import re
import shlex
from typing import Any

ESCAPED = {
    "corpus.template",
    "corpus.separator",
    "prompt.candidate_separator",
    "prompt.answer_start",
}
r"""Keys whose values may hold line breaks: a shell gives them as `\n`, `\t` and `\\`."""


def escape(text: str) -> str:
    """Returns a text with backslash, line break and tab as escapes; `unescape` undoes it."""
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace("\t", "\\t")


def unescape(text: str) -> str:
    r"""Returns a text with `\n`, `\t` and `\\`, as a shell gives them, read; any other backslash
    stands for itself.

    >>> unescape(r"\n\\boxed{"), unescape(r"\frac")
    ('\n\\boxed{', '\\frac')
    """
    plain = {"n": "\n", "t": "\t", "\\": "\\"}
    return re.sub(r"\\([nt\\])", lambda match: plain[match[1]], text)


def as_option(key: str, value: Any) -> str:
    """Returns the option that gives a key a value, as a shell reads it.

    >>> as_option("train.group_size", 8), as_option("model.trust_remote_code", False)
    ('--train.group_size 8', '--no-model.trust_remote_code')
    >>> as_option("reward.terms", {"prefix": 1.0, "dense": 0.5})
    '--reward.terms prefix=1,dense=0.5'
    """
    if isinstance(value, bool):
        return f"--{key}" if value else f"--no-{key}"
    if isinstance(value, dict):
        value = ",".join(f"{name}={number:g}" for name, number in value.items())
    elif isinstance(value, list):
        value = ",".join(map(str, value))
    elif key in ESCAPED:
        value = escape(value)
    return f"--{key} {shlex.quote(str(value))}"
