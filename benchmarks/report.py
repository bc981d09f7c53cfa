"""The report's size and how fast it opens, at 1,000 steps × 64 stored rollouts.

    python benchmarks/report.py

The run folder is made up, in the layout and with the sizes of a real one: 300 documents of 512
tokens, 64 rollouts a step (4 documents × 2 positions × 8) with 32 tokens each. Opening is timed in
a headless Chromium, from the start of the navigation until the inspector answers and until the
first chart stands. Needs the extra `browser`.
"""

import argparse
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import environment, exit_cleanly, parser_of, say, spread, write_result

from openrpt.config.sections import Config
from openrpt.data.positions import ScoredDocument
from openrpt.data.scored_shards import write_shard
from openrpt.errors import UserError
from openrpt.report.glossary import METRICS, WARMUP_ONLY
from openrpt.report.page import write_report
from openrpt.runs.metrics import append_metrics
from openrpt.runs.rollouts import STORED_CONTINUATION, STORED_PREFIX, write_rollouts
from openrpt.runs.run import Run, open_run

WORDS = 6000
TOKENS = 512
POSITIONS, GROUP = 2, 8
COMPLETION = 32
WATCH = """
const note = (name, found) => {
  const look = () => found() ? performance.mark(name) : requestAnimationFrame(look);
  look();
};
note("inspector", () => document.querySelector("#inspector[data-ready]"));
note("chart", () => document.querySelector(".plot[data-drawn]"));
"""


def main() -> None:
    given = arguments()
    result = environment()
    with tempfile.TemporaryDirectory(prefix="openrpt-report-") as folder:
        say(f"making a run of {given.steps} steps × {given.documents_per_step * POSITIONS * GROUP}")
        run = make_run(Path(folder) / "run", given)
        start = time.perf_counter()
        path = write_report(run)
        result |= {
            "case": {
                "steps": given.steps,
                "rollouts_per_step": given.documents_per_step * POSITIONS * GROUP,
                "completion_tokens": COMPLETION,
                "documents": given.documents,
                "document_tokens": TOKENS,
            },
            "seconds_to_write": time.perf_counter() - start,
            "megabytes": path.stat().st_size / 1e6,
            "seconds_to_open": opening_times(path, given.repeats),
        }
    times = {name: found["median"] for name, found in result["seconds_to_open"].items()}
    say(
        f"{result['megabytes']:.1f} MB, written in {result['seconds_to_write']:.1f} s; "
        + ", ".join(f"{name} after {seconds:.2f} s" for name, seconds in times.items())
    )
    write_result(given.output, "report", result)


def make_run(path: Path, given: argparse.Namespace) -> Run:
    rng = np.random.default_rng(0)
    run = open_run(Config(run=str(path)), min_free_bytes=0)
    words = [b" " + bytes(rng.integers(97, 123, rng.integers(2, 9)).tolist()) for _ in range(WORDS)]
    frequent = 1 / np.arange(1, WORDS + 1)
    frequent /= frequent.sum()
    texts = {
        f"{rng.integers(1 << 62):016x}": rng.choice(WORDS, TOKENS, p=frequent)
        for _ in range(given.documents)
    }
    write_shard(run.scored, 0, [scored(name, ids, words, rng) for name, ids in texts.items()], {})
    names = [*texts]
    for step in range(1, given.steps + 1):
        noisy = {key: float(rng.random()) for key in METRICS if key not in WARMUP_ONLY}
        append_metrics(run.metrics, {"stage": "train", "step": step} | noisy)
        rows: list[dict[str, Any]] = []
        for name in rng.choice(names, given.documents_per_step, replace=False):
            for here in rng.integers(STORED_PREFIX, TOKENS - STORED_CONTINUATION, POSITIONS):
                rows += group(step, str(name), int(here), texts[name], words, frequent, rng)
        write_rollouts(run.path, step, rows)
    return run


