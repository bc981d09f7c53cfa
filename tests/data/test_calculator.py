"""The calculator: which numbers count as computed, which do not, and how a working is written."""

import re
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openrpt.data.calculator.columns import in_columns
from openrpt.data.calculator.find import Computed, find_computed
from openrpt.data.calculator.numbers import agrees_to_digits, decimal_text, number_value
from openrpt.data.calculator.parser import Node, Operand, apply, operations
from openrpt.data.calculator.working import working


def results(text: str) -> list[str]:
    """The computed numbers, each checked against the bytes that it says it is."""
    found = list(find_computed(text))
    data = text.encode()
    assert [one.text for one in found] == [data[one.start : one.end].decode() for one in found]
    return [one.text for one in found]


def only(text: str) -> Computed:
    (found,) = find_computed(text)
    return found


# What counts


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("Natalia sold 48/2 = 24 clips.", ["24"]),
        ("5*1= 5 points, and 42*4=168", ["5", "168"]),
        ("Working 50 minutes, she earned 0.2 x 50 = $10.", ["10"]),
        ("needs 100 - 50 - 30 - 15 = $5 more", ["5"]),
        ("3 x 4 = 12, 3 X 4 = 12, 3 × 4 = 12, 3 · 4 = 12, 3 * 4 = 12", ["12"] * 5),
        ("8 ÷ 2 = 4 and 9 – 2 = 7 and 9 − 2 = 7", ["4", "7", "7"]),
        # chains
        ("x = 12/3 = 4", ["4"]),
        ("2*3+4 = 6+4 = 10", ["10"]),
        ("2*3 = 6 + 4 = 10", ["6", "10"]),
        ("12 * 3\n= 36", ["36"]),
        # numbers
        ("1,200 x 3 = 3,600 and 1{,}000+1=1{,}001", ["3,600", "1{,}001"]),
        ("1,\\!000+1=1,\\!001", ["1,\\!001"]),
        (".5 * 4 = 2.0 and 3 / 5 = .6", ["2.0", ".6"]),
        ("4 - 9 = -5 and $5 - $10 = -$5 and $5 - $10 = $-5", ["-5", "-$5", "-5"]),
        ("-3 + 5 = 2", ["2"]),
        ("7 x (-4) = -28", ["-28"]),
        # percent
        ("20% x 50 = 10 and 100% - 20% = 80% and 5/20 = 25%", ["10", "80", "25"]),
        ("(5/20)*100 = 25% and 25% of 80 = 20 and 1/2 of 10 = 5", ["25", "20", "5"]),
        # currency
        ("$100 / (40/100) = $250; €5 * 3 = €15; 5€ * 3 = 15€", ["250", "15", "15"]),
        # units
        ("8 boxes * 12 cookies / box = 96 cookies", ["96"]),
        ("6 days/week * 2 weeks/month = 12 days/month", ["12"]),
        ("£195/day * 12 days/month = £2340/month", ["2340"]),
        ("4 skeins per hat + 8 skeins per pair of socks = 12 skeins", ["12"]),
        ("200 m + 200 m = 400 m and 2 * 5cm = 10cm", ["400", "10"]),
        ("He has 3 apples and 2 + 3 = 5 pears", ["5"]),
        # words
        ("5 times 4 is 20; 2 plus 2 equals 4; 9 divided by 3 is equal to 3", ["20", "4", "3"]),
        # side by side
        ("4(7) - 10 = 18 and (2)(3) = 6 and 2(3+4) = 14", ["18", "6", "14"]),
        # LaTeX
        ("$2 \\times 3 = 6$, $2 \\cdot 3 = 6$, $\\frac{12}{4} = 3$, $\\dfrac{3+4}{2}=3.5$",
         ["6", "6", "3", "3.5"]),
        ("2^3 = 8, 2^{10} = 1024, 2**3 = 8, 2^3*2 = 16", ["8", "1024", "8", "16"]),
        ("3+4 &= 7 \\\\\n&= \\boxed{7}", ["7"]),
        ("15 \\times 7 \\\\\n&= \\boxed{105}", ["105"]),
        ("\\left(2+3\\right)4 + 1 = 21 and 4\\left(2+3\\right) = 20", ["20"]),
        # calculator marks: what is said in the mark; what follows is a copy
        ("48/2 = <<48/2=24>>24 clips", ["24"]),
        # lists
        ("- 3 + 5 = 8\n* 2 + 2 = 4\n1. 3 + 4 = 7\n2) 3 + 4 = 7", ["8", "4", "7", "7"]),
        ("Café: 2 + 3 = 5 à la 4 + 4 = 8", ["5", "8"]),
        ("assert 2 + 3 == 5", ["5"]),
    ],
)  # fmt: skip
def test_what_is_computed(text: str, numbers: list[str]) -> None:
    assert results(text) == numbers


