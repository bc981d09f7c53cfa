"""Token classes: bytes in, one word out."""

import pytest

from openrpt.data.token_classes import TOKEN_CLASSES, token_class


@pytest.mark.parametrize(
    ("before", "token", "expected"),
    [
        (b"in the", b" end", "word start"),
        (b"in th", b"e", "inside a word"),
        (b"(", b"the", "word start"),
        (b"", b"The", "word start"),
        (b"don", b"'t", "inside a word"),
        (b"he said ", b"'t", "punctuation"),
        (b"caf", "é".encode(), "inside a word"),
        ("数".encode(), "学".encode(), "inside a word"),
        (b"x = ", b"12", "number"),
        (b"x", b" 7", "number"),
        (b"x", b" =", "operator"),
        (b"x", "≤".encode(), "operator"),
        (b"x", b"^{", "operator"),
        (b"so ", b"\\frac", "LaTeX command"),
        (b"so \\fr", b"ac", "LaTeX command"),
        (b"so \\frac", b" ab", "word start"),
        (b"so \\frac{", b"ab", "word start"),
        (b"end", b".\n", "punctuation"),
        (b"", b"$", "punctuation"),
        (b"x", b"\n\n", "whitespace"),
        (b"x", b"\xf0\x9f", "other"),
        (b"\xf0\x9f", b"\x98\x80", "other"),
        (b"x", " 😀".encode(), "other"),
        (b"x", b"", "other"),
    ],
)
def test_classes(before: bytes, token: bytes, expected: str) -> None:
    assert expected in TOKEN_CLASSES
    assert token_class(token, before) == expected


def test_what_stands_far_before_does_not_matter() -> None:
    assert token_class(b"ing", b"\\" + 50 * b" " + b"th") == "inside a word"
    assert token_class(b"the", "é".encode()[1:] + b" ") == "word start"
