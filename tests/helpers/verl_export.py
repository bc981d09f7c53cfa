"""An exported folder for verl, and completions to be graded, made in a second."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from openrpt.integrations.verl.completing import Form
from openrpt.integrations.verl.export import export_verl
from openrpt.runs.run import Run
from openrpt.types import Completion
from tests.helpers.tiny import think_tokenizer
from tests.helpers.tiny_model import tiny_model_folder, tiny_run

TEXT = "Le café naïf coûte 2 € — 数学は楽しい 😀 \\frac{1}{2} }{ x = 2\n\n  y"
EXPORTABLE: dict[str, Any] = {
    "prompt__candidates": 0,
    "prompt__think_budget": 12,
    "prompt__prediction_budget": 6,
    "train__ntp_weight": 0.0,
    "train__steps": 5,
    "corpus__min_tokens": 8,
    "corpus__development_fraction": 0.3,
    "selection__min_entropy": 0.0,
    "evaluate__min_entropy": 0.0,
}


def text_run(folder: Path, *, thinks: bool = True, **overrides: Any) -> Run:
    """A scored run of texts whose tokens end within characters, by a model that knows `</think>` as
    one token, where it `thinks`."""
    texts = [TEXT[n:] + f" Nr. {n} of them." * 2 for n in range(24)]
    lines = [json.dumps({"text": text}) for text in texts]
    (folder / "corpus.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    if thinks:
        tiny_model_folder(folder / "model", tokenizer=think_tokenizer())
    return tiny_run(folder, **EXPORTABLE | overrides)


def exported(folder: Path, **overrides: Any) -> tuple[Run, Path]:
    """A run of `text_run`, and what it was exported to."""
    run = text_run(folder, **overrides)
    export_verl(run.config, folder / "verl")
    return run, folder / "verl"


def rows(folder: Path, name: str = "train") -> list[dict[str, Any]]:
    """The rows of an exported file."""
    return pq.read_table(folder / f"{name}.parquet").to_pylist()


def some_completion(
    form: Form, truth: Sequence[int], vocabulary: int, rng: np.random.Generator
) -> Completion:
    """A completion of random ids whose box often holds the truth, or nearly; `truth`: the true
    ids from the position on."""
    thought = rng.integers(0, vocabulary, rng.integers(0, form.think_budget)).tolist()
    forced = bool(rng.random() < 0.5)
    said = list(truth[: rng.integers(0, 4)])
    if said and rng.random() < 0.3:
        said[rng.integers(len(said))] = int(rng.integers(vocabulary))
    if rng.random() < 0.1:
        said = rng.integers(0, vocabulary, rng.integers(0, 4)).tolist()
    opening = form.close_ids if forced else (*form.thought_end_ids, *form.answer_start_ids)
    end = [form.close_ids[-1] ^ 1, *form.stop_ids] if rng.random() < 0.1 else []
    ids = [*thought, *opening, *said, *end]
    mask = [True] * len(thought) + [not forced] * len(opening) + [True] * (len(said) + len(end))
    return Completion(
        token_ids=tuple(ids),
        sampler_logprobs=(0.0,) * len(ids),
        loss_mask=tuple(mask),
        finish_reason="stop" if end else "length",
    )