@pytest.mark.parametrize(
    "text",
    [
        "48/2 = 25",  # not what it evaluates to
        "3 = 3",  # no operation
        "20% = 0.2",
        "3-4 = ",
        "3-4 = x",
        "5/0 = 0",
        "0^0 = 1",
        "1e9^999999999 = 1",
        "9^99999 = 1",
        # equations with unknowns
        "2y + 3 + 4 = 7",
        "y - 3 + 4 = 1",
        "y -3 + 4 = 1",
        "2x = 2*1x",
        "3x + 2x = 5x",
        "x + 5 = 5",
        "f(3 + 4) = 7",
        "x^{2+3} = 5",
        "a_2 + 3 = 5",
        "\\sqrt{9} + 1 + 2 = 3",
        "S + 30 + 46 = S + 76",
        # parts of something else
        "1.2.3+4 = 5.2",
        "12:30 + 5 = 35",
        "on 2020-01-01: 5 = 5",
        "v1 + 2 = 3",
        "101_2 + 1 = 102",
        "2 + 3 = 5^2",
        "2 + 3 = 5x",
        "2 + 3 = 5(2)",
        "2 + 3 = 5:4",
        "2 + 3 = 5.1.2",
        "100 101_2 = 101_2",
        "5! + 3 = 3",
        "|3| + 4 = 7",
        # other signs
        "2 + 3 <= 5",
        "2 + 3 != 5",
        "2 + 3 >= 5",
        "2 + 3 += 5",
        # whose is the sign?
        "-2^2 = 4",
        # not rounded, or wrongly
        "100/3 = 33",
        "2/3 = 0.66",
        "1/3000 = 0.00",
        # half of it on another line
        "48\n/2 = 24",
    ],
)
def test_what_is_not_computed(text: str) -> None:
    assert results(text) == []


def test_rounding() -> None:
    assert only("10/3 = 3.33").is_rounded
    assert only("10/3 ≈ 3").is_rounded
    assert only("7.5/2 = 3.8").is_rounded  # half goes up …
    assert only("8.5/10 = 0.8").is_rounded  # … or to even
    assert not only("7.5/2 = 3.75").is_rounded
    assert agrees_to_digits(Fraction(2, 3), Fraction(66, 100), 2, approximately=True) is None


def test_kinds() -> None:
    text = "1+1=2 3-1=2 1*2=2 4/2=2 2^1=2 1+1+1=3"
    assert [found.kind for found in find_computed(text)] == ["+", "-", "*", "/", "^", "several"]


def test_numbers() -> None:
    assert number_value("1,000,000.5") == Fraction(2_000_001, 2)
    assert [number_value(text) for text in ("1,00", "1.2.3", "", ".", "9" * 31, "１２")] == [
        None
    ] * 6
    assert decimal_text(Fraction(-5, 4)) == "-1.25"
    assert decimal_text(Fraction(1, 10**7)) is None


def test_an_expression_that_is_too_long_is_left_alone() -> None:
    assert results("1 + " * 60 + "1 = 61") == ["61"]
    assert results("1 + " * 200 + "1 = 201") == []
    assert results("1 + " * 200 + "1 = 75") == []  # what can be seen of it
    assert results("words " * 100 + "1 + 1 = 2") == ["2"]
    assert results("(" * 50 + "1+1" + ")" * 50 + " = 2") == []


def test_a_text_of_half_a_character_does_not_stop_it() -> None:
    assert [found.text for found in find_computed("\ud800 1+1 = 2")] == ["2"]


