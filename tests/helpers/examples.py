"""Worked examples of the box and of prefix matching: the package and the recipe agree on them."""

BOX: list[tuple[bytes, bytes | None]] = [
    (rb"</think>\boxed{ the}", b" the"),
    (rb"</think>\boxed{\frac{1}{2}}", rb"\frac{1}{2}"),
    (rb"</think>\boxed{{}", b"{"),
    (rb"</think>\boxed{}}", b"}"),
    (rb"</think>\boxed{\}}", rb"\}"),
    (rb"</think>\boxed{x} is it.", b"x"),
    (rb"</think> \(\boxed{ n}\)", b" n"),
    (rb"\boxed{a}</think>\boxed{b}", b"b"),
    # whitespace: kept inside the box, removed after it
    (b"</think>\\boxed{ the \n}", b" the \n"),
    (b"</think>\\boxed{ the} \r\n\t\v\f", b" the"),
    (b"</think>\\boxed{\xc2\xa0}\xc2\xa0", b"\xc2\xa0"),  # not ASCII: the brace balances
    # the last box after the last delimiter
    (rb"</think>\boxed{a} or rather \boxed{b}", b"b"),
    (rb"</think>\boxed{a}</think>\boxed{b}", b"b"),
    # braces are counted raw where the box does not end the completion
    (rb"</think>\boxed{a{b}c} done", b"a{b}c"),
    (rb"</think>\boxed{\} done", b"\\"),
    (rb"</think>\boxed{x}, not {y}", b"x}, not {y"),  # ends with a brace: to the letter
    # no prediction
    (rb"\boxed{a}", None),
    (rb"\boxed{a}</think>", None),
    (rb"\boxed{a}</think> a", None),
    (rb"</think>\boxed{a}</think>", None),
    (rb"</think>\boxed{ the", None),
    (rb"</think>\boxed{{a} b", None),
    (rb"</think>\boxed{}", None),
    (rb"</think>\boxed{} done", None),
    (rb"</think>\boxed{", None),
    (rb"</think>boxed{a}", None),
    (b"", None),
]
"""(completion, its prediction)."""

CONTINUATION = [b" the", b" end"]
MATCHES: list[tuple[bytes | None, int]] = [
    (b" the", 1),
    (b" the end", 2),
    (b" th", 0),
    (b"the", 0),
    (b" the en", 0),
    (b" the end ", 0),
    (b" the  end", 0),
    (b"", 0),
    (None, 0),
]
"""(prediction, how many of the CONTINUATION's tokens it is)."""
