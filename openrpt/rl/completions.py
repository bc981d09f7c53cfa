r"""Reading a completion: the thought, then the prediction in its box.

A completion reads `thought </think> … \boxed{prediction}`. All of it is bytes: a prediction may
end in the middle of a UTF-8 character, where a token does.
"""

import unicodedata

BOX = rb"\boxed{"


def split_thought(completion: bytes, *, thought_end: bytes = b"</think>") -> bytes:
    """Returns the thought: what stands before the last `thought_end`; all of it if there is none.

    >>> split_thought(b"a or b</think>\\boxed{a}")
    b'a or b'
    """
    before, delimiter, after = completion.rpartition(thought_end)
    return before if delimiter else after


def extract_prediction(completion: bytes, *, thought_end: bytes = b"</think>") -> bytes | None:
    r"""Finds the prediction of a completion; None if it makes none.

    Let c be what follows the last `\boxed{` after the last `thought_end`, without trailing ASCII
    whitespace. If c ends with `}`, the prediction is c without it, so that lone braces can be
    predicted; otherwise it is c up to the brace that balances the box. Braces are counted raw: a
    backslash means nothing. Whitespace inside the box is kept. None if there is no `thought_end`,
    no box, no such brace, or nothing in the box.

    The end-of-turn token is a special token: it has no bytes and is not here to be removed.

    >>> extract_prediction(b"hm</think>\\boxed{ the}")
    b' the'
    """
    _, delimiter, answer = completion.rpartition(thought_end)
    _, box, rest = answer.rpartition(BOX)
    if not (delimiter and box):
        return None
    content = rest.rstrip()
    end = len(content) - 1 if content.endswith(b"}") else _balancing_brace(content)
    return content[:end] if end > 0 else None


def _balancing_brace(content: bytes) -> int:
    """Returns the index of the `}` that closes the box whose `{` stands just before `content`; -1
    if none."""
    depth = 1
    for index, byte in enumerate(content):
        if byte == ord("{"):
            depth += 1
        elif byte == ord("}"):
            depth -= 1
            if depth == 0:
                return index
    return -1


def has_content(text: bytes) -> float:
    """Returns 1 if there is a letter, a digit or a mathematical sign, not space and punctuation
    alone, else 0."""
    decoded = text.decode("utf-8", errors="replace")
    return float(
        any(unicodedata.category(c)[0] in "LN" or unicodedata.category(c) == "Sm" for c in decoded)
    )
