"""The data in the page: compressed, in blocks that the browser decodes when it needs them."""

import base64
import gzip
import json
from collections.abc import Sequence
from typing import Any


def pack(value: Any) -> str:
    """Packs a value as JSON, gzip, base64: nothing in it can end a <script>, whatever the text
    says.

    >>> unpack(pack({"a": "</script>"}))
    {'a': '</script>'}
    """
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    data = gzip.compress(text.encode(), compresslevel=4, mtime=0)
    return base64.b64encode(data).decode("ascii")


def unpack(block: str) -> Any:
    """Undoes `pack`, as the page's script does, for those who read a report by program."""
    return json.loads(gzip.decompress(base64.b64decode(block)))


def as_text(data: bytes) -> str:
    """Returns bytes as a string of as many characters, each below 256: exact whatever the bytes
    are.

    The page's script makes them bytes again, and characters of those that are characters.
    """
    return data.decode("latin-1")


def finite(values: Sequence[float], digits: int = 5) -> list[float | None]:
    """Returns the numbers for JSON, rounded to so many significant digits; None for what is no
    number."""
    return [
        float(f"{value:.{digits}g}") if value - value == 0 else None  # inf − inf is no number
        for value in values
    ]