# The working


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("12 * 13 = 156", "\n12 * 13 = 156"),
        ("0.2 x 50 = $10", "\n0.2 x 50 = $10"),
        ("40/2+4 = 24", "\n40/2 = 20\n20+4 = 24"),
        ("100 - 50 - 30 - 15 = $5", "\n100 - 50 = 50\n50 - 30 = 20\n20 - 15 = $5"),
        ("$100 / (40/100) = $250", "\n40/100 = 0.4\n$100 / 0.4 = $250"),
        ("2*$15 + 8*$20= $190", "\n2*$15= $30\n8*$20= $160\n$30 + $160= $190"),
        ("1/3*60 = 20", "\n1/3*60 = 20"),  # a third has no short decimal
        ("(1/3)*60+1 = 21", "\n(1/3)*60 = 20\n20+1 = 21"),
        ("1,200*3+400 = 4,000", "\n1,200*3 = 3,600\n3,600+400 = 4,000"),
        ("4*(3-5) = -8", "\n3-5 = -2\n4*(-2) = -8"),
        ("$5 - $10 + $2 = -$3", "\n$5 - $10 = -$5\n-$5 + $2 = -$3"),
        ("100% - 20% - 5% = 75%", "\n100% - 20% = 80%\n80% - 5% = 75%"),
        ("$65\\%+18\\%+10\\%=93\\%$", "\n65\\%+18\\%=83\\%\n83\\%+10\\%=93\\%"),
        ("6 days/week * 2 weeks/month = 12 days", "\n6 * 2 = 12"),
        ("4(7) - 10 = 18", "\n4(7) = 28\n28 - 10 = 18"),
        ("(2)(3) = 6", "\n(2)(3) = 6"),
        ("$3+4=7$", "\n3+4=7"),
        ("$3+4=\\boxed{7}$.", "\n3+4=7"),
        ("$5 + $2 = $7", "\n$5 + $2 = $7"),
        ("\\frac{3+4}{2} = 3.5", "\n3+4 = 7\n\\frac{7}{2} = 3.5"),
        ("2^{3} + 1 = 9", "\n2^{3} = 8\n8 + 1 = 9"),
        ("2 times 3 plus 1 is 7", "\n2 times 3 = 6\n6 plus 1 is 7"),
        ("10/4/3 ≈ 0.83", "\n10/4 = 2.5\n2.5/3 ≈ 0.83"),
    ],
)
def test_lines(text: str, lines: str) -> None:
    assert working(only(text)) == lines


def test_other_styles() -> None:
    found = only("$1,200 x 3 + (2 - 5) = $3,597")
    assert working(found, "whole") == "\n$1,200 x 3 + (2 - 5) = $3,597"
    assert working(found, "bare") == "\n1200*3=3600\n2-5=-3\n3600+(-3)=3597"
    assert working(only("100% - 20% = 80%"), "bare") == "\n100%-20%=80%"
    assert working(only("\\frac{1+1}{3} * 3 = 2"), "bare") == "\n1+1=2\n(2/3)*3=2"


def test_columns() -> None:
    assert working(only("$20 + 5 x 58 = $310"), "columns") == (
        "\n58*5: 8*5=40,5*5+4=25+4=29:290\n020+290: 0+0=0,2+9=11,0+2+1=3:310"
    )
    # What is not on whole numbers, or does not come out whole, stands on a line of its own.
    assert working(only("1283.5 / 0.85 = 1510"), "columns") == "\n1283.5/0.85=1510"
    assert working(only("7 * 2 = 14.0"), "columns") == "\n7*2=14.0"
    assert working(only("50% of 48 = 24"), "columns") == "\n50%*48=24"
    assert working(only("2 - 5 = -3"), "columns") == "\n2-5=-3"


@given(st.integers(0, 20_000), st.sampled_from("+-*/"), st.integers(0, 20_000))
def test_each_step_in_columns_is_true_and_small(left: int, symbol: str, right: int) -> None:
    if symbol == "/":
        right = right % 97 + 1
        left *= right
    worked = in_columns(left, symbol, right)
    if worked is None:
        assert symbol == "-" and left < right
        return
    assert re.split("[:=\n]", worked)[-1] == str(
        int(apply(symbol, Fraction(left), Fraction(right)))
    )
    steps = [step for line in worked.split("\n") for step in line.partition(": ")[2].split(",")]
    for step in filter(None, (step.partition(":")[0] for step in steps)):
        sides = step.split("=")
        assert len({value_of_side(side) for side in sides}) == 1, step
        assert max(map(len, re.split(r"[-+*/=r]", step))) <= 4, step  # nothing is done in one go


