"""A synthetic corpus with its scores: each document a pure function of its number."""

import hashlib
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from openrpt.config.sections import Config
from openrpt.data.positions import ScoredDocument
from openrpt.data.score_summary import SCORED, ScoreSummary
from openrpt.data.scored_shards import complete_shards, remove_shards, shard_paths, write_shard
from openrpt.json_files import write_sealed

_VOCABULARY = 50_000
_MEAN_TOKENS = 500.0
"""Tokens of a document, in the geometric mean; half of them have between 250 and 1,000."""
_LONGEST = 16_000
_KINDS = 5
_SPLITS = (("heldout", 0.05), ("development", 0.06), ("train", 1.0))
"""Each split with the share of documents up to its end."""


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """Made-up tokens: a word each, with a space before it, as frequent as words are."""

    words: list[str]
    lengths: np.ndarray  # [V] bytes
    cumulative: np.ndarray  # [V] probability of this token or one before it


def vocabulary() -> Vocabulary:
    """Returns tokens of 2 to 7 bytes, frequent ones short, by Zipf's law."""
    rng = np.random.default_rng(0)
    letters = np.array(list("etaoinshrdlucmfwypvbgkqjxz"))
    lengths = np.minimum(1 + np.log2(np.arange(_VOCABULARY) + 2).astype(int) // 3, 6)
    words = [" " + "".join(letters[rng.integers(0, 26, n)]) for n in lengths]
    weights = 1 / (np.arange(_VOCABULARY) + 2.7)
    return Vocabulary(
        words=words, lengths=lengths + 1, cumulative=np.cumsum(weights / weights.sum())
    )


def document(number: int, tokens: Vocabulary) -> ScoredDocument:
    """Returns document `number`: a pure function of it, its scores as incompressible as real ones
    at most."""
    rng = np.random.Generator(np.random.Philox(key=number))
    count = int(np.clip(rng.lognormal(np.log(_MEAN_TOKENS), 1.0), 40, _LONGEST))
    ids = np.searchsorted(tokens.cumulative, rng.random(count)).clip(0, _VOCABULARY - 1)
    lengths = tokens.lengths[ids]
    entropy = rng.gamma(0.7, 1.6, count).astype(np.float32)
    surprise = (entropy * rng.exponential(1.0, count)).astype(np.float32)
    surprise[0] = entropy[0] = np.nan  # nothing stands before it
    right = rng.random(count) < np.exp(-surprise)
    guess = np.searchsorted(tokens.cumulative, rng.random(count)).clip(0, _VOCABULARY - 1)
    side = rng.random()
    return ScoredDocument(
        document_id=hashlib.sha256(str(number).encode()).hexdigest()[:16],
        key=str(number),
        split=next(name for name, end in _SPLITS if side < end),  # type: ignore[arg-type]
        source=f"synthetic:{number}",
        text="".join([tokens.words[i] for i in ids.tolist()]),
        kind=str(1 + number % _KINDS),
        token_ids=ids,
        byte_offsets=np.cumsum(lengths) - lengths,
        negative_log_likelihood=surprise,
        entropy=entropy,
        entropy_top16=(entropy * np.float32(0.9)),
        ntp_token_id=np.where(right, ids, guess),
        ntp_correct=right,
    )


def write_corpus(folder: Path, config: Config, positions: int) -> dict[str, Any]:
    """Writes the corpus as `openrpt score` does, and goes on behind the whole shards that are
    there."""
    tokens, summary = vocabulary(), ScoreSummary()
    folder.mkdir(parents=True, exist_ok=True)
    if shards := complete_shards(folder):
        stored = pq.read_schema(shard_paths(folder, shards - 1)[1]).metadata
        summary = ScoreSummary(**json.loads(stored[b"openrpt.summary"]))
    remove_shards(folder, shards)
    pending: list[ScoredDocument] = []
    waiting = spent = written = 0.0
    while summary.num_tokens < positions:
        one = document(summary.documents, tokens)
        pending.append(one)
        waiting += one.num_tokens
        summary.documents += 1
        summary.tokens[one.split] = summary.tokens.get(one.split, 0) + one.num_tokens
        if waiting >= config.score.shard_tokens or summary.num_tokens >= positions:
            summary.shards += 1
            start = time.perf_counter()
            write_shard(folder, summary.shards - 1, pending, {"summary": asdict(summary)})
            spent, written = spent + time.perf_counter() - start, written + waiting
            pending, waiting = [], 0
    about = {"finished": True, "scorer": "synthetic", "tokenizer": "synthetic", "settings": {}}
    write_sealed(folder / SCORED, about | {"summary": asdict(summary)})
    return {
        "documents": summary.documents,
        "positions": summary.num_tokens,
        "shards": summary.shards,
        "tokens_per_second": written / spent if spent else None,
        "bytes_per_token": _bytes_per_token(folder, summary),
    }


def _bytes_per_token(folder: Path, summary: ScoreSummary) -> dict[str, float]:
    """Returns the bytes on disk a token, by column; all else is the files' own."""
    sizes: dict[str, float] = {}
    whole = 0
    for shard in range(summary.shards):
        for path in shard_paths(folder, shard):
            stored = pq.read_metadata(path)
            whole += path.stat().st_size
            for group in range(stored.num_row_groups):
                for column in range(stored.num_columns):
                    chunk = stored.row_group(group).column(column)
                    name = f"{path.name.split('-')[0]}.{chunk.path_in_schema.split('.')[0]}"
                    sizes[name] = sizes.get(name, 0) + chunk.total_compressed_size
    found = {name: size / summary.num_tokens for name, size in sizes.items()}
    return found | {"all": whole / summary.num_tokens}
