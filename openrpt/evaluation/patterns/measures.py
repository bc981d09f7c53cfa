"""The measures of a thought: keyword groups, leakage, copying, answer switching, diversity.

Pure functions on the bytes and words of one rollout (or one group). `pattern_runs.py` applies
them to stored rollouts, over steps and between runs.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from openrpt.config.toml_files import parse_toml
from openrpt.errors import UserError
from openrpt.rl.completions import has_content

Keywords = Mapping[str, Sequence[str]]

KEYWORDS: Keywords = {
    "transition": ("alternatively", "think differently"),
    "reflection": (
        "wait",
        "initial answer",
        "original answer",
        "looking back",
        "thought process",
    ),
    "breakdown": ("break down", "break this down"),
    "hypothesis": ("probably", "something like"),
    "divergent": (
        "etc.",
        "or something",
        "either",
        "sometimes it refers",
        "otherwise",
        "exploring",
        "options",
    ),
    "deduction": (
        "summarize",
        "conclusion",
        "conclude",
        "finally",
        "logically",
        "consequently",
    ),
}
"""The paper's six groups of reasoning patterns (arXiv 2506.08007, Section 4.5 and Table 9)."""

_WORD = re.compile(r"\w+|[^\w\s]")
_BOXED = re.compile(r"\\boxed\{([^{}]*)\}")
_ANSWER = re.compile(
    r"\b(?:answer|next (?:word|token)) is:?\s+[\"'`“]?([^\s\"'`”,;]+)", re.IGNORECASE
)


def read_keywords(path: Path) -> dict[str, list[str]]:
    """Reads a user's groups: a TOML or JSON file, `group = ["keyword", …]`.

    Raises UserError for a missing or malformed file, and for a group that is no list of texts.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        is_json = path.suffix == ".json"
        values = json.loads(text) if is_json else parse_toml(text, source=str(path))
    except OSError as error:
        raise UserError(f"{path}: not readable ({error.strerror})") from None
    except RecursionError:
        raise UserError(f"{path}: not valid JSON: brackets are nested too deep") from None
    except ValueError as error:  # json's own, UTF-8's, and of an integer that is too long
        raise UserError(f"{path}: not valid JSON: {error}") from None
    if not isinstance(values, dict) or not values:
        raise UserError(f'{path}: no groups there; write: name = ["keyword", "another"]')
    for group, words in values.items():
        whole = isinstance(words, list) and all(isinstance(w, str) and w.strip() for w in words)
        if not whole or not words:
            raise UserError(f"{path}: group '{group}' must be a list of keywords (texts)")
    return values


def keyword_patterns(groups: Keywords) -> dict[str, re.Pattern[str]]:
    """Returns expressions for whole words, in any case, any whitespace between them: `either` is
    not in "neither"."""

    def one(keyword: str) -> str:
        return r"\s+".join(re.escape(word) for word in keyword.split())

    return {
        group: re.compile(rf"(?<!\w)(?:{'|'.join(map(one, words))})(?!\w)", re.IGNORECASE)
        for group, words in groups.items()
    }


def free_thought(thought: bytes, candidates: Sequence[bytes], separator: bytes) -> bytes:
    """Returns the thought without the candidates that it was made to begin with.

    >>> free_thought(b" a | b, because", [b" a", b" b"], b" |")
    b', because'
    """
    return thought.removeprefix(separator.join(candidates))


def words_of(text: str) -> list[str]:
    """Returns a text's words and single signs, in lower case."""
    return [word.lower() for word in _WORD.findall(text)]


def target_text(continuation: Sequence[bytes]) -> str:
    """Returns the true next token without the whitespace around it; empty where it has no letter
    and no digit, for such a token stands in nearly every text."""
    text = continuation[0].decode("utf-8", errors="replace").strip() if continuation else ""
    return text if any(character.isalnum() for character in text) else ""


def contains(thought: str, target: str) -> float | None:
    """Returns 1 if the thought contains the target; None where there is none of one of them.

    Quiet-STaR's reward "tends to be hacked by repeating the target token in the generated
    rationale" (arXiv 2506.08007, Section 6): leakage.
    """
    return float(target in thought) if thought.strip() and target else None


def copied_share(thought: Sequence[str], prefix: Sequence[str]) -> float | None:
    """Returns the words of the longest run of the thought's that stands in the prefix, over the
    thought's words; None for an empty thought.

    >>> copied_share(["so", "the", "sum", "is", "even"], ["the", "sum", "is", "odd"])
    0.6
    """
    if not thought:
        return None
    longest = 0
    while _ngrams(thought, longest + 1) & _ngrams(prefix, longest + 1):
        longest += 1
    return longest / len(thought)


def _ngrams(words: Sequence[str], n: int) -> set[tuple[str, ...]]:
    return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}


def named_answers(thought: str) -> list[str]:
    r"""Returns the answers that a thought names, in their order: what stands in a `\boxed{}` and
    the word after "answer is", "next word is" or "next token is".

    >>> named_answers("The answer is 4. No: the next word is 'five'")
    ['4', 'five']
    """
    found = [*_BOXED.finditer(thought), *_ANSWER.finditer(thought)]
    found.sort(key=lambda match: match.start())
    answers = [match[1].strip().rstrip(".!?:") for match in found]
    return [answer for answer in answers if answer]


def switched(thought: str) -> float | None:
    """Returns 1 if the last answer that a thought names differs from the first; None without a
    thought."""
    if not thought.strip():
        return None
    answers = named_answers(thought)
    return float(len(answers) > 1 and answers[-1] != answers[0])


def distinct(texts: Sequence[Sequence[str]], n: int) -> float | None:
    """Returns distinct-n (Li et al., arXiv 1510.03055) of a group's thoughts: different n-grams
    over all n-grams; 1 = nothing is said twice. None where there are none.

    >>> distinct([["a", "b"], ["a", "b"]], 2)
    0.5
    """
    total = sum(max(len(words) - n + 1, 0) for words in texts)
    return len(set().union(*(_ngrams(words, n) for words in texts))) / total if total else None


def thought_measures(
    thought: str, prefix: str, target: str, other_target: str, groups: Mapping[str, re.Pattern[str]]
) -> dict[str, float | None]:
    """Returns all that is measured of one free thought. `other_target`: the target of another
    position, for how often a thought contains a target by chance."""
    present = bool(thought.strip())
    measures: dict[str, float | None] = {
        "thought_bytes": float(len(thought.encode())),
        "contains_target": contains(thought, target),
        "contains_other_target": contains(thought, other_target),
        "copied_from_prefix": copied_share(words_of(thought), words_of(prefix)),
        "answer_switched": switched(thought),
    }
    for group, pattern in groups.items():
        found = float(pattern.search(thought) is not None)
        measures[f"keywords/{group}"] = found if present else None
    return measures


def prediction_measures(row: Mapping[str, Any]) -> dict[str, float | None]:
    """Returns the measures of one row of a rollout file: whether rewarded predictions have
    content."""
    prediction, continuation = row["prediction"], row["continuation"]
    said = prediction is not None
    return {
        "reward": float(row["reward"]),
        "closed": float(said),
        "prediction_bytes": float(len(prediction)) if said else None,
        "prediction_content": has_content(prediction) if said else None,
        "truth_content": has_content(continuation[0]) if continuation else None,
        "equals_ntp": float(prediction == row["ntp_prediction"]) if said else None,
    }