def value_of_side(side: str) -> tuple[int, int] | int:
    """The value of `5*9+7`, `12-3-1` or `43/6`; a quotient with its remainder (`7r1`)."""
    if "/" in side or "r" in side:
        first, second = map(int, re.split("[/r]", side))
        return divmod(first, second) if "/" in side else (first, second)
    numbers = re.findall(r"([-+]?)([0-9]+)(?:\*([0-9]+))?", side)
    return sum(int(f"{sign}{a}") * int(b or 1) for sign, a, b in numbers)


# Random expressions are found again


Tree = tuple[str, "Tree", "Tree"] | int
LEAVES = st.integers(0, 2000)
TREES: st.SearchStrategy[Tree] = st.recursive(
    LEAVES, lambda inner: st.tuples(st.sampled_from("+-*/"), inner, inner), max_leaves=6
)
SPELLINGS = {"+": ["+"], "-": ["-", "−", "–"], "*": ["*", "x", "×", "·", "\\cdot"], "/": ["/", "÷"]}


def value_of(tree: Tree) -> Fraction:
    if isinstance(tree, int):
        return Fraction(tree)
    return apply(tree[0], value_of(tree[1]), value_of(tree[2]))


@st.composite
def spelled(draw: st.DrawFn, tree: Tree, *, space: str) -> str:
    if isinstance(tree, int):
        sign = draw(st.sampled_from(["", "$"]))
        unit = draw(st.sampled_from(["", "", " apples", " cups of tea"])) if space else ""
        return f"{sign}{tree:,}{unit}" if draw(st.booleans()) else f"{sign}{tree}{unit}"
    symbol, *sides = tree
    left, right = (draw(spelled(side, space=space)) for side in sides)
    left = left if isinstance(sides[0], int) else f"({left})"
    right = right if isinstance(sides[1], int) else f"({right})"
    sign = draw(st.sampled_from(SPELLINGS[symbol]))
    gap = " " if sign == "\\cdot" else space
    return f"{left}{gap}{sign}{gap}{right}"


@settings(max_examples=300, deadline=None)
@given(data=st.data(), tree=TREES.filter(lambda tree: not isinstance(tree, int)))
def test_an_expression_in_any_spelling_is_found_with_its_value(
    data: st.DataObject, tree: Tree
) -> None:
    try:
        value = value_of(tree)
    except ValueError:  # a division by zero
        return
    number = decimal_text(value)
    if number is None or len(number) > 30:
        return
    space = data.draw(st.sampled_from(["", " "]))
    expression = data.draw(spelled(tree, space=space))
    before = data.draw(st.sampled_from(["", "So she has ", "Ça fait: ", "(", "x = "]))
    stated = f"{before}{expression}{space}={space}{number}"
    text = f"{stated} in all."
    found = only(text)
    assert found.value == value and found.text == number
    assert text.encode()[found.start : found.end].decode() == number
    assert len(operations(found.tree)) == count(tree)
    # The working is arithmetic that the calculator finds true itself, line by line.
    for line in working(found).strip("\n").split("\n"):
        only(line)
    for line in working(found, "bare").strip("\n").split("\n"):
        only(line)
    # A wrong number is no result.
    assert not list(find_computed(f"{stated}7 in all."))


def count(tree: Tree) -> int:
    return 0 if isinstance(tree, int) else 1 + count(tree[1]) + count(tree[2])


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="0123456789+-*/x=().,%$ \\{}^<>!ab\n≈é", max_size=80))
def test_any_text_is_read_without_fail(text: str) -> None:
    data = text.encode()
    for found in find_computed(text):
        assert data[found.start : found.end].decode() == found.text
        assert working(found).startswith("\n") and working(found).endswith(found.result)


def test_leaves_keep_their_values() -> None:
    def leaves(node: Node) -> list[str]:
        if isinstance(node, Operand):
            return [node.spelled]
        return [*leaves(node.left), *leaves(node.right)]

    assert leaves(only("20% * $1,000.50 - 3 = 197.1").tree) == ["20%", "$1,000.50", "3"]
