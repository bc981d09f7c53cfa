"""Rollouts to be read: a few groups of the first and the last stored step, as the page shows them.

Everything here came out of a corpus or a model: it is bytes, made visible and escaped.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from openrpt.rewards import matched_tokens
from openrpt.rollouts import read_rollouts

LAST_GROUPS = 16
FIRST_GROUPS = 8
ROLLOUTS = 16
"""Most groups of a step, and most rollouts of a group, that are shown."""

VISIBLE = {" ": "␣", "\n": "⏎", "\t": "⇥"}
# Controls, and characters that reorder or hide text: shown as escapes.
HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff]"
)


def visible(text: bytes) -> Markup:
    """Safe HTML in which spaces, newlines, controls and stray bytes can be seen.

    >>> str(visible(b" a<\\xff"))
    '<i class="ws">␣</i>a&lt;\\\\xff'
    """
    marked = str(escape(_readable(text)))
    for character, sign in VISIBLE.items():
        marked = marked.replace(character, f"\0{sign}\1")
    return Markup(marked.replace("\0", '<i class="ws">').replace("\1", "</i>"))


def running(text: bytes) -> Markup:
    """Safe HTML for text to be read on: newlines are seen and break, a last space is seen."""
    readable = _readable(text)
    body = readable.rstrip(" ")
    shown = str(escape(body)).replace("\n", '<i class="ws">⏎</i>\n')
    return Markup(shown) + visible(b" " * (len(readable) - len(body)))


def _readable(text: bytes) -> str:
    """Bytes that are no characters, and characters that hide, become escapes."""
    decoded = text.decode("utf-8", errors="backslashreplace")
    return HIDDEN.sub(lambda match: match[0].encode("unicode_escape").decode(), decoded)


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleRollout:
    thought: Markup
    prediction: Markup | None
    """None where there was no box."""
    right: bool
    reward: float
    advantage: float
    finish_reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleGroup:
    document_id: str
    position: int
    entropy: float
    prefix_end: Markup
    continuation: list[Markup]
    ntp_prediction: Markup
    ntp_right: bool
    candidates: list[Markup]
    rollouts: list[SampleRollout]
    num_rollouts: int
    num_right: int


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleStep:
    step: int
    groups: list[SampleGroup]
    num_groups: int
    """Stored in the step; those shown are evenly spaced among them."""


def stored_steps(run: Path) -> list[int]:
    return sorted(
        int(path.stem.removeprefix("step-")) for path in (run / "rollouts").glob("step-*.parquet")
    )


def sample_steps(run: Path) -> list[SampleStep]:
    """The last stored step and the first. Raises UserError for a file that can't be read."""
    steps = stored_steps(run)
    if not steps:
        return []
    found = [_sample_step(run, steps[-1], LAST_GROUPS)]
    if steps[0] != steps[-1]:
        found.append(_sample_step(run, steps[0], FIRST_GROUPS))
    return found


def _sample_step(run: Path, step: int, most: int) -> SampleStep:
    groups: dict[tuple[str, int], list[dict[str, Any]]] = {}
    columns = [
        *("document_id", "position", "entropy", "prefix_end", "continuation", "ntp_prediction"),
        *("candidates", "thought", "prediction", "reward", "exact", "advantage", "finish_reason"),
    ]
    for row in read_rollouts(run, step).select(columns).to_pylist():
        groups.setdefault((row["document_id"], row["position"]), []).append(row)
    kept = list(groups.values())
    chosen = [kept[i * len(kept) // most] for i in range(most)] if len(kept) > most else kept
    return SampleStep(step=step, groups=[_group(rows) for rows in chosen], num_groups=len(kept))


def _group(rows: list[dict[str, Any]]) -> SampleGroup:
    first = rows[0]
    return SampleGroup(
        document_id=first["document_id"],
        position=first["position"],
        entropy=first["entropy"],
        prefix_end=running(first["prefix_end"]),
        continuation=[visible(token) for token in first["continuation"]],
        ntp_prediction=visible(first["ntp_prediction"]),
        ntp_right=matched_tokens(first["ntp_prediction"], first["continuation"]) > 0,
        candidates=[visible(token) for token in first["candidates"]],
        rollouts=[_rollout(row) for row in rows[:ROLLOUTS]],
        num_rollouts=len(rows),
        num_right=sum(row["exact"] for row in rows),
    )


def _rollout(row: dict[str, Any]) -> SampleRollout:
    prediction = row["prediction"]
    return SampleRollout(
        thought=visible(row["thought"]),
        prediction=None if prediction is None else visible(prediction),
        right=row["exact"],
        reward=row["reward"],
        advantage=row["advantage"],
        finish_reason=row["finish_reason"],
    )
