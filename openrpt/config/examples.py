"""Examples of thoughts that stand before the text (`prompt.examples`), read from a file.

JSON lines, an example each:

    {"text": "3 boxes of 12: 3 * 12 =", "thought": "\\n3 * 12 = 36", "prediction": " 36"}

What is configured is what the file held, so a run folder keeps its examples.
"""

import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

_MOST_BYTES = 1 << 18
"""Largest file in bytes: a configuration may have four times that."""
_FIELDS = "an example has the fields text, thought and prediction"


class Example(BaseModel):
    """A place in a text, with the thought and the prediction there.

    >>> Example(text="3 * 12 =", thought="\\n3 * 12 = 36", prediction=" 36").prediction
    ' 36'
    """

    model_config = ConfigDict(frozen=True, extra="forbid", str_max_length=_MOST_BYTES)

    text: str = Field(min_length=1)
    """The text before the place, from its first character."""
    thought: str
    """The text between the thought's opening and its end."""
    prediction: str = Field(min_length=1)
    """The text in the box: what comes next."""


def _examples(value: Any) -> Any:
    """Returns the examples of a file; anything else is what a run's configuration holds.

    Raises ValueError, with file and line, for what can't be read or is none.
    """
    if not isinstance(value, str):
        return value
    return _read(Path(value)) if value else ()


def _read(path: Path) -> tuple[Example, ...]:
    try:
        if not path.is_file():
            raise ValueError("no such file")
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError(f"more than {_MOST_BYTES:,} bytes: too large for a prompt")
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except OSError as error:
        raise ValueError(f"can't be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start}") from None
    found = tuple(_example(line, n) for n, line in enumerate(lines, 1) if line.strip())
    if not found:
        raise ValueError("no examples")
    return found


def _example(line: str, number: int) -> Example:
    try:
        return Example.model_validate(json.loads(line))
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        said = first["msg"][0].lower() + first["msg"][1:]
        problem = f"field '{name}': {said}" if name else said
    except (ValueError, RecursionError):
        problem = "no JSON"
    raise ValueError(f"line {number}: {problem}; {_FIELDS}")


Examples = Annotated[tuple[Example, ...], BeforeValidator(_examples)]
"""Examples, or the file that holds them."""
