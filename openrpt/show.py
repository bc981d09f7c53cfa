"""What the commands print: bytes that can be read, groups of rollouts, and accuracy tables."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from openrpt.console import PlainConsole
from openrpt.rewards import matched_tokens
from openrpt.terminal import printable

if TYPE_CHECKING:
    from openrpt.evaluation.results import EvaluationResult
    from openrpt.status import Status

BOUNDARY = "│"
RIGHT = "green"
"""Never the only sign: the reward stands beside it."""


def visible(data: bytes) -> str:
    r"""One line in which nothing is hidden and nothing moves the cursor.

    Line breaks and tabs are symbols, bytes that are not UTF-8 and characters that print nothing
    are named. (Backslash escapes would read like LaTeX.)

    >>> visible(b"a\n\x1b[0m \xff")
    'a⏎⟨U+001B⟩[0m ⟨FF⟩'
    """
    return printable(data.decode("utf-8", errors="surrogateescape"))


def visible_tokens(tokens: Sequence[bytes]) -> str:
    """Tokens with their boundaries: `│ the│ end│`. A character that two tokens share is named
    byte by byte."""
    return "".join(BOUNDARY + visible(token) for token in tokens) + BOUNDARY * bool(tokens)


def visible_prediction(prediction: bytes | None) -> str:
    return "no prediction" if prediction is None else visible_tokens([prediction])


def print_groups(rows: Sequence[dict[str, Any]], console: Console) -> None:
    """Rows of a rollout file (`openrpt.rollouts.SCHEMA`), group by group."""
    for _, group in groupby(rows, key=lambda row: (row["document_id"], row["position"])):
        found = list(group)
        for line in (heading(found[0]), *group_lines(found), Text("")):
            console.print(line, soft_wrap=True)


def heading(row: dict[str, Any]) -> Text:
    when = "" if row["step"] is None else f"step {row['step']} · "
    where = f"document {printable(row['document_id'])} · position {row['position']}"
    return Text(f"{when}{where} · entropy {row['entropy']:.2f} nats", "bold")


def group_lines(rows: Sequence[dict[str, Any]]) -> Iterator[Text]:
    """One group, readably: what stood there, what came next, and what each rollout made of it.
    Without a continuation (a text of one's own) nothing is called right or wrong."""
    first = rows[0]
    continuation, standard = first["continuation"], first["ntp_prediction"]
    yield _line("text", f"…{visible(first['prefix_end'])}{BOUNDARY}", "")
    verdict, style = "", ""
    if continuation:
        yield _line("continuation", visible_tokens(continuation), "bold")
        right = matched_tokens(standard, continuation) > 0
        verdict, style = (" ✓ right", RIGHT) if right else (" ✗ wrong", "")
    yield _line("ntp", f"{visible_tokens([standard])}{verdict}", style)
    if first.get("ntp_top"):
        yield _line("ntp's best", visible_best(first["ntp_top"], first["ntp_top_logprobs"]), "")
    if first["candidates"]:
        best = visible_best(first["candidates"], first.get("candidate_logprobs"))
        yield _line("candidates", best, "")
    for row in rows:
        yield from rollout_lines(row)


def visible_best(tokens: Sequence[bytes], logprobs: Sequence[float] | None) -> str:
    """`│ the│ 62%  │ a│ 21%`, without the shares where they are not stored."""
    if not logprobs:
        return visible_tokens(tokens)
    pairs = zip(tokens, logprobs, strict=True)
    return "  ".join(
        f"{visible_tokens([token])} {math.exp(logprob):.0%}" for token, logprob in pairs
    )


def rollout_lines(row: dict[str, Any]) -> Iterator[Text]:
    """The prediction and what it earned; below it the thought."""
    style = RIGHT if row["exact"] else ""
    cut = "  cut off by its budget" if row["finish_reason"] == "length" else ""
    verdict = _verdict(row)
    yield Text.assemble(
        (f"  {row['rollout']:>3}  ", "dim"),
        (f"{'✓' if row['exact'] else '✗'} " if verdict else "", style),
        (visible_prediction(row["prediction"]), f"{style} bold"),
        (verdict, style),
        ("" if math.isnan(row["advantage"]) else f"  advantage {row['advantage']:+.2f}", "dim"),
        (cut, "yellow"),
    )
    yield Text.assemble(("       thought  ", "dim"), visible(row["thought"]))


def _verdict(row: dict[str, Any]) -> str:
    if not row["continuation"]:
        return ""
    length = matched_tokens(row["prediction"], row["continuation"])
    upto = f"  up to the end of token {length}" if length else ""
    return f"{upto}  reward {row['reward']:g}{reward_terms(row)}"


def reward_terms(row: dict[str, Any]) -> str:
    """` (prefix 0, dense 0.31)` before their weights, where there is more than prefix match."""
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
    r"""A row for JSON: bytes as text (what is not UTF-8 as `\xff`), numbers that are none as null.
    `token_ids` stays exact."""

    def plain(value: Any) -> Any:
        if isinstance(value, bytes):
            return value.decode("utf-8", errors="backslashreplace")
        if isinstance(value, list):
            return [plain(item) for item in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return {name: plain(value) for name, value in row.items()}


SLICES = {
    "all": "all",
    "easy": "easy (> 0.5 nats)",
    "medium": "medium (> 1.0)",
    "hard": "hard (> 1.5)",
    "<=0.5": "band ≤ 0.5",
    "0.5-1.0": "band 0.5 to 1.0",
    "1.0-1.5": "band 1.0 to 1.5",
    ">1.5": "band > 1.5",
}
MODES = {
    "ntp": "ntp",
    "reasoning": "reasoning",
    "any_right": "any of the samples",
    "majority": "majority",
}


def print_evaluation(
    result: "EvaluationResult", title: str, modes: Sequence[str], samples: int, console: Console
) -> None:
    """Accuracy by difficulty and band: percent ± standard error by document, with n."""
    summary = result.summary()
    columns = [mode for mode in modes if mode in summary] or ["ntp"]
    if samples > 1 and "reasoning" in columns:
        columns += ["any_right", "majority"]
    table = Table(title=title, title_justify="left", caption_justify="left")
    table.add_column("entropy of the scorer")
    for name in ("positions", "documents", *(MODES[column] for column in columns)):
        table.add_column(name, justify="right")
    for part, heading in SLICES.items():
        estimates = [summary[column][part] for column in columns]
        counts = [f"{estimates[0]['n']:,}", f"{estimates[0]['documents']:,}"]
        table.add_row(heading, *counts, *map(percent, estimates), end_section=part == "hard")
    if "reasoning" in columns:
        whole = {name: values["all"] for name, values in summary.items()}
        table.caption = (
            f"reasoning: a prediction {percent(whole['closed'])}, the same as ntp"
            f" {percent(whole['agrees'])}, right and one token long"
            f" {percent(whole['single_token'])}"
        )
        if whole["predicted_tokens"]["n"]:
            length = whole["predicted_tokens"]["value"]
            table.caption += f"; a right one has {length:.2f} tokens in the mean"
    console.print(table)
    console.print(Text("± is the standard error by document", style="dim"))


def percent(estimate: dict[str, Any]) -> str:
    """`52.9 ± 1.6 %`; a dash where nothing was measured, no error from a single document."""
    if not estimate["n"]:
        return "–"
    if math.isnan(estimate["standard_error"]):
        return f"{100 * estimate['value']:.1f} %"
    return f"{100 * estimate['value']:.1f} ± {100 * estimate['standard_error']:.1f} %"


def points(difference: Mapping[str, Any]) -> str:
    """`+1.2 [−0.3, +2.7]`, in points; a dash where nothing was measured, no interval from a single
    document."""
    value, low, high = (100 * difference[name] for name in ("value", "low", "high"))
    if math.isnan(value):
        return "–"
    interval = "" if math.isnan(low) else f" [{low:+.1f}, {high:+.1f}]"
    return f"{value:+.1f}{interval}".replace("-", "−")


def print_status(status: "Status", console: Console) -> None:
    """Where a run stands, in a few lines."""
    from openrpt.status import SHOWN

    put = _putter(console)
    put(Text(printable(status.path), "bold"))
    if status.stage:
        whole = f" of {status.goal:,}" if status.goal and status.state != "done" else ""
        bar = f"{_bar(status.share)} {status.share:.0%}" if status.share else ""
        put(Text(f"  {status.stage}  step {status.step:,}{whole}  {bar}"))
        put(Text(f"  {_when(status)}"))
    for key, value in status.last.items():
        put(Text.assemble((f"  {SHOWN[key]:<16}", "dim"), f"{value:.3f}  ", (key, "dim")))
    for warning in status.warnings:
        where = f"{warning['stage']} step {warning['step']}"
        put(Text(f"  ! {warning['name']} ({where}): {warning['seen']}", "yellow"))
        put(Text(f"    what usually helps: {warning['helps']}", "dim"))
    for note in status.notes:
        put(Text(f"  note: {printable(note)}"))


def _putter(console: Console) -> Callable[[Text], None]:
    return lambda text: console.print(text, soft_wrap=True)


def _bar(share: float, width: int = 24) -> str:
    done = round(share * width)
    return "━" * done + "╌" * (width - done)


def _when(status: "Status") -> str:
    """How long since the last step, and how long still."""
    ago = f"{'last step' if status.step else 'begun'} {rough_time(status.age or 0)} ago"
    if status.state == "done":
        return f"done, {ago}"
    if status.state == "quiet":
        return f"{ago}: killed, or in a long evaluation; the same command goes on"
    if status.state == "stopped":
        return f"stopped, {ago}; the same command goes on"
    left = status.seconds_left
    return ago if left is None else f"{ago}, about {rough_time(left)} left"


def rough_time(seconds: float) -> str:
    """
    >>> rough_time(45), rough_time(1830), rough_time(9000), rough_time(400_000)
    ('45 s', '30 min', '2 h 30 min', '4.6 days')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    if minutes < 60 * 48:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{seconds / 86400:.1f} days"
