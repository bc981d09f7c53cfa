"""Numbers in answers without rounding: as fractions of whole numbers, and decimals that go on."""

import re

THOUSANDS = re.compile(r"[+-]?\d{1,3}(?:,\d{3})+(?:\.\d+)?")
_REPEATING = re.compile(
    r"(\d{0,99})\.(\d{0,99})\\(?:overline|bar|dot)\s*(?:\{(\d{1,99})\}|(\d))(?![\d.\\])"
)
_SCIENTIFIC = re.compile(r"(?<![A-Za-z\d.}])(\d+(?:\.\d*)?)[eE]([+-]?\d{1,3})(?![\d.A-Za-z])")
_DECIMAL = re.compile(r"(\d*)\.(\d+)")
_ENDLESS = re.compile(r"([+-]?\d{0,99}\.)(\d{1,99})\\ldots")
_CYCLE = re.compile(r"(\d*?)(\d+?)\2+")


def exact(text: str) -> str:
    r"""Returns a text with its numbers as fractions of whole numbers, so that nothing is rounded.

    >>> exact("1.50x"), exact("2e-05"), exact(r"0.1\overline{6}"), exact("1,234")
    ('\\frac{150}{100}x', '2\\cdot 10^{-5}', '\\frac{15}{90}', '1234')
    """
    if THOUSANDS.fullmatch(text):
        text = text.replace(",", "")

    def repeating(match: re.Match[str]) -> str:
        whole, start, cycle = match[1], match[2], match[3] or match[4]
        above = int(f"{whole}{start}{cycle}") - int(f"{whole}{start}" or "0")
        return rf"\frac{{{above}}}{{{'9' * len(cycle)}{'0' * len(start)}}}"

    text = _REPEATING.sub(repeating, text)
    text = _SCIENTIFIC.sub(lambda match: rf"{match[1]}\cdot 10^{{{int(match[2])}}}", text)
    return _DECIMAL.sub(
        lambda match: (
            rf"\frac{{{(match[1] + match[2]).lstrip('0') or '0'}}}{{1{'0' * len(match[2])}}}"
        ),
        text,
    )


def endless(text: str) -> tuple[str, str] | None:
    r"""Returns (the decimal, the repeating decimal that its digits show or "") of one that dots
    follow; None for all else. The cycle is the shortest that stands at the digits' end twice or
    more.

    >>> endless(r"0.1666\ldots"), endless(r"1.4142\ldots"), endless("0.5")
    (('0.1666', '0.1\\overline{6}'), ('1.4142', ''), None)
    """
    match = _ENDLESS.fullmatch(text)
    if match is None:
        return None
    whole, digits = match.groups()
    cycle = _CYCLE.fullmatch(digits)
    repeating = rf"{whole}{cycle[1]}\overline{{{cycle[2]}}}" if cycle else ""
    return whole + digits, repeating
