"""The rewards of a prediction, as pure functions of bytes: no model, no torch.

The prefix match is the paper's reward, and the only one that evaluation knows. The others are
terms that training can be given in its place or beside it; `reward_terms.py` has those that read
the group or the model, and docs/rewards.md says how each can be gamed.
"""

import difflib
import re
import unicodedata
from collections.abc import Sequence
from typing import Protocol

from openrpt.errors import UserError
from openrpt.rl.completions import BOX

DENSE_CEILING = 0.999
"""The dense reward of a wrong prediction stays at or below this: sure is not right."""


def matched_tokens(prediction: bytes | str | None, continuation: Sequence[bytes]) -> int:
    """Returns the least k ≥ 1 for which the prediction equals the continuation's first k tokens,
    else 0.

    `continuation` holds the exact bytes of the document's real tokens from the position on. A
    prediction that a trainer has decoded may be given as text: raises UserError where it has lost
    half a character on the way, which only its tokens' bytes tell.

    >>> matched_tokens(b" the end", [b" the", b" end", b"."])
    2
    """
    if isinstance(prediction, str):
        return _matched_text(prediction, continuation)
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


def _matched_text(prediction: str, continuation: Sequence[bytes]) -> int:
    found = matched_tokens(prediction.encode("utf-8", "surrogatepass"), continuation)
    if not found and "\ufffd" in prediction:  # a text may hold that character itself
        raise UserError(
            f"the prediction {prediction!r:.60} was decoded and has lost bytes (U+FFFD stands for"
            " half a character), so it can't be graded; grade the bytes of its token ids:"
            " b''.join(openrpt.tokens.token_bytes(tokenizer, ids, at_start=False))"
        )
    return found


def prefix_match(prediction: bytes | str | None, continuation: Sequence[bytes]) -> float:
    """Rewards a prediction that ends on a token boundary of the true continuation: 1.0, else 0.0.

    The prefix-matching reward of arXiv 2506.08007, Eq. 3: the prediction must be non-empty and
    equal the bytes of the first k ≥ 1 tokens of the continuation for some k. Text in place of
    bytes, and its UserError, as in `matched_tokens`.

    >>> prefix_match(b" the", [b" the", b" end"]), prefix_match(b" th", [b" the", b" end"])
    (1.0, 0.0)
    """
    return 1.0 if matched_tokens(prediction, continuation) else 0.0


def first_token_match(prediction_tokens: Sequence[bytes], continuation: Sequence[bytes]) -> float:
    """Rewards a prediction whose first tokens are the continuation's first one: 1.0, else 0.0.

    The first-token matching of arXiv 2506.08007, Appendix A, by bytes: `prediction_tokens` are
    the tokens that the policy wrote, and some number of them must join to the continuation's
    first token (one without bytes is passed over). So " then" as one token is no match for " the".

    >>> first_token_match([b" the", b" beginning"], [b" the", b" end"])
    1.0
    """
    first = next((token for token in continuation if token), b"")
    joined = b""
    for token in prediction_tokens:
        joined += token
        if len(joined) >= len(first):
            break
    return 1.0 if first and joined == first else 0.0


def dense_reward(exact: bool, probability: float) -> float:
    """Rewards an exact prediction with 1, another with the probability that it had: [0, 1].

    After arXiv 2506.08007, Appendix A, which takes the plain model's probability of a wrong first
    token; here it is the sampler's, of the whole prediction, and at most DENSE_CEILING.

    >>> dense_reward(True, 0.2), dense_reward(False, 0.2), dense_reward(False, 1.0)
    (1.0, 0.2, 0.999)
    """
    return 1.0 if exact else min(probability, DENSE_CEILING)


