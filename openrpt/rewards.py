"""The reward of a prediction: does it equal, byte for byte, a whole number of the next tokens?"""

from collections.abc import Sequence


def matched_tokens(prediction: bytes | None, continuation: Sequence[bytes]) -> int:
    """The least k ≥ 1 for which the prediction equals the continuation's first k tokens, else 0.

    `continuation` holds the exact bytes of the document's real tokens from the position on.

    >>> matched_tokens(b" the end", [b" the", b" end", b"."])
    2
    """
    if not prediction:
        return 0
    end = 0  # bytes of the tokens so far
    for k, token in enumerate(continuation, start=1):
        if not prediction.startswith(token, end):
            return 0
        end += len(token)
        if end == len(prediction):
            return k
    return 0


def prefix_match(prediction: bytes | None, continuation: Sequence[bytes]) -> float:
    """1.0 if the prediction ends on a token boundary of the true continuation, else 0.0.

    The prefix-matching reward of arXiv 2506.08007, Eq. 3: the prediction must be non-empty and
    equal the bytes of the first k ≥ 1 tokens of the continuation for some k.

    >>> prefix_match(b" the", [b" the", b" end"]), prefix_match(b" th", [b" the", b" end"])
    (1.0, 0.0)
    """
    return 1.0 if matched_tokens(prediction, continuation) else 0.0
