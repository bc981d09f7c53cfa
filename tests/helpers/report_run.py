"""A made-up run folder with everything a finished run has, written by the real writers."""

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from openrpt.config.sections import Config
from openrpt.data.positions import ScoredDocument
from openrpt.data.scored_shards import write_shard
from openrpt.evaluation.next_token.results import EvaluationResult, PositionResult
from openrpt.evaluation.records import record
from openrpt.report.glossary import METRICS, WARMUP_KEYS, WARMUP_ONLY
from openrpt.runs.metrics import append_metrics
from openrpt.runs.rollouts import SCHEMA, rollout_path, write_rollout_table, write_rollouts
from openrpt.runs.run import Run, open_run
from openrpt.types import Split

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
SCRIPTS = "中文字 شكرا جزيلا 😀 a\u202eb\u200b\tc\x07 é\n\n  end"
"""CJK, right to left, a character of four bytes, reordering, hidden, controls, double spaces."""
TEXTS: dict[str, tuple[Split, str]] = {
    "9f86d081884c7d65": ("train", "Let x = 2 and y = 3.\nThen x + y = 5, so the answer is 5. " * 4),
    "5f0c1d2e3b4a5968": ("train", f"The page says {HOSTILE} and more. " * 2),
    "7a6b5c4d3e2f1a0b": ("train", f"Three scripts: {SCRIPTS}"),
    "00aa11bb22cc33dd": ("heldout", "Find the value of x and of y, where x is even. " * 3),
    "44ee55ff66001122": ("development", "Then n is prime, and so n + 1 is even. " * 3),
}
FIRST, WITH_HOSTILE, WITH_SCRIPTS, HELDOUT, DEVELOPMENT = TEXTS
POSITIONS = (5, 9, 14)
"""Positions of each training document, at every step that is stored."""
SIZE = 5
"""Rollouts a group: right by one token, by two, wrong twice, and one without a prediction."""


def tokens_of(text: str) -> list[bytes]:
    """Words with the space before them, other characters alone; those of four bytes in halves."""
    found: list[bytes] = []
    for piece in re.findall(r" ?[^\W\d_]+|\s|.", text, re.DOTALL):
        data = piece.encode()
        if len(piece) == 1 and len(data) == 4:
            found += [data[:2], data[2:]]
        else:
            found.append(data)
    return found


def scored(document_id: str) -> ScoredDocument:
    """Entropies that grow along the text; standard prediction is wrong at every third token."""
    split, text = TEXTS[document_id]
    tokens = tokens_of(text)
    count = len(tokens)
    words = sorted({token for name in TEXTS for token in tokens_of(TEXTS[name][1])})
    ids = np.array([words.index(token) for token in tokens])
    right = np.arange(count) % 3 != 0
    likelihood = np.linspace(0.1, 3.0, count)
    likelihood[0] = np.nan  # the first token has no prefix
    return ScoredDocument(
        document_id=document_id,
        text=text,
        key=document_id,
        split=split,
        source="made-up.jsonl:1",
        token_ids=ids,
        byte_offsets=np.cumsum([0, *map(len, tokens)])[:-1],
        negative_log_likelihood=likelihood,
        entropy=np.linspace(0.0, 2.6, count),
        entropy_top16=np.linspace(0.0, 2.6, count),
        ntp_token_id=np.where(right, ids, words.index(tokens[0])),
        ntp_correct=right,
    )


def rollout_rows(
    step: int, document_id: str = FIRST, positions: Sequence[int] = POSITIONS
) -> list[dict[str, Any]]:
    """As of a policy that gets better: one rollout more is right from step 4 on."""
    tokens = tokens_of(TEXTS[document_id][1])
    rows = []
    for here in positions:
        one, two, other = tokens[here], b"".join(tokens[here : here + 2]), tokens[here] + b"?"
        predictions = [one, two, other, one if step >= 4 else other, None]
        for r, prediction in enumerate(predictions):
            right = prediction in (one, two)
            thought = [b"<think>", b" " + HOSTILE.encode(), b"\xf0\x9f", b" | the"]
            answer = [b"</think>", b"\\boxed{"] + ([prediction, b"}"] if prediction else [])
            completion = [*thought, *answer, b""]
            count = len(completion)
            rows.append(
                {
                    "step": step,
                    "document_id": document_id,
                    "position": here,
                    "rollout": r,
                    "entropy": 2.6 * here / (len(tokens) - 1),
                    "prefix_end": b"".join(tokens[max(0, here - 48) : here]),
                    "continuation": tokens[here : here + 12],
                    "ntp_prediction": one if here % 2 else other,
                    "ntp_top": [one if here % 2 else other, b" of"],
                    "ntp_top_logprobs": [math.log(0.4), math.log(0.2)],
                    "candidates": [one, b" a", b" \xe6\x95\xb0"],
                    "candidate_logprobs": [math.log(0.5), math.log(0.25), math.log(0.01)],
                    "thought": b"".join(thought[1:]),
                    "prediction": prediction,
                    "reward": float(right),
                    "exact": right,
                    "reward_terms": [],
                    "advantage": 1.5 if right else -0.5,
                    "finish_reason": "stop" if prediction else "length",
                    "token_ids": list(range(count)),
                    "tokens": completion,
                    "sampler_logprobs": [0.0, -0.01, -0.2, -3.0] + [0.0] * (count - 4),
                    "loss_mask": [False, True, True, True] + [False] * (count - 5) + [True],
                }
            )
    return rows


