"""Scoring a corpus: OpenRPT against a plain transformers loop, tokens a second.

    python benchmarks/scoring.py

Same model, documents, windows, precision and threads, in one Python. See README.md for what is
measured and what it takes.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from case import MODEL
from common import (
    add_corpus,
    environment,
    exit_cleanly,
    parser_of,
    run_child,
    say,
    shares,
    spread,
    write_result,
)

from openrpt.engine.loading import resolve_model


def main() -> None:
    given = arguments()
    job = {
        "model_folder": str(resolve_model(MODEL)),
        "corpus": given.corpus,
        "max_tokens": given.tokens,
        "window": given.window,
        "threads": given.threads,
    }
    started = environment()
    own, theirs = [], []
    for pair in range(1, given.pairs + 1):
        own.append(run_child(sys.executable, "openrpt_score.py", job))
        windows = own[-1].pop("windows")
        theirs.append(run_child(sys.executable, "peer_score.py", job | {"windows": windows}))
        ours, other = rate(own[-1], own[0]), rate(theirs[-1], own[0])
        say(f"pair {pair} of {given.pairs}: {ours:.0f} and {other:.0f} tokens a second")
    result = started | {
        "case": {
            "model": MODEL,
            "corpus": "champ" if given.corpus == "champ" else Path(given.corpus).name,
            "documents": own[0]["documents"],
            "tokens": own[0]["steps"][0]["tokens"],
            "window": given.window,
            "threads": given.threads,
            "dtype": "float32",
        },
        "openrpt": {
            "tokens_a_second": spread([rate(child, own[0]) for child in own]),
            "shares": shares(own),
            "peak_memory_gib": max(child["peak_memory_gib"] for child in own),
        },
        "transformers": {
            "tokens_a_second": spread([rate(child, own[0]) for child in theirs]),
            "peak_memory_gib": max(child["peak_memory_gib"] for child in theirs),
            "versions": theirs[0]["versions"],
        },
        "ratio": spread(
            [rate(a, own[0]) / rate(b, own[0]) for a, b in zip(own, theirs, strict=True)]
        ),
    }
    write_result(given.output, "scoring", result)
    say(f"OpenRPT is {result['ratio']['median']:.2f} times faster")


def seconds(child: dict[str, Any]) -> float:
    (step,) = child["steps"]
    return step["seconds"]


def rate(child: dict[str, Any], own: dict[str, Any]) -> float:
    """Tokens of the documents a second: the same number on both sides."""
    return own["steps"][0]["tokens"] / seconds(child)


def arguments() -> argparse.Namespace:
    parser = parser_of(__doc__)
    add_corpus(parser)
    parser.add_argument("--tokens", type=int, default=12_000, help="as many are scored, about")
    parser.add_argument("--window", type=int, default=512, help="in tokens")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads of each side")
    parser.add_argument("--pairs", type=int, default=3, help="OpenRPT, the loop, OpenRPT, …")
    parser.add_argument("--output", type=Path, default=Path("scoring.json"))
    return parser.parse_args()


if __name__ == "__main__":
    exit_cleanly(main)
