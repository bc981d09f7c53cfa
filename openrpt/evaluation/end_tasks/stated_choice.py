r"""The letter that an answer to a multiple choice ends up with.

First every *mention* of a letter is found and written ⟦B⟧: letters in brackets, quotes, bold or
mathematics, letters behind "option", and bare capitals that a mark or a word such as "because"
follows (so the article A and the pronoun I are none). Then the last sentence counts that states
one, by a few rules; one that states two, or is unsure, states none.
"""

import re
from collections.abc import Sequence
from itertools import product
from string import ascii_uppercase as LETTERS

from openrpt.evaluation.questions.checks import extract_answer, normalised, same_characters

OUTSIDE = "outside"
"""The mark in place of a letter where an answer was given, and it is none of the options."""

# ---- mentions of letters ------------------------------------------------------------------------

_FONT = r"\\(?:text|math|emph|bold|underline|bf|rm|it)[a-z]*"
_COMMAND = re.compile(rf"{_FONT}\s*\{{([^{{}}]*)\}}")
_AROUND = re.compile(rf"^\s*{_FONT}\s*\{{(.*)\}}\s*$", re.DOTALL)
_SWITCH = re.compile(r"\\(?:displaystyle|bf|rm|it|sf|[lL]arge)(?![A-Za-z])\s*")
_MARK = (
    r"(?:\\[()\[\]]|</?(?:answer|b|strong|em|i)>|\$|\*+|`+|__|(?<!\w)[\"'“”‘’«»]|[\"'“”‘’«»](?!\w))"
)
_END = r"(?=\s*(?:$|\n|[.,;:!)/](?![A-Za-z])|[—–]|-\s|⟦))"
_THEN = (
    r"(?=\s+(?:because|since|as|for|which|due|given|based|by|and|or|but|rather|instead|is|was|must|"
    r"would|should|has|looks|seems|isn['’]t)\b)"
)
_MENTIONS = [
    re.compile(pattern)
    for pattern in (
        rf"(?<!\w){_MARK}+\s*[(\[]?([A-Za-z])[)\].:]*\s*{_MARK}+(?!\w)",  # **B**, "(B)", $B$
        r"(?<![\w(])\(([A-Za-z])\)|(?<![\w\[])\[([A-Za-z])\]",
        r"\b(?:[Oo]ption|OPTION|[Cc]hoice|CHOICE|[Ll]etter)\s+([A-Z])\b(?!['’])",
        rf"(?<![\w'’.\\+-])(?:([A-Z]){_END}|([A-HJ-Z]){_THEN}|(I)(?=\s+is\b))",
        r"(?<=[Aa]nswer is )([a-z])(?=[.!]?\s*(?:$|\n))",
        r"(?<=[Aa]nswer: )([a-z])(?=[.!]?\s*(?:$|\n))",
    )
]
_SEVERAL = re.compile(r"⟦.⟧(?:\s*(?:,|/|&|\band/or\b|\bor\b|\band\b)+\s*(?:maybe |perhaps )?⟦.⟧)+")
_DENIED = re.compile(
    r"(?:\b(?:not|cannot be|neither|nor|never|rather than|instead of|than)|n['’]t(?: be)?)"
    r"\s+(?:be |the )?⟦.⟧(?:\s*,?\s*(?:n?or)\s*⟦.⟧)*"
)


def _with_mentions(text: str) -> str:
    """Returns the text without dress, each mention of a letter as ⟦B⟧, of several at once as
    ⟦?⟧."""
    for _ in range(2):
        text = _COMMAND.sub(r" \1 ", _AROUND.sub(r"\1", text))
    text = _SWITCH.sub("", text.replace("：", ":"))
    text = text.replace("\\ ", " ")
    for mention in _MENTIONS:
        text = mention.sub(lambda match: f"⟦{match[match.lastindex or 0]}⟧", text)
    text = re.sub(rf"{_MARK}|[{{}}]", "", text)
    text = re.sub(r"\b(?:[Oo]ption|[Cc]hoice|[Ll]etter)\s+(?=⟦)", "", text)
    return _SEVERAL.sub("⟦?⟧", _DENIED.sub("", text))


# ---- statements ---------------------------------------------------------------------------------