def length_weighted_match(
    prediction: bytes | None, continuation: Sequence[bytes], *, bonus: float
) -> float:
    """Returns the prefix match with a bounded bonus: 1 + bonus · (1 − 2^(1 − k)) for k exact
    tokens, else 0.

    The first token earns 1, each further one half of what is left of the bonus: [0, 1 + bonus).

    >>> [length_weighted_match(p, [b"a", b"b", b"c"], bonus=0.5) for p in (b"a", b"ab", b"abc")]
    [1.0, 1.25, 1.375]
    """
    k = matched_tokens(prediction, continuation)
    return 1.0 + bonus * (1.0 - 2.0 ** (1 - k)) if k else 0.0


def prediction_tokens(
    completion_tokens: Sequence[bytes], prediction: bytes | None
) -> list[tuple[int, bytes]]:
    r"""Finds a prediction's tokens: (index in the completion, its bytes in the prediction).

    `completion_tokens` are the bytes of the completion's tokens, `prediction` is what
    `extract_prediction` found in them. A token may hold the box's brace, too.

    >>> prediction_tokens([b"</think>", b"\\boxed", b"{ a", b"b}"], b" ab")
    [(2, b' a'), (3, b'b')]
    """
    if prediction is None:
        return []
    start = b"".join(completion_tokens).rindex(BOX) + len(BOX)  # a prediction begins its box
    stop = start + len(prediction)
    found, before = [], 0
    for index, token in enumerate(completion_tokens):
        inside = token[max(start - before, 0) : max(stop - before, 0)]
        if inside:
            found.append((index, inside))
        before += len(token)
    return found


class _Judge(Protocol):
    """A function that says how well a prediction renders the next segment of the text.

    A number, 1 = as well as can be. Called by keyword.
    """

    def __call__(self, *, prediction: str, segment: str) -> float: ...


_SEGMENT_END = re.compile(r"[.!?…]+[\"'”’)\]}]*(?=\s)|[。！？]+[”’」』）]*|\n")


def next_segment(continuation: Sequence[bytes]) -> str:
    """Returns the continuation up to the end of its first sentence or line, without outer
    whitespace.

    A sentence ends with its mark (and closing quotes or brackets) before whitespace, or with a
    full-width mark. Of a position inside a sentence it is the rest of that sentence; where no end
    is in sight, all there is. A character that the position cuts in two becomes U+FFFD.

    >>> next_segment([b" the", b" end", b".", b" Then", b" more"])
    'the end.'
    """
    text = b"".join(continuation).decode("utf-8", errors="replace").lstrip()
    end = _SEGMENT_END.search(text)
    return (text[: end.end()] if end else text).rstrip()


def segment_reward(prediction: bytes | None, segment: str, judge: _Judge) -> float:
    """Rewards a prediction with what the judge says; 0 without one.

    Next-segment reasoning: arXiv 2509.19249.
    """
    if prediction is None:
        return 0.0
    return judge(prediction=prediction.decode("utf-8", errors="replace"), segment=segment)


def exact_judge(*, prediction: str, segment: str) -> float:
    """Judges by equality but for case, whitespace and compatibility forms: 1.0 or 0.0.

    >>> exact_judge(prediction=" The  END.", segment="the end.")
    1.0
    """
    return float(bool(_normalised(segment)) and _normalised(prediction) == _normalised(segment))


def fuzzy_judge(*, prediction: str, segment: str, threshold: float) -> float:
    """Judges by likeness: 1.0 from `threshold` on; with a threshold of 0, the likeness itself.

    Likeness is difflib's ratio on the normalised texts, 2·M / T: M characters in common blocks of
    T in both together; in [0, 1].

    >>> fuzzy_judge(prediction="the and.", segment="The end.", threshold=0.0)
    0.875
    """
    pair = _normalised(segment), _normalised(prediction)
    likeness = difflib.SequenceMatcher(None, *pair, autojunk=False).ratio() if all(pair) else 0.0
    return float(likeness >= threshold) if threshold else likeness


def _normalised(text: str) -> str:
    """Returns the text in NFKC, case folded, whitespace collapsed."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())