def train_row(step: int) -> dict[str, Any]:
    """Every key that a train step writes, with plausible values."""
    fade, wave = math.exp(-step / 30), math.sin(3 * step) / 30
    keys = [key for key in METRICS if key not in WARMUP_ONLY]
    values = {key: 0.5 + wave + place / 1e4 for place, key in enumerate(keys)}
    values |= {
        "completion/closed_fraction": 0.97 + wave / 2,
        "completion/stopped_fraction": 0.93 + wave / 2,
        "completion/thought_bytes_mean": 31 + 20 * wave,
        "development/reasoning_accuracy": 0.53 - 0.05 * fade + wave / 9,
        "development/ntp_accuracy": 0.52 + wave / 9,
        "development/positions": 256.0,
        "optim/grad_norm": 0.8 + 5 * wave,
        "policy/sampler_difference": 1e-6 * (1 + wave),
        "reward/mean": 0.52 - 0.16 * fade + wave,
        "pass_rate/easy": 0.55 - 0.16 * fade + wave,
        "pass_rate/medium": 0.44 - 0.14 * fade - wave,
        "pass_rate/hard": 0.36 - 0.12 * fade + wave,
        "group/flat_fraction": 0.7 - 0.4 * fade + wave,
        "policy/entropy": 0.9 * fade + 0.1,
        "loss/policy": wave / 1000,
        "time/step": 15.0,
        "time/generate": 6 + wave,
        "time/update": 9 + 5 * wave,
        "time/store": 0.05,
        "tokens/generate": 6000.0,
        "tokens/update": 5400.0 + 9000 * wave,
        "tokens/saved_by_sharing": 150_000.0,
        "tokens/saved_by_merging": 20_000.0,
        "tokens/saved_by_skipping": 40_000.0,
        "flops/generate": 1.6e12,
        "flops/update": 4.1e12,
        "memory/resident_gib": 4.2 + wave,
        "memory/peak_gib": 5.1,
        "efficiency/cores_busy": 1.9 + wave,
    }
    if step % 5:
        values = {key: v for key, v in values.items() if not key.startswith("development/")}
    return {"stage": "train", "step": step} | values


def evaluation_result(rate: float, *, documents: int = 24, positions: int = 12) -> EvaluationResult:
    """Every document has the same positions; which are right depends on the rate alone. The first
    document is the held-out text."""
    rng = np.random.default_rng(0)
    n = documents * positions
    draws = rng.random(n)
    columns = {name: np.zeros(n) for name in PositionResult.__dataclass_fields__}
    names = [HELDOUT, *(f"d{i:02}" for i in range(1, documents))]
    columns["document_id"] = np.repeat(names, positions)
    columns["position"] = np.tile(np.arange(3, 3 + positions), documents)
    columns["entropy"] = 0.6 + 1.5 * rng.random(n)
    columns["ntp"] = (rng.random(n) < 0.53).astype(float)
    columns["reasoning"] = (draws < rate).astype(float)
    ends = np.cumsum([len(token) for token in tokens_of(TEXTS[HELDOUT][1])])
    columns["byte_offset"] = ends[columns["position"] - 1]
    rows = [
        evaluated_row(None, HELDOUT, int(columns["position"][i]), right=bool(draws[i] < rate))
        for i in range(positions)
    ]
    rollouts = pa.Table.from_pylist(rows, schema=SCHEMA)
    return EvaluationResult(columns=columns, has_reasoning=True, rollouts=rollouts)


def evaluated_row(step: int | None, document_id: str, here: int, *, right: bool) -> dict[str, Any]:
    """A greedy rollout of an evaluation."""
    wanted = 0 if right else 2
    row = rollout_rows(step or 0, document_id, [here])[wanted]
    return row | {"step": step, "rollout": 0, "advantage": math.nan}


def made_up_run(path: Path, config: Config | None = None) -> Run:
    """A run folder in which no stage has begun."""
    config = (config or Config()).model_copy(update={"run": str(path)})
    return open_run(config, min_free_bytes=0)


def fill(run: Run, *, steps: int = 6) -> Run:
    """Everything that a finished run has; a warning at its last step."""
    write_shard(run.scored, 0, [scored(name) for name in TEXTS], {})
    for step in range(1, 4):
        row = dict.fromkeys(WARMUP_KEYS, 1.0 / step)
        append_metrics(run.metrics, {"stage": "warmup", "step": step} | row)
    seen = f"97 % of groups {HOSTILE}"
    warning = {"name": "flat_groups", "step": steps, "seen": seen, "helps": "look"}
    for step in range(1, steps + 1):
        row = train_row(step) | ({"warnings": [warning]} if step == steps else {})
        append_metrics(run.metrics, row)
        rows = [row for name in (FIRST, WITH_HOSTILE) for row in rollout_rows(step, name)]
        if step == steps:
            rows += rollout_rows(step, WITH_SCRIPTS)
        write_rollouts(run.path, step, rows)
        if step % 3 == 0:  # after step 3 one position is right, after step 6 two
            rows = [
                evaluated_row(step, DEVELOPMENT, here, right=place < step // 3)
                for place, here in enumerate(POSITIONS)
            ]
            table = pa.Table.from_pylist(rows, schema=SCHEMA)
            write_rollout_table(rollout_path(run.path, step, development=True), table)
    for label, rate in (("start", 0.0), ("warmup", 0.48), ("trained", 0.53)):
        record(run, label, evaluation_result(rate), model="tiny", split="heldout")
    return run