_FILLER = (
    r"(?:[\s:=,→>-]|\b(?:is|was|are|be|must|should|would|will|has|to|indeed|therefore|thus|then|hence|"
    r"so|clearly|definitely|obviously|simply|just|here|only|most|likely|the|option|choice|letter|"
    r"answer|correct|right|best|one|but|actually|that|it|it['’]s|given|by|final|my)\b)*"
)
_SAID = (
    r"(?P<unsure>\b(?:either|both|between|perhaps|maybe|possibly|probably not)\b\s*)?⟦(?P<said>.)⟧"
)
_OPEN = r"(?!\s*\?|\s+(?:is|was|are|would|can|cannot|could|does|might|may|has|seems|isn)\b)"
_STATEMENTS = [
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        # The answer is B. Correct option: B.
        r"(?<!wrong )(?<!incorrect )\b(?:ans(?:wer|\.)?|(?:correct|right|best|final|true) "
        rf"(?:option|choice|letter|one|statement|response)){_FILLER}{_SAID}{_OPEN}",
        # Choice: B (at the very end).
        rf"(?<!wrong )\b(?:option|choice|letter|selection|correct)(?:\s+is|\s*:)\s*{_SAID}"
        r"(?=[.!]?\s*$)",
        # B is correct.
        r"⟦(?P<said>.)⟧\s+(?:is|was|must be|has to be|would be|should be|looks|seems)\s+(?:\w+ly |"
        r"thus |therefore )?(?:correct|right|best|the (?:\w+ ){0,2}(?:answer|one|option|choice))\b",
        # It's B. I choose B.
        r"\b(?:(?:it|this|that)(?:['’]s| is| must be| has to be)|leaves(?: us with)?|(?:I|we)"
        r"(?:['’](?:d|ll|m)| would| will| am)?(?: have to)? (?:choose|chose|pick|select|say|answer|"
        rf"go with|going with|think|believe|guess|conclude)){_FILLER}{_SAID}{_OPEN}",
        # So B.
        rf"(?:^|[.,;!?:\n]\s*|\band )(?:so|thus|hence|therefore){_FILLER}{_SAID}"
        r"(?=\s*(?:[.!\n]|$))",
        # Not A but C.
        r"\bbut ⟦(?P<said>.)⟧(?=\s*(?:[.!\n]|$))",
        # A last line: B.
        r"(?:^|\n)\s*⟦(?P<said>.)⟧[.!]?\s*$",
    )
]
_IF = re.compile(r"\b(?:if|whether|suppose|assume|assuming|unless|why)\b[^.;,\n]*$", re.IGNORECASE)
_LINE = re.compile(rf"^\s*⟦(.)⟧{_OPEN}", re.MULTILINE)
_TWO_BOXES = re.compile(
    r"\\boxed\{[^{}]*\}[\s$]*(?:or|and|/|,)[\s$]*\\boxed\{[^{}]*\}(?:(?!\\boxed).)*$", re.DOTALL
)
_TEXT = re.compile(
    r"(?<!wrong )(?<!incorrect )\banswer(?:\s+is|\s*:)+\s*(?=(?P<said>[^\n]+))", re.IGNORECASE
)


def extract_choice(text: str, options: Sequence[str]) -> str | None:
    r"""Returns the letter that a text ends up with; OUTSIDE for an answer that is none of the
    options, None for no answer, or no clear one.

    What stands in the last `\boxed{…}` counts: a letter, or an option's own text. Without a box,
    the whole text where it is one of these; else the last statement (`the answer is B`, `B is
    correct`, `so it's B`, a last line `B`); else a letter that the text begins with (`B. …`).

    >>> extract_choice("so it is \\boxed{(B)}", ["one", "two"])
    'B'
    >>> extract_choice("The answer is (D).", ["one", "two"])
    'outside'
    >>> extract_choice("\\boxed{two}", ["one", "two"]), extract_choice("A hard one", ["one", "two"])
    ('B', None)
    """
    text = re.sub(r"\\f?box(?:ed)?\s*\{", r"\\boxed{", text.rpartition("</think>")[2])
    text = re.sub(r"\\boxed\s+([A-Za-z])(?![A-Za-z])", r"\\boxed{\1}", text)
    boxed = extract_answer(text.encode(errors="replace"))
    if boxed is not None:
        if _TWO_BOXES.search(text):
            return None
        inside = boxed.decode(errors="replace")
        return _letter_of(inside, options) or _labelled(_with_mentions(inside), options) or OUTSIDE
    if letter := _letter_of(text, options):
        return letter
    marked = _with_mentions(text)
    found = [
        (match.start("said"), "?" if match.groupdict().get("unsure") else match["said"])
        for statement in _STATEMENTS
        for match in statement.finditer(marked)
        if not _IF.search(marked[max(0, match.start() - 200) : match.start()])
    ]
    found += [
        (match.start("said"), letter)
        for match in _TEXT.finditer(marked)
        if (letter := _letter_of(match["said"], options))
    ]
    said = max(found)[1] if found else _first_letter(marked)
    if said is None or said == "?":
        return None
    return said.upper() if said.upper() in LETTERS[: len(options)] else OUTSIDE


def _first_letter(marked: str) -> str | None:
    """Returns the letter that a text begins with, where no other line begins with another one."""
    letters = {match[1] for match in _LINE.finditer(marked)}
    return letters.pop() if _LINE.match(marked) and len(letters) == 1 else None


def _labelled(marked: str, options: Sequence[str]) -> str | None:
    """Returns the letter of `B. …` and `(B) …`, whatever follows."""
    match = re.match(r"\s*⟦([A-Z])⟧[.:)]?\s", marked)
    return match[1] if match and match[1] in LETTERS[: len(options)] else None


def _letter_of(text: str, options: Sequence[str]) -> str | None:
    """Returns the letter that a short text is: a letter, with or without its option's text, or the
    text."""
    known = LETTERS[: len(options)]
    plain = " ".join(re.sub(r"[⟦⟧]", " ", _with_mentions(text)).split()).strip(" .!")
    texts = [normalised(option) for option in options]
    said = normalised(text)
    if len(plain) == 1 and plain in known:
        return plain
    for are_same, one in product((str.__eq__, _same_but_case, same_characters), (said, plain)):
        same = [letter for letter, own in zip(known, texts, strict=True) if are_same(own, one)]
        if len(same) == 1:
            return same[0]
    labelled = re.fullmatch(
        r"(?:(?:the )?(?:answer|option|choice|letter)(?: is)?[\s:]*)?(?P<letter>[A-Z])\s?[.:),]?"
        r"(?:\s+(?P<text>.*))?",
        plain,
        re.IGNORECASE,
    ) or re.fullmatch(r"(?P<text>.+) (?P<letter>[A-Z])", plain)  # 5 (B)
    if not labelled or labelled["letter"].upper() not in known:
        return None
    letter, text = labelled["letter"].upper(), labelled["text"]
    own = texts[known.index(letter)]
    return letter if text is None or _same_but_case(text, own) else None


def _same_but_case(one: str, other: str) -> bool:
    return one.casefold() == other.casefold()