def scored(
    name: str, ids: np.ndarray, words: list[bytes], rng: np.random.Generator
) -> ScoredDocument:
    tokens = [words[i] for i in ids]
    entropy = rng.gamma(1.0, 1.2, TOKENS)
    return ScoredDocument(
        document_id=name,
        text=b"".join(tokens).decode(),
        key=name,
        split="train",
        source="made",
        token_ids=ids,
        byte_offsets=np.cumsum([0, *map(len, tokens)])[:-1],
        negative_log_likelihood=rng.gamma(1.0, 1.4, TOKENS),
        entropy=entropy,
        entropy_top16=entropy,
        ntp_token_id=np.where(rng.random(TOKENS) < 0.5, ids, rng.permutation(ids)),
        ntp_correct=rng.random(TOKENS) < 0.5,
    )


def group(
    step: int,
    name: str,
    here: int,
    ids: np.ndarray,
    words: list[bytes],
    frequent: np.ndarray,
    rng: np.random.Generator,
) -> list[dict[str, Any]]:
    """The rollouts of a position: thoughts that share their forced beginning, as real ones do."""
    candidates = [words[i] for i in rng.choice(WORDS, 3, p=frequent)]
    rows = []
    for rollout in range(GROUP):
        free = [words[i] for i in rng.choice(WORDS, COMPLETION - 9, p=frequent)]
        prediction = words[ids[here]] if rng.random() < 0.5 else candidates[rng.integers(3)]
        thought = [b"<think>", *candidates, *free]
        tokens = [*thought, b"</think>", b"\\boxed", b"{", prediction, b"}"]
        rows.append(
            {
                "step": step,
                "document_id": name,
                "position": here,
                "rollout": rollout,
                "entropy": 1.0,
                "prefix_end": b"".join(words[i] for i in ids[here - STORED_PREFIX : here]),
                "continuation": [words[i] for i in ids[here : here + STORED_CONTINUATION]],
                "ntp_prediction": candidates[0],
                "candidates": candidates,
                "candidate_logprobs": [-0.5, -1.5, -2.5],
                "thought": b"".join(thought[1:]),
                "prediction": prediction,
                "reward": float(prediction == words[ids[here]]),
                "advantage": float(rng.normal()),
                "finish_reason": "stop",
                "token_ids": [0] * len(tokens),
                "tokens": tokens,
                "sampler_logprobs": (-rng.gamma(0.5, 1.5, len(tokens))).tolist(),
                "loss_mask": [False] * 4 + [True] * (len(tokens) - 4),
            }
        )
    return rows


def opening_times(path: Path, repeats: int) -> dict[str, Any]:
    """Seconds from the navigation's start, each time in a fresh context."""
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError:
        raise UserError("playwright is missing: pip install 'openrpt[browser]'") from None
    found: dict[str, list[float]] = {"inspector": [], "chart": []}
    names = ("chromium", "chromium-browser", "google-chrome")
    executable = next(filter(None, map(shutil.which, names)), None)
    with sync_playwright() as started:
        browser = started.chromium.launch(
            executable_path=executable, args=["--no-sandbox", "--disable-gpu"]
        )
        for _ in range(repeats):
            page = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
            page.add_init_script(WATCH)
            page.goto(path.as_uri())
            page.wait_for_function("performance.getEntriesByName('inspector').length")
            page.locator(".plot").first.scroll_into_view_if_needed()
            page.wait_for_function("performance.getEntriesByName('chart').length")
            for name, times in found.items():
                milliseconds = f"performance.getEntriesByName('{name}')[0].startTime"
                times.append(page.evaluate(milliseconds) / 1000)
            page.context.close()
        browser.close()
    return {name: spread(times) for name, times in found.items()}


def arguments() -> argparse.Namespace:
    parser = parser_of(__doc__)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--documents", type=int, default=300)
    parser.add_argument("--documents-per-step", type=int, default=4, help="16 rollouts of each")
    parser.add_argument("--repeats", type=int, default=5, help="times that it is opened")
    parser.add_argument("--output", type=Path, default=Path("report.json"))
    return parser.parse_args()


if __name__ == "__main__":
    exit_cleanly(main)
