"""An operation on whole numbers worked digit by digit, as on paper: each step is a fact of the
tables, so that nothing has to be computed in one go.

After the detailed scratchpads of [2307.03381](https://arxiv.org/abs/2307.03381).
"""


def in_columns(left: int, symbol: str, right: int) -> str | None:
    r"""Returns the lines, each beginning with a line break, the last ending with the result.

    None for what is not worked so: a negative number, a division with a remainder, a power.

    >>> in_columns(522, "+", 39)
    '\n522+039: 2+9=11,2+3+1=6,5+0=5:561'
    >>> in_columns(432, "/", 6)
    '\n432/6: 4/6=0r4,43/6=7r1,12/6=2r0:72'
    """
    if min(left, right) < 0:
        return None
    match symbol:
        case "+":
            return _sum(left, right)
        case "-" if left >= right:
            return _difference(left, right)
        case "*":
            return _product(left, right)
        case "/" if right and left % right == 0:
            return _quotient(left, right)
    return None


def _sum(left: int, right: int) -> str:
    above, below = _aligned(left, right)
    if len(above) == 1:
        return f"\n{left}+{right}={left + right}"
    steps, carry = [], 0
    for x, y in _from_the_right(above, below):
        total = x + y + carry
        steps.append(f"{x}+{y}{f'+{carry}' if carry else ''}={total}")
        carry = total // 10
    return f"\n{above}+{below}: {','.join(steps)}:{left + right}"


def _difference(left: int, right: int) -> str:
    above, below = _aligned(left, right)
    if len(above) == 1:
        return f"\n{left}-{right}={left - right}"
    steps, borrowed = [], 0
    for x, y in _from_the_right(above, below):
        lent = 10 * (x < y + borrowed)
        rest = f"-{borrowed}" if borrowed else ""
        steps.append(f"{x + lent}-{y}{rest}={x + lent - y - borrowed}")
        borrowed = int(lent > 0)
    return f"\n{above}-{below}: {','.join(steps)}:{left - right}"


def _product(left: int, right: int) -> str:
    """Zeros at the ends are left out and put back; the rest is multiplied a digit at a time."""
    if not left * right or max(left, right) < 10:
        return f"\n{left}*{right}={left * right}"
    longer, shorter = _without_zeros(left), _without_zeros(right)
    if len(str(longer)) < len(str(shorter)):
        longer, shorter = shorter, longer
    is_shortened = longer * shorter != left * right
    lines, known = f"\n{left}*{right}" if is_shortened else "", 0
    for place, digit in enumerate(reversed(str(shorter))):
        if digit == "0":
            continue
        lines += _times_digit(longer, int(digit)) + "0" * place
        part = longer * int(digit) * 10**place
        lines += _sum(known, part) if known else ""
        known += part
    return lines + (f"\n{left * right}" if is_shortened else "")


def _times_digit(number: int, digit: int) -> str:
    if number < 10:
        return f"\n{number}*{digit}={number * digit}"
    steps, carry = [], 0
    for x in reversed(str(number)):
        product = int(x) * digit
        more = f"+{carry}" if carry else ""
        steps.append(f"{x}*{digit}{more}={product}{f'{more}={product + carry}' if more else ''}")
        carry = (product + carry) // 10
    return f"\n{number}*{digit}: {','.join(steps)}:{number * digit}"


def _quotient(left: int, right: int) -> str:
    """Long division: from the left, each step with its remainder."""
    steps, rest = [], 0
    for x in str(left):
        rest = 10 * rest + int(x)
        steps.append(f"{rest}/{right}={rest // right}r{rest % right}")
        rest %= right
    if len(steps) == 1:
        return f"\n{left}/{right}={left // right}"
    return f"\n{left}/{right}: {','.join(steps)}:{left // right}"


def _aligned(left: int, right: int) -> tuple[str, str]:
    """Returns both numbers with as many digits."""
    width = max(len(str(left)), len(str(right)))
    return str(left).zfill(width), str(right).zfill(width)


def _from_the_right(above: str, below: str) -> list[tuple[int, int]]:
    return [(int(x), int(y)) for x, y in zip(reversed(above), reversed(below), strict=True)]


def _without_zeros(number: int) -> int:
    return int(str(number).rstrip("0"))
