"""Rollouts as people read them: bytes in which nothing is hidden, and groups of rollouts."""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Any

import click
from rich.console import Console
from rich.text import Text

from openrpt.console import PlainConsole
from openrpt.json_files import finite_json
from openrpt.rl.rewards.matching import matched_tokens
from openrpt.terminal import printable

_BOUNDARY = "│"
_RIGHT = "green"
"""Colour of what is right; never the only sign: the reward stands beside it."""


def visible(data: bytes) -> str:
    r"""Returns one line in which nothing is hidden and nothing moves the cursor.

    Line breaks and tabs are symbols, bytes that are not UTF-8 and characters that print nothing are
    named. (Backslash escapes would read like LaTeX.)

    >>> visible(b"a\n\x1b[0m \xff")
    'a⏎⟨U+001B⟩[0m ⟨FF⟩'
    """
    return printable(data.decode("utf-8", errors="surrogateescape"))


def visible_tokens(tokens: Sequence[bytes]) -> str:
    """Returns tokens with their boundaries: `│ the│ end│`. A character that two tokens share is
    named byte by byte."""
    if not tokens:
        return ""
    return _BOUNDARY + "".join(visible(token) + _BOUNDARY for token in tokens)


def visible_prediction(prediction: bytes | None) -> str:
    """Returns a prediction as `visible_tokens` has it, or that there is none."""
    return "no prediction" if prediction is None else visible_tokens([prediction])


def print_groups(rows: Sequence[dict[str, Any]], console: Console) -> None:
    """Prints rows of a rollout file (`openrpt.runs.rollouts.SCHEMA`), group by group."""
    for _, group in groupby(rows, key=lambda row: (row["document_id"], row["position"])):
        found = list(group)
        for line in (heading(found[0]), *group_lines(found), Text("")):
            console.print(line, soft_wrap=True)


def heading(row: dict[str, Any]) -> Text:
    """Returns a group's heading: step, document, position and entropy."""
    when = "" if row["step"] is None else f"step {row['step']} · "
    where = f"document {printable(row['document_id'])} · position {row['position']}"
    return Text(f"{when}{where} · entropy {row['entropy']:.2f} nats", "bold")


def group_lines(rows: Sequence[dict[str, Any]]) -> Iterator[Text]:
    """Yields one group in lines: the text, its continuation, standard prediction, and each rollout.
    Without a continuation (a text of one's own) nothing is called right or wrong."""
    first = rows[0]
    continuation, standard = first["continuation"], first["ntp_prediction"]
    yield _line("text", f"…{visible(first['prefix_end'])}{_BOUNDARY}", "")
    verdict, style = "", ""
    if continuation:
        yield _line("continuation", visible_tokens(continuation), "bold")
        exact = matched_tokens(standard, continuation) > 0
        verdict, style = (" ✓ right", _RIGHT) if exact else (" ✗ wrong", "")
    yield _line("ntp", f"{visible_tokens([standard])}{verdict}", style)
    if first.get("ntp_top"):
        yield _line("ntp's best", _visible_best(first["ntp_top"], first["ntp_top_logprobs"]), "")
    if first["candidates"]:
        best = _visible_best(first["candidates"], first.get("candidate_logprobs"))
        yield _line("candidates", best, "")
    for alike in _folded(rows):
        yield from _rollout_lines(alike)


def _folded(rows: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Returns the rollouts that read alike together, by their first one's place."""
    names = ("thought", "prediction", "reward", "finish_reason")
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        key = [row[name] for name in names] + [f"{row['advantage']:+.2f}", _reward_terms(row)]
        found.setdefault(repr(key), []).append(row)
    return list(found.values())


def _visible_best(tokens: Sequence[bytes], logprobs: Sequence[float] | None) -> str:
    """Returns tokens with their shares, `│ the│ 62% │ a│ 21%`, or without where they are not
    stored."""
    if not logprobs:
        return visible_tokens(tokens)
    pairs = zip(tokens, logprobs, strict=True)
    return "  ".join(
        f"{visible_tokens([token])} {math.exp(logprob):.0%}" for token, logprob in pairs
    )


def _rollout_lines(rows: Sequence[dict[str, Any]]) -> Iterator[Text]:
    """Yields the prediction and what it earned, with the numbers of the rollouts that read alike;
    below it the thought."""
    row = rows[0]
    style = _RIGHT if row["exact"] else ""
    cut = "  cut off by its budget" if row["finish_reason"] == "length" else ""
    verdict = _verdict(row)
    yield Text.assemble(
        (f"  {row['rollout']:>3}  ", "dim"),
        (f"{'✓' if row['exact'] else '✗'} " if verdict else "", style),
        (visible_prediction(row["prediction"]), f"{style} bold"),
        (verdict, style),
        ("" if math.isnan(row["advantage"]) else f"  advantage {row['advantage']:+.2f}", "dim"),
        (cut, "yellow"),
        (f"  × {len(rows)}: {_numbers(rows)}" if len(rows) > 1 else "", "dim"),
    )
    yield Text.assemble(("       thought  ", "dim"), visible(row["thought"]))


def _numbers(rows: Sequence[dict[str, Any]]) -> str:
    return ", ".join(str(row["rollout"]) for row in rows)


def _verdict(row: dict[str, Any]) -> str:
    if not row["continuation"]:
        return ""
    length = matched_tokens(row["prediction"], row["continuation"])
    upto = f"  up to the end of token {length}" if length else ""
    return f"{upto}  reward {row['reward']:g}{_reward_terms(row)}"


def _reward_terms(row: dict[str, Any]) -> str:
    """Returns ` (prefix 0, dense 0.31)`, the terms before their weights, where there is more than
    prefix match."""
    terms = {term["name"]: term["value"] for term in row["reward_terms"]}
    shown = ", ".join(f"{printable(name)} {value:.3g}" for name, value in terms.items())
    return f" ({shown})" if terms.keys() - {"prefix"} else ""


def _line(name: str, value: str, style: str) -> Text:
    return Text.assemble((f"  {name:<12}  ", "dim"), (value, style))


def page(draw: Callable[[Console], None], *, pager: bool = True) -> None:
    """Draws on the terminal, through the user's pager where it is longer than the screen (and
    where it is a terminal at all). `$PAGER` is honoured; `less` is given -R for the colours."""
    console = PlainConsole()
    if not (pager and console.is_terminal):
        draw(console)
        return
    with console.capture() as capture:
        draw(console)
    if capture.get().count("\n") < console.height:
        print(capture.get(), end="", flush=True)
    else:
        click.echo_via_pager(capture.get(), color=not console.no_color)


def json_row(row: dict[str, Any]) -> dict[str, Any]:
    r"""Returns a row for JSON: bytes as text (what is not UTF-8 as `\xff`), numbers that are none
    as null. `token_ids` stays exact."""

    def as_text(value: Any) -> Any:
        if isinstance(value, list):
            return [as_text(item) for item in value]
        is_bytes = isinstance(value, bytes)
        return value.decode("utf-8", errors="backslashreplace") if is_bytes else value

    return finite_json({name: as_text(value) for name, value in row.items()})
