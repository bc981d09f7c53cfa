r"""Words in answers: what is one, how words are compared, and the letter of a choice.

Words in `\text{…}` stand between ‹ and ›, as `math_spelling.spelled` leaves them.
"""

import re


def is_words(text: str) -> bool:
    r"""Returns whether a text is words alone; their letters are no product: `blue` is not `lube`.

    Letters in a row are a word from three on, in `\text{}` from two on; neighbours in the alphabet
    (`abc`, `zyx`) are a product, and so is whatever stands beside a sign or touches a digit.

    >>> is_words("blue"), is_words("abc"), is_words("1+bad"), is_words("‹no›"), is_words("June 20")
    (True, False, False, True, True)
    """
    if re.search(r"[+*/^=<>_&\\|]|\d[A-Za-z]|[A-Za-z]\d|-\s*\d|\s-", text):
        return False
    return bool(re.search(r"‹[^›]*[A-Za-z]{2}", text)) or any(
        is_word(run) for run in re.findall(r"[A-Za-z]{3,}", text)
    )


def is_word(letters: str) -> bool:
    """Returns whether letters are a word: three or more, and not neighbours in the alphabet."""
    codes = sorted(ord(letter) for letter in letters)
    neighbours = letters.islower() and codes == list(range(codes[0], codes[0] + len(codes)))
    return len(letters) >= 3 and not neighbours


def letters_only(text: str) -> str:
    """Returns the words as they are compared: without case, quotes and wide spaces;
    all else as it is."""
    plain = " ".join(re.sub(r"[‹›\"'“”]", " ", text).split())
    plain = re.sub(r"\s*([,;:/-])\s*", r"\1", plain).strip(".,; ")
    if not is_words(text):
        return plain
    return re.sub(r"^(?:the|an?)\s+(?=\S)", "", plain.strip(".!,; ").casefold())


_LABELLED = re.compile(
    r"(?:(?i:option|choice|answer)\s*\(?([A-Z])\)?|\(?([A-Z])(?:\)|[.:](?=\s))((?:(?!\b[A-Z]\b).)*))",
    re.DOTALL,
)


def labelled(text: str) -> str:
    """Returns the letter of `option C`, `C) 5` and `(C) blue`, unless another one follows; else
    ""."""
    match = _LABELLED.fullmatch(re.sub("[‹›]", " ", text).strip())
    return (match[1] or match[2]) if match else ""
