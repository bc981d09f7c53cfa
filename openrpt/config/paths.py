"""What a path must be before anything is done with it."""

import os

from openrpt.files import reason_of


def require_path(text: str) -> str:
    """Returns the text. Raises ValueError where no file can have it as its path."""
    if not text.strip():
        raise ValueError("must not be empty: '.' is the folder you are in")
    return _require_name(text)


def require_path_or_none(text: str) -> str:
    """Returns the text as `require_path`; the empty text stands for no path."""
    return _require_name(text) if text else text


def _require_name(text: str) -> str:
    if "\0" in text:
        raise ValueError("must not hold a NUL character")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("must be UTF-8: rename the file or folder") from None
    return text


def require_reachable(text: str) -> str:
    """Returns the path. Raises ValueError where the system refuses it, whether or not a file is
    present: a name that is too long, a file where a folder must be, a loop of links, a locked
    folder."""
    try:
        os.stat(text)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise ValueError(f"can't be used {reason_of(error)}") from None
    return text
